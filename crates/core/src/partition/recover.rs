//! What a new owner finds outstanding.

use uuid::Uuid;

use super::queue_room::QueueHeld;
use super::{Decision, Partition};
use crate::effect::{Effect, EffectKey};
use crate::identity::{PartitionId, RunId, SourcePosition};
use crate::plan::NodeIndex;
use crate::record::{NodeUnknown, Record};
use crate::run::{Node, Phase};

/// An attempt that was ordered and whose outcome is not recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outstanding {
    /// The run.
    pub run: RunId,
    /// The node.
    pub index: NodeIndex,
    /// The effect.
    pub key: EffectKey,
    /// The attempt.
    pub attempt: u32,
}

/// Something for people that was ordered, and nobody recorded that it was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untold {
    /// A case that nobody was told of.
    Case(Uuid),
    /// A poisoned command that is not filed: sequence in COMMANDS, place.
    Dead(u64, Option<u32>),
    /// A resolved case whose events are to be decided once more.
    Replay(Uuid),
    /// A rejected event that is not filed.
    Event(SourcePosition),
}

impl Partition {
    /// Every attempt that was ordered and has no outcome, in a fixed order.
    #[must_use]
    pub fn outstanding(&self) -> Vec<Outstanding> {
        let mut found = Vec::new();
        for (id, run) in self.runs.iter() {
            for (index, node) in run.nodes() {
                let (Node::Running { attempt, .. } | Node::Queued { attempt, .. }) = node else {
                    continue;
                };
                let Some(definition) = run.executable.node(index) else { continue };
                let key = EffectKey::of_node(*id, definition.id.clone(), 1);
                found.push(Outstanding { run: *id, index, key, attempt: *attempt });
            }
        }
        found.sort_by_key(|outstanding| (outstanding.run, outstanding.index));
        found
    }

    /// Orders again one attempt of [`Self::outstanding`] that nobody works on
    /// any more, unless that could do something twice: then its outcome is
    /// unknown and a person decides.
    pub fn recover(&mut self, lost: &Outstanding, out: &mut Decision) {
        let Some(run) = self.runs.get(&lost.run) else { return };
        let Some(node) = run.executable.node(lost.index) else { return };
        let still = matches!(
            run.node(lost.index),
            Some(Node::Running { attempt, .. } | Node::Queued { attempt, .. })
                if *attempt == lost.attempt
        );
        if !still {
            return;
        }
        let repeatable = node.work.is_repeatable();
        if let Some(queued) = run.queued_attempt(lost.run, lost.index)
            && *run.phase() == Phase::Open
        {
            // Nobody knows whether the last owner handed it out. One that may come
            // twice is handed out again, and recognised; the other one is with its
            // queue or lost, which its time tells.
            if repeatable {
                out.effects.push(Effect::Enqueue(Box::new(queued)));
            }
            return;
        }
        if repeatable && *run.phase() == Phase::Open {
            if let Some(step) = run.step(lost.run, lost.index, self.time) {
                self.emit_step(step, out);
            }
            return;
        }
        let detail = match repeatable {
            true => "its owner was lost while the run was closing",
            false => "its owner was lost and the target is not idempotent",
        };
        let body = NodeUnknown { detail: detail.to_owned() }.into();
        let record = Record::of_node(&run.tenant, lost.run, &node.id, body).attempt(lost.attempt);
        self.emit_run_record(lost.run, record, out);
        self.advance_run(lost.run, out);
    }

    /// Every case that was not told of, every dead letter that is not filed,
    /// every resolved case that is not replayed and every rejected event that is
    /// not filed, in a fixed order.
    #[must_use]
    pub fn untold(&self) -> Vec<Untold> {
        let cases = self.cases.iter().filter(|(_, case)| !case.notified);
        let dead = self.unfiled.keys();
        let cases = cases.map(|(case, _)| Untold::Case(*case));
        let dead = dead.map(|(sequence, index)| Untold::Dead(*sequence, *index));
        let replays = self.resolutions.replaying().map(Untold::Replay);
        let events = self.dead_events.keys().map(|source| Untold::Event(*source));
        cases.chain(dead).chain(replays).chain(events).collect()
    }

    /// Orders again one of [`Self::untold`], unless it was told meanwhile.
    pub fn tell_again(&mut self, untold: Untold, out: &mut Decision) {
        match untold {
            Untold::Case(case) => self.notify_again(case, out),
            Untold::Dead(sequence, index) => {
                let dead = self.unfiled.get(&(sequence, index)).cloned();
                out.effects.extend(dead.map(Effect::FileDead));
            }
            Untold::Replay(case) => self.replay_case_again(case, out),
            Untold::Event(source) => self.file_again(source, out),
        }
    }

    /// Notes the runs that were held back when the state was recorded, and
    /// orders the projection of definitions again.
    pub fn recover_partition(&mut self, out: &mut Decision) {
        if self.id == PartitionId::CONTROL {
            out.effects.push(Effect::Project);
        }
        let mut held_back = self
            .runs
            .iter()
            .filter(|(_, run)| run.next_ready().is_some() || run.ending().is_some())
            .map(|(id, _)| *id)
            .collect::<Vec<_>>();
        held_back.sort_unstable();
        self.held_back = held_back.into_iter().collect();
        self.outbox_held.clear();
        self.queue_held = QueueHeld::default();
    }
}
