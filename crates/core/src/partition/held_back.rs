//! Runs with ready nodes that a bound held back.

use std::collections::{HashSet, VecDeque};

use crate::identity::RunId;

/// Runs that wait to go on, each once, the longest waiting first.
///
/// Not part of the fold: a new owner finds them in the state.
#[derive(Debug, Clone, Default)]
pub(super) struct HeldBack {
    queue: VecDeque<RunId>,
    known: HashSet<RunId>,
}

impl HeldBack {
    /// Lets `run` wait behind the others; one that waits keeps its place.
    pub(super) fn push(&mut self, run: RunId) {
        if self.known.insert(run) {
            self.queue.push_back(run);
        }
    }

    /// The run whose turn is next.
    pub(super) fn front(&self) -> Option<RunId> {
        self.queue.front().copied()
    }

    /// Takes the run whose turn is next.
    pub(super) fn pop(&mut self) -> Option<RunId> {
        let run = self.queue.pop_front()?;
        self.known.remove(&run);
        Some(run)
    }
}

impl FromIterator<RunId> for HeldBack {
    fn from_iter<T: IntoIterator<Item = RunId>>(runs: T) -> Self {
        let mut held_back = Self::default();
        runs.into_iter().for_each(|run| held_back.push(run));
        held_back
    }
}
