//! One of the two streams under comparison: its tree, its unpaired head, and
//! whether its numbering runs on.

use std::collections::VecDeque;

use crate::hash::Hash;
use crate::tree::Tree;
use crate::verify::finding::{Finding, Stream};

/// What is kept of a record or entry until its counterpart arrives: a fixed
/// size, whatever the size of header and payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// Place in its stream.
    pub(super) position: u64,
    /// Index that it carries.
    pub(super) declared: u64,
    /// SHA-256 of the header.
    pub(super) header: Hash,
    pub(super) commitment: [u8; 32],
    /// Leaf as recomputed.
    pub(super) leaf: Hash,
    /// Leaf as stored; of a journal record, which stores none, as recomputed.
    pub(super) stored: Hash,
}

impl Entry {
    /// Whether a record and an entry are each other's, changed leaf or not.
    pub(super) fn is_counterpart(&self, entry: &Entry) -> bool {
        self.leaf == entry.leaf || self.leaf == entry.stored
    }

    /// Whether both have the header or the commitment in common.
    pub(super) fn resembles(&self, entry: &Entry) -> bool {
        self.header == entry.header || self.commitment == entry.commitment
    }
}

/// One stream.
#[derive(Debug)]
pub(super) struct Side {
    stream: Stream,
    pub(super) tree: Tree,
    pub(super) pending: VecDeque<Entry>,
    pub(super) ended: bool,
    /// Index carried by the last entry that left `pending`.
    last_declared: Option<u64>,
    /// Carried index less place, as the entries so far have it.
    offset: i128,
    /// Another offset, seen once.
    deviation: Option<i128>,
    /// The next pair sets a new offset: records were added or are missing here.
    renumbers: bool,
}

impl Side {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            tree: Tree::new(),
            pending: VecDeque::new(),
            ended: false,
            last_declared: None,
            offset: 0,
            deviation: None,
            renumbers: false,
        }
    }

    pub(super) fn push(&mut self, entry: Entry) {
        self.tree.push(entry.leaf);
        self.pending.push_back(entry);
    }

    /// Takes up to `count` entries off the head.
    pub(super) fn take(&mut self, count: usize) -> Vec<Entry> {
        let taken: Vec<_> = self.pending.drain(..count.min(self.pending.len())).collect();
        self.last_declared = taken.last().map(|entry| entry.declared).or(self.last_declared);
        taken
    }

    /// Whether, after `count` more entries, the carried indices leave numbers out.
    pub(super) fn skips_numbers_after(&self, count: usize) -> bool {
        let Some(next) = self.pending.get(count) else { return self.ended };
        let first = self.last_declared.map_or(0, |last| u128::from(last) + 1);
        u128::from(next.declared) > first + count as u128
    }

    /// Allows the next pair to start a new numbering.
    pub(super) fn renumber(&mut self) {
        self.renumbers = true;
    }

    /// Checks that `entry` carries the index that follows.
    pub(super) fn check_number(&mut self, entry: &Entry) -> Option<Finding> {
        self.last_declared = Some(entry.declared);
        let offset = i128::from(entry.declared) - i128::from(entry.position);
        if offset == self.offset {
            self.deviation = None;
        } else if self.renumbers || self.deviation == Some(offset) {
            self.offset = offset;
            self.deviation = None;
        } else {
            self.deviation = Some(offset);
            return Some(Finding::Misnumbered {
                index: entry.position,
                declared: entry.declared,
                stream: self.stream,
            });
        }
        self.renumbers = false;
        None
    }
}
