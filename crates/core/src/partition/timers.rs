//! What is due at a time.

use std::collections::BTreeSet;

use crate::identity::{JournalTime, RunId};
use crate::plan::NodeIndex;
use crate::run::{Node, Run};

/// Deadlines of runs and retries of nodes, apart: deadlines fire also while no
/// further attempt can be ordered, and must be found without stepping over the
/// retries that wait for that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Timers {
    deadlines: BTreeSet<(JournalTime, RunId)>,
    retries: BTreeSet<(JournalTime, RunId, NodeIndex)>,
    waits: BTreeSet<(JournalTime, RunId, NodeIndex)>,
}

/// Something that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timer {
    /// The run's deadline.
    Deadline(RunId),
    /// The next attempt of a node.
    Retry(RunId, NodeIndex),
    /// The end of a node's wait.
    Wait(RunId, NodeIndex),
}

impl Timers {
    /// The first timer and when it is due; retries only if `retries` may fire.
    pub(super) fn first(&self, retries: bool) -> Option<(JournalTime, Timer)> {
        let deadline = self.deadlines.first().map(|(due, run)| (*due, Timer::Deadline(*run)));
        let retry = self.retries.first().filter(|_| retries);
        let retry = retry.map(|(due, run, node)| (*due, Timer::Retry(*run, *node)));
        let wait = self.waits.first().map(|(due, run, node)| (*due, Timer::Wait(*run, *node)));
        // Of timers due at the same time the deadline comes first, then the wait.
        [deadline, wait, retry].into_iter().flatten().min_by_key(|(due, _)| *due)
    }

    pub(super) fn insert_wait(&mut self, due: JournalTime, run: RunId, node: NodeIndex) {
        self.waits.insert((due, run, node));
    }

    pub(super) fn remove_wait(&mut self, due: JournalTime, run: RunId, node: NodeIndex) {
        self.waits.remove(&(due, run, node));
    }

    pub(super) fn insert_deadline(&mut self, due: JournalTime, run: RunId) {
        self.deadlines.insert((due, run));
    }

    pub(super) fn remove_deadline(&mut self, due: JournalTime, run: RunId) {
        self.deadlines.remove(&(due, run));
    }

    pub(super) fn insert_retry(&mut self, due: JournalTime, run: RunId, node: NodeIndex) {
        self.retries.insert((due, run, node));
    }

    pub(super) fn remove_retry(&mut self, due: JournalTime, run: RunId, node: NodeIndex) {
        self.retries.remove(&(due, run, node));
    }

    /// Drops every timer of `run`, which closes or ends.
    pub(super) fn forget(&mut self, id: RunId, run: &Run) {
        self.deadlines.remove(&(run.deadline, id));
        if self.retries.is_empty() && self.waits.is_empty() {
            return;
        }
        for (index, node) in run.nodes() {
            if let Node::Backoff { due, .. } = node {
                self.retries.remove(&(*due, id, index));
            } else if let Node::Awaiting { due, .. } = node {
                self.waits.remove(&(*due, id, index));
            }
        }
    }
}
