//! Tasks on their way into a queue, back into it, and out of it again.

use std::time::Duration;

use async_nats::{HeaderMap, HeaderName, HeaderValue, Subject};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::subject_of;
use crate::{
    api::{ApiError, ask},
    connection::Broker,
    held_message::{Wanted, held_message},
    outcome::PublishOutcome,
    publisher::Publisher,
    shared_consumer::Delivery,
    topology::TASKS_STREAM,
};

/// Header by which the broker recognises a copy, within its window.
const MESSAGE_ID_HEADER: &str = "Nats-Msg-Id";

/// Header that says how long a message is kept at the most.
const TTL_HEADER: &str = "Nats-TTL";

/// Header that says how often a task was given to a worker before it was handed back last.
const DELIVERIES_HEADER: &str = "Fermata-Deliveries";

fn header<'a>(delivery: &'a Delivery, name: &str) -> Option<&'a str> {
    Some(delivery.headers.as_ref()?.get(name)?.as_str())
}

/// The id of a task's message, as its publisher gave it.
#[must_use]
pub fn message_id(delivery: &Delivery) -> Option<&str> {
    header(delivery, MESSAGE_ID_HEADER)
}

/// How often the task was given to a worker that was lost with it, before it was handed back last.
#[must_use]
pub fn deliveries_before(delivery: &Delivery) -> u64 {
    header(delivery, DELIVERIES_HEADER).and_then(|count| count.parse().ok()).unwrap_or(0)
}

impl Publisher {
    /// Publishes a task that is kept for `ttl` at the most, whole seconds, and waits for the answer. The
    /// broker stores a copy with the same `id` once, if it comes within two minutes.
    ///
    /// # Cancel safety
    /// When dropped, the outcome is unknown.
    pub async fn publish_task(
        &self,
        subject: impl Into<Subject>,
        id: &str,
        ttl: Duration,
        payload: Bytes,
    ) -> PublishOutcome {
        self.publish(subject, Some(headers(id, ttl)), payload).await.await
    }
}

fn headers(id: &str, ttl: Duration) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static(MESSAGE_ID_HEADER), id);
    let seconds = ttl.as_secs().max(1);
    headers.insert(
        HeaderName::from_static(TTL_HEADER),
        HeaderValue::from(format!("{seconds}s").as_str()),
    );
    headers
}

/// A task that a worker gives away unbegun, as it is stored anew.
#[derive(Debug, Clone)]
pub struct HandBack {
    subject: Subject,
    id: String,
    ttl: Duration,
    deliveries: u64,
    is_first_delivery: bool,
    payload: Bytes,
}

impl HandBack {
    /// The task of `delivery` under `id`, at `now_ms`, milliseconds since 1970; nothing when it was not
    /// published as a task is, or its time is over.
    #[must_use]
    pub fn of(delivery: &Delivery, id: String, now_ms: u64) -> Option<Self> {
        let seconds = header(delivery, TTL_HEADER)?.trim_end_matches('s').parse::<u64>().ok()?;
        let stored_ms = u64::try_from(delivery.broker_time_ns / 1_000_000).ok()?;
        let left_ms =
            seconds.saturating_mul(1_000).checked_sub(now_ms.saturating_sub(stored_ms))?;
        let lost = delivery.delivered_count.saturating_sub(1);
        Some(Self {
            subject: delivery.subject.clone(),
            id,
            ttl: Duration::from_millis(left_ms),
            deliveries: deliveries_before(delivery).saturating_add(lost),
            is_first_delivery: delivery.delivered_count == 1,
            payload: delivery.payload.clone(),
        })
    }

    /// The id of its message.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether no other worker was given the message that is handed back.
    #[must_use]
    pub fn is_first_delivery(&self) -> bool {
        self.is_first_delivery
    }

    /// Stores it behind the others of its queue; it is not let go of where it was.
    ///
    /// # Cancel safety
    /// When dropped, the outcome is unknown.
    pub async fn publish(&self, publisher: &Publisher) -> PublishOutcome {
        let mut headers = headers(&self.id, self.ttl);
        if self.deliveries > 0 {
            let deliveries = self.deliveries.to_string();
            headers.insert(
                HeaderName::from_static(DELIVERIES_HEADER),
                HeaderValue::from(deliveries.as_str()),
            );
        }
        publisher.publish(self.subject.clone(), Some(headers), self.payload.clone()).await.await
    }
}

/// Ids and sequences of the tasks that `queue` holds, those that workers have included; one without an id
/// is none of ours. Each is asked for by itself: a work queue has no second consumer.
///
/// # Errors
/// When the broker refuses or does not answer.
///
/// # Cancel safety
/// Can be dropped.
pub async fn stored_tasks(broker: &Broker, queue: &str) -> Result<Vec<(String, u64)>, ApiError> {
    let subject = subject_of(queue);
    let (mut stored, mut next) = (Vec::new(), 1);
    loop {
        let wanted = Wanted::From { seq: next, next_by_subj: &subject };
        let Some(held) = held_message(broker.publishing(), TASKS_STREAM, wanted).await? else {
            return Ok(stored);
        };
        next = held.sequence + 1;
        let id = held.headers.get(MESSAGE_ID_HEADER).map(|id| id.as_str().to_owned());
        stored.extend(id.map(|id| (id, held.sequence)));
    }
}

#[derive(Serialize)]
struct DeleteRequest {
    seq: u64,
    /// Its bytes need not be written over.
    no_erase: bool,
}

#[derive(Deserialize)]
struct DeleteAnswer {}

/// Takes the task with this sequence back out of its queue, whether or not a worker has it.
///
/// # Errors
/// When it is not there any more, or the broker refuses or does not answer.
///
/// # Cancel safety
/// It may be gone.
pub async fn remove_task(broker: &Broker, sequence: u64) -> Result<(), ApiError> {
    let operation = format!("STREAM.MSG.DELETE.{TASKS_STREAM}");
    let request = DeleteRequest { seq: sequence, no_erase: true };
    let DeleteAnswer {} = ask(broker.publishing(), &operation, &request).await?;
    Ok(())
}
