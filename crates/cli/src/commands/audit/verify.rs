//! `fermata audit verify`: the three streams of each partition against each other.

use std::collections::VecDeque;

use fermata_actors::journal_archive::JournalArchive;
use fermata_audit::{AuditEntry, Hash, JournalLeaf, PartitionVerifier, Report, Verifier, Want};
use fermata_core::identity::{JournalTime, PartitionId};
use fermata_core::record::TruncationAccepted;
use fermata_jetstream::topology::{
    CHECKPOINTS_STREAM, audit_stream, checkpoints_subject, journal_stream,
};
use fermata_jetstream::{Bytes, StoredMessage, StreamReader};
use fermata_partition::truncation::{audit_loss, loss_of, subtrees_of};
use fermata_wire::audit::AuditFrame;
use fermata_wire::journal::JournalFrame;
use indicatif::ProgressBar;
use serde::Serialize;

use super::VerifyArguments;
use super::export::Export;
use super::kept::{KeptAudit, KeptCheck, KeptNotes};
use super::newest::partitions_of;
use super::section::Section;
use crate::broker_session::{BrokerSession, EngineConfig};
use crate::error::CliError;

/// Most messages that cannot be read and are listed; of the rest only the number is kept.
pub const UNREADABLE_MAX: usize = 256;

/// A message of ours that cannot be read, and so holds nothing that could be checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// The stream.
    pub stream: String,
    /// The message.
    pub sequence: u64,
    /// Why not.
    pub reason: String,
}

/// What the check of a partition came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionAudit {
    /// The partition.
    pub partition: PartitionId,
    /// What was found.
    pub report: Report,
    /// Messages that cannot be read; at most [`UNREADABLE_MAX`].
    pub unreadable: Vec<Unreadable>,
    /// How many more cannot be read.
    pub unreadable_omitted: u64,
    /// Records that were kept long enough and are removed: their entries were checked, they were not.
    pub removed: u64,
    /// Checkpoints that were kept outside, compared with the log.
    pub kept: Vec<KeptAudit>,
    /// Losses of records that somebody accepted: the entries were checked, the records are gone.
    pub losses: Vec<AcceptedLoss>,
}

/// Records that are lost, and that somebody accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AcceptedLoss {
    /// Index of the first of them.
    pub from: u64,
    /// Index behind the last of them, and that of the record that accepts it.
    pub next: u64,
    /// Entries that were signed then; those from there on were published only.
    pub signed: u64,
    /// Who accepted it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When, journal time, milliseconds since 1970.
    pub time_ms: u64,
    /// The message of the journal that says so.
    pub journal_sequence: u64,
}

impl AcceptedLoss {
    /// Reads what the frame in `message` accepts; nothing in most.
    ///
    /// # Errors
    ///
    /// When it is ours and cannot be read.
    pub fn of(message: &StoredMessage) -> Result<Option<Self>, fermata_wire::WireError> {
        if message.writer.is_none() {
            return Ok(None);
        }
        let frame = JournalFrame::decode(&message.payload)?;
        let accepted = loss_of(&frame.records)?;
        Ok(accepted.map(|accepted| Self::new(&accepted, frame.head.time, message.sequence)))
    }

    fn new(accepted: &TruncationAccepted, time: JournalTime, journal_sequence: u64) -> Self {
        let TruncationAccepted { from, next, signed, by, reason, .. } = accepted;
        Self {
            from: *from,
            next: *next,
            signed: *signed,
            by: by.clone(),
            reason: reason.clone(),
            time_ms: time.0,
            journal_sequence,
        }
    }

    fn text(&self) -> String {
        let Self { from, next, by, reason, journal_sequence, .. } = self;
        let last = next - 1;
        format!(
            "records {from} to {last} are lost, which {by} accepted (\u{201c}{reason}\u{201d}, message \
             {journal_sequence} of the journal); their entries in the audit log stand for them"
        )
    }
}

