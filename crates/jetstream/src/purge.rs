//! Purging what nobody needs any more.

use serde::{Deserialize, Serialize};

use crate::{
    api::{ApiError, ask},
    connection::Broker,
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
        ask(&broker.publishing().client, &operation, &PurgeRequest { seq: first }).await?;
    Ok(answer.purged)
}
