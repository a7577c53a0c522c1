//! The checks, one function each.

use std::time::Duration;

use fermata_jetstream::core_messages::CoreMessages;
use fermata_jetstream::leases::{Leases, partition_key};
use fermata_jetstream::monitoring::is_sync_always;
use fermata_jetstream::server::{SERVER_VERSION_MIN, ServerVersion, find_server_binary};
use fermata_jetstream::topology::{CONFIG_STREAM, Drift};
use fermata_jetstream::{Bytes, Topology};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Check;
use crate::arguments::GlobalArguments;
use crate::broker_session::{BrokerSession, EngineConfig};
use crate::error::CliError;

/// File in the data folder in which a running local engine tells where its
/// broker can be monitored.
pub const MONITOR_FILE: &str = "fermata.monitor";

/// From where on a clock's error is an alarm: journal time follows the broker's.
const CLOCK_ERROR_MS_MAX: i128 = 30_000;

/// How long the broker may take to tell its time.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How many drifts are named.
const DRIFTS_NAMED_MAX: usize = 3;

pub(super) fn server_binary() -> Check {
    match find_server_binary() {
        Ok((path, version)) => Check::ok("nats-server", format!("{version} at {}", path.display())),
        Err(error) => Check::warn(
            "nats-server",
            error.to_string(),
            "only `fermata up` without `--nats-url` needs one; `make tools` gets it",
        ),
    }
}

pub(super) fn no_broker(error: &CliError) -> Check {
    // The error's own text ends in the hint.
    let found = if let CliError::NoBroker { url_file } = error {
        format!("none is known: `{url_file}` is not there")
    } else if let CliError::Connect(why) = error {
        why.to_string()
    } else {
        Check::failed("broker", error).found
    };
    Check::fail("broker", found, "start one with `fermata up`, or name one with `--nats-url`")
}

pub(super) fn broker_version(session: &BrokerSession) -> Check {
    let said = session.broker().server_version();
    match ServerVersion::parse(&said) {
        Some(version) if version >= SERVER_VERSION_MIN => {
            Check::ok("broker", format!("reachable, version {version}"))
        }
        Some(_) | None => {
            let hint = format!("upgrade the broker to {SERVER_VERSION_MIN} or newer");
            Check::fail("broker", format!("version {said}"), hint)
        }
    }
}

pub(super) async fn durability(named: Option<&str>, global: &GlobalArguments) -> Check {
    let from_file = || std::fs::read_to_string(global.data_dir().join(MONITOR_FILE)).ok();
    let url = named.map(str::to_owned).or_else(|| from_file().map(|url| url.trim().to_owned()));
    let Some(url) = url.filter(|url| !url.is_empty()) else {
        let hint = "name the broker's monitoring address with `--monitor-url` to check it";
        return Check::warn("durability", "not known", hint);
    };
    match is_sync_always(&url).await {
        Ok(true) => {
            Check::ok("durability", "power: every message is synced before it is acknowledged")
        }
        Ok(false) => Check::warn(
            "durability",
            "process: acknowledged messages survive a kill, not a power cut",
            "set `sync_interval: always` in the broker's configuration, as in nats/durable.conf",
        ),
        Err(error) => Check::warn(
            "durability",
            error.to_string(),
            "check the address given by `--monitor-url`",
        ),
    }
}

pub(super) async fn streams(session: &BrokerSession, config: &EngineConfig) -> Check {
    let topology = Topology { partitions: config.partitions, ..Topology::default() };
    let count = topology.streams().len();
    match topology.compare(session.broker()).await {
        Ok(found) => judge_drift(&found, count),
        Err(error) => Check::failed("streams", &error.into()),
    }
}

/// Missing streams are a fault. How many replicas there are and how much room a stream
/// has is for the operator to choose and no drift.
fn judge_drift(found: &[Drift], count: usize) -> Check {
    let is_choice = |drift: &&Drift| matches!(drift.field.as_str(), "num_replicas" | "max_bytes");
    let drifts: Vec<_> = found.iter().filter(|drift| !is_choice(drift)).collect();
    let missing: Vec<_> = drifts.iter().filter(|drift| drift.field == "name").collect();
    if !missing.is_empty() {
        let names: Vec<_> = missing.iter().map(|drift| drift.stream.as_str()).collect();
        let found = format!("missing: {}", named(&names));
        return Check::fail("streams", found, "start the engine: it creates what is missing");
    }
    if drifts.is_empty() {
        return Check::ok("streams", format!("{count} streams are as they should be"));
    }
    let texts: Vec<_> = drifts
        .iter()
        .map(|drift| {
            format!("{}.{} is {}, not {}", drift.stream, drift.field, drift.found, drift.expected)
        })
        .collect();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    Check::warn("streams", named(&texts), "compare with nats/topology.json and edit the streams")
}

