//! Removing segments that were kept for as long as they are to be.
//!
//! What goes is told first, in an object beside the segments: up to which message and record, how
//! many segments, and a digest over all of them in order. Each has a name of its own and never
//! changes, and the farthest counts: an owner that was paused and lost its partition meanwhile
//! cannot take back what the next one told. So nobody takes what was removed for lost,
//! and a copy that somebody kept elsewhere can be held against it. Whoever checks the audit log
//! lets its entries stand for the records that are gone; they are signed, and are never removed.

use fermata_core::digest::Digest;
use fermata_jetstream::topology::journal_stream;
use fermata_jetstream::{Bytes, StreamReader};
use fermata_wire::segment::Segment;
use serde::{Deserialize, Serialize};

use super::{ArchiveError, JournalArchive, Range};

/// How the name of an object begins that tells what was removed; the last message follows.
const REMOVED_PREFIX: &str = "removed-";

/// How often it is looked for what was told, if each time it is being replaced.
const LOOKS_MAX: usize = 8;

/// Segments that one pass removes at most: each is read once more for its digest.
const SEGMENTS_PER_PASS: usize = 64;

/// What was removed from the archive of a partition, from the journal's beginning on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Removed {
    /// Sequence of the last journal message.
    pub last_sequence: u64,
    /// Index of the first record that is left.
    pub next_record_index: u64,
    /// Segments.
    pub segments: u64,
    /// Digest over them: of the digest before, and the digest of the segment's bytes.
    pub digest: Digest,
    /// When the last one was removed, milliseconds since 1970 by the clock of who did it.
    pub removed_ms: u64,
}

impl Default for Removed {
    fn default() -> Self {
        let digest = Digest([0; 32]);
        Self { last_sequence: 0, next_record_index: 0, segments: 0, digest, removed_ms: 0 }
    }
}

impl Removed {
    /// Name of the object that tells this.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{REMOVED_PREFIX}{:020}", self.last_sequence)
    }

    /// With one more segment.
    fn with(&self, last_sequence: u64, bytes: &[u8], next_record_index: u64, now_ms: u64) -> Self {
        let (Digest(before), Digest(segment)) = (self.digest, Digest::of(bytes));
        Self {
            last_sequence,
            // A segment of foreign messages has no records.
            next_record_index: next_record_index.max(self.next_record_index),
            segments: self.segments + 1,
            digest: Digest::of(&[before, segment].concat()),
            removed_ms: now_ms,
        }
    }
}

impl JournalArchive {
    /// What was removed so far; nothing where all segments are there.
    ///
    /// # Errors
    ///
    /// When the store does not answer, or holds something else under that name.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn removed(&self) -> Result<Option<Removed>, ArchiveError> {
        for _ in 0..LOOKS_MAX {
            let names = self.removed_names().await?;
            let Some(name) = names.last() else { break };
            // One that is gone was taken away because there is a farther one.
            if let Some(bytes) = self.folder.get(name).await? {
                return Ok(Some(serde_json::from_slice(&bytes)?));
            }
        }
        Ok(None)
    }

    /// Names of what was told, the farthest last.
    async fn removed_names(&self) -> Result<Vec<String>, ArchiveError> {
        let mut names = self.folder.list().await?;
        names.retain(|name| name.starts_with(REMOVED_PREFIX));
        names.sort_unstable();
        Ok(names)
    }

    /// Removes segments, the oldest first, that were stored before `before_ms` and whose messages
    /// are purged from the journal. The newest one stays: it says where the archive ends. Tells how
    /// many went.
    ///
    /// # Errors
    ///
    /// When the store refuses or does not answer, or a segment is damaged: then it stays.
    ///
    /// # Cancel safety
    ///
    /// What is told as removed may still be there; the next call removes it.
    pub async fn remove_before(
        &self,
        reader: &StreamReader,
        before_ms: u64,
        now_ms: u64,
    ) -> Result<usize, ArchiveError> {
        let journal = reader.stream_state(&journal_stream(self.partition)).await?;
        let ranges = self.ranges().await?;
        let Some((_, older)) = ranges.split_last() else { return Ok(0) };
        let mut told = self.removed().await?.unwrap_or_default();
        let mut removed = 0;
        for range in older.iter().take(SEGMENTS_PER_PASS) {
            if range.last >= journal.first_sequence {
                break;
            }
            // One that was told and not removed has been old enough.
            if range.last > told.last_sequence {
                let stored_ms = self.folder.stored_ms(&range.name()).await?;
                if stored_ms.is_none_or(|stored_ms| stored_ms >= before_ms) {
                    break;
                }
                told = self.tell(&told, *range, now_ms).await?;
            }
            self.folder.remove(&range.name()).await?;
            removed += 1;
        }
        for name in self.removed_names().await?.iter().filter(|name| **name < told.name()) {
            self.folder.remove(name).await?;
        }
        Ok(removed)
    }

    async fn tell(
        &self,
        told: &Removed,
        range: Range,
        now_ms: u64,
    ) -> Result<Removed, ArchiveError> {
        let name = range.name();
        let bytes = self.folder.get(&name).await?.unwrap_or_default();
        let segment =
            Segment::decode(&bytes).map_err(|source| ArchiveError::Segment { name, source })?;
        let told = told.with(range.last, &bytes, segment.next_record_index, now_ms);
        let bytes = Bytes::from(serde_json::to_vec(&told)?);
        self.folder.put(&told.name(), &bytes).await?;
        Ok(told)
    }
}
