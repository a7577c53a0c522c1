//! EventListener: business events in.
//!
//! Decodes what users publish, admits it or files it as a dead letter, and
//! passes both on: a rejection is journaled like everything else. A message is
//! acknowledged only after everything that came of it is durable.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fermata_core::command::EventReference;
use fermata_core::digest::Digest;
use fermata_core::event::{
    Event, EventLimits, RejectReason, Rejected, decode_message, parse_subject,
};
use fermata_core::identity::{SourcePosition, Tenant};
use fermata_jetstream::janitor::shared_progress;
use fermata_jetstream::topology::EVENTS_STREAM;
use fermata_jetstream::{Delivery, SharedConsumer, SharedConsumerOptions};
use fermata_wire::dead::DeadLetter;
use fermata_wire::stages::{Admission, AdmittedEvent, AdmittedFrame, NO_KEY, Rejection};
use fermata_wire::subjects;
use ractor::{Actor, ActorProcessingErr, ActorRef, MessagingErr};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use crate::hop::{AGAIN_AFTER, BATCH_MESSAGES_MAX, Hop, publish, settle};
use crate::ports::Ports;
use crate::trace;

/// Name of the durable consumer that all listeners share.
pub const LISTENER_CONSUMER: &str = "listener";

/// Batches of messages held at once. Each waits for its outputs; while it does,
/// what arrives makes the next batch larger, and larger batches are what makes
/// intake cheap. Two keep the broker and this process busy at the same time.
pub const BATCHES_HELD_MAX: usize = 2;

/// How often the broker is asked up to where events are acknowledged.
const FLOOR_INTERVAL: Duration = Duration::from_secs(1);

/// Texts that are kept to be shared between events, at the most. Types, sources
/// and tenants are few; an id is never kept.
const SHARED_TEXTS_MAX: usize = 10_000;

/// Tenant under which what names no valid tenant is filed.
const NO_TENANT: &str = "unknown";

/// What a listener is told.
#[derive(Debug)]
pub enum ListenerMessage {
    /// Messages of EVENTS, held under a permit until they are settled.
    Batch(Vec<Delivery>, OwnedSemaphorePermit),
}

/// Behaviour and ports.
#[derive(Debug)]
pub struct Listener {
    ports: Ports,
    next: Hop<AdmittedFrame>,
    floor: Arc<AtomicU64>,
    limits: EventLimits,
}

/// Texts shared between events, and the tasks that end with the actor.
#[derive(Debug)]
pub struct ListenerState {
    texts: HashMap<String, Arc<str>>,
    tenants: HashMap<String, Tenant>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for ListenerState {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Listener {
    /// A listener that passes on to `next`; `floor` is kept at the sequence of
    /// EVENTS up to which all is acknowledged.
    #[must_use]
    pub fn new(ports: Ports, next: Hop<AdmittedFrame>, floor: Arc<AtomicU64>) -> Self {
        Self { ports, next, floor, limits: EventLimits::default() }
    }
}

impl Actor for Listener {
    type Msg = ListenerMessage;
    type State = ListenerState;
    type Arguments = ();

    async fn pre_start(
        &self,
        myself: ActorRef<ListenerMessage>,
        (): (),
    ) -> Result<ListenerState, ActorProcessingErr> {
        let options = SharedConsumerOptions::new(EVENTS_STREAM, LISTENER_CONSUMER);
        let consumer = SharedConsumer::open(&self.ports.broker, options).await?;
        let pump = tokio::spawn(pump(consumer, myself));
        let floor = tokio::spawn(follow_floor(self.ports.clone(), self.floor.clone()));
        let (texts, tenants) = (HashMap::new(), HashMap::new());
        Ok(ListenerState { texts, tenants, tasks: vec![pump, floor] })
    }

    async fn handle(
        &self,
        _myself: ActorRef<ListenerMessage>,
        message: ListenerMessage,
        state: &mut ListenerState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ListenerMessage::Batch(deliveries, permit) => {
                self.take(deliveries, permit, state);
                Ok(())
            }
        }
    }
}

impl Listener {
    fn take(
        &self,
        deliveries: Vec<Delivery>,
        permit: OwnedSemaphorePermit,
        state: &mut ListenerState,
    ) {
        let mut admitted = Vec::with_capacity(deliveries.len());
        let mut dead = Vec::new();
        let mut ackers = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            self.admit(&delivery, state, &mut admitted, &mut dead);
            ackers.push(delivery.acker);
        }
        let (ports, next) = (self.ports.clone(), self.next.clone());
        tokio::spawn(async move {
            let durable = file(&ports, dead).await
                && (admitted.is_empty() || next.pass(AdmittedFrame { events: admitted }).await);
            settle(ackers, durable).await;
            drop(permit);
        });
    }

