//! Requests to the broker's JetStream API.
//!
//! Each request has an inbox of its own that is gone with the answer or the time-out. The library's
//! shared inbox keeps an entry for ever for every answer that never comes.

use std::time::Duration;

use async_nats::{Message, Request, RequestErrorKind};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::connection::Connection;

/// How long the broker may take to answer an API request: an election takes 4 to 9 s.
pub const API_ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// How long it may take where the request changes nothing and is put again: an election that nobody wins is
/// held once more.
pub const READ_ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// How often what only reads is asked again: a question that met a server which led the stream and was killed
/// is never answered, nor is one put before there is a next leader, who answers at once. Those before still
/// count if they are answered late.
const READ_AGAIN_EVERY: Duration = Duration::from_secs(2);

/// The stream does not exist.
pub(crate) const STREAM_NOT_FOUND: u64 = 10059;
/// The stream exists with another configuration.
pub(crate) const STREAM_NAME_IN_USE: u64 = 10058;
/// The server cannot reserve what the stream wants.
pub(crate) const STORAGE_EXCEEDED: u64 = 10047;
/// The account may not reserve what the stream wants.
pub(crate) const ACCOUNT_EXCEEDED: u64 = 10002;
/// The system is temporarily unavailable: it elects a leader.
const SYSTEM_UNAVAILABLE: u64 = 10008;
/// The cluster finds no servers for the stream: too few, too little room, or some that its leader
/// has not heard of for a while, be it only since a new leader began to listen.
pub(crate) const NO_SUITABLE_PEERS: u64 = 10005;
/// All servers that hold the stream are away.
const STREAM_OFFLINE: u64 = 10118;
/// All servers that hold the consumer are away.
const CONSUMER_OFFLINE: u64 = 10119;
/// No message has the sequence or subject that was asked for.
pub(crate) const NO_MESSAGE_FOUND: u64 = 10037;

/// Why an API request has no result.
#[derive(Debug, Error)]
pub enum ApiError {
    /// The broker said no.
    #[error("the broker refused `{request}`: {description} (code {code})")]
    Refused {
        /// Subject of the request.
        request: String,
        /// The broker's error code.
        code: u64,
        /// The broker's words.
        description: String,
    },
    /// No answer in time; a change may have been made all the same.
    #[error("no answer to `{request}` within {limit:?}; is the broker up and may we ask this?")]
    NoAnswer {
        /// Subject of the request.
        request: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// Nobody answers this: JetStream is off, or the stream has no leader.
    #[error("nobody answers `{request}`; is JetStream switched on, and has the stream a leader?")]
    NoResponders {
        /// Subject of the request.
        request: String,
    },
    /// The server that answers for the stream is cut off from the others, or the stream has no leader at the
    /// moment: what it says may be old, or nothing.
    #[error("stream `{stream}` has no leader that hears a majority of its servers")]
    CutOff {
        /// The stream.
        stream: String,
    },
    /// The connection could not carry the request.
    #[error("could not send `{request}`")]
    NotSent {
        /// Subject of the request.
        request: String,
        /// Why not.
        #[source]
        source: async_nats::RequestError,
    },
    /// The answer is not what the API promises.
    #[error("could not read the answer to `{request}`")]
    Unreadable {
        /// Subject of the request.
        request: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

impl ApiError {
    /// The broker's error code, if it refused.
    pub fn code(&self) -> Option<u64> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::NoAnswer { .. }
            | Self::NoResponders { .. }
            | Self::NotSent { .. }
            | Self::CutOff { .. }
            | Self::Unreadable { .. } => None,
        }
    }

    /// Whether the same request may go well later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NoAnswer { .. }
            | Self::NoResponders { .. }
            | Self::NotSent { .. }
            | Self::CutOff { .. } => true,
            Self::Refused { code, description, .. } => {
                matches!(*code, SYSTEM_UNAVAILABLE | STREAM_OFFLINE | CONSUMER_OFFLINE)
                    || (*code == NO_SUITABLE_PEERS && description.contains("peer offline"))
            }
            Self::Unreadable { .. } => false,
        }
    }
}

