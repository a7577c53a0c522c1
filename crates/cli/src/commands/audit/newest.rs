//! The newest checkpoint of a partition's log, and what was read along with it.

use fermata_audit::{Checkpoint, Verifier};
use fermata_core::identity::PartitionId;
use fermata_jetstream::StreamReader;
use fermata_jetstream::topology::{CHECKPOINTS_STREAM, checkpoints_subject};
use indicatif::ProgressBar;

use super::section::Section;
use crate::broker_session::EngineConfig;
use crate::error::CliError;

/// The log of a partition, and the key that its checkpoints are signed with.
#[derive(Debug)]
pub(super) struct SignedLog {
    pub(super) partition: PartitionId,
    pub(super) origin: String,
    pub(super) verifier: Verifier,
}

/// A checkpoint that the key signed for the log.
#[derive(Debug)]
pub(super) struct SignedCheckpoint {
    pub(super) checkpoint: Checkpoint,
    pub(super) note: String,
}

/// The partitions that are asked for, by name or all.
pub(super) fn partitions_of(
    config: &EngineConfig,
    one: Option<PartitionId>,
) -> Result<Vec<PartitionId>, CliError> {
    let mut partitions = config.partition_ids();
    if let Some(one) = one {
        partitions.retain(|partition| *partition == one);
        if partitions.is_empty() {
            return Err(CliError::NotFound(format!("there is no partition `{one}`")));
        }
    }
    Ok(partitions)
}

impl SignedLog {
    pub(super) fn new(config: &EngineConfig, partition: PartitionId, verifier: Verifier) -> Self {
        Self { partition, origin: config.audit_origin(partition), verifier }
    }

    fn open(&self, note: &[u8]) -> Option<SignedCheckpoint> {
        let checkpoint = Checkpoint::open(note, std::slice::from_ref(&self.verifier)).ok()?;
        let note = std::str::from_utf8(note).ok()?.to_owned();
        (checkpoint.origin() == self.origin).then_some(SignedCheckpoint { checkpoint, note })
    }

    /// The checkpoint that covers the most; nothing before the first.
    ///
    /// The last message is it, as a rule. Anyone who may publish there can put a copy of an older
    /// one or something else behind it: where the last message covers fewer than `size` entries,
    /// all are read.
    pub(super) async fn newest_checkpoint(
        &self,
        reader: &StreamReader,
        size: u64,
    ) -> Result<Option<SignedCheckpoint>, CliError> {
        let subject = checkpoints_subject(self.partition);
        let last = reader.last_of_subject(CHECKPOINTS_STREAM, &subject).await?;
        let mut newest = last.and_then(|message| self.open(&message.payload));
        if newest.as_ref().is_some_and(|signed| signed.checkpoint.size() >= size) {
            return Ok(newest);
        }
        let end = reader.stream_state(CHECKPOINTS_STREAM).await?.last_sequence;
        let hidden = ProgressBar::hidden();
        let mut section = Section::open(reader, CHECKPOINTS_STREAM, end, &hidden).await?;
        while let Some(message) = section.next().await? {
            if message.subject.as_str() != subject {
                continue;
            }
            let covered = newest.as_ref().map(|signed| signed.checkpoint.size());
            newest = self
                .open(&message.payload)
                .filter(|signed| Some(signed.checkpoint.size()) > covered)
                .or(newest);
        }
        Ok(newest)
    }
}
