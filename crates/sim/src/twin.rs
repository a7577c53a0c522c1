//! A fold that is made anew from a snapshot before each message of its journal.

use std::collections::BTreeMap;

use fermata_audit::{Hash, Tree};
use fermata_partition::auditor::AuditMark;
use fermata_partition::fold::{Decoded, JournalFold};
use fermata_partition::key_hours::HourName;
use fermata_partition::snapshot::SnapshotFile;

use crate::trace::Broken;

/// A mark for a snapshot of `records` records: some tree of that size.
pub(crate) fn some_mark(records: u64) -> AuditMark {
    let frontier = vec![Hash([0; 32]); records.count_ones() as usize];
    let tree = Tree::from_frontier(records, frontier).unwrap_or_default();
    AuditMark { tree, last_leaf: None, journal_sequence: 0, note: String::new() }
}

/// The twin of a fold.
pub(crate) struct Twin {
    fold: JournalFold,
    /// Closed hours, written once.
    hours: BTreeMap<HourName, Vec<u8>>,
}

impl Twin {
    pub(crate) fn of(fold: &JournalFold) -> Self {
        Self { fold: fold.clone(), hours: BTreeMap::new() }
    }

    /// The twin is written as a snapshot, read, and folded on, at every message
    /// of the journal: whatever a snapshot lost would be lost there. `fold` has
    /// folded the message.
    pub(crate) fn invariant_a_snapshot_and_its_tail_are_the_fold(
        &mut self,
        fold: &JournalFold,
        sequence: u64,
        decoded: &Decoded<'_>,
    ) -> Result<(), Broken> {
        let broken =
            |detail: String| Broken::new("invariant_a_snapshot_and_its_tail_are_the_fold", detail);
        // What is audited is held against the real tree elsewhere.
        let frozen = self.fold.freeze();
        let stored = self.hours.keys().cloned().collect::<Vec<_>>();
        let written = frozen.encode(&some_mark(self.fold.next_index()), &stored);
        let written = written.map_err(|error| broken(error.to_string()))?;
        self.hours.extend(written.new_hours.into_iter().map(|file| (file.name, file.bytes)));
        self.hours.retain(|name, _| name.hour >= frozen.first_hour());
        let read = SnapshotFile::decode(fold.partition().id(), &written.bytes);
        let read = read.and_then(|file| file.with_hours(&self.hours));
        let read = read.map_err(|error| broken(format!("{error:?}")))?;
        let plans = fold.partition().plans().clone();
        let twin = read.restore(*fold.partition().limits(), plans);
        self.fold = twin.map_err(|error| broken(format!("{error:?}")))?;
        self.fold.fold(sequence, decoded).map_err(|error| broken(format!("{error:?}")))?;
        let (folded, twin) = (fold.partition(), self.fold.partition());
        if folded.is_like(twin) {
            return Ok(());
        }
        let (folded, twin) = (folded.summary(), twin.summary());
        Err(broken(format!("message {sequence}\n  folded {folded}\n  twin   {twin}")))
    }
}
