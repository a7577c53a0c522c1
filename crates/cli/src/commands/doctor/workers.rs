//! What the workers say about themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use fermata_actors::started_with::StartedWith;
use fermata_actors::status_service::StatusQuestion;
use fermata_jetstream::Bytes;
use fermata_jetstream::core_messages::CoreMessages;
use fermata_jetstream::leases::{Leases, partition_key};
use fermata_wire::subjects;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Check, alike, roles};
use crate::broker_session::{BrokerSession, random_id};
use crate::error::CliError;
use crate::output::counted;

/// How long answers are waited for when not all that live have answered.
const ANSWERS_LIMIT: Duration = Duration::from_secs(2);

/// How much longer they are waited for when those have: workers that hold no lease answer as well.
const OTHERS_LIMIT: Duration = Duration::from_millis(300);

/// Records behind which an auditor lags: seconds of its work.
const AUDIT_LAG_RECORDS_MAX: u64 = 200_000;

/// Percent of the keys that a partition keeps above which it is warned of: a
/// fifth of the window, some five hours at an even load, is left to act.
const KEYS_PERCENT_MAX: u64 = 80;

/// Why nothing is known of workers and what they own.
const NOBODY: &str = "not checked: no worker lives that could be asked";

/// Why nothing is known of workers that live.
const NO_ANSWER: &str = "not checked: no worker answered";

/// How one worker stands.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct WorkerStatus {
    pub(crate) worker: String,
    pub(crate) version: String,
    pub(crate) partitions: Vec<PartitionStatus>,
    // All below is absent from older workers.
    #[serde(default)]
    pub(crate) incarnation: Option<Uuid>,
    #[serde(default)]
    pub(crate) process_id: u32,
    #[serde(default)]
    pub(crate) roles: Vec<String>,
    #[serde(default)]
    pub(crate) queues: Vec<String>,
    #[serde(default)]
    pub(crate) settings: BTreeMap<String, Value>,
    #[serde(default)]
    pub(crate) standstills: Vec<Standstill>,
}

impl WorkerStatus {
    /// What this process says of itself, as far as it was started with it.
    pub(crate) fn of_this_process(started_with: &StartedWith) -> Self {
        let StartedWith { incarnation, process_id, roles, queues, settings } = started_with.clone();
        Self {
            incarnation: Some(incarnation),
            process_id,
            roles: roles.iter().map(|role| role.as_str().to_owned()).collect(),
            queues,
            settings,
            ..Self::default()
        }
    }
}

/// What takes nothing that a worker wants stored.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(crate) struct Standstill {
    /// The partition that stands still for it; absent where all of the worker do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partition: Option<String>,
    stream: String,
    reason: String,
    seconds: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct PartitionStatus {
    pub(in crate::commands) partition: String,
    pub(in crate::commands) state: String,
    reason: Option<String>,
    records: u64,
    pub(in crate::commands) signed_records: u64,
    // Absent from older workers.
    #[serde(default)]
    keys: u64,
    #[serde(default)]
    command_ids: u64,
    #[serde(default)]
    keys_max: u64,
    #[serde(default)]
    events_held: Option<String>,
}

/// Whether a partition goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::commands) enum PartitionStanding {
    /// A worker holds its lease, and says nothing else.
    Owned,
    /// No worker holds its lease.
    Ownerless,
    /// Its owner says that it must not go on.
    Halted {
        /// The owner.
        worker: String,
        /// Why.
        reason: String,
    },
}

/// How a partition stands, asked of the leases and of its owner.
pub(in crate::commands) async fn standing_of(
    session: &BrokerSession,
    partition: &str,
) -> Result<PartitionStanding, CliError> {
    let leases = Leases::open(session.broker()).await?;
    let lease = leases.get(&partition_key(partition)).await?;
    let Some(owner) = lease.as_ref().and_then(|lease| lease.worker()).map(str::to_owned) else {
        return Ok(PartitionStanding::Ownerless);
    };
    let statuses = ask(session, std::slice::from_ref(&owner), Duration::ZERO).await?;
    let halted = statuses.iter().filter(|status| status.worker == owner);
    let halted = halted
        .flat_map(|status| &status.partitions)
        .find(|status| status.partition == partition && status.state == "halted");
    let reason = halted.map(|status| status.reason.clone().unwrap_or_default());
    Ok(match reason {
        Some(reason) => PartitionStanding::Halted { worker: owner, reason },
        None => PartitionStanding::Owned,
    })
}

