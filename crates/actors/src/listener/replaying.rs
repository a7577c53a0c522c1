//! Requests to replay: who may ask for an event to be decided once more.

use std::sync::Arc;

use bytes::Bytes;
use fermata_core::command::Replayed;
use fermata_core::event::{Event, EventLimits, Subject, decode_message};
use fermata_wire::replay::{ReplayHeaders, ReplayKeys, verify_replay};
use serde::Deserialize;
use uuid::Uuid;

/// Why a request was refused: a stable code, and what is wrong.
pub(super) type Refused = (&'static str, String);

/// Reason code of a request whose event cannot be replayed as it is.
const BAD_REPLAY: &str = "bad_replay";

/// A request as it was verified.
#[derive(Debug)]
pub(super) struct Verified<'a> {
    /// The id under which the event is decided once more.
    pub(super) replay: Uuid,
    /// Who asks and why, where the event says so.
    pub(super) replayed: Option<Arc<Replayed>>,
    /// The event.
    pub(super) event: Event<'a>,
}

/// The only member that is looked at before the event is decoded.
#[derive(Deserialize)]
struct Named {
    tenant: Option<String>,
}

/// Verifies a request and decodes its event. The subject and the other headers
/// are not signed, so all that decides about the event must be in the body: one
/// structured JSON event that names its tenant.
///
/// `stored_ms` is the broker's time of the message, so that a request is as old
/// at its last delivery as at its first.
pub(super) fn verified<'a>(
    keys: &ReplayKeys,
    headers: ReplayHeaders<'_>,
    payload: &'a Bytes,
    subject: Subject<'a>,
    limits: &EventLimits,
    stored_ms: u64,
) -> Result<Verified<'a>, Refused> {
    let replay = verify_replay(keys, headers, payload, stored_ms)
        .map_err(|refusal| (refusal.code(), refusal.to_string()))?;
    let named: Named = serde_json::from_slice(payload).map_err(|error| {
        (BAD_REPLAY, format!("a replay is one event as structured JSON: {error}"))
    })?;
    if named.tenant.is_none() {
        let detail = "the event does not name its tenant; the subject, which does, is not signed";
        return Err((BAD_REPLAY, detail.to_owned()));
    }
    match decode_message(None, payload, subject, limits).into_iter().next() {
        Some(Ok(event)) => {
            let replayed = event.replayed().map_err(|detail| (BAD_REPLAY, detail))?;
            Ok(Verified { replay, replayed: replayed.map(Arc::new), event })
        }
        Some(Err(rejected)) => Err((rejected.reason.as_str(), rejected.detail)),
        None => Err((BAD_REPLAY, "there is no event in the request".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use fermata_core::event::parse_subject;
    use serde_json::{Value, json};

    use super::*;

    const SIGNED: u64 = 1_700_000_000;

    fn event(members: Value) -> Value {
        let mut event = json!({
            "specversion": "1.0", "id": "1", "source": "/s", "type": "a.b", "tenant": "acme",
        });
        let Value::Object(members) = members else { panic!() };
        event.as_object_mut().unwrap().extend(members);
        event
    }

    /// What comes of a request that was signed over one body and carries another.
    fn asked(signed: &Value, sent: &Value) -> Result<Option<Arc<Replayed>>, &'static str> {
        let keys = ReplayKeys::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = keys.sign("r", SIGNED, signed.to_string().as_bytes()).unwrap();
        let timestamp = SIGNED.to_string();
        let headers = ReplayHeaders {
            id: Some("r"),
            timestamp: Some(&timestamp),
            signature: Some(&signature),
        };
        let (sent, subject) = (Bytes::from(sent.to_string()), "fermata.events.acme.a.b");
        let subject = parse_subject(subject).unwrap();
        let limits = EventLimits::default();
        verified(&keys, headers, &sent, subject, &limits, SIGNED * 1_000)
            .map(|verified| verified.replayed)
            .map_err(|(code, _)| code)
    }

    #[test]
    fn who_asks_and_why_are_within_what_is_signed() {
        let signed = event(json!({"replayedby": "ann", "replayreason": "a typo"}));
        let (by, reason) = (Some("ann".into()), Some("a typo".into()));
        let replayed = Replayed { by, reason, unless_started: false };

        assert_eq!(asked(&signed, &signed), Ok(Some(Arc::new(replayed))));
        for changed in [
            event(json!({"replayedby": "bob", "replayreason": "a typo"})),
            event(json!({"replayedby": "ann", "replayreason": "none"})),
            event(json!({"replayreason": "a typo"})),
            event(json!({"replayedby": "ann"})),
            event(
                json!({"replayedby": "ann", "replayreason": "a typo", "replayunless": "started"}),
            ),
        ] {
            assert_eq!(asked(&signed, &changed), Err("replay_forged"), "{changed}");
        }
        let conditional = event(json!({"replayunless": "started"}));
        let unless = Replayed { unless_started: true, ..Replayed::default() };
        assert_eq!(asked(&conditional, &conditional), Ok(Some(Arc::new(unless))));
        let without = event(json!({}));
        assert_eq!(asked(&without, &without), Ok(None));
    }

    #[test]
    fn what_cannot_be_recorded_of_who_asks_refuses_the_request() {
        for members in [json!({"replayedby": "x".repeat(129)}), json!({"replayreason": true})] {
            let event = event(members);
            assert_eq!(asked(&event, &event), Err(BAD_REPLAY), "{event}");
        }
    }
}
