//! An index of runs in memory: the model that the one in sled is compared with.

use std::collections::{BTreeMap, HashMap};

use fermata_core::identity::{PartitionId, RunId};

use crate::frame::FrameChanges;
use crate::index::{Applied, Origin, Position, RunIndex, StoreError, kept_when_full};
use crate::query::{Cursor, RunPage, RunQuery};
use crate::run::RunSummary;

/// An index of runs in memory. It looks at every run for every question.
#[derive(Debug, Clone)]
pub struct MemoryIndex {
    positions: BTreeMap<PartitionId, Position>,
    runs: HashMap<RunId, RunSummary>,
    order: BTreeMap<Cursor, RunId>,
    runs_max: u64,
    left_out_until_ms: Option<u64>,
}

impl MemoryIndex {
    /// An empty index of the journals in `origin` that holds at most `runs_max` runs, those
    /// that have not ended aside.
    #[must_use]
    pub fn new(origin: &Origin, runs_max: u64) -> Self {
        let start = |stream: &crate::index::StreamOrigin| (stream.partition, Position::START);
        Self {
            positions: origin.streams.iter().map(start).collect(),
            runs: HashMap::new(),
            order: BTreeMap::new(),
            runs_max,
            left_out_until_ms: None,
        }
    }

    fn leave_out(&mut self) {
        if self.runs() <= self.runs_max {
            return;
        }
        while self.runs() > kept_when_full(self.runs_max) {
            let ended = |run: &RunId| self.runs.get(run).is_some_and(|run| run.status.has_ended());
            let oldest = self.order.iter().rev().find(|(_, run)| ended(run));
            let Some((place, run)) = oldest.map(|(place, run)| (*place, *run)) else { return };
            self.order.remove(&place);
            let started = self.runs.remove(&run).map(|run| run.started_ms);
            self.left_out_until_ms = self.left_out_until_ms.max(started);
        }
    }
}

impl RunIndex for MemoryIndex {
    fn apply(&mut self, frame: &FrameChanges) -> Result<Applied, StoreError> {
        let position = self.position(frame.partition)?;
        if frame.sequence <= position.sequence {
            return Ok(Applied::Known);
        }
        for change in &frame.runs {
            let before = self.runs.get(&change.run).cloned();
            let old = before.as_ref().map(Cursor::of);
            let Some(after) = change.after(before) else { continue };
            if let Some(old) = old {
                self.order.remove(&old);
            }
            self.order.insert(Cursor::of(&after), change.run);
            self.runs.insert(change.run, after);
        }
        self.left_out_until_ms = self.left_out_until_ms.max(frame.missing_until_ms);
        self.positions.insert(frame.partition, position.after(frame));
        self.leave_out();
        Ok(Applied::Taken)
    }

    fn position(&self, partition: PartitionId) -> Result<Position, StoreError> {
        let found = self.positions.get(&partition).copied();
        found.ok_or(StoreError::UnknownPartition(partition))
    }

    fn list(&mut self, query: &RunQuery) -> Result<RunPage, StoreError> {
        let behind = |place: &Cursor| query.after.is_none_or(|after| *place > after);
        let places = self.order.iter().filter(|(place, _)| behind(place));
        let mut wanted =
            places.filter_map(|(_, run)| self.runs.get(run)).filter(|run| query.takes(run));
        let runs: Vec<_> = wanted.by_ref().take(query.page_runs()).cloned().collect();
        let more = wanted.next().is_some();
        Ok(RunPage { next: runs.last().filter(|_| more).map(Cursor::of), runs })
    }

    fn get(&mut self, run: RunId) -> Result<Option<RunSummary>, StoreError> {
        Ok(self.runs.get(&run).cloned())
    }

    fn runs(&self) -> u64 {
        self.runs.len() as u64
    }

    fn left_out_until_ms(&self) -> Option<u64> {
        self.left_out_until_ms
    }
}
