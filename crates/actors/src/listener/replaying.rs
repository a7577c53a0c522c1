//! Requests to replay: who may ask for an event to be decided once more.

use bytes::Bytes;
use fermata_core::event::{Event, EventLimits, Subject, decode_message};
use fermata_wire::replay::{ReplayHeaders, ReplayKeys, verify_replay};
use serde::Deserialize;
use uuid::Uuid;

/// Why a request was refused: a stable code, and what is wrong.
pub(super) type Refused = (&'static str, String);

/// Reason code of a request whose event cannot be replayed as it is.
const BAD_REPLAY: &str = "bad_replay";

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
) -> Result<(Uuid, Event<'a>), Refused> {
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
        Some(Ok(event)) => Ok((replay, event)),
        Some(Err(rejected)) => Err((rejected.reason.as_str(), rejected.detail)),
        None => Err((BAD_REPLAY, "there is no event in the request".to_owned())),
    }
}
