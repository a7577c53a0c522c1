//! Which of many ranges a number is in.

use std::ops::Bound;

use crate::event::number::Number;
use crate::strategy::event_pattern::{Range, begins_by, compare_lower, compare_upper, ends_after};

/// Ranges in the order of their lower bounds, read as a balanced tree whose
/// nodes know how far the ranges below them reach: what cannot reach the number,
/// or begins beyond it, is left aside by halves.
#[derive(Debug, Default)]
pub(super) struct Intervals {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    range: Range,
    rank: u32,
    /// The highest upper bound in the part of the order whose middle this is.
    reach: Bound<Number<'static>>,
}

impl Intervals {
    pub fn insert(&mut self, range: Range, rank: u32) {
        let reach = range.upper.clone();
        self.entries.push(Entry { range, rank, reach });
    }

    pub fn freeze(&mut self) {
        self.entries.sort_by(|one, two| compare_lower(&one.range.lower, &two.range.lower));
        spread(&mut self.entries);
    }

    /// Adds the ranks of all ranges that `number` is in.
    pub fn collect(&self, number: &Number<'_>, found: &mut Vec<u32>) {
        collect(&self.entries, number, found);
    }
}

/// Sets how far each part of the order reaches, and tells it of the whole.
fn spread(entries: &mut [Entry]) -> Option<Bound<Number<'static>>> {
    let (before, rest) = entries.split_at_mut(entries.len() / 2);
    let (middle, after) = rest.split_first_mut()?;
    for reach in [spread(before), spread(after)].into_iter().flatten() {
        if compare_upper(&reach, &middle.reach).is_gt() {
            middle.reach = reach;
        }
    }
    Some(middle.reach.clone())
}

fn collect(entries: &[Entry], number: &Number<'_>, found: &mut Vec<u32>) {
    let (before, rest) = entries.split_at(entries.len() / 2);
    let Some((middle, after)) = rest.split_first() else { return };
    if !ends_after(&middle.reach, number) {
        return;
    }
    collect(before, number, found);
    if begins_by(&middle.range.lower, number) {
        if ends_after(&middle.range.upper, number) {
            found.push(middle.rank);
        }
        collect(after, number, found);
    }
}
