//! What must hold between partitions, held against what journals say.

use std::collections::{BTreeMap, BTreeSet};

use fermata_core::digest::Digest;
use fermata_core::identity::PartitionId;
use fermata_core::partition::{Limits, Partition};
use fermata_core::plan::Executable;
use fermata_core::record::{Body, OutboxQueued, Record, RelayTaken};
use fermata_partition::fold::{Decoded, JournalFold, decode};
use fermata_partition::message::Message;

use super::RelayTrace;
use crate::trace::Broken;
use crate::twin::Twin;

/// From whom, to whom.
type ChannelName = (PartitionId, PartitionId);

/// Everything that is held against the journals.
pub(super) struct Laws {
    folds: Vec<JournalFold>,
    twins: Vec<Twin>,
    /// Indices that each channel's sender queued, in order.
    queued: BTreeMap<ChannelName, Vec<u64>>,
    /// How many of them the receiver has taken.
    taken: BTreeMap<ChannelName, usize>,
    /// Where each event with a correlation key was decided under that key.
    signals: BTreeMap<String, (u64, bool)>,
    /// Which event resumed which wait.
    matched: BTreeSet<String>,
    pub(super) trace: RelayTrace,
}

impl Laws {
    pub(super) fn new(
        partitions: u16,
        limits: Limits,
        plans: &[(Digest, std::sync::Arc<Executable>)],
    ) -> Self {
        let fold = |number| {
            let mut fold = JournalFold::new(PartitionId(number), limits);
            plans.iter().for_each(|(digest, plan)| fold.add_plan(*digest, plan.clone()));
            fold
        };
        let folds = (0..partitions).map(fold).collect::<Vec<_>>();
        Self {
            twins: folds.iter().map(Twin::of).collect(),
            folds,
            queued: BTreeMap::new(),
            taken: BTreeMap::new(),
            signals: BTreeMap::new(),
            matched: BTreeSet::new(),
            trace: RelayTrace::default(),
        }
    }

    /// The state that the journal of a partition folds to.
    pub(super) fn partition(&self, id: PartitionId) -> Option<&Partition> {
        self.folds.get(usize::from(id.0)).map(JournalFold::partition)
    }

