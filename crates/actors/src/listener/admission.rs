//! From messages to what is admitted, and to what is not.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use fermata_core::command::{Correlation, EventReference, Replayed};
use fermata_core::event::{
    Event, EventLimits, Form, MessageHeaders, RejectReason, Rejected, decode_message,
    parse_subject, read_form,
};
use fermata_core::identity::{SourcePosition, Tenant};
use fermata_core::relay::SignalData;
use fermata_jetstream::Headers;
use fermata_wire::replay::{ReplayHeaders, ReplayKeys};
use fermata_wire::stages::{Admission, AdmittedEvent};
use serde::Deserialize;
use uuid::Uuid;

use super::Arrived;
use super::outcomes::{ONE_EVENT, Outcomes, Refusal};
use super::replaying::{self, Refused, Verified};
use crate::contracts::{Contracts, Verdict};
use crate::trace;

/// Texts that are kept to be shared between events, at the most. Types, sources
/// and tenants are few; an id is never kept.
const SHARED_TEXTS_MAX: usize = 10_000;

/// Bytes of headers that are kept with a dead letter, at the most: they are
/// there to read its bytes with, and a broker takes far longer ones.
const HEADER_BYTES_MAX: usize = 64 * 1024;

/// Reason code of an event whose `dataref` is ours and cannot be followed.
const BAD_PAYLOAD_REFERENCE: &str = "bad_payload_reference";

/// Tenant under which what names no valid tenant is filed.
pub const NO_TENANT: &str = "unknown";

/// What is said about an event besides itself.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// In its batch.
    index: u32,
    /// The context in which its message was sent.
    trace: Option<&'a str>,
    /// The id under which it is decided once more.
    replay: Option<Uuid>,
    /// Who asked for that, and why.
    replayed: Option<&'a Arc<Replayed>>,
    /// What its data has to adhere to.
    contracts: &'a Contracts,
}

impl<'a> Place<'a> {
    /// That of an event which comes for the first time, as far as anybody says.
    fn of_event(index: u32, trace: Option<&'a str>, contracts: &'a Contracts) -> Self {
        Self { index, trace, replay: None, replayed: None, contracts }
    }
}

/// Texts shared between events.
#[derive(Debug, Default)]
pub(super) struct Shared {
    texts: HashMap<String, Arc<str>>,
    tenants: HashMap<String, Tenant>,
}

/// The names and values of a message's headers.
pub(super) fn pairs(headers: Option<&Headers>) -> impl Iterator<Item = (&str, &str)> {
    headers.into_iter().flat_map(Headers::iter).flat_map(|(name, values)| {
        values.iter().map(move |value| (AsRef::<str>::as_ref(name), value.as_str()))
    })
}

impl Shared {
    /// Admits or refuses each event of a message.
    pub(super) fn admit(
        &mut self,
        message: &Arrived,
        limits: &EventLimits,
        keys: &ReplayKeys,
        contracts: &Contracts,
        out: &mut Outcomes,
    ) {
        let payload = &message.payload;
        out.steps.next_message();
        let subject = match parse_subject(&message.subject) {
            Ok(subject) => subject,
            Err(error) => {
                let (reason, detail) = (RejectReason::BadSubject, error.to_string());
                let rejected = Rejected { index: 0, reason, detail, original: payload };
                return self.reject(&rejected, NO_TENANT, message, None, out);
            }
        };
        if let Some(fault) = message.fault {
            let detail = format!("{fault}; what cannot be read of it is not kept");
            let (reason, index) = (RejectReason::BadHeader, 0);
            let rejected = Rejected { index, reason, detail, original: payload };
            return self.reject(&rejected, subject.tenant, message, None, out);
        }
        let headers = MessageHeaders::new(pairs(message.headers.as_ref()));
        if headers.asks_for_replay() {
            let signed = ReplayHeaders::new(pairs(message.headers.as_ref()));
            let time_ms = message.time_ms;
            match replaying::verified(keys, signed, payload, subject, limits, time_ms) {
                Ok(Verified { replay, replayed, event }) => {
                    let (trace, replayed) = (headers.traceparent(), replayed.as_ref());
                    let replay = Some(replay);
                    let place = Place { index: 0, trace, replay, replayed, contracts };
                    self.admit_event(&event, payload.clone(), place, message, out);
                }
                Err(refused) => {
                    self.refuse(&refused, 0, payload, subject.tenant, message, None, out)
                }
            }
            return;
        }
        match read_form(&headers, payload, limits) {
            Form::Json => {
                let outcomes = decode_message(headers.content_type(), payload, subject, limits);
                // What a batch was sent in says nothing about one event of it.
                let trace = headers.traceparent().filter(|_| outcomes.len() == 1);
                let of_batch = payload.trim_ascii_start().first() == Some(&b'[');
                let element = of_batch.then_some(ONE_EVENT);
                for (index, outcome) in (0..).zip(outcomes) {
                    match outcome {
                        Ok(event) => {
                            let raw = payload.slice_ref(event.raw.as_bytes());
                            let place = Place::of_event(index, trace, contracts);
                            self.admit_event(&event, raw, place, message, out);
                        }
                        Err(rejected) => {
                            let element =
                                element.filter(|_| rejected.original.len() < payload.len());
                            self.reject(&rejected, subject.tenant, message, element, out);
                        }
                    }
                }
            }
            Form::Converted(events) => {
                for (index, converted) in (0..).zip(&events) {
                    let trace = headers.traceparent().filter(|_| !converted.of_batch);
                    match converted.decode(index, payload, subject, limits) {
                        Ok(event) => {
                            let raw = Bytes::copy_from_slice(event.raw.as_bytes());
                            let place = Place::of_event(index, trace, contracts);
                            self.admit_event(&event, raw, place, message, out);
                        }
                        Err(rejected) => {
                            let element =
                                converted.of_batch.then_some("application/cloudevents+msgpack");
                            self.reject(&rejected, subject.tenant, message, element, out);
                        }
                    }
                }
            }
        }
    }

