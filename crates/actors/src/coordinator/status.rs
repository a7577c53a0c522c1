//! How a partition stands, for people.

use fermata_core::partition::Partition;
use fermata_partition::clock::SKEW_ALARM_MS;
use fermata_partition::owner::Owner;

use super::{Coordinator, CoordinatorState};

/// How a partition stands here.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PartitionStatus {
    /// Which.
    pub partition: String,
    /// `owning`, `taking`, `halted` or `draining`.
    pub state: &'static str,
    /// Why it is halted, for people.
    pub reason: Option<String>,
    /// Epoch of the owner.
    pub epoch: u64,
    /// Open runs.
    pub runs: usize,
    /// Attempts that are ordered and have no outcome.
    pub attempts: u32,
    /// Command sequence consumed.
    pub position: u64,
}

impl Coordinator {
    pub(super) fn status(&self, state: &CoordinatorState) -> PartitionStatus {
        let owning = state.owner.as_ref().is_some_and(Owner::is_owning);
        let partition = state.owner.as_ref().map(Owner::partition);
        PartitionStatus {
            partition: self.partition.to_string(),
            state: match (&state.halted, state.draining.is_empty(), owning) {
                (Some(_), _, _) => "halted",
                (None, false, _) => "draining",
                (None, true, true) => "owning",
                (None, true, false) => "taking",
            },
            reason: state.halted.clone(),
            epoch: partition.map_or(0, fermata_core::partition::Partition::epoch),
            runs: partition.map_or(0, Partition::open_runs),
            attempts: partition.map_or(0, fermata_core::partition::Partition::running),
            position: partition.map_or(0, |partition| partition.position().sequence),
        }
    }

    pub(super) fn watch_clock(&self, state: &mut CoordinatorState) {
        let skew = state.owner.as_ref().and_then(|owner| owner.skew_ms(self.ports.clock.now()));
        let alarming = skew.is_some_and(|skew| skew.unsigned_abs() > SKEW_ALARM_MS);
        if alarming && !state.alarmed {
            tracing::error!(partition = %self.partition, skew_ms = skew, "this machine's clock and the broker's differ; set them by NTP");
        }
        state.alarmed = alarming;
    }
}
