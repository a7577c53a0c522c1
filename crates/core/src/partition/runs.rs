//! The open runs, so that a copy of all of them is a pointer per shard.

use std::collections::HashMap;
use std::sync::Arc;

use crate::identity::RunId;
use crate::run::Run;

/// Shards of the runs. After a copy was taken the first change to a shard copies
/// its pointers: with 100,000 runs a hundred of them, some microseconds.
const SHARDS: usize = 1_024;

type Shard = HashMap<RunId, Arc<Run>>;

/// Open runs by id. Shards and runs are shared with the copies that were taken,
/// and copied when they are changed next: once after each copy, else a change
/// costs two looks at whether anything is shared.
#[derive(Debug, Clone)]
pub(super) struct Runs {
    shards: Vec<Arc<Shard>>,
    len: usize,
}

/// A copy of the open runs.
#[derive(Debug, Clone)]
pub(super) struct FrozenRuns(Vec<Arc<Shard>>);

impl Default for Runs {
    fn default() -> Self {
        Self { shards: vec![Arc::default(); SHARDS], len: 0 }
    }
}

/// The last bits of a run's id are of a hash.
fn shard_of(id: RunId) -> usize {
    let [.., high, low] = *id.as_uuid().as_bytes();
    usize::from(u16::from_be_bytes([high, low])) % SHARDS
}

impl Runs {
    pub(super) fn get(&self, id: &RunId) -> Option<&Run> {
        self.shards.get(shard_of(*id))?.get(id).map(|run| &**run)
    }

    pub(super) fn contains_key(&self, id: &RunId) -> bool {
        self.get(id).is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The run, to change it.
    pub(super) fn get_mut(&mut self, id: &RunId) -> Option<&mut Run> {
        let shard = self.shards.get_mut(shard_of(*id)).filter(|shard| shard.contains_key(id))?;
        Arc::make_mut(shard).get_mut(id).map(Arc::make_mut)
    }

    pub(super) fn insert(&mut self, id: RunId, run: Run) {
        let Some(shard) = self.shards.get_mut(shard_of(id)) else { return };
        if Arc::make_mut(shard).insert(id, Arc::new(run)).is_none() {
            self.len += 1;
        }
    }

    pub(super) fn remove(&mut self, id: &RunId) {
        let Some(shard) = self.shards.get_mut(shard_of(*id)) else { return };
        if shard.contains_key(id) && Arc::make_mut(shard).remove(id).is_some() {
            self.len -= 1;
        }
    }

    /// Every run, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&RunId, &Run)> {
        self.shards.iter().flat_map(|shard| shard.iter()).map(|(id, run)| (id, &**run))
    }

    pub(super) fn freeze(&self) -> FrozenRuns {
        FrozenRuns(self.shards.clone())
    }
}

impl FrozenRuns {
    /// Every run, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&RunId, &Run)> {
        self.0.iter().flat_map(|shard| shard.iter()).map(|(id, run)| (id, &**run))
    }
}
