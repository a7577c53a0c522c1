//! The checks, one function each.

use std::time::{Duration, Instant};

use fermata_jetstream::connection::ConnectError;
use fermata_jetstream::core_messages::CoreMessages;
use fermata_jetstream::leases::{Leases, partition_key};
use fermata_jetstream::monitoring::{ServerHealth, health, store};
use fermata_jetstream::server::{
    SERVER_VERSION_MIN, ServerError, ServerVersion, find_server_binary,
};
use fermata_jetstream::topology::{CONFIG_STREAM, Drift};
use fermata_jetstream::{Bytes, Topology};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Check, DoctorArguments, calls, load, workers};
use crate::arguments::GlobalArguments;
use crate::broker_session::{BrokerSession, EngineConfig};
use crate::commands::up::DurabilityArgument;
use crate::error::{CliError, after_connect, in_one_line};
use crate::output::span_text;

/// File in the data folder in which a running local engine tells where its
/// broker can be monitored.
pub const MONITOR_FILE: &str = "fermata.monitor";

/// From where on a clock's error is an alarm: journal time follows the broker's.
const CLOCK_ERROR_MS_MAX: i128 = 30_000;

/// Longest way to the broker and back after which its time says how the clocks stand: an answer
/// that was under way for longer is off by up to that.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(2);

/// How long the broker may take to tell its time.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How many drifts are named.
const DRIFTS_NAMED_MAX: usize = 3;

pub(super) fn server_binary() -> Check {
    match find_server_binary() {
        Ok((path, version)) => Check::ok("nats-server", format!("{version} at {}", path.display())),
        Err(error) => {
            let hint = if matches!(error, ServerError::Named { .. }) {
                "only `fermata up` without `--nats-url` needs one"
            } else {
                "only `fermata up` without `--nats-url` needs one; `make tools` gets it"
            };
            let found = Check::failed("nats-server", &error.into()).found;
            Check::warn("nats-server", found, hint).code("no_server_binary")
        }
    }
}

pub(super) fn no_broker(error: &CliError) -> Check {
    // The error's own text ends in the hint.
    if let CliError::Connect(why) = error {
        let code = match why {
            ConnectError::Silent { .. } => "broker_silent",
            ConnectError::Unreachable { .. }
            | ConnectError::NobodyListens { .. }
            | ConnectError::Unresolved { .. }
            | ConnectError::Refused { .. }
            | ConnectError::CredentialsFile { .. } => "no_broker",
        };
        return Check::fail("broker", in_one_line(why), after_connect(why)).code(code);
    }
    if let CliError::OtherEngine { url, found, kept, .. } = error {
        let found = format!(
            "the engine at {url} is `{found}`, and this folder is that of `{kept}`, which has ended"
        );
        let hint = "start this folder's engine again with `fermata up`, or name the one you mean with `--nats-url`";
        return Check::fail("broker", found, hint).code("other_engine");
    }
    let found = if let CliError::NoBroker { url_file } = error {
        format!("none is known: `{url_file}` is not there")
    } else {
        in_one_line(error)
    };
    let hint = "start one with `fermata up`, or name one with `--nats-url`";
    Check::fail("broker", found, hint).code("no_broker")
}

pub(super) fn broker_version(session: &BrokerSession) -> Check {
    judge_version(&session.broker().server_version())
}

fn judge_version(said: &str) -> Check {
    match ServerVersion::parse(said) {
        Some(version) if version >= SERVER_VERSION_MIN => {
            Check::ok("broker", format!("reachable, version {version}"))
        }
        Some(_) | None => {
            let hint = format!("upgrade the broker to {SERVER_VERSION_MIN} or newer");
            Check::fail("broker", format!("version {said}"), hint).code("server_too_old")
        }
    }
}

