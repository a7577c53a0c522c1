//! Messages that nobody stores: live feeds, questions and answers.
//!
//! A subscription that falls behind by [`SUBSCRIPTION_CAPACITY`] messages loses what comes then; the loss is
//! told as [`crate::ConnectionEvent::SlowConsumer`] on [`Broker::notices`], so a feed that must be complete
//! is read again from its stream after such a notice or a lost connection.

use std::time::Duration;

use async_nats::{HeaderMap, Message, Request, RequestErrorKind, Subject, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use thiserror::Error;
use tokio::time::timeout;

use crate::connection::Broker;

/// How many messages a subscription may fall behind: the client library's default.
pub const SUBSCRIPTION_CAPACITY: usize = 65_536;

/// How long the server may take to confirm a subscription. It does so within a round trip; a lost connection takes longer.
pub const SUBSCRIBE_LIMIT: Duration = Duration::from_secs(10);

/// Why a message could not be sent, asked or listened for.
#[derive(Debug, Error)]
pub enum CoreMessageError {
    /// It did not leave this process.
    #[error("could not publish to `{subject}`")]
    Publish {
        /// Where to.
        subject: String,
        /// Why not.
        #[source]
        source: async_nats::PublishError,
    },
    /// The queue could not be emptied towards the server.
    #[error("could not flush")]
    Flush(#[source] async_nats::client::FlushError),
    /// The subscription could not be made.
    #[error("could not subscribe to `{subject}`")]
    Subscribe {
        /// What to.
        subject: String,
        /// Why not.
        #[source]
        source: async_nats::SubscribeError,
    },
    /// The server did not show in time that it has the subscription.
    #[error(
        "the server did not confirm the subscription to `{subject}` within {SUBSCRIBE_LIMIT:?}"
    )]
    NotConfirmed {
        /// What to.
        subject: String,
    },
    /// Nobody listens on the subject.
    #[error("nobody answers on `{subject}`")]
    NoResponders {
        /// What was asked.
        subject: String,
    },
    /// No answer in time: the other side may have acted or not.
    #[error("no answer on `{subject}` within {limit:?}")]
    NoAnswer {
        /// What was asked.
        subject: String,
        /// How long was waited.
        limit: Duration,
    },
    /// The question could not be sent.
    #[error("could not ask `{subject}`")]
    Request {
        /// What was asked.
        subject: String,
        /// Why not.
        #[source]
        source: async_nats::RequestError,
    },
}

/// A message from a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreMessage {
    /// Where it was sent to.
    pub subject: Subject,
    /// Where an answer is awaited, if one is.
    pub reply: Option<Subject>,
    /// Its headers.
    pub headers: Option<HeaderMap>,
    /// Its bytes.
    pub payload: Bytes,
}

impl From<Message> for CoreMessage {
    fn from(message: Message) -> Self {
        Self {
            subject: message.subject,
            reply: message.reply,
            headers: message.headers,
            payload: message.payload,
        }
    }
}

/// Sends and receives messages that nobody stores.
#[derive(Debug, Clone)]
pub struct CoreMessages {
    broker: Broker,
}

impl CoreMessages {
    /// Sends over the publishing connection and listens on the consuming one.
    pub fn new(broker: &Broker) -> Self {
        Self { broker: broker.clone() }
    }

    /// Sends a message to whoever listens; nobody says whether anyone did.
    ///
    /// # Errors
    /// When the subject is not valid, the payload too large, or the connection closed for good.
    ///
    /// # Cancel safety
    /// When dropped, it may or may not be sent.
    pub async fn publish_core(
        &self,
        subject: impl Into<Subject>,
        payload: Bytes,
    ) -> Result<(), CoreMessageError> {
        let subject = subject.into();
        let failed = |source| CoreMessageError::Publish { subject: subject.to_string(), source };
        self.broker.publishing().client.publish(subject.clone(), payload).await.map_err(failed)
    }

    /// Waits until all that was published has been written to the server's socket.
    ///
    /// # Errors
    /// When the connection is closed for good.
    ///
    /// # Cancel safety
    /// Can be dropped.
    pub async fn flush(&self) -> Result<(), CoreMessageError> {
        self.broker.publishing().client.flush().await.map_err(CoreMessageError::Flush)
    }

