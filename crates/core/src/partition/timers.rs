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
}

/// Something that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timer {
    /// The run's deadline.
    Deadline(RunId),
    /// The next attempt of a node.
    Retry(RunId, NodeIndex),
}

impl Timers {
    /// The first timer and when it is due; retries only if `retries` may fire.
    pub(super) fn first(&self, retries: bool) -> Option<(JournalTime, Timer)> {
        let deadline = self.deadlines.first().map(|(due, run)| (*due, Timer::Deadline(*run)));
        let retry = self.retries.first().filter(|_| retries);
        let retry = retry.map(|(due, run, node)| (*due, Timer::Retry(*run, *node)));
        match (deadline, retry) {
            (Some(deadline), Some(retry)) if retry.0 < deadline.0 => Some(retry),
            (deadline, retry) => deadline.or(retry),
        }
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
        if self.retries.is_empty() {
            return;
        }
        for (index, node) in run.nodes() {
            if let Node::Backoff { due, .. } = node {
                self.retries.remove(&(*due, id, index));
            }
        }
    }
}
