//! Folding one record into the partition: the transition table.

use uuid::Uuid;

use super::Partition;
use super::decide::{OUTBOX_FULL, WINDOW_FULL};
use super::timers::Timer;
use crate::effect::DeadCommand;
use crate::identity::{RunId, SourcePosition, Tenant};
use crate::record::{Body, Record, RunStarted};
use crate::run::{CorruptHistory, Run};

impl Partition {
    /// Folds `record`, which [`Self::begin_frame`] has put in its time.
    ///
    /// The state is unchanged when the record is refused.
    ///
    /// # Errors
    ///
    /// [`CorruptHistory`] if the record cannot follow what was folded so far,
    /// or names a plan that is not at hand.
    pub fn evolve(&mut self, record: &Record) -> Result<(), CorruptHistory> {
        match &record.body {
            Body::PartitionOwned(owned) => {
                if owned.epoch <= self.epoch {
                    return Err(CorruptHistory::new(record, format!("epoch is {}", self.epoch)));
                }
                self.epoch = owned.epoch;
            }
            Body::CommandPoisoned(poisoned) => {
                let dead = DeadCommand {
                    sequence: poisoned.sequence,
                    index: poisoned.index,
                    reason: poisoned.reason.clone(),
                    detail: poisoned.detail.clone(),
                };
                self.unfiled.insert((dead.sequence, dead.index), dead);
            }
            Body::DeadFiled(filed) => {
                self.unfiled.remove(&(filed.sequence, filed.index));
            }
            Body::EventStarted(started) => {
                // Also by a replay: the event that is published again afterwards is a repeat.
                self.keys.insert(started.key, started.source, self.time);
                self.decided(started.source, started.replay);
            }
            Body::EventIgnored(ignored) => self.decided(ignored.source, ignored.replay),
            Body::EventUnmatched(unmatched) => self.decided(unmatched.source, unmatched.replay),
            // Refused for want of room: the replay can come again, and nothing is
            // said of the event itself.
            Body::EventRejected(rejected)
                if rejected.replay.is_some()
                    && matches!(&*rejected.reason, WINDOW_FULL | OUTBOX_FULL) =>
            {
                self.evolve_rejected(rejected);
            }
            Body::EventRejected(rejected) => {
                self.evolve_rejected(rejected);
                self.decided(rejected.source, rejected.replay);
            }
            Body::EventRepeated(repeated) => self.decided(repeated.source, repeated.replay),
            Body::RunStarted(started) => self.start_run(record, started)?,
            Body::NodeDispatched(_)
            | Body::NodeSucceeded(_)
            | Body::NodeRetrying(_)
            | Body::NodeFailed(_)
            | Body::NodeSkipped(_)
            | Body::NodeUnknown(_)
            | Body::NodeDelayed(_)
            | Body::NodeAccepted(_)
            | Body::RunClosing(_) => self.evolve_run(record)?,
            Body::RunSucceeded(_)
            | Body::RunFailed(_)
            | Body::RunCancelled(_)
            | Body::RunTimedOut(_)
            | Body::RunQuarantined(_) => self.end_run(record)?,
            Body::CaseOpened(opened) => {
                let tenant = tenant_of(record)?.clone();
                self.evolve_case_opened(record, &tenant, opened);
            }
            Body::CaseNotifying(notifying) => match self.cases.get_mut(&notifying.case) {
                Some(case) => case.attempt = record.attempt.unwrap_or(case.attempt),
                None => return Err(CorruptHistory::new(record, "there is no such case")),
            },
            Body::CaseNotified(notified) => match self.cases.get_mut(&notified.case) {
                Some(case) => case.notified = true,
                None => return Err(CorruptHistory::new(record, "there is no such case")),
            },
            Body::CancelAnswered(answered) => {
                self.commands.insert(answered.id.as_u128(), (), self.time);
            }
            Body::DefinitionsApplied(applied) => {
                self.commands.insert(applied.id.as_u128(), (), self.time);
                self.definitions.apply(applied);
            }
            Body::DefinitionsRefused(refused) => {
                self.commands.insert(refused.id.as_u128(), (), self.time);
            }
            Body::ForeignSkipped(_) | Body::EffectLate(_) => {}
            Body::OutboxQueued(queued) => self.evolve_outbox_queued(record, queued)?,
            Body::OutboxDelivered(delivered) => self.evolve_outbox_delivered(record, delivered)?,
            Body::RelayTaken(taken) => self.evolve_relay_taken(record, taken)?,
            Body::EventSignalled(signalled) => {
                self.keys.insert(signalled.key, signalled.source, self.time);
                self.decided(signalled.source, signalled.replay);
            }
            Body::NodeWaiting(_) => self.evolve_run(record)?,
            Body::WaitSubscribed(subscribed) => {
                self.evolve_wait_subscribed(tenant_of(record)?, subscribed);
            }
            Body::WaitClosed(closed) => {
                self.evolve_wait_closed(record, tenant_of(record)?, closed)?;
            }
            Body::WaitMatched(matched) => {
                self.evolve_wait_matched(record, tenant_of(record)?, matched)?;
            }
            Body::SignalKept(kept) => self.evolve_signal_kept(record, kept)?,
            Body::SignalExpired(expired) => self.evolve_signal_expired(record, expired)?,
            Body::CaseResolved(resolved) => {
                let tenant = tenant_of(record)?;
                self.evolve_case_resolved(record, tenant, resolved)?;
            }
            Body::CaseReplayed(replayed) => self.evolve_case_replayed(record, replayed)?,
            Body::TruncationAccepted(accepted) => {
                self.evolve_truncation_accepted(record, accepted)?;
            }
            Body::EventFiled(filed) => {
                self.dead_events.remove(&filed.source);
            }
        }
        Ok(())
    }