/// Asks every worker, those that hold no lease as well.
pub(in crate::commands) async fn ask_all(
    session: &BrokerSession,
    live: &[String],
) -> Result<Vec<WorkerStatus>, CliError> {
    ask(session, live, OTHERS_LIMIT).await
}

/// Waits until all of `live` have answered, or a while, and then as long as `others_limit` for any others.
async fn ask(
    session: &BrokerSession,
    live: &[String],
    others_limit: Duration,
) -> Result<Vec<WorkerStatus>, CliError> {
    let core = CoreMessages::new(session.broker());
    let reply_to = format!("_INBOX.{}", random_id().simple());
    let mut answers = core.subscribe(&reply_to).await?;
    let question = serde_json::to_vec(&StatusQuestion { reply_to }).unwrap_or_default();
    core.publish_core(subjects::STATUS, Bytes::from(question)).await?;
    let mut found: Vec<WorkerStatus> = Vec::new();
    let all = async {
        while !live.iter().all(|live| found.iter().any(|found| found.worker == *live)) {
            let Some(answer) = answers.next().await else { return };
            found.extend(serde_json::from_slice::<WorkerStatus>(&answer.payload).ok());
        }
    };
    // Those that do not answer are told of.
    let _ = tokio::time::timeout(ANSWERS_LIMIT, all).await;
    let others = async {
        while let Some(answer) = answers.next().await {
            found.extend(serde_json::from_slice(&answer.payload).ok());
        }
    };
    // They go on coming for as long as anybody lets them.
    let _ = tokio::time::timeout(others_limit, others).await;
    Ok(found)
}

pub(super) fn judge(live: &[String], statuses: &[WorkerStatus]) -> Vec<Check> {
    if statuses.is_empty() {
        // What nobody said is not in order.
        let (first, found) = match live {
            [] => (Check::skipped("answers", NOBODY), NOBODY),
            _ => (judge_silence(live, statuses), NO_ANSWER),
        };
        let others = ["roles", "names", "settings", "halted", "standstill", "calls"];
        let others = others.map(|name| Check::skipped(name, found));
        return std::iter::once(first).chain(others).collect();
    }
    let mut checks = vec![
        judge_silence(live, statuses),
        roles::judge(statuses, is_complete(live, statuses)),
        alike::judge_names(statuses),
        alike::judge_settings(statuses),
        judge_halted(statuses),
        judge_standstills(statuses),
    ];
    checks.extend(judge_audit(statuses));
    checks.extend(judge_keys(statuses));
    checks.extend(judge_events_held(statuses));
    checks
}

/// Whether all that hold a lease have answered; those that hold none answer beside them.
pub(super) fn is_complete(live: &[String], statuses: &[WorkerStatus]) -> bool {
    silent(live, statuses).next().is_none()
}

fn silent<'a>(
    live: &'a [String],
    statuses: &'a [WorkerStatus],
) -> impl Iterator<Item = &'a String> {
    live.iter().filter(|live| !statuses.iter().any(|status| status.worker == **live))
}

fn judge_silence(live: &[String], statuses: &[WorkerStatus]) -> Check {
    let silent = silent(live, statuses).cloned().collect::<Vec<_>>();
    if silent.is_empty() {
        let told = |status: &WorkerStatus| format!("{} {}", status.worker, status.version);
        let found = statuses.iter().map(told).collect::<Vec<_>>().join(", ");
        return Check::ok("answers", found);
    }
    let found = format!("no answer from {}", silent.join(", "));
    let hint = "it keeps its lease and does not answer: look into its log, or restart it";
    Check::warn("answers", found, hint).code("worker_silent").details(silent)
}

fn judge_halted(statuses: &[WorkerStatus]) -> Check {
    let halted = statuses.iter().flat_map(|status| {
        let halted = status.partitions.iter().filter(|partition| partition.state == "halted");
        halted.map(|partition| (status.worker.as_str(), partition))
    });
    let halted = halted.collect::<Vec<_>>();
    if halted.is_empty() {
        return Check::ok("halted", "no partition is halted");
    }
    let told = halted.iter().map(|(worker, partition)| {
        let reason = partition.reason.as_deref().unwrap_or("no reason is known");
        format!("partition {} at {worker}: {reason}", partition.partition)
    });
    let found = told.collect::<Vec<_>>().join("; ");
    let details = halted.iter().map(|(worker, partition)| {
        let (partition, reason) = (&partition.partition, &partition.reason);
        json!({ "partition": partition, "worker": worker, "reason": reason })
    });
    let hint = "keep everything as it is; *A halted partition* in docs/failure-semantics.md says what to do for each reason";
    Check::fail("halted", found, hint).code("partition_halted").details(details)
}

