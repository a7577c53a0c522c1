//! A stream shared between workers: each message goes to one of them and is acknowledged on its own.
//!
//! Never all up to one: that acknowledges what a neighbour still holds. Nothing that was received
//! before the connection was lost is acknowledged after it, unless its holder says that it may be
//! ([`Acker::ack_durable`]); the broker delivers it again.

mod acknowledging;

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError},
    time::Duration,
};

use async_nats::{HeaderMap, Message, Subject};
use bytes::Bytes;
use thiserror::Error;
use tokio::time::{Instant, sleep};

use crate::{
    api::ApiError,
    connection::{Broker, Connection, Losses},
    consumer_drift::{ConsumerDrift, make_consumer, told},
    delivery::DeliveryPosition,
    held_message::HeldMessage,
    pull::{ConsumerSpec, Pull, PullSize, Pulled, nanoseconds},
    unreadable::{self, Found, LoneLosses, Reach},
};

pub(crate) use acknowledging::AckSession;
use acknowledging::Settled;
pub use acknowledging::{Acker, ack_all_of};

/// How many messages one request asks for; below 500 the broker waits for requests.
pub const PULL_MESSAGES_DEFAULT: usize = 500;

/// How many bytes one request asks for; twice this waits in memory at most.
pub const PULL_BYTES_DEFAULT: usize = 8 * 1024 * 1024;

/// How many messages all workers together may hold unacknowledged; the broker then delivers no more.
pub const UNACKNOWLEDGED_MAX_DEFAULT: usize = 20_000;

/// How long the broker waits for an acknowledgement before it delivers again.
pub const ACKNOWLEDGE_WITHIN_DEFAULT: Duration = Duration::from_secs(30);

/// How long a wait for messages lasts before the state of the pull is looked at again.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pause after a consumer could not be made.
const REBUILD_PAUSE: Duration = Duration::from_millis(200);

/// How a stream is shared.
#[derive(Debug, Clone)]
pub struct SharedConsumerOptions {
    /// The stream, such as `EVENTS`.
    pub stream: String,
    /// Name that all workers use.
    pub name: String,
    /// How long the broker waits for an acknowledgement.
    pub acknowledge_within: Duration,
    /// How many messages all workers together may hold.
    pub unacknowledged_max: usize,
    /// How many messages one request asks for.
    pub pull_messages: usize,
    /// How many bytes one request asks for.
    pub pull_bytes: usize,
    /// The subject that it is for; everything in the stream when absent. What a consumer with one
    /// has acknowledged says nothing of what it passes over.
    pub filter_subject: Option<String>,
    /// After how long without a request the broker forgets it; never when absent. Only where the
    /// stream itself knows what is acknowledged.
    pub inactive_threshold: Option<Duration>,
}

impl SharedConsumerOptions {
    /// The defaults for a stream and a name.
    pub fn new(stream: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            stream: stream.into(),
            name: name.into(),
            acknowledge_within: ACKNOWLEDGE_WITHIN_DEFAULT,
            unacknowledged_max: UNACKNOWLEDGED_MAX_DEFAULT,
            pull_messages: PULL_MESSAGES_DEFAULT,
            pull_bytes: PULL_BYTES_DEFAULT,
            filter_subject: None,
            inactive_threshold: None,
        }
    }
}

/// Why no messages can be had.
#[derive(Debug, Error)]
pub enum SharedConsumerError {
    /// The broker refused the consumer or did not answer.
    #[error("could not make consumer `{name}` of stream `{stream}`")]
    Create {
        /// The stream.
        stream: String,
        /// The consumer.
        name: String,
        /// Why not.
        #[source]
        source: ApiError,
    },
    /// It was made otherwise, and cannot be changed.
    #[error(
        "consumer `{name}` of stream `{stream}` was made by another version: {}, which cannot be changed; delete it, and it is made again", told(.drifts)
    )]
    Drift {
        /// The stream.
        stream: String,
        /// The consumer.
        name: String,
        /// What is different.
        drifts: Vec<ConsumerDrift>,
    },
    /// The connection is closed for good.
    #[error("could not subscribe to the deliveries of stream `{stream}`")]
    Subscribe {
        /// The stream.
        stream: String,
        /// Why not.
        #[source]
        source: async_nats::SubscribeError,
    },
}

