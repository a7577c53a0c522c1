//! Requests to replay that come by HTTP: verified, taken apart into events, and
//! put into EVENTS as requests of their own, each signed anew.
//!
//! That the same request decides nothing twice is known where every replay is: in the
//! partition's journal, by the replay's id, which follows from the request's. That an
//! id belongs to one body, and what was answered, is kept in a stream of its own: see
//! `entries`.

mod entries;
mod entry;

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use fermata_core::digest::{Digest, hash_parts_128};
use fermata_core::event::{
    EventLimits, MESSAGE_BYTES_MAX, REPLAY_HEADER, SUBJECT_PREFIX, decode_message, parse_subject,
};
use fermata_jetstream::topology::EVENTS_STREAM;
use fermata_jetstream::{Bytes, Headers, PublishOutcome, Refusal, StoredMessage};
use fermata_wire::replay::{
    BODY_HEADER, ID_HEADER, ReplayHeaders, ReplayKeys, ReplayRefusal, SIGNATURE_HEADER,
    TIMESTAMP_HEADER, replay_id, verify_replay,
};
use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;
use uuid::Uuid;

use self::entries::Entered;
pub use self::entry::{ReplayEntry, ReplayEntryError};
use crate::clock::wall_ms;
use crate::ports::Ports;

/// Most events of one request: each is a message of its own, and all of them are
/// stored before the request is answered.
pub const REQUEST_EVENTS_MAX: usize = 1_000;

/// Most problems of a request's events that are told.
const PROBLEMS_MAX: usize = 20;

/// What the ids of messages begin with, so that no publisher's are the same.
const MESSAGE_ID_PREFIX: &str = "fermata-replay-";

/// An event of a request, stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRequest {
    /// The event's id.
    pub event: String,
    /// Its tenant.
    pub tenant: String,
    /// The id under which it is decided once more.
    pub replay: Uuid,
    /// Sequence in EVENTS.
    pub sequence: u64,
}

/// Why a request was not taken, or not all of it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReplayRequestError {
    /// It is not signed as it has to be.
    #[error(transparent)]
    Refused(#[from] ReplayRefusal),
    /// It is no JSON, or has no event.
    #[error("the body is not one event or a list of events as structured JSON: {0}")]
    Malformed(String),
    /// It has more events than are taken at once.
    #[error("{0} events are more than the {REQUEST_EVENTS_MAX} of one request")]
    TooMany(usize),
    /// It is larger than a message may be.
    #[error("the body has more than {MESSAGE_BYTES_MAX} bytes")]
    TooLarge,
    /// Events would be refused: nothing was stored.
    #[error("{}", .0.join("; "))]
    Unusable(Vec<String>),
    /// The id came with another body before: nothing was stored.
    #[error("`webhook-id` came with another body within the last day")]
    Differs,
    /// The broker does not take it now; the same request may be sent again.
    #[error("not all of it is stored, send the same request again: {0}")]
    Unavailable(String),
    /// It has no id by which it could be known again.
    #[error("the header `webhook-id` is missing: it names the request, also when it is sent again")]
    Unnamed,
}

/// An event that is to be replayed.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    subject: String,
    webhook_id: String,
    event: String,
    tenant: String,
    /// What the event claims where it starts work.
    key: u128,
    body: Bytes,
}

