//! Pulling messages from a consumer, with as little as possible between the socket and the caller.
//!
//! At most two requests' worth of messages are asked for at any time, so no more than that waits in
//! memory, and the broker always has a request to fill while one is being worked off.

use std::{future::poll_fn, task::Poll, time::Duration};

use async_nats::{Client, Message, StatusCode, Subject, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, task::unconstrained, time::Instant};

use crate::{
    api::{ApiError, ask},
    connection::{Connection, Link},
    delivery::DeliveryPosition,
};

/// How long a request stands at the broker when nothing comes.
pub(crate) const REQUEST_EXPIRES: Duration = Duration::from_secs(30);

/// How often the broker says that it is still there while a request stands.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(5);

/// How long nothing at all may come before the request counts as forgotten: two heartbeats and some.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(12);

/// How much one request asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PullSize {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

/// What a consumer is made from; fields as in the broker's API, durations in nanoseconds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ConsumerSpec {
    pub(crate) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) durable_name: Option<String>,
    pub(crate) deliver_policy: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) opt_start_seq: Option<u64>,
    pub(crate) ack_policy: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ack_wait: Option<u64>,
    pub(crate) max_deliver: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_ack_pending: Option<usize>,
    pub(crate) replay_policy: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) inactive_threshold: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) mem_storage: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) num_replicas: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) filter_subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_waiting: Option<usize>,
}

impl ConsumerSpec {
    /// A consumer without acknowledgements that starts at a sequence and goes away when nobody pulls.
    pub(crate) fn from_sequence(name: String, start: u64, inactive_threshold: Duration) -> Self {
        Self {
            name,
            durable_name: None,
            deliver_policy: "by_start_sequence",
            opt_start_seq: Some(start.max(1)),
            ack_policy: "none",
            ack_wait: None,
            max_deliver: -1,
            max_ack_pending: None,
            replay_policy: "instant",
            inactive_threshold: Some(nanoseconds(inactive_threshold)),
            mem_storage: true,
            // One replica and memory: a lost consumer is made again at the next sequence.
            num_replicas: Some(1),
            filter_subject: None,
            max_waiting: None,
        }
    }
}

pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[derive(Serialize)]
struct CreateConsumer<'a> {
    stream_name: &'a str,
    config: &'a ConsumerSpec,
}

#[derive(Deserialize)]
struct ConsumerInfo {
    #[serde(default)]
    num_pending: u64,
}

/// Makes a consumer, or takes the one that is there under this name; tells how many messages wait for it.
pub(crate) async fn create_consumer(
    connection: &Connection,
    stream: &str,
    spec: &ConsumerSpec,
) -> Result<u64, ApiError> {
    let operation = format!("CONSUMER.CREATE.{stream}.{}", spec.name);
    let info: ConsumerInfo =
        ask(connection, &operation, &CreateConsumer { stream_name: stream, config: spec }).await?;
    Ok(info.num_pending)
}

/// Removes a consumer whose place another has taken. The broker would do it after the inactive threshold.
pub(crate) async fn forget_consumer(connection: &Connection, stream: &str, name: &str) {
    // Sent without waiting for the answer: nothing depends on it.
    let _ = connection
        .client
        .publish(format!("$JS.API.CONSUMER.DELETE.{stream}.{name}"), Bytes::new())
        .await;
}

#[derive(Serialize)]
pub(crate) struct PullRequest {
    pub(crate) batch: usize,
    /// No bound but the number of messages when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_bytes: Option<usize>,
    pub(crate) expires: u64,
    pub(crate) idle_heartbeat: u64,
}

/// What a wait for messages brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pulled {
    /// At least one message is in the caller's list.
    Messages,
    /// Nothing came within the caller's patience.
    Idle,
    /// This pull is of no use any more: the consumer must be looked at or made again.
    Ended(PullEnd),
}

/// Why a pull is of no use any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PullEnd {
    /// The connection was lost since it was opened.
    ConnectionLost,
    /// Neither message nor heartbeat came for [`SILENCE_MAX`].
    Silence,
    /// The broker says that the consumer is gone or moves.
    ConsumerGone,
    /// The subscription is closed.
    Closed,
}

/// One subscription that pulls from one consumer.
#[derive(Debug)]
pub(crate) struct Pull {
    client: Client,
    link: watch::Receiver<Link>,
    interruptions: u64,
    subscriber: Subscriber,
    inbox: Subject,
    target: Subject,
    request: Bytes,
    batch: usize,
    /// Messages that the broker still owes us.
    outstanding: usize,
    heard: Instant,
    end: Option<PullEnd>,
}

impl Pull {
    pub(crate) async fn open(
        connection: &Connection,
        stream: &str,
        consumer: &str,
        size: PullSize,
    ) -> Result<Self, async_nats::SubscribeError> {
        let interruptions = connection.link.borrow().interruptions;
        let inbox = Subject::from(connection.client.new_inbox());
        let subscriber = connection.client.subscribe(inbox.clone()).await?;
        let request = PullRequest {
            batch: size.messages,
            max_bytes: Some(size.bytes),
            expires: nanoseconds(REQUEST_EXPIRES),
            idle_heartbeat: nanoseconds(HEARTBEAT),
        };
        Ok(Self {
            client: connection.client.clone(),
            link: connection.link.clone(),
            interruptions,
            subscriber,
            inbox,
            target: Subject::from(format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}")),
            request: serde_json::to_vec(&request).unwrap_or_default().into(),
            batch: size.messages.max(1),
            outstanding: 0,
            heard: Instant::now(),
            end: None,
        })
    }

