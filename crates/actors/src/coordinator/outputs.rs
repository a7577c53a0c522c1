//! What the owner wants done.

use std::time::Duration;

use bytes::Bytes;
use fermata_core::effect::{Attempt, Effect};
use fermata_core::identity::{PartitionId, StreamPosition};
use fermata_partition::append::Send;
use fermata_partition::owner::{HaltReason, Output, StandDown};
use ractor::{ActorProcessingErr, ActorRef};
use tokio::sync::OwnedSemaphorePermit;

use super::hop_janitor::purge_shared_streams;
use super::readers::{commands_end, consume, describe, replay, stored_at};
use super::state::Task;
use super::{AGAIN_AFTER, Answer, Coordinator, CoordinatorMessage, CoordinatorState};
use crate::auditor::{AuditorMessage, append, read_answer};
use crate::node_runner::NodeRunnerMessage;
use crate::standstill::Place;

/// How often a journal that looks cut, or a plan that looks gone, is read again
/// before the partition halts.
const DOUBTS_MAX: u32 = 3;

impl Coordinator {
    pub(super) async fn perform_all(
        &self,
        myself: &ActorRef<CoordinatorMessage>,
        mut outputs: Vec<Output>,
        state: &mut CoordinatorState,
    ) -> Result<(), ActorProcessingErr> {
        if state.held_back.is_empty() {
            return self.perform_in_order(myself, outputs, None, state).await;
        }
        let end = state.held_back.add(outputs.drain(..));
        state.outputs = outputs;
        match end {
            Some(end) => self.perform(myself, end, state).await,
            None => Ok(()),
        }
    }

    /// Does all of it, or holds back what must wait for the auditor: the first committed frame
    /// that gets no permit, and everything behind it.
    pub(super) async fn perform_in_order(
        &self,
        myself: &ActorRef<CoordinatorMessage>,
        mut outputs: Vec<Output>,
        mut permit: Option<OwnedSemaphorePermit>,
        state: &mut CoordinatorState,
    ) -> Result<(), ActorProcessingErr> {
        let mut attempts = Vec::new();
        let mut rest = outputs.drain(..);
        while let Some(output) = rest.next() {
            // The kinds that come by the thousand go no further: the future of
            // `perform` is large, and so is an actor message for one attempt.
            let output = if let Output::Effect(Effect::Start(attempt)) = output {
                attempts.push(attempt);
                continue;
            } else if let Output::Effect(Effect::Ended(ended)) = output {
                self.tell_instruments(&ended, state);
                continue;
            } else if let Output::Effect(Effect::Matched(matched)) = output {
                self.metrics.event_matched(&matched);
                continue;
            } else {
                output
            };
            self.start(myself, &mut attempts)?;
            let Output::Committed { sequence, frame } = output else {
                self.perform(myself, output, state).await?;
                continue;
            };
            let permits = state.audit_permits.clone();
            let Some(permit) = permit.take().or_else(|| permits.try_acquire_owned().ok()) else {
                let waits = std::iter::once(Output::Committed { sequence, frame });
                match state.held_back.add(waits.chain(rest)) {
                    Some(end) => self.perform(myself, end, state).await?,
                    None => self.wait_for_auditor(myself, state),
                }
                return Ok(());
            };
            self.committed(sequence, frame, permit, state)?;
        }
        drop(rest);
        self.start(myself, &mut attempts)?;
        state.outputs = outputs;
        Ok(())
    }

    /// Hands a frame to the auditor; its permit is how an audit log that lags holds the partition back.
    fn committed(
        &self,
        sequence: u64,
        frame: Option<Bytes>,
        permit: OwnedSemaphorePermit,
        state: &mut CoordinatorState,
    ) -> Result<(), ActorProcessingErr> {
        self.ports.standstills.ended(Place::Journal(self.partition));
        state.settling.committed(sequence);
        if let Some(owner) = &state.owner {
            // What is decided and will be committed next counts, too.
            let decided = owner.partition().position().sequence;
            self.ports.room.decided_up_to(self.partition, decided);
        }
        state.auditor.cast(AuditorMessage::Journal { sequence, frame, permit })?;
        Ok(())
    }

    fn start(
        &self,
        myself: &ActorRef<CoordinatorMessage>,
        attempts: &mut Vec<Attempt>,
    ) -> Result<(), ActorProcessingErr> {
        if !attempts.is_empty() {
            let attempts = std::mem::take(attempts);
            self.runner.cast(NodeRunnerMessage::Start(myself.get_id(), attempts))?;
        }
        Ok(())
    }

