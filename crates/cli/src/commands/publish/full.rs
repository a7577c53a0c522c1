//! A store of payloads without room: how full it is, and what to do.

use fermata_jetstream::payloads::payload_room_bytes;
use fermata_jetstream::topology::PAYLOADS_BUCKET;

use super::claim::Claim;
use crate::arguments::GlobalArguments;
use crate::broker_session::BrokerSession;
use crate::error::CliError;
use crate::output::size_text;
use crate::stream_room::{StreamRoom, stores};

/// Of the bytes of a payload so many more are taken by what stands around its chunks: a 4096th, and what
/// describes it.
const AROUND_DIVISOR: u64 = 4_096;
const AROUND_BYTES: u64 = 4_096;

/// Refuses data that the store cannot hold however empty it is, before any of it is stored.
pub(super) async fn refuse_too_large(
    claims: &[&Claim],
    session: &BrokerSession,
    global: &GlobalArguments,
) -> Result<(), CliError> {
    // Without an answer the upload will tell.
    let Ok(Some(most)) = payload_room_bytes(session.broker()).await else { return Ok(()) };
    let Some(claim) = claims.iter().find(|claim| claim.bytes() > most) else { return Ok(()) };
    let needed = claim.bytes();
    let now = what_now(needed, session, global).await;
    Err(CliError::Refused(format!(
        "the store of payloads (`OBJ_{PAYLOADS_BUCKET}`) holds {} at the most, and never {}{now}; nothing was \
         stored or published",
        size_text(most),
        claim.described()
    )))
}

/// The error, with the figures of the store where that has no room; else as it is.
pub(super) async fn explained(
    error: CliError,
    claim: &Claim,
    session: &BrokerSession,
    global: &GlobalArguments,
) -> CliError {
    let CliError::Store(store) = &error else { return error };
    if !store.is_full() {
        return error;
    }
    let Some(room) = look(session, global).await else { return error };
    let name = format!("OBJ_{PAYLOADS_BUCKET}");
    let Some(usage) = room.usages.iter().find(|usage| usage.name == name) else { return error };
    let (used, most) = (size_text(usage.state.bytes), size_text(usage.bytes_max.unwrap_or(0)));
    let now = room.told(&room.alone(usage, with_around(usage.state.bytes + claim.bytes())));
    let what = claim.described();
    CliError::Refused(format!(
        "the store of payloads (`{name}`) has no room for {what}: {used} of {most} are used; {now}. Payloads make \
         room by themselves after 30 days; nothing was published"
    ))
}

/// What makes the store large enough for so many bytes, as the end of a sentence.
async fn what_now(needed: u64, session: &BrokerSession, global: &GlobalArguments) -> String {
    let Some(room) = look(session, global).await else { return String::new() };
    let name = format!("OBJ_{PAYLOADS_BUCKET}");
    let usage = room.usages.iter().find(|usage| usage.name == name);
    usage.map_or_else(String::new, |usage| {
        let held = usage.state.bytes;
        format!("; {}", room.told(&room.alone(usage, with_around(held + needed))))
    })
}

async fn look(session: &BrokerSession, global: &GlobalArguments) -> Option<StreamRoom> {
    let config = session.engine_config().await.ok()?;
    let stores = stores(session, global, &[]).await.unwrap_or_default();
    StreamRoom::look(session, &config, &stores).await.ok()
}

fn with_around(bytes: u64) -> u64 {
    bytes + bytes / AROUND_DIVISOR + AROUND_BYTES
}
