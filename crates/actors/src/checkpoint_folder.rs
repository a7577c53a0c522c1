//! The synced files of this process that remember what was signed.
//!
//! Two auditors of one partition can overlap here, the old one storing its last
//! checkpoint while the new one signs its first: one writes at a time, and what
//! is late overwrites nothing newer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use fermata_core::identity::PartitionId;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{Mutex as AsyncMutex, OwnedRwLockReadGuard, RwLock};

/// The folder with one file per partition.
#[derive(Debug)]
pub struct CheckpointFolder {
    path: PathBuf,
    /// For each partition its file's lock, and the entries that the newest note
    /// written here covers.
    written: Mutex<BTreeMap<PartitionId, Arc<AsyncMutex<u64>>>>,
    /// Shared by those who still have something to store.
    storing: Arc<RwLock<()>>,
    /// For each partition the entries that the newest checkpoint known here covers.
    signed: Mutex<BTreeMap<PartitionId, u64>>,
}

impl CheckpointFolder {
    /// The folder at `path`, made if it is not there.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn open(path: PathBuf) -> Result<Self, std::io::Error> {
        std::fs::create_dir_all(&path)?;
        let (written, storing) = (Mutex::default(), Arc::default());
        Ok(Self { path, written, storing, signed: Mutex::default() })
    }

    /// The file that holds the newest checkpoint of `partition`.
    #[must_use]
    pub fn file(&self, partition: PartitionId) -> PathBuf {
        self.path.join(format!("{partition}.checkpoint"))
    }

    /// The note that the file of `partition` holds; nothing when there is none, or one of another log than
    /// `origin`, or an empty file: a disk that was full leaves one. Whoever could empty it could remove it, too.
    ///
    /// # Errors
    ///
    /// When it is there and cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn read(
        &self,
        partition: PartitionId,
        origin: &str,
    ) -> Result<Option<Vec<u8>>, std::io::Error> {
        read_note(&self.file(partition), origin).await
    }

    /// Writes a checkpoint of `size` entries, unless one as large was written;
    /// after a power cut the file is the old one or the new one.
    ///
    /// # Errors
    ///
    /// When it cannot be written; the old one stands.
    ///
    /// # Cancel safety
    ///
    /// When dropped, the file is the old one or the new one.
    pub async fn write(
        &self,
        partition: PartitionId,
        size: u64,
        note: &[u8],
    ) -> Result<(), std::io::Error> {
        let newest = self.newest(partition);
        let mut newest = newest.lock().await;
        if *newest >= size {
            return Ok(());
        }
        let path = self.file(partition);
        let next = path.with_extension("next");
        let mut file = tokio::fs::File::create(&next).await?;
        file.write_all(note).await?;
        // What was not written, for a full disk say, is told by this alone.
        file.flush().await?;
        file.sync_all().await?;
        tokio::fs::rename(&next, &path).await?;
        tokio::fs::File::open(&self.path).await?.sync_all().await?;
        *newest = size;
        Ok(())
    }

    fn newest(&self, partition: PartitionId) -> Arc<AsyncMutex<u64>> {
        // Nobody panics while holding it.
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.entry(partition).or_default().clone()
    }

    /// Notes that a checkpoint of `partition` covers `size` entries.
    pub(crate) fn note_signed(&self, partition: PartitionId, size: u64) {
        let mut signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = signed.entry(partition).or_default();
        *newest = size.max(*newest);
    }

    /// How many entries the newest checkpoint of `partition` covers, as far as is
    /// known here: 0 before its auditor has begun.
    #[must_use]
    pub fn signed(&self, partition: PartitionId) -> u64 {
        let signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        signed.get(&partition).copied().unwrap_or(0)
    }

    /// Held by a task while it may still store a checkpoint; nothing while the
    /// end of the process waits for those.
    pub(crate) fn begin_storing(&self) -> Option<OwnedRwLockReadGuard<()>> {
        self.storing.clone().try_read_owned().ok()
    }

    /// Waits until nobody stores a checkpoint any more.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn stored(&self) {
        drop(self.storing.write().await);
    }
}

/// As [`CheckpointFolder::read`], of the file that is named.
///
/// # Errors
///
/// When it is there and cannot be read.
///
/// # Cancel safety
///
/// Can be dropped.
pub async fn read_note(file: &Path, origin: &str) -> Result<Option<Vec<u8>>, std::io::Error> {
    let note = match tokio::fs::read(file).await {
        Ok(note) => note,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let file = file.display();
    if note.is_empty() {
        tracing::warn!(%file, "the checkpoint is empty; the one in the broker counts");
        return Ok(None);
    }
    // Its first line (https://c2sp.org/tlog-checkpoint).
    match note.split(|byte| *byte == b'\n').next() {
        Some(other) if other != origin.as_bytes() => {
            let other = String::from_utf8_lossy(other);
            tracing::warn!(%file, %other, origin, "the checkpoint is another log's; it does not count here");
            Ok(None)
        }
        Some(_) | None => Ok(Some(note)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTITION: PartitionId = PartitionId(3);

    #[tokio::test]
    async fn what_is_late_overwrites_nothing_newer() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = CheckpointFolder::open(folder.path().join("made")).expect("made");
        assert_eq!(folder.read(PARTITION, "log/3").await.expect("read"), None);

        for (size, note) in [(7, "log/3\nseven"), (5, "log/3\nfive")] {
            folder.write(PARTITION, size, note.as_bytes()).await.expect("written");
        }

        let read = folder.read(PARTITION, "log/3").await.expect("read");
        assert_eq!(read.as_deref(), Some(&b"log/3\nseven"[..]));
    }

    #[tokio::test]
    async fn an_empty_file_and_the_checkpoint_of_another_log_do_not_count() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = CheckpointFolder::open(folder.path().to_owned()).expect("opened");
        for (note, counts) in [("", false), ("other/3\n7\n", false), ("log/3\n7\n", true)] {
            std::fs::write(folder.file(PARTITION), note).expect("written");

            let read = folder.read(PARTITION, "log/3").await.expect("read");

            assert_eq!(read.is_some(), counts, "{note:?}");
        }
    }

    /// `/dev/full` takes what is written and says afterwards that there is no room.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_full_disk_leaves_the_checkpoint_that_is_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = CheckpointFolder::open(folder.path().to_owned()).expect("opened");
        let file = folder.file(PARTITION);
        std::fs::write(&file, "log/3\nold").expect("written");
        std::os::unix::fs::symlink("/dev/full", file.with_extension("next")).expect("a link");

        let written = folder.write(PARTITION, 7, b"log/3\nnew").await;

        assert_eq!(written.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
        assert_eq!(std::fs::read_to_string(&file).expect("read"), "log/3\nold");
    }

    #[tokio::test]
    async fn the_end_waits_for_whoever_still_stores() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = CheckpointFolder::open(folder.path().to_owned()).expect("opened");
        let storing = folder.begin_storing();

        let mut stored = std::pin::pin!(folder.stored());
        let waits = futures_util::poll!(stored.as_mut()).is_pending();
        drop(storing);
        stored.await;

        assert!(waits);
    }
}
