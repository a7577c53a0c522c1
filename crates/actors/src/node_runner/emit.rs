//! Publishes events of runs.
//!
//! An event's id is its effect's key, so every attempt publishes the same event,
//! and a partition recognises what comes twice. Its subject is made of the
//! tenant that the journal names: no expression has a say in it.

use std::time::Duration;

use fermata_core::effect::{Attempt, AttemptWork, Outcome};
use fermata_core::event::HOPS_ATTRIBUTE;
use fermata_core::json::Json;
use fermata_core::plan::FailureClass;
use fermata_jetstream::PublishOutcome;
use fermata_wire::subjects;
use serde_json::{Map, Value, json};

use super::execution::Means;

/// Pause after a publish whose outcome nobody knows: the broker is being reached
/// again or elects a leader, which takes seconds.
const AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Publishes the event until the broker says that it is stored, within the
/// attempt's time limit.
pub(super) async fn publish(
    means: &Means,
    attempt: &Attempt,
    traceparent: Option<String>,
) -> Outcome {
    let AttemptWork::Emit { event_type, .. } = &attempt.work else {
        return failed(FailureClass::NotAllowed, "this is no event".to_owned());
    };
    let subject = format!("{}.{}.{event_type}", subjects::EVENTS, attempt.tenant);
    let payload = bytes::Bytes::from(event(attempt, traceparent).to_string());
    let limit = Duration::from_millis(attempt.timeout_ms);
    let stored = async {
        loop {
            match means.publisher.publish(subject.clone(), None, payload.clone()).await.await {
                PublishOutcome::Stored { .. } => return Ok(()),
                PublishOutcome::Refused { description, .. } => return Err(description),
                PublishOutcome::Unknown => tokio::time::sleep(AGAIN_AFTER).await,
            }
        }
    };
    match tokio::time::timeout(limit, stored).await {
        Ok(Ok(())) => {
            let key = attempt.key().to_string();
            let output = json!({ "id": key, "type": &**event_type });
            Outcome::Succeeded { output: Json::from_value(&output) }
        }
        // A full stream or a broker that is away: another attempt may well succeed.
        Ok(Err(description)) => failed(
            FailureClass::Connect,
            format!("the broker did not take the event: {description}"),
        ),
        Err(_) => failed(
            FailureClass::Timeout,
            format!("the broker did not say within {limit:?} that the event is stored"),
        ),
    }
}

fn failed(class: FailureClass, detail: String) -> Outcome {
    Outcome::Failed { class, detail }
}

/// The event, CloudEvents 1.0 in structured JSON.
fn event(attempt: &Attempt, traceparent: Option<String>) -> Value {
    let AttemptWork::Emit { event_type, source, data, hops } = &attempt.work else {
        return Value::Null;
    };
    let mut event = Map::new();
    let mut set = |name: &str, value: Value| event.insert(name.to_owned(), value);
    set("specversion", "1.0".into());
    set("id", attempt.key().to_string().into());
    set("source", (&**source).into());
    set("type", (&**event_type).into());
    set("tenant", attempt.tenant.as_str().into());
    set("datacontenttype", "application/json".into());
    set("fermatarun", attempt.run.to_string().into());
    set(HOPS_ATTRIBUTE, (*hops).into());
    if let Some(traceparent) = traceparent {
        set("traceparent", traceparent.into());
    }
    set("data", data.parse());
    Value::Object(event)
}
