//! The strategies that are found by the values at one path.

use std::collections::HashMap;

use super::access::Access;
use super::intervals::Intervals;
use super::pile::Pile;
use super::prefixes::Prefixes;
use crate::event::selection::Selected;
use crate::strategy::event_pattern::{Literal, fold};

#[derive(Debug, Default)]
pub(super) struct FieldIndex {
    texts: HashMap<Box<str>, Vec<u32>>,
    /// Texts in lower case.
    folded: HashMap<Box<str>, Vec<u32>>,
    /// By [`key`](crate::event::number::Number::key), which others may share.
    numbers: HashMap<u64, Vec<u32>>,
    null: Vec<u32>,
    truth: Vec<u32>,
    falsehood: Vec<u32>,
    prefixes: Prefixes,
    /// Backwards.
    suffixes: Prefixes,
    ranges: Intervals,
}

impl FieldIndex {
    pub fn insert(&mut self, access: Access<'_>, rank: u32) {
        match access {
            Access::Equals(Literal::Null) => self.null.push(rank),
            Access::Equals(Literal::Truth(true)) => self.truth.push(rank),
            Access::Equals(Literal::Truth(false)) => self.falsehood.push(rank),
            Access::Equals(Literal::Number(number)) => {
                self.numbers.entry(number.key()).or_default().push(rank);
            }
            Access::Equals(Literal::Text(text)) => {
                self.texts.entry(text.clone()).or_default().push(rank);
            }
            Access::EqualsIgnoreCase(text) => {
                self.folded.entry(text.into()).or_default().push(rank);
            }
            Access::Prefix(text) => self.prefixes.insert(text.bytes().collect(), rank),
            Access::Suffix(text) => self.suffixes.insert(text.bytes().rev().collect(), rank),
            Access::Range(range) => self.ranges.insert(range.clone(), rank),
        }
    }

    /// To be called when all are inserted.
    pub fn freeze(&mut self) {
        self.prefixes.freeze();
        self.suffixes.freeze();
        self.ranges.freeze();
    }

    /// What one value can find at most: of texts from above, since the ones that are most often
    /// waited for need not be in one text.
    pub fn heaviest(&self, weight: &impl Fn(u32) -> u64) -> Pile {
        let text = Pile::heaviest(self.texts.values(), weight)
            .and(Pile::heaviest(self.folded.values(), weight))
            .and(self.prefixes.heaviest(weight))
            .and(self.suffixes.heaviest(weight));
        let number =
            Pile::heaviest(self.numbers.values(), weight).and(self.ranges.heaviest(weight));
        let word = Pile::heaviest([&self.null, &self.truth, &self.falsehood].into_iter(), weight);
        text.or(number).or(word)
    }

    /// Adds the ranks of what finds by `value`, which is neither list nor object.
    pub fn collect(&self, value: &Selected<'_>, found: &mut Vec<u32>) {
        match value {
            Selected::Null => found.extend(&self.null),
            Selected::Truth(true) => found.extend(&self.truth),
            Selected::Truth(false) => found.extend(&self.falsehood),
            Selected::Number(number) => {
                found.extend(self.numbers.get(&number.key()).into_iter().flatten());
                self.ranges.collect(number, found);
            }
            Selected::Text(text) => {
                found.extend(self.texts.get(&**text).into_iter().flatten());
                if !self.folded.is_empty() {
                    let folded: String = fold(text).collect();
                    found.extend(self.folded.get(&*folded).into_iter().flatten());
                }
                self.prefixes.collect(text.as_bytes(), found);
                if !self.suffixes.is_empty() {
                    let backwards: Vec<u8> = text.bytes().rev().collect();
                    self.suffixes.collect(&backwards, found);
                }
            }
            Selected::List(_) | Selected::Fields(_) | Selected::Unreadable => {}
        }
    }
}
