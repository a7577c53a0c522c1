//! Frames between intake stages: the same values in memory when the stages are
//! fused in one process, and on streams when they run apart.

use std::sync::Arc;

use fermata_core::command::{Correlation, EventReference};
use fermata_core::digest::Digest;
use fermata_core::identity::SourcePosition;
use fermata_core::json::Json;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::envelope::{
    ENVELOPE_BYTES_MAX, Envelope, MessageKind, WireError, decode_message, encode_message, read,
    write_named,
};

/// Stands for the key of what could not be decoded and so has none.
pub const NO_KEY: [u8; 16] = [0; 16];

/// Events that the listener admitted or refused, in order of arrival.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdmittedFrame {
    /// At least one.
    pub events: Vec<AdmittedEvent>,
}

/// One event behind the listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdmittedEvent {
    /// Who and what.
    pub event: EventReference,
    /// First half of the idempotency key's hash.
    #[serde(with = "serde_bytes")]
    pub key: [u8; 16],
    /// Where it stood in EVENTS.
    pub source: SourcePosition,
    /// Tells an authorised replay from a repeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<Uuid>,
    /// Whether it can be used.
    pub admission: Admission,
    /// For those who wait for it; absent where it has no correlation key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation: Option<Box<Correlation>>,
}

/// Whether an event can be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Admission {
    /// It can.
    Admitted {
        /// The event's JSON text as it arrived.
        raw: bytes::Bytes,
    },
    /// It cannot; its bytes are in the dead-letter stream.
    Rejected(Rejection),
}

/// Why an event cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rejection {
    /// Stable reason code.
    pub reason: Arc<str>,
    /// For people.
    pub detail: String,
    /// Digest of the original bytes.
    pub original: Digest,
}

/// Events that the matcher decided, in order of arrival.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatchedFrame {
    /// At least one.
    pub events: Vec<MatchedEvent>,
}

/// One event behind the matcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatchedEvent {
    /// Who and what.
    pub event: EventReference,
    /// First half of the idempotency key's hash.
    #[serde(with = "serde_bytes")]
    pub key: [u8; 16],
    /// Where it stood in EVENTS.
    pub source: SourcePosition,
    /// Tells an authorised replay from a repeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<Uuid>,
    /// What the strategies say.
    pub outcome: MatchOutcome,
    /// For those who wait for it; absent where it has no correlation key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation: Option<Box<Correlation>>,
}

/// What the strategies say about an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum MatchOutcome {
    /// These workflows are to run.
    Start {
        /// At least one.
        chosen: Vec<ChosenWorkflow>,
        /// The event's JSON text as it arrived, should it be refused after all.
        raw: bytes::Bytes,
    },
    /// A strategy says that nothing is to happen.
    Ignored {
        /// The strategy.
        strategy: Arc<str>,
    },
    /// No strategy applies.
    Unmatched {
        /// Strategies whose type matched and why they did not apply.
        near: Vec<String>,
    },
    /// The event cannot be used.
    Rejected(Rejection),
}

/// A workflow that a strategy chose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChosenWorkflow {
    /// The strategy.
    pub strategy: Arc<str>,
    /// Its version.
    pub strategy_version: u32,
    /// Name of the workflow.
    pub workflow: Arc<str>,
    /// Version of the workflow.
    pub workflow_version: Arc<str>,
    /// What the run will see as `input`.
    pub variables: Json,
}

/// Stands in the stream of admitted events for those that wait in lanes: it is acknowledged only
/// after everything in WAITING up to a sequence is.
///
/// A program that does not know it cannot acknowledge it: its version is newer than any that a
/// program reads as events, and such a message waits for a newer program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitingMark {
    /// The sequence of WAITING.
    pub up_to: u64,
}

impl WaitingMark {
    /// Version of its envelope, which no layout of events will ever have.
    pub const VERSION: u16 = u16::MAX;

    /// Encodes it for the stream of admitted events.
    ///
    /// # Errors
    ///
    /// The encoder's; no mark meets one.
    pub fn encode(self) -> Result<Vec<u8>, WireError> {
        let mut body = Vec::new();
        write_named(&mut body, &self)?;
        let envelope = Envelope::new(MessageKind::Admitted, None, &body);
        Envelope { version: Self::VERSION, ..envelope }.encode()
    }

    /// The mark that the bytes are; nothing where they are anything else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > ENVELOPE_BYTES_MAX {
            return None;
        }
        let envelope: Envelope<'_> = read("mark", bytes).ok()?;
        let is_mark = envelope.kind == MessageKind::Admitted && envelope.version == Self::VERSION;
        is_mark.then(|| read("mark", envelope.body).ok()).flatten()
    }
}

/// A frame that stages pass on.
pub trait StageFrame: Sized + Send + 'static {
    /// Encodes the frame for a stream.
    ///
    /// # Errors
    ///
    /// [`WireError::TooLarge`] over the size cap.
    fn encode(&self) -> Result<Vec<u8>, WireError>;

    /// Decodes a frame from a stream.
    ///
    /// # Errors
    ///
    /// [`WireError`], naming what is wrong.
    fn decode(bytes: &[u8]) -> Result<Self, WireError>;

    /// Cuts the frame in two where it has more than one event.
    fn halve(self) -> (Self, Option<Self>);

    /// The mark that stands in the stream of these frames, where the bytes are one.
    fn mark(_bytes: &[u8]) -> Option<WaitingMark> {
        None
    }
}

impl StageFrame for AdmittedFrame {
    fn encode(&self) -> Result<Vec<u8>, WireError> {
        encode_message(MessageKind::Admitted, self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        decode_message(MessageKind::Admitted, bytes)
    }

    fn halve(mut self) -> (Self, Option<Self>) {
        let rest = split(&mut self.events);
        (self, rest.map(|events| Self { events }))
    }

    fn mark(bytes: &[u8]) -> Option<WaitingMark> {
        WaitingMark::decode(bytes)
    }
}

impl StageFrame for MatchedFrame {
    fn encode(&self) -> Result<Vec<u8>, WireError> {
        encode_message(MessageKind::Matched, self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        decode_message(MessageKind::Matched, bytes)
    }

    fn halve(mut self) -> (Self, Option<Self>) {
        let rest = split(&mut self.events);
        (self, rest.map(|events| Self { events }))
    }
}

fn split<T>(events: &mut Vec<T>) -> Option<Vec<T>> {
    (events.len() > 1).then(|| events.split_off(events.len() / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_one_and_kept_for_a_newer_program_by_those_that_know_none() {
        let bytes = WaitingMark { up_to: 7 }.encode().expect("a small message");

        assert_eq!(AdmittedFrame::mark(&bytes), Some(WaitingMark { up_to: 7 }));
        // What a program does that knows nothing of marks: it holds the message back for ever.
        let refused = AdmittedFrame::decode(&bytes).expect_err("no frame");
        assert!(matches!(refused, WireError::NewerVersion { .. }), "{refused:?}");
    }

    #[test]
    fn no_frame_is_a_mark() {
        let frame = AdmittedFrame { events: Vec::new() }.encode().expect("a small message");

        assert_eq!(AdmittedFrame::mark(&frame), None);
        assert_eq!(AdmittedFrame::mark(b""), None);
    }
}
