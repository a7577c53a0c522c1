//! What is due at a time.

use std::collections::BTreeSet;

use crate::identity::{JournalTime, RunId};
use crate::plan::NodeIndex;
use crate::run::{Node, Run};

/// Deadlines of runs, alarms, waits and retries of nodes, apart: all but
/// retries fire also while no further attempt can be ordered, and must be found
/// without stepping over the retries that wait for that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Timers {
    deadlines: BTreeSet<(JournalTime, RunId)>,
    retries: BTreeSet<(JournalTime, RunId, NodeIndex)>,
    alarms: BTreeSet<(JournalTime, RunId, NodeIndex)>,
    waits: BTreeSet<(JournalTime, RunId, NodeIndex)>,
}

/// Something that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timer {
    /// The run's deadline.
    Deadline(RunId),
    /// The next attempt of a node.
    Retry(RunId, NodeIndex),
    /// The end of a delay, or of the wait for a callback or a queue's result.
    Alarm(RunId, NodeIndex),
    /// The end of a node's wait for an event.
    Wait(RunId, NodeIndex),
}

impl Timer {
    /// What the node at `index` of run `id` waits for, and when that is due.
    pub(super) fn of_node(id: RunId, run: &Run, index: NodeIndex) -> Option<(JournalTime, Self)> {
        match run.node(index)? {
            Node::Backoff { due, .. } => Some((*due, Self::Retry(id, index))),
            Node::Delayed { due } | Node::Accepted { due, .. } | Node::Queued { due, .. } => {
                Some((*due, Self::Alarm(id, index)))
            }
            Node::Awaiting { due, .. } => Some((*due, Self::Wait(id, index))),
            Node::Waiting { .. }
            | Node::Ready
            | Node::Dead
            | Node::Running { .. }
            | Node::Succeeded(_)
            | Node::Skipped
            | Node::Failed
            | Node::Unknown => None,
        }
    }
}

impl Timers {
    /// The first timer and when it is due, of equal ones the deadline; retries
    /// only if `retries` may fire.
    pub(super) fn first(&self, retries: bool) -> Option<(JournalTime, Timer)> {
        let deadline = self.deadlines.first().map(|(due, run)| (*due, Timer::Deadline(*run)));
        let alarm = self.alarms.first();
        let alarm = alarm.map(|(due, run, node)| (*due, Timer::Alarm(*run, *node)));
        let retry = self.retries.first().filter(|_| retries);
        let retry = retry.map(|(due, run, node)| (*due, Timer::Retry(*run, *node)));
        let wait = self.waits.first().map(|(due, run, node)| (*due, Timer::Wait(*run, *node)));
        [deadline, alarm, wait, retry].into_iter().flatten().min_by_key(|(due, _)| *due)
    }

    pub(super) fn insert(&mut self, due: JournalTime, timer: Timer) {
        match timer {
            Timer::Deadline(run) => self.deadlines.insert((due, run)),
            Timer::Retry(run, node) => self.retries.insert((due, run, node)),
            Timer::Alarm(run, node) => self.alarms.insert((due, run, node)),
            Timer::Wait(run, node) => self.waits.insert((due, run, node)),
        };
    }

    pub(super) fn remove(&mut self, due: JournalTime, timer: Timer) {
        match timer {
            Timer::Deadline(run) => self.deadlines.remove(&(due, run)),
            Timer::Retry(run, node) => self.retries.remove(&(due, run, node)),
            Timer::Alarm(run, node) => self.alarms.remove(&(due, run, node)),
            Timer::Wait(run, node) => self.waits.remove(&(due, run, node)),
        };
    }

    /// Drops every timer of `run`, which closes or ends.
    pub(super) fn forget(&mut self, id: RunId, run: &Run) {
        self.deadlines.remove(&(run.deadline, id));
        if self.retries.is_empty() && self.alarms.is_empty() && self.waits.is_empty() {
            return;
        }
        for (index, _) in run.nodes() {
            if let Some((due, timer)) = Timer::of_node(id, run, index) {
                self.remove(due, timer);
            }
        }
    }
}