/// A message that one worker holds until it is acknowledged.
#[derive(Debug)]
pub struct Delivery {
    /// Its sequence in the stream.
    pub stream_sequence: u64,
    /// When the broker stored it, in nanoseconds since 1970 on the broker's clock.
    pub broker_time_ns: i64,
    /// How often it was delivered, this time included.
    pub delivered_count: u64,
    /// Subject that it was published to.
    pub subject: Subject,
    /// Its headers, those that can be read.
    pub headers: Option<HeaderMap>,
    /// What is wrong with its headers or its subject, if they cannot be read.
    pub fault: Option<&'static str>,
    /// Its bytes.
    pub payload: Bytes,
    /// Says what became of it.
    pub acker: Acker,
}

/// One worker's share of a stream.
#[derive(Debug)]
pub struct SharedConsumer {
    broker: Broker,
    connection: Connection,
    /// When the present pull was opened.
    losses: Losses,
    lone_losses: LoneLosses,
    /// Unreadable messages that were acknowledged, as far as the broker's floor has not passed them.
    settled: Settled,
    options: SharedConsumerOptions,
    pull: Option<Pull>,
    session: Arc<AckSession>,
    scratch: Vec<Message>,
    /// What [`SharedConsumer::keep`] found, in order, two requests' worth at the most; and what was read
    /// by name.
    arrived: VecDeque<Delivery>,
}

impl SharedConsumer {
    /// Makes the durable consumer, or joins it.
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    ///
    /// # Cancel safety
    /// The durable consumer may be there already.
    pub async fn open(
        broker: &Broker,
        options: SharedConsumerOptions,
    ) -> Result<Self, SharedConsumerError> {
        let connection = broker.consuming().clone();
        let mut consumer = Self {
            session: AckSession::new(&connection),
            connection,
            broker: broker.clone(),
            losses: broker.losses(),
            lone_losses: LoneLosses::default(),
            settled: Settled::default(),
            options,
            pull: None,
            scratch: Vec::new(),
            arrived: VecDeque::new(),
        };
        consumer.rebuild().await?;
        Ok(consumer)
    }

    /// What is there now, at most `max`; waits for the first.
    ///
    /// A lost connection and a broker that forgot our request are repaired in here.
    ///
    /// # Errors
    /// When the broker refuses the consumer.
    ///
    /// # Cancel safety
    /// Nothing is lost when dropped.
    pub async fn next_batch(&mut self, max: usize) -> Result<Vec<Delivery>, SharedConsumerError> {
        let max = max.max(1);
        loop {
            self.arrived.retain(|delivery| delivery.acker.is_current());
            if !self.arrived.is_empty() {
                return Ok(self.arrived.drain(..max.min(self.arrived.len())).collect());
            }
            let Some(pull) = &mut self.pull else {
                self.rebuild_patiently().await?;
                continue;
            };
            self.scratch.clear();
            match pull.next(max, PATIENCE, &mut self.scratch).await {
                Pulled::Idle => {}
                Pulled::Ended(end) => {
                    tracing::debug!(
                        stream = self.options.stream,
                        ?end,
                        "the shared consumer is joined again"
                    );
                    self.pull = None;
                }
                Pulled::Messages => {
                    let session = &self.session;
                    let batch: Vec<Delivery> = self
                        .scratch
                        .drain(..)
                        .filter_map(|message| delivery(message, session))
                        .collect();
                    if !batch.is_empty() {
                        return Ok(batch);
                    }
                }
            }
        }
    }

    /// Tells the broker that what has arrived and was not taken yet is still wanted here, so that nobody
    /// gets it a second time. To be called every third of the wait for an acknowledgement by whoever has
    /// no room for more just now.
    ///
    /// # Cancel safety
    /// Nothing is lost when dropped.
    pub async fn keep(&mut self) {
        self.take_arrived();
        for delivery in &self.arrived {
            delivery.acker.in_progress().await;
        }
    }

    /// Ends this worker's share: what has arrived and was not taken goes to another worker at once.
    ///
    /// # Cancel safety
    /// When dropped, what was not given back comes again after the broker's own wait.
    pub async fn give_back(mut self) {
        self.take_arrived();
        for delivery in std::mem::take(&mut self.arrived) {
            delivery.acker.nak(Duration::ZERO).await;
        }
    }