/// What each server's monitoring endpoint tells: its health, its durability and its store.
pub(super) async fn servers(arguments: &DoctorArguments, global: &GlobalArguments) -> Vec<Check> {
    let mut urls = arguments.monitor_url.clone();
    if urls.is_empty() {
        urls.extend(std::fs::read_to_string(global.data_dir().join(MONITOR_FILE)));
    }
    let mut urls = urls.iter().map(|url| url.trim()).filter(|url| !url.is_empty()).peekable();
    if urls.peek().is_none() {
        let hint = "name the broker's monitoring address with `--monitor-url` to check it";
        return vec![Check::warn("durability", "not known", hint).code("durability_unknown")];
    }
    let mut checks = Vec::new();
    for url in urls {
        let of_one = server(url, arguments.durability).await;
        checks.extend(of_one.into_iter().map(|check| match arguments.monitor_url.len() {
            0 | 1 => check,
            _ => Check { found: format!("{url}: {}", check.found), ..check },
        }));
    }
    checks
}

async fn server(url: &str, wanted: Option<DurabilityArgument>) -> Vec<Check> {
    match (health(url).await, store(url).await) {
        (Ok(health), Ok(store)) => vec![
            judge_health(&health),
            judge_durability(store.is_sync_always, wanted),
            load::judge_store(&store),
        ],
        (Err(error), _) | (_, Err(error)) => {
            let hint = "check the address given by `--monitor-url`";
            vec![Check::warn("durability", error.to_string(), hint).code("durability_unknown")]
        }
    }
}

/// What stops a server from writing, a full disk first of all, it says of itself.
fn judge_health(health: &ServerHealth) -> Check {
    if health.is_ok() {
        return Check::ok("server", "finds nothing wrong with itself");
    }
    let found = match &health.error {
        Some(error) => format!("says `{}`: {error}", health.status),
        None => format!("says `{}`", health.status),
    };
    let hint = "read the server's log; after a full disk it needs room, and then a restart";
    Check::fail("server", found, hint).code("server_unwell")
}

fn judge_durability(is_sync_always: bool, wanted: Option<DurabilityArgument>) -> Check {
    if is_sync_always {
        let found = "power: every message is synced before it is acknowledged";
        return Check::ok("durability", found);
    }
    let found = "process: acknowledged messages survive a kill, not a power cut";
    let hint = "start `fermata up` without `--durability process`; of a broker of your own set \
                `sync_interval: always` in its configuration, as in nats/durable.conf";
    match wanted {
        Some(DurabilityArgument::Power) => Check::fail("durability", found, hint),
        Some(DurabilityArgument::Process) => return Check::ok("durability", found),
        None => Check::warn("durability", found, hint),
    }
    .code("durability_process")
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
        let hint = "start the engine, or start it again: it creates what is missing";
        return Check::fail("streams", found, hint).code("stream_missing").details(names);
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
    let details = drifts.iter().map(|drift| serde_json::to_value(drift).unwrap_or_default());
    let found = named(&texts);
    // Sizes and ages are the operator's: a worker starts on them, and says nothing.
    let check = if drifts.iter().all(|drift| drift.field.starts_with("max_")) {
        let hint = "compare with nats/topology.json, and edit the streams unless this is meant";
        // The broker drops what is beyond the bound at once.
        let drops = drifts.iter().find(|drift| drift.field == "max_msgs_per_subject");
        let hint = match drops {
            Some(drift) => format!(
                "{hint}; lower `max_msgs_per_subject` of {} only while it is empty: it loses messages",
                drift.stream
            ),
            None => hint.to_owned(),
        };
        Check::warn("streams", found, hint)
    } else if let Some(drift) = drifts.iter().find(|drift| !drift.can_be_edited()) {
        let Drift { stream, field, .. } = drift;
        let hint = format!(
            "`{field}` of {stream} cannot be edited, and no worker starts on it: end the workers, see that nothing in \
             the stream is needed (`nats stream info {stream}`), delete it (`nats stream rm {stream}`), and start them: \
             they make it anew"
        );
        Check::fail("streams", found, hint)
    } else {
        let hint =
            "compare with nats/topology.json and edit the streams: no worker starts on these";
        Check::fail("streams", found, hint)
    };
    check.code("stream_drift").details(details)
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
        Ok((live, unowned)) => {
            let mut checks = vec![judge_workers(&live), judge_partitions(config, &unowned)];
            match workers::ask_all(session, &live).await {
                Ok(statuses) => {
                    checks.extend(workers::judge(&live, &statuses));
                    if workers::is_complete(&live, &statuses) {
                        checks.push(calls::known(session, &statuses).await);
                    } else if !statuses.is_empty() {
                        let found = "not every worker told what it knows";
                        checks.push(Check::skipped("calls", found));
                    }
                }
                Err(error) => checks.push(Check::failed("answers", &error)),
            }
            checks
        }
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
        )
        .code("no_worker"),
        workers => Check::ok("workers", format!("holding a lease: {}", workers.join(", "))),
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
    .code("partition_without_owner")
    .details(names)
}