    /// Listens on a subject (`*` is one token, `>` the rest). What anybody sends over the same server after
    /// this has returned is received; other servers of a cluster learn of it a little later.
    ///
    /// # Errors
    /// When the subject is not valid, the connection closed for good, or the server silent for [`SUBSCRIBE_LIMIT`].
    ///
    /// # Cancel safety
    /// Can be dropped.
    pub async fn subscribe(&self, subject: &str) -> Result<Subscription, CoreMessageError> {
        self.subscribe_as(subject, None).await
    }

    /// As [`CoreMessages::subscribe`], where each message goes to one of those who listen under this group's name.
    ///
    /// # Errors
    /// As [`CoreMessages::subscribe`].
    ///
    /// # Cancel safety
    /// Can be dropped.
    pub async fn subscribe_in_group(
        &self,
        subject: &str,
        group: &str,
    ) -> Result<Subscription, CoreMessageError> {
        self.subscribe_as(subject, Some(group)).await
    }

    async fn subscribe_as(
        &self,
        subject: &str,
        group: Option<&str>,
    ) -> Result<Subscription, CoreMessageError> {
        let client = &self.broker.consuming().client;
        let failed = |source| CoreMessageError::Subscribe { subject: subject.to_owned(), source };
        let subscriber = match group {
            None => client.subscribe(subject.to_owned()).await.map_err(failed)?,
            Some(group) => client
                .queue_subscribe(subject.to_owned(), group.to_owned())
                .await
                .map_err(failed)?,
        };
        // The library's flush waits for the socket alone, and a message over our other connection can overtake
        // what lies in it. The server reads a connection in order: what comes back was sent behind the subscription.
        let inbox = client.new_inbox();
        let mut echo = client.subscribe(inbox.clone()).await.map_err(failed)?;
        client
            .publish(inbox.clone(), Bytes::new())
            .await
            .map_err(|source| CoreMessageError::Publish { subject: inbox, source })?;
        match timeout(SUBSCRIBE_LIMIT, echo.next()).await {
            Ok(Some(_)) => Ok(Subscription { subscriber }),
            Ok(None) | Err(_) => {
                Err(CoreMessageError::NotConfirmed { subject: subject.to_owned() })
            }
        }
    }

    /// Asks a question and waits for the first answer.
    ///
    /// # Errors
    /// When nobody listens, or no answer comes within `limit`.
    ///
    /// # Cancel safety
    /// When dropped, the other side may have acted.
    pub async fn request(
        &self,
        subject: &str,
        payload: Bytes,
        limit: Duration,
    ) -> Result<CoreMessage, CoreMessageError> {
        self.request_with_headers(subject, HeaderMap::new(), payload, limit).await
    }

    /// As [`CoreMessages::request`], with headers.
    ///
    /// # Errors
    /// As [`CoreMessages::request`].
    ///
    /// # Cancel safety
    /// When dropped, the other side may have acted.
    pub async fn request_with_headers(
        &self,
        subject: &str,
        headers: HeaderMap,
        payload: Bytes,
        limit: Duration,
    ) -> Result<CoreMessage, CoreMessageError> {
        let client = &self.broker.publishing().client;
        // An inbox of its own, gone with the answer: the library's shared one keeps what is never answered.
        let question =
            Request::new().payload(payload).inbox(client.new_inbox()).timeout(Some(limit));
        let question = match headers.is_empty() {
            true => question,
            false => question.headers(headers),
        };
        let subject = subject.to_owned();
        client.send_request(subject.clone(), question).await.map(CoreMessage::from).map_err(
            |source| match source.kind() {
                RequestErrorKind::NoResponders => CoreMessageError::NoResponders { subject },
                RequestErrorKind::TimedOut => CoreMessageError::NoAnswer { subject, limit },
                RequestErrorKind::InvalidSubject
                | RequestErrorKind::MaxPayloadExceeded
                | RequestErrorKind::Other => CoreMessageError::Request { subject, source },
            },
        )
    }
}

/// A subscription; ends when dropped.
#[derive(Debug)]
pub struct Subscription {
    subscriber: Subscriber,
}

impl Subscription {
    /// The next message; nothing when the connection is closed for good.
    ///
    /// # Cancel safety
    /// Nothing is lost when dropped.
    pub async fn next(&mut self) -> Option<CoreMessage> {
        self.subscriber.next().await.map(CoreMessage::from)
    }
}
