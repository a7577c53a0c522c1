//! Journals as one: what was purged from a stream, and what it holds.
//!
//! Before a journal is purged its messages go, as they are, into segments in the
//! object store. A segment never changes. Whoever reads a journal for people or
//! checks it reads the segments and then the stream; the owner of a partition
//! reads the stream alone, behind a snapshot.

mod retention;

use std::collections::VecDeque;

pub use retention::Removed;

use fermata_core::identity::PartitionId;
use fermata_jetstream::definitions_store::StoreError;
use fermata_jetstream::object_folder::ObjectFolder;
use fermata_jetstream::reader::{FollowError, Holes, ReadError, Replay};
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
            let before = collected.len();
            for message in batch.into_iter().filter(|message| message.sequence <= to) {
                bytes += message.payload.len() as u64;
                collected.push(message);
                if bytes >= segment_bytes {
                    archived = self.store(&collected).await?.max(archived);
                    collected.clear();
                    bytes = 0;
                }
            }
            let ended = collected.last().is_none_or(|message| message.sequence >= to);
            if replay.wanted() > to || (ended && collected.len() == before) {
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

    /// The messages of a segment.
    async fn read(&self, range: Range) -> Result<Vec<StoredMessage>, ArchiveError> {
        let name = range.name();
        let Some(bytes) = self.folder.get(&name).await? else { return Ok(Vec::new()) };
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

/// A journal being read to its end: its archive, then its stream.
#[derive(Debug)]
pub struct JournalReplay {
    reader: StreamReader,
    archive: JournalArchive,
    stream: String,
    ranges: VecDeque<Range>,
    read: VecDeque<StoredMessage>,
    next: u64,
    replay: Option<Replay>,
}

impl JournalReplay {
    /// Reads the journal of `partition` from sequence `from` (1 is the first).
    ///
    /// # Errors
    ///
    /// When it or its archive is not there, or the broker does not answer.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn open(
        reader: &StreamReader,
        partition: PartitionId,
        from: u64,
    ) -> Result<Self, ArchiveError> {
        let archive = JournalArchive::open(reader, partition).await?;
        let stream = journal_stream(partition);
        let (next, reader) = (from.max(1), reader.clone());
        let (ranges, read) = (VecDeque::new(), VecDeque::new());
        Ok(Self { reader, archive, stream, ranges, read, next, replay: None })
    }

    /// The next messages in order, at most `max`; none at the end. What was
    /// purged and is not archived is stepped over.
    ///
    /// # Errors
    ///
    /// When a segment is damaged, or the broker does not answer.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when dropped.
    pub async fn next_batch(&mut self, max: usize) -> Result<Vec<StoredMessage>, ArchiveError> {
        loop {
            if !self.read.is_empty() {
                let batch = self.read.drain(..self.read.len().min(max.max(1)));
                let batch = batch.collect::<Vec<_>>();
                self.next = batch.last().map_or(self.next, |message| message.sequence + 1);
                return Ok(batch);
            }
            if let Some(replay) = &mut self.replay {
                let batch = replay.next_batch(max).await?;
                self.next = replay.wanted();
                return Ok(batch);
            }
            match self.ranges.pop_front() {
                Some(range) => {
                    let next = self.next;
                    let messages = self.archive.read(range).await?;
                    self.read = messages.into();
                    self.read.retain(|message| message.sequence >= next);
                }
                None => self.go_on().await?,
            }
        }
    }

    /// Finds where the next message is: in a segment, or in the stream.
    async fn go_on(&mut self) -> Result<(), ArchiveError> {
        // The stream first: what is purged after it was asked, is archived by then.
        let first = self.reader.stream_state(&self.stream).await?.first_sequence;
        if first > self.next {
            let next = self.next;
            let mut ranges = self.archive.ranges().await?;
            ranges.retain(|range| range.last >= next);
            if !ranges.is_empty() {
                self.ranges = ranges.into();
                return Ok(());
            }
        }
        let replay = self.reader.replay(&self.stream, self.next, Holes::Allowed).await?;
        self.replay = Some(replay);
        Ok(())
    }

    /// The sequence after the last message handed out.
    #[must_use]
    pub fn wanted(&self) -> u64 {
        self.next
    }
}