    /// Looks at a journal message that was just stored.
    pub(super) fn on_journal(&mut self, id: PartitionId, message: &Message) -> Result<(), Broken> {
        let broken = |error| Broken::new("law_journals_fold", format!("{error:?}"));
        let decoded = decode(message).map_err(broken)?;
        let place = usize::from(id.0);
        let (Some(fold), Some(twin)) = (self.folds.get_mut(place), self.twins.get_mut(place))
        else {
            return Ok(());
        };
        fold.fold(message.sequence, &decoded).map_err(broken)?;
        twin.invariant_a_snapshot_and_its_tail_are_the_fold(fold, message.sequence, &decoded)?;
        if let Decoded::Frame(_, records) = &decoded {
            for (header, record) in records {
                self.on_record(id, header.index, record)?;
            }
        }
        Ok(())
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "most records say nothing about what passes between partitions"
    )]
    fn on_record(&mut self, id: PartitionId, index: u64, record: &Record) -> Result<(), Broken> {
        match &record.body {
            Body::PartitionOwned(_) => self.trace.epochs += 1,
            Body::OutboxQueued(queued) => self.on_queued(id, queued),
            Body::RelayTaken(taken) => return self.law_commands_are_taken_in_order(id, taken),
            Body::CommandPoisoned(poisoned) => {
                self.trace.poisoned += 1;
                if &*poisoned.reason == "relay_ahead" {
                    return Err(Broken::new("law_nothing_is_ahead", poisoned.detail.clone()));
                }
            }
            Body::SignalKept(kept) => {
                self.trace.kept += 1;
                let id = &kept.signal.event.reference.id;
                return self.law_a_signal_is_decided_once(id, (index, false));
            }
            Body::SignalExpired(expired) if expired.number.is_none() => {
                return self.law_a_signal_is_decided_once(&expired.event.id, (index, false));
            }
            Body::WaitMatched(matched) => {
                let name = format!("{} by {:?}", matched.id, matched.waiter);
                if !self.matched.insert(name.clone()) {
                    return Err(Broken::new("law_an_event_resumes_a_wait_once", name));
                }
                if matched.kept.is_none() {
                    return self.law_a_signal_is_decided_once(&matched.id, (index, true));
                }
            }
            Body::NodeSucceeded(_) if record.attempt.is_none() => self.trace.resumed += 1,
            Body::NodeFailed(_) if record.attempt.is_none() => self.trace.timed_out += 1,
            Body::EventRejected(_) => self.trace.refused += 1,
            _ => {}
        }
        Ok(())
    }

    fn on_queued(&mut self, id: PartitionId, queued: &OutboxQueued) {
        self.trace.queued += 1;
        self.queued.entry((id, queued.target)).or_default().push(queued.index);
    }

    /// What is taken is what was queued, in that order, nothing twice and
    /// nothing left out.
    fn law_commands_are_taken_in_order(
        &mut self,
        target: PartitionId,
        taken: &RelayTaken,
    ) -> Result<(), Broken> {
        let channel = (taken.source, target);
        let queued = self.queued.get(&channel).map_or(&[][..], Vec::as_slice);
        let count = self.taken.entry(channel).or_default();
        let last = count.checked_sub(1).and_then(|at| queued.get(at)).copied().unwrap_or(0);
        let rest = queued.get(*count..).unwrap_or_default();
        match rest.iter().position(|index| *index == taken.index) {
            Some(at) if taken.previous == last => {
                *count += at + 1;
                Ok(())
            }
            found => {
                let detail = format!("{channel:?} takes {taken:?} behind {last}, {found:?}");
                Err(Broken::new("law_commands_are_taken_in_order", detail))
            }
        }
    }

    /// A signal is kept, given up, or resumes waits; the records of those waits
    /// stand together, each with the command to resume behind it.
    fn law_a_signal_is_decided_once(
        &mut self,
        id: &str,
        (index, resumes): (u64, bool),
    ) -> Result<(), Broken> {
        match self.signals.insert(id.to_owned(), (index, resumes)) {
            None => Ok(()),
            Some((before, true)) if resumes && index == before + 2 => Ok(()),
            Some((before, _)) => {
                let detail = format!("signal {id} in records {before} and {index}");
                Err(Broken::new("law_a_signal_is_decided_once", detail))
            }
        }
    }

    /// Live state is what the journal folds to.
    pub(super) fn law_live_state_is_the_fold(&mut self, live: &Partition) -> Result<(), Broken> {
        self.trace.folds_compared += 1;
        // Frames that say nothing are begun and not written.
        let folded = self.partition(live.id()).cloned().map(|mut folded| {
            folded.begin_frame(live.time());
            folded.summary()
        });
        let folded = folded.unwrap_or_default();
        if folded == live.summary() {
            return Ok(());
        }
        let detail = format!("live\n{}\nfolded\n{folded}", live.summary());
        Err(Broken::new("law_live_state_is_the_fold", detail))
    }

    /// What is still to be done; `None` when nothing is.
    pub(super) fn outstanding(&self, commands: &[u64]) -> Option<String> {
        for (fold, commands) in self.folds.iter().zip(commands) {
            let partition = fold.partition();
            let id = partition.id();
            let consumed = partition.position().sequence;
            if consumed != *commands {
                return Some(format!("partition {id} consumed {consumed} of {commands}"));
            }
            if !partition.outbox().is_empty() {
                return Some(format!("partition {id} has {:?} to deliver", partition.outbox()));
            }
            if let Some(first) = partition.first_unfiled() {
                return Some(format!("partition {id} has not filed an event of message {first}"));
            }
            if partition.correlations().kept() > 0 {
                return Some(format!("partition {id} keeps {:?}", partition.correlations()));
            }
            if let Some((run, _)) = partition.runs().next() {
                return Some(format!("run {run} has not ended"));
            }
        }
        None
    }

    /// What must be so when everything is done.
    pub(super) fn at_end(&self) -> Result<(), Broken> {
        for (channel, queued) in &self.queued {
            let taken = self.taken.get(channel).copied().unwrap_or(0);
            if taken != queued.len() {
                let detail = format!("{channel:?}: {taken} of {} are taken", queued.len());
                return Err(Broken::new("law_everything_is_taken", detail));
            }
        }
        for fold in &self.folds {
            let waits = fold.partition().correlations().waits();
            if waits > 0 && self.trace.poisoned == 0 {
                let detail = format!("{:?}", fold.partition().correlations());
                return Err(Broken::new("law_no_wait_is_forgotten", detail));
            }
        }
        Ok(())
    }
}
