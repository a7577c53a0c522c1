//! Following a stream by sequence over lost deliveries, lost connections and lost consumers.
//!
//! A follower holds the next sequence it wants. Whatever goes wrong with the consumer, it makes another
//! one there. Two counts are watched: the consumer's own (a hole is a delivery that we lost) and the
//! stream's (a hole is a message that the stream does not have, and only some streams may have holes).

use std::time::Duration;

use async_nats::Message;
use thiserror::Error;
use tokio::time::sleep;

use crate::{
    api::ApiError,
    connection::{Broker, Connection, Losses},
    delivery::{DeliveryPosition, StoredMessage, stored_message},
    held_message::{HeldMessage, Wanted, held_message},
    pull::{ConsumerSpec, Pull, PullSize, Pulled, create_consumer, forget_consumer},
    reader::{ReadError, StreamState, read_one, stream_state},
};

/// How often making a consumer is tried while the connection is up, with [`REBUILD_PAUSE`] between.
const REBUILD_TRIES_MAX: u32 = 5;

/// Pause after a consumer could not be made.
const REBUILD_PAUSE: Duration = Duration::from_millis(200);

/// How often a hole in the stream is looked at again before it counts as real.
const GAP_TRIES_MAX: u32 = 3;

/// How many consumers in a row may bring nothing, although the stream goes on, until what is wanted is looked
/// at by name: a broker that cannot read a message says nothing of it, and counts it as still to come.
const SILENT_CONSUMERS_MAX: u32 = 3;

/// Whether the stream may have holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holes {
    /// Purged or deleted messages are stepped over.
    Allowed,
    /// Every sequence from the start must be there.
    Refused,
}

/// Why a stream cannot be followed.
#[derive(Debug, Error)]
pub enum FollowError {
    /// The stream lacks a message that it must have; a rebuilt consumer and the leader say so too.
    #[error("stream `{stream}` lacks sequence {expected}; the next one it has is {got}")]
    Gap {
        /// The stream.
        stream: String,
        /// The sequence that is missing.
        expected: u64,
        /// The first one after it.
        got: u64,
    },
    /// The stream ends before what was already received: it lost acknowledged messages.
    #[error(
        "stream `{stream}` ends at sequence {last}, but the next one wanted is {wanted}: it lost messages or the start is wrong"
    )]
    EndsBefore {
        /// The stream.
        stream: String,
        /// Where it ends.
        last: u64,
        /// The sequence that was wanted next.
        wanted: u64,
    },
    /// The broker did not answer or refused.
    #[error("could not read stream `{stream}`")]
    Read {
        /// The stream.
        stream: String,
        /// Why not.
        #[source]
        source: ReadError,
    },
}

/// What a step brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Followed {
    /// At least one message is in the caller's list.
    Messages,
    /// Nothing came within the caller's patience.
    Idle,
}

/// What it means that a consumer brings nothing although the stream goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Silence {
    /// Nothing yet; the next step makes another consumer.
    Again,
    /// A message that was read by name is in the caller's list.
    Messages,
    /// Nothing that is left can be read; what is wanted next comes behind it.
    Unreadable,
}

/// How to follow.
#[derive(Debug, Clone)]
pub(crate) struct FollowOptions {
    pub(crate) stream: String,
    pub(crate) start: u64,
    /// Consumers are named by this and a number.
    pub(crate) name: String,
    pub(crate) inactive_threshold: Duration,
    pub(crate) size: PullSize,
    pub(crate) holes: Holes,
}

#[derive(Debug)]
pub(crate) struct Follower {
    broker: Broker,
    connection: Connection,
    /// When the present consumer was made.
    losses: Losses,
    options: FollowOptions,
    next: u64,
    /// Last count of the present consumer.
    consumer_sequence: u64,
    pull: Option<Pull>,
    consumer: Option<String>,
    consumers_made: u64,
    gap_tries: u32,
    /// Consumers in a row that brought nothing although the stream goes on.
    silent_consumers: u32,
    /// Whether the broker says that the present consumer has nothing left.
    drained: bool,
    scratch: Vec<Message>,
}

