//! From a message's bytes to its events.

use serde_json::Deserializer;
use serde_json::value::RawValue;

use super::batch::{element_bytes, is_too_deep, trim, trim_start};
pub(super) use super::decode::Envelope;
use super::decode::Members;
use super::form::{is_utf8, split_type};
use super::rejection::{Problem, RejectReason, Rejected, excerpt};
use super::{Event, EventLimits, Subject};

type Outcome<'a> = Result<Event<'a>, Rejected<'a>>;

/// Decodes a message: one event, or each event of a batch, in order.
///
/// The message is a batch when its content type says so or when its first
/// byte, white space aside, is `[`. Event `i` of a batch is outcome `i`. In a
/// batch only the tenant has to agree with the subject; for a single event
/// the type has to agree too.
///
/// A message that is refused as a whole (not UTF-8, not JSON, too large, too
/// many events, unknown content type) is the only outcome, at index 0. In a
/// batch whose brackets are sound, an element that is no JSON is refused
/// alone. A batch without events is refused as a whole: it would leave no trace.
#[must_use]
pub fn decode_message<'a>(
    content_type: Option<&str>,
    payload: &'a [u8],
    subject: Subject<'a>,
    limits: &EventLimits,
) -> Vec<Outcome<'a>> {
    decode_text(content_type, payload, subject, limits)
        .unwrap_or_else(|problem| vec![Err(problem.at(0, payload))])
}

fn decode_text<'a>(
    content_type: Option<&str>,
    payload: &'a [u8],
    subject: Subject<'a>,
    limits: &EventLimits,
) -> Result<Vec<Outcome<'a>>, Problem> {
    let declared = Mode::from_content_type(content_type)?;
    if payload.len() > limits.message_bytes_max {
        return Err(Problem::message_too_large(payload.len(), limits));
    }
    let text = std::str::from_utf8(payload).map_err(|error| {
        Problem::new(RejectReason::NotUtf8, format!("the message is not UTF-8: {error}"))
    })?;
    let text = trim(text);
    if let Some(elements) = text.strip_prefix('[') {
        let envelope = Envelope { tenant: subject.tenant, kind: None };
        return decode_batch(elements, envelope, limits);
    }
    if declared == Mode::Batch {
        return Err(check_json(text).err().unwrap_or_else(|| {
            Problem::new(
                RejectReason::BadBatch,
                "the content type declares a batch, but the message is not a JSON array",
            )
        }));
    }
    let envelope = Envelope { tenant: subject.tenant, kind: Some(subject.kind) };
    Ok(vec![decode_alone(text, envelope, limits).map_err(|problem| problem.at(0, payload))])
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Any,
    Batch,
}

impl Mode {
    /// The mode by media type (RFC 9110, section 8.3.1), parameters aside
    /// except for a character set other than UTF-8.
    fn from_content_type(content_type: Option<&str>) -> Result<Self, Problem> {
        let Some(content_type) = content_type else { return Ok(Self::Any) };
        let (media_type, parameters) = split_type(content_type);
        let is = |name: &str| media_type.eq_ignore_ascii_case(name);
        let other_charset = !is_utf8(parameters);
        let single =
            ["", "application/cloudevents+json", "application/cloudevents", "application/json"];
        if !other_charset && is("application/cloudevents-batch+json") {
            return Ok(Self::Batch);
        }
        if !other_charset && single.into_iter().any(is) {
            return Ok(Self::Any);
        }
        Err(Problem::new(
            RejectReason::UnsupportedContentType,
            format!(
                "the content type is `{}`; send `application/cloudevents+json` or \
                 `application/cloudevents-batch+json` in UTF-8, the same with `+msgpack`, or \
                 attributes in headers `ce-*`",
                excerpt(content_type)
            ),
        ))
    }
}

/// Decodes `text`, which is to hold one event and nothing else.
pub(super) fn decode_alone<'a>(
    text: &'a str,
    envelope: Envelope<'a>,
    limits: &EventLimits,
) -> Result<Event<'a>, Problem> {
    if text.len() > limits.event_bytes_max {
        return Err(Problem::event_too_large(text.len(), limits));
    }
    if !text.starts_with('{') {
        check_json(text)?;
        return Err(Problem::new(
            RejectReason::NotAnObject,
            format!("an event is a JSON object, this is `{}`", excerpt(text)),
        ));
    }
    let mut members: Members<'a> =
        serde_json::from_str(text).map_err(|error| Problem::not_json(&error))?;
    finish(text, &mut members, envelope, limits)
}

fn finish<'a>(
    text: &'a str,
    members: &mut Members<'a>,
    envelope: Envelope<'a>,
    limits: &EventLimits,
) -> Result<Event<'a>, Problem> {
    if text.len() > limits.event_bytes_max {
        return Err(Problem::event_too_large(text.len(), limits));
    }
    if is_too_deep(text, limits.depth_max) {
        return Err(Problem::new(
            RejectReason::TooDeep,
            format!("the event nests deeper than {} levels; make it flatter", limits.depth_max),
        ));
    }
    members.take_event(text, envelope, limits)
}

/// Decodes what follows the opening bracket of a batch.
fn decode_batch<'a>(
    elements: &'a str,
    envelope: Envelope<'a>,
    limits: &EventLimits,
) -> Result<Vec<Outcome<'a>>, Problem> {
    let mut outcomes = Vec::new();
    let mut rest = trim_start(elements);
    if rest == "]" {
        return Err(Problem::empty_batch());
    }
    loop {
        if outcomes.len() >= limits.batch_events_max {
            return Err(Problem::too_many_in_batch(limits));
        }
        let (element, outcome) = decode_element(rest, envelope, limits)?;
        if outcomes.is_empty() {
            // Events of one batch are alike, so the first tells how many fit.
            let guess = rest.len() / element.len().max(1) + 1;
            outcomes.reserve(guess.min(limits.batch_events_max));
        }
        let index = u32::try_from(outcomes.len()).unwrap_or(u32::MAX);
        outcomes.push(outcome.map_err(|problem| problem.at(index, element.as_bytes())));
        rest = trim_start(rest.get(element.len()..).unwrap_or_default());
        match rest.strip_prefix(',') {
            Some(next) => rest = trim_start(next),
            None if rest == "]" => return Ok(outcomes),
            None => return Err(unsound_batch(outcomes.len())),
        }
    }
}

/// Decodes the first element of `rest`; `Err` when nothing ends it.
fn decode_element<'a>(
    rest: &'a str,
    envelope: Envelope<'a>,
    limits: &EventLimits,
) -> Result<(&'a str, Result<Event<'a>, Problem>), Problem> {
    if rest.starts_with('{') {
        // One pass: the parser says where the event ended.
        let mut events = Deserializer::from_str(rest).into_iter::<Members<'a>>();
        if let Some(Ok(mut members)) = events.next()
            && let Some(element) = rest.get(..events.byte_offset())
        {
            return Ok((element, finish(element, &mut members, envelope, limits)));
        }
    }
    let element = element_bytes(rest)
        .and_then(|bytes| rest.get(..bytes))
        .map(trim)
        .filter(|element| !element.is_empty())
        .ok_or_else(|| unsound_batch(0))?;
    Ok((element, decode_alone(element, envelope, limits)))
}

fn unsound_batch(before: usize) -> Problem {
    Problem::new(
        RejectReason::NotJson,
        format!(
            "the batch is not JSON: no comma or closing bracket where one belongs (after {before} events)"
        ),
    )
}

fn check_json(text: &str) -> Result<(), Problem> {
    serde_json::from_str::<&RawValue>(text).map(|_| ()).map_err(|error| Problem::not_json(&error))
}
