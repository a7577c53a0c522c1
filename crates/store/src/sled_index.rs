//! The index of runs in sled.
//!
//! The newest runs are in memory ([`crate::young`]), the others in the database. What the
//! index says of itself, header and positions, is written when it is closed: an index that was
//! not closed is never read.

use std::collections::BTreeMap;
use std::path::Path;

use fermata_core::digest::Digest;
use fermata_core::identity::{PartitionId, RunId};
use sled::{Batch, Db, IVec};

use crate::folder::StoreLimits;
use crate::frame::FrameChanges;
use crate::guarded_db::GuardedDb;
use crate::index::{Applied, Origin, Position, RunIndex, StoreError, kept_when_full};
use crate::query::{Cursor, RunPage, RunQuery};
use crate::rows::{
    HEADER_KEY, HeaderRow, RowSum, SCHEMA, StreamRow, decode, encode, encode_run, ended_ranges,
    id_key, id_row, is_run_key, is_stream_key, place_keys, place_of, place_ranges, run_key,
    run_key_at, state_digest, stream_key,
};
use crate::run::{RunStatus, RunSummary};
use crate::young::{Young, YoungRun};

/// After how many messages the room on disk is looked at.
const FRAMES_PER_LOOK: u32 = 1_024;

/// Runs that are written at once, of those that have to be.
const RUNS_PER_BATCH: usize = 256;

#[derive(Debug)]
pub(crate) struct SledIndex {
    db: GuardedDb,
    /// Its sum is over what is written, its count over all.
    header: HeaderRow,
    streams: BTreeMap<PartitionId, StreamRow>,
    young: Young,
    limits: StoreLimits,
    frames: u32,
}

impl SledIndex {
    /// An index in a folder that is not there yet.
    pub fn create(path: &Path, origin: &Origin, limits: StoreLimits) -> Result<Self, StoreError> {
        let db = GuardedDb::open(path, limits.cache_bytes)?;
        let header = HeaderRow {
            schema: SCHEMA,
            engine: origin.engine.clone(),
            runs: 0,
            sum: RowSum::default(),
            left_out_until_ms: None,
        };
        let row = |origin: &crate::index::StreamOrigin| {
            let row = StreamRow { origin: origin.clone(), position: Position::START };
            (origin.partition, row)
        };
        let streams = origin.streams.iter().map(row).collect();
        Ok(Self { db, header, streams, young: Young::default(), limits, frames: 0 })
    }

    /// The index that was closed in `path` with this digest of its state.
    ///
    /// Reads every row once: what sled tells of damage is not all there is.
    pub fn open(
        path: &Path,
        origin: &Origin,
        limits: StoreLimits,
        closed: Digest,
    ) -> Result<Self, StoreError> {
        let mut db = GuardedDb::open(path, limits.cache_bytes)?;
        let found = db.with(|db| db.get(HEADER_KEY))?;
        let mut index = Self {
            db,
            header: decode(&found.ok_or(StoreError::Damaged("it is empty"))?, "its header")?,
            streams: BTreeMap::new(),
            young: Young::default(),
            limits,
            frames: 0,
        };
        if index.header.schema != SCHEMA || index.header.engine != origin.engine {
            return Err(StoreError::Damaged("it is of another engine or program"));
        }
        index.read_all()?;
        if index.state()? != closed {
            return Err(StoreError::Damaged("it is not as it was closed"));
        }
        let origins = index.streams.values().map(|row| &row.origin);
        if !origins.eq(&origin.streams) {
            return Err(StoreError::Damaged("it was made from other journals"));
        }
        Ok(index)
    }

    fn read_all(&mut self) -> Result<(), StoreError> {
        let (sum, runs, streams) = self.db.with(|db| {
            let (mut sum, mut runs, mut streams) = (RowSum::default(), 0_u64, Vec::new());
            for row in db.iter() {
                let (key, value) = row?;
                if is_stream_key(&key) {
                    streams.push(value);
                } else if key != HEADER_KEY {
                    sum.add(&key, &value);
                    runs += u64::from(is_run_key(&key));
                }
            }
            Ok((sum, runs, streams))
        })?;
        if sum != self.header.sum || runs != self.header.runs {
            return Err(StoreError::Damaged("rows are missing or changed"));
        }
        for row in streams {
            let row: StreamRow = decode(&row, "a position")?;
            self.streams.insert(row.origin.partition, row);
        }
        Ok(())
    }

    fn state(&self) -> Result<Digest, StoreError> {
        let streams = self.streams.values().map(encode).collect::<Result<Vec<_>, _>>()?;
        Ok(state_digest(&encode(&self.header)?, &streams))
    }

    /// Writes everything to disk and closes; tells what to open it with.
    pub fn close(mut self) -> Result<Digest, StoreError> {
        self.write_oldest(0)?;
        let mut batch = Batch::default();
        batch.insert(HEADER_KEY, encode(&self.header)?);
        for (partition, row) in &self.streams {
            batch.insert(stream_key(*partition), encode(row)?);
        }
        self.db.with(|db| db.apply_batch(batch))?;
        let state = self.state()?;
        self.db.close()?;
        Ok(state)
    }

