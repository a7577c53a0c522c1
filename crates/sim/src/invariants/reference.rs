//! The journal as an observer reads it: folded by the real fold, and counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use fermata_audit::{Hash, commitment, leaf_hash};
use fermata_core::digest::Digest;
use fermata_core::identity::{JournalTime, RunId, SourcePosition};
use fermata_core::plan::Executable;
use fermata_core::record::{Body, Header, Kind, Record, TruncationAccepted};
use fermata_partition::fold::{Decoded, JournalFold};
use fermata_wire::journal::{FrameHead, SealedRecord};
use uuid::Uuid;

use super::{EventSource, changes_run, insert_once};
use crate::trace::Broken;
use crate::twin::Twin;

/// What one record gives to the audit log.
pub(crate) struct Leaf {
    pub(crate) header: Bytes,
    pub(crate) salt: [u8; 16],
    pub(crate) payload: Bytes,
    pub(crate) commitment: [u8; 32],
    pub(crate) hash: Hash,
    pub(crate) journal_sequence: u64,
}

/// The journal, read message by message.
pub(crate) struct Reference {
    fold: JournalFold,
    twin: Twin,
    leaves: Vec<Leaf>,
    last_head: Option<FrameHead>,
    events: BTreeMap<EventSource, Kind>,
    keys: BTreeSet<u128>,
    runs: BTreeSet<RunId>,
    ended: BTreeSet<RunId>,
    quarantined: BTreeSet<RunId>,
    /// Attempts that a record orders, and the journal message that holds it.
    dispatched: BTreeMap<(RunId, Arc<str>, u32), u64>,
    /// Nodes with an attempt that has no outcome.
    under_way: BTreeSet<(RunId, Arc<str>)>,
    outcomes: BTreeMap<(RunId, Arc<str>), Kind>,
    delays: BTreeMap<(RunId, Arc<str>), JournalTime>,
    cases: BTreeMap<Uuid, bool>,
    poisoned: BTreeMap<(u64, Option<u32>), bool>,
    cancels: BTreeSet<Uuid>,
    foreign: BTreeSet<u64>,
    /// Resolved cases, and whether their events are still to be replayed.
    resolved: BTreeMap<Uuid, bool>,
    /// Events that the partition rejected itself, and whether they are filed.
    rejected: BTreeMap<SourcePosition, bool>,
}

impl Reference {
    pub(crate) fn new(mut fold: JournalFold, plans: &[(Digest, Arc<Executable>)]) -> Self {
        for (digest, plan) in plans {
            fold.add_plan(*digest, plan.clone());
        }
        Self {
            twin: Twin::of(&fold),
            fold,
            leaves: Vec::new(),
            last_head: None,
            events: BTreeMap::new(),
            keys: BTreeSet::new(),
            runs: BTreeSet::new(),
            ended: BTreeSet::new(),
            quarantined: BTreeSet::new(),
            dispatched: BTreeMap::new(),
            under_way: BTreeSet::new(),
            outcomes: BTreeMap::new(),
            delays: BTreeMap::new(),
            cases: BTreeMap::new(),
            poisoned: BTreeMap::new(),
            cancels: BTreeSet::new(),
            foreign: BTreeSet::new(),
            resolved: BTreeMap::new(),
            rejected: BTreeMap::new(),
        }
    }

    /// Epochs never fall; within one there is one writer, whose frames are
    /// numbered without a gap; positions and floors never fall. Whoever `accepts`
    /// a loss writes one frame in the epoch of the last owner, whose last that is.
    pub(super) fn invariant_epochs_never_fall(
        &mut self,
        sequence: u64,
        head: &FrameHead,
        accepts: bool,
    ) -> Result<(), Broken> {
        let follows = self.last_head.as_ref().is_none_or(|last| {
            let same_writer = last.incarnation == head.incarnation;
            let ordered = match head.epoch == last.epoch {
                true if accepts => !same_writer && head.number == 0,
                true => same_writer && head.number == last.number + 1,
                false => head.epoch > last.epoch && !same_writer && head.number == 0,
            };
            ordered
                && head.time >= last.time
                && head.position >= last.position
                && head.floor >= last.floor
        });
        if !follows {
            let detail = format!("message {sequence}: {head:?} follows {:?}", self.last_head);
            return Err(Broken::new("invariant_epochs_never_fall", detail));
        }
        self.last_head = Some(*head);
        Ok(())
    }