    /// Appends up to `max` messages that are there to `into`, waiting up to `patience` for the first.
    ///
    /// Cancel-safe: messages are taken only in the last step, which does not wait.
    pub(crate) async fn next(
        &mut self,
        max: usize,
        patience: Duration,
        into: &mut Vec<Message>,
    ) -> Pulled {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(end) = self.end {
                return Pulled::Ended(end);
            }
            if self.link.borrow().interruptions != self.interruptions {
                return self.ended(PullEnd::ConnectionLost);
            }
            if !self.ask_for_more().await {
                return self.ended(PullEnd::Closed);
            }
            let wake = deadline.min(self.heard + SILENCE_MAX);
            let mut link = self.link.clone();
            link.mark_unchanged();
            let before = into.len();
            tokio::select! {
                biased;
                taken = self.take_ready(max, into) => {
                    self.heard = Instant::now();
                    if !taken {
                        self.end = Some(PullEnd::Closed);
                    }
                    if into.len() > before {
                        return Pulled::Messages;
                    }
                }
                changed = link.changed() => {
                    if changed.is_err() {
                        return self.ended(PullEnd::Closed);
                    }
                }
                () = tokio::time::sleep_until(wake) => {
                    if Instant::now() >= self.heard + SILENCE_MAX {
                        return self.ended(PullEnd::Silence);
                    }
                    return Pulled::Idle;
                }
            }
        }
    }

    fn ended(&mut self, end: PullEnd) -> Pulled {
        self.end = Some(end);
        Pulled::Ended(end)
    }

    async fn ask_for_more(&mut self) -> bool {
        while self.outstanding <= self.batch {
            let asked = self
                .client
                .publish_with_reply(self.target.clone(), self.inbox.clone(), self.request.clone())
                .await;
            if asked.is_err() {
                return false;
            }
            self.outstanding += self.batch;
        }
        true
    }

    /// Waits for something and takes what is there with it; false when the subscription has ended.
    async fn take_ready(&mut self, max: usize, into: &mut Vec<Message>) -> bool {
        // Unconstrained: the scheduler's budget would cut every batch at 128; `max` bounds the work instead.
        unconstrained(poll_fn(|context| {
            let mut heard = false;
            let full = into.len().saturating_add(max);
            while into.len() < full {
                match self.subscriber.poll_next_unpin(context) {
                    Poll::Ready(Some(message)) => {
                        heard = true;
                        self.take(message, into);
                    }
                    Poll::Ready(None) => return Poll::Ready(false),
                    Poll::Pending if heard => break,
                    Poll::Pending => return Poll::Pending,
                }
            }
            Poll::Ready(true)
        }))
        .await
    }

    /// Appends what has arrived to `into` without asking for more, so no more than was asked for.
    pub(crate) fn take_arrived(&mut self, into: &mut Vec<Message>) {
        while let Some(Some(message)) = self.subscriber.next().now_or_never() {
            self.heard = Instant::now();
            self.take(message, into);
        }
    }

    fn take(&mut self, message: Message, into: &mut Vec<Message>) {
        match message.status {
            // Whoever publishes may write a status too: what is to be acknowledged is a message all the same.
            status
                if status.is_none_or(|status| status == StatusCode::OK)
                    || is_delivery(&message) =>
            {
                self.outstanding = self.outstanding.saturating_sub(1);
                into.push(message);
            }
            None => {}
            Some(StatusCode::IDLE_HEARTBEAT) => {}
            Some(_) if ends_consumer(&message) => self.end = Some(PullEnd::ConsumerGone),
            Some(_) => {
                self.outstanding = self.outstanding.saturating_sub(unfilled(&message, self.batch))
            }
        }
    }
}

/// Whether a stream holds it, and not the broker speaks for itself.
fn is_delivery(message: &Message) -> bool {
    DeliveryPosition::of(message).is_some()
}

/// Statuses after which the same request would never be answered.
pub(crate) fn ends_consumer(message: &Message) -> bool {
    let text = message.description.as_deref().unwrap_or_default();
    message.status == Some(StatusCode::NO_RESPONDERS)
        || [
            "Consumer Deleted",
            "Consumer is push based",
            "Leadership Change",
            "Server Shutdown",
            "Exceeded",
        ]
        .iter()
        .any(|end| text.starts_with(end))
}

/// How many messages a request that the broker closed leaves unfilled.
pub(crate) fn unfilled(message: &Message, batch: usize) -> usize {
    if message.description.as_deref() == Some("Batch Completed") {
        return 0;
    }
    message
        .headers
        .as_ref()
        .and_then(|headers| headers.get("Nats-Pending-Messages"))
        .and_then(|value| value.as_str().parse().ok())
        .unwrap_or(batch)
}
