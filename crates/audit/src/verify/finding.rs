//! What a check can find, named and located.

use std::fmt;

use crate::checkpoint::CheckpointError;
use crate::count::Counted;
use crate::hash::Hash;
use crate::loss::LossError;

/// Most findings that a report lists. The first are the ones to look at; of the
/// rest only the number is kept.
pub const FINDINGS_MAX: usize = 256;

/// The stream that differs from what was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// The journal.
    Journal,
    /// The AUDIT stream.
    Audit,
    /// One of the two; no checkpoint that covers the place agrees with either.
    Unknown,
}

/// The part of a record or entry that was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The public header.
    Header,
    /// The payload, or the salt stored beside it.
    Payload,
    /// The stored commitment.
    Commitment,
    /// The stored leaf hash.
    Leaf,
}

/// One thing that is not as it was signed. Indices count from 0 in their stream.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// A record or entry has other bytes than when it was signed.
    Changed {
        /// Index of the entry in AUDIT.
        index: u64,
        /// Where it was changed.
        stream: Stream,
        /// What was changed.
        part: Part,
    },
    /// Neighbouring records are gone from `stream`.
    Missing {
        /// Index of the first one in the other stream, which still has it.
        index: u64,
        /// How many in a row.
        count: u64,
        /// Where they are missing.
        stream: Stream,
    },
    /// Neighbouring records were put into `stream`.
    Added {
        /// Index of the first one in `stream`.
        index: u64,
        /// How many in a row.
        count: u64,
        /// Where they were added.
        stream: Stream,
    },
    /// A record stands at another place than its entry.
    Reordered {
        /// Index of the record in the journal.
        journal_index: u64,
        /// Index of the entry in AUDIT.
        audit_index: u64,
        /// Where it was moved.
        stream: Stream,
    },
    /// A record or entry carries another index than its place.
    Misnumbered {
        /// Its place.
        index: u64,
        /// The index that it carries.
        declared: u64,
        /// Where.
        stream: Stream,
    },
    /// A journal record has a lower stream sequence than the one before it.
    SequenceDecreased {
        /// Index of the record.
        index: u64,
    },
    /// A note that a known key signed is no checkpoint.
    BadCheckpoint {
        /// Sequence of its message.
        checkpoint: u64,
        /// Why.
        reason: CheckpointError,
    },
    /// The log at a checkpoint's size has another root: the first such
    /// checkpoint. What differs lies at or after index `sound_to`.
    RootMismatch {
        /// Sequence of its message.
        checkpoint: u64,
        /// Its tree size.
        size: u64,
        /// The largest size before it whose root was right.
        sound_to: u64,
        /// The signed root.
        signed: Hash,
        /// The root of the entries as they are.
        computed: Hash,
    },
    /// The last record that a checkpoint covers has another journal sequence.
    SequenceMismatch {
        /// Sequence of its message.
        checkpoint: u64,
        /// Its tree size.
        size: u64,
        /// The signed sequence.
        signed: u64,
        /// The record's sequence.
        found: u64,
    },
    /// A checkpoint covers more entries than there are: the end was cut off.
    CheckpointAhead {
        /// Sequence of its message.
        checkpoint: u64,
        /// Its tree size.
        size: u64,
        /// Entries that there are.
        leaves: u64,
    },
    /// The last entries are covered by no checkpoint, and no tail is allowed.
    CheckpointBehind {
        /// Tree size of the last checkpoint, 0 if there is none.
        size: u64,
        /// Entries that there are.
        leaves: u64,
    },
    /// A checkpoint has a smaller tree than one before it.
    CheckpointShrunk {
        /// Sequence of its message.
        checkpoint: u64,
        /// Its tree size.
        size: u64,
        /// The size before.
        previous: u64,
    },
    /// There are notes, and none is a checkpoint of this log by a known key: it is
    /// another key's log, or all its checkpoints are gone.
    NothingSigned {
        /// How many notes there are.
        notes: u64,
        /// Entries that there are.
        leaves: u64,
    },
    /// Two signed checkpoints of one size contradict each other.
    CheckpointFork {
        /// Sequence of its message.
        checkpoint: u64,
        /// Tree size of both.
        size: u64,
    },
    /// After all, records and entries are not equally many.
    SizeMismatch {
        /// Records in the journal, without an unaudited tail.
        records: u64,
        /// Entries in AUDIT.
        leaves: u64,
    },
    /// The journal says that somebody accepted a loss of records, and what it says is not
    /// what was signed.
    LossUnproved {
        /// Index of the first record that is said to be lost.
        index: u64,
        /// Why.
        reason: LossError,
    },
    /// The entries that stand for lost records are not those for which the loss was accepted.
    LossDiffers {
        /// Index of the last of them.
        index: u64,
    },
}

