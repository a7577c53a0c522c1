//! The events of a resolved review case, decided once more.
//!
//! The record that resolves the case orders it, so nobody signs anything here:
//! who may write to a partition's commands may resolve its cases. The id of each
//! replay follows from the case and from where the event stands, so that
//! partitions take it once, however often a new owner orders it again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use fermata_core::command::Replayed;
use fermata_core::event::{EventLimits, Subject, decode_message};
use fermata_core::identity::SourcePosition;
use fermata_core::review::{CaseReplay, CaseReplayed};
use fermata_core::strategy::RouteError;
use fermata_jetstream::topology::EVENTS_STREAM;
use fermata_wire::dead::DeadLetter;
use fermata_wire::replay::replay_id;
use fermata_wire::stages::{Admission, AdmittedEvent, MatchOutcome, MatchedEvent, MatchedFrame};
use uuid::Uuid;

use crate::builder::store_commands;
use crate::definitions::Snapshot;
use crate::hop::AGAIN_AFTER;
use crate::listener::{admitted_again, file};
use crate::matcher::{Draws, dead_letter, matched, rejection, routed};
use crate::metrics::Metrics;
use crate::ports::Ports;
use crate::readiness::missing_definitions;

/// Events that are read and sent to partitions together.
const EVENTS_AT_ONCE: usize = 64;

/// Bytes of events after which no further message is read before these are sent. What
/// is held besides is what one more message brings, 1 MiB.
const BYTES_AT_ONCE: usize = 4 * 1024 * 1024;

