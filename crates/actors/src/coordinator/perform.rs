//! What the owner wants done.

use std::time::Duration;

use fermata_core::effect::{Attempt, DeadCommand, Effect, RunEnded};
use fermata_core::identity::StreamPosition;
use fermata_core::partition::Report;
use fermata_jetstream::definitions_store::DefinitionsStore;
use fermata_jetstream::epoch_consumer::{EpochConsumerOptions, check_position};
use fermata_jetstream::reader::Holes;
use fermata_jetstream::{EpochConsumer, PositionCheck};
use fermata_partition::append::Send;
use fermata_partition::owner::{HaltReason, Output, StandDown};
use fermata_wire::dead::DeadLetter;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::{oneshot, watch};

use super::{Answer, Coordinator, CoordinatorMessage, CoordinatorState};
use crate::auditor::{AuditorMessage, append, read_answer};
use crate::clock::wall_ms;
use crate::definitions::ACTIVE_KEY;
use crate::escalator::Escalator;
use crate::listener::file;
use crate::node_runner::NodeRunnerMessage;
use crate::trace;

/// Messages handed over at once while replaying.
const REPLAY_BATCH: usize = 256;

/// Messages of commands handed over at once.
const COMMANDS_BATCH: usize = 32;

/// How often a journal that looks cut is read again before the partition halts.
const DOUBTS_MAX: u32 = 3;

/// Pause before something is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

impl Coordinator {
    pub(super) async fn perform_all(
        &self,
        myself: &ActorRef<CoordinatorMessage>,
        mut outputs: Vec<Output>,
        state: &mut CoordinatorState,
    ) -> Result<(), ActorProcessingErr> {
        let mut attempts = Vec::new();
        for output in outputs.drain(..) {
            // The two kinds that come by the thousand go no further: the future
            // of `perform` is large, and so is an actor message for one attempt.
            let output = if let Output::Effect(Effect::Start(attempt)) = output {
                attempts.push(attempt);
                continue;
            } else if let Output::Effect(Effect::Ended(ended)) = output {
                self.tell_instruments(&ended);
                continue;
            } else {
                output
            };
            self.start(&mut attempts)?;
            self.perform(myself, output, state).await?;
        }
        self.start(&mut attempts)?;
        state.outputs = outputs;
        Ok(())
    }

    fn tell_instruments(&self, ended: &RunEnded) {
        self.metrics.nodes_succeeded(u64::from(ended.nodes_succeeded));
        self.metrics.run_ended(ended.ended_ms.saturating_sub(ended.started_ms));
        trace::run_ended(ended);
    }

