//! Salts and payloads from the journal, for receipts that open their commitments.

use std::collections::VecDeque;

use fermata_actors::journal_archive::{JournalArchive, JournalReplay};
use fermata_audit::Opening;
use fermata_core::identity::PartitionId;
use fermata_jetstream::topology::journal_stream;
use fermata_jetstream::{StoredMessage, StreamReader};
use fermata_partition::truncation::loss_of;
use fermata_wire::journal::JournalFrame;

use super::partition_audit::AcceptedLoss;
use super::pass::Proven;
use crate::error::CliError;

/// How many messages are taken from the journal at a time.
const BATCH_MESSAGES: usize = 64;

/// Why a record that was signed is not in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Gone {
    /// It was kept long enough, and removed.
    Removed,
    /// It is lost, which somebody accepted.
    Lost(AcceptedLoss),
    /// Nobody says so.
    Missing,
}

/// A journal and its archive, read forward to the records that are opened.
pub(super) struct Openings {
    reader: StreamReader,
    partition: PartitionId,
    replay: JournalReplay,
    /// Whether it is read from its first message on.
    from_start: bool,
    waiting: VecDeque<StoredMessage>,
    /// Accepted losses that were read of.
    losses: Vec<AcceptedLoss>,
    /// Index of the first record that was not removed; it is asked for when one is not there.
    kept_from: Option<u64>,
}

impl Openings {
    /// Begins where the first of `records` should be.
    pub(super) async fn open(
        reader: &StreamReader,
        partition: PartitionId,
        records: &[Proven],
    ) -> Result<Self, CliError> {
        let end = reader.stream_state(&journal_stream(partition)).await?.last_sequence;
        // A journal that was cut ends before what its audit log knows.
        let from = records.first().map_or(1, |record| record.journal_from).min(end + 1);
        Ok(Self {
            reader: reader.clone(),
            partition,
            replay: JournalReplay::open(reader, partition, from).await?,
            from_start: from <= 1,
            waiting: VecDeque::new(),
            losses: Vec::new(),
            kept_from: None,
        })
    }

    /// What opens record `index`, or why nothing does. Indices have to ascend.
    pub(super) async fn of(&mut self, index: u64) -> Result<Result<Opening, Gone>, CliError> {
        loop {
            if let Some(opening) = self.seek(index).await? {
                return Ok(Ok(opening));
            }
            let is_lost = |loss: &&AcceptedLoss| (loss.from..loss.next).contains(&index);
            if let Some(loss) = self.losses.iter().find(is_lost) {
                return Ok(Err(Gone::Lost(loss.clone())));
            }
            if index < self.kept_from().await? {
                return Ok(Err(Gone::Removed));
            }
            if self.from_start {
                return Ok(Err(Gone::Missing));
            }
            // Sequences begin again where a journal was cut: those that the audit log tells of
            // lost records lead past what stands there now.
            self.replay = JournalReplay::open(&self.reader, self.partition, 1).await?;
            self.from_start = true;
            self.waiting.clear();
        }
    }

    async fn kept_from(&mut self) -> Result<u64, CliError> {
        if let Some(kept_from) = self.kept_from {
            return Ok(kept_from);
        }
        let archive = JournalArchive::open(&self.reader, self.partition).await?;
        let kept_from = archive.removed().await?.map_or(0, |removed| removed.next_record_index);
        self.kept_from = Some(kept_from);
        Ok(kept_from)
    }

    /// Reads on to record `index`; nothing when it is not between what was read and the end.
    async fn seek(&mut self, index: u64) -> Result<Option<Opening>, CliError> {
        loop {
            if self.waiting.is_empty() {
                self.waiting.extend(self.replay.next_batch(BATCH_MESSAGES).await?);
            }
            let Some(message) = self.waiting.front() else { return Ok(None) };
            if message.writer.is_some() {
                let stream = journal_stream(self.partition);
                let unreadable = |source| CliError::Unreadable {
                    what: format!("message {} of stream `{stream}`", message.sequence),
                    source,
                };
                let frame = JournalFrame::decode(&message.payload).map_err(unreadable)?;
                if let Some(accepted) = loss_of(&frame.records).map_err(unreadable)? {
                    let time = frame.head.time;
                    self.losses.push(AcceptedLoss::new(&accepted, time, message.sequence));
                }
                // Behind a record that is gone the next one stays for its own turn.
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
