//! The index of runs in sled.
//!
//! sled panics on some files that it wrote itself before a power cut, and on damaged ones.
//! So each call of it is made under `catch_unwind`, and after a panic the database is left as
//! it is, not even closed: closing works on the same state, and a panic while unwinding ends
//! the process. Leaking it is the lesser evil: its folder is given up in the same breath.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use fermata_core::digest::Digest;
use fermata_core::identity::{PartitionId, RunId};
use sled::{Batch, Db};

use crate::folder::StoreLimits;
use crate::frame::FrameChanges;
use crate::index::{Applied, Origin, Position, RunIndex, StoreError};
use crate::query::{Cursor, RunPage, RunQuery};
use crate::rows::{
    HEADER_KEY, HeaderRow, RowSum, SCHEMA, StreamRow, decode, encode, ended_ranges, is_run_key,
    is_stream_key, place_keys, place_of, place_ranges, run_key, run_key_of, state_digest,
    stream_key,
};
use crate::run::RunSummary;

/// After how many messages the room on disk is looked at.
const FRAMES_PER_LOOK: u32 = 1_024;

#[derive(Debug)]
pub(crate) struct SledIndex {
    /// Absent after a panic.
    db: Option<Db>,
    header: HeaderRow,
    streams: BTreeMap<PartitionId, StreamRow>,
    limits: StoreLimits,
    frames: u32,
}

