//! Tasks that read the partition's streams and hand over what they read, a
//! batch at a time: the next one when the coordinator says so.

use fermata_core::identity::StreamPosition;
use fermata_jetstream::epoch_consumer::{EpochConsumerOptions, check_position};
use fermata_jetstream::reader::Holes;
use fermata_jetstream::{EpochConsumer, PositionCheck};
use ractor::ActorRef;
use tokio::sync::oneshot;

use super::{AGAIN_AFTER, Answer, Coordinator, CoordinatorMessage};
use crate::ports::Ports;

/// Messages handed over at once while replaying.
const REPLAY_BATCH: usize = 256;

/// Messages of commands handed over at once.
const COMMANDS_BATCH: usize = 32;

/// Tries to learn when the broker stored the takeover: with the pause between
/// them, at least five minutes. After that only commands tell the broker's time.
const STORED_AT_TRIES_MAX: u32 = 1_500;

/// What tasks that read streams need.
pub(super) struct Reader {
    pub(super) ports: Ports,
    pub(super) journal_stream: String,
    pub(super) commands_stream: String,
}

impl Coordinator {
    pub(super) fn reader(&self) -> Reader {
        Reader {
            ports: self.ports.clone(),
            journal_stream: self.journal_stream.clone(),
            commands_stream: self.commands_stream.clone(),
        }
    }
}

/// When the broker stored a message of the journal; nothing when it does not
/// say so for [`STORED_AT_TRIES_MAX`] tries.
pub(super) async fn stored_at(ports: &Ports, stream: &str, sequence: u64) -> Option<i64> {
    for _ in 0..STORED_AT_TRIES_MAX {
        match ports.reader.read_one(stream, sequence).await {
            Ok(Some(message)) => return Some(message.broker_time_ns),
            // A server that is behind does not have it yet.
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(stream, sequence, %error, "the broker's time is not known yet")
            }
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
    None
}

/// Where the commands end now.
pub(super) async fn commands_end(reader: Reader) -> u64 {
    loop {
        match reader.ports.reader.stream_state(&reader.commands_stream).await {
            Ok(state) => return state.last_sequence,
            Err(error) => {
                tracing::warn!(stream = reader.commands_stream, %error, "the end of the commands is not known yet");
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
    }
}

/// Reads the journal from `from` to its end, a batch at a time.
pub(super) async fn replay(
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
                if give_up(&coordinator, generation, stream, &error, Answer::JournalMissing) {
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
                    if give_up(&coordinator, generation, stream, &error, Answer::JournalMissing) {
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
pub(super) async fn consume(
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
                if give_up(&coordinator, generation, &stream, &error, Answer::CommandsMissing) {
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
                    if give_up(&coordinator, generation, &stream, &error, Answer::CommandsMissing) {
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
                tracing::warn!(stream, %error, "the position of commands cannot be checked yet");
                tokio::time::sleep(AGAIN_AFTER).await;
                continue;
            }
        };
        let halt = Answer::CommandsHalted(reason);
        let _ = coordinator.cast(CoordinatorMessage::Answer(generation, halt));
        return false;
    }
}

/// Whether an error of following a stream does not pass: then the coordinator is
/// told what is missing.
fn give_up(
    coordinator: &ActorRef<CoordinatorMessage>,
    generation: u64,
    stream: &str,
    error: &fermata_jetstream::epoch_consumer::EpochConsumerError,
    missing: impl FnOnce(String) -> Answer,
) -> bool {
    use fermata_jetstream::epoch_consumer::EpochConsumerError as Error;
    match error {
        Error::Gap { .. } | Error::EndsBefore { .. } => {
            let missing = missing(describe(error));
            let _ = coordinator.cast(CoordinatorMessage::Answer(generation, missing));
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

/// An error with all its causes, for a log line and for `status`.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
