//! What the owner wants done and must wait for its auditor.
//!
//! When the auditor lags [`AUDIT_LAG_FRAMES_MAX`](super::AUDIT_LAG_FRAMES_MAX) frames behind, the next
//! frame waits for a permit, and everything behind it with it: no effect starts, and nothing is appended.
//! The wait is not in the coordinator's handler, which goes on answering how the partition stands.

use std::collections::VecDeque;

use fermata_partition::owner::Output;
use ractor::ActorRef;
use tokio::sync::OwnedSemaphorePermit;

use super::state::Task;
use super::{Coordinator, CoordinatorMessage, CoordinatorState};

/// Outputs that wait, in order; the first is a committed frame. Readers wait as well, so what is added
/// meanwhile comes of timers and of attempts under way.
#[derive(Debug, Default)]
pub(super) struct HeldBack {
    outputs: VecDeque<Output>,
    /// Brings the permit.
    waiting: Option<Task>,
}

impl HeldBack {
    pub(super) fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }

    /// Adds `outputs`. What ends the owner ends the wait: all else is in the journal, from where the next
    /// owner does it, and only the end is left to be done and given back.
    pub(super) fn add(&mut self, outputs: impl IntoIterator<Item = Output>) -> Option<Output> {
        for output in outputs {
            if matches!(output, Output::StandDown(_) | Output::Halt(_)) {
                *self = Self::default();
                return Some(output);
            }
            self.outputs.push_back(output);
        }
        None
    }
}

impl Coordinator {
    /// Waits until the auditor takes another frame, beside the handler.
    pub(super) fn wait_for_auditor(
        &self,
        myself: &ActorRef<CoordinatorMessage>,
        state: &mut CoordinatorState,
    ) {
        let (permits, generation) = (state.audit_permits.clone(), state.generation);
        let myself = myself.clone();
        state.held_back.waiting = Some(Task::spawn(async move {
            // Nobody closes it.
            if let Ok(permit) = permits.acquire_owned().await {
                let _ = myself.cast(CoordinatorMessage::AuditorTakes(generation, permit));
            }
        }));
    }

    /// The auditor takes a frame: what waited goes on.
    pub(super) async fn go_on_held_back(
        &self,
        myself: &ActorRef<CoordinatorMessage>,
        permit: OwnedSemaphorePermit,
        state: &mut CoordinatorState,
    ) -> Result<(), ractor::ActorProcessingErr> {
        let outputs = std::mem::take(&mut state.held_back).outputs;
        self.perform_in_order(myself, outputs.into(), Some(permit), state).await
    }
}

#[cfg(test)]
mod tests {
    use fermata_partition::owner::StandDown;

    use super::*;

    fn committed(sequence: u64) -> Output {
        Output::Committed { sequence, frame: None }
    }

    #[test]
    fn what_waits_keeps_its_order_until_the_owner_ends() {
        let mut held_back = HeldBack::default();

        assert!(held_back.add([committed(1), committed(2)]).is_none());
        assert!(held_back.add([committed(3)]).is_none());
        let is = |output: &Output, expected: u64| matches!(output, Output::Committed { sequence, .. } if *sequence == expected);
        assert!(held_back.outputs.iter().zip(1..).all(|(output, expected)| is(output, expected)));
        assert_eq!(held_back.outputs.len(), 3);

        let end = StandDown::Truncated { last_sequence: 0 };
        let ended = held_back.add([committed(4), Output::StandDown(end)]);
        assert!(matches!(ended, Some(Output::StandDown(_))));
        assert!(held_back.is_empty());
    }
}
