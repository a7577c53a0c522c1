//! Giving a partition away, so that nothing that it ordered is done twice.
//!
//! What an owner ordered and nobody saw end is ordered again by the next one. So
//! before an owner leaves, it orders nothing more, and those attempts that are
//! under way in this process come to their end and into the journal: as long as
//! they need, up to a limit. Only then does it stop and is the lease released.

use std::time::{Duration, Instant};

use fermata_core::identity::PartitionId;
use ractor::ActorRef;
use ractor::rpc::CallResult;

use crate::coordinator::CoordinatorMessage;
use crate::node_runner::NodeRunnerMessage;
use crate::supervisor::DRAIN_LIMIT;

/// How long attempts that are under way may take to end before a partition is
/// given away all the same, unless something else is said: as long as the usual
/// time between SIGTERM and SIGKILL (30 s) leaves.
pub const ATTEMPTS_LIMIT_DEFAULT: Duration = Duration::from_secs(20);

/// What is given away, and by whom it was carried out.
#[derive(Debug, Clone)]
pub struct HandOver {
    /// The partition.
    pub partition: PartitionId,
    /// Its coordinator.
    pub coordinator: ActorRef<CoordinatorMessage>,
    /// The runner of this process.
    pub runner: Option<ActorRef<NodeRunnerMessage>>,
    /// How long attempts may take to end.
    pub limit: Duration,
}

impl HandOver {
    /// Lets attempts end, then stops the coordinator when everything decided is
    /// committed. Returns whether every attempt has ended: then the lease may be
    /// released at once, as nothing of this partition is under way here.
    ///
    /// # Cancel safety
    ///
    /// As if the coordinator ended meanwhile.
    pub async fn carry_out(&self) -> bool {
        let settled = self.settle().await;
        let drained = self.coordinator.call(CoordinatorMessage::Drain, Some(DRAIN_LIMIT)).await;
        let _ = self.coordinator.stop_and_wait(None, Some(DRAIN_LIMIT)).await;
        settled && matches!(drained, Ok(CallResult::Success(())))
    }

    async fn settle(&self) -> bool {
        if self.limit.is_zero() {
            return false;
        }
        let begun = Instant::now();
        let handed_out = self.coordinator.call(CoordinatorMessage::Settle, Some(self.limit)).await;
        let Some(runner) = &self.runner else { return true };
        if !matches!(handed_out, Ok(CallResult::Success(()))) {
            return false;
        }
        let left = self.limit.saturating_sub(begun.elapsed());
        let idle = |reply| NodeRunnerMessage::Idle(self.partition, reply);
        matches!(runner.call(idle, Some(left)).await, Ok(CallResult::Success(())))
    }
}
