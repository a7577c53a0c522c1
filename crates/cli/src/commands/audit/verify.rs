//! `fermata audit verify`: the three streams of each partition against each other.

use std::collections::VecDeque;

use fermata_audit::{AuditEntry, Hash, JournalLeaf, PartitionVerifier, Report, Verifier, Want};
use fermata_core::identity::PartitionId;
use fermata_jetstream::topology::{
    CHECKPOINTS_STREAM, audit_stream, checkpoints_subject, journal_stream,
};
use fermata_jetstream::{StoredMessage, StreamReader};
use fermata_wire::audit::AuditFrame;
use fermata_wire::journal::JournalFrame;
use serde::Serialize;
use serde_json::json;

use super::VerifyArguments;
use super::export::Export;
use super::section::Section;
use crate::broker_session::BrokerSession;
use crate::error::CliError;
use crate::output::{Output, Tone};

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
    /// Messages that cannot be read.
    pub unreadable: Vec<Unreadable>,
}

impl PartitionAudit {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.report.is_sound() && self.unreadable.is_empty()
    }

    /// Everything that is wrong, in words.
    #[must_use]
    pub fn findings(&self) -> Vec<String> {
        let unreadable = self.unreadable.iter().map(|message| {
            let Unreadable { stream, sequence, reason } = message;
            format!("message {sequence} of stream `{stream}` cannot be read: {reason}")
        });
        let omitted = self.report.findings_omitted;
        let more = (omitted > 0).then(|| format!("and {omitted} more"));
        self.report.findings.iter().map(ToString::to_string).chain(unreadable).chain(more).collect()
    }
}

/// Checks the partitions that the arguments name.
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
) -> Result<Vec<PartitionAudit>, CliError> {
    let config = session.engine_config().await?;
    let verifier = Verifier::parse(arguments.vkey.as_ref().unwrap_or(&config.audit_vkey))?;
    let mut partitions = config.partition_ids();
    if let Some(one) = arguments.partition {
        partitions.retain(|partition| *partition == one);
        if partitions.is_empty() {
            return Err(CliError::NotFound(format!("there is no partition `{one}`")));
        }
    }
    let reader = StreamReader::new(session.broker());
    let mut audits = Vec::new();
    for partition in partitions {
        let origin = config.audit_origin(partition);
        let allow_tail = !arguments.complete;
        let mut check = Check::open(&reader, partition, &origin, &verifier, allow_tail).await?;
        if let Some(folder) = &arguments.export {
            check.export = Some(Export::create(folder, partition, &origin, &verifier.vkey())?);
        }
        audits.push(check.finish().await?);
    }
    Ok(audits)
}

/// A record with what its leaf depends on.
struct Leaf {
    index: u64,
    header: Vec<u8>,
    salt: [u8; 16],
    payload: Vec<u8>,
    journal_sequence: u64,
}

struct StoredEntry {
    index: u64,
    header: Vec<u8>,
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
    export: Option<Export>,
}

impl Check {
    async fn open(
        reader: &StreamReader,
        partition: PartitionId,
        origin: &str,
        verifier: &Verifier,
        allow_tail: bool,
    ) -> Result<Self, CliError> {
        let (journal, audit) = (journal_stream(partition), audit_stream(partition));
        // In this order each may run ahead of the one before it, never behind.
        let checkpoints_end = reader.stream_state(CHECKPOINTS_STREAM).await?.last_sequence;
        let audit_end = reader.stream_state(&audit).await?.last_sequence;
        let journal_end = reader.stream_state(&journal).await?.last_sequence;
        Ok(Self {
            partition,
            verifier: PartitionVerifier::new(origin, vec![verifier.clone()], allow_tail),
            journal: Section::open(reader, &journal, journal_end).await?,
            audit: Section::open(reader, &audit, audit_end).await?,
            checkpoints: Section::open(reader, CHECKPOINTS_STREAM, checkpoints_end).await?,
            records: VecDeque::new(),
            entries: VecDeque::new(),
            unreadable: Vec::new(),
            export: None,
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
        if let Some(export) = self.export {
            export.finish()?;
        }
        let report = self.verifier.finish();
        Ok(PartitionAudit { partition: self.partition, report, unreadable: self.unreadable })
    }

    async fn feed_journal(&mut self) -> Result<(), CliError> {
        while self.records.is_empty() {
            let Some(message) = self.journal.next().await? else {
                self.verifier.end_of_journal();
                return Ok(());
            };
            match leaves_of(&message) {
                Ok(leaves) => self.records.extend(leaves),
                Err(error) => self.note(journal_stream(self.partition), &message, &error),
            }
        }
        if let Some(Leaf { index, header, salt, payload, journal_sequence }) =
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
                let taken = self.verifier.checkpoint(&message.payload);
                debug_assert!(taken.is_ok(), "the check asked for it");
                if let Some(export) = &mut self.export {
                    export.checkpoint(&message.payload)?;
                }
                return Ok(());
            }
        }
    }

