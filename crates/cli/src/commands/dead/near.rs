//! Ids of dead letters that were nearly typed right.

use std::cell::RefCell;
use std::collections::BTreeSet;

use fermata_definitions::{did_you_mean, nearest};
use fermata_wire::dead::DeadLetter;

use crate::error::CliError;

/// Ids of letters that are kept as nearly the one that is looked for. Default 100: the nearest of them are named.
const NEAR_MAX: usize = 100;

/// Ids of letters that differ by a slip from one that is looked for.
#[derive(Debug, Default)]
pub(super) struct NearLetters(RefCell<BTreeSet<String>>);

impl NearLetters {
    /// Whether a letter has the id; notes it if it only nearly has.
    pub(super) fn see(&self, id: &str, letter: &DeadLetter) -> bool {
        let mut near = self.0.borrow_mut();
        let is_it = letter.id == id;
        if !is_it && near.len() < NEAR_MAX && !nearest(id, [letter.id.as_str()]).is_empty() {
            near.insert(letter.id.clone());
        }
        is_it
    }
}

/// That there is no such letter, and which one may be meant.
pub(super) fn not_there(id: &str, near: &NearLetters) -> CliError {
    let near = near.0.borrow();
    let hint = did_you_mean(id, near.iter().map(String::as_str))
        .unwrap_or_else(|| "`fermata dead list` lists them".to_owned());
    CliError::NotFound(format!("there is no dead letter `{id}`; {hint}"))
}
