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
    /// Why it is halted or comes no further, for people.
    pub reason: Option<String>,
    /// Epoch of the owner.
    pub epoch: u64,
    /// Open runs.
    pub runs: usize,
    /// Attempts that are ordered and have no outcome.
    pub attempts: u32,
    /// Command sequence consumed.
    pub position: u64,
    /// Records in the journal, those decided and not committed included.
    pub records: u64,
    /// Records that the newest signed checkpoint covers: the high-water mark,
    /// behind which the audit log may never be found.
    pub signed_records: u64,
    /// Attempts in named queues that have no outcome, part of `attempts`.
    pub queued: u32,
    /// Those of them that their queue has not taken yet.
    pub queued_waiting: usize,
    /// Queues that take nothing just now.
    pub queues_full: Vec<String>,
    /// Sequence of EVENTS up to which its commands told it that every event has one.
    pub floor: u64,
    /// The first message of EVENTS of which it rejected an event that is not filed.
    pub first_unfiled: Option<u64>,
    /// Keys of events that are kept.
    pub keys: usize,
    /// Ids of commands that are kept.
    pub command_ids: usize,
    /// The most of each that may be kept.
    pub keys_max: usize,
    /// Why EVENTS is not purged although it holds too much; the control partition tells.
    pub events_held: Option<String>,
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
            reason: state.halted.clone().or_else(|| self.standstill()),
            epoch: partition.map_or(0, fermata_core::partition::Partition::epoch),
            runs: partition.map_or(0, Partition::open_runs),
            attempts: partition.map_or(0, fermata_core::partition::Partition::running),
            position: partition.map_or(0, |partition| partition.position().sequence),
            records: state.owner.as_ref().map_or(0, Owner::records),
            signed_records: self.ports.facts.checkpoints.signed(self.partition),
            queued: partition.map_or(0, Partition::queued),
            queued_waiting: state.queues.waiting(),
            queues_full: state.queues.full(),
            floor: partition.map_or(0, Partition::floor),
            first_unfiled: partition.and_then(Partition::first_unfiled),
            keys: partition.map_or(0, Partition::keys_kept),
            command_ids: partition.map_or(0, Partition::command_ids_kept),
            keys_max: self.ports.facts.keys_max,
            events_held: state.events_held.reason(),
        }
    }

    fn standstill(&self) -> Option<String> {
        let now_ms = self.ports.clock.now().monotonic_ms;
        let name = self.partition.to_string();
        let lasting = self.ports.standstills.lasting(now_ms);
        let own = lasting.iter().find(|one| one.partition.as_ref() == Some(&name));
        own.map(ToString::to_string)
    }

    pub(super) fn watch_clock(&self, state: &mut CoordinatorState) {
        let skew = state.owner.as_ref().and_then(|owner| owner.skew_ms(self.ports.clock.now()));
        // Until the broker has told the next owner its time, what was told of the clocks stands.
        let Some(skew) = skew else { return };
        let alarming = skew.unsigned_abs() > SKEW_ALARM_MS;
        match (alarming, state.alarmed) {
            (true, false) => {
                tracing::error!(partition = %self.partition, skew_ms = skew, "this machine's clock and the broker's differ; set them by NTP");
            }
            (false, true) => {
                tracing::info!(partition = %self.partition, skew_ms = skew, "this machine's clock and the broker's agree again");
            }
            (true, true) | (false, false) => {}
        }
        state.alarmed = alarming;
    }
}

/// How a partition stands of which nothing else is said.
#[cfg(test)]
pub(crate) fn status_of(partition: &str, state: &'static str) -> PartitionStatus {
    PartitionStatus {
        partition: partition.to_owned(),
        state,
        reason: None,
        epoch: 1,
        runs: 0,
        attempts: 0,
        position: 0,
        records: 0,
        queued: 0,
        queued_waiting: 0,
        queues_full: Vec::new(),
        signed_records: 0,
        floor: 0,
        first_unfiled: None,
        keys: 0,
        command_ids: 0,
        keys_max: 1,
        events_held: None,
    }
}
