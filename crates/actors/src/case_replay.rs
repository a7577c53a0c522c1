//! The events of a resolved review case, decided once more.
//!
//! The record that resolves the case orders it, so nobody signs anything here:
//! who may write to a partition's commands may resolve its cases. The id of each
//! replay follows from the case and from where the event stands, so that
//! partitions take it once, however often a new owner orders it again.

use std::sync::Arc;

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
use crate::matcher::{Counted, dead_letter, matched, rejection, routed};
use crate::metrics::Metrics;
use crate::ports::Ports;
use crate::readiness::missing_definitions;

/// Events that are read and sent to partitions together.
const EVENTS_AT_ONCE: usize = 64;

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
    for places in replay.events.chunks(EVENTS_AT_ONCE) {
        let mut events = Vec::with_capacity(places.len());
        for place in places {
            match event_at(&ports, &replay, *place).await {
                Some(event) => events.push(event),
                None => replayed.missing = replayed.missing.saturating_add(1),
            }
        }
        let count = u32::try_from(events.len()).unwrap_or(u32::MAX);
        replayed.asked = replayed.asked.saturating_add(count);
        if !events.is_empty() {
            order(&ports, &metrics, &replay, events).await;
        }
    }
    let CaseReplayed { case, asked, missing } = replayed;
    tracing::info!(%case, asked, missing, "the events of a resolved case are decided once more");
    replayed
}

/// The event, if it is still there and is one of the case's tenant.
async fn event_at(
    ports: &Ports,
    replay: &CaseReplay,
    place: SourcePosition,
) -> Option<AdmittedEvent> {
    let event = loop {
        match ports.reader.read_one(EVENTS_STREAM, place.sequence).await {
            Ok(None) => return None,
            Ok(Some(message)) => match admitted_again(ports, message, place.index).await {
                Some(event) => break event?,
                None => {
                    tracing::warn!(case = %replay.case, sequence = place.sequence, "the payload of an event of a resolved case cannot be looked for yet");
                }
            },
            Err(error) => {
                tracing::warn!(case = %replay.case, sequence = place.sequence, %error, "an event of a resolved case cannot be read yet");
            }
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    };
    let replay_id = Some(replay_of(replay.case, place));
    (event.event.tenant == replay.tenant).then_some(AdmittedEvent { replay: replay_id, ..event })
}

/// The id under which the event at `place` is decided once more for `case`.
fn replay_of(case: Uuid, place: SourcePosition) -> Uuid {
    replay_id(&format!("case_{}_{}_{}", case.simple(), place.sequence, place.index))
}

/// Sends the events to their partitions until those hold them.
async fn order(ports: &Ports, metrics: &Metrics, replay: &CaseReplay, events: Vec<AdmittedEvent>) {
    let snapshot = ports.definitions.borrow().clone();
    let mut dead = Vec::new();
    let events = events.into_iter().map(|event| match &replay.strategy {
        None => matched(&snapshot, event, &mut dead, &mut Counted::default()),
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
    use super::*;

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
