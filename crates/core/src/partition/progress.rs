//! How runs go on by themselves: ready nodes, timers, ends.

use serde_json::json;

use super::cases::{RUN_QUARANTINED, run_case};
use super::held_back::HeldBack;
use super::timers::Timer;
use super::waits::subscribe_of;
use super::{Decision, Partition};
use crate::effect::{Effect, QueuedAttempt, bounded_detail};
use crate::identity::{JournalTime, PartitionId, RunId};
use crate::plan::FailureClass;
use crate::record::{Body, EndReason, Kind, Record, RunClosing, RunQuarantined};
use crate::run::{Phase, Queue, Step};

/// Ready nodes of a run that wait for room elsewhere and are passed by for those behind them.
/// Default 1,024: a run may have a hundred thousand, and each decision about it looks at them again.
/// What is behind them waits with them.
const WAITING_PASSED_MAX: usize = 1_024;

impl Partition {
    /// When the next timer is due that can fire now: retries wait while every
    /// attempt is taken, deadlines and delays do not.
    #[must_use]
    pub fn next_due(&self) -> Option<JournalTime> {
        let timer = self.timers.first(self.has_attempts_left()).map(|(due, _)| due);
        timer.into_iter().chain(self.next_signal_due()).min()
    }

    /// The run whose timer [`Self::fire_timer`] acts on next, if one that can
    /// fire now is due at `time`.
    #[must_use]
    pub fn due_run(&self, time: JournalTime) -> Option<RunId> {
        let (due, timer) = self.timers.first(self.has_attempts_left())?;
        let (Timer::Deadline(run)
        | Timer::Retry(run, _)
        | Timer::Alarm(run, _)
        | Timer::Wait(run, _)) = timer;
        (due <= time).then_some(run)
    }

    /// Acts on the first timer that can fire and is due at the frame's time.
    pub fn fire_timer(&mut self, out: &mut Decision) {
        let first = self.timers.first(self.has_attempts_left());
        let Some((due, timer)) = first.filter(|(due, _)| *due <= self.time) else { return };
        match timer {
            Timer::Deadline(id) if self.runs.contains_key(&id) => {
                self.close(id, EndReason::TimedOut, out);
            }
            Timer::Deadline(_) => self.timers.remove(due, timer),
            Timer::Retry(id, index) | Timer::Alarm(id, index) => {
                match self.runs.get(&id).and_then(|run| run.step(id, index, self.time)) {
                    Some(step) => self.emit_step(step, out),
                    None => self.timers.remove(due, timer),
                }
                // The end of a delay makes others ready, that of a wait may end the run.
                if matches!(timer, Timer::Alarm(..)) {
                    self.advance_run(id, out);
                }
            }
            Timer::Wait(id, index) if self.runs.contains_key(&id) => {
                self.time_wait_out(id, index, out);
            }
            Timer::Wait(..) => self.timers.remove(due, timer),
        }
    }

    /// The run that [`Self::resume`] goes on with next, if a further attempt
    /// can be ordered.
    #[must_use]
    pub fn held_back_run(&self) -> Option<RunId> {
        let waits_for_room = self.outbox_with_room().and_then(|(_, held)| held.front());
        waits_for_room
            .or_else(|| self.held_back.front().filter(|_| self.has_attempts_left()))
            .or_else(|| self.run_with_queue_room())
    }

    /// Runs that waited for room in the outbox of a target that has room now.
    fn outbox_with_room(&self) -> Option<(PartitionId, &HeldBack)> {
        let held = self.outbox_held.iter().map(|(target, held)| (*target, held));
        held.filter(|(_, held)| held.front().is_some())
            .find(|(target, _)| !self.is_outbox_full(*target))
    }

    /// Goes on with the run that a bound has held back longest.
    pub fn resume(&mut self, out: &mut Decision) {
        let target = self.outbox_with_room().map(|(target, _)| target);
        let may_attempt = self.held_back.front().is_some() && self.has_attempts_left();
        let held = target.and_then(|target| self.outbox_held.get_mut(&target));
        let next = match (held, may_attempt) {
            (Some(held), _) => held.pop(),
            (None, true) => self.held_back.pop(),
            (None, false) => self.take_run_with_queue_room(),
        };
        if let Some(id) = next {
            self.advance_run(id, out);
        }
    }

    /// Whether the frame has taken what one frame may: what is ready then waits
    /// for the next one.
    #[must_use]
    pub fn is_frame_full(&self, out: &Decision) -> bool {
        out.records_decided >= self.limits.decision_records_max
            || out.payload_bytes >= self.limits.decision_bytes_max
    }

    pub(super) fn has_attempts_left(&self) -> bool {
        !self.settling && self.running.saturating_sub(self.queued()) < self.limits.attempts_open_max
    }

    /// Ends the run, whatever is under way, because it cannot be decided about;
    /// a person looks at it. Nothing happens if it is not open.
    pub fn quarantine(&mut self, id: RunId, detail: &str, out: &mut Decision) {
        let Some(tenant) = self.runs.get(&id).map(|run| run.tenant.clone()) else { return };
        let detail = bounded_detail(detail);
        let body = RunQuarantined { detail: detail.clone() }.into();
        let quarantined = Record::of_run(&tenant, id, body);
        let waits = self.waits_of(id);
        let recall = self.recall(id);
        if self.evolve(&quarantined).is_ok() {
            out.push(quarantined);
            self.unsubscribe(waits, out);
            out.effects.push(Effect::Abort(id));
            out.effects.extend(recall);
            self.open_run_case(id, &tenant, RUN_QUARANTINED, &json!({ "detail": detail }), out);
        }
    }