pub(super) async fn clock(session: &BrokerSession) -> Check {
    match told_time(session).await {
        Some(told) => judge_told(told),
        None => {
            let found = "the broker did not tell its time";
            Check::warn("clock", found, "try again").code("clock_unknown")
        }
    }
}

fn judge_told(told: ToldTime) -> Check {
    if told.is_late() {
        let waited = span_text(u64::try_from(told.waited.as_millis()).unwrap_or(u64::MAX));
        let found =
            format!("the broker told its time after {waited}, which is too late to compare");
        let hint = "see why it is slow to answer (its load, the network), then try again";
        return Check::warn("clock", found, hint).code("clock_unknown");
    }
    judge_clock(told.ahead_ms)
}

fn judge_clock(ahead_ms: i128) -> Check {
    let (size, direction) = (ahead_ms.abs(), if ahead_ms < 0 { "behind" } else { "ahead of" });
    let shown = span_text(u64::try_from(size).unwrap_or(u64::MAX));
    let found = format!("the broker is {shown} {direction} this machine");
    if size > CLOCK_ERROR_MS_MAX {
        return Check::fail(
            "clock",
            found,
            "set both clocks by NTP: timers are due in journal time",
        )
        .code("clock_skew");
    }
    Check::ok("clock", found)
}

/// The broker's time, milliseconds since 1970.
///
/// # Errors
///
/// When the broker does not tell.
pub(super) async fn broker_time_ms(session: &BrokerSession) -> Result<u64, CliError> {
    let told = told_time(session).await.filter(|told| !told.is_late()).ok_or_else(|| {
        CliError::Refused("the broker did not tell its time at once; nothing was done".to_owned())
    })?;
    let time = OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000 + told.ahead_ms;
    Ok(u64::try_from(time).unwrap_or(0))
}

/// What the broker told of its time.
#[derive(Debug, Clone, Copy)]
struct ToldTime {
    /// How far its clock is ahead of ours, give or take half of `waited`.
    ahead_ms: i128,
    /// How long the question and its answer were under way.
    waited: Duration,
}

impl ToldTime {
    fn is_late(self) -> bool {
        self.waited > ROUND_TRIP_MAX
    }
}

