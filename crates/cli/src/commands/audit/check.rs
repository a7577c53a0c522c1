//! The check of one partition: its three streams, read side by side.

use std::ops::Range;

use fermata_audit::{AuditEntry, JournalLeaf, PartitionVerifier, Want};
use fermata_core::identity::PartitionId;
use fermata_core::record::TruncationAccepted;
use fermata_jetstream::StreamReader;
use fermata_jetstream::topology::{
    CHECKPOINTS_STREAM, audit_stream, checkpoints_subject, journal_stream,
};
use fermata_partition::truncation::{audit_loss, subtrees_of};
use indicatif::ProgressBar;

use super::entries::LogEntries;
use super::export::Export;
use super::kept::KeptCheck;
use super::partition_audit::{PartitionAudit, UnreadableMessages};
use super::records::{JournalRecords, Leaf, Next};
use super::section::Section;
use crate::error::CliError;

/// Where a partition's streams end.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ends {
    checkpoints: u64,
    audit: u64,
    journal: u64,
}

impl Ends {
    /// Reads them in the one order in which each stream may run ahead of the one
    /// before it, never behind.
    pub(super) async fn read(
        reader: &StreamReader,
        partitions: &[PartitionId],
    ) -> Result<Vec<Self>, CliError> {
        let checkpoints = reader.stream_state(CHECKPOINTS_STREAM).await?.last_sequence;
        let mut ends = Vec::new();
        for partition in partitions {
            let audit = reader.stream_state(&audit_stream(*partition)).await?.last_sequence;
            let journal = reader.stream_state(&journal_stream(*partition)).await?.last_sequence;
            ends.push(Self { checkpoints, audit, journal });
        }
        Ok(ends)
    }

    pub(super) fn messages(&self) -> u64 {
        self.checkpoints + self.audit + self.journal
    }
}

/// The check of one partition, up to where its streams ended when it was begun. The engine may
/// go on meanwhile, its janitor too.
#[derive(Debug)]
pub struct PartitionCheck {
    partition: PartitionId,
    verifier: PartitionVerifier,
    journal: JournalRecords,
    audit: LogEntries,
    checkpoints: Section,
    unreadable: UnreadableMessages,
    /// Indices of records that were removed on purpose.
    removed: Vec<Range<u64>>,
    /// A loss that is not accepted yet, at the end of the journal.
    pub(super) planned: Option<TruncationAccepted>,
    pub(super) export: Option<Export>,
    pub(super) kept: KeptCheck,
}

impl PartitionCheck {
    pub(super) async fn begin(
        reader: &StreamReader,
        partition: PartitionId,
        verifier: PartitionVerifier,
        ends: Ends,
        progress: &ProgressBar,
    ) -> Result<Self, CliError> {
        let Ends { checkpoints, audit, journal } = ends;
        Ok(Self {
            partition,
            verifier,
            journal: JournalRecords::open(reader, partition, journal, progress).await?,
            audit: LogEntries::open(reader, partition, audit, progress).await?,
            checkpoints: Section::open(reader, CHECKPOINTS_STREAM, checkpoints, progress).await?,
            unreadable: UnreadableMessages::default(),
            removed: Vec::new(),
            planned: None,
            export: None,
            kept: KeptCheck::default(),
        })
    }

    /// How many records were gone through, those that are not there included.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.journal.next_index()
    }

    /// Takes one thing of one stream, and tells whether there is more.
    ///
    /// # Errors
    ///
    /// When the broker does not answer, or an export cannot be written.
    ///
    /// # Cancel safety
    ///
    /// What was read is lost when dropped.
    pub async fn step(&mut self) -> Result<bool, CliError> {
        match self.verifier.wants() {
            Want::Journal => self.feed_journal().await?,
            Want::Audit => self.feed_audit().await?,
            Want::Checkpoint => self.feed_checkpoint().await?,
            Want::Nothing => return Ok(false),
        }
        Ok(true)
    }

    /// Goes on to the end, and tells what it came to.
    ///
    /// # Errors
    ///
    /// As [`Self::step`].
    ///
    /// # Cancel safety
    ///
    /// Can be dropped; an export may be half written.
    pub async fn finish(mut self) -> Result<PartitionAudit, CliError> {
        while self.step().await? {}
        if let Some(export) = self.export.take() {
            export.finish()?;
        }
        let (report, kept) = (self.verifier.finish(), self.kept.finish());
        let present =
            |removed: &Range<u64>| removed.end.min(report.leaves).saturating_sub(removed.start);
        Ok(PartitionAudit {
            partition: self.partition,
            unreadable: self.unreadable.list,
            unreadable_omitted: self.unreadable.omitted,
            removed: self.removed.iter().map(present).sum(),
            kept,
            losses: self.journal.losses,
            report,
        })
    }

    async fn feed_journal(&mut self) -> Result<(), CliError> {
        match self.journal.next(&mut self.unreadable).await? {
            Next::Record(Leaf { index, header, salt, payload, journal_sequence, .. }) => {
                let (header, salt, payload) = (&header[..], &salt, &payload[..]);
                let leaf = JournalLeaf { index, header, salt, payload, journal_sequence };
                let taken = self.verifier.journal(leaf);
                debug_assert!(taken.is_ok(), "the check asked for it");
            }
            Next::Removed(from, next) => {
                self.removed.push(from..next);
                let taken = self.verifier.journal_removed(next);
                debug_assert!(taken.is_ok(), "the check asked for what follows it");
            }
            Next::Lost(accepted) => self.pass_loss(&accepted),
            Next::End => match self.planned.take() {
                Some(planned) => self.pass_loss(&planned),
                None => self.verifier.end_of_journal(),
            },
        }
        Ok(())
    }

    fn pass_loss(&mut self, accepted: &TruncationAccepted) {
        let subtrees = subtrees_of(accepted);
        let taken = self.verifier.journal_lost(audit_loss(accepted, &subtrees));
        debug_assert!(taken.is_ok(), "the check asked for what follows it");
    }

    async fn feed_audit(&mut self) -> Result<(), CliError> {
        let Some(entry) = self.audit.next(&mut self.unreadable).await? else {
            self.verifier.end_of_audit();
            return Ok(());
        };
        let (index, header, leaf) = (entry.index, &entry.header[..], &entry.leaf);
        let commitment = &entry.commitment;
        let taken = self.verifier.audit(AuditEntry { index, header, commitment, leaf });
        debug_assert!(taken.is_ok(), "the check asked for it");
        self.kept.entry(header, commitment);
        if let Some(export) = &mut self.export {
            export.entry(index, header, commitment, leaf)?;
        }
        Ok(())
    }

    async fn feed_checkpoint(&mut self) -> Result<(), CliError> {
        let subject = checkpoints_subject(self.partition);
        loop {
            let Some(message) = self.checkpoints.next().await? else {
                if let Some(sequence) = self.checkpoints.missing_end() {
                    self.unreadable.note_missing(CHECKPOINTS_STREAM.to_owned(), sequence);
                }
                self.verifier.end_of_checkpoints();
                return Ok(());
            };
            // One stream holds the checkpoints of all partitions.
            if message.subject.as_str() == subject {
                let taken = self.verifier.checkpoint(message.sequence, &message.payload);
                debug_assert!(taken.is_ok(), "the check asked for it");
                if let Ok(Some(size)) = taken {
                    self.kept.signed(message.sequence, size, &message.payload);
                }
                if let (Some(export), Ok(Some(size))) = (&mut self.export, taken) {
                    export.checkpoint(size, &message.payload)?;
                }
                return Ok(());
            }
        }
    }
}
