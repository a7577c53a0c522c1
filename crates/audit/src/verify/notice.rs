//! What is strange and proves nothing: whoever may publish can put it there.

use std::fmt;

use crate::checkpoint::CheckpointError;

/// Most notices that a report lists; of the rest only the number is kept.
pub const NOTICES_MAX: usize = 64;

/// A message among the checkpoints that says nothing about the log: it is not
/// signed with its key, or a copy of what was signed. Counted and named, and no
/// failure: otherwise anyone who may publish could make a sound log look broken.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// Not signed with a known key: garbage, another's note, a damaged one.
    NotSigned {
        /// Sequence of its message.
        sequence: u64,
        /// Why it is refused.
        reason: CheckpointError,
    },
    /// Signed with a known key, for another log: a copy.
    OtherLog {
        /// Sequence of its message.
        sequence: u64,
        /// The log that it names.
        origin: String,
    },
    /// The same as an earlier one.
    Repeated {
        /// Sequence of its message.
        sequence: u64,
        /// Entries that it covers.
        size: u64,
    },
}

impl Notice {
    /// Returns the sequence of the message.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        match self {
            Self::NotSigned { sequence, .. }
            | Self::OtherLog { sequence, .. }
            | Self::Repeated { sequence, .. } => *sequence,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSigned { sequence, reason } => {
                write!(formatter, "checkpoint {sequence}: is none of this log's: {reason}")?;
                std::error::Error::source(reason)
                    .map_or(Ok(()), |source| write!(formatter, ": {source}"))
            }
            Self::OtherLog { sequence, origin } => {
                write!(formatter, "checkpoint {sequence}: is of log `{origin}`")
            }
            Self::Repeated { sequence, size } => {
                write!(formatter, "checkpoint {sequence}: repeats the one of size {size}")
            }
        }
    }
}

/// Notices up to the bound.
#[derive(Debug, Default)]
pub(super) struct Notices {
    pub(super) list: Vec<Notice>,
    pub(super) omitted: u64,
}

impl Notices {
    pub(super) fn add(&mut self, notice: Notice) {
        if self.list.len() < NOTICES_MAX {
            self.list.push(notice);
        } else {
            self.omitted = self.omitted.saturating_add(1);
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.omitted.saturating_add(self.list.len() as u64)
    }
}
