//! From a journal frame to the audit entries that it gives.

use std::ops::Range;

use fermata_audit::{commitment, leaf_hash};
use fermata_core::record::TruncationAccepted;
use fermata_wire::WireError;
use fermata_wire::audit::{AuditFrameBuilder, Entries};
use fermata_wire::journal::JournalFrame;

use super::AuditHalt;
use crate::truncation::loss_of;

/// The entries of one journal message, encoded: nothing of its bytes is kept.
#[derive(Debug)]
pub(super) struct DerivedFrame {
    pub(super) journal_sequence: u64,
    pub(super) entries: Entries,
    /// Entries that are stored already.
    pub(super) taken: usize,
    /// The entries before these whose records are lost, until the tree has gone on behind them.
    pub(super) loss: Option<Box<TruncationAccepted>>,
}

/// Computes the entries of the journal message `frame`, whose first record must
/// have the index `next`.
pub(super) fn derive(sequence: u64, frame: &[u8], next: u64) -> Result<DerivedFrame, AuditHalt> {
    let unreadable = |error: WireError| {
        let (stream, detail) = ("journal", error.to_string());
        AuditHalt::Unreadable { stream, sequence, detail }
    };
    let decoded = JournalFrame::decode(frame).map_err(unreadable)?;
    let found = decoded.first_record_index;
    let loss = match found == next {
        true => None,
        false => loss_of(&decoded.records).map_err(unreadable)?,
    };
    let follows = loss.as_ref().map_or(found, |loss| loss.from);
    if follows != next {
        return Err(AuditHalt::RecordsGone { sequence, found, next });
    }
    let header_bytes = decoded.records.iter().map(|record| record.header.len()).sum();
    let mut entries = Entries::with_capacity(found, decoded.records.len(), header_bytes);
    for record in &decoded.records {
        let commitment = commitment(record.salt, record.payload);
        let leaf = leaf_hash(record.header, &commitment);
        entries.push(record.header, &commitment, leaf.as_bytes()).map_err(unreadable)?;
    }
    Ok(DerivedFrame { journal_sequence: sequence, entries, taken: 0, loss: loss.map(Box::new) })
}

impl DerivedFrame {
    /// Size of all its entries.
    pub(super) fn bytes(&self) -> usize {
        self.entries.bytes(0..self.entries.len())
    }

    /// The places of the next entries to store: as many as fit, one at least.
    pub(super) fn next_fitting(&self, bytes_max: usize) -> Range<usize> {
        self.taken..self.entries.fitting(self.taken, bytes_max)
    }

    /// Adds the entries at `places` to a frame for the audit log.
    pub(super) fn write(&self, places: Range<usize>, frame: &mut AuditFrameBuilder) {
        frame.push(&self.entries, places);
    }
}
