//! Notices of review cases that wait for a handler, and those that have one.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use fermata_core::effect::CaseNotice;
use ractor::{Actor as _, ActorId, ActorProcessingErr, ActorRef};

use super::{Coordinator, CoordinatorMessage, CoordinatorState};
use crate::escalator::Escalator;

/// Handlers of cases that exist at the same time in a partition; the notices of
/// the others wait.
pub const CASE_HANDLERS_MAX: usize = 64;

/// Pause before a handler that failed is spawned again; doubles up to the maximum.
const AGAIN_AFTER_FIRST: Duration = Duration::from_millis(50);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(5);

/// A notice, and how often its handler has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingCase {
    notice: CaseNotice,
    failures: u32,
}

/// The notices of one coordinator.
#[derive(Debug, Default)]
pub(super) struct Cases {
    waiting: VecDeque<PendingCase>,
    handled: HashMap<ActorId, PendingCase>,
    /// Those whose handlers only wait for targets over HTTP, which bound them.
    delivering: HashMap<ActorId, PendingCase>,
}

impl Cases {
    pub(super) fn add(&mut self, notice: CaseNotice) {
        self.waiting.push_back(PendingCase { notice, failures: 0 });
    }

    pub(super) fn add_again(&mut self, case: PendingCase) {
        self.waiting.push_back(case);
    }

    /// The next one that may have a handler now.
    fn next(&mut self) -> Option<PendingCase> {
        if self.handled.len() < CASE_HANDLERS_MAX { self.waiting.pop_front() } else { None }
    }

    fn spawned(&mut self, handler: ActorId, case: PendingCase) {
        self.handled.insert(handler, case);
    }

    /// A handler has told on the subject; what is left may take long.
    pub(super) fn told(&mut self, handler: ActorId) {
        if let Some(case) = self.handled.remove(&handler) {
            self.delivering.insert(handler, case);
        }
    }

    fn ended(&mut self, handler: ActorId) {
        self.handled.remove(&handler);
        self.delivering.remove(&handler);
    }

    /// A handler failed: what it handled, and when it is to be tried again.
    fn failed(&mut self, handler: ActorId) -> Option<(PendingCase, Duration)> {
        let handled = self.handled.remove(&handler).or_else(|| self.delivering.remove(&handler));
        let PendingCase { notice, failures } = handled?;
        let pause = AGAIN_AFTER_FIRST.saturating_mul(1 << failures.min(10)).min(AGAIN_AFTER_MAX);
        Some((PendingCase { notice, failures: failures.saturating_add(1) }, pause))
    }

    /// The owner is gone; the next one orders again what nobody was told.
    pub(super) fn forget_waiting(&mut self) {
        self.waiting.clear();
    }
}

impl Coordinator {
    /// Spawns the handlers that there is room for.
    pub(super) async fn tell_cases(
        &self,
        myself: &ActorRef<CoordinatorMessage>,
        state: &mut CoordinatorState,
    ) -> Result<(), ActorProcessingErr> {
        while let Some(case) = state.cases.next() {
            let lease = state.lease.view();
            let handler =
                Escalator::new(self.ports.clone(), case.notice.clone(), myself.clone(), lease);
            // Boxed: this future is large, and would be part of every caller's.
            let (handler, _) =
                Box::pin(Escalator::spawn_linked(None, handler, (), myself.get_cell())).await?;
            state.cases.spawned(handler.get_id(), case);
        }
        Ok(())
    }

    /// A handler has ended, well or not: another has room.
    pub(super) async fn case_handler_ended(
        &self,
        myself: &ActorRef<CoordinatorMessage>,
        handler: ActorId,
        error: Option<ActorProcessingErr>,
        state: &mut CoordinatorState,
    ) -> Result<(), ActorProcessingErr> {
        match error {
            None => state.cases.ended(handler),
            Some(error) => {
                if let Some((case, pause)) = state.cases.failed(handler) {
                    let notice = &case.notice;
                    let run = notice.run.map(tracing::field::display);
                    tracing::error!(partition = %self.partition, case = %notice.case, run, failures = case.failures, %error, "the handler of a case failed and is spawned again");
                    let generation = state.generation;
                    drop(myself.send_after(pause, move || {
                        CoordinatorMessage::TellAgain(generation, case)
                    }));
                }
            }
        }
        self.tell_cases(myself, state).await
    }
}

#[cfg(test)]
mod tests {
    use fermata_core::json::Json;
    use uuid::Uuid;

    use super::*;

    fn notice(number: usize) -> CaseNotice {
        CaseNotice {
            case: Uuid::from_u128(number as u128),
            attempt: 1,
            tenant: "acme".parse().unwrap(),
            tier: 3,
            reason: "unmatched".into(),
            run: None,
            detail: Json::null(),
        }
    }

    fn spawn_all(cases: &mut Cases, first: u64) -> u64 {
        let mut next = first;
        while let Some(case) = cases.next() {
            cases.spawned(ActorId::Local(next), case);
            next += 1;
        }
        next - first
    }

    #[test]
    fn there_are_never_more_handlers_than_allowed_and_every_notice_gets_one() {
        let mut cases = Cases::default();
        (0..3 * CASE_HANDLERS_MAX).for_each(|number| cases.add(notice(number)));

        assert_eq!(spawn_all(&mut cases, 0), CASE_HANDLERS_MAX as u64);
        let mut spawned = CASE_HANDLERS_MAX as u64;
        for ended in 0..(3 * CASE_HANDLERS_MAX) as u64 {
            cases.ended(ActorId::Local(ended));
            assert!(cases.handled.len() < CASE_HANDLERS_MAX);
            spawned += spawn_all(&mut cases, spawned);
        }
        assert_eq!(spawned, 3 * CASE_HANDLERS_MAX as u64);
    }

    #[test]
    fn a_handler_that_waits_for_targets_holds_no_other_notice_up() {
        let mut cases = Cases::default();
        (0..=CASE_HANDLERS_MAX).for_each(|number| cases.add(notice(number)));
        spawn_all(&mut cases, 0);

        cases.told(ActorId::Local(0));

        assert_eq!(spawn_all(&mut cases, CASE_HANDLERS_MAX as u64), 1);
        assert!(cases.failed(ActorId::Local(0)).is_some(), "it may still fail");
    }

    #[test]
    fn a_case_whose_handler_failed_is_handled_again_after_a_pause_that_grows_to_its_bound() {
        let mut cases = Cases::default();
        cases.add(notice(7));
        let mut pauses = Vec::new();
        for failure in 0..12 {
            assert_eq!(spawn_all(&mut cases, failure), 1);
            let (case, pause) = cases.failed(ActorId::Local(failure)).unwrap();
            assert_eq!(case.notice, notice(7));
            pauses.push(pause);
            cases.add_again(case);
        }

        assert_eq!(pauses[..2], [AGAIN_AFTER_FIRST, 2 * AGAIN_AFTER_FIRST]);
        assert_eq!(pauses[11], AGAIN_AFTER_MAX);
        assert!(cases.failed(ActorId::Local(11)).is_none(), "told once");
    }
}
