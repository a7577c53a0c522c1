//! A database that may panic.
//!
//! sled panics on some files that it wrote itself before a power cut, and on damaged ones.
//! So each call of it is made under `catch_unwind`, and after a panic the database is left as
//! it is, not even closed: closing works on the same state, and a panic while unwinding ends
//! the process. Leaking it is the lesser evil: its folder is given up in the same breath.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use sled::Db;

use crate::index::StoreError;

/// How long a handle that was let go may take to be gone.
const RELEASE_LIMIT: Duration = Duration::from_secs(5);
/// How often that is looked at.
const RELEASE_PAUSE: Duration = Duration::from_millis(10);

/// Absent after a panic, and when it was closed.
#[derive(Debug)]
pub(crate) struct GuardedDb(Option<Db>);

impl GuardedDb {
    pub fn open(path: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        // What was written is of use only once it was closed, so nothing is synced before.
        let config =
            sled::Config::new().path(path).cache_capacity(cache_bytes).flush_every_ms(None);
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
                opened => return Ok(Self(Some(opened?))),
            }
        }
    }

    pub fn with<T>(&mut self, call: impl FnOnce(&Db) -> sled::Result<T>) -> Result<T, StoreError> {
        let Some(db) = self.0.take() else {
            return Err(StoreError::Panicked("earlier".to_owned()));
        };
        let answer = guarded(|| call(&db));
        if matches!(answer, Err(StoreError::Panicked(_))) {
            std::mem::forget(db);
        } else {
            self.0 = Some(db);
        }
        answer
    }

    /// Writes everything to disk and closes.
    pub fn close(&mut self) -> Result<(), StoreError> {
        self.with(|db| db.flush().map(drop))?;
        self.release()
    }

    fn release(&mut self) -> Result<(), StoreError> {
        let Some(db) = self.0.take() else { return Ok(()) };
        guarded(move || {
            drop(db);
            Ok(())
        })
    }
}

impl Drop for GuardedDb {
    fn drop(&mut self) {
        // Unless it was closed, its folder is given up anyhow.
        let _ = self.release();
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
