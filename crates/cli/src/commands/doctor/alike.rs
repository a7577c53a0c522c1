//! Whether workers are alike where they must be, and not the same where they must not be.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::Check;
use super::workers::WorkerStatus;

/// The setting that concerns whoever takes requests to replay, and nobody else.
const REPLAY_SECRETS: &str = "replay_secrets";

/// Settings of partitions: whoever only serves queues has no use for them.
const OF_PARTITIONS: [&str; 2] = ["archive_retention_ms", "keys_max"];

/// How many differences are told in the text.
const DIFFERENCES_TOLD_MAX: usize = 3;

/// A name that two processes have.
pub(super) fn judge_names(statuses: &[WorkerStatus]) -> Check {
    let mut processes = BTreeMap::<&str, Vec<&WorkerStatus>>::new();
    for status in statuses {
        let of_name = processes.entry(&status.worker).or_default();
        let is_same = |known: &&WorkerStatus| {
            known.incarnation.is_some() && known.incarnation == status.incarnation
        };
        // A worker that does not tell which process it is answers once all the same.
        if !of_name.iter().any(is_same) {
            of_name.push(status);
        }
    }
    processes.retain(|_, processes| processes.len() > 1);
    if processes.is_empty() {
        return Check::ok("names", "each worker's name is the name of one process");
    }
    let process = |status: &&WorkerStatus| match status.incarnation {
        Some(_) => format!("process {}", status.process_id),
        None => format!("a process of version {}", status.version),
    };
    let told = processes.iter().map(|(worker, processes)| {
        let processes = processes.iter().map(process).collect::<Vec<_>>();
        format!("`{worker}` is the name of {}", processes.join(" and of "))
    });
    let found = told.collect::<Vec<_>>().join("; ");
    let details = processes.iter().map(|(worker, processes)| {
        let processes = processes.iter().map(|status| {
            let (incarnation, version) = (status.incarnation, &status.version);
            json!({ "incarnation": incarnation, "process_id": status.process_id, "version": version })
        });
        json!({ "worker": worker, "processes": processes.collect::<Vec<_>>() })
    });
    let hint = "they take each other's leases, and partitions go back and forth between them: end one, or \
                start it with another `--name` (without one the name stands in the file `worker` of its data \
                folder, which was copied then: delete it there)";
    Check::fail("names", found, hint).code("name_twice").details(details)
}

/// A setting that is not the same at workers which do the same.
#[derive(Debug)]
struct Difference<'a> {
    among: String,
    setting: &'a str,
    /// Who has which value; nothing where it is not set.
    values: Vec<(Option<&'a Value>, Vec<String>)>,
}

/// Settings that differ where workers stand in for each other.
pub(super) fn judge_settings(statuses: &[WorkerStatus]) -> Check {
    // Older workers do not tell theirs.
    let told = statuses.iter().filter(|status| status.incarnation.is_some()).collect::<Vec<_>>();
    let differences = differences(&told);
    if differences.is_empty() {
        return Check::ok("settings", "are the same at all workers that do the same");
    }
    let told = differences.iter().take(DIFFERENCES_TOLD_MAX).map(Difference::told);
    let told = told.collect::<Vec<_>>().join("; ");
    let found = match differences.len().saturating_sub(DIFFERENCES_TOLD_MAX) {
        0 => told,
        more => format!("{told}; and {more} more"),
    };
    let options = differences.iter().flat_map(|difference| options_of(difference.setting));
    let options = options.copied().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>();
    let hint = format!(
        "which worker does what is not known beforehand, so what an attempt or an event meets changes from one \
         to the next: start them with the same {}",
        options.join(", ")
    );
    let details = differences.iter().map(Difference::detail);
    Check::warn("settings", found, hint).code("config_differs").details(details)
}