    fn admit(
        &self,
        delivery: &Delivery,
        state: &mut ListenerState,
        admitted: &mut Vec<AdmittedEvent>,
        dead: &mut Vec<DeadLetter>,
    ) {
        let payload = &delivery.payload;
        let place = Place {
            subject: &delivery.subject,
            payload,
            sequence: delivery.stream_sequence,
            time_ms: u64::try_from(delivery.broker_time_ns / 1_000_000).unwrap_or(0),
        };
        let subject = match parse_subject(&delivery.subject) {
            Ok(subject) => subject,
            Err(error) => {
                let (reason, detail) = (RejectReason::BadSubject, error.to_string());
                let rejected = Rejected { index: 0, reason, detail, original: payload };
                return state.reject(&rejected, NO_TENANT, &place, admitted, dead);
            }
        };
        let content_type = delivery
            .headers
            .as_ref()
            .and_then(|headers| headers.get("Content-Type"))
            .map(|value| value.as_str());
        for (index, outcome) in
            (0..).zip(decode_message(content_type, payload, subject, &self.limits))
        {
            match outcome {
                Ok(event) => match state.tenant(event.tenant) {
                    Some(tenant) => admitted.push(state.admitted(&event, tenant, &place, index)),
                    None => {
                        let detail = format!("`{}` is not a tenant name", event.tenant);
                        let reason = RejectReason::BadSubject;
                        let original = event.raw.as_bytes();
                        let rejected = Rejected { index, reason, detail, original };
                        state.reject(&rejected, NO_TENANT, &place, admitted, dead);
                    }
                },
                Err(rejected) => state.reject(&rejected, subject.tenant, &place, admitted, dead),
            }
        }
    }
}

/// Where a message stood.
struct Place<'a> {
    subject: &'a str,
    payload: &'a Bytes,
    sequence: u64,
    time_ms: u64,
}

impl ListenerState {
    fn admitted(
        &mut self,
        event: &Event<'_>,
        tenant: Tenant,
        place: &Place<'_>,
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
            source: SourcePosition { sequence: place.sequence, index },
            replay: None,
            admission: Admission::Admitted { raw: place.payload.slice_ref(event.raw.as_bytes()) },
        }
    }

    fn reject(
        &mut self,
        rejected: &Rejected<'_>,
        tenant: &str,
        place: &Place<'_>,
        admitted: &mut Vec<AdmittedEvent>,
        dead: &mut Vec<DeadLetter>,
    ) {
        let source = SourcePosition { sequence: place.sequence, index: rejected.index };
        let Some(tenant) = self.tenant(tenant).or_else(|| self.tenant(NO_TENANT)) else { return };
        dead.push(DeadLetter {
            id: source.to_string(),
            tenant: tenant.to_string(),
            stage: "listener".to_owned(),
            reason: rejected.reason.as_str().to_owned(),
            detail: rejected.detail.clone(),
            subject: place.subject.to_owned(),
            original: place.payload.slice_ref(rejected.original),
            time_ms: place.time_ms,
        });
        let kind = parse_subject(place.subject).map_or("", |subject| subject.kind);
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
        admitted.push(AdmittedEvent { event, key: NO_KEY, source, replay: None, admission });
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
    let mut all = true;
    for letter in dead {
        let subject = subjects::dead(&letter.tenant, &letter.stage);
        let encoded = letter.encode().or_else(|_| without_original(letter).encode());
        all &= match encoded {
            Ok(bytes) => publish(&ports.publisher, &subject, bytes.into()).await,
            Err(error) => {
                tracing::error!(%subject, %error, "a dead letter cannot be encoded");
                false
            }
        };
    }
    all
}

/// A letter whose original bytes do not fit beside what is said about them; the
/// journal holds their digest.
fn without_original(letter: DeadLetter) -> DeadLetter {
    let bytes = letter.original.len();
    let detail =
        format!("{}; the original of {bytes} bytes is too large to be kept", letter.detail);
    DeadLetter { original: Bytes::new(), detail, ..letter }
}

/// Takes from EVENTS what there are permits for.
async fn pump(mut consumer: SharedConsumer, listener: ActorRef<ListenerMessage>) {
    let held = Arc::new(Semaphore::new(BATCHES_HELD_MAX));
    while let Ok(permit) = held.clone().acquire_owned().await {
        match consumer.next_batch(BATCH_MESSAGES_MAX).await {
            Ok(deliveries) => {
                match listener.cast(ListenerMessage::Batch(deliveries, permit)) {
                    Ok(()) => {}
                    // The listener ends: another one need not wait for these.
                    Err(MessagingErr::SendErr(ListenerMessage::Batch(deliveries, _))) => {
                        let ackers = deliveries.into_iter().map(|delivery| delivery.acker);
                        return settle(ackers.collect(), false).await;
                    }
                    Err(_) => return,
                }
            }
            Err(error) => {
                tracing::warn!(%error, "events cannot be consumed; it is tried again");
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
    }
}

/// Keeps `floor` at what the broker holds acknowledged: the answer to an
/// acknowledgement is never awaited, so only the broker knows.
async fn follow_floor(ports: Ports, floor: Arc<AtomicU64>) {
    loop {
        tokio::time::sleep(FLOOR_INTERVAL).await;
        match shared_progress(&ports.broker, EVENTS_STREAM, LISTENER_CONSUMER).await {
            Ok(progress) => {
                floor.fetch_max(progress.acknowledged_up_to, Ordering::Relaxed);
            }
            Err(error) => tracing::debug!(%error, "the floor of events is not known"),
        }
    }
}
