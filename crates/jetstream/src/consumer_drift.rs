//! Consumers that were made otherwise, by another version of the program.
//!
//! Some settings of a consumer cannot be changed. The broker then refuses the whole of what is asked for, in
//! words that name neither the setting it has nor how to get on.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    api::{ApiError, ask_to_read},
    connection::Connection,
    pull::{ConsumerSpec, create_consumer},
    shared_consumer::SharedConsumerError,
};

/// What the broker refuses to change.
const FIXED: [&str; 5] =
    ["deliver_policy", "opt_start_seq", "ack_policy", "replay_policy", "max_waiting"];

/// A setting of a consumer that is not as it must be, and cannot be changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConsumerDrift {
    /// The stream.
    pub stream: String,
    /// The consumer.
    pub consumer: String,
    /// The setting, as the broker names it.
    pub setting: String,
    /// What it must be.
    pub expected: Value,
    /// What it is.
    pub found: Value,
}

impl fmt::Display for ConsumerDrift {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, expected, found, .. } = self;
        write!(formatter, "`{setting}` is {found}, not {expected}")
    }
}

/// Several of one consumer, for people.
pub(crate) fn told(drifts: &[ConsumerDrift]) -> String {
    drifts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[derive(Deserialize)]
struct ConsumerInfo {
    config: Value,
}

/// Makes a durable consumer or takes the one that is there; one that cannot be what it must be is told with
/// what is different. Tells how many messages wait for it.
pub(crate) async fn make_consumer(
    connection: &Connection,
    stream: &str,
    spec: &ConsumerSpec,
) -> Result<u64, SharedConsumerError> {
    let refused = match create_consumer(connection, stream, spec).await {
        Ok(waiting) => return Ok(waiting),
        Err(refused) => refused,
    };
    // If it cannot be looked at, what the broker said has to do.
    let drifts = match refused.code() {
        Some(_) => drifts(connection, stream, spec).await.unwrap_or_default(),
        None => Vec::new(),
    };
    let (stream, name) = (stream.to_owned(), spec.name.clone());
    Err(match drifts.is_empty() {
        true => SharedConsumerError::Create { stream, name, source: refused },
        false => SharedConsumerError::Drift { stream, name, drifts },
    })
}

/// What the consumer that is there has otherwise than `spec`, and keeps.
pub(crate) async fn drifts(
    connection: &Connection,
    stream: &str,
    spec: &ConsumerSpec,
) -> Result<Vec<ConsumerDrift>, ApiError> {
    let operation = format!("CONSUMER.INFO.{stream}.{}", spec.name);
    let info: ConsumerInfo = ask_to_read(connection, &operation, &()).await?;
    Ok(compare(stream, spec, &info.config))
}

fn compare(stream: &str, spec: &ConsumerSpec, config: &Value) -> Vec<ConsumerDrift> {
    let wanted = serde_json::to_value(spec).unwrap_or_default();
    let drift = |setting: &str| {
        // What is not asked for may be anything.
        let expected = wanted.get(setting)?.clone();
        let found = config.get(setting).cloned().unwrap_or_default();
        (found != expected).then(|| ConsumerDrift {
            stream: stream.to_owned(),
            consumer: spec.name.clone(),
            setting: setting.to_owned(),
            expected,
            found,
        })
    };
    FIXED.into_iter().filter_map(drift).collect()
}
