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

/// How often the append is tried while its outcome stays unknown.
const TRIES_MAX: u32 = 3;

/// Why there is no agreement.
#[derive(Debug, Error)]
pub enum EngineConfigError {
    /// The broker refused the message for another reason than that one is there.
    #[error("stream `{CONFIG_STREAM}` refused the configuration: {description} (code {code})")]
    Refused {
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
    /// The first message is gone although the stream has moved on.
    #[error("stream `{CONFIG_STREAM}` no longer holds its first message")]
    Gone,
}

/// Stores `payload` as the engine's configuration if there is none, and returns the one that holds.
///
/// Of several starters at once one wins; all get the winner's bytes.
///
/// # Errors
/// When the broker refuses, does not answer, or the message is gone.
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
        match publisher.append(CONFIG_SUBJECT, 0, writer, payload.clone()).await {
            PublishOutcome::Stored { .. }
            | PublishOutcome::Refused { refusal: Refusal::WrongLastSequence { .. }, .. } => {
                return read_engine_config(broker).await?.ok_or(EngineConfigError::Gone);
            }
            PublishOutcome::Refused { code, description, .. } => {
                return Err(EngineConfigError::Refused { code, description });
            }
            PublishOutcome::Unknown => {}
        }
    }
    Err(EngineConfigError::Unknown)
}

/// Reads the engine's configuration; nothing when none was stored yet.
///
/// # Errors
/// When the broker refuses or does not answer.
///
/// # Cancel safety
/// Can be dropped.
pub async fn read_engine_config(broker: &Broker) -> Result<Option<StoredMessage>, ReadError> {
    StreamReader::new(broker).read_one(CONFIG_STREAM, 1).await
}
