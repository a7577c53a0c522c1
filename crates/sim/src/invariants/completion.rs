//! What must have come about once faults have stopped.

use std::collections::BTreeSet;

use fermata_audit::{
    AuditEntry, Checkpoint, Hash, JournalLeaf, PartitionVerifier, Want, consistency_proof,
    inclusion_proof, verify_consistency, verify_inclusion,
};
use fermata_core::identity::SourcePosition;
use fermata_core::record::Kind;
use fermata_partition::message::Message;
use fermata_wire::audit::AuditFrame;
use uuid::Uuid;

use super::{Invariants, Leaf};
use crate::broker::{Broker, StreamName};
use crate::trace::Broken;

/// Where an event stood and, for an authorised replay, which one.
pub(crate) type EventSource = (SourcePosition, Option<Uuid>);

/// What the load put in and must find again.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    /// Events whose frame is stored.
    pub(crate) accepted: BTreeSet<EventSource>,
    /// Cancels whose frame is stored.
    pub(crate) cancels: BTreeSet<Uuid>,
    /// Sequences in COMMANDS of frames that nobody can read.
    pub(crate) garbage: BTreeSet<u64>,
}

impl Invariants {
    /// What is still missing; `None` when everything has come about.
    pub(crate) fn outstanding(&self, broker: &Broker) -> Option<String> {
        let partition = self.reference.fold().partition();
        let commands = broker.stream(StreamName::Commands).last();
        if partition.position().sequence != commands {
            let at = partition.position().sequence;
            return Some(format!("commands are consumed to {at} of {commands}"));
        }
        let missing = |source: &&EventSource| self.reference.event(source).is_none();
        if let Some(source) = self.expected.accepted.iter().find(missing) {
            return Some(format!("event {} has no record", source.0));
        }
        if let Some(id) =
            self.expected.cancels.iter().find(|id| !self.reference.is_cancel_answered(**id))
        {
            return Some(format!("cancel {id} has no answer"));
        }
        if let Some(run) = self.reference.runs_not_ended().first() {
            let state = partition
                .run(*run)
                .map(|run| run.nodes().map(|(_, node)| format!("{node:?}")).collect::<Vec<_>>());
            return Some(format!("run {run} has not ended: {state:?}"));
        }
        if let Some(sequence) =
            self.expected.garbage.iter().find(|sequence| !self.reference.is_dead_filed(**sequence))
        {
            return Some(format!("command message {sequence} is not filed as a dead letter"));
        }
        if !self.reference.all_cases_notified() {
            return Some("a case was not told of".to_owned());
        }
        let records = self.reference.leaves().len() as u64;
        if self.audited() != records || self.signed() != records {
            let (audited, signed) = (self.audited(), self.signed());
            return Some(format!("{records} records, {audited} entries, {signed} signed"));
        }
        None
    }

    /// Everything that is checked once, after the end.
    pub(crate) fn at_end(&self, broker: &Broker) -> Result<(), Broken> {
        self.invariant_commits_agree_with_the_journal()?;
        self.invariant_each_unreadable_command_is_poisoned_once()?;
        self.invariant_the_audit_verifies(broker)?;
        self.invariant_subscribers_were_sent_everything()?;
        self.invariant_checkpoints_are_consistent(broker)
    }

    /// A call that succeeded was committed, exactly once.
    fn invariant_commits_agree_with_the_journal(&self) -> Result<(), Broken> {
        for ((run, node), kind) in self.reference.outcomes() {
            let is_call = ["fetch", "pay", "right", "slow"].contains(&&**node);
            if is_call && *kind == Kind::NodeSucceeded && self.commits(*run, node) != 1 {
                let detail = format!("{run}/{node} succeeded without a commit");
                return Err(Broken::new("invariant_commits_agree_with_the_journal", detail));
            }
        }
        Ok(())
    }

    fn invariant_each_unreadable_command_is_poisoned_once(&self) -> Result<(), Broken> {
        let (found, expected) = (self.reference.poisoned(), self.expected.garbage.len());
        if found == expected {
            return Ok(());
        }
        let detail = format!("{found} commands were poisoned, {expected} are unreadable");
        Err(Broken::new("invariant_each_unreadable_command_is_poisoned_once", detail))
    }

