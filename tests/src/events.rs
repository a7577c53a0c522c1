//! Publishing business events as a user does.

use bytes::Bytes;
use fermata_jetstream::{PublishOutcome, Publisher};
use serde_json::json;

/// Tenant of events that name no other.
pub const TENANT: &str = "acme";

/// An event's JSON.
#[must_use]
pub fn event(kind: &str, id: u64) -> Bytes {
    event_with(kind, id, &json!({ "n": id }))
}

/// An event's JSON with this data.
#[must_use]
pub fn event_with(kind: &str, id: u64, data: &serde_json::Value) -> Bytes {
    let event = json!({
        "specversion": "1.0", "id": id.to_string(), "source": "/t", "type": kind,
        "tenant": TENANT, "data": data,
    });
    event.to_string().into()
}

/// Publishes an event and returns its sequence in EVENTS.
///
/// # Panics
///
/// When it is not stored.
pub async fn publish(publisher: &Publisher, kind: &str, id: u64) -> u64 {
    publish_raw(publisher, kind, event(kind, id)).await
}

/// Publishes bytes as an event of `kind` and returns their sequence in EVENTS.
///
/// # Panics
///
/// When they are not stored.
pub async fn publish_raw(publisher: &Publisher, kind: &str, bytes: Bytes) -> u64 {
    let subject = format!("fermata.events.{TENANT}.{kind}");
    match publisher.publish(subject, None, bytes).await.await {
        PublishOutcome::Stored { sequence, .. } => sequence,
        outcome => panic!("the event was not stored: {outcome:?}"),
    }
}