/// What has to be known of an event before it is decoded.
#[derive(Deserialize)]
struct Named {
    tenant: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// Whether a request is signed as it has to be.
///
/// # Errors
///
/// [`ReplayRequestError::Unnamed`], [`ReplayRequestError::Refused`].
pub fn verify(
    ports: &Ports,
    headers: ReplayHeaders<'_>,
    body: &Bytes,
) -> Result<(), ReplayRequestError> {
    verify_at(&ports.facts.replay_keys, headers, body, wall_ms())
}

fn verify_at(
    keys: &ReplayKeys,
    headers: ReplayHeaders<'_>,
    body: &Bytes,
    now_ms: u64,
) -> Result<(), ReplayRequestError> {
    match verify_replay(keys, headers, body, now_ms) {
        Ok(_) => Ok(()),
        Err(ReplayRefusal::Unsigned) if headers.id.is_none() => Err(ReplayRequestError::Unnamed),
        Err(refusal) => Err(refusal.into()),
    }
}

/// Verifies a request and stores its events, in their order.
///
/// A request that failed half-way is finished by sending it again: what is stored
/// already is recognised.
///
/// # Errors
///
/// [`ReplayRequestError`]. Unless it is `Differs` or `Unavailable` nothing was stored.
///
/// # Cancel safety
///
/// When dropped, some events may be stored.
pub async fn take(
    ports: &Ports,
    headers: ReplayHeaders<'_>,
    body: &Bytes,
) -> Result<Vec<StoredRequest>, ReplayRequestError> {
    let now_ms = wall_ms();
    let keys = &ports.facts.replay_keys;
    verify_at(keys, headers, body, now_ms)?;
    let webhook_id = headers.id.unwrap_or_default();
    let mut first = requests(webhook_id, body)?;
    let digest = Digest::of(body);
    let entry = match entries::enter(ports, webhook_id, &digest).await? {
        Entered::Answered(sequences) => return answered(first, &sequences),
        Entered::Open(entry) => entry,
    };
    let rest = first.split_off(first.len().min(1));
    let mut stored = Vec::with_capacity(1 + rest.len());
    // The first, whose id is the request's, by itself: a program of before, which keeps
    // no entries, may have stored it with another body, and then nothing of this one is.
    for requests in [first, rest] {
        stored.append(&mut store(ports, requests, &digest, now_ms / 1_000).await?);
    }
    let sequences = stored.iter().map(|stored| stored.sequence).collect();
    entries::answer(ports, webhook_id, &digest, entry, sequences).await;
    Ok(stored)
}

/// What was answered when the events of the same body were stored.
fn answered(
    requests: Vec<Request>,
    sequences: &[u64],
) -> Result<Vec<StoredRequest>, ReplayRequestError> {
    if requests.len() != sequences.len() {
        let detail = "what is known of its id is not about as many events".to_owned();
        return Err(ReplayRequestError::Unavailable(detail));
    }
    let stored = |(request, sequence): (Request, &u64)| stored_at(request, *sequence);
    Ok(requests.into_iter().zip(sequences).map(stored).collect())
}

fn stored_at(request: Request, sequence: u64) -> StoredRequest {
    let Request { webhook_id, event, tenant, .. } = request;
    StoredRequest { event, tenant, replay: replay_id(&webhook_id), sequence }
}

/// Stores events of the request whose body has this digest.
async fn store(
    ports: &Ports,
    requests: Vec<Request>,
    body: &Digest,
    now_seconds: u64,
) -> Result<Vec<StoredRequest>, ReplayRequestError> {
    let mut receipts = Vec::with_capacity(requests.len());
    for request in &requests {
        let headers = signed(&ports.facts.replay_keys, request, body, now_seconds)?;
        let (subject, event) = (request.subject.clone(), request.body.clone());
        receipts.push(ports.publisher.publish(subject, Some(headers), event).await);
    }
    let mut stored = Vec::with_capacity(requests.len());
    for (request, outcome) in requests.into_iter().zip(join_all(receipts).await) {
        let sequence = match outcome {
            PublishOutcome::Stored { sequence, duplicate: false } => sequence,
            PublishOutcome::Stored { sequence, duplicate: true } => {
                is_same(ports, &request, body, sequence).await?;
                sequence
            }
            PublishOutcome::Refused { refusal: Refusal::TooLarge, .. } => {
                return Err(ReplayRequestError::TooLarge);
            }
            PublishOutcome::Refused { description, .. } => {
                return Err(ReplayRequestError::Unavailable(description));
            }
            PublishOutcome::Unknown => {
                let unknown = "the broker did not answer".to_owned();
                return Err(ReplayRequestError::Unavailable(unknown));
            }
        };
        stored.push(stored_at(request, sequence));
    }
    Ok(stored)
}

/// Takes a verified body apart.
fn requests(webhook_id: &str, body: &Bytes) -> Result<Vec<Request>, ReplayRequestError> {
    if body.len() > MESSAGE_BYTES_MAX {
        return Err(ReplayRequestError::TooLarge);
    }
    let malformed = |error: serde_json::Error| ReplayRequestError::Malformed(error.to_string());
    let is_batch = body.trim_ascii_start().first() == Some(&b'[');
    let events: Vec<&RawValue> = if is_batch {
        serde_json::from_slice(body).map_err(malformed)?
    } else {
        vec![serde_json::from_slice(body).map_err(malformed)?]
    };
    if events.is_empty() {
        return Err(ReplayRequestError::Malformed("the list is empty".to_owned()));
    }
    if events.len() > REQUEST_EVENTS_MAX {
        return Err(ReplayRequestError::TooMany(events.len()));
    }
    let mut requests = Vec::with_capacity(events.len());
    let mut problems = Vec::new();
    // A replay may be decided whatever its key: each copy may start the work once more.
    let mut places: HashMap<u128, usize> = HashMap::new();
    for (index, event) in events.into_iter().enumerate() {
        let webhook_id =
            if is_batch { id_in_batch(webhook_id, index) } else { webhook_id.to_owned() };
        match request(webhook_id, event.get(), body) {
            Ok(request) => match places.entry(request.key) {
                Entry::Vacant(place) => {
                    place.insert(index);
                    requests.push(request);
                }
                Entry::Occupied(place) => problems.push(format!(
                    "event {index}: it is event {} once more, by its key, and may start its work twice; send each \
                     once",
                    place.get()
                )),
            },
            Err(problem) => problems.push(format!("event {index}: {problem}")),
        }
    }
    if problems.is_empty() {
        return Ok(requests);
    }
    problems.truncate(PROBLEMS_MAX);
    Err(ReplayRequestError::Unusable(problems))
}

/// What an event of a batch is named: one id is one replay. The first has the
/// request's, like an event that comes alone, so that the id is known again whatever
/// it comes with; upon those of the others no sender of single events comes, since
/// they follow from a hash.
fn id_in_batch(webhook_id: &str, index: usize) -> String {
    if index == 0 {
        return webhook_id.to_owned();
    }
    let place = index.to_string();
    let hash = hash_parts_128(&[b"replay in batch", webhook_id.as_bytes(), place.as_bytes()]);
    format!("batch_{hash:032x}")
}

fn request(webhook_id: String, event: &str, body: &Bytes) -> Result<Request, String> {
    let named: Named = serde_json::from_str(event).map_err(|error| error.to_string())?;
    let Some(tenant) = named.tenant else {
        return Err("it does not name its tenant, which has to be signed too".to_owned());
    };
    let kind = named.kind.unwrap_or_default();
    let subject = format!("{SUBJECT_PREFIX}{tenant}.{kind}");
    let parsed = parse_subject(&subject).map_err(|error| error.to_string())?;
    let decoded = decode_message(None, event.as_bytes(), parsed, &EventLimits::default());
    let (key, id) = match decoded.into_iter().next() {
        Some(Ok(event)) => {
            event.replayed()?;
            (event.idempotency(), event.id.into_owned())
        }
        Some(Err(rejected)) => {
            return Err(format!("{}: {}", rejected.reason.as_str(), rejected.detail));
        }
        None => return Err("there is no event".to_owned()),
    };
    let body = body.slice_ref(event.as_bytes());
    Ok(Request { subject, webhook_id, event: id, tenant, key, body })
}

fn signed(
    keys: &ReplayKeys,
    request: &Request,
    body: &Digest,
    now_seconds: u64,
) -> Result<Headers, ReplayRequestError> {
    let Request { webhook_id, body: event, .. } = request;
    let signature =
        keys.sign(webhook_id, now_seconds, event).ok_or(ReplayRefusal::NotConfigured)?;
    let mut headers = Headers::new();
    headers.insert("Content-Type", "application/cloudevents+json");
    headers.insert(REPLAY_HEADER, "http");
    headers.insert(ID_HEADER, webhook_id.as_str());
    headers.insert(TIMESTAMP_HEADER, now_seconds.to_string());
    headers.insert(SIGNATURE_HEADER, signature);
    headers.insert(BODY_HEADER, body.to_string());
    headers.insert("Nats-Msg-Id", message_id(keys, webhook_id)?);
    Ok(headers)
}

/// What the broker recognises a request by. It holds a signature of the id, so that
/// whoever may publish, and knows an id, cannot take its place before it comes.
fn message_id(keys: &ReplayKeys, webhook_id: &str) -> Result<String, ReplayRequestError> {
    let signature = keys.sign(webhook_id, 0, MESSAGE_ID_PREFIX.as_bytes());
    let signature = signature.ok_or(ReplayRefusal::NotConfigured)?;
    let signed = Digest::of(signature.as_bytes());
    Ok(format!("{MESSAGE_ID_PREFIX}{}-{signed}", replay_id(webhook_id)))
}

/// Whether what the broker took for the same message came with the same body. One
/// that is gone from EVENTS cannot be compared, and was the same request's or not.
async fn is_same(
    ports: &Ports,
    request: &Request,
    body: &Digest,
    sequence: u64,
) -> Result<(), ReplayRequestError> {
    let unavailable = |error: fermata_jetstream::reader::ReadError| {
        ReplayRequestError::Unavailable(error.to_string())
    };
    let stored = ports.reader.read_one(EVENTS_STREAM, sequence).await.map_err(unavailable)?;
    match stored {
        Some(stored) if !came_with(&stored, request, body) => Err(ReplayRequestError::Differs),
        Some(_) | None => Ok(()),
    }
}

fn came_with(stored: &StoredMessage, request: &Request, body: &Digest) -> bool {
    // Whoever may publish may have used the id: what they stored is no replay.
    let Some(headers) = stored.headers.as_ref().filter(|headers| headers.get(ID_HEADER).is_some())
    else {
        return false;
    };
    match headers.get(BODY_HEADER) {
        Some(digest) => digest.as_str() == body.to_string(),
        // An older program stored it.
        None => stored.payload == request.body,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn event(id: &str) -> Value {
        json!({"specversion": "1.0", "id": id, "source": "/s", "type": "a.b", "tenant": "acme"})
    }

    fn taken(body: &Value) -> Result<Vec<Request>, ReplayRequestError> {
        requests("request-1", &Bytes::from(body.to_string()))
    }

    #[test]
    fn each_event_of_a_batch_is_a_request_of_its_own() {
        let batch = taken(&json!([event("1"), event("2")])).unwrap();
        let one = taken(&event("1")).unwrap();

        let ids: Vec<_> = batch.iter().map(|request| request.webhook_id.clone()).collect();
        assert_ne!(ids[0], ids[1]);
        // By the first it is known again, whatever its body was.
        assert_eq!((&*ids[0], &*one[0].webhook_id), ("request-1", "request-1"));
        assert_eq!(batch[1].subject, "fermata.events.acme.a.b");
        assert_eq!(batch[1].body, event("2").to_string());
        assert_eq!(taken(&json!([event("1"), event("2")])).unwrap(), batch);
    }

    #[test]
    fn what_was_stored_is_told_apart_by_the_whole_body_that_it_came_with() {
        let keys = ReplayKeys::parse("whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=");
        let keys = keys.expect("keys");
        let [one, two] = ["1", "2"].map(|id| taken(&event(id)).unwrap().remove(0));
        let (body, other) = (Digest::of(b"body"), Digest::of(b"other"));
        let stored = |headers: Option<Headers>| StoredMessage {
            sequence: 1,
            broker_time_ns: 0,
            writer: None,
            subject: one.subject.as_str().into(),
            headers,
            payload: one.body.clone(),
        };
        let headers = signed(&keys, &one, &body, 1).unwrap();
        let mut older = Headers::new();
        older.insert(ID_HEADER, "request-1");

        assert!(came_with(&stored(Some(headers.clone())), &one, &body));
        assert!(!came_with(&stored(Some(headers)), &one, &other), "the same event in another body");
        assert!(came_with(&stored(Some(older.clone())), &one, &body));
        assert!(!came_with(&stored(Some(older)), &two, &body));
        assert!(!came_with(&stored(None), &one, &body), "a publisher's own");
    }

    #[test]
    fn a_request_without_an_id_lacks_that_and_no_signature() {
        let keys = ReplayKeys::parse("whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=");
        let keys = keys.expect("keys");
        let refused = |keys: &ReplayKeys, id| {
            let headers = ReplayHeaders { id, timestamp: Some("1"), signature: None };
            verify_at(keys, headers, &Bytes::new(), 1_000)
        };

        assert_eq!(refused(&keys, None), Err(ReplayRequestError::Unnamed));
        assert_eq!(refused(&keys, Some("r")), Err(ReplayRefusal::Unsigned.into()));
        let none = ReplayKeys::default();
        assert_eq!(refused(&none, None), Err(ReplayRefusal::NotConfigured.into()));
    }

    #[test]
    fn nobody_without_a_secret_can_name_the_message_of_a_request() {
        let one = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
        let other = "whsec_QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=";
        let id = |secret, request| {
            message_id(&ReplayKeys::parse(secret).expect("keys"), request).expect("an id")
        };

        assert_eq!(id(one, "a"), id(one, "a"), "the same request is the same message");
        assert_ne!(id(one, "a"), id(one, "b"));
        assert_ne!(id(one, "a"), id(other, "a"), "it takes the secret");
    }

    #[test]
    fn an_event_that_is_there_twice_is_refused_with_both_places() {
        let mut other = event("1");
        other["tenant"] = "globex".into();
        assert!(taken(&json!([event("1"), event("2"), other])).is_ok(), "another tenant's");
        let mut same = event("1");
        same["data"] = json!({ "repaired": true });

        let refused = taken(&json!([event("2"), event("1"), same])).unwrap_err().to_string();

        assert!(refused.starts_with("event 2: it is event 1 once more"), "{refused}");
    }

    #[test]
    fn one_unusable_event_refuses_the_whole_request() {
        let mut without = event("2");
        without.as_object_mut().unwrap().remove("tenant");
        let mut wrong = event("3");
        wrong["specversion"] = "0.3".into();
        let Err(ReplayRequestError::Unusable(problems)) =
            taken(&json!([event("1"), without, wrong]))
        else {
            panic!()
        };
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].starts_with("event 1: ") && problems[1].starts_with("event 2: "));
        for body in [json!([]), json!("x"), json!([1])] {
            assert!(taken(&body).is_err(), "{body}");
        }
        let many = vec![event("1"); REQUEST_EVENTS_MAX + 1];
        assert_eq!(taken(&json!(many)), Err(ReplayRequestError::TooMany(1_001)));
    }
}