/// How far the broker's clock is ahead of ours: every answer about a stream carries its time.
async fn told_time(session: &BrokerSession) -> Option<ToldTime> {
    let question = format!("$JS.API.STREAM.INFO.{CONFIG_STREAM}");
    let before = OffsetDateTime::now_utc();
    let begun = Instant::now();
    let answer = CoreMessages::new(session.broker())
        .request(&question, Bytes::new(), ANSWER_LIMIT)
        .await
        .ok()?;
    let waited = begun.elapsed();
    let answer: Value = serde_json::from_slice(&answer.payload).ok()?;
    let told = OffsetDateTime::parse(answer.get("ts")?.as_str()?, &Rfc3339).ok()?;
    let ahead: time::Duration = told - (before + waited / 2);
    Some(ToldTime { ahead_ms: ahead.whole_milliseconds(), waited })
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
    fn a_missing_stream_and_another_setting_fail_and_are_told_apart() {
        assert_eq!(judge_drift(&[], 30).health, Health::Ok);
        let drifted = judge_drift(&[drift("EVENTS", "discard")], 30);
        assert_eq!((drifted.health, drifted.code), (Health::Fail, Some("stream_drift")));
        assert_eq!(drifted.details[0]["field"], "discard");
        assert_eq!(judge_drift(&[drift("EVENTS", "max_age")], 30).health, Health::Warn);
        let lowered = judge_drift(&[drift("WAITING", "max_msgs_per_subject")], 30);
        let hint = lowered.hint.expect("a hint");
        assert_eq!(lowered.health, Health::Warn);
        assert!(hint.contains("of WAITING only while it is empty"), "{hint}");
        let missing = judge_drift(&[drift("EVENTS", "max_bytes"), drift("DEAD", "name")], 30);
        assert_eq!((missing.health, missing.found.as_str()), (Health::Fail, "missing: DEAD"));
    }

    #[test]
    fn a_stream_that_cannot_be_edited_is_to_be_made_anew() {
        let denied = Drift { found: true.into(), ..drift("TASKS", "deny_delete") };

        let check = judge_drift(&[drift("EVENTS", "discard"), denied], 30);

        assert_eq!((check.health, check.code), (Health::Fail, Some("stream_drift")));
        let hint = check.hint.expect("a hint");
        assert!(hint.contains("`nats stream rm TASKS`"), "{hint}");
    }

    #[test]
    fn the_size_of_a_stream_and_its_replicas_are_no_drift() {
        let chosen = [drift("EVENTS", "num_replicas"), drift("EVENTS", "max_bytes")];

        assert_eq!(judge_drift(&chosen, 30).health, Health::Ok);
    }

    #[test]
    fn a_server_that_is_too_old_or_says_nothing_fails() {
        assert_eq!(judge_version("2.12.0").health, Health::Ok);
        for old in ["2.11.9", "1.4.1", "what"] {
            assert_eq!(judge_version(old).code, Some("server_too_old"), "{old}");
        }
    }

    #[test]
    fn a_broker_that_does_not_sync_fails_only_whoever_wants_it() {
        let health = |wanted| judge_durability(false, wanted).health;

        assert_eq!(health(None), Health::Warn);
        assert_eq!(health(Some(DurabilityArgument::Power)), Health::Fail);
        assert_eq!(health(Some(DurabilityArgument::Process)), Health::Ok);
        assert_eq!(judge_durability(true, Some(DurabilityArgument::Power)).health, Health::Ok);
    }

    #[test]
    fn a_server_that_cannot_write_fails_with_its_own_words() {
        let health = |status: &str, error: Option<&str>| {
            let (status, error) = (status.to_owned(), error.map(str::to_owned));
            judge_health(&ServerHealth { status, error })
        };

        assert_eq!(health("ok", None).health, Health::Ok);
        let unwell = health("unavailable", Some("JetStream stream 'EVENTS' has write error"));
        assert_eq!(unwell.code, Some("server_unwell"));
        assert!(unwell.found.ends_with("'EVENTS' has write error"), "{}", unwell.found);
    }

    #[test]
    fn a_clock_that_is_off_by_half_a_minute_fails_either_way() {
        assert_eq!(judge_clock(30_000).health, Health::Ok);
        assert_eq!(judge_clock(30_001).health, Health::Fail);
        assert_eq!(judge_clock(-30_001).health, Health::Fail);
    }

    #[test]
    fn no_clock_is_judged_by_an_answer_that_came_late() {
        let told = |ahead_ms, waited| judge_told(ToldTime { ahead_ms, waited });

        let late = told(-40_000, Duration::from_millis(2_001));

        assert_eq!((late.health, late.code), (Health::Warn, Some("clock_unknown")));
        assert!(late.found.contains("after 2.001s"), "{}", late.found);
        assert_eq!(told(-40_000, ROUND_TRIP_MAX).code, Some("clock_skew"));
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
        assert_eq!(check.code, Some("partition_without_owner"));
    }
}