    fn admit_event(
        &mut self,
        event: &Event<'_>,
        raw: Bytes,
        place: Place<'_>,
        message: &Arrived,
        out: &mut Outcomes,
    ) {
        let Some(tenant) = self.tenant(event.tenant) else {
            let detail = format!("`{}` is not a tenant name", event.tenant);
            let reason = RejectReason::BadSubject;
            let rejected = Rejected { index: place.index, reason, detail, original: &raw };
            return self.reject(&rejected, NO_TENANT, message, None, out);
        };
        let verdict = place.contracts.check(event, &mut out.steps);
        let admitted = self.admitted(event, tenant, raw, place, message);
        let pending = out.admit(admitted, message.time_ms);
        match verdict {
            Verdict::Sound => {}
            Verdict::Breach(breach) => out.breach(&pending, breach),
            Verdict::Later(check) => out.checking.push((pending.clone(), check)),
            Verdict::Stored(check, reference) => {
                out.stored.push((pending.clone(), (check, reference)));
            }
        }
        match event.payload() {
            Ok(None) => {}
            Ok(Some(reference)) => out.referring.push((pending, reference)),
            Err(detail) => out.refuse_after_all(&pending, BAD_PAYLOAD_REFERENCE, detail),
        }
    }

    fn admitted(
        &mut self,
        event: &Event<'_>,
        tenant: Tenant,
        raw: Bytes,
        Place { index, trace, replay, replayed, .. }: Place<'_>,
        message: &Arrived,
    ) -> AdmittedEvent {
        let traceparent = event.traceparent.as_deref().or(trace);
        let traceparent = trace::event(event.tenant, &event.kind, &event.id, traceparent);
        AdmittedEvent {
            event: EventReference {
                tenant,
                id: Arc::from(&*event.id),
                source: self.text(&event.source),
                kind: self.text(&event.kind),
                traceparent: traceparent.map(Arc::from),
                hops: event.hops(),
                breach: None,
                replayed: replayed.cloned(),
            },
            key: event.idempotency().to_be_bytes(),
            source: SourcePosition { sequence: message.sequence, index },
            replay,
            admission: Admission::Admitted { raw },
            correlation: event.correlation_key.as_ref().map(|key| {
                let (key, data) = (Arc::from(&**key), SignalData::of(event.data));
                Box::new(Correlation { key, data })
            }),
        }
    }

    fn reject(
        &mut self,
        rejected: &Rejected<'_>,
        tenant: &str,
        message: &Arrived,
        element: Option<&str>,
        out: &mut Outcomes,
    ) {
        let refused = (rejected.reason.as_str(), rejected.detail.clone());
        self.refuse(&refused, rejected.index, rejected.original, tenant, message, element, out);
    }

