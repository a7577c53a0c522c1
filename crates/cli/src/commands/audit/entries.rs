//! The entries of an audit log in order.

use std::collections::VecDeque;

use fermata_audit::Hash;
use fermata_core::identity::PartitionId;
use fermata_jetstream::topology::audit_stream;
use fermata_jetstream::{Bytes, StoredMessage, StreamReader};
use fermata_wire::WireError;
use fermata_wire::audit::{AuditFrame, Entry};
use indicatif::ProgressBar;

use super::partition_audit::UnreadableMessages;
use super::section::Section;
use crate::error::CliError;

/// An entry; shares the bytes of its message.
#[derive(Debug)]
pub(super) struct StoredEntry {
    pub(super) index: u64,
    pub(super) header: Bytes,
    pub(super) commitment: [u8; 32],
    pub(super) leaf: Hash,
}

/// An audit log up to where it ended when it was first looked at.
#[derive(Debug)]
pub(super) struct LogEntries {
    stream: String,
    section: Section,
    waiting: VecDeque<StoredEntry>,
}

impl LogEntries {
    pub(super) async fn open(
        reader: &StreamReader,
        partition: PartitionId,
        end: u64,
        progress: &ProgressBar,
    ) -> Result<Self, CliError> {
        let stream = audit_stream(partition);
        let section = Section::open(reader, &stream, end, progress).await?;
        Ok(Self { stream, section, waiting: VecDeque::new() })
    }

    /// The next entry; nothing at the end.
    pub(super) async fn next(
        &mut self,
        unreadable: &mut UnreadableMessages,
    ) -> Result<Option<StoredEntry>, CliError> {
        while self.waiting.is_empty() {
            let Some(message) = self.section.next().await? else {
                if let Some(sequence) = self.section.missing_end() {
                    unreadable.note_missing(self.stream.clone(), sequence);
                }
                return Ok(None);
            };
            match entries_of(&message) {
                Ok(entries) => self.waiting.extend(entries),
                Err(error) => unreadable.note(self.stream.clone(), &message, &error),
            }
        }
        Ok(self.waiting.pop_front())
    }
}

/// The entries of a message of AUDIT; none when nobody of ours wrote it.
fn entries_of(message: &StoredMessage) -> Result<Vec<StoredEntry>, WireError> {
    if message.writer.is_none() {
        return Ok(Vec::new());
    }
    let frame = AuditFrame::decode(&message.payload)?;
    let entry = |entry: &Entry<'_>| StoredEntry {
        index: entry.index,
        header: message.payload.slice_ref(entry.header),
        commitment: *entry.commitment,
        leaf: Hash(*entry.leaf),
    };
    Ok(frame.entries.iter().map(entry).collect())
}
