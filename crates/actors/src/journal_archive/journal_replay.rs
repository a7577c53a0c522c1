//! A journal being read to its end: its archive, then its stream, and its archive again wherever
//! a janitor purged what the reader had not come to.

use std::collections::VecDeque;

use fermata_core::identity::PartitionId;
use fermata_jetstream::reader::{Holes, Replay};
use fermata_jetstream::topology::journal_stream;
use fermata_jetstream::{StoredMessage, StreamReader};

use super::{ArchiveError, JournalArchive, Range};

/// A journal being read to its end, segments and stream as one.
#[derive(Debug)]
pub struct JournalReplay {
    reader: StreamReader,
    archive: JournalArchive,
    stream: String,
    /// Segments that come next.
    ranges: VecDeque<Range>,
    /// What was read of a segment.
    archived: VecDeque<StoredMessage>,
    /// What was read of the stream: it comes behind the segments.
    streamed: VecDeque<StoredMessage>,
    /// The message of the stream before which the archive was looked into for what is missing.
    looked_before: u64,
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
        Ok(Self {
            reader: reader.clone(),
            archive: JournalArchive::open(reader, partition).await?,
            stream: journal_stream(partition),
            ranges: VecDeque::new(),
            archived: VecDeque::new(),
            streamed: VecDeque::new(),
            looked_before: 0,
            next: from.max(1),
            replay: None,
        })
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
        let max = max.max(1);
        loop {
            if !self.archived.is_empty() {
                let batch = self.archived.drain(..self.archived.len().min(max)).collect();
                return Ok(self.hand_out(batch));
            }
            if let Some(range) = self.ranges.front().copied() {
                let messages = self.archive.read(range).await?;
                self.ranges.pop_front();
                let streamed = self.streamed.front().map_or(u64::MAX, |first| first.sequence);
                let wanted = self.next..streamed;
                self.archived = messages.into();
                self.archived.retain(|message| wanted.contains(&message.sequence));
                if self.archived.is_empty() {
                    // Removed meanwhile, or other than its name says: it is not looked for again.
                    self.next = self.next.max((range.last + 1).min(streamed));
                }
                continue;
            }
            if let Some(first) = self.streamed.front().map(|first| first.sequence) {
                // What is purged before it was read is archived by then.
                if first > self.next && self.looked_before != first {
                    let mut ranges = self.ranges_from(self.next).await?;
                    ranges.retain(|range| range.first < first);
                    self.looked_before = first;
                    self.ranges = ranges;
                    continue;
                }
                let batch = self.unbroken(max);
                return Ok(self.hand_out(batch));
            }
            match &mut self.replay {
                Some(replay) => {
                    self.streamed = replay.next_batch(max).await?.into();
                    if self.streamed.is_empty() {
                        return Ok(Vec::new());
                    }
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
            self.ranges = self.ranges_from(self.next).await?;
            if !self.ranges.is_empty() {
                return Ok(());
            }
        }
        let replay = self.reader.replay(&self.stream, self.next, Holes::Allowed).await?;
        self.replay = Some(replay);
        Ok(())
    }

    /// The segments that end at or behind `sequence`.
    async fn ranges_from(&self, sequence: u64) -> Result<VecDeque<Range>, ArchiveError> {
        let ranges = self.archive.ranges().await?.into_iter();
        Ok(ranges.filter(|range| range.last >= sequence).collect())
    }

    /// Messages of the stream up to where the next one is missing, at most `max`.
    fn unbroken(&mut self, max: usize) -> Vec<StoredMessage> {
        let pairs = self.streamed.iter().zip(self.streamed.iter().skip(1));
        let follow = pairs.take_while(|(one, next)| next.sequence == one.sequence + 1).count();
        let most = max.min(follow + 1).min(self.streamed.len());
        self.streamed.drain(..most).collect()
    }

    fn hand_out(&mut self, batch: Vec<StoredMessage>) -> Vec<StoredMessage> {
        self.next = batch.last().map_or(self.next, |last| last.sequence + 1);
        batch
    }

    /// The sequence after the last message handed out.
    #[must_use]
    pub fn wanted(&self) -> u64 {
        self.next
    }
}
