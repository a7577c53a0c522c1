//! Journals as one: what was purged from a stream, and what it holds.
//!
//! Before a journal is purged its messages go, as they are, into segments in the
//! object store. A segment never changes. Whoever reads a journal for people or
//! checks it reads the segments and then the stream; the owner of a partition
//! reads the stream alone, behind a snapshot.

mod journal_replay;
mod retention;

pub use journal_replay::JournalReplay;
pub use retention::Removed;

use fermata_core::identity::PartitionId;
use fermata_jetstream::definitions_store::StoreError;
use fermata_jetstream::object_folder::ObjectFolder;
use fermata_jetstream::reader::{FollowError, Holes, ReadError};
use fermata_jetstream::topology::{ARCHIVE_BUCKET, journal_stream, journal_subject};
use fermata_jetstream::{Bytes, StoredMessage, StreamReader};
use fermata_wire::WireError;
use fermata_wire::journal::JournalFrame;
use fermata_wire::sealed_file::FileError;
use fermata_wire::segment::{ArchivedMessage, Segment};
use thiserror::Error;

/// Messages read from the journal at once while archiving.
const ARCHIVE_BATCH: usize = 256;

/// Why a journal cannot be archived, or an archived one not be read.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// The object store refused or did not answer, or what it holds is damaged.
    #[error("the archive cannot be reached")]
    Store(#[from] StoreError),
    /// The stream cannot be followed.
    #[error("the journal cannot be read")]
    Follow(#[from] FollowError),
    /// The stream cannot be asked.
    #[error("the journal cannot be read")]
    Read(#[from] ReadError),
    /// What is archived is no segment.
    #[error("segment `{name}` of the archive cannot be read")]
    Segment {
        /// Its name.
        name: String,
        /// Why not.
        #[source]
        source: FileError,
    },
    /// A message of ours cannot be read, or a segment not be written.
    #[error("the journal cannot be archived")]
    Wire(#[from] WireError),
    /// What is said of removed segments cannot be read or written.
    #[error("what was removed from the archive cannot be read")]
    Removed(#[from] serde_json::Error),
}

/// The segments of one partition.
#[derive(Debug, Clone)]
pub struct JournalArchive {
    folder: ObjectFolder,
    partition: PartitionId,
}

/// Sequences of a segment, as its name tells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u64,
    last: u64,
}

impl Range {
    fn name(self) -> String {
        format!("{:020}-{:020}", self.first, self.last)
    }

    fn of(name: &str) -> Option<Self> {
        let (first, last) = name.split_once('-')?;
        Some(Self { first: first.parse().ok()?, last: last.parse().ok()? })
    }
}

impl JournalArchive {
    /// Opens the archive of `partition`.
    ///
    /// # Errors
    ///
    /// When the bucket is not there or the broker does not answer.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn open(reader: &StreamReader, partition: PartitionId) -> Result<Self, ArchiveError> {
        let owner = partition.to_string();
        let folder = ObjectFolder::open(reader.broker(), ARCHIVE_BUCKET, &owner).await?;
        Ok(Self { folder, partition })
    }

    /// The segments, in order.
    async fn ranges(&self) -> Result<Vec<Range>, ArchiveError> {
        Ok(self.folder.list().await?.iter().filter_map(|name| Range::of(name)).collect())
    }

    /// Archives whole segments of about `segment_bytes` of what stands in the
    /// journal up to `to` and is not archived yet. Tells up to where it is.
    ///
    /// # Errors
    ///
    /// When the journal cannot be read, or the store refuses or does not answer.
    /// Segments that are stored stay.
    ///
    /// # Cancel safety
    ///
    /// Some segments may be stored; the next call goes on behind them.
    pub async fn archive(
        &self,
        reader: &StreamReader,
        to: u64,
        segment_bytes: u64,
    ) -> Result<u64, ArchiveError> {
        let stream = journal_stream(self.partition);
        let mut archived = self.ranges().await?.last().map_or(0, |range| range.last);
        let first = reader.stream_state(&stream).await?.first_sequence;
        // What an upload left that never ended; nobody else archives meanwhile who
        // would not store the same.
        self.folder.sweep().await?;
        let mut replay = reader.replay(&stream, (archived + 1).max(first), Holes::Refused).await?;
        let mut collected: Vec<StoredMessage> = Vec::new();
        let mut bytes = 0;
        loop {
            let batch = replay.next_batch(ARCHIVE_BATCH).await?;
            let is_end = batch.is_empty();
            for message in batch.into_iter().filter(|message| message.sequence <= to) {
                bytes += message.payload.len() as u64;
                collected.push(message);
                if bytes >= segment_bytes {
                    archived = self.store(&collected).await?.max(archived);
                    collected.clear();
                    bytes = 0;
                }
            }
            if is_end || replay.wanted() > to {
                return Ok(archived);
            }
        }
    }

    async fn store(&self, messages: &[StoredMessage]) -> Result<u64, ArchiveError> {
        let ends = (messages.first(), messages.last());
        let (Some(first), Some(last)) = ends else { return Ok(0) };
        let range = Range { first: first.sequence, last: last.sequence };
        let mut indices = None;
        for message in messages.iter().filter(|message| message.writer.is_some()) {
            let frame = JournalFrame::decode(&message.payload)?;
            let next = frame.first_record_index + frame.records.len() as u64;
            let (first, _) = indices.unwrap_or((frame.first_record_index, next));
            indices = Some((first, next));
        }
        let (first_record_index, next_record_index) = indices.unwrap_or_default();
        let messages = messages.iter().map(|message| ArchivedMessage {
            sequence: message.sequence,
            broker_time_ns: message.broker_time_ns,
            writer: message.writer.as_deref(),
            payload: serde_bytes::Bytes::new(&message.payload),
        });
        let (partition, messages) = (self.partition, messages.collect());
        let segment = Segment { partition, first_record_index, next_record_index, messages };
        let bytes = Bytes::from(segment.encode()?);
        self.folder.put(&range.name(), &bytes).await?;
        Ok(range.last)
    }

    /// Sequence of the first message of the journal that is still there, archived or not.
    ///
    /// # Errors
    ///
    /// When the journal or the store cannot be asked.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn first_sequence(&self, reader: &StreamReader) -> Result<u64, ArchiveError> {
        // The stream first: what is purged after it was asked is archived by then.
        let first = reader.stream_state(&journal_stream(self.partition)).await?.first_sequence;
        let ranges = self.ranges().await?;
        Ok(ranges.first().map_or(first, |range| range.first.min(first)))
    }

    /// The messages of a segment; none when it was removed.
    async fn read(&self, range: Range) -> Result<Vec<StoredMessage>, ArchiveError> {
        let name = range.name();
        let bytes = match self.folder.get(&name).await {
            Ok(bytes) => bytes,
            // One that is being removed looks like a damaged one, and has no name any more.
            Err(_) if self.folder.stored_ms(&name).await?.is_none() => None,
            Err(error) => return Err(error.into()),
        };
        let Some(bytes) = bytes else { return Ok(Vec::new()) };
        let segment =
            Segment::decode(&bytes).map_err(|source| ArchiveError::Segment { name, source })?;
        let subject = journal_subject(self.partition);
        let messages = segment.messages.iter().map(|message| StoredMessage {
            sequence: message.sequence,
            broker_time_ns: message.broker_time_ns,
            writer: message.writer.map(str::to_owned),
            subject: subject.as_str().into(),
            // A segment keeps the writer of all headers.
            headers: None,
            payload: bytes.slice_ref(message.payload),
        });
        Ok(messages.collect())
    }
}
