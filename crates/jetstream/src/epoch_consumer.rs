//! The commands of a partition, consumed by position for one epoch of its owner.
//!
//! There are no acknowledgements: the owner records the position that it has consumed. So the sequence
//! must be contiguous, and a consumer that believes all is delivered although we received less (a pull
//! whose reader died) must be noticed: after a second of silence the end of the stream is compared with
//! the last received message, and a new consumer is made if we are behind.

use std::time::Duration;

use crate::{
    connection::Broker,
    delivery::StoredMessage,
    follower::{FollowOptions, Followed, Follower, Silence},
    pull::PullSize,
    reader::{ReadError, read_one, stream_state},
};

/// Why the commands cannot be consumed further. The owner halts or stands down, and says so.
pub use crate::follower::FollowError as EpochConsumerError;
use crate::follower::Holes;

/// How long the broker keeps the consumer of an epoch that ended.
pub const INACTIVE_THRESHOLD: Duration = Duration::from_secs(60);

/// How long silence lasts until the end of the stream is compared with what was received.
pub const IDLE_CHECK: Duration = Duration::from_secs(1);

/// How many messages one request asks for; a new request goes out when half of what is open has come.
pub const PULL_MESSAGES: usize = 500;

/// How many bytes one request asks for; twice this waits in memory at most.
pub const PULL_BYTES: usize = 8 * 1024 * 1024;

/// How long a message that the stream has may still be on its way before a new consumer is made.
const STRAGGLER_PATIENCE: Duration = Duration::from_millis(100);

/// Whose consumer, of which stream, from where.
#[derive(Debug, Clone)]
pub struct EpochConsumerOptions {
    /// The stream, such as `COMMANDS_0`.
    pub stream: String,
    /// Epoch of the owner.
    pub epoch: u64,
    /// Incarnation of the owner: letters, digits and hyphens only, for it becomes part of a consumer's name.
    pub incarnation: String,
    /// First sequence wanted: the recorded position + 1.
    pub start: u64,
}

/// Consumes one stream in order, without acknowledgements.
#[derive(Debug)]
pub struct EpochConsumer {
    follower: Follower,
    stream: String,
    connection: crate::connection::Connection,
}

impl EpochConsumer {
    /// Makes the consumer.
    ///
    /// # Errors
    /// When the stream ends before `start - 1`, lacks `start`, or the broker does not answer.
    ///
    /// # Cancel safety
    /// A consumer may stay behind for a minute.
    pub async fn open(
        broker: &Broker,
        options: EpochConsumerOptions,
    ) -> Result<Self, EpochConsumerError> {
        let mut follower = Follower::new(
            broker,
            FollowOptions {
                stream: options.stream.clone(),
                start: options.start,
                name: format!("epoch-{}-{}", options.epoch, options.incarnation),
                inactive_threshold: INACTIVE_THRESHOLD,
                size: PullSize { messages: PULL_MESSAGES, bytes: PULL_BYTES },
                holes: Holes::Refused,
            },
        );
        follower.ready().await?;
        Ok(Self { follower, stream: options.stream, connection: broker.consuming().clone() })
    }

    /// The next messages, contiguous with all before, at most `max`; waits until there is one.
    ///
    /// A lost connection, a lost delivery and a consumer that forgot us are repaired in here, at last
    /// received + 1.
    ///
    /// # Errors
    /// When the stream lacks a message or ends before what was received, and when the broker stays away
    /// although the connection is up; the last may be called again.
    ///
    /// # Cancel safety
    /// Nothing is lost when dropped.
    pub async fn next_batch(
        &mut self,
        max: usize,
    ) -> Result<Vec<StoredMessage>, EpochConsumerError> {
        let mut batch = Vec::new();
        let max = max.max(1);
        let mut made_again = false;
        loop {
            if self.follower.step(max, IDLE_CHECK, &mut batch).await? == Followed::Messages {
                return Ok(batch);
            }
            let Some(last) = self.end_ahead().await? else { continue };
            if self.follower.step(max, STRAGGLER_PATIENCE, &mut batch).await? == Followed::Messages
            {
                return Ok(batch);
            }
            if made_again && self.follower.is_drained() {
                // What is missing is an error; what is not comes of the next consumer.
                let _ = self.follower.is_at_end(last).await?;
            }
            let wanted = self.follower.wanted();
            tracing::warn!(
                stream = self.stream,
                wanted,
                last,
                "the consumer was behind its stream and is made again"
            );
            if self.follower.look_at_silence(last, &mut batch).await? == Silence::Messages {
                return Ok(batch);
            }
            made_again = true;
        }
    }

    /// The sequence after the last message handed out.
    pub fn wanted(&self) -> u64 {
        self.follower.wanted()
    }

    /// How often a consumer was made for this epoch; 1 when nothing ever went wrong.
    pub fn consumers_made(&self) -> u64 {
        self.follower.consumers_made()
    }

    /// Where the stream ends, if that is beyond what was received.
    async fn end_ahead(&self) -> Result<Option<u64>, EpochConsumerError> {
        let wanted = self.follower.wanted();
        let last = match stream_state(&self.connection, &self.stream).await {
            Ok(state) => state.last_sequence,
            // Not knowing is no reason to stop; the next second asks again.
            Err(error) if error.is_transient() => return Ok(None),
            Err(source) => {
                return Err(EpochConsumerError::Read { stream: self.stream.clone(), source });
            }
        };
        if last.saturating_add(1) < wanted {
            return Err(EpochConsumerError::EndsBefore {
                stream: self.stream.clone(),
                last,
                wanted,
            });
        }
        Ok((last >= wanted).then_some(last))
    }
}

/// Whether a stream still holds what a recorded position says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PositionCheck {
    /// The message is there and has the recorded time, or the position is 0.
    Ok,
    /// The stream ends before the position: it lost messages.
    StreamEndsBefore {
        /// Where it ends.
        last: u64,
    },
    /// Another message has that sequence: the stream lost messages and used their sequences again.
    DifferentTimestamp {
        /// The time that was recorded.
        recorded_ns: i64,
        /// The time that the stream shows.
        found_ns: i64,
    },
    /// The message was purged; nothing contradicts the position.
    Purged {
        /// The oldest sequence that the stream holds.
        first: u64,
    },
}

/// Compares a recorded position (sequence and broker time) with what the stream holds.
///
/// # Errors
/// When the broker refuses or does not answer.
///
/// # Cancel safety
/// Can be dropped.
pub async fn check_position(
    broker: &Broker,
    stream: &str,
    sequence: u64,
    broker_time_ns: i64,
) -> Result<PositionCheck, ReadError> {
    if sequence == 0 {
        return Ok(PositionCheck::Ok);
    }
    let state = stream_state(broker.consuming(), stream).await?;
    if state.last_sequence < sequence {
        return Ok(PositionCheck::StreamEndsBefore { last: state.last_sequence });
    }
    Ok(match read_one(broker.publishing(), stream, sequence).await? {
        None => PositionCheck::Purged { first: state.first_sequence },
        Some(message) if message.broker_time_ns == broker_time_ns => PositionCheck::Ok,
        Some(message) => PositionCheck::DifferentTimestamp {
            recorded_ns: broker_time_ns,
            found_ns: message.broker_time_ns,
        },
    })
}
