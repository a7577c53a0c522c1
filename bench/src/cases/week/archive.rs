//! Segments of the journal, as large as they would be in the archive.

use std::collections::VecDeque;

use fermata_partition::message::Message;
use fermata_wire::segment::{ArchivedMessage, Segment};
use miette::IntoDiagnostic as _;

use crate::driven_owner::ONLY;

/// What is left of a segment here: how large it is, and since when it is there.
#[derive(Debug)]
struct Stored {
    bytes: u64,
    stored_ms: u64,
}

/// The segments of one partition.
#[derive(Debug, Default)]
pub struct Archive {
    segments: VecDeque<Stored>,
    archived: u64,
    archived_bytes: u64,
}

impl Archive {
    /// Up to which message the journal is archived.
    pub fn archived(&self) -> u64 {
        self.archived
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Bytes of these and of all that were forgotten.
    pub fn archived_bytes(&self) -> u64 {
        self.archived_bytes
    }

    /// Writes whole segments of about `segment_bytes` of what stands in the journal up to `to`.
    pub fn archive(
        &mut self,
        journal: &VecDeque<Message>,
        to: u64,
        segment_bytes: u64,
        now_ms: u64,
    ) -> miette::Result<()> {
        let mut collected = Vec::new();
        let mut bytes = 0;
        let archived = self.archived;
        for message in journal.iter().filter(|at| (archived + 1..=to).contains(&at.sequence)) {
            bytes += message.payload.len() as u64;
            collected.push(ArchivedMessage {
                sequence: message.sequence,
                broker_time_ns: message.broker_time_ns,
                writer: message.writer.as_deref(),
                payload: serde_bytes::Bytes::new(&message.payload),
            });
            if bytes >= segment_bytes {
                self.archived = message.sequence;
                bytes = 0;
                let messages = std::mem::take(&mut collected);
                let segment = Segment {
                    partition: ONLY,
                    first_record_index: 0,
                    next_record_index: 0,
                    messages,
                };
                let bytes = segment.encode().into_diagnostic()?.len() as u64;
                self.archived_bytes += bytes;
                self.segments.push_back(Stored { bytes, stored_ms: now_ms });
            }
        }
        Ok(())
    }

    /// Forgets segments that were stored before then.
    pub fn forget_before(&mut self, before_ms: u64) {
        while self.segments.front().is_some_and(|segment| segment.stored_ms < before_ms) {
            self.segments.pop_front();
        }
    }
}
