//! The runs that changed last: in memory, not written yet.
//!
//! Most runs begin and end within moments, in several messages of the journal. Each is
//! written when so many others have changed after it, most often once and as it ended. Nobody
//! sees the difference: questions look here as well, and an index that was not closed in
//! order is made anew whatever it has written.

use std::collections::{HashMap, VecDeque};

use crate::query::{Cursor, RunQuery};
use crate::run::RunSummary;

/// Bytes of a run's id.
pub(crate) type RunBytes = [u8; 16];

#[derive(Debug, Default)]
pub(crate) struct Young {
    runs: HashMap<RunBytes, YoungRun>,
    /// In the order in which they came. One that went otherwise is still in it.
    order: VecDeque<RunBytes>,
}

#[derive(Debug)]
pub(crate) struct YoungRun {
    /// As the database has it.
    pub written: Option<RunSummary>,
    /// As it is.
    pub now: RunSummary,
}

impl Young {
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    pub fn get_mut(&mut self, run: RunBytes) -> Option<&mut YoungRun> {
        self.runs.get_mut(&run)
    }

    pub fn get(&self, run: RunBytes) -> Option<&RunSummary> {
        self.runs.get(&run).map(|run| &run.now)
    }

    pub fn contains(&self, place: &Cursor) -> bool {
        self.runs.contains_key(&place.run_bytes())
    }

    pub fn insert(&mut self, run: RunBytes, young: YoungRun) {
        if self.runs.insert(run, young).is_none() {
            self.order.push_back(run);
        }
    }

    pub fn remove(&mut self, run: RunBytes) -> Option<YoungRun> {
        self.runs.remove(&run)
    }

    /// Takes those that came first, at most `most`.
    pub fn take_oldest(&mut self, most: usize) -> Vec<YoungRun> {
        let mut oldest = Vec::with_capacity(most.min(self.runs.len()));
        while oldest.len() < most {
            let Some(run) = self.order.pop_front() else { break };
            oldest.extend(self.runs.remove(&run));
        }
        oldest
    }

    /// The first `most` places that `query` wants, in order.
    pub fn places(&self, query: &RunQuery, most: usize) -> Vec<Cursor> {
        let Some((first, last)) = query.places() else { return Vec::new() };
        let wanted = self.runs.values().filter(|run| query.takes(&run.now));
        let mut places: Vec<Cursor> = wanted
            .map(|run| Cursor::of(&run.now))
            .filter(|place| (&first..=&last).contains(&place))
            .collect();
        if places.len() > most {
            places.select_nth_unstable(most);
            places.truncate(most);
        }
        places.sort_unstable();
        places
    }

    /// Places of those that have ended.
    pub fn ended(&self) -> impl Iterator<Item = Cursor> {
        let ended = self.runs.values().filter(|run| run.now.status.has_ended());
        ended.map(|run| Cursor::of(&run.now))
    }
}