impl PartitionAudit {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let departed = |kept: &KeptAudit| kept.departure.is_some();
        self.report.is_sound() && self.unreadable.is_empty() && !self.kept.iter().any(departed)
    }

    /// Everything that is wrong, in words.
    #[must_use]
    pub fn findings(&self) -> Vec<String> {
        let unreadable = self.unreadable.iter().map(|message| {
            let Unreadable { stream, sequence, reason } = message;
            format!("message {sequence} of stream `{stream}` cannot be read: {reason}")
        });
        let omitted = self.report.findings_omitted.saturating_add(self.unreadable_omitted);
        let findings = self.report.findings.iter().map(ToString::to_string);
        let kept = self.kept.iter().filter_map(KeptAudit::finding);
        kept.chain(findings).chain(unreadable).chain(more(omitted)).collect()
    }

    /// What is strange and no failure, in words.
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        let removed = (self.removed > 0).then(|| {
            let removed = self.removed;
            format!(
                "the first {removed} records were kept long enough and are removed from the archive; \
                 their entries in the audit log were checked without them"
            )
        });
        let losses = self.losses.iter().map(AcceptedLoss::text);
        let notices = self.report.notices.iter().map(ToString::to_string);
        removed
            .into_iter()
            .chain(losses)
            .chain(notices)
            .chain(more(self.report.notices_omitted))
            .collect()
    }
}

fn more(omitted: u64) -> Option<String> {
    (omitted > 0).then(|| format!("and {omitted} more"))
}

/// Checks the partitions that the arguments name, each up to where its streams
/// end now; `progress` goes on by one for each message that was read.
///
/// # Errors
///
/// When the broker does not answer, the key is none, or an export cannot be written.
///
/// # Cancel safety
///
/// Can be dropped; an export may be half written.
pub async fn verify_partitions(
    arguments: &VerifyArguments,
    session: &BrokerSession,
    progress: &ProgressBar,
) -> Result<Vec<PartitionAudit>, CliError> {
    let config = session.engine_config().await?;
    let verifier = Verifier::parse(arguments.vkey.as_ref().unwrap_or(&config.audit_vkey))?;
    let partitions = partitions_of(&config, arguments.partition)?;
    let mut kept = KeptNotes::read(&arguments.checkpoints, &verifier, &config, &partitions)?;
    let reader = StreamReader::new(session.broker());
    let ends = Ends::read(&reader, &partitions).await?;
    progress.set_length(ends.iter().map(Ends::messages).sum());
    let mut audits = Vec::new();
    for (partition, ends) in partitions.into_iter().zip(ends) {
        let origin = config.audit_origin(partition);
        let log = PartitionVerifier::new(&origin, vec![verifier.clone()], !arguments.complete);
        let mut check = Check::of_partition(&reader, partition, log, ends, progress).await?;
        check.kept = kept.take(&origin);
        if let Some(folder) = &arguments.export {
            check.export = Some(Export::create(folder, partition, &origin, &verifier.vkey())?);
        }
        audits.push(check.finish().await?);
    }
    Ok(audits)
}

/// Checks `partition` as it would be if `planned` were accepted at the end of its journal.
///
/// # Errors
///
/// When the broker does not answer, or the key is none.
///
/// # Cancel safety
///
/// Can be dropped.
pub(crate) async fn verify_with(
    session: &BrokerSession,
    config: &EngineConfig,
    partition: PartitionId,
    planned: Option<TruncationAccepted>,
    progress: &ProgressBar,
) -> Result<PartitionAudit, CliError> {
    let verifier = Verifier::parse(&config.audit_vkey)?;
    let reader = StreamReader::new(session.broker());
    let ends = Ends::read(&reader, &[partition]).await?.into_iter().next();
    let ends = ends.unwrap_or(Ends { checkpoints: 0, audit: 0, journal: 0 });
    progress.set_length(ends.messages());
    let log = PartitionVerifier::new(&config.audit_origin(partition), vec![verifier], true);
    let check = Check::of_partition(&reader, partition, log, ends, progress).await?;
    Check { planned, ..check }.finish().await
}

/// Where a partition's streams end.
struct Ends {
    checkpoints: u64,
    audit: u64,
    journal: u64,
}