/// Has the events decided once more; ends only when partitions hold the order
/// for all that are still there.
///
/// # Cancel safety
///
/// When dropped, some may be ordered; ordering them again changes nothing.
pub(crate) async fn replay_case(
    ports: Ports,
    metrics: Metrics,
    replay: CaseReplay,
) -> CaseReplayed {
    while let Some(awaited) = missing_definitions(&ports).await {
        tracing::debug!(case = %replay.case, %awaited, "a resolved case waits for the definitions");
        tokio::time::sleep(AGAIN_AFTER).await;
    }
    let mut replayed = CaseReplayed { case: replay.case, asked: 0, missing: 0 };
    let mut together = Together::default();
    for (sequence, indexes) in by_message(&replay.events) {
        let wanted = indexes.len();
        let found = events_of(&ports, &replay, sequence, indexes).await;
        let (found_count, missing) = (count(found.len()), count(wanted - found.len()));
        replayed.asked = replayed.asked.saturating_add(found_count);
        replayed.missing = replayed.missing.saturating_add(missing);
        for event in found {
            if let Some(events) = together.add(event) {
                order(&ports, &metrics, &replay, events).await;
            }
        }
    }
    if !together.events.is_empty() {
        order(&ports, &metrics, &replay, together.events).await;
    }
    let CaseReplayed { case, asked, missing } = replayed;
    tracing::info!(%case, asked, missing, "the events of a resolved case are decided once more");
    replayed
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Events that are sent together.
#[derive(Default)]
struct Together {
    events: Vec<AdmittedEvent>,
    bytes: usize,
}

impl Together {
    /// Takes one more; hands them on when they are enough.
    fn add(&mut self, event: AdmittedEvent) -> Option<Vec<AdmittedEvent>> {
        self.bytes += match &event.admission {
            Admission::Admitted { raw } => raw.len(),
            Admission::Rejected(_) => 0,
        };
        self.events.push(event);
        let is_enough = self.events.len() >= EVENTS_AT_ONCE || self.bytes >= BYTES_AT_ONCE;
        is_enough.then(|| std::mem::take(self).events)
    }
}

/// The places of events, those of a message together, which is read once for all of them.
fn by_message(places: &[SourcePosition]) -> BTreeMap<u64, BTreeSet<u32>> {
    let mut messages: BTreeMap<u64, BTreeSet<u32>> = BTreeMap::new();
    for place in places {
        messages.entry(place.sequence).or_default().insert(place.index);
    }
    messages
}

/// The events of a message that are still there and are of the case's tenant. Their
/// bytes are their own: one of them does not keep the whole message.
async fn events_of(
    ports: &Ports,
    replay: &CaseReplay,
    sequence: u64,
    indexes: BTreeSet<u32>,
) -> Vec<AdmittedEvent> {
    let events = loop {
        match ports.reader.read_one(EVENTS_STREAM, sequence).await {
            Ok(None) => return Vec::new(),
            Ok(Some(message)) => match admitted_again(ports, message, &indexes).await {
                Some(events) => break events,
                None => {
                    tracing::warn!(case = %replay.case, sequence, "the payload of an event of a resolved case cannot be looked for yet");
                }
            },
            Err(error) => {
                tracing::warn!(case = %replay.case, sequence, %error, "an event of a resolved case cannot be read yet");
            }
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    };
    let events = events.into_iter().filter(|event| event.event.tenant == replay.tenant);
    events
        .map(|event| {
            let admission = match event.admission {
                Admission::Admitted { raw } => {
                    Admission::Admitted { raw: Bytes::copy_from_slice(&raw) }
                }
                rejected @ Admission::Rejected(_) => rejected,
            };
            let replay = Some(replay_of(replay.case, event.source));
            let mut admitted = AdmittedEvent { replay, admission, ..event };
            admitted.event.replayed = unconditional(admitted.event.replayed);
            admitted
        })
        .collect()
}

/// Who asked for the event before and why, without their condition: the run that failed has the key, and whoever
/// resolved the case has its work begun once more all the same.
fn unconditional(said: Option<Arc<Replayed>>) -> Option<Arc<Replayed>> {
    let said = said?;
    if !said.unless_started {
        return Some(said);
    }
    let Replayed { by, reason, .. } = &*said;
    let (by, reason) = (by.clone(), reason.clone());
    (by.is_some() || reason.is_some())
        .then(|| Arc::new(Replayed { by, reason, unless_started: false }))
}

/// The id under which the event at `place` is decided once more for `case`.
fn replay_of(case: Uuid, place: SourcePosition) -> Uuid {
    replay_id(&format!("case_{}_{}_{}", case.simple(), place.sequence, place.index))
}

/// Sends the events to their partitions until those hold them.
async fn order(ports: &Ports, metrics: &Metrics, replay: &CaseReplay, events: Vec<AdmittedEvent>) {
    let snapshot = ports.definitions.borrow().clone();
    let (mut dead, mut draws) = (Vec::new(), Draws::default());
    let events = events.into_iter().map(|event| match &replay.strategy {
        None => matched(&snapshot, event, &mut draws, &mut dead),
        Some(strategy) => route(&snapshot, strategy, event, &mut dead),
    });
    let frame = MatchedFrame { events: events.collect() };
    while !file(ports, dead.clone()).await || !store_commands(ports, &frame, metrics).await {
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// What the strategy starts for the event, whatever it asks of it.
fn route(
    snapshot: &Snapshot,
    strategy: &Arc<str>,
    admitted: AdmittedEvent,
    dead: &mut Vec<DeadLetter>,
) -> MatchedEvent {
    let AdmittedEvent { event, key, source, replay, admission, correlation } = admitted;
    let outcome = match admission {
        Admission::Rejected(rejection) => MatchOutcome::Rejected(rejection),
        Admission::Admitted { raw } => {
            let (tenant, kind) = (event.tenant.as_str(), &*event.kind);
            let subject = Subject { tenant, kind };
            let decoded = decode_message(None, &raw, subject, &EventLimits::default());
            let outcome = match decoded.into_iter().next() {
                Some(Ok(decoded)) => routed(snapshot, strategy, &decoded, &raw),
                Some(Err(rejected)) => rejection(rejected.reason.as_str(), rejected.detail, &raw),
                None => rejection("not_json", "the event is empty".to_owned(), &raw),
            };
            if let MatchOutcome::Rejected(rejection) = &outcome {
                dead.push(dead_letter("matcher", &event, source, rejection, raw));
            }
            outcome
        }
    };
    MatchedEvent { event, key, source, replay, outcome, correlation }
}

/// Why an event is not routed, as a stable code and for people.
pub(crate) fn not_routed(strategy: &str, error: RouteError) -> (&'static str, String) {
    match error {
        RouteError::Unknown => {
            ("route_unknown", format!("there is no strategy `{strategy}` for the event's tenant"))
        }
        RouteError::StartsNothing => {
            ("route_unknown", format!("strategy `{strategy}` starts no workflow"))
        }
        RouteError::Failed(detail) => {
            ("variables_failed", format!("strategy `{strategy}`: {detail}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use fermata_core::command::EventReference;
    use fermata_wire::stages::NO_KEY;

    use super::*;

    fn event(sequence: u64, bytes: usize) -> AdmittedEvent {
        AdmittedEvent {
            event: EventReference {
                tenant: "acme".parse().expect("a tenant"),
                id: "1".into(),
                source: "/s".into(),
                kind: "a.b".into(),
                traceparent: None,
                hops: 0,
                breach: None,
                replayed: None,
            },
            key: NO_KEY,
            source: SourcePosition { sequence, index: 0 },
            replay: None,
            admission: Admission::Admitted { raw: Bytes::from(vec![0; bytes]) },
            correlation: None,
        }
    }

    #[test]
    fn a_resolved_case_asks_without_the_condition_of_the_replay_that_failed() {
        let (by, reason) = (Some("ann".into()), Some("a typo".into()));
        let plain = Some(Arc::new(Replayed { by, reason, unless_started: false }));
        let conditional = |said: &Option<Arc<Replayed>>| {
            let said = said.as_deref().cloned().unwrap_or_default();
            Some(Arc::new(Replayed { unless_started: true, ..said }))
        };

        assert_eq!(unconditional(conditional(&plain)), plain);
        assert_eq!(unconditional(plain.clone()), plain);
        assert_eq!(unconditional(conditional(&None)), None);
        assert_eq!(unconditional(None), None);
    }

    #[test]
    fn the_events_of_a_message_stand_together_each_once() {
        let places = [(7, 2), (3, 0), (7, 1), (7, 2)];
        let places = places.map(|(sequence, index)| SourcePosition { sequence, index });

        let messages = by_message(&places);
        assert_eq!(messages, [(3, [0].into()), (7, [1, 2].into())].into());
    }

    #[test]
    fn no_more_events_are_held_than_are_sent_together() {
        let sent = |bytes: usize| {
            let mut together = Together::default();
            (1..).find_map(|sequence| together.add(event(sequence, bytes))).expect("some").len()
        };

        assert_eq!(sent(10), EVENTS_AT_ONCE);
        assert_eq!(sent(1024 * 1024), 4);
        assert_eq!(sent(64 * 1024 * 1024), 1);
    }

    #[test]
    fn a_replay_is_named_by_its_case_and_its_events_place() {
        let place = |sequence, index| SourcePosition { sequence, index };
        let id = |case, place| replay_of(Uuid::from_u128(case), place);

        assert_eq!(id(1, place(7, 0)), id(1, place(7, 0)));
        assert_ne!(id(1, place(7, 0)), id(2, place(7, 0)));
        assert_ne!(id(1, place(7, 0)), id(1, place(7, 1)));
        // Places must not run together: 1 and 11, or 11 and 1.
        assert_ne!(id(1, place(1, 11)), id(1, place(11, 1)));
    }
}