    fn start(&self, attempts: &mut Vec<Attempt>) -> Result<(), ActorProcessingErr> {
        if !attempts.is_empty() {
            self.runner.cast(NodeRunnerMessage::Start(std::mem::take(attempts)))?;
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
            Output::AppendLater(send) => self.append(myself, send, AGAIN_AFTER, state),
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
                    let message = ports.reader.read_one(&stream, sequence).await;
                    Answer::BrokerTime(message.ok().flatten().map(|message| message.broker_time_ns))
                });
            }
            Output::Replay { from } => {
                let replay =
                    replay(self.clone_for_reader(), myself.clone(), state.generation, from);
                state.readers.push(tokio::spawn(replay));
            }
            Output::FetchPlan(digest) => {
                let ports = self.ports.clone();
                self.ask(myself, state, async move {
                    loop {
                        match ports.plans.get(digest).await {
                            Ok(plan) => return Answer::Plan(digest, plan),
                            Err(error) => {
                                tracing::error!(%digest, %error, "a plan cannot be fetched");
                                tokio::time::sleep(AGAIN_AFTER).await;
                            }
                        }
                    }
                });
            }
            Output::Consume { position, epoch } => {
                state.attempts_to_own = 0;
                state.doubts = 0;
                tracing::info!(partition = %self.partition, epoch, position = position.sequence, "the partition is owned");
                state.auditor.cast(AuditorMessage::Live)?;
                let reader = self.clone_for_reader();
                self.ask(
                    myself,
                    state,
                    async move { Answer::CommandsEnd(commands_end(reader).await) },
                );
                self.consume(myself, state, position, epoch);
            }
            Output::ConsumeAgain { after } => {
                let epoch = state.owner.as_ref().map_or(0, |owner| owner.partition().epoch());
                state.readers.drain(..).for_each(|reader| reader.abort());
                state.waiting.clear();
                let position = StreamPosition { sequence: after, broker_time_ns: 0 };
                self.consume(myself, state, position, epoch);
            }
            Output::Effect(effect) => self.effect(myself, effect, state).await?,
            Output::Committed { sequence, frame } => {
                // Waiting here is how an audit log that lags holds the partition back.
                let permit = state.audit_permits.clone().acquire_owned().await?;
                state.auditor.cast(AuditorMessage::Journal { sequence, frame, permit })?;
            }
            Output::StandDown(reason) => self.stand_down(myself, reason, state)?,
            Output::Halt(reason) => {
                let from_one_read = matches!(
                    reason,
                    HaltReason::RecordsGone { .. } | HaltReason::JournalCut { .. }
                );
                if from_one_read && state.doubts < DOUBTS_MAX {
                    // A read may come from a server that is behind: read again.
                    state.doubts += 1;
                    let last_sequence = 0;
                    self.stand_down(myself, StandDown::Truncated { last_sequence }, state)?;
                } else {
                    self.halt(describe(&reason), state);
                }
            }
        }
        Ok(())
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
    fn ask(
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

    fn consume(
        &self,
        myself: &ActorRef<CoordinatorMessage>,
        state: &mut CoordinatorState,
        position: StreamPosition,
        epoch: u64,
    ) {
        let reader = self.clone_for_reader();
        let consume = consume(reader, myself.clone(), state.generation, position, epoch);
        state.readers.push(tokio::spawn(consume));
    }

    async fn effect(
        &self,
        myself: &ActorRef<CoordinatorMessage>,
        effect: Effect,
        state: &mut CoordinatorState,
    ) -> Result<(), ActorProcessingErr> {
        match effect {
            Effect::Start(attempt) => self.runner.cast(NodeRunnerMessage::Start(vec![attempt]))?,
            Effect::Abort(run) => self.runner.cast(NodeRunnerMessage::Abort(run))?,
            Effect::HandleCase(notice) => {
                self.metrics.escalated();
                let turns = state.cases_told_at_once.clone();
                let handler = Escalator::new(self.ports.clone(), notice, myself.clone(), turns);
                // Boxed: this future is large, and would be part of every caller's.
                Box::pin(Actor::spawn_linked(None, handler, (), myself.get_cell())).await?;
            }
            Effect::FileDead(dead) => {
                let (reader, myself) = (self.clone_for_reader(), myself.clone());
                tokio::spawn(file_dead(reader, myself, dead));
            }
            Effect::Ended(ended) => self.tell_instruments(&ended),
            Effect::Project => self.project(state)?,
            Effect::Reply { to, answer } => {
                let subject = to.to_string();
                let payload = answer.as_str().to_owned().into();
                if let Err(error) = self.ports.core.publish_core(subject, payload).await {
                    tracing::warn!(%error, "an answer could not be sent");
                }
            }
        }
        Ok(())
    }

    /// Publishes what is active. It is derived from the journal, so writing it
    /// again does no harm, and every new owner does. One task writes, always the
    /// newest, and ends with the owner: an older state never overwrites a newer.
    fn project(&self, state: &mut CoordinatorState) -> Result<(), ActorProcessingErr> {
        let Some(owner) = &state.owner else { return Ok(()) };
        let encoded = fermata_wire::plan::encode_definitions(owner.partition().definitions())?;
        let bytes = bytes::Bytes::from(encoded);
        if let Some(projection) = &state.projection {
            projection.send_replace(bytes);
            return Ok(());
        }
        let (sender, receiver) = watch::channel(bytes);
        state.projection = Some(sender);
        state.readers.push(tokio::spawn(keep_projected(self.ports.store.clone(), receiver)));
        Ok(())
    }

    fn clone_for_reader(&self) -> Reader {
        Reader {
            ports: self.ports.clone(),
            journal_stream: self.journal_stream.clone(),
            commands_stream: self.commands_stream.clone(),
        }
    }
}

