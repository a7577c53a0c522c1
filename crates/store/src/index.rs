//! What every index of runs does.

use fermata_core::digest::Digest;
use fermata_core::identity::{PartitionId, RunId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::frame::FrameChanges;
use crate::query::{RunPage, RunQuery};
use crate::run::RunSummary;

/// Runs that an index holds at most. Of more, those that ended and began longest ago are left
/// out: an index is for what people look at, the journals and their archives are the record. At
/// some 2 KiB of disk for each it stays below a quarter of what an index may take.
pub const RUNS_MAX_DEFAULT: u64 = 2_000_000;

/// Runs that have changed and are not written yet at most, see [`RunIndex::apply`]: what a full
/// engine starts in a quarter of a second, so that most runs are written once, as they ended.
/// Some 8 MiB.
pub const YOUNG_RUNS_MAX: usize = 8_192;

/// How many runs an index of at most `runs_max` keeps when it gets full: leaving some out
/// together is cheaper than one by one, and takes some milliseconds.
#[must_use]
pub(crate) fn kept_when_full(runs_max: u64) -> u64 {
    runs_max - (runs_max / 8).min(256)
}

/// What an index is made from: with any of it changed, it is made anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Name of the engine.
    pub engine: String,
    /// The journals.
    pub streams: Vec<StreamOrigin>,
}

/// One journal: a stream of this name may be deleted and made again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamOrigin {
    /// Whose journal.
    pub partition: PartitionId,
    /// Name of the stream.
    pub stream: String,
    /// When it was made, as the broker writes it.
    pub created: String,
}

/// How far a journal was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Sequence of the last message applied; 0 before the first.
    pub sequence: u64,
    /// Digest of that message's bytes.
    pub digest: Digest,
    /// Digest of all messages applied, in order: of the one before, the sequence and the
    /// message's digest.
    pub rolling: Digest,
}

impl Position {
    /// Before the first message.
    pub const START: Self = Self { sequence: 0, digest: Digest([0; 32]), rolling: Digest([0; 32]) };

    /// Behind the message `frame`.
    #[must_use]
    pub fn after(&self, frame: &FrameChanges) -> Self {
        let Digest(rolling) = self.rolling;
        let Digest(digest) = frame.digest;
        let bytes = [&rolling[..], &frame.sequence.to_be_bytes(), &digest[..]].concat();
        Self { sequence: frame.sequence, digest: frame.digest, rolling: Digest::of(&bytes) }
    }
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The index stands behind it now.
    Taken,
    /// It had been applied before.
    Known,
}

/// Why an index cannot be used. All of them are mended by making it anew.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The database failed.
    #[error("the database of the read model failed")]
    Database(#[source] sled::Error),
    /// The database panicked; nothing is known of its state.
    #[error("the database of the read model panicked: {0}")]
    Panicked(String),
    /// A row is not as it was written.
    #[error("the read model is damaged: {0}")]
    Damaged(&'static str),
    /// A row could not be written as bytes.
    #[error("a row of the read model could not be encoded")]
    Encode(#[from] rmp_serde::encode::Error),
    /// It takes more room than it may.
    #[error("the read model takes {bytes} bytes, more than the {max} it may")]
    TooLarge {
        /// What it takes.
        bytes: u64,
        /// What it may.
        max: u64,
    },
    /// The journal of a partition that the index is not made from.
    #[error("the read model knows no partition {0}")]
    UnknownPartition(PartitionId),
}

/// A list of runs that follows the journals.
///
/// Messages of one journal are applied in their order, of several in any. A message changes
/// the runs and the position together or not at all.
pub trait RunIndex {
    /// Applies one message of a journal. Every answer from here on knows it; what is written,
    /// and when, is the index's own matter.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; the index is made anew then.
    fn apply(&mut self, frame: &FrameChanges) -> Result<Applied, StoreError>;

    /// How far the journal of `partition` was applied.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownPartition`].
    fn position(&self, partition: PartitionId) -> Result<Position, StoreError>;

    /// The runs that `query` wants, the newest first.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; the index is made anew then.
    fn list(&mut self, query: &RunQuery) -> Result<RunPage, StoreError>;

    /// One run.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; the index is made anew then.
    fn get(&mut self, run: RunId) -> Result<Option<RunSummary>, StoreError>;

    /// How many runs it holds.
    fn runs(&self) -> u64;

    /// Runs that started at this journal time or before may have been left out, because there
    /// were too many or their journal began later; nothing while all are there.
    fn left_out_until_ms(&self) -> Option<u64>;
}