impl Ends {
    /// Reads them in the one order in which each stream may run ahead of the one
    /// before it, never behind.
    async fn read(
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

    fn messages(&self) -> u64 {
        self.checkpoints + self.audit + self.journal
    }
}

/// A record with what its leaf depends on; shares the bytes of its message.
struct Leaf {
    index: u64,
    header: Bytes,
    salt: [u8; 16],
    payload: Bytes,
    journal_sequence: u64,
    /// The loss before it, which it accepts.
    loss: Option<Box<(TruncationAccepted, AcceptedLoss)>>,
}

/// An entry; shares the bytes of its message.
struct StoredEntry {
    index: u64,
    header: Bytes,
    commitment: [u8; 32],
    leaf: Hash,
}

struct Check {
    partition: PartitionId,
    verifier: PartitionVerifier,
    journal: Section,
    audit: Section,
    checkpoints: Section,
    records: VecDeque<Leaf>,
    entries: VecDeque<StoredEntry>,
    unreadable: Vec<Unreadable>,
    unreadable_omitted: u64,
    removed: u64,
    losses: Vec<AcceptedLoss>,
    /// A loss that is not accepted yet, at the end of the journal.
    planned: Option<TruncationAccepted>,
    export: Option<Export>,
    kept: KeptCheck,
}

impl Check {
    async fn of_partition(
        reader: &StreamReader,
        partition: PartitionId,
        log: PartitionVerifier,
        ends: Ends,
        progress: &ProgressBar,
    ) -> Result<Self, CliError> {
        let removed = JournalArchive::open(reader, partition).await?.removed().await?;
        let removed = removed.map_or(0, |removed| removed.next_record_index);
        let check = Self::open(reader, partition, log, ends, progress).await?;
        check.without_removed(removed).await
    }

    async fn open(
        reader: &StreamReader,
        partition: PartitionId,
        verifier: PartitionVerifier,
        ends: Ends,
        progress: &ProgressBar,
    ) -> Result<Self, CliError> {
        let audit = audit_stream(partition);
        let Ends { checkpoints, audit: audit_end, journal: journal_end } = ends;
        Ok(Self {
            partition,
            verifier,
            journal: Section::open_journal(reader, partition, journal_end, progress).await?,
            audit: Section::open(reader, &audit, audit_end, progress).await?,
            checkpoints: Section::open(reader, CHECKPOINTS_STREAM, checkpoints, progress).await?,
            records: VecDeque::new(),
            entries: VecDeque::new(),
            unreadable: Vec::new(),
            unreadable_omitted: 0,
            removed: 0,
            losses: Vec::new(),
            planned: None,
            export: None,
            kept: KeptCheck::default(),
        })
    }

    async fn finish(mut self) -> Result<PartitionAudit, CliError> {
        loop {
            match self.verifier.wants() {
                Want::Journal => self.feed_journal().await?,
                Want::Audit => self.feed_audit().await?,
                Want::Checkpoint => self.feed_checkpoint().await?,
                Want::Nothing => break,
            }
        }
        if let Some(export) = self.export.take() {
            export.finish()?;
        }
        let Self {
            partition, verifier, unreadable, unreadable_omitted, removed, losses, kept, ..
        } = self;
        let (report, kept) = (verifier.finish(), kept.finish());
        Ok(PartitionAudit {
            partition,
            report,
            unreadable,
            unreadable_omitted,
            removed,
            kept,
            losses,
        })
    }

    /// Takes AUDIT's word for the records that were removed: for those before the first one that
    /// is still there, whatever is told. Nobody signs what is told, so what is there is checked.
    async fn without_removed(mut self, told: u64) -> Result<Self, CliError> {
        if told > 0 {
            self.read_records().await?;
            self.removed = self.records.front().map_or(0, |first| first.index.min(told));
            self.verifier = self.verifier.with_removed(self.removed);
        }
        Ok(self)
    }

    /// Reads on in the journal until there is a record; there is none at its end.
    async fn read_records(&mut self) -> Result<(), CliError> {
        while self.records.is_empty() {
            let Some(message) = self.journal.next().await? else { return Ok(()) };
            match leaves_of(&message) {
                Ok(leaves) => {
                    let loss = leaves.first().and_then(|first| first.loss.as_ref());
                    self.losses.extend(loss.map(|loss| loss.1.clone()));
                    self.records.extend(leaves);
                }
                Err(error) => self.note(journal_stream(self.partition), &message, &error),
            }
        }
        Ok(())
    }

