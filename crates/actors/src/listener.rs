//! EventListener: business events in.
//!
//! Decodes what users publish, admits it or files it as a dead letter, and
//! passes both on: a rejection is journaled like everything else. A message is
//! acknowledged only after everything that came of it is durable.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use fermata_core::command::{Correlation, EventReference};
use fermata_core::digest::Digest;
use fermata_core::event::{
    Event, EventLimits, RejectReason, Rejected, decode_message, parse_subject,
};
use fermata_core::identity::{SourcePosition, Tenant};
use fermata_core::relay::SignalData;
use fermata_jetstream::topology::EVENTS_STREAM;
use fermata_jetstream::{Acker, Delivery, SharedConsumerOptions, Subject};
use fermata_wire::dead::DeadLetter;
use fermata_wire::stages::{Admission, AdmittedEvent, AdmittedFrame, NO_KEY, Rejection};
use fermata_wire::subjects;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, stream};

use crate::hop::{Hop, publish};
use crate::ports::Ports;
use crate::source::Input;
use crate::stage::Stage;
use crate::trace;

/// Name of the durable consumer of EVENTS that all listeners share.
pub const LISTENER_CONSUMER: &str = "listener";

/// Batches of messages held at once. Each waits for its outputs; while it does,
/// what arrives makes the next batch larger, and larger batches are what makes
/// intake cheap. Two keep the broker and this process busy at the same time.
pub const BATCHES_HELD_MAX: u32 = 2;

/// Messages taken from EVENTS at once.
pub const BATCH_MESSAGES_MAX: usize = 1_000;

/// Dead letters of one batch that are published at the same time.
const DEAD_LETTERS_AT_ONCE: usize = 256;

/// Texts that are kept to be shared between events, at the most. Types, sources
/// and tenants are few; an id is never kept.
const SHARED_TEXTS_MAX: usize = 10_000;

/// Tenant under which what names no valid tenant is filed.
const NO_TENANT: &str = "unknown";

/// A message of EVENTS.
#[derive(Debug)]
pub struct Arrived {
    subject: Subject,
    content_type: Option<String>,
    payload: Bytes,
    sequence: u64,
    time_ms: u64,
}

/// Messages that arrived together, in order.
#[derive(Debug)]
pub struct Batch(Vec<Arrived>);

impl Input for Batch {
    const MESSAGES_MAX: usize = BATCH_MESSAGES_MAX;
    const HELD_MAX: u32 = BATCHES_HELD_MAX;

    async fn read(
        _ports: &Ports,
        _options: &SharedConsumerOptions,
        deliveries: Vec<Delivery>,
    ) -> Option<(Self, Vec<Acker>)> {
        let (messages, ackers) = deliveries.into_iter().map(arrived).unzip();
        Some((Self(messages), ackers))
    }
}

fn arrived(delivery: Delivery) -> (Arrived, Acker) {
    let content_type = delivery
        .headers
        .as_ref()
        .and_then(|headers| headers.get("Content-Type"))
        .map(|value| value.as_str().to_owned());
    let arrived = Arrived {
        subject: delivery.subject,
        content_type,
        payload: delivery.payload,
        sequence: delivery.stream_sequence,
        time_ms: u64::try_from(delivery.broker_time_ns / 1_000_000).unwrap_or(0),
    };
    (arrived, delivery.acker)
}

/// Behaviour, and texts shared between events.
#[derive(Debug)]
pub struct Listener {
    ports: Ports,
    next: Hop<AdmittedFrame>,
    limits: EventLimits,
    shared: Shared,
}

/// Texts shared between events.
#[derive(Debug, Default)]
struct Shared {
    texts: HashMap<String, Arc<str>>,
    tenants: HashMap<String, Tenant>,
}

impl Listener {
    /// A listener that passes on to `next`.
    #[must_use]
    pub fn new(ports: Ports, next: Hop<AdmittedFrame>) -> Self {
        Self { ports, next, limits: EventLimits::default(), shared: Shared::default() }
    }

    /// How all listeners together take from EVENTS.
    #[must_use]
    pub fn consumer() -> SharedConsumerOptions {
        SharedConsumerOptions::new(EVENTS_STREAM, LISTENER_CONSUMER)
    }
}

impl Stage for Listener {
    type Input = Batch;

    fn take(&mut self, Batch(messages): Batch) -> BoxFuture<'static, bool> {
        let mut events = Vec::with_capacity(messages.len());
        let mut dead = Vec::new();
        for message in &messages {
            self.shared.admit(message, &self.limits, &mut events, &mut dead);
        }
        let (ports, next) = (self.ports.clone(), self.next.clone());
        Box::pin(async move {
            file(&ports, dead).await
                && (events.is_empty() || next.pass(AdmittedFrame { events }).await)
        })
    }
}

