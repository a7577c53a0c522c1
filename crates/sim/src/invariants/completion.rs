//! What must have come about once faults have stopped.

use std::collections::{BTreeMap, BTreeSet};

use fermata_audit::{
    AuditEntry, Checkpoint, Hash, JournalLeaf, PartitionVerifier, Want, consistency_proof,
    inclusion_proof, verify_consistency, verify_inclusion,
};
use fermata_core::command::Command;
use fermata_core::identity::SourcePosition;
use fermata_core::record::Kind;
use fermata_partition::message::Message;
use fermata_partition::truncation::{audit_loss, subtrees_of};
use fermata_wire::audit::AuditFrame;
use fermata_wire::commands::CommandFrame;
use fermata_wire::relay::RelayFrame;
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
    /// Where in COMMANDS each event stands: it may do so more than once.
    events: BTreeMap<EventSource, BTreeSet<Place>>,
    /// Where each cancel stands.
    cancels_at: BTreeMap<Uuid, BTreeSet<Place>>,
}

/// Sequence in COMMANDS, and place in the message.
type Place = (u64, u32);

impl Expected {
    /// Notes what a message of COMMANDS holds.
    pub(crate) fn command_stored(&mut self, sequence: u64, payload: &[u8]) {
        if RelayFrame::decode(payload).is_ok() {
            return;
        }
        let Ok(frame) = CommandFrame::decode(payload) else {
            self.garbage.insert(sequence);
            return;
        };
        for (index, command) in (0..).zip(&frame.commands) {
            let place = (sequence, index);
            match command {
                Command::Event(event) => {
                    let source = (event.source, event.replay);
                    self.events.entry(source).or_default().insert(place);
                }
                Command::Cancel(cancel) => {
                    self.cancels_at.entry(cancel.id).or_default().insert(place);
                }
                Command::Outcome(_)
                | Command::Case(_)
                | Command::Define(_)
                | Command::Complete(_)
                | Command::Resolve(_)
                | Command::Orphan(_) => {}
            }
        }
    }
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
        let poisoned = |places: Option<&BTreeSet<Place>>| {
            places.into_iter().flatten().any(|place| self.reference.is_poisoned(*place))
        };
        let missing = |source: &&EventSource| {
            let places = self.expected.events.get(source);
            self.reference.event(source).is_none() && !poisoned(places)
        };
        if let Some(source) = self.expected.accepted.iter().find(missing) {
            return Some(format!("event {} has no record", source.0));
        }
        let unanswered = |id: &&Uuid| {
            let places = self.expected.cancels_at.get(id);
            !self.reference.is_cancel_answered(**id) && !poisoned(places)
        };
        if let Some(id) = self.expected.cancels.iter().find(unanswered) {
            return Some(format!("cancel {id} has no answer"));
        }
        if let Some(run) = self.reference.runs_not_ended().first() {
            let state = partition
                .run(*run)
                .map(|run| run.nodes().map(|(_, node)| format!("{node:?}")).collect::<Vec<_>>());
            return Some(format!("run {run} has not ended: {state:?}"));
        }
        if !partition.outbox().is_empty() {
            return Some(format!("{:?} is not delivered", partition.outbox()));
        }
        if let Some((sequence, _)) = self.reference.unfiled() {
            return Some(format!("command message {sequence} is not filed as a dead letter"));
        }
        if let Some(source) = self.reference.unfiled_event() {
            return Some(format!("rejected event {source} is not filed"));
        }
        if !self.reference.all_cases_notified() {
            return Some("a case was not told of".to_owned());
        }
        if let Some(case) = self.reference.unreplayed() {
            return Some(format!("the events of case {case} are not replayed"));
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
        self.invariant_only_what_failed_is_set_aside()?;
        self.invariant_the_audit_verifies(broker)?;
        self.invariant_subscribers_were_sent_everything()?;
        self.invariant_checkpoints_are_consistent(broker)
    }

    /// A call that succeeded was committed, exactly once.
    fn invariant_commits_agree_with_the_journal(&self) -> Result<(), Broken> {
        for ((run, node), kind) in self.reference.outcomes() {
            let is_call = ["fetch", "pay", "right", "slow"].contains(&&**node);
            let commits = self.commits(*run, node);
            let agrees = commits == 1 || commits > 1 && self.may_be_repeated(*run, node);
            if is_call && *kind == Kind::NodeSucceeded && !agrees {
                let detail = format!("{run}/{node} succeeded without a commit");
                return Err(Broken::new("invariant_commits_agree_with_the_journal", detail));
            }
        }
        Ok(())
    }

    fn invariant_each_unreadable_command_is_poisoned_once(&self) -> Result<(), Broken> {
        let garbage = &self.expected.garbage;
        let whole = self.reference.poisoned().filter(|(_, index)| index.is_none());
        let found = whole.filter(|(sequence, _)| garbage.contains(sequence)).count();
        let expected = garbage.len();
        if found == expected {
            return Ok(());
        }
        let detail = format!("{found} commands were poisoned, {expected} are unreadable");
        Err(Broken::new("invariant_each_unreadable_command_is_poisoned_once", detail))
    }

    /// Whoever was there the whole time has seen every entry, some twice.
    fn invariant_subscribers_were_sent_everything(&self) -> Result<(), Broken> {
        let never_sent = self.never_sent();
        let mut sent = (0..self.audited()).filter(|index| !never_sent.contains(index));
        match sent.find(|index| !self.fed.contains(index)) {
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
        let lost = self.lost.as_ref().map(|lost| &lost.accepted);
        let mut lost = lost.map(|accepted| (accepted, subtrees_of(accepted)));
        let mut next = 0;
        let mut entries = entries.iter();
        let mut notes = broker.stream(StreamName::Checkpoints).messages().iter();
        loop {
            let fed = match verifier.wants() {
                Want::Nothing => break,
                Want::Journal => {
                    if let Some((accepted, subtrees)) = lost.take_if(|(lost, _)| lost.from == next)
                    {
                        next = accepted.next;
                        verifier.journal_lost(audit_loss(accepted, &subtrees))
                    } else if let Some(leaf) = self.reference.leaf(next) {
                        next += 1;
                        verifier.journal(journal_leaf(next - 1, leaf))
                    } else {
                        verifier.end_of_journal();
                        Ok(())
                    }
                }
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
