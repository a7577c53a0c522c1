//! How the queues of tasks stand, for people.

use serde::Deserialize;

use super::{CONSUMER_PREFIX, TASK_WAIT_DEFAULT, consumer_of, spec_of};
use crate::{
    api::{ApiError, ask_to_read},
    connection::Broker,
    consumer_drift::{ConsumerDrift, drifts},
    stream_info::stream_info,
    topology::TASKS_STREAM,
};

/// How a queue stands.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct QueueStanding {
    /// Its name.
    pub queue: String,
    /// Tasks that no worker has.
    pub waiting: u64,
    /// Tasks that workers have.
    pub under_way: u64,
    /// Whether a worker serves it: one asks for tasks, or has one.
    pub is_served: bool,
}

#[derive(Deserialize)]
struct ConsumerInfo {
    #[serde(default)]
    num_ack_pending: u64,
    #[serde(default)]
    num_pending: u64,
    #[serde(default)]
    num_waiting: u64,
}

#[derive(Deserialize)]
struct StreamInfo {
    state: StreamState,
}

#[derive(Deserialize)]
struct StreamState {
    #[serde(default)]
    subjects: Option<std::collections::BTreeMap<String, u64>>,
}

/// How the queues stand that tasks wait in or are under way for; a queue without tasks is not among
/// them.
///
/// # Errors
/// When the broker refuses or does not answer.
///
/// # Cancel safety
/// Can be dropped.
pub async fn queue_standings(broker: &Broker) -> Result<Vec<QueueStanding>, ApiError> {
    let connection = broker.publishing();
    let filter = serde_json::json!({ "subjects_filter": crate::topology::TASKS_SUBJECTS });
    let info: StreamInfo = stream_info(connection, TASKS_STREAM, &filter).await?;
    let mut standings = Vec::new();
    for (subject, messages) in info.state.subjects.unwrap_or_default() {
        let Some(queue) = subject.strip_prefix("fermata.tasks.") else { continue };
        let operation = format!("CONSUMER.INFO.{TASKS_STREAM}.{}", consumer_of(queue));
        let standing = match ask_to_read::<ConsumerInfo>(connection, &operation, &()).await {
            Ok(info) => QueueStanding {
                queue: queue.to_owned(),
                waiting: info.num_pending,
                under_way: info.num_ack_pending,
                is_served: info.num_waiting > 0 || info.num_ack_pending > 0,
            },
            Err(error) if error.code() == Some(CONSUMER_NOT_FOUND) => QueueStanding {
                queue: queue.to_owned(),
                waiting: messages,
                under_way: 0,
                is_served: false,
            },
            Err(error) => return Err(error),
        };
        standings.push(standing);
    }
    Ok(standings)
}

#[derive(serde::Serialize)]
struct NamesRequest {
    offset: u64,
}

#[derive(Deserialize)]
struct NamesAnswer {
    #[serde(default)]
    total: u64,
    #[serde(default)]
    consumers: Option<Vec<String>>,
}

/// Settings of the queues' consumers that are not as they must be and cannot be changed: no worker can
/// serve such a queue before its consumer is deleted, and made again.
///
/// # Errors
/// When the broker refuses or does not answer.
///
/// # Cancel safety
/// Can be dropped.
pub async fn queue_drifts(broker: &Broker) -> Result<Vec<ConsumerDrift>, ApiError> {
    let connection = broker.publishing();
    let operation = format!("CONSUMER.NAMES.{TASKS_STREAM}");
    let mut names = Vec::new();
    loop {
        let request = NamesRequest { offset: names.len() as u64 };
        let answer: NamesAnswer = ask_to_read(connection, &operation, &request).await?;
        let before = names.len();
        names.extend(answer.consumers.unwrap_or_default());
        if names.len() as u64 >= answer.total || names.len() == before {
            break;
        }
    }
    let mut found = Vec::new();
    for queue in names.iter().filter_map(|name| name.strip_prefix(CONSUMER_PREFIX)) {
        // How long the broker waits can be changed, and is the workers' to say.
        match drifts(connection, TASKS_STREAM, &spec_of(queue, TASK_WAIT_DEFAULT)).await {
            Ok(drifts) => found.extend(drifts),
            Err(error) if error.code() == Some(CONSUMER_NOT_FOUND) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The broker's error code for a consumer that is not there.
const CONSUMER_NOT_FOUND: u64 = 10014;