/// What tasks that read streams need.
struct Reader {
    ports: crate::ports::Ports,
    journal_stream: String,
    commands_stream: String,
}

/// Writes the newest definitions whenever they change.
async fn keep_projected(store: DefinitionsStore, mut newest: watch::Receiver<bytes::Bytes>) {
    loop {
        let bytes = newest.borrow_and_update().clone();
        if let Err(error) = store.put(ACTIVE_KEY, bytes).await {
            tracing::warn!(%error, "the definitions could not be projected; it is tried again");
            tokio::time::sleep(AGAIN_AFTER).await;
            newest.mark_changed();
        }
        if newest.changed().await.is_err() {
            return;
        }
    }
}

/// Where the commands end now.
async fn commands_end(reader: Reader) -> u64 {
    loop {
        match reader.ports.reader.stream_state(&reader.commands_stream).await {
            Ok(state) => return state.last_sequence,
            Err(error) => {
                tracing::warn!(%error, "the end of the commands is not known yet");
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
    }
}

/// Reads the journal from `from` to its end, a batch at a time.
async fn replay(
    reader: Reader,
    coordinator: ActorRef<CoordinatorMessage>,
    generation: u64,
    from: u64,
) {
    let stream = &reader.journal_stream;
    let mut from = from;
    loop {
        let mut replay = match reader.ports.reader.replay(stream, from, Holes::Refused).await {
            Ok(replay) => replay,
            Err(error) => {
                if give_up(&coordinator, generation, stream, &error) {
                    return;
                }
                tokio::time::sleep(AGAIN_AFTER).await;
                continue;
            }
        };
        loop {
            match replay.next_batch(REPLAY_BATCH).await {
                Ok(batch) if batch.is_empty() => {
                    let end = Answer::JournalEnd(from - 1);
                    let _ = coordinator.cast(CoordinatorMessage::Answer(generation, end));
                    return;
                }
                Ok(batch) => {
                    from = batch.last().map_or(from, |message| message.sequence + 1);
                    let (more, go_on) = oneshot::channel();
                    let message = CoordinatorMessage::Journal(generation, batch, more);
                    if coordinator.cast(message).is_err() || go_on.await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    if give_up(&coordinator, generation, stream, &error) {
                        return;
                    }
                    tokio::time::sleep(AGAIN_AFTER).await;
                    break;
                }
            }
        }
    }
}

/// Follows the commands behind `position`, a batch at a time.
async fn consume(
    reader: Reader,
    coordinator: ActorRef<CoordinatorMessage>,
    generation: u64,
    position: StreamPosition,
    epoch: u64,
) {
    let stream = reader.commands_stream.clone();
    if position.broker_time_ns != 0
        && !position_holds(&reader, &coordinator, generation, position).await
    {
        return;
    }
    let mut start = position.sequence + 1;
    loop {
        let options = EpochConsumerOptions {
            stream: stream.clone(),
            epoch,
            incarnation: format!(
                "{generation}-{}",
                uuid::Uuid::from_bytes(rand::random()).simple()
            ),
            start,
        };
        let mut consumer = match EpochConsumer::open(&reader.ports.broker, options).await {
            Ok(consumer) => consumer,
            Err(error) => {
                if give_up(&coordinator, generation, &stream, &error) {
                    return;
                }
                tokio::time::sleep(AGAIN_AFTER).await;
                continue;
            }
        };
        loop {
            match consumer.next_batch(COMMANDS_BATCH).await {
                Ok(batch) => {
                    start = batch.last().map_or(start, |message| message.sequence + 1);
                    let (more, go_on) = oneshot::channel();
                    let message = CoordinatorMessage::Commands(generation, batch, more);
                    if coordinator.cast(message).is_err() || go_on.await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    if give_up(&coordinator, generation, &stream, &error) {
                        return;
                    }
                    tokio::time::sleep(AGAIN_AFTER).await;
                    break;
                }
            }
        }
    }
}

/// Whether the stream still holds the recorded position; halts when it does not.
async fn position_holds(
    reader: &Reader,
    coordinator: &ActorRef<CoordinatorMessage>,
    generation: u64,
    position: StreamPosition,
) -> bool {
    let StreamPosition { sequence, broker_time_ns } = position;
    let stream = &reader.commands_stream;
    loop {
        let checked = check_position(&reader.ports.broker, stream, sequence, broker_time_ns).await;
        let reason = match checked {
            Ok(PositionCheck::Ok | PositionCheck::Purged { .. }) => return true,
            Ok(PositionCheck::StreamEndsBefore { last }) => {
                format!(
                    "stream `{stream}` ends at {last}, {sequence} was consumed; messages are gone"
                )
            }
            Ok(PositionCheck::DifferentTimestamp { .. }) => {
                format!("stream `{stream}` holds another message at {sequence} than was consumed")
            }
            Err(error) => {
                tracing::warn!(%error, "the position of commands cannot be checked yet");
                tokio::time::sleep(AGAIN_AFTER).await;
                continue;
            }
        };
        let halt = Answer::CommandsHalted(reason);
        let _ = coordinator.cast(CoordinatorMessage::Answer(generation, halt));
        return false;
    }
}

/// Whether an error of following a stream is final: then the partition halts.
fn give_up(
    coordinator: &ActorRef<CoordinatorMessage>,
    generation: u64,
    stream: &str,
    error: &fermata_jetstream::epoch_consumer::EpochConsumerError,
) -> bool {
    use fermata_jetstream::epoch_consumer::EpochConsumerError as Error;
    match error {
        Error::Gap { .. } | Error::EndsBefore { .. } => {
            let halt = Answer::CommandsHalted(describe(error));
            let _ = coordinator.cast(CoordinatorMessage::Answer(generation, halt));
            true
        }
        Error::Read { .. } => {
            tracing::warn!(
                stream,
                error = describe(error),
                "a stream cannot be read; it is tried again"
            );
            false
        }
    }
}

/// Files the bytes of a command that could not be decided.
async fn file_dead(reader: Reader, coordinator: ActorRef<CoordinatorMessage>, dead: DeadCommand) {
    let stream = &reader.commands_stream;
    let DeadCommand { sequence, index, reason, detail } = dead;
    let original = loop {
        match reader.ports.reader.read_one(stream, sequence).await {
            Ok(message) => break message.map_or_else(bytes::Bytes::new, |message| message.payload),
            Err(error) => {
                tracing::warn!(%error, "a poisoned command cannot be read yet");
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
    };
    let place = index.map_or_else(|| "all".to_owned(), |index| index.to_string());
    let letter = DeadLetter {
        id: format!("{stream}.{sequence}.{place}"),
        tenant: "_engine".to_owned(),
        stage: "coordinator".to_owned(),
        reason: reason.to_string(),
        detail,
        subject: stream.clone(),
        original,
        time_ms: wall_ms(),
    };
    while !file(&reader.ports, vec![letter.clone()]).await {
        tokio::time::sleep(AGAIN_AFTER).await;
    }
    let report = Report::DeadFiled { sequence, index };
    let _ = coordinator.cast(CoordinatorMessage::Reports(vec![report]));
}

/// An error with all its causes, for a log line and for `status`.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
