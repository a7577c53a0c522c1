//! Purging what nobody needs any more.

use serde::{Deserialize, Serialize};

use crate::{
    api::{ApiError, ask},
    connection::Broker,
    reader::StreamState,
    size_limit::SizeLimit,
    stream_info::stream_info,
};

#[derive(Serialize)]
struct PurgeRequest {
    /// The first sequence that stays.
    seq: u64,
}

#[derive(Deserialize)]
struct PurgeAnswer {
    #[serde(default)]
    purged: u64,
}

/// Removes every message of `stream` before the sequence `first`, and tells how many that were.
///
/// # Errors
/// When the broker refuses or does not answer.
///
/// # Cancel safety
/// They may be gone.
pub async fn purge_before(broker: &Broker, stream: &str, first: u64) -> Result<u64, ApiError> {
    // Without a bound the broker would take the request to mean all messages.
    if first <= 1 {
        return Ok(0);
    }
    let operation = format!("STREAM.PURGE.{stream}");
    let answer: PurgeAnswer =
        ask(broker.publishing(), &operation, &PurgeRequest { seq: first }).await?;
    Ok(answer.purged)
}

/// How full a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamRoom {
    /// Sequence of its oldest message.
    pub first_sequence: u64,
    /// How many messages it holds.
    pub messages: u64,
    /// How many bytes these take.
    pub bytes: u64,
    /// How many bytes it may hold; 0 is any number.
    pub max_bytes: u64,
}

#[derive(Deserialize)]
struct StreamInfo {
    config: Config,
    state: StreamState,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    max_bytes: SizeLimit,
}

/// Asks how full `stream` is.
///
/// # Errors
/// When the broker refuses or does not answer.
///
/// # Cancel safety
/// Can be dropped.
pub async fn room_of(broker: &Broker, stream: &str) -> Result<StreamRoom, ApiError> {
    let info: StreamInfo = stream_info(broker.publishing(), stream, &()).await?;
    let StreamState { first_sequence, bytes, messages, .. } = info.state;
    let max_bytes = info.config.max_bytes.bytes().unwrap_or(0);
    Ok(StreamRoom { first_sequence, messages, bytes, max_bytes })
}
