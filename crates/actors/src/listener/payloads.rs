//! Whether the data is there that events refer to.
//!
//! What is asked for is the description of the object, not its bytes: the engine
//! hands references on and reads none. A payload that is not there, or is another
//! one, is a rejection like any other.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fermata_core::digest::Digest;
use fermata_core::event::{PayloadReference, SUBJECT_PREFIX};
use fermata_jetstream::payloads::find_payload;
use fermata_wire::dead::DeadLetter;
use fermata_wire::stages::{Admission, NO_KEY, Rejection};
use futures_util::{StreamExt as _, stream};

use super::admission::{Outcomes, Referring};
use crate::ports::Ports;

/// Payloads that are asked for at the same time, of one batch.
const LOOKUPS_AT_ONCE: usize = 32;

/// How long one answer may take. What comes later is a delivery that failed.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);

/// Reason code of an event whose payload is not there.
const PAYLOAD_MISSING: &str = "payload_missing";

/// Reason code of an event whose payload is not what the event says.
const PAYLOAD_CHANGED: &str = "payload_changed";

/// Refuses events whose payloads are not there. Nothing when the broker did not
/// say so in time: then the messages are delivered again.
pub(super) async fn looked_for(ports: &Ports, mut out: Outcomes) -> Option<Outcomes> {
    let referring = std::mem::take(&mut out.referring);
    if referring.is_empty() {
        return Some(out);
    }
    let tenants = |place: usize| out.events.get(place).map(|event| event.event.tenant.clone());
    let asked = referring.into_iter().filter_map(|one| Some((tenants(one.place)?, one)));
    let asked: Vec<_> = asked.collect();
    let answers: Vec<_> = stream::iter(asked)
        .map(async |(tenant, one)| {
            let found = problem(ports, tenant.as_str(), &one.reference).await;
            (one, found)
        })
        .buffer_unordered(LOOKUPS_AT_ONCE)
        .collect()
        .await;
    for (one, found) in answers {
        if let Some(problem) = found? {
            refuse(&mut out, &one, problem);
        }
    }
    Some(out)
}

/// What is wrong with a payload; the outer nothing is that nobody knows.
async fn problem(
    ports: &Ports,
    tenant: &str,
    reference: &PayloadReference,
) -> Option<Option<(&'static str, String)>> {
    let name = reference.digest.to_string();
    let asked = find_payload(&ports.reader, tenant, &name);
    let facts = match tokio::time::timeout(LOOKUP_LIMIT, asked).await {
        Ok(Ok(facts)) => facts,
        Ok(Err(error)) => {
            tracing::warn!(%error, "a payload could not be looked for; the events come again");
            return None;
        }
        Err(_) => {
            tracing::warn!("a payload was not found or missed in time; the events come again");
            return None;
        }
    };
    let uri = reference.uri(tenant);
    Some(match facts {
        None => Some((PAYLOAD_MISSING, format!("there is no `{uri}`, or it is no longer kept"))),
        Some(facts) if facts.digest == Some(reference.digest.0) => None,
        Some(facts) => {
            let bytes = facts.bytes;
            let detail = format!("`{uri}` has {bytes} bytes with another digest than its name");
            Some((PAYLOAD_CHANGED, detail))
        }
    })
}

/// Puts a rejection in the place of an admitted event. It claims no key.
fn refuse(out: &mut Outcomes, one: &Referring, (reason, detail): (&'static str, String)) {
    let Some(admitted) = out.events.get_mut(one.place) else { return };
    let original = match &admitted.admission {
        Admission::Admitted { raw } => raw.clone(),
        Admission::Rejected(_) => Bytes::new(),
    };
    let event = &admitted.event;
    out.dead.push(DeadLetter {
        id: admitted.source.to_string(),
        tenant: event.tenant.to_string(),
        stage: "listener".to_owned(),
        reason: reason.to_owned(),
        detail: detail.clone(),
        subject: format!("{SUBJECT_PREFIX}{}.{}", event.tenant, event.kind),
        original: original.clone(),
        time_ms: one.time_ms,
        headers: vec![("Content-Type".to_owned(), "application/cloudevents+json".to_owned())],
    });
    let original = Digest::of(&original);
    admitted.admission =
        Admission::Rejected(Rejection { reason: Arc::from(reason), detail, original });
    admitted.key = NO_KEY;
    admitted.replay = None;
    admitted.correlation = None;
}
