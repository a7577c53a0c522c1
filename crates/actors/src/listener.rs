//! EventListener: business events in.
//!
//! Decodes what users publish, admits it or files it as a dead letter, and
//! passes both on: a rejection is journaled like everything else. A message is
//! acknowledged only after everything that came of it is durable.

mod admission;
mod breaches;
mod checks;
mod original;
mod outcomes;
mod payloads;
mod replaying;
pub(crate) mod shares;
mod spilling;
mod stored;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use fermata_core::event::EventLimits;
use fermata_jetstream::topology::EVENTS_STREAM;
use fermata_jetstream::{Acker, Delivery, Headers, SharedConsumerOptions, StoredMessage, Subject};
use fermata_wire::dead::DeadLetter;
use fermata_wire::stages::{Admission, AdmittedEvent, AdmittedFrame};
use fermata_wire::subjects;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, stream};

pub use self::admission::NO_TENANT;
use self::admission::Shared;
use self::breaches::Breaches;
pub(crate) use self::original::Original;
use self::outcomes::Outcomes;
use self::spilling::Spilling;
use crate::hop::{Hop, publish};
use crate::metrics::Metrics;
use crate::ports::Ports;
use crate::source::Input;
use crate::stage::{Durable, Stage};

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

/// A message of EVENTS.
#[derive(Debug)]
pub struct Arrived {
    subject: Subject,
    headers: Option<Headers>,
    /// Why its headers or its subject cannot be read.
    fault: Option<&'static str>,
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
    let arrived = Arrived {
        subject: delivery.subject,
        headers: delivery.headers,
        fault: delivery.fault,
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
    /// Where the stages behind it run here too: nobody else knows whether room is short, and
    /// whoever spills can drain.
    spilling: Option<Arc<Spilling>>,
    breaches: Arc<Breaches>,
}

impl Listener {
    /// A listener that passes on to `next`.
    #[must_use]
    pub fn new(ports: Ports, next: Hop<AdmittedFrame>, metrics: Metrics) -> Self {
        let spilling = match next {
            Hop::Memory(_) => Some(Arc::new(Spilling::new(ports.clone()))),
            Hop::Stream { .. } => None,
        };
        let breaches = Arc::new(Breaches::new(metrics));
        let (limits, shared) = (EventLimits::default(), Shared::default());
        Self { ports, next, limits, shared, spilling, breaches }
    }

    /// How all listeners together take from EVENTS.
    #[must_use]
    pub fn consumer() -> SharedConsumerOptions {
        SharedConsumerOptions::new(EVENTS_STREAM, LISTENER_CONSUMER)
    }
}

impl Stage for Listener {
    type Input = Batch;

    fn take(&mut self, Batch(messages): Batch) -> BoxFuture<'static, Durable> {
        let mut out = Outcomes::of(messages.len());
        let snapshot = self.ports.definitions.borrow().clone();
        let (keys, contracts) = (&self.ports.facts.replay_keys, &snapshot.contracts);
        for message in &messages {
            self.shared.admit(message, &self.limits, keys, contracts, &mut out);
        }
        let sequences: Vec<u64> = messages.iter().map(|message| message.sequence).collect();
        let (ports, next) = (self.ports.clone(), self.next.clone());
        let (spilling, breaches) = (self.spilling.clone(), self.breaches.clone());
        Box::pin(async move {
            let held_back = settle(&ports, &mut out).await;
            let (events, dead) = out.into_parts();
            breaches.tell(&events);
            if !file(&ports, dead).await {
                return Durable::No;
            }
            let again = match spilling {
                Some(spilling) => spilling.pass(&next, events).await,
                None => spilling::pass(&next, events).await,
            };
            let again: BTreeSet<u64> = held_back.into_iter().chain(again).collect();
            let places = sequences.iter().enumerate();
            let places = places.filter(|(_, sequence)| again.contains(sequence));
            Durable::But(places.map(|(place, _)| place).collect())
        })
    }
}

/// Finds out what has to be known before events are admitted, in bounded time, and
/// says of which messages it is not known: nothing of them is left.
async fn settle(ports: &Ports, out: &mut Outcomes) -> BTreeSet<u64> {
    let checking = std::mem::take(&mut out.checking);
    let referring = std::mem::take(&mut out.referring);
    let mut stored = std::mem::take(&mut out.stored);
    if checking.is_empty() && referring.is_empty() {
        return BTreeSet::new();
    }
    let (checked, looked_for) =
        tokio::join!(checks::checked(checking), payloads::looked_for(ports, referring));
    for (pending, breach) in checked.breaches {
        out.breach(&pending, breach);
    }
    for (pending, (reason, detail)) in looked_for.problems {
        out.refuse_after_all(&pending, reason, detail);
    }
    let mut held_back: BTreeSet<u64> =
        checked.held_back.into_iter().chain(looked_for.held_back).collect();
    stored.retain(|(pending, _)| !held_back.contains(&pending.sequence));
    let checked = stored::checked(ports, stored).await;
    for (pending, breach) in checked.breaches {
        out.breach(&pending, breach);
    }
    held_back.extend(checked.held_back);
    out.hold_back(&held_back);
    held_back
}

/// Those of the events at `indexes` of a message that was taken before that can be used, by
/// the contracts of now. Nothing where the broker did not say whether their payloads are there,
/// or where there was no time to check them.
pub(crate) async fn admitted_again(
    ports: &Ports,
    message: StoredMessage,
    indexes: &BTreeSet<u32>,
) -> Option<Vec<AdmittedEvent>> {
    let message = arrived_again(message);
    let mut out = Outcomes::default();
    let snapshot = ports.definitions.borrow().clone();
    let (limits, keys) = (EventLimits::default(), &ports.facts.replay_keys);
    Shared::default().admit(&message, &limits, keys, &snapshot.contracts, &mut out);
    if !settle(ports, &mut out).await.is_empty() {
        return None;
    }
    let (events, _) = out.into_parts();
    let is_wanted = |event: &AdmittedEvent| {
        indexes.contains(&event.source.index)
            && matches!(event.admission, Admission::Admitted { .. })
    };
    Some(events.into_iter().filter(is_wanted).collect())
}

/// The bytes of the event at `index` of a message that was taken before.
pub(crate) fn original_of(message: StoredMessage, index: u32) -> Original {
    original::original_at(&arrived_again(message), index)
}

fn arrived_again(message: StoredMessage) -> Arrived {
    Arrived {
        subject: message.subject,
        headers: message.headers,
        // One that no client can be given was refused, and has no case of its own.
        fault: None,
        payload: message.payload,
        sequence: message.sequence,
        time_ms: u64::try_from(message.broker_time_ns / 1_000_000).unwrap_or(0),
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
    let letter = ports.dead_room.fitted(&ports.broker, letter).await;
    let subject = subjects::dead(&letter.tenant, &letter.stage);
    let (stage, reason) = (letter.stage.clone(), letter.reason.clone());
    match letter.encode().or_else(|_| without_original(letter).encode()) {
        Ok(bytes) => {
            let is_stored = publish(&ports.publisher, &subject, bytes.into()).await;
            if is_stored {
                ports.dead_room.filed(&stage, &reason);
            }
            is_stored
        }
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
