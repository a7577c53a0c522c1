//! Reading a stream by sequence: one message, all to the end, or the end and what follows.

use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;

use crate::{
    api::{ApiError, STREAM_NOT_FOUND, ask_to_read},
    connection::{Broker, Connection},
    delivery::StoredMessage,
    follower::{FollowOptions, Followed, Follower, Silence},
    held_message::{HeldMessage, Wanted, held_message},
    pull::PullSize,
    stream_info::stream_info,
};

pub use crate::follower::{FollowError, Holes};

/// How much one request of a replay asks for; two are open at a time, which bounds what waits in memory.
const REPLAY_SIZE: PullSize = PullSize { messages: 2_000, bytes: 8 * 1024 * 1024 };

/// How long a replay waits in silence before it asks the stream where it ends.
const REPLAY_PATIENCE: Duration = Duration::from_millis(500);

/// How long the broker keeps a reader's consumer that nobody pulls from.
const READER_INACTIVE_THRESHOLD: Duration = Duration::from_secs(60);

/// Why nothing could be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The broker's API refused or did not answer.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// One message could not be read from the leader.
    #[error("could not read sequence {sequence} of stream `{stream}` from its leader")]
    Message {
        /// The stream.
        stream: String,
        /// The sequence.
        sequence: u64,
        /// Why not.
        #[source]
        source: ApiError,
    },
    /// The connection is closed for good.
    #[error("could not subscribe to deliveries")]
    Subscribe(#[source] async_nats::SubscribeError),
}

impl ReadError {
    /// Whether this may be how a stream answers while its servers elect who leads it. One that nobody may
    /// ask is not answered either.
    pub fn is_of_an_election(&self) -> bool {
        match self {
            Self::Api(ApiError::NoResponders { .. }) | Self::Subscribe(_) => false,
            Self::Api(error) | Self::Message { source: error, .. } => error.is_transient(),
        }
    }

    /// Whether trying again may help without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Api(error) => error.is_transient(),
            Self::Message { .. } => true,
            Self::Subscribe(_) => false,
        }
    }

    /// Whether the stream does not exist.
    pub fn is_stream_not_found(&self) -> bool {
        match self {
            Self::Api(source) | Self::Message { source, .. } => {
                source.code() == Some(STREAM_NOT_FOUND)
            }
            Self::Subscribe(_) => false,
        }
    }
}

/// Where a stream stands, as its leader says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct StreamState {
    /// Sequence of the oldest message; 0 before the first, last + 1 when all were purged.
    #[serde(rename = "first_seq")]
    pub first_sequence: u64,
    /// Sequence of the newest message ever stored; 0 before the first.
    #[serde(rename = "last_seq")]
    pub last_sequence: u64,
    /// How many bytes it holds.
    pub bytes: u64,
    /// How many messages it holds.
    pub messages: u64,
}

/// Reads streams. Clones share the connection.
#[derive(Debug, Clone)]
pub struct StreamReader {
    broker: Broker,
}

impl StreamReader {
    /// Reads over the consuming connection of `broker`.
    pub fn new(broker: &Broker) -> Self {
        Self { broker: broker.clone() }
    }

    /// The broker that it reads from.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Asks the leader where `stream` stands; a leader that is cut off from its replicas is not believed,
    /// and neither is who answers while there is none.
    ///
    /// # Errors
    /// When the broker refuses or does not answer, or nobody is believed for 3 s.
    ///
    /// # Cancel safety
    /// Can be dropped.
    pub async fn stream_state(&self, stream: &str) -> Result<StreamState, ReadError> {
        stream_state(self.broker.consuming(), stream).await
    }

    /// Tells when `stream` was made, as the broker writes it: one that was deleted and made again under its
    /// name has another time.
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    ///
    /// # Cancel safety
    /// Can be dropped.
    pub async fn stream_created(&self, stream: &str) -> Result<String, ReadError> {
        let connection = self.broker.consuming();
        let info: StreamMade =
            ask_to_read(connection, &format!("STREAM.INFO.{stream}"), &()).await?;
        Ok(info.created)
    }

    /// Reads one message from the leader; nothing when the stream does not hold it.
    ///
    /// An isolated old leader answers with old data: never decide from a read alone.
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    ///
    /// # Cancel safety
    /// Can be dropped.
    pub async fn read_one(
        &self,
        stream: &str,
        sequence: u64,
    ) -> Result<Option<StoredMessage>, ReadError> {
        read_one(self.broker.publishing(), stream, sequence).await
    }

    /// Reads the newest message of one subject from the leader; nothing when there is none.
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    ///
    /// # Cancel safety
    /// Can be dropped.
    pub async fn last_of_subject(
        &self,
        stream: &str,
        subject: &str,
    ) -> Result<Option<StoredMessage>, ReadError> {
        let wanted = Wanted::Newest { last_by_subj: subject };
        held_message(self.broker.publishing(), stream, wanted)
            .await
            .map(|held| held.map(HeldMessage::stored))
            .map_err(|source| ReadError::Message { stream: stream.to_owned(), sequence: 0, source })
    }