    fn note(&mut self, stream: String, message: &StoredMessage, error: &fermata_wire::WireError) {
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
        header: record.header.to_vec(),
        salt: *record.salt,
        payload: record.payload.to_vec(),
        journal_sequence: message.sequence,
    };
    Ok((frame.first_record_index..).zip(&frame.records).map(leaf).collect())
}

/// The entries of a message of AUDIT; none when nobody of ours wrote it.
fn entries_of(message: &StoredMessage) -> Result<Vec<StoredEntry>, fermata_wire::WireError> {
    if message.writer.is_none() {
        return Ok(Vec::new());
    }
    let frame = AuditFrame::decode(&message.payload)?;
    let entry = |entry: &fermata_wire::audit::Entry<'_>| StoredEntry {
        index: entry.index,
        header: entry.header.to_vec(),
        commitment: *entry.commitment,
        leaf: Hash(*entry.leaf),
    };
    Ok(frame.entries.iter().map(entry).collect())
}

/// Prints what the check of each partition came to, and every finding.
///
/// # Errors
///
/// When it cannot be written.
pub fn print_audits(audits: &[PartitionAudit], output: &mut Output) -> Result<(), CliError> {
    if output.is_json() {
        return audits.iter().try_for_each(|audit| {
            let report = &audit.report;
            output.json_line(&json!({
                "partition": audit.partition.to_string(),
                "sound": audit.is_sound(),
                "records": report.records,
                "leaves": report.leaves,
                "checkpoints": report.checkpoints,
                "checkpoint_size": report.checkpoint_size,
                "sound_to": report.sound_to,
                "unaudited": report.unaudited,
                "unsigned": report.unsigned,
                "root": report.root.to_string(),
                "findings": audit.findings(),
            }))
        });
    }
    let row = |audit: &PartitionAudit| {
        let report = &audit.report;
        let (tone, word) = match audit.is_sound() {
            true => (Tone::Good, "none".to_owned()),
            false => (Tone::Bad, audit.findings().len().to_string()),
        };
        vec![
            audit.partition.to_string(),
            report.records.to_string(),
            report.leaves.to_string(),
            report.checkpoint_size.to_string(),
            report.checkpoints.to_string(),
            report.root.to_string(),
            output.tone(tone, &word),
        ]
    };
    let rows = audits.iter().map(row).collect();
    let columns = ["PARTITION", "RECORDS", "LEAVES", "SIGNED", "CHECKPOINTS", "ROOT", "FINDINGS"];
    output.table(&columns, rows, "no partitions")?;
    for audit in audits {
        for finding in audit.findings() {
            let title = output.tone(Tone::Bad, &format!("partition {}", audit.partition));
            output.line(&format!("{title}: {finding}"))?;
        }
    }
    let total = |of: fn(&Report) -> u64| audits.iter().map(|audit| of(&audit.report)).sum::<u64>();
    let (records, leaves) = (total(|report| report.records), total(|report| report.leaves));
    let tail = total(|report| report.unaudited) + total(|report| report.unsigned);
    let verdict = match audits.iter().all(PartitionAudit::is_sound) {
        true => output.tone(Tone::Good, "sound"),
        false => output.tone(Tone::Bad, "NOT SOUND"),
    };
    output.line(&format!(
        "{verdict}: {records} records, {leaves} leaves, {tail} not audited or signed yet"
    ))
}
