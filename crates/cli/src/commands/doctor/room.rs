//! `fermata doctor --repair room`: streams that fill get more room, in place.

use fermata_jetstream::Topology;
use fermata_jetstream::topology::Enlarged;
use fermata_jetstream::usage::StreamUsage;
use serde_json::json;

use super::load::{filling, usages};
use crate::broker_session::BrokerSession;
use crate::commands::up::bytes;
use crate::error::{CliError, ExitCode};
use crate::output::{Output, Tone, counted, size_text};

/// Gibibytes for all streams together in which each that fills may hold twice as much; nothing where no
/// room makes it larger.
pub(super) fn room_for(usages: &[StreamUsage], partitions: u16) -> Option<i64> {
    let bytes_max = |usage: &StreamUsage| bytes(usage.bytes_max.unwrap_or(0));
    let reserved = usages.iter().map(bytes_max).sum();
    let full = filling(usages).into_iter().map(|usage| (usage.name.clone(), bytes_max(usage)));
    let topology = Topology { partitions, ..Topology::default() };
    topology.room_for(reserved, &full.collect::<Vec<_>>()).map(|room| room >> 30)
}

/// Enlarges the streams to `room` bytes together, or to what those that fill need, and tells.
pub(super) async fn enlarge(
    session: &BrokerSession,
    room: Option<u64>,
    dry_run: bool,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let config = session.engine_config().await?;
    let room = match room {
        Some(room) => bytes(room),
        None => {
            let usages = usages(session, &config).await?;
            let fills = filling(&usages);
            if fills.is_empty() {
                return tell(&[], dry_run, output);
            }
            let Some(gib) = room_for(&usages, config.partitions) else {
                let names = fills.iter().map(|usage| usage.name.as_str()).collect::<Vec<_>>();
                return Err(CliError::Usage(format!(
                    "no room makes {} twice as large; raise `max_bytes` in the broker (`nats stream edit`)",
                    names.join(", ")
                )));
            };
            gib << 30
        }
    };
    let topology = Topology { partitions: config.partitions, ..Topology::default() };
    let enlarged = topology.fitted_to(room).enlarge(session.broker(), dry_run).await?;
    tell(&enlarged, dry_run, output)
}

fn tell(enlarged: &[Enlarged], dry_run: bool, output: &mut Output) -> Result<ExitCode, CliError> {
    for Enlarged { stream, from_bytes, to_bytes } in enlarged {
        if output.is_json() {
            let answer = if dry_run { "would_enlarge" } else { "enlarged" };
            output.json_line(&json!({
                "repair": "room", "answer": answer, "stream": stream, "from_bytes": from_bytes, "to_bytes": to_bytes,
            }))?;
            continue;
        }
        let text = |bytes: &i64| size_text(u64::try_from(*bytes).unwrap_or(0));
        output.line(&format!("{stream}: {} instead of {}", text(to_bytes), text(from_bytes)))?;
    }
    if !output.is_json() {
        let title = output.tone(Tone::Good, "room");
        let verb = match (dry_run, enlarged.len()) {
            (true, _) => "would be",
            (false, 1) => "is",
            (false, _) => "are",
        };
        let count = counted(enlarged.len(), "stream", "streams");
        output.line(&format!("{title}: {count} {verb} larger"))?;
    }
    Ok(ExitCode::Success)
}
