//! The read model's folder: one process at a time, opened with suspicion.
//!
//! ```text
//! lock        held while a process uses the folder
//! closed      written when the index was closed in order, taken away when it is opened
//! runs-<n>    the index; a new one has a new name
//! ```
//!
//! An index is used again only if it was closed in order and everything in it still adds up
//! to what it was then. Otherwise it is thrown away: the journals have all of it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fermata_core::digest::Digest;
use fermata_core::identity::{PartitionId, RunId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::frame::FrameChanges;
use crate::index::{
    Applied, Origin, Position, RUNS_MAX_DEFAULT, RunIndex, StoreError, YOUNG_RUNS_MAX,
};
use crate::query::{RunPage, RunQuery};
use crate::rows::{SCHEMA, decode, encode};
use crate::run::RunSummary;
use crate::sled_index::SledIndex;

/// How long opening may take, the look at every row included: several times what the largest
/// index takes. sled may also stand still on damaged files; its thread is left behind then.
pub const OPEN_LIMIT: Duration = Duration::from_secs(300);

const LOCK_FILE: &str = "lock";
const CLOSED_FILE: &str = "closed";
const FOLDER_PREFIX: &str = "runs-";

/// Bounds of a read model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreLimits {
    /// Runs it holds at most, those that have not ended aside.
    pub runs_max: u64,
    /// Bytes it may take on disk; above, it is made anew.
    pub size_bytes_max: u64,
    /// Bytes of memory that the database aims at for its cache.
    pub cache_bytes: u64,
    /// Runs that have changed and are not written yet at most.
    pub young_runs_max: usize,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            runs_max: RUNS_MAX_DEFAULT,
            size_bytes_max: 16 * 1024 * 1024 * 1024,
            cache_bytes: 128 * 1024 * 1024,
            young_runs_max: YOUNG_RUNS_MAX,
        }
    }
}

/// Why a folder cannot be used.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process uses it.
    #[error("another process keeps its read model in `{}`", folder.display())]
    Locked {
        /// The folder.
        folder: PathBuf,
    },
    /// The file system refused.
    #[error("could not {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Not even a new index can be made.
    #[error("no read model can be made")]
    Store(#[from] StoreError),
}

/// Why an index was not used again.
#[derive(Debug, Error)]
pub enum Rebuild {
    /// There is none yet.
    #[error("there is none yet")]
    New,
    /// The process that had it did not close it.
    #[error("it was not closed in order")]
    NotClosed,
    /// The file that says how it was closed cannot be read.
    #[error("how it was closed cannot be read")]
    Unreadable,
    /// It cannot be opened, or is not what it was.
    #[error(transparent)]
    Store(StoreError),
    /// Opening it took longer than [`OPEN_LIMIT`].
    #[error("it could not be opened within {OPEN_LIMIT:?}")]
    TooSlow,
}

/// How an index was closed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Closed {
    schema: u16,
    folder: String,
    state: Digest,
}

/// The index of runs on disk.
#[derive(Debug)]
pub struct ReadModel {
    index: SledIndex,
    name: String,
    folder: PathBuf,
    _lock: File,
}

/// A read model that was opened.
#[derive(Debug)]
pub struct Opened {
    /// It.
    pub model: ReadModel,
    /// Why it is empty; nothing when the one that was there is used again.
    pub rebuild: Option<Rebuild>,
}

impl ReadModel {
    /// Opens the read model of `origin` in `folder`, which is made when it is not there.
    ///
    /// # Errors
    ///
    /// [`OpenError`]. A damaged index is none: it is thrown away.
    pub fn open(folder: &Path, origin: &Origin, limits: StoreLimits) -> Result<Opened, OpenError> {
        fs::create_dir_all(folder).map_err(failed("make the folder", folder))?;
        let lock = lock(folder)?;
        let closed_file = folder.join(CLOSED_FILE);
        let closed = fs::read(&closed_file).ok();
        // From here on it counts as not closed.
        remove(&closed_file).map_err(failed("remove", &closed_file))?;
        let (name, rebuild) = match reopen(folder, closed, origin, limits) {
            Ok((index, name)) => {
                let model = Self { index, name, folder: folder.to_owned(), _lock: lock };
                return Ok(Opened { model, rebuild: None });
            }
            Err(rebuild) => (new_name(), rebuild),
        };
        clear(folder)?;
        let index = SledIndex::create(&folder.join(&name), origin, limits)?;
        let model = Self { index, name, folder: folder.to_owned(), _lock: lock };
        Ok(Opened { model, rebuild: Some(rebuild) })
    }