impl SledIndex {
    /// An index in a folder that is not there yet.
    pub fn create(path: &Path, origin: &Origin, limits: StoreLimits) -> Result<Self, StoreError> {
        let db = open(path, limits)?;
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
        let mut index = Self { db: Some(db), header, streams, limits, frames: 0 };
        let mut batch = Batch::default();
        batch.insert(HEADER_KEY, encode(&index.header)?);
        for (partition, row) in &index.streams {
            batch.insert(stream_key(*partition), encode(row)?);
        }
        index.with(|db| db.apply_batch(batch))?;
        Ok(index)
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
        let db = open(path, limits)?;
        let found = guarded(|| db.get(HEADER_KEY));
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                std::mem::forget(db);
                return Err(error);
            }
        };
        let mut index = Self {
            db: Some(db),
            header: decode(&found.ok_or(StoreError::Damaged("it is empty"))?, "its header")?,
            streams: BTreeMap::new(),
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
        let (sum, runs, streams) = self.with(|db| {
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
        let state = self.state()?;
        self.with(|db| db.flush().map(drop))?;
        if let Some(db) = self.db.take() {
            guarded(move || {
                drop(db);
                Ok(())
            })?;
        }
        Ok(state)
    }

    /// Bytes on disk.
    pub fn size_bytes(&mut self) -> Result<u64, StoreError> {
        self.with(Db::size_on_disk)
    }

    fn with<T>(&mut self, call: impl FnOnce(&Db) -> sled::Result<T>) -> Result<T, StoreError> {
        let Some(db) = self.db.take() else {
            return Err(StoreError::Panicked("earlier".to_owned()));
        };
        let answer = guarded(|| call(&db));
        if matches!(answer, Err(StoreError::Panicked(_))) {
            std::mem::forget(db);
        } else {
            self.db = Some(db);
        }
        answer
    }

    fn run(&mut self, key: &[u8]) -> Result<Option<(RunSummary, sled::IVec)>, StoreError> {
        let found = self.with(|db| db.get(key))?;
        found.map(|row| Ok((decode(&row, "a run")?, row))).transpose()
    }

    /// Writes `after` in the place of `before`.
    fn write(
        &mut self,
        before: Option<&(RunSummary, sled::IVec)>,
        after: Option<&RunSummary>,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        let sum = &mut self.header.sum;
        // Nothing else in the keys of its places ever changes.
        let moved = before.map(|(run, _)| run.status) != after.map(|run| run.status);
        if let Some((run, row)) = before {
            let key = run_key(run.id);
            sum.take(&key, row);
            if after.is_none() {
                batch.remove(key);
                self.header.runs -= 1;
            }
            for key in place_keys(run).into_iter().filter(|_| moved) {
                sum.take(&key, &[]);
                batch.remove(key);
            }
        }
        if let Some(run) = after {
            let (key, row) = (run_key(run.id), encode(run)?);
            sum.add(&key, &row);
            batch.insert(key, row);
            self.header.runs += u64::from(before.is_none());
            for key in place_keys(run).into_iter().filter(|_| moved) {
                sum.add(&key, &[]);
                batch.insert(key, &[]);
            }
        }
        Ok(())
    }

    fn leave_out(&mut self) -> Result<(), StoreError> {
        while self.header.runs > self.limits.runs_max {
            let last = self.with(|db| {
                let mut oldest: Option<Cursor> = None;
                for (first, last) in ended_ranges() {
                    let found = db.range(first..=last).next_back().transpose()?;
                    oldest = oldest.max(found.and_then(|(key, _)| place_of(&key)));
                }
                Ok(oldest)
            })?;
            let Some(place) = last else { return Ok(()) };
            let run = self.run(&run_key_of(place.run_bytes()))?;
            let run = run.ok_or(StoreError::Damaged("a place without its run"))?;
            let mut batch = Batch::default();
            self.write(Some(&run), None, &mut batch)?;
            self.header.left_out_until_ms =
                self.header.left_out_until_ms.max(Some(run.0.started_ms));
            batch.insert(HEADER_KEY, encode(&self.header)?);
            self.with(|db| db.apply_batch(batch))?;
        }
        Ok(())
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

impl Drop for SledIndex {
    fn drop(&mut self) {
        // Unless it was closed, its folder is given up anyhow.
        if let Some(db) = self.db.take() {
            let _ = guarded(move || {
                drop(db);
                Ok(())
            });
        }
    }
}

impl RunIndex for SledIndex {
    fn apply(&mut self, frame: &FrameChanges) -> Result<Applied, StoreError> {
        let position = self.position(frame.partition)?;
        if frame.sequence <= position.sequence {
            return Ok(Applied::Known);
        }
        let mut batch = Batch::default();
        for change in &frame.runs {
            let before = self.run(&run_key(change.run))?;
            let Some(after) = change.after(before.as_ref().map(|(run, _)| run.clone())) else {
                continue;
            };
            self.write(before.as_ref(), Some(&after), &mut batch)?;
        }
        if let Some(stream) = self.streams.get_mut(&frame.partition) {
            stream.position = position.after(frame);
            batch.insert(stream_key(frame.partition), encode(stream)?);
        }
        self.header.left_out_until_ms = self.header.left_out_until_ms.max(frame.missing_until_ms);
        if !frame.runs.is_empty() || frame.missing_until_ms.is_some() {
            batch.insert(HEADER_KEY, encode(&self.header)?);
        }
        self.with(|db| db.apply_batch(batch))?;
        self.leave_out()?;
        self.look_at_size()?;
        Ok(Applied::Taken)
    }

    fn position(&self, partition: PartitionId) -> Result<Position, StoreError> {
        let row = self.streams.get(&partition).ok_or(StoreError::UnknownPartition(partition))?;
        Ok(row.position)
    }

    fn list(&mut self, query: &RunQuery) -> Result<RunPage, StoreError> {
        let ranges = place_ranges(query);
        let wanted = query.page_runs();
        let (found, more) = self.with(|db| {
            let mut orders: Vec<_> =
                ranges.into_iter().map(|(first, last)| db.range(first..=last)).collect();
            // The next place of each order, the smallest of them first.
            let mut heads = BTreeMap::new();
            for (order, places) in orders.iter_mut().enumerate() {
                heads.extend(next_place(places)?.map(|place| (place, order)));
            }
            let mut found = Vec::new();
            while let Some((place, order)) = heads.pop_first() {
                if found.len() == wanted {
                    return Ok((found, true));
                }
                if let Some(places) = orders.get_mut(order) {
                    heads.extend(next_place(places)?.map(|place| (place, order)));
                }
                found.push((place, db.get(run_key_of(place.run_bytes()))?));
            }
            Ok((found, false))
        })?;
        let last = found.last().map(|(place, _)| *place);
        let mut runs = Vec::with_capacity(found.len());
        for (place, row) in found {
            let row = row.ok_or(StoreError::Damaged("a place without its run"))?;
            let run: RunSummary = decode(&row, "a run")?;
            if Cursor::of(&run) != place {
                return Err(StoreError::Damaged("a run in another's place"));
            }
            // Another name may share the first bytes of its digest.
            runs.extend(query.takes(&run).then_some(run));
        }
        Ok(RunPage { runs, next: last.filter(|_| more) })
    }

    fn get(&mut self, run: RunId) -> Result<Option<RunSummary>, StoreError> {
        Ok(self.run(&run_key(run))?.map(|(run, _)| run))
    }

    fn runs(&self) -> u64 {
        self.header.runs
    }

    fn left_out_until_ms(&self) -> Option<u64> {
        self.header.left_out_until_ms
    }
}

fn next_place(places: &mut sled::Iter) -> sled::Result<Option<Cursor>> {
    Ok(places.next().transpose()?.and_then(|(key, _)| place_of(&key)))
}

/// How long a handle that was let go may take to be gone.
const RELEASE_LIMIT: Duration = Duration::from_secs(5);
/// How often that is looked at.
const RELEASE_PAUSE: Duration = Duration::from_millis(10);

fn open(path: &Path, limits: StoreLimits) -> Result<Db, StoreError> {
    // What was written is of use only once it was closed, so nothing is synced before.
    let config =
        sled::Config::new().path(path).cache_capacity(limits.cache_bytes).flush_every_ms(None);
    let begun = Instant::now();
    loop {
        match guarded(|| config.open()) {
            // The handle that this process had may still be on its way out; another
            // process cannot be here, for it would need the folder's own lock.
            Err(StoreError::Database(sled::Error::Io(error)))
                if is_locked(&error) && begun.elapsed() < RELEASE_LIMIT =>
            {
                std::thread::sleep(RELEASE_PAUSE);
            }
            opened => return opened,
        }
    }
}

/// sled tells of its lock in words around the system's error.
fn is_locked(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::WouldBlock
        || error.to_string().contains("could not acquire lock")
}

fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(answer) => answer.map_err(StoreError::Database),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(StoreError::Panicked(text.unwrap_or("without a word").to_owned()))
        }
    }
}
