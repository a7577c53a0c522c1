//! `fermata doctor --repair room`: streams that fill get twice their room, in place, or all what they are asked to
//! have. All of it fits and is given, or nothing is changed.

use std::collections::HashMap;

use fermata_jetstream::StreamSpec;
use fermata_jetstream::topology::{Enlarged, Enlargement};
use fermata_jetstream::usage::StreamUsage;
use serde_json::json;

use super::DoctorArguments;
use super::load::filling;
use crate::arguments::GlobalArguments;
use crate::broker_session::BrokerSession;
use crate::commands::up::bytes;
use crate::error::{CliError, ExitCode};
use crate::output::{Output, Tone, counted, size_text};
use crate::stream_room::{Advice, StreamRoom, stores};

const MIB: u64 = 1 << 20;

/// What is asked for: each stream with the size that it is to have, and in words.
struct Asked {
    specs: Vec<StreamSpec>,
    text: String,
}

/// Enlarges all streams, or one, to what is asked for, else those that fill, and tells.
pub(super) async fn enlarge(
    arguments: &DoctorArguments,
    global: &GlobalArguments,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let dry_run = arguments.dry_run;
    let session = BrokerSession::open(global).await?;
    let config = session.engine_config().await?;
    let stores = stores(&session, global, &arguments.monitor_url).await?;
    let room = StreamRoom::look(&session, &config, &stores).await?;
    let only = arguments.only.as_deref().map(|name| find(&room, name)).transpose()?;
    let asked = match only {
        Some(usage) => Some(asked_of_one(&room, usage, arguments.to)?),
        None => match arguments.stream_room {
            Some(wanted) => Some(asked_of_all(&room, wanted)),
            None => asked_of_those_that_fill(&room)?,
        },
    };
    let Some(Asked { specs, text }) = asked else { return tell(&[], dry_run, output) };
    let enlargement = Enlargement::plan(session.broker(), &specs).await?;
    room.judge(enlargement.added_bytes(), &text, only)?;
    let enlarged = match dry_run {
        true => enlargement.into_streams(),
        false => enlargement.make(session.broker()).await?,
    };
    tell(&enlarged, dry_run, output)
}

/// The stream by its name, in any case, or by what comes behind `OBJ_fermata-` or `KV_fermata-`.
fn find<'r>(room: &'r StreamRoom, name: &str) -> Result<&'r StreamUsage, CliError> {
    let is_it = |usage: &&StreamUsage| {
        let prefixes = ["", "OBJ_", "KV_", "OBJ_fermata-", "KV_fermata-"];
        let short = prefixes.iter().filter_map(|prefix| usage.name.strip_prefix(prefix));
        short.into_iter().any(|short| short.eq_ignore_ascii_case(name))
    };
    room.usages.iter().find(is_it).ok_or_else(|| {
        CliError::Usage(format!(
            "the engine has no stream `{name}`; `--only` takes one of its streams as docs/limits.md lists them, \
             such as `EVENTS`, `AUDIT_3` or `payloads`"
        ))
    })
}

fn asked_of_one(
    room: &StreamRoom,
    usage: &StreamUsage,
    to: Option<u64>,
) -> Result<Asked, CliError> {
    let max_bytes = match (to, room.alone(usage, 0)) {
        (Some(to), _) => bytes(to),
        (None, Advice::Alone { bytes, is_most: false, .. }) => bytes,
        (None, advice) => {
            let (name, told) = (&usage.name, room.told(&advice));
            return Err(CliError::Refused(format!(
                "{name} cannot be made twice as large: {told}; nothing was changed"
            )));
        }
    };
    let mut specs = room.topology().streams();
    specs.retain(|spec| spec.name == usage.name);
    specs.iter_mut().for_each(|spec| spec.max_bytes = max_bytes);
    let most = size_text(u64::try_from(max_bytes).unwrap_or(0));
    Ok(Asked { specs, text: format!("to let {} hold {most}", usage.name) })
}

fn asked_of_all(room: &StreamRoom, wanted: u64) -> Asked {
    let specs = room.topology().clone().fitted_to(bytes(wanted)).streams();
    Asked { specs, text: format!("to give the streams {} together", size_text(wanted)) }
}

/// Twice what each of them has, and nothing to the others; nothing where none fills.
fn asked_of_those_that_fill(room: &StreamRoom) -> Result<Option<Asked>, CliError> {
    let fills = filling(&room.usages);
    if fills.is_empty() {
        return Ok(None);
    }
    let sizes = fills.iter().map(|usage| (usage.name.as_str(), doubled(usage)));
    let sizes = sizes.collect::<HashMap<_, _>>();
    let mut specs = room.topology().streams();
    specs.retain_mut(|spec| {
        let size = sizes.get(spec.name.as_str());
        size.iter().for_each(|size| spec.max_bytes = **size);
        size.is_some()
    });
    let names = fills.iter().map(|usage| usage.name.as_str()).collect::<Vec<_>>().join(", ");
    let added = |usage: &&StreamUsage| doubled(usage) - bytes(usage.bytes_max.unwrap_or(0));
    let added = fills.iter().map(added).sum();
    if !room.fits(added) {
        let told = room.told(&room.advice(&fills));
        return Err(CliError::Refused(format!(
            "{names} cannot be made twice as large: {told}; nothing was changed"
        )));
    }
    Ok(Some(Asked { specs, text: format!("to let {names} hold twice as much") }))
}

/// Twice what it has, in whole mebibytes: less than one holds nothing.
fn doubled(usage: &StreamUsage) -> i64 {
    let twice = usage.bytes_max.unwrap_or(0).saturating_mul(2);
    bytes(twice.div_ceil(MIB).saturating_mul(MIB))
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