fn judge_standstills(statuses: &[WorkerStatus]) -> Check {
    let told = statuses.iter().flat_map(|status| {
        status.standstills.iter().map(|standstill| (status.worker.as_str(), standstill))
    });
    let told = told.collect::<Vec<_>>();
    if told.is_empty() {
        return Check::ok("standstill", "every journal and audit log takes what is stored");
    }
    let found = told.iter().map(|(worker, standstill)| {
        let Standstill { partition, stream, reason, seconds } = standstill;
        let partition = match partition {
            Some(partition) => format!("partition {partition} at {worker}"),
            None => format!("every partition at {worker}"),
        };
        format!("{partition}: `{stream}` has taken nothing for {seconds} s; {reason}")
    });
    let found = found.collect::<Vec<_>>().join("; ");
    let details = told.iter().map(|(worker, standstill)| {
        let mut detail = serde_json::to_value(standstill).unwrap_or_default();
        if let Value::Object(detail) = &mut detail {
            detail.insert("worker".to_owned(), Value::from(*worker));
        }
        detail
    });
    let hint = "nothing is lost, and no effect starts. A stream that is full: `fermata doctor --repair room` enlarges it. A disk that is full: make room and restart the server";
    Check::fail("standstill", found, hint).code("partition_stands_still").details(details)
}

fn judge_audit(statuses: &[WorkerStatus]) -> Option<Check> {
    let all = statuses.iter().flat_map(|status| &status.partitions);
    let owned = all.filter(|partition| partition.state == "owning");
    let lag =
        |partition: &&PartitionStatus| partition.records.saturating_sub(partition.signed_records);
    let furthest = owned.max_by_key(lag)?;
    let behind = lag(&furthest);
    let records = counted(behind, "record", "records");
    let found =
        format!("of all partitions {} is the furthest behind, {records}", furthest.partition);
    if behind > AUDIT_LAG_RECORDS_MAX {
        let hint = "the partition waits for its auditor when it is 1,024 frames behind: is the broker slow, or AUDIT full?";
        return Some(Check::warn("auditors", found, hint).code("auditor_lag"));
    }
    Some(Check::ok("auditors", found))
}

fn judge_keys(statuses: &[WorkerStatus]) -> Option<Check> {
    let all = statuses.iter().flat_map(|status| &status.partitions);
    let owned = all.filter(|partition| partition.state == "owning" && partition.keys_max > 0);
    let percent = |partition: &&PartitionStatus| {
        let kept = partition.keys.max(partition.command_ids);
        kept.saturating_mul(100) / partition.keys_max.max(1)
    };
    let fullest = owned.max_by_key(percent)?;
    let PartitionStatus { partition, keys, command_ids, keys_max, .. } = fullest;
    let (keys, command_ids) = (counted(*keys, "key", "keys"), counted(*command_ids, "id", "ids"));
    let found = format!(
        "of all partitions {partition} keeps the most, {keys} and {command_ids} of {keys_max} each"
    );
    if percent(&fullest) >= KEYS_PERCENT_MAX {
        let hint = "when it is full, events are rejected as `window_full` and filed as dead letters: raise `--keys-max` on all coordinators, or replay later";
        return Some(Check::warn("keys", found, hint).code("key_window_filling"));
    }
    Some(Check::ok("keys", found))
}

fn judge_events_held(statuses: &[WorkerStatus]) -> Option<Check> {
    let mut all = statuses.iter().flat_map(|status| &status.partitions);
    let reason = all.find_map(|partition| partition.events_held.as_ref())?;
    let found = format!("EVENTS fills up and is not purged: {reason}");
    let hint = "end or restart the worker that does not answer, and see that each partition has an owner and none is halted: when EVENTS is full, events are refused";
    Some(Check::warn("events", found, hint).code("events_held"))
}

#[cfg(test)]
mod tests {
    use super::super::Health;
    use super::*;