impl Drop for Follower {
    /// Consumers of a stream are bounded: many short readings would use them up before the broker
    /// removes them by itself.
    fn drop(&mut self) {
        let Some(consumer) = self.consumer.take() else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (connection, stream) = (self.connection.clone(), self.options.stream.clone());
            runtime.spawn(async move { forget_consumer(&connection, &stream, &consumer).await });
        }
    }
}

impl Follower {
    pub(crate) fn new(broker: &Broker, options: FollowOptions) -> Self {
        Self {
            broker: broker.clone(),
            connection: broker.consuming().clone(),
            losses: broker.losses(),
            next: options.start.max(1),
            options,
            consumer_sequence: 0,
            pull: None,
            consumer: None,
            consumers_made: 0,
            gap_tries: 0,
            silent_consumers: 0,
            drained: false,
            scratch: Vec::new(),
        }
    }

    /// The sequence that is wanted next.
    pub(crate) fn wanted(&self) -> u64 {
        self.next
    }

    /// Whether the broker says that nothing is left after what was received.
    pub(crate) fn is_drained(&self) -> bool {
        self.drained && self.pull.is_some()
    }

    /// How many consumers were made so far.
    pub(crate) fn consumers_made(&self) -> u64 {
        self.consumers_made
    }

    pub(crate) async fn state(&self) -> Result<StreamState, FollowError> {
        stream_state(&self.connection, &self.options.stream)
            .await
            .map_err(|source| self.read_error(source))
    }

    /// Gives up the present consumer for good; a step makes another.
    pub(crate) async fn leave(&mut self) {
        self.pull = None;
        if let Some(consumer) = self.consumer.take() {
            forget_consumer(&self.connection, &self.options.stream, &consumer).await;
        }
    }

    /// Makes sure that a consumer is there, so that errors show at the start.
    pub(crate) async fn ready(&mut self) -> Result<(), FollowError> {
        if self.pull.is_none() {
            self.rebuild().await?;
        }
        Ok(())
    }

    /// Appends up to `max` messages to `into`, waiting up to `patience` for the first.
    ///
    /// Cancel-safe: what has been received is either in `into` or asked for again.
    pub(crate) async fn step(
        &mut self,
        max: usize,
        patience: Duration,
        into: &mut Vec<StoredMessage>,
    ) -> Result<Followed, FollowError> {
        loop {
            if let Some(message) = self.unreadable_next().await {
                self.next = message.sequence + 1;
                into.push(message);
                return Ok(Followed::Messages);
            }
            self.ready().await?;
            let Some(pull) = &mut self.pull else { continue };
            self.scratch.clear();
            match pull.next(max, patience, &mut self.scratch).await {
                Pulled::Idle => return Ok(Followed::Idle),
                Pulled::Ended(end) => {
                    tracing::debug!(
                        stream = self.options.stream,
                        ?end,
                        wanted = self.next,
                        "consumer is made again"
                    );
                    self.pull = None;
                }
                Pulled::Messages => {
                    let before = into.len();
                    let gap = self.take(into);
                    if into.len() > before {
                        return Ok(Followed::Messages);
                    }
                    if let Some(got) = gap {
                        self.look_at_gap(got).await?;
                    }
                }
            }
        }
    }

    /// The message that would come next, if it looks like the reason why the connection was lost: deliveries
    /// come in order, so what cannot be read is the first one that did not arrive.
    async fn unreadable_next(&self) -> Option<StoredMessage> {
        if self.pull.is_some() || !self.broker.losses().only_consuming_since(self.losses) {
            return None;
        }
        let stream = &self.options.stream;
        // Not knowing is no reason to stop: if it is the reason, the connection will be lost again.
        let held = held_message(self.broker.publishing(), stream, Wanted::from(self.next))
            .await
            .ok()??;
        let fault = held.fault?;
        let sequence = held.sequence;
        if sequence != self.next && self.options.holes == Holes::Refused {
            return None;
        }
        tracing::warn!(
            stream,
            sequence,
            fault,
            "a message cannot be delivered; it was read by name"
        );
        Some(held.stored())
    }

