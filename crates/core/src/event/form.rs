//! The forms in which a message may hold events, and the one that all become.
//!
//! | form | when |
//! |---|---|
//! | structured JSON, one event or a batch | `Content-Type: application/cloudevents*`, or no header that says otherwise |
//! | structured MessagePack, one event or a batch | `application/cloudevents+msgpack`, `application/cloudevents-batch+msgpack` |
//! | binary: attributes in headers, data in the message | a header `ce-*`, and no `Content-Type: application/cloudevents*` |
//!
//! Everything behind the listener reads structured JSON. A message that is that
//! already is read where it lies ([`Form::Json`]); only the others are written
//! anew, event by event ([`Form::Converted`]).

use std::ops::Range;

use serde_json::value::RawValue;

use super::headers::MessageHeaders;
use super::message::{Envelope, decode_alone};
use super::msgpack::{Bounds, Outer, Writer, cut, extent, outer, push_base64};
use super::rejection::{Problem, RejectReason, Rejected, excerpt};
use super::view::push_string;
use super::{Event, EventLimits, Subject};

/// Media types of MessagePack: the registered one, and two that are in use.
const MSGPACK_TYPES: [&str; 3] =
    ["application/msgpack", "application/vnd.msgpack", "application/x-msgpack"];

/// How a message holds its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// Structured JSON: give it to [`super::decode_message`] as it is.
    Json,
    /// Another form: its events as structured JSON, in order.
    Converted(Vec<Converted>),
}

/// One event that was written anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// The event's JSON text, or why there is none: the stable reason, and what
    /// exactly is wrong.
    pub text: Result<String, (RejectReason, String)>,
    /// Where its own bytes are in the message.
    pub original: Range<usize>,
    /// Whether it is an event of a batch, which has a type of its own.
    pub of_batch: bool,
}

impl Converted {
    /// Decodes the event that was written anew. `payload` is the message that it
    /// came in.
    ///
    /// # Errors
    ///
    /// Why the event cannot be used, with its bytes as they came.
    pub fn decode<'a>(
        &'a self,
        index: u32,
        payload: &'a [u8],
        subject: Subject<'a>,
        limits: &EventLimits,
    ) -> Result<Event<'a>, Rejected<'a>> {
        let original = payload.get(self.original.clone()).unwrap_or(payload);
        let text = self.text.as_ref().map_err(|(reason, detail)| Rejected {
            index,
            reason: *reason,
            detail: detail.clone(),
            original,
        })?;
        let kind = (!self.of_batch).then_some(subject.kind);
        let envelope = Envelope { tenant: subject.tenant, kind };
        decode_alone(text, envelope, limits).map_err(|problem| problem.at(index, original))
    }
}

/// Finds out the form of a message, and writes its events anew where they are
/// not structured JSON.
#[must_use]
pub fn read_form(headers: &MessageHeaders<'_>, payload: &[u8], limits: &EventLimits) -> Form {
    match convert(headers, payload, limits) {
        Ok(None) => Form::Json,
        Ok(Some(events)) => Form::Converted(events),
        Err(problem) => {
            let text = Err((problem.reason, problem.detail));
            Form::Converted(vec![Converted { text, original: 0..payload.len(), of_batch: false }])
        }
    }
}

fn convert(
    headers: &MessageHeaders<'_>,
    payload: &[u8],
    limits: &EventLimits,
) -> Result<Option<Vec<Converted>>, Problem> {
    headers.check()?;
    let (media_type, _) = split_type(headers.content_type().unwrap_or_default());
    let is = |name: &str| media_type.eq_ignore_ascii_case(name);
    let msgpack = is("application/cloudevents+msgpack");
    let msgpack_batch = is("application/cloudevents-batch+msgpack");
    let structured = media_type
        .get(.."application/cloudevents".len())
        .is_some_and(|prefix| prefix.eq_ignore_ascii_case("application/cloudevents"));
    let binary = headers.has_attributes() && !structured;
    if !(msgpack || msgpack_batch || binary) {
        return Ok(None);
    }
    if payload.len() > limits.message_bytes_max {
        return Err(Problem::message_too_large(payload.len(), limits));
    }
    if binary {
        let text = binary_event(headers, payload, limits);
        let text = text.map_err(|problem| (problem.reason, problem.detail));
        return Ok(Some(vec![Converted { text, original: 0..payload.len(), of_batch: false }]));
    }
    match outer(payload).ok_or_else(cut)? {
        Outer::List(elements, rest) => msgpack_events(elements, rest, payload, limits).map(Some),
        Outer::Other if msgpack_batch => Err(Problem::new(
            RejectReason::BadBatch,
            "the content type declares a batch, but the message is not a MessagePack array",
        )),
        Outer::Other => {
            let event = msgpack_event(payload, 0..payload.len(), false, limits);
            Ok(Some(vec![event]))
        }
    }
}

fn msgpack_events(
    elements: usize,
    mut rest: &[u8],
    payload: &[u8],
    limits: &EventLimits,
) -> Result<Vec<Converted>, Problem> {
    if elements > limits.batch_events_max {
        return Err(Problem::too_many_in_batch(limits));
    }
    let mut events = Vec::with_capacity(elements);
    for _ in 0..elements {
        let start = payload.len() - rest.len();
        let bytes = extent(rest).ok_or_else(cut)?;
        events.push(msgpack_event(payload, start..start + bytes, true, limits));
        rest = rest.get(bytes..).unwrap_or_default();
    }
    if rest.is_empty() {
        return if events.is_empty() { Err(Problem::empty_batch()) } else { Ok(events) };
    }
    Err(Problem::new(RejectReason::NotMsgpack, format!("{} bytes follow the batch", rest.len())))
}

