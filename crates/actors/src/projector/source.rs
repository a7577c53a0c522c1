//! Where a projector's messages come from.

use fermata_core::identity::PartitionId;
use fermata_jetstream::reader::{FollowError, Holes, Tail};
use fermata_jetstream::topology::journal_stream;
use fermata_jetstream::{StoredMessage, StreamReader};

/// Gives the messages of journals in order, from any place on.
///
/// Journals are purged below what snapshots and archives keep. A source that knows archives
/// begins with theirs where the journal begins later than the place asked for;
/// [`JournalSource`] knows none and begins with what is left.
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

/// The journals as the broker holds them.
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
    type Frames = Tail;

    async fn frames_from(&self, partition: PartitionId, from: u64) -> Result<Tail, FollowError> {
        self.reader.tail(&journal_stream(partition), from, Holes::Allowed).await
    }
}

impl Frames for Tail {
    async fn next(&mut self, max: usize) -> Result<Vec<StoredMessage>, FollowError> {
        self.next_batch(max).await
    }
}