    /// Refuses an event or a message. `element` is the content type of one event
    /// where the bytes are no longer those of the message.
    #[expect(clippy::too_many_arguments, reason = "each says another thing about one refusal")]
    fn refuse(
        &mut self,
        (reason, detail): &Refused,
        index: u32,
        original: &[u8],
        tenant: &str,
        message: &Arrived,
        element: Option<&str>,
        out: &mut Outcomes,
    ) {
        let source = SourcePosition { sequence: message.sequence, index };
        let Some(tenant) = self.tenant(tenant).or_else(|| self.tenant(NO_TENANT)) else { return };
        let kind = parse_subject(&message.subject).map_or("", |subject| subject.kind);
        let event = EventReference {
            tenant,
            id: Arc::from(""),
            source: self.text(""),
            kind: self.text(kind),
            traceparent: None,
            hops: 0,
            breach: None,
            replayed: None,
        };
        let refusal = Refusal {
            reason: self.text(reason),
            detail: detail.clone(),
            original: Bytes::copy_from_slice(original),
            subject: message.subject.to_string(),
            time_ms: message.time_ms,
            headers: match element {
                Some(content_type) => {
                    vec![("Content-Type".to_owned(), content_type.to_owned())]
                }
                None => kept_headers(message.headers.as_ref()),
            },
            trace: trace_of(original, message.headers.as_ref().filter(|_| element.is_none())),
        };
        out.refuse(event, source, refusal);
    }

    fn tenant(&mut self, name: &str) -> Option<Tenant> {
        if let Some(tenant) = self.tenants.get(name) {
            return Some(tenant.clone());
        }
        let tenant = name.parse::<Tenant>().ok()?;
        if self.tenants.len() >= SHARED_TEXTS_MAX {
            self.tenants.clear();
        }
        self.tenants.insert(name.to_owned(), tenant.clone());
        Some(tenant)
    }

    fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(shared) = self.texts.get(text) {
            return shared.clone();
        }
        if self.texts.len() >= SHARED_TEXTS_MAX {
            self.texts.clear();
        }
        let shared = Arc::<str>::from(text);
        self.texts.insert(text.to_owned(), shared.clone());
        shared
    }
}

/// The `traceparent` of an event that cannot be used: its own as far as its text can be
/// read, or what its message was sent in.
fn trace_of(original: &[u8], headers: Option<&Headers>) -> Option<String> {
    #[derive(Deserialize)]
    struct Traced {
        traceparent: String,
    }
    let in_text = serde_json::from_slice::<Traced>(original).ok().map(|traced| traced.traceparent);
    let header = |name: &str| {
        let mut named = pairs(headers).filter(|(found, _)| found.eq_ignore_ascii_case(name));
        named.next().map(|(_, value)| value)
    };
    let usable = |text: Option<&str>| {
        let text = text.map(|text| ("traceparent", text));
        MessageHeaders::new(text).traceparent().map(str::to_owned)
    };
    usable(in_text.as_deref().or_else(|| header("ce-traceparent")))
        .or_else(|| usable(header("traceparent")))
}

/// The headers in order, as many as are kept: the broker's own aside.
pub(super) fn kept_headers(headers: Option<&Headers>) -> Vec<(String, String)> {
    let own = |name: &str| name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("nats-"));
    let mut kept = pairs(headers)
        .filter(|(name, _)| !own(name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect::<Vec<_>>();
    kept.sort_unstable();
    let mut bytes = 0;
    kept.retain(|(name, value)| {
        bytes += name.len() + value.len();
        bytes <= HEADER_BYTES_MAX
    });
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trace_of_what_cannot_be_used_is_its_own_as_far_as_it_can_be_read() {
        let trace = |number: u8| format!("00-{number:032x}-00f067aa0ba902b7-01");
        let header = |name: &str, number| {
            let mut headers = Headers::new();
            headers.insert(name, trace(number));
            headers
        };
        let own = format!("{{\"id\": 1, \"traceparent\": \"{}\"}}", trace(1));
        let (attribute, sent_in) = (header("Ce-TraceParent", 2), header("traceparent", 3));

        assert_eq!(trace_of(own.as_bytes(), Some(&sent_in)), Some(trace(1)));
        assert_eq!(trace_of(own.as_bytes(), None), Some(trace(1)));
        assert_eq!(trace_of(b"{", Some(&attribute)), Some(trace(2)));
        assert_eq!(trace_of(b"{", Some(&sent_in)), Some(trace(3)));
        assert_eq!(trace_of(br#"{"traceparent": "x"}"#, Some(&sent_in)), Some(trace(3)));
        assert_eq!(trace_of(&own.as_bytes()[1..], None), None);
    }
}
