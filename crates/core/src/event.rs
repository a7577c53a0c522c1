//! CloudEvents 1.0 in: decoding, limits, the idempotency key.
//!
//! A message holds one event in structured JSON mode or a JSON batch of them
//! (CloudEvents 1.0.2, "JSON Event Format"), or is in another of the forms that
//! [`read_form`] knows and writes anew as the first. [`decode_message`] borrows from
//! the payload: an event without escapes in its attributes costs no allocation.
//! What is no event becomes a [`Rejected`] with a stable [`RejectReason`] and
//! its original bytes, and never spoils its neighbours in the batch.

mod attribute;
mod batch;
mod binary;
mod decode;
mod form;
#[cfg(test)]
mod form_laws;
#[cfg(test)]
mod form_tests;
mod headers;
mod hops;
#[cfg(test)]
mod laws;
mod masking;
mod message;
mod msgpack;
pub(crate) mod number;
mod payload;
mod rejection;
mod replayed;
pub(crate) mod selection;
mod subject;
#[cfg(test)]
mod tests;
mod view;

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::digest::hash_parts_128;

pub(crate) use attribute::is_rfc3339;
pub use binary::{BinaryMessage, DataForm};
pub use form::{Converted, Form, read_form};
pub use headers::{ATTRIBUTE_HEADER_PREFIX, MessageHeaders, REPLAY_HEADER, header_value};
pub use hops::{HOPS_ATTRIBUTE, HOPS_MAX};
pub use masking::{MASK, Masked, SECRET_NAMES, is_secret_name, masked};
pub use message::decode_message;
pub use msgpack::msgpack_of_json;
pub use payload::{DATADIGEST_ATTRIBUTE, DATAREF_ATTRIBUTE, PAYLOADS_BUCKET, PayloadReference};
pub use rejection::{RejectReason, Rejected};
pub use replayed::{
    REPLAY_REASON_ATTRIBUTE, REPLAY_REASON_BYTES_MAX, REPLAY_UNLESS_ATTRIBUTE,
    REPLAYED_BY_ATTRIBUTE, REPLAYED_BY_BYTES_MAX, UNLESS_STARTED,
};
pub use selection::LIST_VALUES_MAX;
pub use subject::{SUBJECT_PREFIX, Subject, SubjectError, parse_subject};
pub(crate) use subject::{is_plain_type, no_plain_type};

/// Longest JSON text of one event in bytes, unless configured otherwise:
/// larger payloads belong in an object store with a reference in the event.
pub const EVENT_BYTES_MAX: usize = 256 * 1024;
/// Longest message in bytes: the broker's default payload limit.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Most events in one batch: bounds what one message can cost.
pub const BATCH_EVENTS_MAX: usize = 10_000;
/// Deepest nesting of an event's JSON, the event's own object being level 1:
/// half of what the JSON parser would follow, so that a value that was
/// admitted can be wrapped and parsed again anywhere.
pub const EVENT_DEPTH_MAX: usize = 64;
/// Longest attribute value in bytes: what is commonly accepted for a URI.
pub const ATTRIBUTE_BYTES_MAX: usize = 2048;
/// Longest event type in bytes: it travels in a subject.
pub const TYPE_BYTES_MAX: usize = 256;
/// Longest attribute name in bytes; CloudEvents advises 20.
pub const ATTRIBUTE_NAME_BYTES_MAX: usize = 64;
/// Most extension attributes of one event.
pub const EXTENSIONS_MAX: usize = 64;

/// What decoding accepts; what exceeds a limit is rejected, never cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventLimits {
    /// Longest JSON text of one event, in bytes.
    pub event_bytes_max: usize,
    /// Longest message, in bytes.
    pub message_bytes_max: usize,
    /// Most events in one batch; a longer batch is rejected as a whole.
    pub batch_events_max: usize,
    /// Deepest nesting, the event's own object being level 1; at most 100.
    pub depth_max: usize,
    /// Longest attribute value, in bytes.
    pub attribute_bytes_max: usize,
}

impl Default for EventLimits {
    fn default() -> Self {
        Self {
            event_bytes_max: EVENT_BYTES_MAX,
            message_bytes_max: MESSAGE_BYTES_MAX,
            batch_events_max: BATCH_EVENTS_MAX,
            depth_max: EVENT_DEPTH_MAX,
            attribute_bytes_max: ATTRIBUTE_BYTES_MAX,
        }
    }
}

/// One business event, borrowed from its message.
#[derive(Debug, Clone)]
pub struct Event<'a> {
    /// Who owns the event: the tenant of the subject, which the extension
    /// attribute `tenant`, where present, repeats.
    pub tenant: &'a str,
    /// `id`: with `source`, what the producer calls this event.
    pub id: Cow<'a, str>,
    /// `source`: where it happened; a URI reference.
    pub source: Cow<'a, str>,
    /// `type`: what happened; tokens separated by dots.
    pub kind: Cow<'a, str>,
    /// `time`: when it happened, RFC 3339.
    pub time: Option<Cow<'a, str>>,
    /// `subject`: about what it happened.
    pub subject: Option<Cow<'a, str>>,
    /// `datacontenttype`: media type of `data`; JSON where absent.
    pub datacontenttype: Option<Cow<'a, str>>,
    /// `dataschema`: URI of the schema that `data` adheres to.
    pub dataschema: Option<Cow<'a, str>>,
    /// `traceparent` (W3C Trace Context, section 3.2); absent where its form
    /// is not valid, as that recommendation asks.
    pub traceparent: Option<Cow<'a, str>>,
    /// Extension `idempotencykey`: what replaces source and id as the key.
    pub idempotency_key: Option<Cow<'a, str>>,
    /// Extension `correlationkey`: what a waiting run is found by.
    pub correlation_key: Option<Cow<'a, str>>,
    /// Every other extension attribute in the order of the text: a JSON
    /// string, boolean or 32-bit integer.
    pub extensions: Vec<(Cow<'a, str>, &'a RawValue)>,
    /// `data` as JSON text.
    pub data: Option<&'a RawValue>,
    /// `data_base64`: binary data; never beside `data`.
    pub data_base64: Option<Cow<'a, str>>,
    /// The whole event's JSON text as it arrived.
    pub raw: &'a str,
}

impl Event<'_> {
    /// The key by which a repeat is recognised, see [`idempotency_of`].
    #[must_use]
    pub fn idempotency(&self) -> u128 {
        idempotency_of(self.tenant, self.idempotency_key.as_deref(), &self.source, &self.id)
    }
}

/// The key by which a repeat is recognised: the tenant with the idempotency key, or else with
/// source and id.
#[must_use]
pub fn idempotency_of(tenant: &str, key: Option<&str>, source: &str, id: &str) -> u128 {
    let tenant = tenant.as_bytes();
    match key {
        Some(key) => hash_parts_128(&[b"event-key", tenant, b"key", key.as_bytes()]),
        None => {
            let (source, id) = (source.as_bytes(), id.as_bytes());
            hash_parts_128(&[b"event-key", tenant, b"source-id", source, id])
        }
    }
}