    /// The journal can be folded, message by message.
    pub(super) fn invariant_journal_folds(
        &mut self,
        sequence: u64,
        decoded: &Decoded<'_>,
    ) -> Result<(), Broken> {
        let broken = |error| Broken::new("invariant_journal_folds", format!("{error:?}"));
        self.fold.fold(sequence, decoded).map_err(broken)?;
        self.twin.invariant_a_snapshot_and_its_tail_are_the_fold(&self.fold, sequence, decoded)
    }

    pub(super) fn take(
        &mut self,
        sequence: u64,
        header: &Header,
        record: &Record,
    ) -> Result<(), Broken> {
        Self::invariant_records_of_runs_name_their_tenant(header)?;
        self.invariant_nothing_follows_the_end_of_a_run(header)?;
        self.invariant_one_outcome_per_effect(header, record)?;
        self.invariant_a_run_closes_before_it_ends(header)?;
        self.invariant_no_delay_ends_before_its_time(header, record)?;
        match &record.body {
            Body::EventStarted(event) => {
                let is_repeated = !self.keys.insert(event.key);
                if is_repeated && event.replay.is_none() {
                    let detail = format!("event key {:032x} starts work twice", event.key);
                    return Err(Broken::new("invariant_events_are_journaled_once", detail));
                }
                self.invariant_events_are_journaled_once(header, (event.source, event.replay))
            }
            Body::EventIgnored(event) => {
                self.invariant_events_are_journaled_once(header, (event.source, event.replay))
            }
            Body::EventUnmatched(event) => {
                self.invariant_events_are_journaled_once(header, (event.source, event.replay))
            }
            Body::EventRejected(event) => {
                if event.original.is_none() {
                    // A refused replay may be refused again, and is filed again.
                    self.rejected.insert(event.source, false);
                }
                self.invariant_events_are_journaled_once(header, (event.source, event.replay))
            }
            Body::EventRepeated(event) => {
                self.invariant_events_are_journaled_once(header, (event.source, event.replay))
            }
            Body::EventSignalled(event) => {
                self.invariant_events_are_journaled_once(header, (event.source, event.replay))
            }
            Body::CancelAnswered(answered) => insert_once(&mut self.cancels, answered.id, "cancel"),
            Body::CommandPoisoned(dead) => {
                let twice = self.poisoned.insert((dead.sequence, dead.index), false).is_some();
                self.refuse_twice(twice, "a command is poisoned", sequence)
            }
            Body::DeadFiled(dead) => {
                let before = self.poisoned.insert((dead.sequence, dead.index), true);
                self.refuse_twice(before != Some(false), "a dead letter is filed", sequence)
            }
            Body::EventFiled(filed) => {
                let before = self.rejected.insert(filed.source, true);
                self.refuse_twice(before != Some(false), "a rejected event is filed", sequence)
            }
            Body::ForeignSkipped(skipped) => {
                let twice = !self.foreign.insert(skipped.sequence);
                self.refuse_twice(twice, "a foreign message is recorded", sequence)
            }
            Body::CaseOpened(opened) => {
                let twice = self.cases.insert(opened.case, false).is_some();
                self.refuse_twice(twice, "a case is opened", sequence)
            }
            Body::CaseResolved(resolved) => {
                let pending = !resolved.events.is_empty();
                let twice = self.resolved.insert(resolved.case, pending).is_some();
                self.refuse_twice(twice, "a case is resolved", sequence)
            }
            Body::CaseReplayed(replayed) => {
                let before = self.resolved.insert(replayed.case, false);
                self.refuse_twice(before != Some(true), "a case is replayed", sequence)
            }
            Body::NodeDispatched(_) => {
                let attempt = header.attempt.unwrap_or(0);
                if let Some((run, node)) = header.run.zip(header.node.clone()) {
                    self.dispatched.insert((run, node, attempt), sequence);
                }
                Ok(())
            }
            Body::PartitionOwned(_)
            | Body::RunStarted(_)
            | Body::NodeSucceeded(_)
            | Body::NodeRetrying(_)
            | Body::NodeFailed(_)
            | Body::NodeSkipped(_)
            | Body::NodeUnknown(_)
            | Body::NodeDelayed(_)
            | Body::NodeAccepted(_)
            | Body::RunClosing(_)
            | Body::RunSucceeded(_)
            | Body::RunFailed(_)
            | Body::RunCancelled(_)
            | Body::RunTimedOut(_)
            | Body::RunQuarantined(_)
            | Body::EffectLate(_)
            | Body::CaseNotifying(_)
            | Body::CaseNotified(_)
            | Body::DefinitionsApplied(_)
            | Body::DefinitionsRefused(_)
            | Body::OutboxQueued(_)
            | Body::OutboxDelivered(_)
            | Body::RelayTaken(_)
            | Body::NodeWaiting(_)
            | Body::WaitSubscribed(_)
            | Body::WaitClosed(_)
            | Body::WaitMatched(_)
            | Body::SignalKept(_)
            | Body::SignalExpired(_)
            | Body::TruncationAccepted(_) => Ok(()),
        }
    }

