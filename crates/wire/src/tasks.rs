//! Attempts on their way to the workers of a named queue, and who may be told of them.
//!
//! ```text
//! envelope{kind: "task", version: 1, body}
//! body{run, node, activation, attempt, tenant, queue, timeout_ms, due, idempotent?, traceparent?,
//!      completion?, work}
//! ```
//!
//! A message is named by its effect and attempt, so that the broker recognises
//! a copy, and a worker that cannot read it can still say what it was.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use fermata_core::effect::{Attempt, AttemptWork, EffectKey, QueuedAttempt};
use fermata_core::identity::{JournalTime, RunId, Tenant};
use fermata_core::plan::Completion;
use serde::{Deserialize, Serialize};

use crate::envelope::{MessageKind, WireError, decode_message, encode_message};

/// One attempt, for whoever serves its queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskMessage {
    run: RunId,
    node: Arc<str>,
    activation: u32,
    attempt: u32,
    tenant: Tenant,
    queue: Arc<str>,
    timeout_ms: u64,
    /// When the attempt counts as failed, journal time.
    pub due: JournalTime,
    /// Whether it may be run more than once.
    #[serde(default, skip_serializing_if = "is_false")]
    pub idempotent: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    completion: Option<Completion>,
    work: AttemptWork,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

impl TaskMessage {
    /// The message of an ordered attempt.
    #[must_use]
    pub fn new(queued: &QueuedAttempt) -> Self {
        let attempt = &queued.attempt;
        Self {
            run: attempt.run,
            node: attempt.node.clone(),
            activation: attempt.activation,
            attempt: attempt.attempt,
            tenant: attempt.tenant.clone(),
            queue: queued.queue.clone(),
            timeout_ms: attempt.timeout_ms,
            due: queued.due,
            idempotent: queued.idempotent,
            traceparent: attempt.traceparent.clone(),
            completion: match attempt.completion {
                Completion::Answer => None,
                Completion::Callback => Some(Completion::Callback),
            },
            work: attempt.work.clone(),
        }
    }

    /// The attempt that it orders.
    #[must_use]
    pub fn into_attempt(self) -> Attempt {
        Attempt {
            run: self.run,
            node: self.node,
            activation: self.activation,
            attempt: self.attempt,
            tenant: self.tenant,
            timeout_ms: self.timeout_ms,
            traceparent: self.traceparent,
            work: self.work,
            completion: self.completion.unwrap_or_default(),
        }
    }

    /// Decodes a message.
    ///
    /// # Errors
    ///
    /// [`WireError`], naming what is wrong; never panics, on any bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        decode_message(MessageKind::Task, bytes)
    }

    /// Encodes the message.
    ///
    /// # Errors
    ///
    /// [`WireError::TooLarge`] over the size cap; no attempt of ours is.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        encode_message(MessageKind::Task, self)
    }
}

/// Names the message of an attempt for ever: `run/node/activation/attempt`.
///
/// It is the message's id, by which the broker tells a copy, and the text by
/// which whoever runs the attempt is told to stop.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TaskId {
    /// The run.
    pub run: RunId,
    /// The node.
    pub node: Arc<str>,
    /// Activation of the node.
    pub activation: u32,
    /// The attempt.
    pub attempt: u32,
}

impl TaskId {
    /// The id of an attempt's message.
    #[must_use]
    pub fn of(attempt: &Attempt) -> Self {
        Self {
            run: attempt.run,
            node: attempt.node.clone(),
            activation: attempt.activation,
            attempt: attempt.attempt,
        }
    }
}

impl TaskId {
    /// The id of the attempt that a message with this id carries: its own text, or
    /// that with `/back-…` behind it where a worker has handed it back.
    #[must_use]
    pub fn of_message(id: &str) -> Option<Self> {
        let attempt = match id.rsplit_once('/') {
            Some((attempt, last)) if last.starts_with(HANDED_BACK) => attempt,
            _ => id,
        };
        attempt.parse().ok()
    }
}

impl TaskId {
    /// The id of the message in which a worker hands the attempt back that message
    /// `sequence` of the queue carried.
    #[must_use]
    pub fn handed_back(&self, sequence: u64) -> String {
        format!("{self}/{HANDED_BACK}{sequence}")
    }
}

/// How the last part of a message's id begins that a worker has handed back.
const HANDED_BACK: &str = "back-";

impl fmt::Display for TaskId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = EffectKey::of_node(self.run, self.node.clone(), self.activation);
        write!(formatter, "{key}/{}", self.attempt)
    }
}

/// Text that names no attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no `run/node/activation/attempt`")]
pub struct NotATaskId;

impl FromStr for TaskId {
    type Err = NotATaskId;

    fn from_str(text: &str) -> Result<Self, NotATaskId> {
        let mut parts = text.split('/');
        let mut next = || parts.next().filter(|part| !part.is_empty()).ok_or(NotATaskId);
        let (run, node, activation, attempt) = (next()?, next()?, next()?, next()?);
        if parts.next().is_some() {
            return Err(NotATaskId);
        }
        Ok(Self {
            run: run.parse().map_err(|_| NotATaskId)?,
            node: node.into(),
            activation: activation.parse().map_err(|_| NotATaskId)?,
            attempt: attempt.parse().map_err(|_| NotATaskId)?,
        })
    }
}