impl Finding {
    /// Returns the index that the finding points at: the first one if it is about
    /// several, the place up to which all was sound if it is about a checkpoint.
    #[must_use]
    pub fn index(&self) -> Option<u64> {
        match self {
            Self::Changed { index, .. }
            | Self::Missing { index, .. }
            | Self::Added { index, .. }
            | Self::Misnumbered { index, .. }
            | Self::SequenceDecreased { index }
            | Self::LossUnproved { index, .. }
            | Self::LossDiffers { index } => Some(*index),
            Self::Reordered { journal_index, audit_index, .. } => {
                Some(*journal_index.min(audit_index))
            }
            Self::RootMismatch { sound_to, .. } => Some(*sound_to),
            Self::CheckpointAhead { leaves, .. } => Some(*leaves),
            Self::CheckpointBehind { size, .. } => Some(*size),
            Self::SequenceMismatch { size, .. } => Some(size.saturating_sub(1)),
            Self::BadCheckpoint { .. }
            | Self::NothingSigned { .. }
            | Self::CheckpointShrunk { .. }
            | Self::CheckpointFork { .. }
            | Self::SizeMismatch { .. } => None,
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Journal => "the journal",
            Self::Audit => "audit",
            Self::Unknown => "the journal or audit",
        })
    }
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Header => "header",
            Self::Payload => "payload",
            Self::Commitment => "commitment",
            Self::Leaf => "leaf",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { index, stream, part } => {
                write!(formatter, "record {index}: {part} changed in {stream}")
            }
            Self::Missing { index, count, stream } => {
                write!(formatter, "{}: missing in {stream}", Records(*index, *count))
            }
            Self::Added { index, count, stream } => {
                write!(formatter, "{}: added to {stream}", Records(*index, *count))
            }
            Self::Reordered { journal_index, audit_index, stream } => write!(
                formatter,
                "record {journal_index} of the journal is entry {audit_index} of audit: moved in {stream}"
            ),
            Self::Misnumbered { index, declared, stream } => {
                write!(formatter, "record {index}: carries index {declared} in {stream}")
            }
            Self::SequenceDecreased { index } => {
                write!(
                    formatter,
                    "record {index}: its journal sequence is lower than the one before"
                )
            }
            Self::LossUnproved { index, reason } => write!(
                formatter,
                "record {index}: is said to be lost with those behind it, and that was accepted on what was not signed: {reason}"
            ),
            Self::LossDiffers { index } => write!(
                formatter,
                "record {index}: the entries up to it, which stand for lost records, are not those for which the loss was accepted"
            ),
            Self::BadCheckpoint { checkpoint, reason } => {
                write!(formatter, "checkpoint {checkpoint}: {reason}")?;
                std::error::Error::source(reason)
                    .map_or(Ok(()), |source| write!(formatter, ": {source}"))
            }
            Self::NothingSigned { notes, leaves } => write!(
                formatter,
                "no checkpoint of this log by the key is among {}; {} not signed",
                Counted(*notes, "note", "notes"),
                Counted(*leaves, "entry is", "entries are")
            ),
            Self::RootMismatch { checkpoint, size, sound_to, signed, computed } => write!(
                formatter,
                "checkpoint {checkpoint}: root at size {size} is `{computed}`, signed was `{signed}`; sound to size {sound_to}"
            ),
            Self::SequenceMismatch { checkpoint, size, signed, found } => write!(
                formatter,
                "checkpoint {checkpoint}: record {} has journal sequence {found}, signed was {signed}",
                size.saturating_sub(1)
            ),
            Self::CheckpointAhead { checkpoint, size, leaves } => write!(
                formatter,
                "checkpoint {checkpoint}: covers {}, but audit ends after {leaves}",
                Counted(*size, "entry", "entries")
            ),
            Self::CheckpointBehind { size, leaves } => {
                let entries = Counted(*leaves, "entry", "entries");
                write!(formatter, "the last checkpoint covers {size} of {entries}")
            }
            Self::CheckpointShrunk { checkpoint, size, previous } => write!(
                formatter,
                "checkpoint {checkpoint}: covers {}, one before it {previous}",
                Counted(*size, "entry", "entries")
            ),
            Self::CheckpointFork { checkpoint, size } => {
                write!(formatter, "checkpoint {checkpoint}: contradicts another of size {size}")
            }
            Self::SizeMismatch { records, leaves } => {
                let records = Counted(*records, "record", "records");
                let entries = Counted(*leaves, "entry", "entries");
                write!(formatter, "the journal has {records}, audit {entries}")
            }
        }
    }
}

/// `record 7` or `records 7 to 9`.
struct Records(u64, u64);

impl fmt::Display for Records {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(first, count) = self;
        if *count == 1 {
            return write!(formatter, "record {first}");
        }
        write!(formatter, "records {first} to {}", first.saturating_add(count.saturating_sub(1)))
    }
}