#[derive(Deserialize)]
struct Envelope<T> {
    error: Option<Refusal>,
    #[serde(flatten)]
    answer: Option<T>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// Asks `$JS.API.<operation>` with `body` as JSON, or with an empty body when it is `()`.
///
/// Asks again when the connection is lost meanwhile, so the request must be one that may be made twice.
pub(crate) async fn ask<T: DeserializeOwned>(
    connection: &Connection,
    operation: &str,
    body: &impl Serialize,
) -> Result<T, ApiError> {
    put(connection, operation, body, Patience::TO_CHANGE).await
}

/// As [`ask`], for what changes nothing: it is asked again beside the first question every 2 s while none is
/// answered, for 20 s.
pub(crate) async fn ask_to_read<T: DeserializeOwned>(
    connection: &Connection,
    operation: &str,
    body: &impl Serialize,
) -> Result<T, ApiError> {
    put(connection, operation, body, Patience::TO_READ).await
}

/// How long an answer is waited for, and after how long the question is put again.
#[derive(Debug, Clone, Copy)]
struct Patience {
    limit: Duration,
    again_every: Option<Duration>,
}

impl Patience {
    const TO_CHANGE: Self = Self { limit: API_ANSWER_LIMIT, again_every: None };
    const TO_READ: Self = Self { limit: READ_ANSWER_LIMIT, again_every: Some(READ_AGAIN_EVERY) };
}

async fn put<T: DeserializeOwned>(
    connection: &Connection,
    operation: &str,
    body: &impl Serialize,
    patience: Patience,
) -> Result<T, ApiError> {
    let request = format!("$JS.API.{operation}");
    let payload = match serde_json::to_vec(body) {
        // Some requests must come with an empty body.
        Ok(payload) if payload == b"null" => Vec::new(),
        Ok(payload) => payload,
        Err(source) => return Err(ApiError::Unreadable { request, source }),
    };
    let answer = match answer(connection, &request, payload.into(), patience).await {
        Ok(answer) => answer,
        Err(source) => return Err(no_answer(request, patience.limit, source)),
    };
    match serde_json::from_slice(&answer.payload) {
        Ok(Envelope { error: Some(error), .. }) => {
            Err(ApiError::Refused { request, code: error.err_code, description: error.description })
        }
        Ok(Envelope { error: None, answer: Some(answer) }) => Ok(answer),
        // The flattened part hides why it did not fit: read it again alone to find out.
        Ok(Envelope { error: None, answer: None }) => serde_json::from_slice(&answer.payload)
            .map_err(|source| ApiError::Unreadable { request, source }),
        Err(source) => Err(ApiError::Unreadable { request, source }),
    }
}

/// The answer is lost with the connection that it was to come over; waiting for it would take all of the limit.
async fn answer(
    connection: &Connection,
    request: &str,
    payload: Bytes,
    patience: Patience,
) -> Result<Message, async_nats::RequestError> {
    let (client, mut link) = (&connection.client, connection.link.clone());
    let begun = Instant::now();
    let deadline = begun + patience.limit;
    let ask = || {
        let question = Request::new()
            .payload(payload.clone())
            .inbox(client.new_inbox())
            .timeout(Some(deadline.saturating_duration_since(Instant::now())));
        client.send_request(request.to_owned(), question)
    };
    let asking = async {
        let mut next = patience.again_every.map(|every| begun + every);
        loop {
            let before = link.borrow().interruptions;
            let mut asked = FuturesUnordered::from_iter([ask()]);
            loop {
                tokio::select! {
                    biased;
                    // Another one that is under way, or comes yet, may still be answered by who can.
                    Some(answer) = asked.next() => {
                        let is_last = asked.is_empty() && (next.is_none() || !is_unavailable(&answer));
                        if is_last || is_told(&answer) {
                            return answer;
                        }
                    }
                    // Closed for good, the question says so by itself.
                    Ok(_) = link.wait_for(|link| link.interruptions != before) => break,
                    () = sleep_until(next.unwrap_or(deadline)), if next.is_some() => {
                        // While nobody is connected it would only wait behind the others.
                        if connection.link.borrow().connected {
                            asked.push(ask());
                        }
                        next = next.zip(patience.again_every).map(|(at, every)| at + every);
                        next = next.filter(|at| *at < deadline);
                    }
                    // Nothing is under way, nothing more is asked, and the connection is closed for good.
                    else => return Err(async_nats::RequestError::new(RequestErrorKind::TimedOut)),
                }
            }
        }
    };
    // The library waits without a limit where too much is queued already.
    timeout_at(deadline, asking)
        .await
        .unwrap_or_else(|_| Err(async_nats::RequestError::new(RequestErrorKind::TimedOut)))
}

/// Whether an answer says more than that there is none at the moment.
fn is_told(answer: &Result<Message, async_nats::RequestError>) -> bool {
    match answer {
        Err(error) => {
            !matches!(error.kind(), RequestErrorKind::TimedOut | RequestErrorKind::NoResponders)
        }
        Ok(_) => !is_unavailable(answer),
    }
}

/// Whether it says that a leader is elected.
fn is_unavailable(answer: &Result<Message, async_nats::RequestError>) -> bool {
    answer.as_ref().is_ok_and(|message| {
        let read = serde_json::from_slice::<Envelope<serde::de::IgnoredAny>>(&message.payload);
        let code = read.ok().and_then(|envelope| envelope.error).map(|error| error.err_code);
        code == Some(SYSTEM_UNAVAILABLE)
    })
}

fn no_answer(request: String, limit: Duration, source: async_nats::RequestError) -> ApiError {
    match source.kind() {
        RequestErrorKind::TimedOut => ApiError::NoAnswer { request, limit },
        RequestErrorKind::NoResponders => ApiError::NoResponders { request },
        RequestErrorKind::InvalidSubject
        | RequestErrorKind::MaxPayloadExceeded
        | RequestErrorKind::Other => ApiError::NotSent { request, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_away_may_come_back_and_one_too_few_does_not() {
        let refused = |code, description: &str| {
            let (request, description) = ("$JS.API.STREAM.CREATE.A".to_owned(), description.into());
            ApiError::Refused { request, code, description }.is_transient()
        };

        assert!(refused(10008, "JetStream system temporarily unavailable"));
        assert!(refused(10118, "stream is offline"));
        assert!(refused(10005, "no suitable peers for placement, peer offline"));
        assert!(!refused(10005, "no suitable peers for placement"));
        assert!(!refused(10005, "no suitable peers for placement, insufficient storage"));
    }
}