    async fn feed_journal(&mut self) -> Result<(), CliError> {
        self.read_records().await?;
        if self.records.is_empty() {
            match self.planned.take() {
                Some(planned) => self.pass_loss(&planned),
                None => self.verifier.end_of_journal(),
            }
            return Ok(());
        }
        // One that stood before what was removed needs nothing more.
        let removed = self.removed;
        let loss = self.records.front_mut().and_then(|first| first.loss.take());
        if let Some(loss) = loss.filter(|loss| loss.1.next > removed) {
            // Entries come in the place of the lost records before this one.
            self.pass_loss(&loss.0);
            return Ok(());
        }
        if let Some(Leaf { index, header, salt, payload, journal_sequence, .. }) =
            self.records.pop_front()
        {
            let (header, salt, payload) = (&header, &salt, &payload);
            let taken = self.verifier.journal(JournalLeaf {
                index,
                header,
                salt,
                payload,
                journal_sequence,
            });
            debug_assert!(taken.is_ok(), "the check asked for it");
        }
        Ok(())
    }

    fn pass_loss(&mut self, accepted: &TruncationAccepted) {
        let subtrees = subtrees_of(accepted);
        let taken = self.verifier.journal_lost(audit_loss(accepted, &subtrees));
        debug_assert!(taken.is_ok(), "the check asked for what follows it");
    }

    async fn feed_audit(&mut self) -> Result<(), CliError> {
        while self.entries.is_empty() {
            let Some(message) = self.audit.next().await? else {
                self.verifier.end_of_audit();
                return Ok(());
            };
            match entries_of(&message) {
                Ok(entries) => self.entries.extend(entries),
                Err(error) => self.note(audit_stream(self.partition), &message, &error),
            }
        }
        if let Some(StoredEntry { index, header, commitment, leaf }) = self.entries.pop_front() {
            let entry = AuditEntry { index, header: &header, commitment: &commitment, leaf: &leaf };
            let taken = self.verifier.audit(entry);
            debug_assert!(taken.is_ok(), "the check asked for it");
            self.kept.entry(&header, &commitment);
            if let Some(export) = &mut self.export {
                export.entry(index, &header, &commitment, &leaf)?;
            }
        }
        Ok(())
    }

    async fn feed_checkpoint(&mut self) -> Result<(), CliError> {
        let subject = checkpoints_subject(self.partition);
        loop {
            let Some(message) = self.checkpoints.next().await? else {
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

    fn note(&mut self, stream: String, message: &StoredMessage, error: &fermata_wire::WireError) {
        if self.unreadable.len() >= UNREADABLE_MAX {
            self.unreadable_omitted += 1;
            return;
        }
        let reason = match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        self.unreadable.push(Unreadable { stream, sequence: message.sequence, reason });
    }
}

/// The records of a journal message; none when nobody of ours wrote it.
fn leaves_of(message: &StoredMessage) -> Result<Vec<Leaf>, fermata_wire::WireError> {
    if message.writer.is_none() {
        return Ok(Vec::new());
    }
    let frame = JournalFrame::decode(&message.payload)?;
    let leaf = |(index, record): (u64, &fermata_wire::journal::SealedRecord<'_>)| Leaf {
        index,
        header: message.payload.slice_ref(record.header),
        salt: *record.salt,
        payload: message.payload.slice_ref(record.payload),
        journal_sequence: message.sequence,
        loss: None,
    };
    let mut leaves: Vec<Leaf> =
        (frame.first_record_index..).zip(&frame.records).map(leaf).collect();
    // A record that cannot be read is for its leaf to tell of.
    if let (Ok(Some(accepted)), Some(first)) = (loss_of(&frame.records), leaves.first_mut()) {
        let loss = AcceptedLoss::new(&accepted, frame.head.time, message.sequence);
        first.loss = Some(Box::new((accepted, loss)));
    }
    Ok(leaves)
}

/// The entries of a message of AUDIT; none when nobody of ours wrote it.
fn entries_of(message: &StoredMessage) -> Result<Vec<StoredEntry>, fermata_wire::WireError> {
    if message.writer.is_none() {
        return Ok(Vec::new());
    }
    let frame = AuditFrame::decode(&message.payload)?;
    let entry = |entry: &fermata_wire::audit::Entry<'_>| StoredEntry {
        index: entry.index,
        header: message.payload.slice_ref(entry.header),
        commitment: *entry.commitment,
        leaf: Hash(*entry.leaf),
    };
    Ok(frame.entries.iter().map(entry).collect())
}
