//! Before a partition is given away: no further attempt is ordered, and those
//! that were are with the runner, where they can be waited for.
//!
//! The owner goes on deciding meanwhile: events come in, outcomes are recorded,
//! and what becomes ready waits in the state, from where the next owner orders it.

use fermata_partition::owner::{Input, Owner};
use ractor::{ActorProcessingErr, ActorRef, RpcReplyPort};

use super::{Coordinator, CoordinatorMessage, CoordinatorState};

/// Journal messages that may hold an order which was decided before: the one
/// that is being appended, and the one that was open.
const FRAMES_AHEAD: u64 = 2;

/// Who waits until nothing more is handed to the runner.
#[derive(Debug, Default)]
pub(super) struct Settling {
    /// Newest message of the journal that this owner knows to be stored.
    committed: u64,
    begun: bool,
    /// With the message by which their wait is over under steady load.
    waiting: Vec<(u64, RpcReplyPort<()>)>,
}

impl Settling {
    pub(super) fn committed(&mut self, sequence: u64) {
        self.committed = sequence;
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    fn begin(&mut self, reply: RpcReplyPort<()>) {
        self.begun = true;
        self.waiting.push((self.committed + FRAMES_AHEAD, reply));
    }
}

impl Coordinator {
    pub(super) async fn settle(
        &self,
        myself: &ActorRef<CoordinatorMessage>,
        reply: RpcReplyPort<()>,
        state: &mut CoordinatorState,
    ) -> Result<(), ActorProcessingErr> {
        state.settling.begin(reply);
        let generation = state.generation;
        self.feed(myself, generation, [Input::Settle], state).await
    }
}

impl CoordinatorState {
    /// Answers those whose wait is over.
    pub(super) fn tell_settled(&mut self) {
        let handed_out = self.owner.as_ref().is_none_or(Owner::has_handed_out);
        let holds_gated = self.owner.as_ref().is_some_and(Owner::holds_gated);
        let committed = self.settling.committed;
        let is_over = |after: u64| handed_out || (committed >= after && !holds_gated);
        let waiting = std::mem::take(&mut self.settling.waiting);
        for (after, reply) in waiting {
            if is_over(after) {
                // Whoever asked may wait no longer.
                let _ = reply.send(());
            } else {
                self.settling.waiting.push((after, reply));
            }
        }
    }
}