    /// Bytes on disk.
    pub fn size_bytes(&mut self) -> Result<u64, StoreError> {
        self.db.with(Db::size_on_disk)
    }

    fn written(&mut self, run: RunId) -> Result<Option<RunSummary>, StoreError> {
        let found = self.db.with(|db| db.get(id_key(run)))?;
        let Some(place) = found else { return Ok(None) };
        let key = run_key_at(run, &place)?;
        let row = self.db.with(|db| db.get(key))?;
        let row = row.ok_or(StoreError::Damaged("an id without its run"))?;
        decode(&row, "a run").map(Some)
    }

    /// Writes the runs that came first until at most `kept` are not written.
    fn write_oldest(&mut self, kept: usize) -> Result<(), StoreError> {
        while self.young.len() > kept {
            let most = (self.young.len() - kept).min(RUNS_PER_BATCH);
            let mut batch = Batch::default();
            for YoungRun { written, now } in self.young.take_oldest(most) {
                self.write(written.as_ref(), Some(&now), &mut batch)?;
            }
            self.db.with(|db| db.apply_batch(batch))?;
        }
        Ok(())
    }

    /// Writes `after` in the place of `before`, what did not change aside.
    fn write(
        &mut self,
        before: Option<&RunSummary>,
        after: Option<&RunSummary>,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        let sum = &mut self.header.sum;
        // Nothing else in the keys of its places ever changes.
        let moved = before.map(|run| run.status) != after.map(|run| run.status);
        if let Some(run) = before {
            let (key, row) = (run_key(run.status, &Cursor::of(run)), encode_run(run)?);
            sum.take(&key, &row);
            if moved {
                batch.remove(key);
                sum.take(&id_key(run.id), &id_row(run));
                for key in place_keys(run) {
                    sum.take(&key, &[]);
                    batch.remove(key);
                }
            }
            if after.is_none() {
                batch.remove(&id_key(run.id));
            }
        }
        if let Some(run) = after {
            let (key, row) = (run_key(run.status, &Cursor::of(run)), encode_run(run)?);
            sum.add(&key, &row);
            batch.insert(key, row);
            if moved {
                let (key, row) = (id_key(run.id), id_row(run));
                sum.add(&key, &row);
                batch.insert(&key, &row);
                for key in place_keys(run) {
                    sum.add(&key, &[]);
                    batch.insert(key, &[]);
                }
            }
        }
        Ok(())
    }

    /// Leaves the oldest runs out that have ended, when there are too many.
    fn leave_out(&mut self) -> Result<(), StoreError> {
        if self.header.runs <= self.limits.runs_max {
            return Ok(());
        }
        let excess = self.header.runs - kept_when_full(self.limits.runs_max);
        let excess = usize::try_from(excess).unwrap_or(usize::MAX);
        let young = &self.young;
        let mut oldest = self.db.with(|db| oldest_ended(db, young, excess))?;
        oldest.extend(young.ended().map(|place| (place, None)));
        oldest.sort_unstable_by(|(one, _), (other, _)| other.cmp(one));
        oldest.truncate(excess);
        let mut batch = Batch::default();
        for (place, row) in oldest {
            let run = match row {
                Some(row) => Some(decode::<RunSummary>(&row, "a run")?),
                None => self.young.remove(place.run_bytes()).and_then(|run| run.written),
            };
            self.write(run.as_ref(), None, &mut batch)?;
            self.header.runs -= 1;
            let until = self.header.left_out_until_ms.max(Some(place.started_ms()));
            self.header.left_out_until_ms = until;
        }
        self.db.with(|db| db.apply_batch(batch))
    }

    fn look_at_size(&mut self) -> Result<(), StoreError> {
        self.frames += 1;
        if self.frames < FRAMES_PER_LOOK {
            return Ok(());
        }
        self.frames = 0;
        let (bytes, max) = (self.size_bytes()?, self.limits.size_bytes_max);
        if bytes > max { Err(StoreError::TooLarge { bytes, max }) } else { Ok(()) }
    }
}

impl RunIndex for SledIndex {
    fn apply(&mut self, frame: &FrameChanges) -> Result<Applied, StoreError> {
        let position = self.position(frame.partition)?;
        if frame.sequence <= position.sequence {
            return Ok(Applied::Known);
        }
        for change in &frame.runs {
            let id = *change.run.as_uuid().as_bytes();
            if let Some(young) = self.young.get_mut(id) {
                change.fold(&mut young.now);
                continue;
            }
            let written = self.written(change.run)?;
            let Some(now) = change.after(written.clone()) else { continue };
            self.header.runs += u64::from(written.is_none());
            self.young.insert(id, YoungRun { written, now });
        }
        if let Some(stream) = self.streams.get_mut(&frame.partition) {
            stream.position = position.after(frame);
        }
        self.header.left_out_until_ms = self.header.left_out_until_ms.max(frame.missing_until_ms);
        self.leave_out()?;
        if self.young.len() > self.limits.young_runs_max {
            self.write_oldest(self.limits.young_runs_max)?;
        }
        self.look_at_size()?;
        Ok(Applied::Taken)
    }