fn differences<'a>(told: &[&'a WorkerStatus]) -> Vec<Difference<'a>> {
    let with_role = |role: &str| {
        let has = |status: &&&WorkerStatus| status.roles.iter().any(|other| other == role);
        told.iter().filter(has).copied().collect::<Vec<_>>()
    };
    let coordinators = with_role("coordinator");
    let of_coordinators = |setting: &str| setting != REPLAY_SECRETS;
    let mut found = compare("coordinators", &coordinators, of_coordinators);
    let of_listeners = |setting: &str| setting == REPLAY_SECRETS;
    found.extend(compare("listeners", &with_role("listener"), of_listeners));
    let mut by_queues = BTreeMap::<&[String], Vec<&WorkerStatus>>::new();
    let is_coordinator =
        |status: &WorkerStatus| status.roles.iter().any(|role| role == "coordinator");
    for status in told.iter().filter(|status| !status.queues.is_empty() && !is_coordinator(status))
    {
        by_queues.entry(&status.queues).or_default().push(status);
    }
    for (queues, workers) in by_queues {
        let among = format!("workers of {}", queues.join(", "));
        let of_tasks =
            |setting: &str| setting != REPLAY_SECRETS && !OF_PARTITIONS.contains(&setting);
        found.extend(compare(&among, &workers, of_tasks));
    }
    found
}

fn compare<'a>(
    among: &str,
    workers: &[&'a WorkerStatus],
    concerns: impl Fn(&str) -> bool,
) -> Vec<Difference<'a>> {
    let settings = workers.iter().flat_map(|status| status.settings.keys());
    let settings = settings.filter(|setting| concerns(setting)).collect::<BTreeSet<_>>();
    // Whoever serves a queue may know what only its tasks need.
    let is_one_kind = workers
        .iter()
        .all(|status| workers.first().is_some_and(|first| first.queues == status.queues));
    let difference = |setting: &'a String| {
        let mut values = Vec::<(Option<&Value>, Vec<String>)>::new();
        for status in workers {
            let value = status.settings.get(setting);
            if value.is_none() && !is_one_kind {
                continue;
            }
            match values.iter_mut().find(|(known, _)| *known == value) {
                Some((_, at)) => at.push(label(status, workers)),
                None => values.push((value, vec![label(status, workers)])),
            }
        }
        let among = among.to_owned();
        (values.len() > 1).then_some(Difference { among, setting, values })
    };
    settings.into_iter().filter_map(difference).collect()
}

/// The worker's name, and the process where the name alone does not tell.
fn label(status: &WorkerStatus, workers: &[&WorkerStatus]) -> String {
    match workers.iter().filter(|other| other.worker == status.worker).count() {
        0 | 1 => status.worker.clone(),
        _ => format!("{} (process {})", status.worker, status.process_id),
    }
}

impl Difference<'_> {
    fn told(&self) -> String {
        let mut texts_seen = 0;
        let values = self.values.iter().map(|(value, at)| {
            let at = at.join(", ");
            match value {
                None => format!("not set at {at}"),
                Some(Value::String(_)) if texts_seen > 0 => format!("set otherwise at {at}"),
                Some(Value::String(_)) => {
                    texts_seen += 1;
                    format!("set at {at}")
                }
                Some(value) => format!("{value} at {at}"),
            }
        });
        let values = values.collect::<Vec<_>>().join(", ");
        format!("`{}` is {values}", self.setting)
    }

    fn detail(&self) -> Value {
        let value =
            |(value, at): &(Option<&Value>, Vec<String>)| json!({ "value": value, "workers": at });
        let values = self.values.iter().map(value).collect::<Vec<_>>();
        json!({ "setting": self.setting, "among": self.among, "values": values })
    }
}