    /// Reads `stream` from sequence `from` (1 is the first) to its end.
    ///
    /// # Errors
    /// When holes are refused and the stream ends before `from - 1` or lacks `from`, or when the broker does not
    /// answer.
    ///
    /// # Cancel safety
    /// A consumer may stay behind for a minute.
    pub async fn replay(
        &self,
        stream: &str,
        from: u64,
        holes: Holes,
    ) -> Result<Replay, FollowError> {
        let mut follower = self.follower(stream, from, holes);
        let target = follower.state().await?.last_sequence;
        let wanted = follower.wanted();
        if target >= wanted {
            follower.ready().await?;
        } else if holes == Holes::Refused && target + 1 < wanted {
            // What was read before is gone: a replay that finds nothing would look like one that is whole.
            let stream = stream.to_owned();
            return Err(FollowError::EndsBefore { stream, last: target, wanted });
        }
        Ok(Replay { follower, target })
    }

    /// Follows `stream` from sequence `from`, without an end.
    ///
    /// # Errors
    /// As [`StreamReader::replay`].
    ///
    /// # Cancel safety
    /// A consumer may stay behind for a minute.
    pub async fn tail(&self, stream: &str, from: u64, holes: Holes) -> Result<Tail, FollowError> {
        let mut follower = self.follower(stream, from, holes);
        follower.ready().await?;
        Ok(Tail { follower })
    }

    fn follower(&self, stream: &str, from: u64, holes: Holes) -> Follower {
        let inbox = self.broker.consuming().client.new_inbox();
        let unique = inbox.rsplit('.').next().unwrap_or_default();
        let options = FollowOptions {
            stream: stream.to_owned(),
            start: from,
            name: format!("reader-{unique}"),
            inactive_threshold: READER_INACTIVE_THRESHOLD,
            size: REPLAY_SIZE,
            holes,
        };
        Follower::new(&self.broker, options)
    }
}

/// A stream being read to its end.
#[derive(Debug)]
pub struct Replay {
    follower: Follower,
    target: u64,
}

impl Replay {
    /// The next messages in order, at most `max`; none when the end is reached.
    ///
    /// The end is where the stream ends when the last message has been handed out, not where it ended
    /// at the start; asking again after the end reads what came since. Where holes are allowed, messages at
    /// the end that the broker cannot read are stepped over, and so is [`Replay::wanted`].
    ///
    /// # Errors
    /// When the stream lost a message, or its broker cannot read it, or the broker does not answer.
    ///
    /// # Cancel safety
    /// Nothing is lost when dropped.
    pub async fn next_batch(&mut self, max: usize) -> Result<Vec<StoredMessage>, FollowError> {
        let mut batch = Vec::new();
        let max = max.max(1);
        loop {
            if self.follower.wanted() > self.target {
                self.target = self.follower.state().await?.last_sequence;
                if self.follower.wanted() > self.target {
                    self.follower.leave().await;
                    return Ok(batch);
                }
            }
            match self.follower.step(max, REPLAY_PATIENCE, &mut batch).await? {
                Followed::Messages => return Ok(batch),
                Followed::Idle => {
                    // It may end elsewhere by now: purged, or without what a power cut took.
                    self.target = self.follower.state().await?.last_sequence;
                    if self.follower.wanted() == self.target.saturating_add(1) {
                        continue;
                    }
                    if self.follower.is_drained() && self.follower.is_at_end(self.target).await? {
                        self.follower.leave().await;
                        return Ok(batch);
                    }
                    match self.follower.look_at_silence(self.target, &mut batch).await? {
                        Silence::Messages => return Ok(batch),
                        // What is behind the end is asked for above.
                        Silence::Again | Silence::Unreadable => {}
                    }
                }
            }
        }
    }

    /// The sequence after the last message handed out.
    pub fn wanted(&self) -> u64 {
        self.follower.wanted()
    }
}

/// A stream being followed.
#[derive(Debug)]
pub struct Tail {
    follower: Follower,
}

impl Tail {
    /// The next messages in order, at most `max`; waits until there is one.
    ///
    /// # Errors
    /// When the stream lost a message or the broker does not answer.
    ///
    /// # Cancel safety
    /// Nothing is lost when dropped.
    pub async fn next_batch(&mut self, max: usize) -> Result<Vec<StoredMessage>, FollowError> {
        let mut batch = Vec::new();
        while self.follower.step(max.max(1), REPLAY_PATIENCE, &mut batch).await? == Followed::Idle {
            // The pull says by itself when it is of no use any more.
        }
        Ok(batch)
    }
}

#[derive(Deserialize)]
struct StreamMade {
    created: String,
}

#[derive(Deserialize)]
struct StreamInfo {
    state: StreamState,
}

/// Asks where `stream` stands.
pub(crate) async fn stream_state(
    connection: &Connection,
    stream: &str,
) -> Result<StreamState, ReadError> {
    let info: StreamInfo = stream_info(connection, stream, &()).await?;
    Ok(info.state)
}

pub(crate) async fn read_one(
    connection: &Connection,
    stream: &str,
    sequence: u64,
) -> Result<Option<StoredMessage>, ReadError> {
    match held_message(connection, stream, Wanted::sequence(sequence)).await {
        Ok(held) => Ok(held.map(HeldMessage::stored)),
        Err(source) => Err(ReadError::Message { stream: stream.to_owned(), sequence, source }),
    }
}