    /// Moves what fits from the scratch list to `into`; tells the sequence after a hole when that comes first.
    fn take(&mut self, into: &mut Vec<StoredMessage>) -> Option<u64> {
        for message in self.scratch.drain(..) {
            let Some(position) = DeliveryPosition::of(&message) else { continue };
            if position.consumer_sequence != self.consumer_sequence + 1
                || position.stream_sequence < self.next
            {
                self.pull = None;
                return None;
            }
            if position.stream_sequence > self.next && self.options.holes == Holes::Refused {
                self.pull = None;
                return Some(position.stream_sequence);
            }
            self.consumer_sequence = position.consumer_sequence;
            self.next = position.stream_sequence + 1;
            self.gap_tries = 0;
            self.silent_consumers = 0;
            self.drained = position.pending == 0;
            into.push(stored_message(message, position));
        }
        None
    }

    /// A hole is real when a leader that is believed does not have the message either, or stays after several
    /// new consumers.
    async fn look_at_gap(&mut self, got: u64) -> Result<(), FollowError> {
        self.gap_tries += 1;
        let stays = self.gap_tries > GAP_TRIES_MAX;
        let is_missing = self.gap_tries > 1
            && self.read_wanted().await?.is_none()
            && self.is_missing(Wanted::sequence(self.next)).await?;
        if stays || is_missing { Err(self.gap(got)) } else { Ok(()) }
    }

    /// Whether nothing is left to be delivered although the stream ends at `last`, at or behind what is wanted:
    /// messages that were deleted at the very end show no successor.
    ///
    /// To be asked when a consumer delivers nothing and says that nothing is left: it says so, too, where the
    /// server that it is on has not heard of what came last.
    ///
    /// # Errors
    /// When holes are refused and the wanted message is missing.
    pub(crate) async fn is_at_end(&self, last: u64) -> Result<bool, FollowError> {
        if last < self.next {
            return Ok(true);
        }
        let wanted = self.wanted_by_name();
        if self.held(wanted).await?.is_some() || !self.is_missing(wanted).await? {
            return Ok(false);
        }
        match self.options.holes {
            Holes::Refused => Err(self.gap(last.saturating_add(1))),
            Holes::Allowed => Ok(true),
        }
    }