    /// Whoever was there the whole time has seen every entry, some twice.
    fn invariant_subscribers_were_sent_everything(&self) -> Result<(), Broken> {
        match (0..self.audited()).find(|index| !self.fed.contains(index)) {
            None => Ok(()),
            Some(index) => {
                let detail = format!("entry {index} was never sent");
                Err(Broken::new("invariant_subscribers_were_sent_everything", detail))
            }
        }
    }

    /// The verifier that people run finds nothing, and as many leaves as records.
    fn invariant_the_audit_verifies(&self, broker: &Broker) -> Result<(), Broken> {
        let broken = |detail: String| Broken::new("invariant_the_audit_verifies", detail);
        let mut verifier =
            PartitionVerifier::new(crate::world::ORIGIN, vec![self.verifier.clone()], false);
        let entries = audit_entries(broker.stream(StreamName::Audit).messages());
        let mut leaves = (0_u64..).zip(self.reference.leaves());
        let mut entries = entries.iter();
        let mut notes = broker.stream(StreamName::Checkpoints).messages().iter();
        loop {
            let fed = match verifier.wants() {
                Want::Nothing => break,
                Want::Journal => match leaves.next() {
                    Some((index, leaf)) => verifier.journal(journal_leaf(index, leaf)),
                    None => {
                        verifier.end_of_journal();
                        Ok(())
                    }
                },
                Want::Audit => match entries.next() {
                    Some((index, header, commitment, leaf)) => {
                        verifier.audit(AuditEntry { index: *index, header, commitment, leaf })
                    }
                    None => {
                        verifier.end_of_audit();
                        Ok(())
                    }
                },
                Want::Checkpoint => match notes.next() {
                    Some(note) => verifier.checkpoint(note.sequence, &note.payload).map(drop),
                    None => {
                        verifier.end_of_checkpoints();
                        Ok(())
                    }
                },
            };
            fed.map_err(|error| broken(error.to_string()))?;
        }
        let report = verifier.finish();
        let complete = report.leaves == report.records
            && report.unaudited == 0
            && report.unsigned == 0
            && report.sound_to == report.records;
        match report.is_sound() && complete {
            true => Ok(()),
            false => Err(broken(format!("{report:?}"))),
        }
    }

    /// Each checkpoint's log continues that of the one before it, and includes
    /// its own last leaf.
    fn invariant_checkpoints_are_consistent(&self, broker: &Broker) -> Result<(), Broken> {
        let broken = |detail: String| Broken::new("invariant_checkpoints_are_consistent", detail);
        let leaves = self.reference.leaves().iter().map(|leaf| leaf.hash).collect::<Vec<Hash>>();
        let mut last: Option<Checkpoint> = None;
        for message in broker.stream(StreamName::Checkpoints).messages() {
            let checkpoint =
                Checkpoint::open(&message.payload, std::slice::from_ref(&self.verifier))
                    .map_err(|error| broken(error.to_string()))?;
            let (size, root) = (checkpoint.size(), checkpoint.root());
            if let Some(last) = last.filter(|last| last.size() > 0) {
                let proof = consistency_proof(&leaves, last.size(), size)
                    .map_err(|error| broken(error.to_string()))?;
                verify_consistency(last.size(), size, &last.root(), &root, &proof)
                    .map_err(|error| broken(error.to_string()))?;
            }
            let index = size.saturating_sub(1);
            if let Some(leaf) = self.reference.leaf(index) {
                let proof = inclusion_proof(&leaves, index, size)
                    .map_err(|error| broken(error.to_string()))?;
                verify_inclusion(&leaf.hash, index, size, &proof, &root)
                    .map_err(|error| broken(error.to_string()))?;
            }
            last = Some(checkpoint);
        }
        Ok(())
    }
}

fn journal_leaf(index: u64, leaf: &Leaf) -> JournalLeaf<'_> {
    JournalLeaf {
        index,
        header: &leaf.header,
        salt: &leaf.salt,
        payload: &leaf.payload,
        journal_sequence: leaf.journal_sequence,
    }
}

type OwnedEntry = (u64, Vec<u8>, [u8; 32], Hash);

fn audit_entries(messages: &[Message]) -> Vec<OwnedEntry> {
    let frames = messages
        .iter()
        .filter(|message| message.writer.is_some())
        .filter_map(|message| AuditFrame::decode(&message.payload).ok());
    let mut entries = Vec::new();
    for frame in frames {
        for entry in &frame.entries {
            let parts = (entry.index, entry.header.to_vec(), *entry.commitment, Hash(*entry.leaf));
            entries.push(parts);
        }
    }
    entries
}
