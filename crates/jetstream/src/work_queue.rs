//! A queue of tasks that any worker may serve: exactly as many are asked for as there is room for.
//!
//! Unlike a [`crate::SharedConsumer`] it never holds a task that waits: what one worker has no room
//! for, another one gets. There is no limit to deliveries: a message past one would be stuck for ever
//! (and be lost on replicas, nats-server#7817); whoever takes tasks looks at `delivered_count`.

use std::{sync::Arc, time::Duration};

use async_nats::{HeaderMap, HeaderName, HeaderValue, Message, StatusCode, Subject, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use serde::Deserialize;
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    api::{ApiError, ask},
    connection::{Broker, Connection},
    outcome::PublishOutcome,
    publisher::Publisher,
    pull::{
        ConsumerSpec, HEARTBEAT, PullRequest, REQUEST_EXPIRES, SILENCE_MAX, create_consumer,
        ends_consumer, nanoseconds, unfilled,
    },
    shared_consumer::{AckSession, Delivery, SharedConsumerError, delivery},
    topology::TASKS_STREAM,
};

/// Header by which the broker recognises a copy, within its window.
const MESSAGE_ID_HEADER: &str = "Nats-Msg-Id";

/// Header that says how long a message is kept at the most.
const TTL_HEADER: &str = "Nats-TTL";

/// How long the broker waits for an acknowledgement, or to hear that a task is under way, before it
/// gives the task to another worker.
pub const TASK_WAIT_DEFAULT: Duration = Duration::from_secs(30);

/// How many tasks all workers of a queue together may hold.
const UNACKNOWLEDGED_MAX: usize = 20_000;

/// Pause after a consumer could not be made.
const REBUILD_PAUSE: Duration = Duration::from_millis(200);

/// Name of the consumer that all workers of `queue` share.
fn consumer_of(queue: &str) -> String {
    format!("tasks-{queue}")
}

/// The id of a task's message, as its publisher gave it.
#[must_use]
pub fn message_id(delivery: &Delivery) -> Option<&str> {
    Some(delivery.headers.as_ref()?.get(MESSAGE_ID_HEADER)?.as_str())
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
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_static(MESSAGE_ID_HEADER), id);
        let seconds = ttl.as_secs().max(1);
        headers.insert(
            HeaderName::from_static(TTL_HEADER),
            HeaderValue::from(format!("{seconds}s").as_str()),
        );
        self.publish(subject, Some(headers), payload).await.await
    }
}

/// One worker's share of a queue.
#[derive(Debug)]
pub struct WorkQueue {
    connection: Connection,
    queue: String,
    wait: Duration,
    session: Arc<AckSession>,
    pull: Option<Requests>,
}

/// What was asked for over one subscription.
#[derive(Debug)]
struct Requests {
    interruptions: u64,
    subscriber: Subscriber,
    inbox: Subject,
    target: Subject,
    /// Tasks that the broker may still send.
    outstanding: usize,
    heard: Instant,
}

impl WorkQueue {
    /// Makes the durable consumer of `queue`, or joins it; the broker waits for `wait` before it gives a
    /// task of which it hears nothing to another worker.
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    ///
    /// # Cancel safety
    /// The durable consumer may be there already.
    pub async fn open(
        broker: &Broker,
        queue: &str,
        wait: Duration,
    ) -> Result<Self, SharedConsumerError> {
        let connection = broker.consuming().clone();
        let session = AckSession::new(&connection);
        let mut work = Self { connection, queue: queue.to_owned(), wait, session, pull: None };
        work.rebuild().await?;
        Ok(work)
    }

    /// What is there now, at most `room`; waits for the first. `room` must not be less than what was
    /// asked for before and has not come.
    ///
    /// A lost connection and a broker that forgot our request are repaired in here.
    ///
    /// # Errors
    /// When the broker refuses the consumer.
    ///
    /// # Cancel safety
    /// Nothing is lost when dropped.
    pub async fn take(&mut self, room: usize) -> Result<Vec<Delivery>, SharedConsumerError> {
        loop {
            let interruptions = self.connection.link.borrow().interruptions;
            let Some(pull) = self.pull.as_mut().filter(|pull| pull.interruptions == interruptions)
            else {
                self.rebuild_patiently().await?;
                continue;
            };
            let missing = room.saturating_sub(pull.outstanding);
            if missing > 0 && !pull.ask(&self.connection, missing).await {
                self.pull = None;
                continue;
            }
            let mut link = self.connection.link.clone();
            link.mark_unchanged();
            let first = tokio::select! {
                biased;
                message = pull.subscriber.next() => message,
                _ = link.changed() => continue,
                () = sleep_until(pull.heard + SILENCE_MAX) => None,
            };
            let Some(first) = first else {
                self.pull = None;
                continue;
            };
            let mut taken = Vec::new();
            let mut next = Some(first);
            let mut usable = true;
            while let Some(message) = next {
                usable &= pull.note(&message);
                if is_task(&message) {
                    taken.extend(delivery(message, &self.session));
                }
                next = (taken.len() < room)
                    .then(|| pull.subscriber.next().now_or_never().flatten())
                    .flatten();
            }
            if !usable {
                self.pull = None;
            }
            if !taken.is_empty() {
                return Ok(taken);
            }
        }
    }