    /// Folds `record` and puts it into the decision. A record that would not
    /// fold is refused; if it is a run's, that run is quarantined.
    pub(super) fn emit(&mut self, record: Record, out: &mut Decision) -> bool {
        let Err(corrupt) = self.evolve(&record) else {
            out.push(record);
            return true;
        };
        let is_new = matches!(record.body, Body::RunStarted(_));
        if let Some(id) = record.run.filter(|_| !is_new && record.tenant.is_some()) {
            self.quarantine(id, &corrupt.to_string(), out);
        }
        false
    }

    /// Moves ready nodes on until none is left or a bound is met, and ends the
    /// run if that was the last of it. One that waits for room elsewhere keeps its
    /// place, and those behind it go on, as far as [`WAITING_PASSED_MAX`] allows.
    pub(super) fn advance_run(&mut self, id: RunId, out: &mut Decision) {
        // Ready nodes at the front that wait; what becomes ready comes behind.
        let mut waiting = 0;
        loop {
            let Some(run) = self.runs.get(&id) else { return };
            if let Some(body) = run.ending() {
                return self.end(id, body, out);
            }
            let Some(index) = run.ready_behind(waiting) else { return };
            if waiting >= WAITING_PASSED_MAX {
                return;
            }
            // Known without looking into the node, which may cost an expression.
            let queue = run.executable.node(index).and_then(|node| node.queue.clone());
            if let Some(queue) = queue.filter(|queue| !self.has_queue_room(queue))
                && self.has_attempts_left()
            {
                self.queue_held.push(queue, id);
                waiting += 1;
                continue;
            }
            if self.is_frame_full(out) || !self.has_attempts_left() {
                self.held_back.push(id);
                return;
            }
            let Some(step) = run.step(id, index, self.time) else { return };
            if let Some(target) = self.without_room(&step) {
                self.outbox_held.entry(target).or_default().push(id);
                waiting += 1;
                continue;
            }
            if let Some(queue) = step.queue.as_ref().filter(|to| !self.has_queue_room(&to.name)) {
                self.queue_held.push(queue.name.clone(), id);
                waiting += 1;
                continue;
            }
            self.emit_step(step, out);
        }
    }

    pub(super) fn emit_step(&mut self, step: Step, out: &mut Decision) {
        let Some(id) = step.record.run else { return };
        let subscribe = subscribe_of(&step.record);
        let ordered = self.emit_run_record(id, step.record, out);
        if let (Some(attempt), true) = (step.attempt, ordered) {
            out.effects.push(match step.queue {
                None => Effect::Start(attempt),
                Some(queue) => {
                    let Queue { name: queue, due, idempotent } = *queue;
                    let again = false;
                    let queued = QueuedAttempt { attempt, queue, due, idempotent, again };
                    Effect::Enqueue(Box::new(queued))
                }
            });
        }
        if let (Some(subscribe), true) = (subscribe, ordered) {
            self.subscribe(subscribe, out);
        }
    }

    /// Emits a node's record, see [`Self::emit`]; a node that failed for good
    /// closes its run.
    pub(super) fn emit_run_record(
        &mut self,
        id: RunId,
        record: Record,
        out: &mut Decision,
    ) -> bool {
        let failure = if let Body::NodeFailed(failed) = &record.body {
            Some((failed.class, failed.detail.clone()))
        } else if let Body::NodeUnknown(unknown) = &record.body {
            Some((FailureClass::Unknown, unknown.detail.clone()))
        } else {
            None
        };
        let node = record.node.clone();
        let folded = self.emit(record, out);
        if let (Some((class, detail)), Some(node)) = (failure, node) {
            let open = self.runs.get(&id).is_some_and(|run| *run.phase() == Phase::Open);
            if open {
                self.close(id, EndReason::Failed { node, class, detail }, out);
            }
        }
        folded
    }

    /// Closes the run: nothing new is dispatched, what runs is told to stop.
    pub(super) fn close(&mut self, id: RunId, reason: EndReason, out: &mut Decision) {
        let Some(run) = self.runs.get(&id) else { return };
        let (tenant, running) = (run.tenant.clone(), run.running());
        let waits = self.waits_of(id);
        self.emit(Record::of_run(&tenant, id, RunClosing { reason }.into()), out);
        self.unsubscribe(waits, out);
        if running > 0 {
            out.effects.push(Effect::Abort(id));
            out.effects.extend(self.recall(id));
        }
        self.advance_run(id, out);
    }

    /// Takes the attempts of a run that takes nothing new on back from their queues.
    fn recall(&self, id: RunId) -> Option<Effect> {
        let recall = self.runs.get(&id)?.recall(id)?;
        Some(Effect::Recall(Box::new(recall)))
    }

    fn end(&mut self, id: RunId, body: Body, out: &mut Decision) {
        let Some(run) = self.runs.get(&id) else { return };
        let tenant = run.tenant.clone();
        let failed = body.kind() != Kind::RunSucceeded;
        out.effects.push(Effect::Ended(run.ended(id, self.time, failed)));
        let reason = if let Body::RunFailed(failed) = &body {
            run_case(&failed.reason)
        } else if let Body::RunTimedOut(timed_out) = &body {
            run_case(&timed_out.reason)
        } else {
            None
        };
        self.emit(Record::of_run(&tenant, id, body), out);
        if let Some((reason, detail)) = reason {
            self.open_run_case(id, &tenant, reason, &detail, out);
        }
    }
}
