//! A queue of tasks that any worker may serve: exactly as many are asked for as there is room for.
//!
//! Unlike a [`crate::SharedConsumer`] it never holds a task that waits: what one worker has no room
//! for, another one gets. There is no limit to deliveries: a message past one would be stuck for ever
//! (and be lost on replicas, nats-server#7817); whoever takes tasks looks at `delivered_count`.

use std::{sync::Arc, time::Duration};

use async_nats::{Message, StatusCode, Subject, Subscriber};
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::{
    connection::{Broker, Connection, Losses},
    consumer_drift::make_consumer,
    delivery::DeliveryPosition,
    pull::{
        ConsumerSpec, HEARTBEAT, PullRequest, REQUEST_EXPIRES, SILENCE_MAX, ends_consumer,
        nanoseconds, unfilled,
    },
    shared_consumer::{AckSession, Delivery, SharedConsumerError, delivery, delivery_by_name},
    topology::TASKS_STREAM,
    unreadable,
};

mod publishing;
mod standing;

pub use publishing::{HandBack, deliveries_before, message_id, remove_task, stored_tasks};
pub use standing::{QueueStanding, queue_drifts, queue_standings};

/// How long the broker waits for an acknowledgement, or to hear that a task is under way, before it
/// gives the task to another worker.
pub const TASK_WAIT_DEFAULT: Duration = Duration::from_secs(30);

/// How many tasks all workers of a queue together may hold.
const UNACKNOWLEDGED_MAX: usize = 20_000;

/// How many requests for tasks may stand at one consumer: every worker of a queue has some
/// ([`MERGED`]), and the broker's default of 512 refuses those of large fleets.
const REQUESTS_MAX: usize = 4_096;

/// What is missing is asked for when it is this part of what there is room for, or nothing stands: one
/// request for each task that ends would be as many requests as there are permits.
const MERGED: usize = 4;

/// How long the broker may take to let go of requests when a worker ends.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// Pause after a consumer could not be made, or the broker ended what was asked for.
const REBUILD_PAUSE: Duration = Duration::from_millis(200);

/// How the name of a consumer begins that the workers of a queue share.
const CONSUMER_PREFIX: &str = "tasks-";

/// Name of the consumer that all workers of `queue` share.
fn consumer_of(queue: &str) -> String {
    format!("{CONSUMER_PREFIX}{queue}")
}

fn subject_of(queue: &str) -> String {
    format!("fermata.tasks.{queue}")
}

/// The consumer of `queue`.
fn spec_of(queue: &str, wait: Duration) -> ConsumerSpec {
    let name = consumer_of(queue);
    ConsumerSpec {
        name: name.clone(),
        durable_name: Some(name),
        deliver_policy: "all",
        opt_start_seq: None,
        ack_policy: "explicit",
        ack_wait: Some(nanoseconds(wait)),
        max_deliver: -1,
        max_ack_pending: Some(UNACKNOWLEDGED_MAX),
        replay_policy: "instant",
        inactive_threshold: None,
        mem_storage: false,
        num_replicas: None,
        filter_subject: Some(subject_of(queue)),
        max_waiting: Some(REQUESTS_MAX),
    }
}