    fn take_arrived(&mut self) {
        let Some(pull) = &mut self.pull else { return };
        self.scratch.clear();
        pull.take_arrived(&mut self.scratch);
        let session = &self.session;
        self.arrived
            .extend(self.scratch.drain(..).filter_map(|message| delivery(message, session)));
    }

    async fn rebuild_patiently(&mut self) -> Result<(), SharedConsumerError> {
        loop {
            let _ = self.connection.link.clone().wait_for(|link| link.connected).await;
            match self.rebuild().await {
                Err(SharedConsumerError::Create { source, .. }) if source.is_transient() => {
                    sleep(REBUILD_PAUSE).await
                }
                other => return other,
            }
        }
    }

    async fn rebuild(&mut self) -> Result<(), SharedConsumerError> {
        let losses = self.broker.losses();
        let SharedConsumerOptions { stream, name, .. } = &self.options;
        let spec = ConsumerSpec {
            name: name.clone(),
            durable_name: Some(name.clone()),
            deliver_policy: "all",
            opt_start_seq: None,
            ack_policy: "explicit",
            ack_wait: Some(nanoseconds(self.options.acknowledge_within)),
            // Unlimited: a message past the limit would be stuck for ever.
            max_deliver: -1,
            max_ack_pending: Some(self.options.unacknowledged_max),
            replay_policy: "instant",
            inactive_threshold: self.options.inactive_threshold.map(nanoseconds),
            mem_storage: false,
            num_replicas: None,
            filter_subject: self.options.filter_subject.clone(),
            max_waiting: None,
        };
        make_consumer(&self.connection, stream, &spec).await?;
        // Made before the pull, so that an interruption between the two counts.
        self.session = AckSession::new(&self.connection);
        let size =
            PullSize { messages: self.options.pull_messages, bytes: self.options.pull_bytes };
        let pull = Pull::open(&self.connection, stream, name, size)
            .await
            .map_err(|source| SharedConsumerError::Subscribe { stream: stream.clone(), source })?;
        if let Some(reach) = self.lone_losses.reach(self.losses, losses, Instant::now()) {
            self.take_unreadable(reach).await;
        }
        self.losses = losses;
        self.pull = Some(pull);
        Ok(())
    }

    /// Takes what the connection may have been lost over, by name.
    async fn take_unreadable(&mut self, reach: Reach) {
        let SharedConsumerOptions { stream, name, .. } = &self.options;
        let connection = self.broker.publishing();
        let Found { acknowledged_up_to, messages } =
            match unreadable::among_delivered(connection, stream, name, reach).await {
                Ok(found) => found,
                // If one is the reason, it comes again, and so does this.
                Err(error) => {
                    tracing::debug!(stream, %error, "what was delivered cannot be looked at");
                    return;
                }
            };
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        settled.retain(|sequence| *sequence > acknowledged_up_to);
        for held in messages.into_iter().filter(|held| !settled.contains(&held.sequence)) {
            let sequence = held.sequence;
            let mut delivery = delivery_by_name(held, stream, name, &self.session);
            delivery.acker.noted = Some(Box::new((Arc::clone(&self.settled), sequence)));
            self.arrived.push_back(delivery);
        }
    }
}

/// A message that was read by name instead of being delivered, as its consumer gets it.
pub(crate) fn delivery_by_name(
    held: HeldMessage,
    stream: &str,
    consumer: &str,
    session: &Arc<AckSession>,
) -> Delivery {
    let HeldMessage { sequence, fault, .. } = held;
    tracing::warn!(stream, sequence, fault, "a message cannot be delivered; it was read by name");
    let reply = DeliveryPosition::reply_for(stream, consumer, sequence);
    Delivery {
        stream_sequence: sequence,
        broker_time_ns: held.broker_time_ns,
        delivered_count: 1,
        subject: held.subject,
        headers: Some(held.headers),
        fault,
        payload: held.payload,
        acker: Acker { session: Arc::clone(session), reply, noted: None },
    }
}

pub(crate) fn delivery(message: Message, session: &Arc<AckSession>) -> Option<Delivery> {
    let position = DeliveryPosition::of(&message)?;
    Some(Delivery {
        stream_sequence: position.stream_sequence,
        broker_time_ns: position.broker_time_ns,
        delivered_count: position.delivered_count,
        subject: message.subject,
        headers: message.headers,
        fault: None,
        payload: message.payload,
        acker: Acker { session: Arc::clone(session), reply: message.reply?, noted: None },
    })
}