    fn position(&self, partition: PartitionId) -> Result<Position, StoreError> {
        let row = self.streams.get(&partition).ok_or(StoreError::UnknownPartition(partition))?;
        Ok(row.position)
    }

    fn list(&mut self, query: &RunQuery) -> Result<RunPage, StoreError> {
        let wanted = query.page_runs();
        let young = &self.young;
        let (found, more) = self.db.with(|db| {
            let written =
                |(status, first, last)| Order::Written(status, Box::new(db.range(first..=last)));
            let mut orders: Vec<_> = place_ranges(query).into_iter().map(written).collect();
            orders.push(Order::Young(young.places(query, wanted + 1).into_iter()));
            // The next place of each order, the smallest of them first.
            let mut heads = BTreeMap::new();
            for (number, order) in orders.iter_mut().enumerate() {
                heads.extend(order.next(young)?.map(|place| (place, number)));
            }
            let mut found = Vec::new();
            while let Some((place, number)) = heads.pop_first() {
                if found.len() == wanted {
                    return Ok((found, true));
                }
                if let Some(order) = orders.get_mut(number) {
                    found.push((place, order.find(db, &place)?));
                    heads.extend(order.next(young)?.map(|place| (place, number)));
                }
            }
            Ok((found, false))
        })?;
        let last = found.last().map(|(place, _)| *place);
        let mut runs = Vec::with_capacity(found.len());
        for (place, found) in found {
            let run = match found {
                Found::Young => young.get(place.run_bytes()).cloned(),
                Found::Row(row) => row.map(|row| decode(&row, "a run")).transpose()?,
            };
            let run = run.ok_or(StoreError::Damaged("a place without its run"))?;
            if Cursor::of(&run) != place {
                return Err(StoreError::Damaged("a run in another's place"));
            }
            // Another name may share the first bytes of its digest.
            runs.extend(query.takes(&run).then_some(run));
        }
        Ok(RunPage { runs, next: last.filter(|_| more) })
    }

    fn get(&mut self, run: RunId) -> Result<Option<RunSummary>, StoreError> {
        match self.young.get(*run.as_uuid().as_bytes()) {
            Some(run) => Ok(Some(run.clone())),
            None => self.written(run),
        }
    }

    fn runs(&self) -> u64 {
        self.header.runs
    }

    fn left_out_until_ms(&self) -> Option<u64> {
        self.header.left_out_until_ms
    }
}

/// Places in order.
enum Order {
    /// Of a range of the database; those of young runs aside, which say it better.
    Written(RunStatus, Box<sled::Iter>),
    /// Of young runs.
    Young(std::vec::IntoIter<Cursor>),
}

/// Where a run is to be read.
enum Found {
    Row(Option<IVec>),
    Young,
}

impl Order {
    fn next(&mut self, young: &Young) -> sled::Result<Option<Cursor>> {
        match self {
            Self::Young(places) => Ok(places.next()),
            Self::Written(_, rows) => {
                for row in rows {
                    let place = row.map(|(key, _)| place_of(&key))?;
                    if let Some(place) = place.filter(|place| !young.contains(place)) {
                        return Ok(Some(place));
                    }
                }
                Ok(None)
            }
        }
    }

    fn find(&self, db: &Db, place: &Cursor) -> sled::Result<Found> {
        match self {
            Self::Written(status, _) => db.get(run_key(*status, place)).map(Found::Row),
            Self::Young(_) => Ok(Found::Young),
        }
    }
}

/// The runs written that have ended and began first, at most `most`, the oldest first; those
/// aside that have changed since.
fn oldest_ended(db: &Db, young: &Young, most: usize) -> sled::Result<Vec<(Cursor, Option<IVec>)>> {
    let mut orders: Vec<_> =
        ended_ranges().map(|(_, first, last)| db.range(first..=last).rev()).collect();
    let mut next = |order: usize| -> sled::Result<Option<(Cursor, IVec)>> {
        for row in orders.get_mut(order).into_iter().flatten() {
            let (key, row) = row?;
            if let Some(place) = place_of(&key).filter(|place| !young.contains(place)) {
                return Ok(Some((place, row)));
            }
        }
        Ok(None)
    };
    let mut heads = BTreeMap::new();
    for order in 0..ended_ranges().count() {
        heads.extend(next(order)?.map(|(place, row)| (place, (order, row))));
    }
    let mut oldest = Vec::new();
    while oldest.len() < most {
        let Some((place, (order, row))) = heads.pop_last() else { break };
        heads.extend(next(order)?.map(|(place, row)| (place, (order, row))));
        oldest.push((place, Some(row)));
    }
    Ok(oldest)
}

#[cfg(test)]
mod tests;
