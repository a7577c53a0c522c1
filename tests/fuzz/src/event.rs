//! Messages of publishers.

use fermata_core::event::{Event, EventLimits, Subject, decode_message, parse_subject};

const SUBJECT: &str = "fermata.events.acme.order.created";

/// A message with one event or many: each is read or refused with a reason, and
/// what was read is the same event again when it is written and read anew.
///
/// The first byte picks the content type, the rest is the payload.
///
/// # Panics
///
/// When a law is broken.
pub fn cloudevents(bytes: &[u8]) {
    let Some((choice, payload)) = bytes.split_first() else { return };
    let content_type = match choice % 4 {
        0 => None,
        1 => Some("application/cloudevents+json"),
        2 => Some("application/cloudevents-batch+json"),
        _ => std::str::from_utf8(payload.get(..payload.len().min(40)).unwrap_or_default()).ok(),
    };
    let limits = EventLimits::default();
    let subject = parse_subject(SUBJECT).expect("a valid subject");
    for outcome in decode_message(content_type, payload, subject, &limits) {
        match outcome {
            Ok(event) => reads_as_written(&event, subject, &limits),
            Err(refused) => {
                assert!(!refused.detail.is_empty(), "{:?} without a word", refused.reason);
            }
        }
    }
}

fn reads_as_written(event: &Event<'_>, subject: Subject<'_>, limits: &EventLimits) {
    // Data that no value can hold is told when an expression asks for it.
    let view = event.view();
    event.attributes_view().expect("attributes were checked");
    let written = event.to_json();
    // An event of a batch need not have the type of the subject.
    let batch = format!("[{written}]");
    let again = decode_message(None, batch.as_bytes(), subject, limits);
    let [Ok(again)] = again.as_slice() else {
        // Written out it may be longer than it came, escapes and all.
        assert!(batch.len() > limits.event_bytes_max, "{written} is refused: {again:?}");
        return;
    };
    assert_eq!(again.to_json(), written);
    assert_eq!(again.idempotency(), event.idempotency());
    if let (Ok(view), Ok(again)) = (view, again.view()) {
        assert_eq!(view, again);
    }
}
