//! A store of payloads without room: how full it is, and what to do.

use fermata_jetstream::Topology;
use fermata_jetstream::topology::PAYLOADS_BUCKET;
use fermata_jetstream::usage::{StreamUsage, stream_usages};

use super::claim::Claim;
use crate::broker_session::BrokerSession;
use crate::commands::up::bytes;
use crate::error::CliError;
use crate::output::size_text;

/// The error, with the figures of the store where that has no room; else as it is.
pub(super) async fn explained(error: CliError, claim: &Claim, session: &BrokerSession) -> CliError {
    let CliError::Store(store) = &error else { return error };
    if !store.is_full() {
        return error;
    }
    let name = format!("OBJ_{PAYLOADS_BUCKET}");
    let Ok(usages) = stream_usages(session.broker()).await else { return error };
    let Some(usage) = usages.iter().find(|usage| usage.name == name) else { return error };
    let partitions = session.engine_config().await.map(|config| config.partitions).ok();
    let room = partitions.and_then(|partitions| room_for(&usages, usage, partitions));
    CliError::Refused(text(usage, room, &claim.described()))
}

/// Gibibytes for all streams together in which this one may hold twice as much.
fn room_for(usages: &[StreamUsage], usage: &StreamUsage, partitions: u16) -> Option<i64> {
    let bytes_max = |usage: &StreamUsage| bytes(usage.bytes_max.unwrap_or(0));
    let topology = Topology { partitions, ..Topology::default() };
    let ours = topology.streams();
    let ours = usages.iter().filter(|usage| ours.iter().any(|spec| spec.name == usage.name));
    let reserved = ours.map(bytes_max).sum();
    let room = topology.room_for(reserved, &[(usage.name.clone(), bytes_max(usage))]);
    room.map(|room| room >> 30)
}

fn text(usage: &StreamUsage, room: Option<i64>, what: &str) -> String {
    let (used, most) = (size_text(usage.state.bytes), size_text(usage.bytes_max.unwrap_or(0)));
    let now = match room {
        Some(gib) => format!(
            "enlarge it with `fermata doctor --repair room --stream-room {gib}GiB`, or start the engine with such a \
             `--stream-room`"
        ),
        None => format!(
            "raise `max_bytes` of the stream in the broker (`nats stream edit {}`)",
            usage.name
        ),
    };
    format!(
        "the store of payloads (`{}`) has no room for {what}: {used} of {most} are used; {now}. Payloads make room \
         by themselves after 30 days; nothing was published",
        usage.name
    )
}
