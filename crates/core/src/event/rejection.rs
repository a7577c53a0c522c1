//! Input that is no usable event.

use std::fmt;

use super::EventLimits;
use super::masking::{MASK, is_secret_name};
use crate::json;

/// Why input was refused; the codes are stable and stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RejectReason {
    /// The text is not JSON.
    NotJson,
    /// The bytes are not UTF-8.
    NotUtf8,
    /// JSON, but not an object.
    NotAnObject,
    /// Declared as a batch, but not an array, or a batch without events.
    BadBatch,
    /// `specversion`, `id`, `source` or `type` is absent.
    MissingAttribute,
    /// An attribute's name or value breaks a rule.
    BadAttribute,
    /// The same attribute twice.
    DuplicateAttribute,
    /// `specversion` is not `1.0`.
    UnsupportedSpecversion,
    /// The event names another tenant than its subject.
    TenantMismatch,
    /// The event names another type than its subject.
    TypeMismatch,
    /// Nested deeper than the limit.
    TooDeep,
    /// Longer than the limit for an event or for a message.
    TooLarge,
    /// More events in one batch than the limit.
    TooManyInBatch,
    /// The message's subject names no tenant and type.
    BadSubject,
    /// The message's content type is none that is read here.
    UnsupportedContentType,
    /// The bytes are no MessagePack, or MessagePack that JSON has no form for.
    NotMsgpack,
    /// The same key twice in a map of MessagePack data.
    DuplicateKey,
    /// A `ce-*` header's value cannot be decoded.
    BadHeader,
    /// Two headers contradict each other.
    AmbiguousHeaders,
}

impl RejectReason {
    /// Every reason.
    pub const ALL: [Self; 19] = [
        Self::NotJson,
        Self::NotUtf8,
        Self::NotAnObject,
        Self::BadBatch,
        Self::MissingAttribute,
        Self::BadAttribute,
        Self::DuplicateAttribute,
        Self::UnsupportedSpecversion,
        Self::TenantMismatch,
        Self::TypeMismatch,
        Self::TooDeep,
        Self::TooLarge,
        Self::TooManyInBatch,
        Self::BadSubject,
        Self::UnsupportedContentType,
        Self::NotMsgpack,
        Self::DuplicateKey,
        Self::BadHeader,
        Self::AmbiguousHeaders,
    ];

    /// The stable code.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::NotUtf8 => "not_utf8",
            Self::NotAnObject => "not_an_object",
            Self::BadBatch => "bad_batch",
            Self::MissingAttribute => "missing_attribute",
            Self::BadAttribute => "bad_attribute",
            Self::DuplicateAttribute => "duplicate_attribute",
            Self::UnsupportedSpecversion => "unsupported_specversion",
            Self::TenantMismatch => "tenant_mismatch",
            Self::TypeMismatch => "type_mismatch",
            Self::TooDeep => "too_deep",
            Self::TooLarge => "too_large",
            Self::TooManyInBatch => "too_many_in_batch",
            Self::BadSubject => "bad_subject",
            Self::UnsupportedContentType => "unsupported_content_type",
            Self::NotMsgpack => "not_msgpack",
            Self::DuplicateKey => "duplicate_key",
            Self::BadHeader => "bad_header",
            Self::AmbiguousHeaders => "ambiguous_headers",
        }
    }
}

impl fmt::Display for RejectReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// One event, or one whole message, that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected<'a> {
    /// Place in the batch, from 0; 0 too when the message is refused whole.
    pub index: u32,
    /// The stable reason.
    pub reason: RejectReason,
    /// What exactly is wrong, for a person; at most a few hundred bytes.
    pub detail: String,
    /// The refused bytes: the event's, or the whole message's.
    pub original: &'a [u8],
}

/// What is wrong with an event, before it is known where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub reason: RejectReason,
    pub detail: String,
}

impl Problem {
    pub fn new(reason: RejectReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    pub fn bad_attribute(detail: impl Into<String>) -> Self {
        Self::new(RejectReason::BadAttribute, detail)
    }

    /// What stands in the text is not told: it may be a secret, and a detail is stored and shown.
    pub fn not_json(error: &serde_json::Error) -> Self {
        let why = json::told(error, "");
        Self::new(RejectReason::NotJson, format!("the text is not JSON: {why}"))
    }

    pub fn event_too_large(bytes: usize, limits: &EventLimits) -> Self {
        let limit = limits.event_bytes_max;
        Self::new(
            RejectReason::TooLarge,
            format!(
                "the event has {bytes} bytes, the limit is {limit}; store the payload elsewhere and refer to it"
            ),
        )
    }

    pub fn message_too_large(bytes: usize, limits: &EventLimits) -> Self {
        let limit = limits.message_bytes_max;
        Self::new(
            RejectReason::TooLarge,
            format!("the message has {bytes} bytes, the limit is {limit}; send smaller batches"),
        )
    }

    pub fn empty_batch() -> Self {
        Self::new(RejectReason::BadBatch, "the batch holds no event")
    }

    pub fn too_many_in_batch(limits: &EventLimits) -> Self {
        Self::new(
            RejectReason::TooManyInBatch,
            format!("the batch has more than {} events; split it", limits.batch_events_max),
        )
    }

    pub fn at(self, index: u32, original: &[u8]) -> Rejected<'_> {
        Rejected { index, reason: self.reason, detail: self.detail, original }
    }
}

/// An excerpt of the value that `name` has; of a secret nothing.
pub(super) fn excerpt_of(name: &str, value: &str) -> String {
    if is_secret_name(name) { MASK.to_owned() } else { excerpt(value) }
}

/// At most 80 characters of `text`, for a message to a person.
pub(super) fn excerpt(text: &str) -> String {
    let mut short: String = text.chars().take(80).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
