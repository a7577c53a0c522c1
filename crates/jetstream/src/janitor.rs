//! Making room: what lies below all readers is purged, and how far a shared consumer has come.
//!
//! What may go is the caller's decision; here is only the broom.

use serde::{Deserialize, Serialize};

use crate::{
    api::{ApiError, ask},
    connection::Broker,
};

#[derive(Serialize)]
struct PurgeRequest {
    seq: u64,
}

#[derive(Deserialize)]
struct PurgeAnswer {
    purged: u64,
}

/// Removes every message with a sequence below `first_kept` and tells how many went.
///
/// Always keep the last message of a fenced stream: its sequence and writer are what an append of
/// unknown outcome is compared with.
///
/// # Errors
/// When the stream denies purges, or the broker refuses or does not answer.
///
/// # Cancel safety
/// The messages may be gone.
pub async fn purge_below(broker: &Broker, stream: &str, first_kept: u64) -> Result<u64, ApiError> {
    // The broker takes 0 for "all of them".
    if first_kept <= 1 {
        return Ok(0);
    }
    let operation = format!("STREAM.PURGE.{stream}");
    let answer: PurgeAnswer =
        ask(&broker.publishing().client, &operation, &PurgeRequest { seq: first_kept }).await?;
    Ok(answer.purged)
}

/// How far all workers of a shared consumer have come together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedProgress {
    /// Every message up to this stream sequence is acknowledged; never purge beyond it.
    pub acknowledged_up_to: u64,
    /// How many messages are delivered and not acknowledged.
    pub unacknowledged: u64,
    /// How many messages were never delivered: the lag.
    pub waiting: u64,
}

#[derive(Deserialize)]
struct ConsumerInfo {
    ack_floor: AckFloor,
    #[serde(default)]
    num_ack_pending: u64,
    #[serde(default)]
    num_pending: u64,
}

#[derive(Deserialize)]
struct AckFloor {
    #[serde(default)]
    stream_seq: u64,
}

/// Asks how far a shared consumer has come.
///
/// # Errors
/// When it does not exist, or the broker refuses or does not answer.
///
/// # Cancel safety
/// Can be dropped.
pub async fn shared_progress(
    broker: &Broker,
    stream: &str,
    consumer: &str,
) -> Result<SharedProgress, ApiError> {
    let operation = format!("CONSUMER.INFO.{stream}.{consumer}");
    let info: ConsumerInfo = ask(&broker.publishing().client, &operation, &()).await?;
    Ok(SharedProgress {
        acknowledged_up_to: info.ack_floor.stream_seq,
        unacknowledged: info.num_ack_pending,
        waiting: info.num_pending,
    })
}
