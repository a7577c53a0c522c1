//! Finding the next pair where the two streams agree again, so that one record
//! too many is one finding and not a changed record at every later index.

use std::collections::{HashMap, VecDeque};

use crate::hash::Hash;
use crate::verify::side::Entry;

/// How far ahead a counterpart is sought, in records of each stream: the longest
/// run of added or missing records that is recognised as such. A longer run in
/// the middle of a stream is reported as changed records.
pub const LOOK_AHEAD: usize = 1_024;

/// How far a record is sought by header or commitment alone, in records.
const RESEMBLANCE_DISTANCE: usize = 64;

/// What has no counterpart at its place: a record, an entry, or one of each that
/// differ.
#[derive(Debug, Clone, Copy)]
pub(super) struct Loose {
    pub(super) journal: Option<Entry>,
    pub(super) audit: Option<Entry>,
    /// Places at which both streams stood.
    pub(super) journal_position: u64,
    pub(super) audit_position: u64,
    /// Whether the stream that lacks it leaves numbers out here.
    pub(super) skipped: bool,
}

/// How many entries of each head to pass over until a record meets its own
/// entry; the fewest together.
pub(super) fn resynchronise(
    journal: &VecDeque<Entry>,
    audit: &VecDeque<Entry>,
) -> Option<(usize, usize)> {
    let mut places: HashMap<Hash, usize> = HashMap::new();
    for (place, entry) in audit.iter().take(LOOK_AHEAD).enumerate() {
        places.entry(entry.leaf).or_insert(place);
        places.entry(entry.stored).or_insert(place);
    }
    let found = |(place, record): (usize, &Entry)| Some((place, *places.get(&record.leaf)?));
    journal.iter().take(LOOK_AHEAD).enumerate().filter_map(found).min_by_key(|(one, other)| {
        // Of two ways that pass over equally many, the one that pairs more.
        (one + other, one.abs_diff(*other))
    })
}

/// Pairs two runs that have no leaf in common, by what resembles.
pub(super) fn pair_up(
    journal: Vec<Entry>,
    audit: Vec<Entry>,
) -> Vec<(Option<Entry>, Option<Entry>)> {
    let mut pairs = Vec::with_capacity(journal.len().max(audit.len()));
    let mut journal = VecDeque::from(journal);
    let mut audit = VecDeque::from(audit);
    while let (Some(record), Some(entry)) = (journal.front(), audit.front()) {
        let ahead = |one: &VecDeque<Entry>, sought: &dyn Fn(&Entry) -> bool| {
            one.iter().take(RESEMBLANCE_DISTANCE).position(sought)
        };
        let in_journal = ahead(&journal, &|other| other.resembles(entry));
        let in_audit = ahead(&audit, &|other| record.resembles(other));
        // Nothing resembles: they are taken for each other.
        let skip_journal = in_journal.unwrap_or(usize::MAX);
        let skip_audit = in_audit.unwrap_or(usize::MAX);
        if skip_journal == skip_audit || skip_journal == 0 || skip_audit == 0 {
            pairs.push((journal.pop_front(), audit.pop_front()));
        } else if skip_journal < skip_audit {
            pairs.extend(journal.drain(..skip_journal).map(|record| (Some(record), None)));
        } else {
            pairs.extend(audit.drain(..skip_audit).map(|entry| (None, Some(entry))));
        }
    }
    pairs.extend(journal.into_iter().map(|record| (Some(record), None)));
    pairs.extend(audit.into_iter().map(|entry| (None, Some(entry))));
    pairs
}
