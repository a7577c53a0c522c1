//! Which of many ranges a number is in.

use std::ops::Bound;

use super::pile::{Pile, Together};
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

    /// What one number can be in at most: somewhere where a range begins.
    pub fn heaviest(&self, weight: &impl Fn(u32) -> u64) -> Pile {
        let mut ends: Vec<&Entry> = self.entries.iter().collect();
        ends.sort_by(|one, two| compare_upper(&one.range.upper, &two.range.upper));
        let mut ends = ends.into_iter().peekable();
        let (mut open, mut most, mut at) = (Together::default(), 0, None);
        for Entry { range, rank, .. } in &self.entries {
            while let Some(end) = ends.next_if(|end| !reaches(&end.range.upper, &range.lower)) {
                open.remove(end.rank, weight);
            }
            open.add(*rank, weight);
            if open.weight > most {
                (most, at) = (open.weight, Some(&range.lower));
            }
        }
        let Some(at) = at else { return Pile::default() };
        let found = self.entries.iter().filter(|entry| {
            compare_lower(&entry.range.lower, at).is_le() && reaches(&entry.range.upper, at)
        });
        Pile { weight: most, ranks: found.map(|entry| entry.rank).collect() }
    }

    /// Adds the ranks of all ranges that `number` is in.
    pub fn collect(&self, number: &Number<'_>, found: &mut Vec<u32>) {
        collect(&self.entries, number, found);
    }
}

/// Whether a range with this upper bound has numbers where one with this lower bound begins.
fn reaches(upper: &Bound<Number<'static>>, lower: &Bound<Number<'static>>) -> bool {
    match (upper, lower) {
        (_, Bound::Unbounded) | (Bound::Unbounded, _) => true,
        (upper, Bound::Included(begin)) => ends_after(upper, begin),
        (Bound::Included(end) | Bound::Excluded(end), Bound::Excluded(begin)) => end > begin,
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