fn msgpack_event(
    payload: &[u8],
    original: Range<usize>,
    of_batch: bool,
    limits: &EventLimits,
) -> Converted {
    let bytes = payload.get(original.clone()).unwrap_or_default();
    let writer = Writer::new(bytes, String::with_capacity(bytes.len() * 2), bounds(limits));
    let text = writer.event().map_err(|problem| (problem.reason, problem.detail));
    Converted { text, original, of_batch }
}

fn bounds(limits: &EventLimits) -> Bounds {
    Bounds { depth_max: limits.depth_max, bytes_max: limits.event_bytes_max }
}

/// The event whose attributes are headers and whose data is the message.
fn binary_event(
    headers: &MessageHeaders<'_>,
    payload: &[u8],
    limits: &EventLimits,
) -> Result<String, Problem> {
    let mut attributes = headers.attributes()?;
    let named = attributes.iter().find(|(name, _)| name == "datacontenttype");
    let data_type = match (named, headers.content_type()) {
        (Some((_, named)), Some(content_type)) if !named.eq_ignore_ascii_case(content_type) => {
            return Err(Problem::new(
                RejectReason::AmbiguousHeaders,
                format!(
                    "`ce-datacontenttype` is `{}` and `Content-Type` is `{}`; they must agree",
                    excerpt(named),
                    excerpt(content_type)
                ),
            ));
        }
        (Some((_, named)), _) => Some(named.clone()),
        (None, content_type) => content_type.map(str::to_owned),
    };
    let encoding = Encoding::of(data_type.as_deref())?;
    attributes.retain(|(name, _)| name != "datacontenttype");
    let described = match encoding {
        // From here on the data is JSON, whatever it was.
        Encoding::Msgpack => Some("application/json".to_owned()),
        Encoding::Json | Encoding::Text | Encoding::Other => data_type,
    };
    let mut text = String::with_capacity(payload.len() * 2 + 256);
    text.push('{');
    let described = described.map(|described| ("datacontenttype".to_owned(), described));
    for (name, value) in attributes.into_iter().chain(described) {
        push_member(&mut text, &name);
        push_string(&mut text, &value);
    }
    if payload.is_empty() {
        text.push('}');
        return Ok(text);
    }
    match encoding {
        Encoding::Json => {
            push_member(&mut text, "data");
            text.push_str(json_text(payload)?);
        }
        Encoding::Msgpack => {
            text.push(',');
            text = Writer::new(payload, text, bounds(limits)).data_member()?;
        }
        Encoding::Text | Encoding::Other => match std::str::from_utf8(payload) {
            Ok(data) if encoding == Encoding::Text => {
                push_member(&mut text, "data");
                push_string(&mut text, data);
            }
            Ok(_) | Err(_) => {
                push_member(&mut text, "data_base64");
                text.push('"');
                push_base64(&mut text, payload);
                text.push('"');
            }
        },
    }
    text.push('}');
    Ok(text)
}

fn push_member(text: &mut String, name: &str) {
    if !text.ends_with('{') {
        text.push(',');
    }
    push_string(text, name);
    text.push(':');
}

/// The payload as the text of one JSON value, so that it can stand within another.
fn json_text(payload: &[u8]) -> Result<&str, Problem> {
    let text = std::str::from_utf8(payload).map_err(|error| {
        Problem::new(RejectReason::NotUtf8, format!("the data is not UTF-8: {error}"))
    })?;
    match serde_json::from_str::<&RawValue>(text) {
        Ok(value) => Ok(value.get()),
        Err(error) => Err(Problem::not_json(&error)),
    }
}

/// What the data of a binary message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Json,
    Msgpack,
    /// `text/*` in UTF-8, as far as its parameters say.
    Text,
    Other,
}

impl Encoding {
    /// By media type; JSON where none is named, as in structured mode.
    pub(super) fn of(content_type: Option<&str>) -> Result<Self, Problem> {
        let Some(content_type) = content_type else { return Ok(Self::Json) };
        let (media_type, parameters) = split_type(content_type);
        let is = |name: &str| media_type.eq_ignore_ascii_case(name);
        if MSGPACK_TYPES.into_iter().any(is) {
            return Ok(Self::Msgpack);
        }
        let suffix = media_type.rsplit_once('+').map_or("", |(_, suffix)| suffix);
        let json = is("application/json") || is("text/json") || suffix.eq_ignore_ascii_case("json");
        if !json {
            let prefix = media_type.get(.."text/".len());
            let text = prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case("text/"));
            return Ok(if text && is_utf8(parameters) { Self::Text } else { Self::Other });
        }
        if is_utf8(parameters) {
            return Ok(Self::Json);
        }
        Err(Problem::new(
            RejectReason::UnsupportedContentType,
            format!("the data is `{}`; send JSON in UTF-8", excerpt(content_type)),
        ))
    }
}

/// Media type and parameters (RFC 9110, section 8.3.1).
pub(super) fn split_type(content_type: &str) -> (&str, &str) {
    let (media_type, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    (media_type.trim(), parameters)
}

/// Whether the parameters name no other character set than UTF-8 or its part ASCII.
pub(super) fn is_utf8(parameters: &str) -> bool {
    let named = parameters.split(';').filter_map(|parameter| parameter.split_once('='));
    named.filter(|(name, _)| name.trim().eq_ignore_ascii_case("charset")).all(|(_, value)| {
        let value = value.trim().trim_matches('"');
        value.eq_ignore_ascii_case("utf-8") || value.eq_ignore_ascii_case("us-ascii")
    })
}
