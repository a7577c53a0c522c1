//! How far the workers of a shared consumer have come together, and how far there is to go.

use serde::Deserialize;

use crate::{
    api::{ApiError, ask_to_read},
    connection::Broker,
    reader::{ReadError, stream_state},
};

/// How far all workers of a shared consumer have come together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedProgress {
    /// Every message up to this stream sequence is acknowledged; never purge beyond it.
    pub acknowledged_up_to: u64,
    /// How many messages are delivered and not acknowledged.
    pub unacknowledged: u64,
    /// How many messages that are not acknowledged were delivered more than once.
    pub redelivered: u64,
    /// How many messages were never delivered: the lag.
    pub waiting: u64,
}

#[derive(Deserialize)]
struct ConsumerInfo {
    ack_floor: AckFloor,
    #[serde(default)]
    num_ack_pending: u64,
    #[serde(default)]
    num_redelivered: u64,
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
    let info: ConsumerInfo = ask_to_read(broker.publishing(), &operation, &()).await?;
    Ok(SharedProgress {
        acknowledged_up_to: info.ack_floor.stream_seq,
        unacknowledged: info.num_ack_pending,
        redelivered: info.num_redelivered,
        waiting: info.num_pending,
    })
}

/// Sequence of the newest message of `stream`; 0 when it holds none. Asked over the same connection as
/// [`shared_progress`], so that of two answers the later one is not from another side of a broken cluster.
///
/// # Errors
/// When the broker refuses or does not answer.
///
/// # Cancel safety
/// Can be dropped.
pub async fn end_of(broker: &Broker, stream: &str) -> Result<u64, ReadError> {
    let state = stream_state(broker.publishing(), stream).await?;
    Ok(if state.messages == 0 { 0 } else { state.last_sequence })
}

/// How far a work queue is done: a stream from which acknowledged messages, and no others, are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkProgress {
    /// Every message up to this sequence is acknowledged. An answer that is old is too low.
    pub done_up_to: u64,
    /// How many messages are not acknowledged.
    pub left: u64,
}

/// Asks how far a work queue is done, whichever consumers it has or had.
///
/// # Errors
/// When the broker refuses or does not answer.
///
/// # Cancel safety
/// Can be dropped.
pub async fn work_progress(broker: &Broker, stream: &str) -> Result<WorkProgress, ReadError> {
    let state = stream_state(broker.publishing(), stream).await?;
    let done_up_to = match state.messages {
        0 => state.last_sequence,
        _ => state.first_sequence.saturating_sub(1),
    };
    Ok(WorkProgress { done_up_to, left: state.messages })
}