/// The options by which a setting is set.
fn options_of(setting: &str) -> &'static [&'static str] {
    match setting {
        "archive_retention_ms" => &["`--archive-retention-days`"],
        "keys_max" => &["`--keys-max`"],
        REPLAY_SECRETS => &["`--replay-secrets`"],
        _ => &["`--config`", "`--plugin`"],
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::commands::doctor::Health;

    fn worker(name: &str, process_id: u32, role: &str, settings: Value) -> WorkerStatus {
        WorkerStatus {
            worker: name.to_owned(),
            version: "1.2.3".to_owned(),
            incarnation: Some(Uuid::from_u128(process_id.into())),
            process_id,
            roles: vec![role.to_owned()],
            settings: serde_json::from_value(settings).unwrap(),
            ..WorkerStatus::default()
        }
    }

    fn serving(queues: &[&str], status: WorkerStatus) -> WorkerStatus {
        let queues = queues.iter().map(|queue| (*queue).to_owned()).collect();
        WorkerStatus { queues, ..status }
    }

    #[test]
    fn a_name_that_two_processes_have_fails_and_names_both() {
        let status = |process_id| worker("w", process_id, "coordinator", json!({}));

        let check = judge_names(&[status(7), status(9)]);

        assert_eq!((check.health, check.code), (Health::Fail, Some("name_twice")));
        assert_eq!(check.found, "`w` is the name of process 7 and of process 9");
        assert_eq!(check.details[0]["processes"][1]["process_id"], 9);
        // One that is heard twice is one.
        assert_eq!(judge_names(&[status(7), status(7)]).health, Health::Ok);
    }

    #[test]
    fn older_workers_of_one_name_are_told_apart_by_their_answers() {
        let older = WorkerStatus {
            worker: "w".to_owned(),
            version: "0.1.0".to_owned(),
            ..WorkerStatus::default()
        };

        let check = judge_names(&[older.clone(), worker("w", 7, "coordinator", json!({}))]);

        assert_eq!(check.found, "`w` is the name of a process of version 0.1.0 and of process 7");
        assert_eq!(judge_names(&[older]).health, Health::Ok);
    }

    #[test]
    fn settings_that_differ_are_told_with_who_has_which_and_how_they_are_set() {
        let a = worker("a", 1, "coordinator", json!({ "keys_max": 5, "http.plugins.x": "d1" }));
        let b = worker("b", 2, "coordinator", json!({ "keys_max": 6, "http.plugins.x": "d2" }));
        let c = worker("c", 3, "coordinator", json!({ "keys_max": 5 }));

        let check = judge_settings(&[a, b, c]);

        assert_eq!((check.health, check.code), (Health::Warn, Some("config_differs")));
        assert_eq!(
            check.found,
            "`http.plugins.x` is set at a, set otherwise at b, not set at c; `keys_max` is 5 at a, c, 6 at b"
        );
        let hint = check.hint.unwrap();
        assert!(hint.ends_with("the same `--config`, `--keys-max`, `--plugin`"), "{hint}");
        assert_eq!(check.details[1]["values"][0], json!({ "value": 5, "workers": ["a", "c"] }));
    }

    #[test]
    fn settings_may_differ_where_workers_do_different_things() {
        let coordinator =
            worker("a", 1, "coordinator", json!({ "keys_max": 5, "replay_secrets": "d" }));
        let listener = worker("b", 2, "listener", json!({ "keys_max": 6 }));
        let gpu = serving(&["gpu"], worker("c", 3, "", json!({ "http.plugins.x": "d1" })));
        let mail = serving(&["mail"], worker("d", 4, "", json!({ "http.plugins.x": "d2" })));
        let older = WorkerStatus { worker: "e".to_owned(), ..WorkerStatus::default() };

        let check = judge_settings(&[coordinator, listener, gpu.clone(), mail, older]);

        assert_eq!(check.health, Health::Ok, "{}", check.found);
        let other = serving(&["gpu"], worker("f", 5, "", json!({ "http.plugins.x": "d2" })));
        assert_eq!(judge_settings(&[gpu, other]).code, Some("config_differs"));
    }

    #[test]
    fn a_coordinator_that_serves_a_queue_may_know_a_plugin_that_the_others_do_not() {
        let plain = |url: &str| worker("a", 1, "coordinator", json!({ "http.plugins.x": url }));
        let gpu = |url: &str| {
            let settings = json!({ "http.plugins.x": url, "http.plugins.gpu": "d" });
            serving(&["gpu"], worker("b", 2, "coordinator", settings))
        };

        assert_eq!(judge_settings(&[plain("d1"), gpu("d1")]).health, Health::Ok);
        let found = judge_settings(&[plain("d1"), gpu("d2")]).found;
        assert_eq!(found, "`http.plugins.x` is set at a, set otherwise at b");
    }
}
