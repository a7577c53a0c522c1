//! A model of the queue of tasks and of those who serve it.
//!
//! It delivers until a result is stored: to workers that die at it, to two at
//! once, late, and again after a result whose acknowledgement was lost. A task
//! that must not be run twice is run on its first delivery alone, and only once
//! the queue has let go of it. What becomes of tasks that nobody waits for any more
//! is in `taking_back`.

use std::collections::{BTreeMap, BTreeSet};

use fermata_core::effect::{Outcome, QueuedAttempt};
use fermata_core::plan::FailureClass;
use fermata_core::run::AttemptReport;

use super::effects::outcome_frame;
use super::taking_back::{TaskName, Told, name_of};
use super::{EPOCH_MS, Happening, World};
use crate::runner::{Course, report_of};
use crate::trace::Broken;
use crate::worker::Work;

/// How long the broker waits for an acknowledgement, milliseconds.
const WAIT_MS: u64 = 30_000;

/// How long the broker recognises a copy, milliseconds: less than it does, so that
/// owners cannot lean on it.
const WINDOW_MS: u64 = 10_000;

/// Deliveries after which a task counts as one that kills its workers.
const DELIVERIES_MAX: u32 = 5;

/// What waits in queues and is under way for them.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    stored: BTreeMap<u64, Task>,
    /// When a message with this id was stored last.
    ids: BTreeMap<TaskName, u64>,
    /// Results on their way to COMMANDS, and whose they are.
    results: BTreeMap<u64, u64>,
    /// Attempts that must be made once at the most, and were.
    run_once: BTreeSet<TaskName>,
    /// What workers were told.
    pub(super) told: Told,
    /// Deliveries, and those of them that were not the first of their task.
    pub(super) delivered: u64,
    pub(super) redelivered: u64,
    /// Tasks that left the queue unbegun.
    pub(super) taken_back: u64,
}

#[derive(Debug)]
struct Task {
    queued: QueuedAttempt,
    deliveries: u32,
    gone: bool,
}

impl Tasks {
    /// A task leaves the queue, if it is there, and nobody has done it.
    pub(super) fn remove(&mut self, task: u64) {
        if let Some(task) = self.stored.get_mut(&task).filter(|task| !task.gone) {
            task.gone = true;
            self.taken_back += 1;
        }
    }

    /// A result is stored: its task is acknowledged.
    pub(super) fn result_stored(&mut self, result: u64) {
        if let Some(task) = self.results.remove(&result)
            && let Some(task) = self.stored.get_mut(&task)
        {
            task.gone = true;
        }
    }
}

pub(super) fn cancelled() -> Outcome {
    failed(FailureClass::Cancelled)
}

fn failed(class: FailureClass) -> Outcome {
    Outcome::Failed { class, detail: class.as_str().to_owned() }
}

impl World {
    pub(super) fn publish_task(
        &mut self,
        worker: usize,
        queued: Box<QueuedAttempt>,
    ) -> Result<(), Broken> {
        self.invariants.invariant_a_task_was_ordered(&queued.attempt)?;
        let id = name_of(&queued.attempt);
        let forgotten = self.workers.get(worker).is_some_and(|of| of.forgotten.contains(&id));
        if forgotten {
            return Ok(());
        }
        let (lost, unanswered) =
            (self.throws(self.faults.request_lost), self.throws(self.faults.ack_lost));
        let known = self.tasks.ids.get(&id).is_some_and(|at| self.now_ms < at + WINDOW_MS);
        if !lost && !known {
            self.tasks.ids.insert(id.clone(), self.now_ms);
            let task = self.id();
            if let Some(of) = self.workers.get_mut(worker).filter(|_| !unanswered) {
                of.published.insert(id, task);
            }
            let queued = (*queued).clone();
            self.tasks.stored.insert(task, Task { queued, deliveries: 0, gone: false });
            // Now and then nobody serves the queue for long.
            let slow = !self.healed && self.dice.below(8) == 0;
            let after = self.dice.between(1, if slow { 90_000 } else { 1_500 });
            self.after(after, Happening::Task(task));
        }
        if (lost || unanswered) && queued.idempotent {
            // Whoever does not know publishes again, under the same id, but for what must not
            // be there twice: its time tells.
            self.reach_worker(worker, 400, Work::Enqueue(queued));
        }
        Ok(())
    }

