//! Nodes that wait for an event, in the partition of their run.

use super::{Decision, Partition};
use crate::command::{EventCommand, Verdict};
use crate::effect::{Outcome, bounded_detail};
use crate::identity::{PartitionId, RunId};
use crate::plan::{FailureClass, NodeIndex};
use crate::record::{Body, EffectLate, EventSignalled, NodeFailed, NodeSucceeded, Record};
use crate::relay::{
    RelayCommand, Resume, ResumeAnswer, Signal, SignalEvent, Subscribe, Unsubscribe, Waiter,
};
use crate::run::{Node, Phase, Run, Step};

impl Partition {
    /// The partition that has no room for the subscription of `step`, if it is a
    /// wait that must wait for that.
    pub(super) fn without_room(&self, step: &Step) -> Option<PartitionId> {
        let Body::NodeWaiting(waiting) = &step.record.body else { return None };
        let tenant = step.record.tenant.as_ref()?;
        let target = self.correlation_partition(tenant, &waiting.correlation);
        self.is_outbox_full(target).then_some(target)
    }

    /// Accepts an event that starts nothing: it may be what somebody waits for,
    /// and whether anybody does is known where its key lives.
    pub(super) fn decide_signalled(&mut self, command: &EventCommand, out: &mut Decision) {
        if let Some(refused) = self.has_no_room(command) {
            return self.refuse_event(command, refused, out);
        }
        let Some(correlation) = &command.correlation else { return };
        let (strategy, near) = match &command.verdict {
            Verdict::Ignored { strategy } => (Some(strategy.clone()), Vec::new()),
            Verdict::Unmatched { near } => (None, near.clone()),
            Verdict::Start { .. } | Verdict::Rejected { .. } => (None, Vec::new()),
        };
        let body = EventSignalled {
            event: command.event.clone(),
            key: command.key,
            source: command.source,
            correlation: correlation.key.clone(),
            strategy,
            near,
            replay: command.replay,
        };
        self.emit(Record::of_tenant(&command.event.tenant, body.into()), out);
        self.signal(command, out);
    }

    /// Tells those who wait for the event, if it has a correlation key.
    pub(super) fn signal(&mut self, command: &EventCommand, out: &mut Decision) {
        let Some(correlation) = &command.correlation else { return };
        let target = self.correlation_partition(&command.event.tenant, &correlation.key);
        let (reference, data) = (command.event.clone(), correlation.data.clone());
        let signal = Signal {
            key: correlation.key.clone(),
            event: SignalEvent { reference, data },
            review: matches!(command.verdict, Verdict::Unmatched { .. }),
        };
        self.relay(&command.event.tenant, target, RelayCommand::Signal(signal), out);
    }

    /// Tells the partition of a wait's key of it.
    pub(super) fn subscribe(&mut self, subscribe: Subscribe, out: &mut Decision) {
        let target = self.correlation_partition(&subscribe.tenant, &subscribe.key);
        let tenant = subscribe.tenant.clone();
        self.relay(&tenant, target, RelayCommand::Subscribe(subscribe), out);
    }

    /// The event came, or it cannot be waited for.
    pub(super) fn decide_resume(&mut self, resume: &Resume, out: &mut Decision) {
        let Resume { tenant, waiter, answer } = resume;
        let outcome = match answer {
            ResumeAnswer::Event(event) => Outcome::Succeeded { output: event.output() },
            ResumeAnswer::Refused(detail) => {
                let (class, detail) = (FailureClass::NotAllowed, bounded_detail(detail));
                Outcome::Failed { class, detail }
            }
        };
        let of_node = |body| Record {
            activation: waiter.activation,
            ..Record::of_node(tenant, waiter.run, &waiter.node, body)
        };
        if !self.is_awaiting(waiter) {
            self.emit(of_node(EffectLate { outcome }.into()), out);
            return;
        }
        let body = match outcome {
            Outcome::Succeeded { output } => NodeSucceeded { output }.into(),
            Outcome::Failed { class, detail } => NodeFailed { class, detail }.into(),
        };
        self.emit_run_record(waiter.run, of_node(body), out);
        self.advance_run(waiter.run, out);
    }

    fn is_awaiting(&self, waiter: &Waiter) -> bool {
        let Some(run) = self.runs.get(&waiter.run) else { return false };
        let node = run.executable.find(&waiter.node).and_then(|index| run.node(index));
        *run.phase() == Phase::Open && matches!(node, Some(Node::Awaiting { .. }))
    }

    /// A wait took too long.
    pub(super) fn time_wait_out(&mut self, id: RunId, index: NodeIndex, out: &mut Decision) {
        let Some(unsubscribe) = self.runs.get(&id).and_then(|run| wait_of(run, id, index)) else {
            return;
        };
        // One may have come: what is stored while no engine runs, or while orchestration is off, is decided later.
        let detail = "no event was decided within the time limit of the wait, which runs on while no engine decides"
            .to_owned();
        let body = NodeFailed { class: FailureClass::Timeout, detail }.into();
        let record = Record::of_node(&unsubscribe.tenant, id, &unsubscribe.waiter.node, body);
        self.emit_run_record(id, record, out);
        self.advance_run(id, out);
        self.unsubscribe([unsubscribe], out);
    }

    /// What a run that closes or ends still waits for.
    pub(super) fn waits_of(&self, id: RunId) -> Vec<Unsubscribe> {
        let Some(run) = self.runs.get(&id) else { return Vec::new() };
        if run.awaiting() == 0 {
            return Vec::new();
        }
        run.nodes().filter_map(|(index, _)| wait_of(run, id, index)).collect()
    }

    /// Bounded by the waits that there were, so it needs no room in the outbox.
    pub(super) fn unsubscribe(
        &mut self,
        waits: impl IntoIterator<Item = Unsubscribe>,
        out: &mut Decision,
    ) {
        for unsubscribe in waits {
            let target = self.correlation_partition(&unsubscribe.tenant, &unsubscribe.key);
            let tenant = unsubscribe.tenant.clone();
            self.relay(&tenant, target, RelayCommand::Unsubscribe(unsubscribe), out);
        }
    }
}

/// What a step asks of the partition of its key.
pub(super) fn subscribe_of(record: &Record) -> Option<Subscribe> {
    let Body::NodeWaiting(waiting) = &record.body else { return None };
    Some(Subscribe {
        tenant: record.tenant.clone()?,
        key: waiting.correlation.clone(),
        event: waiting.event.clone(),
        waiter: Waiter {
            run: record.run?,
            node: record.node.clone()?,
            activation: record.activation,
        },
    })
}

fn wait_of(run: &Run, id: RunId, index: NodeIndex) -> Option<Unsubscribe> {
    let Node::Awaiting { key, .. } = run.node(index)? else { return None };
    let node = run.executable.node(index)?.id.clone();
    let waiter = Waiter { run: id, node, activation: 1 };
    Some(Unsubscribe { tenant: run.tenant.clone(), key: key.clone(), waiter })
}