    async fn perform(
        &self,
        myself: &ActorRef<CoordinatorMessage>,
        output: Output,
        state: &mut CoordinatorState,
    ) -> Result<(), ActorProcessingErr> {
        match output {
            Output::Append(send) => self.append(myself, send, Duration::ZERO, state),
            Output::AppendLater(send) => {
                let now_ms = self.ports.clock.now().monotonic_ms;
                let (journal, trouble) = (Place::Journal(self.partition), state.append_trouble);
                self.ports.standstills.tried_again(journal, trouble, now_ms, now_ms);
                self.append(myself, send, AGAIN_AFTER, state);
            }
            Output::ReadJournal { sequence, later } => {
                let (ports, stream) = (self.ports.clone(), self.journal_stream.clone());
                self.ask(myself, state, async move {
                    if later {
                        tokio::time::sleep(AGAIN_AFTER).await;
                    }
                    Answer::Read(read_answer(&ports, &stream, sequence).await)
                });
            }
            Output::ReadTime { sequence } => {
                let (ports, stream) = (self.ports.clone(), self.journal_stream.clone());
                self.ask(myself, state, async move {
                    Answer::BrokerTime(stored_at(&ports, &stream, sequence).await)
                });
            }
            Output::Replay { from } => {
                let replay = replay(self.reader(), myself.clone(), state.generation, from);
                state.journal_reader = Some(Task::spawn(replay));
            }
            Output::FetchPlan(digest) => {
                let plans = self.ports.plans.clone();
                self.ask(myself, state, async move {
                    let plan = plans.find(digest).await;
                    Answer::Plan(digest, plan.map_err(|error| describe(&error)))
                });
            }
            Output::Consume { position, epoch } => {
                state.attempts_to_own = 0;
                state.doubts = 0;
                tracing::info!(partition = %self.partition, epoch, position = position.sequence, "the partition is owned");
                state.auditor.cast(AuditorMessage::Live)?;
                if self.partition == PartitionId::CONTROL {
                    let (lease, held) = (state.lease.view(), state.events_held.clone());
                    let purge = purge_shared_streams(self.ports.clone(), lease, held);
                    state.hop_janitor = Some(Task::spawn(purge));
                }
                let reader = self.reader();
                self.ask(
                    myself,
                    state,
                    async move { Answer::CommandsEnd(commands_end(reader).await) },
                );
                self.consume(myself, state, position, epoch);
            }
            Output::ConsumeAgain { after } => {
                let epoch = state.owner.as_ref().map_or(0, |owner| owner.partition().epoch());
                let position = StreamPosition { sequence: after, broker_time_ns: 0 };
                self.consume(myself, state, position, epoch);
            }
            Output::Effect(effect) => self.effect(myself, effect, state).await?,
            // It needs a permit, and has got it before.
            Output::Committed { .. } => {}
            Output::Snapshot(frozen) => Self::take_snapshot(frozen, state)?,
            Output::StandDown(reason) => {
                self.ports.standstills.ended(Place::Journal(self.partition));
                self.stand_down(myself, reason, state)?;
            }
            Output::Halt(reason) => self.doubt(myself, &reason, state)?,
            Output::Relay(relay) => self.relay(myself, relay, Duration::ZERO, state),
            Output::RelayLater(relay) => self.relay(myself, relay, AGAIN_AFTER, state),
        }
        Ok(())
    }

    /// Halts, unless the reason may come from a server that is behind: then
    /// everything is read again, a few times.
    fn doubt(
        &self,
        myself: &ActorRef<CoordinatorMessage>,
        reason: &HaltReason,
        state: &mut CoordinatorState,
    ) -> Result<(), ActorProcessingErr> {
        let from_one_read = matches!(
            reason,
            HaltReason::RecordsGone { .. }
                | HaltReason::JournalCut { .. }
                | HaltReason::PlanMissing(_)
        );
        if from_one_read && state.doubts < DOUBTS_MAX {
            state.doubts += 1;
            tracing::warn!(partition = %self.partition, reason = describe(reason), doubts = state.doubts, "what was read cannot be; it is read again");
            return self.stand_down(myself, StandDown::Truncated { last_sequence: 0 }, state);
        }
        let text = match (reason, state.plan_problem.take()) {
            (HaltReason::PlanMissing(digest), Some(problem)) => {
                format!("plan {digest}, which the journal needs, cannot be used: {problem}")
            }
            _ => describe(reason),
        };
        self.halt(text, state);
        Ok(())
    }

    /// Halts, unless what a read lacks may have been purged by an owner that came
    /// after this one: then everything is begun anew, a few times.
    pub(super) fn doubt_read(
        &self,
        myself: &ActorRef<CoordinatorMessage>,
        doubts: u32,
        reason: String,
        state: &mut CoordinatorState,
    ) -> Result<(), ActorProcessingErr> {
        if doubts > DOUBTS_MAX {
            self.halt(reason, state);
            return Ok(());
        }
        tracing::warn!(partition = %self.partition, reason, doubts, "what is to be read is not there; everything is begun anew");
        self.stand_down(myself, StandDown::Truncated { last_sequence: 0 }, state)
    }

    fn append(
        &self,
        myself: &ActorRef<CoordinatorMessage>,
        send: Send,
        pause: Duration,
        state: &CoordinatorState,
    ) {
        let (ports, subject) = (self.ports.clone(), self.journal_subject.clone());
        self.ask(myself, state, async move {
            Answer::Appended(append(&ports, subject, send, pause).await)
        });
    }

    /// Does something that waits, and brings the answer back.
    pub(super) fn ask(
        &self,
        myself: &ActorRef<CoordinatorMessage>,
        state: &CoordinatorState,
        work: impl Future<Output = Answer> + std::marker::Send + 'static,
    ) {
        let (myself, generation) = (myself.clone(), state.generation);
        tokio::spawn(async move {
            let answer = work.await;
            // A coordinator that is gone needs no answer.
            let _ = myself.cast(CoordinatorMessage::Answer(generation, answer));
        });
    }

    /// Follows the commands behind `position`, instead of from where they were
    /// followed before.
    fn consume(
        &self,
        myself: &ActorRef<CoordinatorMessage>,
        state: &mut CoordinatorState,
        position: StreamPosition,
        epoch: u64,
    ) {
        state.commands_waiting.clear();
        let consume = consume(self.reader(), myself.clone(), state.generation, position, epoch);
        state.commands_reader = Some(Task::spawn(consume));
    }
}