    /// Remembers what tells a repetition of this decision: the event's position,
    /// or the id of its authorised replay.
    fn decided(&mut self, source: SourcePosition, replay: Option<Uuid>) {
        match replay {
            Some(replay) => self.commands.insert(replay.as_u128(), (), self.time),
            None => self.seen.insert(source),
        }
    }

    fn start_run(&mut self, record: &Record, started: &RunStarted) -> Result<(), CorruptHistory> {
        let id = run_of(record)?;
        let tenant = tenant_of(record)?;
        if self.runs.contains_key(&id) {
            return Err(CorruptHistory::new(record, format!("run {id} is open already")));
        }
        let Some(plan) = self.plans.get(&started.plan) else {
            let detail = format!("plan {} is not at hand", started.plan);
            return Err(CorruptHistory::new(record, detail));
        };
        self.timers.insert(started.deadline, Timer::Deadline(id));
        self.runs.insert(id, Run::start(tenant, started, plan.clone()));
        Ok(())
    }

    fn evolve_run(&mut self, record: &Record) -> Result<(), CorruptHistory> {
        let id = run_of(record)?;
        let Some(run) = self.runs.get_mut(&id) else {
            return Err(CorruptHistory::new(record, format!("run {id} is not open")));
        };
        let index = record.node.as_deref().and_then(|node| run.executable.find(node));
        let before = index.and_then(|index| Timer::of_node(id, run, index));
        let running_before = run.running();
        let queue_before = index.and_then(|index| run.queue_of(index));
        run.evolve(record)?;
        self.running = self.running + run.running() - running_before;
        self.queued_in.moved(queue_before, index.and_then(|index| run.queue_of(index)));
        let after = index.and_then(|index| Timer::of_node(id, run, index));
        if before != after {
            if let Some((due, timer)) = before {
                self.timers.remove(due, timer);
            }
            if let Some((due, timer)) = after {
                self.timers.insert(due, timer);
            }
        }
        if matches!(record.body, Body::RunClosing(_)) {
            self.timers.forget(id, run);
        }
        Ok(())
    }

    fn end_run(&mut self, record: &Record) -> Result<(), CorruptHistory> {
        let id = run_of(record)?;
        let Some(run) = self.runs.get(&id) else {
            return Err(CorruptHistory::new(record, format!("run {id} is not open")));
        };
        let quarantined = matches!(record.body, Body::RunQuarantined(_));
        if !quarantined && run.ending().as_ref() != Some(&record.body) {
            return Err(CorruptHistory::new(record, format!("run {id} does not end like this")));
        }
        self.running -= run.running();
        self.queued_in.leave_all(run);
        self.timers.forget(id, run);
        self.runs.remove(&id);
        Ok(())
    }
}

fn run_of(record: &Record) -> Result<RunId, CorruptHistory> {
    record.run.ok_or_else(|| CorruptHistory::new(record, "the record names no run"))
}

fn tenant_of(record: &Record) -> Result<&Tenant, CorruptHistory> {
    record.tenant.as_ref().ok_or_else(|| CorruptHistory::new(record, "the record names no tenant"))
}