fn named(names: &[&str]) -> String {
    let shown = names.iter().take(DRIFTS_NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(DRIFTS_NAMED_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

pub(super) async fn ownership(session: &BrokerSession, config: &EngineConfig) -> Vec<Check> {
    match look_at_leases(session, config).await {
        Ok((workers, unowned)) => vec![judge_workers(&workers), judge_partitions(config, &unowned)],
        Err(error) => vec![Check::failed("workers", &error)],
    }
}

async fn look_at_leases(
    session: &BrokerSession,
    config: &EngineConfig,
) -> Result<(Vec<String>, Vec<String>), CliError> {
    let leases = Leases::open(session.broker()).await?;
    let workers = leases.live_workers().await?;
    let mut unowned = Vec::new();
    for partition in config.partition_ids() {
        let name = partition.to_string();
        if leases.get(&partition_key(&name)).await?.is_none() {
            unowned.push(name);
        }
    }
    Ok((workers, unowned))
}

fn judge_workers(workers: &[String]) -> Check {
    match workers {
        [] => Check::fail(
            "workers",
            "none lives: events are stored and wait",
            "start one with `fermata up` or `fermata worker`",
        ),
        workers => Check::ok("workers", format!("alive: {}", workers.join(", "))),
    }
}

fn judge_partitions(config: &EngineConfig, unowned: &[String]) -> Check {
    if unowned.is_empty() {
        return Check::ok(
            "partitions",
            format!("all {} are owned, control included", u32::from(config.partitions) + 1),
        );
    }
    let names: Vec<_> = unowned.iter().map(String::as_str).collect();
    Check::fail(
        "partitions",
        format!("without an owner: {}", names.join(", ")),
        "start a worker with the role coordinator; a lease of a killed one expires after 15 s",
    )
}

pub(super) async fn clock(session: &BrokerSession) -> Check {
    match broker_ahead_ms(session).await {
        Some(ahead) => judge_clock(ahead),
        None => Check::warn("clock", "the broker did not tell its time", "try again"),
    }
}

fn judge_clock(ahead_ms: i128) -> Check {
    let (size, direction) = (ahead_ms.abs(), if ahead_ms < 0 { "behind" } else { "ahead of" });
    let found = format!("the broker is {size} ms {direction} this machine");
    if size > CLOCK_ERROR_MS_MAX {
        return Check::fail(
            "clock",
            found,
            "set both clocks by NTP: timers are due in journal time",
        );
    }
    Check::ok("clock", found)
}

/// How far the broker's clock is ahead of ours, give or take the time of a question: every
/// answer about a stream carries the broker's time.
async fn broker_ahead_ms(session: &BrokerSession) -> Option<i128> {
    let question = format!("$JS.API.STREAM.INFO.{CONFIG_STREAM}");
    let before = OffsetDateTime::now_utc();
    let answer = CoreMessages::new(session.broker())
        .request(&question, Bytes::new(), ANSWER_LIMIT)
        .await
        .ok()?;
    let after = OffsetDateTime::now_utc();
    let answer: Value = serde_json::from_slice(&answer.payload).ok()?;
    let told = OffsetDateTime::parse(answer.get("ts")?.as_str()?, &Rfc3339).ok()?;
    let waited: time::Duration = after - before;
    let ahead: time::Duration = told - (before + waited / 2);
    Some(ahead.whole_milliseconds())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::Health;

    fn drift(stream: &str, field: &str) -> Drift {
        let (stream, field) = (stream.to_owned(), field.to_owned());
        Drift { stream, field, expected: 1.into(), found: Value::Null }
    }

    #[test]
    fn a_missing_stream_fails_and_another_setting_warns() {
        assert_eq!(judge_drift(&[], 30).health, Health::Ok);
        assert_eq!(judge_drift(&[drift("EVENTS", "discard")], 30).health, Health::Warn);
        let missing = judge_drift(&[drift("EVENTS", "max_bytes"), drift("DEAD", "name")], 30);
        assert_eq!((missing.health, missing.found.as_str()), (Health::Fail, "missing: DEAD"));
    }

    #[test]
    fn the_size_of_a_stream_and_its_replicas_are_no_drift() {
        let chosen = [drift("EVENTS", "num_replicas"), drift("EVENTS", "max_bytes")];

        assert_eq!(judge_drift(&chosen, 30).health, Health::Ok);
    }

    #[test]
    fn a_clock_that_is_off_by_half_a_minute_fails_either_way() {
        assert_eq!(judge_clock(30_000).health, Health::Ok);
        assert_eq!(judge_clock(30_001).health, Health::Fail);
        assert_eq!(judge_clock(-30_001).health, Health::Fail);
    }

    #[test]
    fn partitions_without_an_owner_are_named() {
        let config = EngineConfig {
            engine: "e".to_owned(),
            partitions: 2,
            audit_vkey: String::new(),
            version: 1,
        };

        assert_eq!(judge_partitions(&config, &[]).health, Health::Ok);
        let check = judge_partitions(&config, &["control".to_owned(), "1".to_owned()]);
        assert_eq!(check.found, "without an owner: control, 1");
    }
}