    /// A resolved case whose events were not asked for once more.
    pub(super) fn unreplayed(&self) -> Option<Uuid> {
        self.resolved.iter().find(|(_, pending)| **pending).map(|(case, _)| *case)
    }

    fn refuse_twice(&self, twice: bool, what: &str, sequence: u64) -> Result<(), Broken> {
        if !twice {
            return Ok(());
        }
        let detail = format!("{what} again in journal message {sequence}");
        Err(Broken::new("invariant_each_command_is_decided_once", detail))
    }

    /// Each accepted event has one record that says what became of it.
    fn invariant_events_are_journaled_once(
        &mut self,
        header: &Header,
        source: EventSource,
    ) -> Result<(), Broken> {
        match self.events.insert(source, header.kind) {
            None => Ok(()),
            Some(first) => {
                let detail = format!(
                    "event {} has `{}` and, in record {}, `{}`",
                    source.0,
                    first.as_str(),
                    header.index,
                    header.kind.as_str()
                );
                Err(Broken::new("invariant_events_are_journaled_once", detail))
            }
        }
    }

    /// Whoever may read a tenant's records finds all that is of its runs, also
    /// what comes after their end. Only a cancel may name a run that nobody knows.
    fn invariant_records_of_runs_name_their_tenant(header: &Header) -> Result<(), Broken> {
        if header.run.is_none() || header.tenant.is_some() || header.kind == Kind::CancelAnswered {
            return Ok(());
        }
        let detail = format!("record {} `{}` names none", header.index, header.kind.as_str());
        Err(Broken::new("invariant_records_of_runs_name_their_tenant", detail))
    }

    /// A run begins once and ends once, and nothing that changes it follows.
    fn invariant_nothing_follows_the_end_of_a_run(
        &mut self,
        header: &Header,
    ) -> Result<(), Broken> {
        let Some(run) = header.run.filter(|_| changes_run(header)) else { return Ok(()) };
        let begins = header.kind == Kind::RunStarted;
        let known = match begins {
            true => !self.runs.insert(run),
            false => !self.runs.contains(&run),
        };
        if known || self.ended.contains(&run) {
            let detail = format!("record {} `{}` of run {run}", header.index, header.kind.as_str());
            return Err(Broken::new("invariant_nothing_follows_the_end_of_a_run", detail));
        }
        if header.kind.ends_run() {
            self.ended.insert(run);
        }
        Ok(())
    }

    /// A run ends when every attempt that it ordered has an outcome, unless it is
    /// quarantined.
    fn invariant_a_run_closes_before_it_ends(&mut self, header: &Header) -> Result<(), Broken> {
        let Some(run) = header.run.filter(|_| changes_run(header)) else { return Ok(()) };
        if header.kind == Kind::RunQuarantined {
            self.quarantined.insert(run);
            self.under_way.retain(|(of, _)| *of != run);
        }
        if let Some(node) = header.node.clone() {
            match header.kind == Kind::NodeDispatched {
                true => self.under_way.insert((run, node)),
                false => self.under_way.remove(&(run, node)),
            };
        }
        let under_way = self.under_way.iter().find(|(of, _)| *of == run);
        match under_way.filter(|_| header.kind.ends_run()) {
            None => Ok(()),
            Some((_, node)) => {
                let detail = format!("run {run} ends while `{node}` is under way");
                Err(Broken::new("invariant_a_run_closes_before_it_ends", detail))
            }
        }
    }

    /// An effect key has one recorded outcome.
    fn invariant_one_outcome_per_effect(
        &mut self,
        header: &Header,
        record: &Record,
    ) -> Result<(), Broken> {
        let twice = match (&record.body, header.run, header.node.clone()) {
            (
                Body::NodeSucceeded(_)
                | Body::NodeFailed(_)
                | Body::NodeUnknown(_)
                | Body::NodeSkipped(_),
                Some(run),
                Some(node),
            ) => self.outcomes.insert((run, node), header.kind).is_some(),
            (Body::CaseNotified(notified), ..) => {
                self.cases.insert(notified.case, true) != Some(false)
            }
            _ => false,
        };
        if !twice {
            return Ok(());
        }
        let detail = format!("record {} `{}` is a second one", header.index, header.kind.as_str());
        Err(Broken::new("invariant_one_outcome_per_effect", detail))
    }

