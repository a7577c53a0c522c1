//! What came of messages: events that are admitted, events that are refused, and
//! what has to be known before that is settled.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use fermata_core::command::EventReference;
use fermata_core::digest::Digest;
use fermata_core::effect::bounded_detail;
use fermata_core::event::{PayloadReference, SUBJECT_PREFIX};
use fermata_core::identity::{SourcePosition, Tenant};
use fermata_wire::dead::DeadLetter;
use fermata_wire::stages::{Admission, AdmittedEvent, NO_KEY, Rejection};

use crate::contracts::{Breach, Check, Steps, StoredCheck};

/// Content type of one event that was taken out of its message.
pub(super) const ONE_EVENT: &str = "application/cloudevents+json";

/// What came of messages.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    /// Every event, admitted or not.
    events: Vec<AdmittedEvent>,
    /// The bytes of those that are not, and the sequence of their message.
    dead: Vec<(u64, DeadLetter)>,
    /// Events whose data is in the store of payloads.
    pub(super) referring: Vec<(Pending, PayloadReference)>,
    /// Events whose data is to be checked aside.
    pub(super) checking: Vec<(Pending, Check)>,
    /// Events whose data is there and is to be read and checked.
    pub(super) stored: Vec<(Pending, (StoredCheck, PayloadReference))>,
    /// What checking may cost yet.
    pub(super) steps: Steps,
}

/// An event about which something has to be known before it is admitted.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    /// Its place in [`Outcomes::events`].
    place: usize,
    /// The sequence of its message.
    pub(super) sequence: u64,
    /// Whose it is.
    pub(super) tenant: Tenant,
    /// When its message was stored.
    time_ms: u64,
}

/// Why something is refused, and what is kept of it.
#[derive(Debug)]
pub(super) struct Refusal {
    /// A stable code.
    pub(super) reason: Arc<str>,
    /// What is wrong.
    pub(super) detail: String,
    /// The bytes.
    pub(super) original: Bytes,
    /// The subject to which they belong.
    pub(super) subject: String,
    /// When the message was stored.
    pub(super) time_ms: u64,
    /// Headers to read the bytes with.
    pub(super) headers: Vec<(String, String)>,
    /// The `traceparent` of an event, as far as it can be read.
    pub(super) trace: Option<String>,
}

impl Outcomes {
    /// Room for the outcomes of so many messages.
    pub(super) fn of(messages: usize) -> Self {
        Self { events: Vec::with_capacity(messages), ..Self::default() }
    }

    /// Takes an event in; says how to come back to it.
    pub(super) fn admit(&mut self, admitted: AdmittedEvent, time_ms: u64) -> Pending {
        let pending = Pending {
            place: self.events.len(),
            sequence: admitted.source.sequence,
            tenant: admitted.event.tenant.clone(),
            time_ms,
        };
        self.events.push(admitted);
        pending
    }

    /// Refuses what was never admitted.
    pub(super) fn refuse(
        &mut self,
        event: EventReference,
        source: SourcePosition,
        refusal: Refusal,
    ) {
        let refused = self.refused(event, source, refusal);
        self.events.push(refused);
    }

    /// Refuses an event after all. It claims no key.
    pub(super) fn refuse_after_all(&mut self, pending: &Pending, reason: &str, detail: String) {
        let Some(admitted) = self.events.get(pending.place) else { return };
        // The first problem stands.
        let Admission::Admitted { raw } = &admitted.admission else { return };
        let event = &admitted.event;
        let refusal = Refusal {
            reason: Arc::from(reason),
            detail,
            original: raw.clone(),
            subject: format!("{SUBJECT_PREFIX}{}.{}", event.tenant, event.kind),
            time_ms: pending.time_ms,
            headers: vec![("Content-Type".to_owned(), ONE_EVENT.to_owned())],
            trace: event.traceparent.as_deref().map(str::to_owned),
        };
        let refused = self.refused(event.clone(), admitted.source, refusal);
        if let Some(slot) = self.events.get_mut(pending.place) {
            *slot = refused;
        }
    }

    /// Does what a contract says about an event.
    pub(super) fn breach(&mut self, pending: &Pending, breach: Breach) {
        match breach {
            Breach::Refuse(reason, detail) => self.refuse_after_all(pending, reason, detail),
            Breach::Warn(detail) => {
                if let Some(admitted) = self.events.get_mut(pending.place) {
                    admitted.event.breach = Some(Arc::from(detail));
                }
            }
        }
    }

    /// Forgets all that came of these messages.
    pub(super) fn hold_back(&mut self, sequences: &BTreeSet<u64>) {
        if !sequences.is_empty() {
            self.events.retain(|event| !sequences.contains(&event.source.sequence));
            self.dead.retain(|(sequence, _)| !sequences.contains(sequence));
        }
    }

    /// The events, and the dead letters of those that are refused.
    pub(super) fn into_parts(self) -> (Vec<AdmittedEvent>, Vec<DeadLetter>) {
        (self.events, self.dead.into_iter().map(|(_, letter)| letter).collect())
    }

    fn refused(
        &mut self,
        event: EventReference,
        source: SourcePosition,
        refusal: Refusal,
    ) -> AdmittedEvent {
        let Refusal { reason, detail, original, subject, time_ms, headers, trace } = refusal;
        let rejection = Rejection {
            reason: reason.clone(),
            detail: bounded_detail(&detail),
            original: Digest::of(&original),
        };
        let letter = DeadLetter {
            id: source.to_string(),
            tenant: event.tenant.to_string(),
            stage: "listener".to_owned(),
            reason: reason.to_string(),
            detail,
            subject,
            original,
            time_ms,
            headers,
            attempts: None,
            trace,
        };
        self.dead.push((source.sequence, letter));
        let admission = Admission::Rejected(rejection);
        let (key, replay, correlation) = (NO_KEY, None, None);
        AdmittedEvent { event, key, source, replay, admission, correlation }
    }
}

#[cfg(test)]
impl Pending {
    /// One of nothing.
    pub(super) fn testing(tenant: &str, sequence: u64) -> Self {
        let tenant = tenant.parse().expect("a tenant");
        Self { place: 0, sequence, tenant, time_ms: 0 }
    }
}