/// One worker's share of a queue.
#[derive(Debug)]
pub struct WorkQueue {
    broker: Broker,
    connection: Connection,
    queue: String,
    wait: Duration,
    session: Arc<AckSession>,
    pull: Option<Requests>,
    /// Whether the broker ended what was asked for, so that it is not asked again at once.
    rests: bool,
    /// When the present requests were made.
    losses: Losses,
    /// Tasks that were read by name, for they cannot be delivered.
    found: Vec<Delivery>,
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
        let mut work = Self {
            broker: broker.clone(),
            connection,
            queue: queue.to_owned(),
            wait,
            session,
            pull: None,
            rests: false,
            losses: broker.losses(),
            found: Vec::new(),
        };
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
            if self.rests {
                sleep(REBUILD_PAUSE).await;
                self.rests = false;
            }
            if !self.found.is_empty() {
                let most = room.clamp(1, self.found.len());
                return Ok(self.found.drain(..most).collect());
            }
            let interruptions = self.connection.link.borrow().interruptions;
            let Some(pull) = self.pull.as_mut().filter(|pull| pull.interruptions == interruptions)
            else {
                self.rebuild_patiently().await?;
                continue;
            };
            let missing = room.saturating_sub(pull.outstanding);
            let asks = pull.outstanding == 0 || missing >= room.div_ceil(MERGED);
            if missing > 0 && asks && !pull.ask(&self.connection, missing).await {
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
                (self.pull, self.rests) = (None, true);
            }
            if !taken.is_empty() {
                return Ok(taken);
            }
        }
    }

    /// Ends this worker's share: nothing more is asked for, and what has come and was not taken is the
    /// caller's to hand back. What was on its way when the broker heard of it comes again in its time.
    ///
    /// # Cancel safety
    /// When dropped, all of it comes again after the broker's own wait.
    pub async fn end(mut self) -> Vec<Delivery> {
        let mut left = std::mem::take(&mut self.found);
        let Some(Requests { mut subscriber, .. }) = self.pull.take() else { return left };
        // An error means that the connection is closed for good; without one, the requests are gone too.
        if subscriber.drain().await.is_err() {
            return left;
        }
        let rest = async {
            while let Some(message) = subscriber.next().await {
                if is_task(&message) {
                    left.extend(delivery(message, &self.session));
                }
            }
        };
        let _ = timeout(DRAIN_LIMIT, rest).await;
        left
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
        let losses = self.broker.losses();
        let (name, subject) = (consumer_of(&self.queue), subject_of(&self.queue));
        let spec = spec_of(&self.queue, self.wait);
        let stream = || TASKS_STREAM.to_owned();
        let interruptions = self.connection.link.borrow().interruptions;
        make_consumer(&self.connection, TASKS_STREAM, &spec).await?;
        self.session = AckSession::new(&self.connection);
        let inbox = Subject::from(self.connection.client.new_inbox());
        let subscriber = self
            .connection
            .client
            .subscribe(inbox.clone())
            .await
            .map_err(|source| SharedConsumerError::Subscribe { stream: stream(), source })?;
        if losses.only_consuming_since(self.losses) {
            self.find_unreadable(&name, &subject).await;
        }
        self.losses = losses;
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

impl WorkQueue {
    /// Finds what the connection may have been lost over, by name.
    async fn find_unreadable(&mut self, consumer: &str, subject: &str) {
        match unreadable::among_tasks(self.broker.publishing(), TASKS_STREAM, consumer, subject)
            .await
        {
            Ok(found) => {
                let by_name = |held| delivery_by_name(held, TASKS_STREAM, consumer, &self.session);
                self.found = found.into_iter().map(by_name).collect();
            }
            // If one is the reason, it comes again, and so does this.
            Err(error) => tracing::debug!(subject, %error, "tasks cannot be looked at"),
        }
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

/// Whether the queue holds it, and not the broker speaks for itself: whoever publishes may write a status too.
fn is_task(message: &Message) -> bool {
    DeliveryPosition::of(message).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(reply: Option<&str>, status: Option<StatusCode>) -> Message {
        Message {
            subject: Subject::from_static("fermata.tasks.gpu.1"),
            reply: reply.map(Subject::from),
            payload: bytes::Bytes::new(),
            headers: None,
            status,
            description: None,
            length: 0,
        }
    }

    #[test]
    fn a_status_that_a_publisher_wrote_into_a_task_makes_it_no_word_of_the_broker() {
        let delivered = "$JS.ACK.TASKS.tasks-gpu.1.15.33.1700000000123456789.9";
        let inbox = "_INBOX.tasks.7";

        for status in [
            StatusCode::NOT_FOUND,
            StatusCode::TIMEOUT,
            StatusCode::IDLE_HEARTBEAT,
            StatusCode::NO_RESPONDERS,
        ] {
            assert!(is_task(&message(Some(delivered), Some(status))), "{status}");
            assert!(!is_task(&message(None, Some(status))), "{status}");
            assert!(!is_task(&message(Some(inbox), Some(status))), "{status}");
        }
        assert!(is_task(&message(Some(delivered), None)));
    }
}