impl Shared {
    fn admit(
        &mut self,
        message: &Arrived,
        limits: &EventLimits,
        admitted: &mut Vec<AdmittedEvent>,
        dead: &mut Vec<DeadLetter>,
    ) {
        let payload = &message.payload;
        let subject = match parse_subject(&message.subject) {
            Ok(subject) => subject,
            Err(error) => {
                let (reason, detail) = (RejectReason::BadSubject, error.to_string());
                let rejected = Rejected { index: 0, reason, detail, original: payload };
                return self.reject(&rejected, NO_TENANT, message, admitted, dead);
            }
        };
        let content_type = message.content_type.as_deref();
        for (index, outcome) in (0..).zip(decode_message(content_type, payload, subject, limits)) {
            match outcome {
                Ok(event) => match self.tenant(event.tenant) {
                    Some(tenant) => admitted.push(self.admitted(&event, tenant, message, index)),
                    None => {
                        let detail = format!("`{}` is not a tenant name", event.tenant);
                        let reason = RejectReason::BadSubject;
                        let original = event.raw.as_bytes();
                        let rejected = Rejected { index, reason, detail, original };
                        self.reject(&rejected, NO_TENANT, message, admitted, dead);
                    }
                },
                Err(rejected) => self.reject(&rejected, subject.tenant, message, admitted, dead),
            }
        }
    }

    fn admitted(
        &mut self,
        event: &Event<'_>,
        tenant: Tenant,
        message: &Arrived,
        index: u32,
    ) -> AdmittedEvent {
        let traceparent =
            trace::event(event.tenant, &event.kind, &event.id, event.traceparent.as_deref());
        AdmittedEvent {
            event: EventReference {
                tenant,
                id: Arc::from(&*event.id),
                source: self.text(&event.source),
                kind: self.text(&event.kind),
                traceparent: traceparent.map(Arc::from),
            },
            key: event.idempotency().to_be_bytes(),
            source: SourcePosition { sequence: message.sequence, index },
            replay: None,
            admission: Admission::Admitted { raw: message.payload.slice_ref(event.raw.as_bytes()) },
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
        admitted: &mut Vec<AdmittedEvent>,
        dead: &mut Vec<DeadLetter>,
    ) {
        let source = SourcePosition { sequence: message.sequence, index: rejected.index };
        let Some(tenant) = self.tenant(tenant).or_else(|| self.tenant(NO_TENANT)) else { return };
        dead.push(DeadLetter {
            id: source.to_string(),
            tenant: tenant.to_string(),
            stage: "listener".to_owned(),
            reason: rejected.reason.as_str().to_owned(),
            detail: rejected.detail.clone(),
            subject: message.subject.to_string(),
            original: message.payload.slice_ref(rejected.original),
            time_ms: message.time_ms,
        });
        let kind = parse_subject(&message.subject).map_or("", |subject| subject.kind);
        let event = EventReference {
            tenant,
            id: Arc::from(""),
            source: self.text(""),
            kind: self.text(kind),
            traceparent: None,
        };
        let rejection = Rejection {
            reason: self.text(rejected.reason.as_str()),
            detail: rejected.detail.clone(),
            original: Digest::of(rejected.original),
        };
        let admission = Admission::Rejected(rejection);
        let (replay, correlation) = (None, None);
        admitted.push(AdmittedEvent { event, key: NO_KEY, source, replay, admission, correlation });
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

/// Stores dead letters; true once all are.
pub(crate) async fn file(ports: &Ports, dead: Vec<DeadLetter>) -> bool {
    stream::iter(dead)
        .map(|letter| file_one(ports, letter))
        .buffer_unordered(DEAD_LETTERS_AT_ONCE)
        .fold(true, async |all, filed| all && filed)
        .await
}

async fn file_one(ports: &Ports, letter: DeadLetter) -> bool {
    let subject = subjects::dead(&letter.tenant, &letter.stage);
    match letter.encode().or_else(|_| without_original(letter).encode()) {
        Ok(bytes) => publish(&ports.publisher, &subject, bytes.into()).await,
        Err(error) => {
            tracing::error!(%subject, %error, "a dead letter cannot be encoded");
            false
        }
    }
}

/// A letter whose original bytes do not fit beside what is said about them; the
/// journal holds their digest.
fn without_original(letter: DeadLetter) -> DeadLetter {
    let bytes = letter.original.len();
    let detail =
        format!("{}; the original of {bytes} bytes is too large to be kept", letter.detail);
    DeadLetter { original: Bytes::new(), detail, ..letter }
}