    /// A delay ends when its time has come, whoever owns the partition by then.
    fn invariant_no_delay_ends_before_its_time(
        &mut self,
        header: &Header,
        record: &Record,
    ) -> Result<(), Broken> {
        let Some(node) = header.run.zip(header.node.clone()) else { return Ok(()) };
        if let Body::NodeDelayed(delayed) = &record.body {
            self.delays.insert(node, delayed.due);
            return Ok(());
        }
        match self.delays.get(&node).filter(|due| header.time < **due) {
            None => Ok(()),
            Some(due) => {
                let detail = format!("record {} ends a delay to {due:?}", header.index);
                Err(Broken::new("invariant_no_delay_ends_before_its_time", detail))
            }
        }
    }

    pub(super) fn push_leaf(&mut self, sealed: &SealedRecord<'_>, journal_sequence: u64) {
        let commitment = commitment(sealed.salt, sealed.payload);
        self.leaves.push(Leaf {
            header: Bytes::copy_from_slice(sealed.header),
            salt: *sealed.salt,
            payload: Bytes::copy_from_slice(sealed.payload),
            hash: leaf_hash(sealed.header, &commitment),
            commitment,
            journal_sequence,
        });
    }

    /// Takes the leaves that are accepted for lost from the journal as it was read `before`.
    pub(super) fn push_lost(
        &mut self,
        before: Self,
        accepted: &TruncationAccepted,
        journal_sequence: u64,
    ) {
        let lost = (0_u64..).zip(before.leaves);
        let lost = lost.filter(|(index, _)| (accepted.from..accepted.next).contains(index));
        self.leaves.extend(lost.map(|(_, leaf)| Leaf { journal_sequence, ..leaf }));
    }

    /// Attempts that records order.
    pub(super) fn attempts_ordered(&self) -> impl Iterator<Item = &(RunId, Arc<str>, u32)> {
        self.dispatched.keys()
    }

    pub(crate) fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    /// Records of the first `sequence` messages.
    pub(crate) fn records_up_to(&self, sequence: u64) -> u64 {
        self.leaves.partition_point(|leaf| leaf.journal_sequence <= sequence) as u64
    }

    pub(super) fn leaf(&self, index: u64) -> Option<&Leaf> {
        self.leaves.get(usize::try_from(index).ok()?)
    }

    /// The journal message that orders the attempt, if one does.
    pub(super) fn dispatched(&self, attempt: &(RunId, Arc<str>, u32)) -> Option<u64> {
        self.dispatched.get(attempt).copied()
    }

    /// What became of the event.
    pub(crate) fn event(&self, source: &EventSource) -> Option<Kind> {
        self.events.get(source).copied()
    }

    pub(super) fn is_cancel_answered(&self, id: Uuid) -> bool {
        self.cancels.contains(&id)
    }

    /// Whether the command, or all of its message, was consumed unread.
    pub(super) fn is_poisoned(&self, (sequence, index): (u64, u32)) -> bool {
        [None, Some(index)].into_iter().any(|place| self.poisoned.contains_key(&(sequence, place)))
    }

    /// The first poisoned command that is not filed as a dead letter.
    pub(super) fn unfiled(&self) -> Option<(u64, Option<u32>)> {
        self.poisoned.iter().find(|(_, filed)| !**filed).map(|(place, _)| *place)
    }

    /// The first event that the partition rejected and that is not filed.
    pub(super) fn unfiled_event(&self) -> Option<SourcePosition> {
        self.rejected.iter().find(|(_, filed)| !**filed).map(|(source, _)| *source)
    }

    /// Runs that ended because they could not be decided about.
    pub(super) fn quarantined(&self) -> impl Iterator<Item = &RunId> {
        self.quarantined.iter()
    }

    pub(super) fn all_cases_notified(&self) -> bool {
        self.cases.values().all(|notified| *notified)
    }

    pub(super) fn runs_not_ended(&self) -> Vec<RunId> {
        self.runs.difference(&self.ended).copied().collect()
    }

    /// What became of each node's effect.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = (&(RunId, Arc<str>), &Kind)> {
        self.outcomes.iter()
    }

    /// Commands, or whole messages, that were consumed unread.
    pub(super) fn poisoned(&self) -> impl Iterator<Item = &(u64, Option<u32>)> {
        self.poisoned.keys()
    }

    /// The fold.
    pub(crate) fn fold(&self) -> &JournalFold {
        &self.fold
    }

    pub(super) fn summary_at(&self, time: JournalTime) -> String {
        let mut partition = self.fold.partition().clone();
        partition.begin_frame(time);
        partition.summary()
    }
}
