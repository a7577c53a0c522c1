//! Frames of audit entries: stored in the audit log, and sent to subscribers.
//!
//! ```text
//! envelope{kind: "audit", version: 1, first_record_index, body}
//! body{journal_sequence, entries: [{index, header: bin, commitment: bin(32), leaf: bin(32)}, …]}
//! ```
//!
//! A stored frame holds consecutive indices; a subscriber's frame holds those
//! of one tenant.

mod encoded;

use serde::{Deserialize, Serialize};

use crate::envelope::{Envelope, MessageKind, WireError, read, write_named};

pub use encoded::{AuditFrameBuilder, Entries};

/// One entry: what the leaf is computed from, and the leaf. Never a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry<'a> {
    /// The record's index, also the leaf's.
    pub index: u64,
    /// The record's header bytes.
    #[serde(with = "serde_bytes")]
    pub header: &'a [u8],
    /// Commitment to the record's payload.
    #[serde(with = "serde_bytes")]
    pub commitment: &'a [u8; 32],
    /// RFC 6962 leaf hash.
    #[serde(with = "serde_bytes")]
    pub leaf: &'a [u8; 32],
}

/// Entries of one or more journal frames.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditFrame<'a> {
    /// Sequence of the last journal message that holds records of these.
    pub journal_sequence: u64,
    /// In order of index.
    #[serde(borrow)]
    pub entries: Vec<Entry<'a>>,
}

impl<'a> AuditFrame<'a> {
    /// Decodes a frame.
    ///
    /// # Errors
    ///
    /// [`WireError`], naming what is wrong; never panics, on any bytes.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let envelope = Envelope::decode(MessageKind::Audit, bytes)?;
        read("audit", envelope.body)
    }

    /// Encodes the frame.
    ///
    /// # Errors
    ///
    /// [`WireError::TooLarge`] over the size cap.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        let headers = self.entries.iter().map(|entry| entry.header.len() + 112).sum::<usize>();
        let mut body = Vec::with_capacity(headers + 48);
        write_named(&mut body, self)?;
        let first = self.entries.first().map(|entry| entry.index);
        Envelope::new(MessageKind::Audit, first, &body).encode()
    }
}