    pub(super) fn deliver_task(&mut self, id: u64) -> Result<(), Broken> {
        let wall_ms = EPOCH_MS + self.now_ms;
        let worker = usize::try_from(self.dice.below(self.workers.len() as u64)).unwrap_or(0);
        let known = self.workers.get(worker).filter(|known| known.alive);
        let Some(task) = self.tasks.stored.get_mut(&id) else { return Ok(()) };
        if task.gone || wall_ms >= task.queued.due.0 {
            return Ok(());
        }
        let Some(known) = known else {
            self.after(1_000, Happening::Task(id));
            return Ok(());
        };
        if known.cancelled.contains(&name_of(&task.queued.attempt)) {
            return self.leave_unbegun(id);
        }
        task.deliveries += 1;
        let (queued, deliveries) = (task.queued.clone(), task.deliveries);
        self.tasks.delivered += 1;
        self.tasks.redelivered += u64::from(deliveries > 1);
        let attempt = &queued.attempt;
        self.invariants.invariant_a_task_was_ordered(attempt)?;
        self.say(worker, format_args!("is given {} for time {deliveries}", attempt.key()));
        if !queued.idempotent {
            return self.deliver_once(worker, id, &queued, deliveries);
        }
        if deliveries > DELIVERIES_MAX {
            let report = report_of(attempt, failed(FailureClass::Poisoned));
            self.reach_worker(worker, 1, Work::TaskDone { task: id, report });
            return Ok(());
        }
        let takes_ms = self.run_task(worker, id, &queued)?;
        // Some hang on while another one is given it, most are heard of until they end.
        let paused = !self.healed && self.dice.below(5) == 0;
        let again = if paused { WAIT_MS } else { takes_ms + WAIT_MS };
        self.after(again, Happening::Task(id));
        Ok(())
    }

    /// A worker knows that nobody waits for the task: it lets go of it.
    fn leave_unbegun(&mut self, id: u64) -> Result<(), Broken> {
        if self.throws(self.faults.ack_lost) {
            self.after(WAIT_MS, Happening::Task(id));
        } else {
            self.tasks.remove(id);
        }
        Ok(())
    }

    /// What must not be done twice is done on its first delivery, once the queue
    /// has let go of it; on any other one nobody knows.
    fn deliver_once(
        &mut self,
        worker: usize,
        id: u64,
        queued: &QueuedAttempt,
        deliveries: u32,
    ) -> Result<(), Broken> {
        let confirmed = !self.throws(self.faults.ack_lost);
        let acknowledged = confirmed || self.dice.below(2) == 0;
        if let Some(task) = self.tasks.stored.get_mut(&id) {
            task.gone = acknowledged;
        }
        if deliveries > 1 {
            let report = report_of(&queued.attempt, failed(FailureClass::Unknown));
            self.reach_worker(worker, 1, Work::TaskDone { task: id, report });
        } else if confirmed {
            let attempt = &queued.attempt;
            let again = !self.tasks.run_once.insert(name_of(attempt));
            // What a lost record ordered is ordered again, also what must not be (ADR 33).
            if again && !self.invariants.was_lost(attempt) {
                let detail = format!("attempt {} of {}", attempt.attempt, attempt.key());
                return Err(Broken::new("invariant_a_task_is_run_once", detail));
            }
            self.run_task(worker, id, queued)?;
        } else {
            self.after(WAIT_MS, Happening::Task(id));
        }
        Ok(())
    }

    /// Lets a worker do a task; it may die at it. Returns how long it takes.
    fn run_task(&mut self, worker: usize, id: u64, queued: &QueuedAttempt) -> Result<u64, Broken> {
        let attempt = &queued.attempt;
        let (told, generation) = (&self.tasks.told, self.generation(worker));
        told.invariant_no_task_begins_after_its_worker_was_told(worker, generation, attempt)?;
        let course = Course::draw(attempt, &self.faults, &mut self.dice);
        if let Some(after) = course.commits_after_ms {
            self.after(after, Happening::Commit(attempt.clone()));
        }
        let dies = !self.healed && self.dice.below(4) == 0;
        if !dies {
            let report = report_of(attempt, course.outcome);
            let done = Work::TaskDone { task: id, report };
            self.reach_worker(worker, course.ends_after_ms, done);
        }
        Ok(course.ends_after_ms)
    }

    /// The result goes to COMMANDS until it is stored; a copy may have been before it.
    pub(super) fn task_done(&mut self, worker: usize, task: u64, report: AttemptReport) {
        let result = self.id();
        let Some(frame) = outcome_frame(report) else { return };
        if let Some(known) = self.workers.get_mut(worker) {
            known.runner.outbox.insert(result, frame);
        }
        self.tasks.results.insert(result, task);
        self.publish_outcome_again(worker, result);
    }
}
