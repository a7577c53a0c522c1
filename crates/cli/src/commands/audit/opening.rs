//! Salts and payloads from the journal, for receipts that open their commitments.

use std::collections::VecDeque;

use fermata_actors::journal_archive::JournalReplay;
use fermata_audit::Opening;
use fermata_core::identity::PartitionId;
use fermata_jetstream::topology::journal_stream;
use fermata_jetstream::{StoredMessage, StreamReader};
use fermata_wire::journal::JournalFrame;

use super::pass::Proven;
use crate::error::CliError;

/// How many messages are taken from the journal at a time.
const BATCH_MESSAGES: usize = 64;

/// A journal and its archive, read forward to the records that are opened.
pub(super) struct Openings {
    partition: PartitionId,
    replay: JournalReplay,
    waiting: VecDeque<StoredMessage>,
}

impl Openings {
    /// Begins at or before the first of `records`.
    pub(super) async fn open(
        reader: &StreamReader,
        partition: PartitionId,
        records: &[Proven],
    ) -> Result<Self, CliError> {
        let from = records.first().map_or(1, |record| record.journal_from);
        let replay = JournalReplay::open(reader, partition, from).await?;
        Ok(Self { partition, replay, waiting: VecDeque::new() })
    }

    /// What opens record `index`; nothing when it was removed. Indices have to ascend.
    pub(super) async fn of(&mut self, index: u64) -> Result<Option<Opening>, CliError> {
        loop {
            if self.waiting.is_empty() {
                self.waiting.extend(self.replay.next_batch(BATCH_MESSAGES).await?);
            }
            let Some(message) = self.waiting.front() else { return Ok(None) };
            if message.writer.is_some() {
                let stream = journal_stream(self.partition);
                let what = || format!("message {} of stream `{stream}`", message.sequence);
                let frame = JournalFrame::decode(&message.payload)
                    .map_err(|source| CliError::Unreadable { what: what(), source })?;
                // Behind a record that was removed the next one stays for its own turn.
                let Some(place) = index.checked_sub(frame.first_record_index) else {
                    return Ok(None);
                };
                let record = usize::try_from(place).ok().and_then(|at| frame.records.get(at));
                if let Some(record) = record {
                    let (salt, payload) = (*record.salt, record.payload.to_vec());
                    return Ok(Some(Opening { salt, payload }));
                }
            }
            self.waiting.pop_front();
        }
    }
}
