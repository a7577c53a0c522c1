//! When a snapshot is taken, and of what.
//!
//! The owner decides ahead of its append, so its state is never simply the
//! journal's. It is at one moment: when a frame is closed, before anything is
//! decided into the next. The copy is taken there, waits with the frame's
//! effects for the append, and is given out when that is acknowledged. If it is
//! not, the copy is dropped like everything else that was never so.

use super::{Output, Owner, Phase, StandDown};
use crate::message::Now;
use crate::snapshot::{FrameMark, FrozenFold, Snapshot};

/// What was put into snapshots, and when.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    /// A snapshot to begin from, until its plans are at hand.
    restoring: Option<Box<Snapshot>>,
    /// One is taken and not stored yet.
    under_way: bool,
    /// Records before the last one's end.
    records: u64,
    /// When the last one was taken or given up, or the takeover was.
    at_ms: u64,
    /// Bytes of journal appended or replayed since.
    bytes: u64,
    asked: bool,
    /// The last one holds records that the one before does not: what two snapshots stand for
    /// is purged, so it takes one more until all that is idle goes.
    alone: bool,
}

impl Snapshots {
    pub(super) fn begin_from(restoring: Option<Box<Snapshot>>) -> Self {
        Self { restoring, ..Self::default() }
    }
}

impl Owner {
    /// Begins from the snapshot, if there is one and its plans are at hand; asks
    /// for the first that is not. Returns whether the replay can go on.
    pub(super) fn restore(&mut self, outputs: &mut Vec<Output>) -> bool {
        let Some(snapshot) = self.snapshots.restoring.take() else { return true };
        let missing =
            snapshot.plans().into_iter().find(|plan| !self.fold.partition().has_plan(plan));
        if let Some(missing) = missing {
            self.snapshots.restoring = Some(snapshot);
            self.fetch(missing, outputs);
            return false;
        }
        let (sequence, next_index) = (snapshot.sequence(), snapshot.next_index());
        let plans = self.fold.partition().plans().clone();
        match snapshot.restore(self.config.limits, plans) {
            Ok(fold) => self.fold = fold,
            Err(error) => {
                let reason = StandDown::SnapshotUnusable { sequence, detail: error.to_string() };
                self.stand_down(reason, outputs);
                return false;
            }
        }
        self.snapshots.records = next_index;
        outputs.push(Output::Replay { from: sequence + 1 });
        false
    }

    /// The takeover is stored: from here on snapshots may be due.
    pub(super) fn begin_snapshots(&mut self, now: Now) {
        self.snapshots.at_ms = now.monotonic_ms;
    }

    /// Counts what stands in the journal since the last snapshot.
    pub(super) fn count_journal(&mut self, bytes: usize) {
        self.snapshots.bytes = self.snapshots.bytes.saturating_add(bytes as u64);
    }

    /// Somebody wants a snapshot, whether one is due or not.
    pub(super) fn ask_for_snapshot(&mut self) {
        self.snapshots.asked = true;
    }

    /// Whether the next frame is to be the end of a snapshot.
    pub(super) fn is_snapshot_due(&self, now: Now) -> bool {
        let Snapshots { under_way, records, at_ms, bytes, asked, alone, .. } = &self.snapshots;
        if *under_way || self.phase != Phase::Owning {
            return false;
        }
        let policy = &self.config.snapshots;
        let passed_ms = now.monotonic_ms.saturating_sub(*at_ms);
        let since = self.fold.next_index().saturating_sub(*records) + self.builder.len() as u64;
        let much = since >= policy.records_max || *bytes >= policy.bytes_max;
        let long_ago = passed_ms >= policy.interval_ms && (since > 0 || *alone);
        *asked || (passed_ms >= policy.rest_ms && (much || long_ago))
    }

    /// Takes a copy at the end of the frame that was just closed.
    pub(super) fn freeze(&mut self, frame: FrameMark, now: Now) -> FrozenFold {
        let frozen = FrozenFold { last: Some(frame), ..self.fold.freeze() };
        let records = frozen.next_index();
        let (restoring, alone) = (None, records > self.snapshots.records);
        self.snapshots = Snapshots {
            restoring,
            under_way: true,
            records,
            at_ms: now.monotonic_ms,
            bytes: 0,
            asked: false,
            alone,
        };
        frozen
    }

    /// The last snapshot is stored, or came to nothing: then the next is due as
    /// if it had been.
    pub(super) fn snapshot_ended(&mut self) {
        self.snapshots.under_way = false;
    }

    /// Whether a snapshot is taken and not stored yet.
    #[must_use]
    pub fn is_snapshot_under_way(&self) -> bool {
        self.snapshots.under_way
    }
}
