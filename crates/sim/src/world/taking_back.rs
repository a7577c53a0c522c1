//! Tasks of runs that close, taken back: what their owner forgets, removes from
//! the queue and tells the workers, each of which hears it, late or never.

use std::collections::BTreeSet;
use std::sync::Arc;

use fermata_core::effect::{Attempt, Recall};
use fermata_core::identity::RunId;
use fermata_core::run::AttemptReport;

use super::tasks::cancelled;
use super::{Happening, World};
use crate::trace::Broken;
use crate::worker::Work;

/// Names an attempt.
pub(crate) type TaskName = (RunId, Arc<str>, u32);

pub(super) fn name_of(attempt: &Attempt) -> TaskName {
    (attempt.run, attempt.node.clone(), attempt.attempt)
}

/// What the workers of queues were told, as an observer knows it: worker, how often
/// it had been started, task.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeSet<(usize, u64, TaskName)>);

impl Told {
    /// A worker that was told that a task's node has its outcome does not begin it,
    /// whatever the queue delivers.
    pub(super) fn invariant_no_task_begins_after_its_worker_was_told(
        &self,
        worker: usize,
        generation: u64,
        attempt: &Attempt,
    ) -> Result<(), Broken> {
        if !self.0.contains(&(worker, generation, name_of(attempt))) {
            return Ok(());
        }
        let (key, number) = (attempt.key(), attempt.attempt);
        let detail = format!("worker {worker} begins attempt {number} of {key}");
        Err(Broken::new("invariant_no_task_begins_after_its_worker_was_told", detail))
    }
}

impl World {
    /// What the shell does with attempts of a run that closes: those on their way are
    /// forgotten, those whose place is known removed, the workers told, and the owner
    /// waits for none of it.
    pub(super) fn recall(&mut self, worker: usize, recall: Recall) {
        for (node, attempt, _) in recall.tasks {
            self.take_back(worker, (recall.run, node.clone(), attempt));
            let report = AttemptReport {
                run: recall.run,
                node,
                activation: 1,
                attempt,
                tenant: Some(recall.tenant.clone()),
                outcome: cancelled(),
            };
            self.reach_worker(worker, 20, Work::Recalled(report));
        }
    }

    fn take_back(&mut self, worker: usize, name: TaskName) {
        let Some(known) = self.workers.get_mut(worker) else { return };
        let place = known.published.get(&name).copied();
        known.forgotten.insert(name.clone());
        if let Some(task) = place
            && !self.throws(self.faults.request_lost)
        {
            let after = self.dice.between(1, 400);
            self.after(after, Happening::RemoveTask(task));
        }
        for told in 0..self.workers.len() {
            // Nobody stores what is told here.
            if !self.throws(self.faults.request_lost) {
                let after = self.dice.between(1, 800);
                self.reach_worker(told, after, Work::CancelTask(name.clone()));
            }
        }
    }

    /// A worker of the queue is told; one that is at the task ends as it would have.
    pub(super) fn cancel_task(&mut self, worker: usize, name: TaskName) {
        let generation = self.generation(worker);
        self.tasks.told.0.insert((worker, generation, name.clone()));
        if let Some(known) = self.workers.get_mut(worker) {
            known.cancelled.insert(name);
        }
    }
}
