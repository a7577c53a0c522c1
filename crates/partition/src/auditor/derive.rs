//! From a journal frame to the audit entries that it gives.

use bytes::Bytes;
use fermata_audit::{Hash, commitment, leaf_hash};
use fermata_core::identity::Tenant;
use fermata_wire::audit::{AuditFrame, Entry};
use fermata_wire::journal::JournalFrame;
use serde::Deserialize;

use super::{AuditHalt, Output};

/// The entries of one journal frame.
#[derive(Debug)]
pub(super) struct DerivedFrame {
    pub(super) journal_sequence: u64,
    pub(super) first_index: u64,
    pub(super) entries: Vec<DerivedEntry>,
    /// Entries that another auditor stored already.
    pub(super) taken: usize,
    /// Size of the entries when stored, roughly.
    pub(super) bytes: usize,
}

/// One entry.
#[derive(Debug)]
pub(super) struct DerivedEntry {
    pub(super) header: Bytes,
    pub(super) commitment: [u8; 32],
    pub(super) leaf: Hash,
}

/// Bytes of an entry besides its header.
const ENTRY_BYTES: usize = 112;

/// Computes the entries of the journal message `frame`.
pub(super) fn derive(sequence: u64, frame: &Bytes) -> Result<DerivedFrame, AuditHalt> {
    let unreadable = |detail: String| AuditHalt::Unreadable { stream: "journal", sequence, detail };
    let decoded = JournalFrame::decode(frame).map_err(|error| unreadable(error.to_string()))?;
    let mut bytes = 0;
    let entries = decoded
        .records
        .iter()
        .map(|record| {
            bytes += record.header.len() + ENTRY_BYTES;
            let commitment = commitment(record.salt, record.payload);
            DerivedEntry {
                header: frame.slice_ref(record.header),
                leaf: leaf_hash(record.header, &commitment),
                commitment,
            }
        })
        .collect();
    Ok(DerivedFrame {
        journal_sequence: sequence,
        first_index: decoded.first_record_index,
        entries,
        taken: 0,
        bytes,
    })
}

/// The part of a header that says whose record it is.
#[derive(Deserialize)]
struct Owner {
    #[serde(default)]
    tenant: Option<Tenant>,
}

impl DerivedFrame {
    /// The entries that are not stored yet.
    pub(super) fn remaining(&self) -> impl Iterator<Item = Entry<'_>> {
        (self.first_index..)
            .zip(&self.entries)
            .skip(self.taken)
            .map(|(index, entry)| entry.at(index))
    }

    /// Sends the entries to the subscribers of each tenant in the frame.
    pub(super) fn feed(&self, outputs: &mut Vec<Output>) {
        let mut groups: Vec<(Option<Tenant>, Vec<Entry<'_>>)> = Vec::new();
        for (index, entry) in (self.first_index..).zip(&self.entries) {
            let tenant =
                rmp_serde::from_slice::<Owner>(&entry.header).ok().and_then(|owner| owner.tenant);
            match groups.iter_mut().find(|(known, _)| *known == tenant) {
                Some((_, entries)) => entries.push(entry.at(index)),
                None => groups.push((tenant, vec![entry.at(index)])),
            }
        }
        for (tenant, entries) in groups {
            let frame = AuditFrame { journal_sequence: self.journal_sequence, entries };
            // An entry that is too large for a message is in the stored log all the same.
            if let Ok(frame) = frame.encode() {
                outputs.push(Output::Feed { tenant, frame });
            }
        }
    }
}

impl DerivedEntry {
    fn at(&self, index: u64) -> Entry<'_> {
        Entry {
            index,
            header: &self.header,
            commitment: &self.commitment,
            leaf: self.leaf.as_bytes(),
        }
    }
}