    fn status(worker: &str, state: &str, lag: u64) -> WorkerStatus {
        let partition = PartitionStatus {
            partition: "3".to_owned(),
            state: state.to_owned(),
            reason: (state == "halted").then(|| "the journal ends at 7".to_owned()),
            records: 1_000 + lag,
            signed_records: 1_000,
            keys: 0,
            command_ids: 0,
            keys_max: 100,
            events_held: None,
        };
        let (worker, version) = (worker.to_owned(), "1.2.3".to_owned());
        WorkerStatus { worker, version, partitions: vec![partition], ..WorkerStatus::default() }
    }

    #[test]
    fn a_halted_partition_is_told_with_its_reason_and_its_worker() {
        let halted = judge_halted(&[status("a", "owning", 0), status("b", "halted", 0)]);

        assert_eq!(halted.code, Some("partition_halted"));
        assert_eq!(halted.found, "partition 3 at b: the journal ends at 7");
        assert_eq!(judge_halted(&[status("a", "owning", 0)]).health, Health::Ok);
    }

    #[test]
    fn a_worker_that_lives_and_does_not_answer_is_named() {
        let live = ["a".to_owned(), "b".to_owned()];

        let silent = judge_silence(&live, &[status("a", "owning", 0)]);

        assert_eq!(
            (silent.code, silent.found.as_str()),
            (Some("worker_silent"), "no answer from b")
        );
        assert!(!is_complete(&live, &[status("a", "owning", 0), status("c", "owning", 0)]));
        let beside = ["a", "queue", "b"].map(|worker| status(worker, "owning", 0));
        assert!(is_complete(&live, &beside));
    }

    #[test]
    fn what_nobody_said_is_not_called_in_order() {
        let health = |checks: &[Check]| checks.iter().map(|check| check.health).collect::<Vec<_>>();

        let nobody = judge(&[], &[]);
        let silent = judge(&["a".to_owned()], &[]);

        assert_eq!(health(&nobody), [Health::Skipped; 7]);
        assert!(nobody.iter().all(|check| check.found == NOBODY), "{nobody:?}");
        assert_eq!(silent[0].code, Some("worker_silent"));
        assert_eq!(health(&silent[1..]), [Health::Skipped; 6]);
    }

    #[test]
    fn a_partition_that_stands_still_is_told_with_its_stream_and_since_when() {
        let mut full = status("b", "owning", 0);
        let (partition, stream) = (Some("3".to_owned()), "AUDIT_3".to_owned());
        let reason = "it is full".to_owned();
        full.standstills = vec![Standstill { partition, stream, reason, seconds: 12 }];

        let check = judge_standstills(&[status("a", "owning", 0), full]);

        assert_eq!((check.health, check.code), (Health::Fail, Some("partition_stands_still")));
        assert_eq!(
            check.found,
            "partition 3 at b: `AUDIT_3` has taken nothing for 12 s; it is full"
        );
        assert_eq!(check.details[0]["worker"], "b");
        assert_eq!(judge_standstills(&[status("a", "owning", 0)]).health, Health::Ok);
    }

    #[test]
    fn an_auditor_far_behind_is_warned_of() {
        let lag = |lag| judge_audit(&[status("a", "owning", lag)]).expect("a check").health;

        assert_eq!(lag(AUDIT_LAG_RECORDS_MAX), Health::Ok);
        assert_eq!(lag(AUDIT_LAG_RECORDS_MAX + 1), Health::Warn);
    }

    #[test]
    fn events_that_nobody_may_purge_are_warned_of_with_the_reason() {
        let mut held = status("a", "owning", 0);
        held.partitions[0].events_held = Some("no answer from b".to_owned());

        let check = judge_events_held(&[status("b", "owning", 0), held]).expect("a check");

        assert_eq!((check.health, check.code), (Health::Warn, Some("events_held")));
        assert!(check.found.ends_with("no answer from b"), "{}", check.found);
        assert_eq!(judge_events_held(&[status("a", "owning", 0)]), None);
    }

    #[test]
    fn a_partition_whose_keys_fill_up_is_warned_of() {
        let with = |keys, command_ids, keys_max| {
            let mut status = status("a", "owning", 0);
            let partition = &mut status.partitions[0];
            (partition.keys, partition.command_ids, partition.keys_max) =
                (keys, command_ids, keys_max);
            judge_keys(&[status])
        };
        let code = |keys, ids| with(keys, ids, 1_000).expect("a check").code;

        assert_eq!(code(799, 0), None);
        assert_eq!(code(800, 0), Some("key_window_filling"));
        assert_eq!(code(0, 800), Some("key_window_filling"));
        assert!(with(5, 5, 0).is_none(), "an older worker does not tell");
    }
}