    /// The wanted message as it is asked for by name: the next one that there is, where there may be holes.
    fn wanted_by_name(&self) -> Wanted<'static> {
        match self.options.holes {
            Holes::Refused => Wanted::sequence(self.next),
            Holes::Allowed => Wanted::from(self.next),
        }
    }

    /// Gives up a consumer that brings nothing although the stream ends at `last`, at or behind what is
    /// wanted; after the third in a row finds out by name what it is that does not come.
    ///
    /// # Errors
    /// When holes are refused and the leader cannot read it either.
    pub(crate) async fn look_at_silence(
        &mut self,
        last: u64,
        into: &mut Vec<StoredMessage>,
    ) -> Result<Silence, FollowError> {
        self.pull = None;
        self.silent_consumers += 1;
        if self.silent_consumers < SILENT_CONSUMERS_MAX {
            return Ok(Silence::Again);
        }
        self.silent_consumers = 0;
        let (stream, wanted) = (&self.options.stream, self.next);
        let asked = self.wanted_by_name();
        match self.held(asked).await? {
            Some(held) => {
                let sequence = held.sequence;
                tracing::warn!(stream, sequence, "a message is not delivered; it was read by name");
                self.next = sequence + 1;
                into.push(held.stored());
                Ok(Silence::Messages)
            }
            None if !self.is_missing(asked).await? => Ok(Silence::Again),
            None if self.options.holes == Holes::Refused => Err(self.gap(last.saturating_add(1))),
            None => {
                tracing::warn!(
                    stream,
                    wanted,
                    last,
                    "the broker cannot read the end of a stream; it is left out"
                );
                self.next = last.saturating_add(1);
                Ok(Silence::Unreadable)
            }
        }
    }

    async fn held(&self, asked: Wanted<'_>) -> Result<Option<HeldMessage>, FollowError> {
        let stream = &self.options.stream;
        held_message(self.broker.publishing(), stream, asked).await.map_err(|source| {
            let (stream, sequence) = (stream.clone(), self.next);
            self.read_error(ReadError::Message { stream, sequence, source })
        })
    }

    /// Whether a message that was not found is not there: an old leader that is cut off has less than there is,
    /// so one is asked again that was believed just before (ADR 29), over the same connection.
    async fn is_missing(&self, asked: Wanted<'_>) -> Result<bool, FollowError> {
        let state = stream_state(self.broker.publishing(), &self.options.stream).await;
        let state = state.map_err(|source| self.read_error(source))?;
        Ok(state.last_sequence >= self.next && self.held(asked).await?.is_none())
    }

    async fn read_wanted(&self) -> Result<Option<StoredMessage>, FollowError> {
        read_one(self.broker.publishing(), &self.options.stream, self.next)
            .await
            .map_err(|source| self.read_error(source))
    }

    fn gap(&self, got: u64) -> FollowError {
        FollowError::Gap { stream: self.options.stream.clone(), expected: self.next, got }
    }

    fn read_error(&self, source: ReadError) -> FollowError {
        FollowError::Read { stream: self.options.stream.clone(), source }
    }

    async fn rebuild(&mut self) -> Result<(), FollowError> {
        let mut tries = 0;
        loop {
            // While the connection is down nothing can be said; the caller bounds this wait by dropping it.
            let _ = self.connection.link.clone().wait_for(|link| link.connected).await;
            match self.try_rebuild().await {
                Err(FollowError::Read { source, .. })
                    if source.is_transient() && tries < REBUILD_TRIES_MAX =>
                {
                    tries += 1;
                    sleep(REBUILD_PAUSE).await;
                }
                other => return other,
            }
        }
    }

    async fn try_rebuild(&mut self) -> Result<(), FollowError> {
        let losses = self.broker.losses();
        let state = self.state().await?;
        self.check_bounds(state)?;
        if let Some(old) = self.consumer.take() {
            forget_consumer(&self.connection, &self.options.stream, &old).await;
        }
        self.consumers_made += 1;
        let name = format!("{}-{}", self.options.name, self.consumers_made);
        let spec =
            ConsumerSpec::from_sequence(name.clone(), self.next, self.options.inactive_threshold);
        let api = |source: ApiError| FollowError::Read {
            stream: self.options.stream.clone(),
            source: ReadError::Api(source),
        };
        let pending =
            create_consumer(&self.connection, &self.options.stream, &spec).await.map_err(api)?;
        let pull = Pull::open(&self.connection, &self.options.stream, &name, self.options.size)
            .await
            .map_err(|source| self.read_error(ReadError::Subscribe(source)))?;
        self.losses = losses;
        self.drained = pending == 0;
        self.consumer_sequence = 0;
        self.consumer = Some(name);
        self.pull = Some(pull);
        Ok(())
    }

    /// A consumer that starts beyond the end would miss what comes up to its start: refuse to make one.
    fn check_bounds(&mut self, state: StreamState) -> Result<(), FollowError> {
        if state.last_sequence.saturating_add(1) < self.next {
            return Err(FollowError::EndsBefore {
                stream: self.options.stream.clone(),
                last: state.last_sequence,
                wanted: self.next,
            });
        }
        if state.first_sequence > self.next {
            match self.options.holes {
                Holes::Refused => return Err(self.gap(state.first_sequence)),
                Holes::Allowed => self.next = state.first_sequence,
            }
        }
        Ok(())
    }
}
