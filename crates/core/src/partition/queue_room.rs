//! Room in named queues, each queue by itself: what one is given counts for it
//! alone, and what waits for its room waits for no other.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Partition;
use super::held_back::HeldBack;
use crate::identity::RunId;
use crate::run::Run;

/// Attempts without outcome by queue; a queue without any is not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct QueueCounts(BTreeMap<Arc<str>, u32>);

impl QueueCounts {
    /// Attempts in `queue` that have no outcome.
    pub(super) fn of(&self, queue: &str) -> u32 {
        self.0.get(queue).copied().unwrap_or(0)
    }

    /// Attempts in all queues.
    pub(super) fn total(&self) -> u32 {
        self.0.values().fold(0, |total, attempts| total.saturating_add(*attempts))
    }

    /// A node was in the one queue and is in the other now.
    pub(super) fn moved(&mut self, from: Option<Arc<str>>, to: Option<Arc<str>>) {
        if from == to {
            return;
        }
        if let Some(queue) = from {
            self.leave(&queue);
        }
        if let Some(queue) = to {
            *self.0.entry(queue).or_default() += 1;
        }
    }

    /// Everything that `run` has in queues is in them.
    pub(super) fn enter_all(&mut self, run: &Run) {
        for queue in queues_of(run) {
            *self.0.entry(queue).or_default() += 1;
        }
    }

    /// Nothing of `run` is any more.
    pub(super) fn leave_all(&mut self, run: &Run) {
        for queue in queues_of(run) {
            self.leave(&queue);
        }
    }

    fn leave(&mut self, queue: &Arc<str>) {
        let Some(attempts) = self.0.get_mut(queue) else { return };
        *attempts = attempts.saturating_sub(1);
        if *attempts == 0 {
            self.0.remove(queue);
        }
    }
}

/// The queue of each node of `run` that is in one.
fn queues_of(run: &Run) -> impl Iterator<Item = Arc<str>> {
    // Most runs have none, and many nodes.
    let nodes = (run.queued() > 0).then(|| run.nodes()).into_iter().flatten();
    nodes.filter_map(|(index, _)| run.queue_of(index))
}

/// Runs with a ready node whose queue can be given no further attempt, by queue;
/// queues take turns. Not part of the fold, as all that is held back.
#[derive(Debug, Clone, Default)]
pub(super) struct QueueHeld {
    held: BTreeMap<Arc<str>, HeldBack>,
    /// The queue that had its turn last.
    last: Option<Arc<str>>,
}

impl QueueHeld {
    /// Lets `run` wait for room in `queue`.
    pub(super) fn push(&mut self, queue: Arc<str>, run: RunId) {
        self.held.entry(queue).or_default().push(run);
    }

    /// The queue whose turn it is among those that have room.
    fn next(&self, has_room: impl Fn(&str) -> bool) -> Option<&Arc<str>> {
        let waits = |queue: &&Arc<str>| has_room(queue);
        let behind = self.held.keys().filter(|queue| Some(*queue) > self.last.as_ref());
        behind.chain(self.held.keys()).find(waits)
    }

    /// Takes the run that has waited longest for `queue`.
    fn pop(&mut self, queue: &Arc<str>) -> Option<RunId> {
        self.last = Some(queue.clone());
        let held = self.held.get_mut(queue)?;
        let run = held.pop();
        if held.front().is_none() {
            self.held.remove(queue);
        }
        run
    }
}

impl Partition {
    /// Whether a further attempt can be ordered for `queue`.
    pub(super) fn has_queue_room(&self, queue: &str) -> bool {
        self.has_attempts_left() && self.queued_in.of(queue) < self.limits.queued_open_max
    }

    /// The run that waits for a queue which has room now.
    pub(super) fn run_with_queue_room(&self) -> Option<RunId> {
        let queue = self.queue_held.next(|queue| self.has_queue_room(queue))?;
        self.queue_held.held.get(queue)?.front()
    }

    /// Takes that run.
    pub(super) fn take_run_with_queue_room(&mut self) -> Option<RunId> {
        let queue = self.queue_held.next(|queue| self.has_queue_room(queue))?.clone();
        self.queue_held.pop(&queue)
    }
}
