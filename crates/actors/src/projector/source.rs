//! Where a projector's messages come from.

use fermata_core::identity::PartitionId;
use fermata_jetstream::definitions_store::StoreError;
use fermata_jetstream::reader::{FollowError, Holes, Tail};
use fermata_jetstream::topology::journal_stream;
use fermata_jetstream::{StoredMessage, StreamReader};

use crate::coordinator::describe;
use crate::hop::AGAIN_AFTER;
use crate::journal_archive::{ArchiveError, JournalReplay};

/// Gives the messages of journals in order, from any place on.
///
/// Journals are purged below what snapshots and archives keep: where the stream begins later than
/// the place asked for, the archive comes first.
pub trait FrameSource: Send + Sync + 'static {
    /// Messages in order.
    type Frames: Frames;

    /// The messages of the journal of `partition` from sequence `from` on, or from the first
    /// one behind it that there is.
    fn frames_from(
        &self,
        partition: PartitionId,
        from: u64,
    ) -> impl Future<Output = Result<Self::Frames, FollowError>> + Send;
}

/// Messages of one journal in order, without an end.
pub trait Frames: Send {
    /// The next ones, at most `max`; waits until there is one.
    ///
    /// Nothing is lost when it is dropped.
    fn next(
        &mut self,
        max: usize,
    ) -> impl Future<Output = Result<Vec<StoredMessage>, FollowError>> + Send;
}

/// The journals as the broker holds them: their archives, then their streams.
#[derive(Debug, Clone)]
pub struct JournalSource {
    reader: StreamReader,
}

impl JournalSource {
    /// Reads with `reader`.
    #[must_use]
    pub fn new(reader: StreamReader) -> Self {
        Self { reader }
    }
}

impl FrameSource for JournalSource {
    type Frames = JournalFrames;

    async fn frames_from(
        &self,
        partition: PartitionId,
        from: u64,
    ) -> Result<JournalFrames, FollowError> {
        let (reader, place) = (self.reader.clone(), Place::Unknown);
        Ok(JournalFrames { reader, partition, next: from.max(1), looked_before: 0, place })
    }
}

/// Messages of one journal, wherever they are.
#[derive(Debug)]
pub struct JournalFrames {
    reader: StreamReader,
    partition: PartitionId,
    next: u64,
    /// The message of the stream before which the archive was looked into for what is missing.
    looked_before: u64,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// It is to be found.
    Unknown,
    /// In the archive, or in the stream before its end.
    Replay(Box<JournalReplay>),
    /// At the end of the stream.
    Tail(Box<Tail>),
}

impl JournalFrames {
    async fn replay(&self) -> Result<Place, ArchiveError> {
        let replay = JournalReplay::open(&self.reader, self.partition, self.next).await?;
        Ok(Place::Replay(Box::new(replay)))
    }

    async fn tail(&self) -> Result<Place, FollowError> {
        let stream = journal_stream(self.partition);
        let tail = self.reader.tail(&stream, self.next, Holes::Allowed).await?;
        Ok(Place::Tail(Box::new(tail)))
    }

    /// Goes on without the archive where that cannot be read: what is left is listed all the same.
    async fn without_archive(&mut self, error: ArchiveError) -> Result<(), FollowError> {
        match error {
            ArchiveError::Follow(error) => Err(error),
            ArchiveError::Read(source) => {
                Err(FollowError::Read { stream: journal_stream(self.partition), source })
            }
            // Nothing is wrong with what it holds: it is read when the broker answers again.
            ArchiveError::Store(StoreError::Broker { .. }) => {
                let (partition, error) = (self.partition, describe(&error));
                tracing::debug!(%partition, error, "the archive of a journal is not read yet");
                self.place = Place::Unknown;
                tokio::time::sleep(AGAIN_AFTER).await;
                Ok(())
            }
            error @ (ArchiveError::Store(_)
            | ArchiveError::Segment { .. }
            | ArchiveError::Wire(_)
            | ArchiveError::Removed(_)) => {
                let (partition, error) = (self.partition, describe(&error));
                tracing::warn!(%partition, error, "the archive of a journal cannot be read; what it alone holds is left out");
                self.place = self.tail().await?;
                Ok(())
            }
        }
    }
}

impl Frames for JournalFrames {
    async fn next(&mut self, max: usize) -> Result<Vec<StoredMessage>, FollowError> {
        loop {
            let batch = match &mut self.place {
                Place::Unknown => match self.replay().await {
                    Ok(place) => {
                        self.place = place;
                        continue;
                    }
                    Err(error) => {
                        self.without_archive(error).await?;
                        continue;
                    }
                },
                Place::Replay(replay) => match replay.next_batch(max).await {
                    Ok(batch) if batch.is_empty() => {
                        self.next = replay.wanted();
                        self.place = self.tail().await?;
                        continue;
                    }
                    Ok(batch) => batch,
                    Err(error) => {
                        self.without_archive(error).await?;
                        continue;
                    }
                },
                Place::Tail(tail) => tail.next_batch(max).await?,
            };
            let Some((first, last)) = batch.first().zip(batch.last()) else { continue };
            // What was purged before it was read is archived by then; it is looked for once.
            if matches!(self.place, Place::Tail(_))
                && first.sequence > self.next
                && self.looked_before != first.sequence
            {
                self.looked_before = first.sequence;
                self.place = Place::Unknown;
                continue;
            }
            self.next = last.sequence + 1;
            return Ok(batch);
        }
    }
}