    /// Ends this worker's share: what has arrived and was not taken goes to another worker at once.
    ///
    /// # Cancel safety
    /// When dropped, what was not given back comes again after the broker's own wait.
    pub async fn give_back(mut self) {
        let Some(mut pull) = self.pull.take() else { return };
        while let Some(Some(message)) = pull.subscriber.next().now_or_never() {
            if is_task(&message)
                && let Some(delivery) = delivery(message, &self.session)
            {
                delivery.acker.nak(Duration::ZERO).await;
            }
        }
    }

    async fn rebuild_patiently(&mut self) -> Result<(), SharedConsumerError> {
        loop {
            let _ = self.connection.link.clone().wait_for(|link| link.connected).await;
            match self.rebuild().await {
                Err(SharedConsumerError::Create { source, .. }) if source.is_transient() => {
                    sleep(REBUILD_PAUSE).await;
                }
                other => return other,
            }
        }
    }

    async fn rebuild(&mut self) -> Result<(), SharedConsumerError> {
        let name = consumer_of(&self.queue);
        let spec = ConsumerSpec {
            name: name.clone(),
            durable_name: Some(name.clone()),
            deliver_policy: "all",
            opt_start_seq: None,
            ack_policy: "explicit",
            ack_wait: Some(nanoseconds(self.wait)),
            max_deliver: -1,
            max_ack_pending: Some(UNACKNOWLEDGED_MAX),
            replay_policy: "instant",
            inactive_threshold: None,
            mem_storage: false,
            num_replicas: None,
            filter_subject: Some(format!("fermata.tasks.{}", self.queue)),
        };
        let stream = || TASKS_STREAM.to_owned();
        let interruptions = self.connection.link.borrow().interruptions;
        create_consumer(&self.connection.client, TASKS_STREAM, &spec).await.map_err(|source| {
            SharedConsumerError::Create { stream: stream(), name: name.clone(), source }
        })?;
        self.session = AckSession::new(&self.connection);
        let inbox = Subject::from(self.connection.client.new_inbox());
        let subscriber = self
            .connection
            .client
            .subscribe(inbox.clone())
            .await
            .map_err(|source| SharedConsumerError::Subscribe { stream: stream(), source })?;
        self.pull = Some(Requests {
            interruptions,
            subscriber,
            inbox,
            target: format!("$JS.API.CONSUMER.MSG.NEXT.{TASKS_STREAM}.{name}").into(),
            outstanding: 0,
            heard: Instant::now(),
        });
        Ok(())
    }
}

impl Requests {
    async fn ask(&mut self, connection: &Connection, batch: usize) -> bool {
        let request = PullRequest {
            batch,
            max_bytes: None,
            expires: nanoseconds(REQUEST_EXPIRES),
            idle_heartbeat: nanoseconds(HEARTBEAT),
        };
        let request = serde_json::to_vec(&request).unwrap_or_default().into();
        let (target, inbox) = (self.target.clone(), self.inbox.clone());
        if connection.client.publish_with_reply(target, inbox, request).await.is_err() {
            return false;
        }
        if self.outstanding == 0 {
            // While nothing was asked for the broker had nothing to say.
            self.heard = Instant::now();
        }
        self.outstanding += batch;
        true
    }

    /// Notes what a message says about what was asked for; false when nothing more will come.
    fn note(&mut self, message: &Message) -> bool {
        self.heard = Instant::now();
        if is_task(message) {
            self.outstanding = self.outstanding.saturating_sub(1);
        } else if message.status == Some(StatusCode::IDLE_HEARTBEAT) {
            // The request stands.
        } else if ends_consumer(message) {
            return false;
        } else {
            let unfilled = unfilled(message, self.outstanding);
            self.outstanding = self.outstanding.saturating_sub(unfilled);
        }
        true
    }
}

fn is_task(message: &Message) -> bool {
    matches!(message.status, None | Some(StatusCode::OK))
}

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
    let client = &broker.publishing().client;
    let filter = serde_json::json!({ "subjects_filter": crate::topology::TASKS_SUBJECTS });
    let info: StreamInfo = ask(client, &format!("STREAM.INFO.{TASKS_STREAM}"), &filter).await?;
    let mut standings = Vec::new();
    for (subject, messages) in info.state.subjects.unwrap_or_default() {
        let Some(queue) = subject.strip_prefix("fermata.tasks.") else { continue };
        let operation = format!("CONSUMER.INFO.{TASKS_STREAM}.{}", consumer_of(queue));
        let standing = match ask::<ConsumerInfo>(client, &operation, &()).await {
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

/// The broker's error code for a consumer that is not there.
const CONSUMER_NOT_FOUND: u64 = 10014;
