//! Events that the partition rejected itself, filed with their original bytes.

use fermata_core::effect::DeadEvent;
use fermata_core::partition::Report;
use fermata_jetstream::topology::EVENTS_STREAM;
use fermata_wire::dead::DeadLetter;

use super::AGAIN_AFTER;
use crate::clock::wall_ms;
use crate::listener::{Original, file, original_of};
use crate::ports::Ports;

/// The stage that letters of rejected events name.
const STAGE: &str = "partition";

/// Files an event; ends only when its letter is stored.
///
/// # Cancel safety
///
/// When dropped it may be filed; filed again it has the same id, and readers list it once.
pub(super) async fn file_event(ports: Ports, dead: DeadEvent) -> Report {
    let source = dead.source;
    let original = loop {
        match ports.reader.read_one(EVENTS_STREAM, source.sequence).await {
            Ok(message) => break message.map(|message| original_of(message, source.index)),
            Err(error) => {
                tracing::warn!(%source, %error, "a rejected event cannot be read yet");
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
    };
    let letter = letter(dead, original);
    while !file(&ports, vec![letter.clone()]).await {
        tokio::time::sleep(AGAIN_AFTER).await;
    }
    Report::EventFiled { source }
}

fn letter(dead: DeadEvent, original: Option<Original>) -> DeadLetter {
    let DeadEvent { event, source, reason, mut detail } = dead;
    let (original, headers) = original.unwrap_or_else(|| {
        detail.push_str("; the event is no longer in EVENTS");
        Original::default()
    });
    DeadLetter {
        id: source.to_string(),
        tenant: event.tenant.to_string(),
        stage: STAGE.to_owned(),
        reason: reason.to_string(),
        detail,
        subject: format!("fermata.events.{}.{}", event.tenant, event.kind),
        original,
        time_ms: wall_ms(),
        headers,
        attempts: None,
        trace: event.traceparent.as_deref().map(str::to_owned),
    }
}