    /// Writes all to disk, so that the index can be used again.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; the index is made anew the next time.
    pub fn close(self) -> Result<(), OpenError> {
        let state = self.index.close()?;
        let closed = Closed { schema: SCHEMA, folder: self.name, state };
        let path = self.folder.join(CLOSED_FILE);
        fs::write(&path, encode(&closed)?).map_err(failed("write", &path))
    }

    /// Bytes on disk.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; the index is made anew then.
    pub fn size_bytes(&mut self) -> Result<u64, StoreError> {
        self.index.size_bytes()
    }
}

impl RunIndex for ReadModel {
    fn apply(&mut self, frame: &FrameChanges) -> Result<Applied, StoreError> {
        self.index.apply(frame)
    }

    fn position(&self, partition: PartitionId) -> Result<Position, StoreError> {
        self.index.position(partition)
    }

    fn list(&mut self, query: &RunQuery) -> Result<RunPage, StoreError> {
        self.index.list(query)
    }

    fn get(&mut self, run: RunId) -> Result<Option<RunSummary>, StoreError> {
        self.index.get(run)
    }

    fn runs(&self) -> u64 {
        self.index.runs()
    }

    fn left_out_until_ms(&self) -> Option<u64> {
        self.index.left_out_until_ms()
    }
}

fn reopen(
    folder: &Path,
    closed: Option<Vec<u8>>,
    origin: &Origin,
    limits: StoreLimits,
) -> Result<(SledIndex, String), Rebuild> {
    let Some(closed) = closed else {
        return Err(if folders(folder).is_empty() { Rebuild::New } else { Rebuild::NotClosed });
    };
    let closed: Closed = decode(&closed, "how it was closed").map_err(|_| Rebuild::Unreadable)?;
    let is_ours = closed.name_is_ours() && folder.join(&closed.folder).is_dir();
    if closed.schema != SCHEMA || !is_ours {
        return Err(Rebuild::Unreadable);
    }
    let (sender, receiver) = mpsc::sync_channel(1);
    let (path, origin, state) = (folder.join(&closed.folder), origin.clone(), closed.state);
    let opening = move || {
        // Nobody waits any more when it took too long.
        let _ = sender.send(SledIndex::open(&path, &origin, limits, state));
    };
    let spawned = thread::Builder::new().name("fermata-read-model-open".to_owned()).spawn(opening);
    if spawned.is_err() {
        return Err(Rebuild::TooSlow);
    }
    match receiver.recv_timeout(OPEN_LIMIT) {
        Ok(Ok(index)) => Ok((index, closed.folder)),
        Ok(Err(error)) => Err(Rebuild::Store(error)),
        Err(mpsc::RecvTimeoutError::Timeout) => Err(Rebuild::TooSlow),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            Err(Rebuild::Store(StoreError::Panicked("while it was opened".to_owned())))
        }
    }
}

impl Closed {
    /// What was written in a file must not lead out of the folder.
    fn name_is_ours(&self) -> bool {
        let number = self.folder.strip_prefix(FOLDER_PREFIX);
        number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
    }
}

fn lock(folder: &Path) -> Result<File, OpenError> {
    let path = folder.join(LOCK_FILE);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(failed("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { folder: folder.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed("lock", &path)(source)),
    }
}

/// A name that no index had: one that was given up may still write under its own.
fn new_name() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{FOLDER_PREFIX}{}", since.as_nanos())
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let ours =
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(FOLDER_PREFIX));
    ours.map(|entry| entry.path()).collect()
}

fn clear(folder: &Path) -> Result<(), OpenError> {
    for old in folders(folder) {
        fs::remove_dir_all(&old).map_err(failed("remove", &old))?;
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { action, path, source }
}
