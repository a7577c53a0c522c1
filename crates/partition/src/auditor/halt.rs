//! Why an audit log cannot be trusted.

use fermata_audit::LossError;
use thiserror::Error;

/// Why an audit log cannot be trusted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AuditHalt {
    /// Fewer entries than were signed.
    #[error(
        "the audit log does not hold the last of the {signed} entries that were signed; entries are gone"
    )]
    BehindCheckpoint {
        /// Entries that the checkpoint covers.
        signed: u64,
    },
    /// An entry is not stored, and later ones are.
    #[error("the audit log does not hold entry {index}, but later ones; entries are gone")]
    EntryMissing {
        /// Its index.
        index: u64,
    },
    /// The journal holds fewer records than were signed.
    #[error("the journal holds {found} records, {signed} were signed; records are gone")]
    JournalBehindCheckpoint {
        /// Entries that the checkpoint covers.
        signed: u64,
        /// Records that are there.
        found: u64,
    },
    /// The journal's records do not give the signed root.
    #[error("the journal's first {size} records do not give the signed root; a record was changed")]
    RootMismatch {
        /// Entries that the checkpoint covers.
        size: u64,
    },
    /// A stored entry is not the one that the journal gives.
    #[error("audit entry {index} is not the one that the journal gives")]
    EntryMismatch {
        /// Its index.
        index: u64,
    },
    /// A message of the journal does not go on where the one before it ended.
    #[error("message {sequence} of the journal begins with record {found}, {next} is next")]
    RecordsGone {
        /// Its sequence.
        sequence: u64,
        /// Index of its first record.
        found: u64,
        /// The index that follows.
        next: u64,
    },
    /// Somebody accepted a loss of records, and it is not the one that the log shows.
    #[error("a loss of records was accepted that the audit log does not show: {reason}")]
    LossUnproved {
        /// Why not.
        reason: LossError,
    },
    /// Somebody accepted a loss of records without knowing the newest checkpoint.
    #[error(
        "a loss of records was accepted on what was signed for {accepted} entries, and {signed} were signed"
    )]
    LossBehindCheckpoint {
        /// Entries that the newest checkpoint covers.
        signed: u64,
        /// Entries that the accepted one covers.
        accepted: u64,
    },
    /// A message of the journal or of the audit log cannot be read.
    #[error("message {sequence} of the {stream} cannot be read: {detail}")]
    Unreadable {
        /// Which stream.
        stream: &'static str,
        /// Its sequence.
        sequence: u64,
        /// Why.
        detail: String,
    },
}
