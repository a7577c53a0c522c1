//! The one message that every starter must agree on: engine id, number of partitions and the like.

use bytes::Bytes;
use thiserror::Error;

use crate::{
    connection::Broker,
    delivery::StoredMessage,
    outcome::{PublishOutcome, Refusal},
    publisher::Publisher,
    reader::{ReadError, StreamReader},
    topology::{CONFIG_STREAM, CONFIG_SUBJECT},
};

/// How often the append is tried while its outcome stays unknown, or others write at the same time.
const TRIES_MAX: u32 = 3;

/// Why there is no agreement.
#[derive(Debug, Error)]
pub enum EngineConfigError {
    /// The broker refused the message for another reason than that one is there.
    #[error("stream `{CONFIG_STREAM}` refused the configuration: {description} (code {code})")]
    Refused {
        /// The reason, as far as it is known.
        refusal: Refusal,
        /// The broker's error code.
        code: u64,
        /// The broker's words.
        description: String,
    },
    /// It is not known whether the message is stored.
    #[error("stream `{CONFIG_STREAM}` did not answer; start again when the broker does")]
    Unknown,
    /// The message that is there could not be read.
    #[error("could not read the configuration in stream `{CONFIG_STREAM}`")]
    Read(#[from] ReadError),
}

/// Stores `payload` as the engine's configuration if there is none, and returns the one that holds.
///
/// The one that holds is the first message that names its writer ([`crate::WRITER_HEADER`]). Of several
/// starters at once one wins; all get the winner's bytes. Foreign messages before it are stepped over.
///
/// # Errors
/// When the broker refuses or does not answer.
///
/// # Cancel safety
/// The message may have been stored.
pub async fn agree_on_engine_config(
    broker: &Broker,
    publisher: &Publisher,
    writer: &str,
    payload: Bytes,
) -> Result<StoredMessage, EngineConfigError> {
    for _ in 0..TRIES_MAX {
        let last = match find(broker).await? {
            Found::Config(stored) => return Ok(stored),
            Found::None { last } => last,
        };
        match publisher.append(CONFIG_SUBJECT, last, writer, payload.clone()).await {
            PublishOutcome::Refused { refusal: Refusal::WrongLastSequence { .. }, .. }
            | PublishOutcome::Stored { .. }
            | PublishOutcome::Unknown => {}
            PublishOutcome::Refused { refusal, code, description } => {
                return Err(EngineConfigError::Refused { refusal, code, description });
            }
        }
    }
    // Whoever was first, and be it this process.
    match find(broker).await? {
        Found::Config(stored) => Ok(stored),
        Found::None { .. } => Err(EngineConfigError::Unknown),
    }
}

/// Reads the engine's configuration; nothing when none was stored yet.
///
/// # Errors
/// When the broker refuses or does not answer.
///
/// # Cancel safety
/// Can be dropped.
pub async fn read_engine_config(broker: &Broker) -> Result<Option<StoredMessage>, ReadError> {
    match find(broker).await? {
        Found::Config(stored) => Ok(Some(stored)),
        Found::None { .. } => Ok(None),
    }
}

impl EngineConfigError {
    /// Whether the same may go well later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unknown => true,
            // Where several create the streams of a new cluster at once, one may not see them yet.
            Self::Read(error) => error.is_transient() || error.is_stream_not_found(),
            Self::Refused { refusal, .. } => refusal.is_transient(),
        }
    }
}

/// What the stream holds.
enum Found {
    Config(StoredMessage),
    /// No configuration up to the stream's end.
    None {
        last: u64,
    },
}

async fn find(broker: &Broker) -> Result<Found, ReadError> {
    let reader = StreamReader::new(broker);
    let last = reader.stream_state(CONFIG_STREAM).await?.last_sequence;
    for sequence in 1..=last {
        match reader.read_one(CONFIG_STREAM, sequence).await? {
            Some(stored) if stored.writer.is_some() => return Ok(Found::Config(stored)),
            Some(_) => tracing::warn!(
                stream = CONFIG_STREAM,
                sequence,
                "a message without writer is no configuration and is stepped over"
            ),
            None => {}
        }
    }
    Ok(Found::None { last })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_elects_its_leader_is_waited_for_and_a_full_one_is_not() {
        let refused = |refusal, code| {
            let description = String::new();
            EngineConfigError::Refused { refusal, code, description }.is_transient()
        };

        assert!(refused(Refusal::NoResponders, 503));
        assert!(!refused(Refusal::StreamFull, 10_077));
        assert!(EngineConfigError::Unknown.is_transient());
    }
}
