//! The HTTP endpoints of a running process: `/health`, `/ready`, `/metrics`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use fermata_core::record::Kind;
use fermata_jetstream::reader::Holes;
use fermata_jetstream::topology::{commands_stream, journal_stream};
use fermata_jetstream::{Publisher, PublisherOptions, StreamReader};
use fermata_wire::journal::JournalFrame;
use serde_json::{Value, json};

use crate::engine::{RunningEngine, event};
use crate::process::{LOOK_INTERVAL, Running};
use crate::support::{SOON, Stage, run, topology};

const WORKFLOW: &str = "
workflow:
  name: two
  version: '1'
  tasks:
    - { id: a, noop: {} }
    - { id: b, depends_on: [a], noop: {} }
";
const STRATEGIES: &str = "
strategies:
  - { name: start, version: 1, tenant: '*', on: counted.start, workflow: { name: two, version: '1' } }
  - { name: quiet, version: 1, tenant: '*', on: counted.quiet, action: ignore }
  - { name: never, version: 1, tenant: '*', on: counted.unknown, when: 'false', action: ignore }
";

/// Events that start a run of two nodes each, those that nothing matches, those that a strategy
/// ignores, and those of the first that are published again.
const STARTED: usize = 150;
const UNMATCHED: usize = 50;
const IGNORED: usize = 20;
const REPEATED: usize = 30;
const REFUSED: usize = 3;

/// The samples of one scrape by name and labels, as Prometheus' own parser reads them.
#[derive(Debug)]
pub struct Scrape(Vec<Value>);

impl Scrape {
    pub fn of(text: &str) -> Self {
        let tools = std::env::var_os("FERMATA_TOOLS_DIR").map_or_else(
            || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/tools")),
            PathBuf::from,
        );
        let python = tools.join("venv/bin/python");
        assert!(python.exists(), "`{}` is not there; `make tools` makes it", python.display());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/python/read_metrics.py");
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("metrics.txt");
        std::fs::write(&file, text).expect("a file");
        let output = Command::new(python).arg(script).arg(&file).output().expect("a program");
        let (printed, errors) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{errors}\n{text}");
        let lines = printed.lines().map(|line| serde_json::from_str(line).expect(line));
        Self(lines.collect())
    }

    fn find(&self, name: &str, labels: &Value) -> Option<f64> {
        let is_it = |sample: &&Value| sample["name"] == name && sample["labels"] == *labels;
        self.0.iter().find(is_it).map(|sample| sample["value"].as_f64().expect("a number"))
    }

    pub fn value(&self, name: &str, labels: Value) -> f64 {
        self.find(name, &labels).unwrap_or_else(|| panic!("no {name}{labels} in {:#?}", self.0))
    }

    pub fn plain(&self, name: &str) -> f64 {
        self.value(name, json!({}))
    }
}

/// Every record of a partition's journal.
pub async fn kinds(reader: &StreamReader, partition: &str) -> Vec<Kind> {
    let stream = journal_stream(partition);
    let mut replay = reader.replay(&stream, 1, Holes::Refused).await.expect("a journal");
    let mut kinds = Vec::new();
    loop {
        let batch = replay.next_batch(1_000).await.expect("messages");
        if batch.is_empty() {
            return kinds;
        }
        for message in batch {
            let frame = JournalFrame::decode(&message.payload).expect("a frame");
            let records = frame.records.iter().map(|sealed| sealed.open().expect("a record").1);
            kinds.extend(records.map(|record| record.body.kind()));
        }
    }
}

/// How many of them are of this kind.
pub fn count(kinds: &[Kind], kind: Kind) -> f64 {
    kinds.iter().filter(|found| **found == kind).count() as f64
}

/// The journals once all that is published has been decided and nothing follows from it.
async fn settled_journals<'p>(
    reader: &StreamReader,
    partitions: [&'p str; 3],
) -> BTreeMap<&'p str, Vec<Kind>> {
    loop {
        let mut journals = BTreeMap::new();
        for partition in partitions {
            journals.insert(partition, kinds(reader, partition).await);
        }
        let all = journals.values().flatten().copied().collect::<Vec<_>>();
        let decided = [
            (Kind::RunSucceeded, STARTED),
            (Kind::EventUnmatched, UNMATCHED),
            (Kind::EventIgnored, IGNORED),
            (Kind::EventRepeated, REPEATED),
            (Kind::EventRejected, REFUSED),
        ];
        let is_decided = decided.iter().all(|(kind, number)| count(&all, *kind) == *number as f64);
        if is_decided && count(&all, Kind::CaseNotified) == count(&all, Kind::CaseOpened) {
            return journals;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_scraped_under_load_is_what_the_journals_hold() {
    let engine = RunningEngine::start(&["--http", "127.0.0.1:0", "--partitions", "2"], &[]).await;
    engine.apply("workflow", WORKFLOW).await;
    engine.apply("strategy", STRATEGIES).await;
    let up = &engine.up;
    let told = std::fs::read_to_string(engine.path("fermata.http"));
    assert_eq!(told.expect("a file").trim(), up.said["http_url"].as_str().expect("an address"));

    let ids = (0..STARTED + UNMATCHED + IGNORED).chain(0..REPEATED);
    let kind = |id: usize| match id {
        ..STARTED => "counted.start",
        id if id < STARTED + UNMATCHED => "counted.unknown",
        _ => "counted.quiet",
    };
    // Scraped while they come; each scrape is one that Prometheus can read.
    for (number, batch) in ids.collect::<Vec<_>>().chunks(40).enumerate() {
        let events = batch.iter().map(|id| event(id, kind(*id))).collect::<Vec<_>>();
        engine.publish(&json!(events).to_string()).await;
        let scraped = Scrape::of(&up.get("/metrics").await.body);
        assert_eq!(scraped.plain("fermata_broker_connected"), 1.0, "scrape {number}");
    }
    let broker = engine.broker().await;
    let publisher =
        Publisher::new(&broker, PublisherOptions::default()).await.expect("a publisher");
    for _ in 0..REFUSED {
        let outcome = publisher.publish("fermata.events.acme.a".to_owned(), None, "{".into()).await;
        outcome.await.sequence().expect("stored");
    }
    let partitions = ["control", "0", "1"];
    let of = |partition: &str| json!({ "partition": partition });
    let reader = StreamReader::new(&engine.broker().await);
    let journals = tokio::time::timeout(SOON, settled_journals(&reader, partitions)).await;
    let journals = journals.unwrap_or_else(|_| panic!("not in time\n{}", up.logs.all()));
    let settled = up
        .until("/metrics", |answer| {
            let text = &answer.body;
            let ended = format!("agent_workflow_latency_p95_seconds_count {STARTED}\n");
            text.contains(&ended)
                && journals.iter().all(|(partition, kinds)| {
                    let of = |name: &str, value: usize| {
                        format!("fermata_partition_{name}{{partition=\"{partition}\"}} {value}\n")
                    };
                    let lines = [
                        of("records", kinds.len()),
                        of("backlog_messages", 0),
                        of("auditor_lag_records", 0),
                    ];
                    lines.iter().all(|line| text.contains(line))
                })
                && text.contains("fermata_stage_unacknowledged_messages{stage=\"listener\"} 0\n")
        })
        .await;
    assert_eq!(settled.status, 200);
    assert!(settled.head.contains("text/plain; version=0.0.4"), "{}", settled.head);
    let scraped = Scrape::of(&settled.body);

    for (partition, kinds) in &journals {
        for name in ["fermata_partition_records", "fermata_partition_signed_records"] {
            assert_eq!(scraped.value(name, of(partition)), kinds.len() as f64, "{name}");
        }
        let owned = count(kinds, Kind::PartitionOwned);
        assert_eq!(scraped.value("fermata_partition_epoch", of(partition)), owned);
        assert_eq!(scraped.value("fermata_partition_open_runs", of(partition)), 0.0);
        for (state, expected) in
            [("owning", 1.0), ("taking", 0.0), ("draining", 0.0), ("halted", 0.0)]
        {
            let labels = json!({ "partition": partition, "state": state });
            assert_eq!(scraped.value("fermata_partition_state", labels), expected, "{state}");
        }
    }
    let all = journals.values().flatten().copied().collect::<Vec<_>>();
    assert_eq!(count(&all, Kind::RunStarted), STARTED as f64);
    assert_eq!(count(&all, Kind::EventRepeated), REPEATED as f64);
    for (name, kind) in [
        ("agent_strategy_missed_total", Kind::EventUnmatched),
        ("agent_node_success_total", Kind::NodeSucceeded),
        ("agent_manual_escalation_total", Kind::CaseOpened),
        ("agent_workflow_latency_p95_seconds_count", Kind::RunSucceeded),
    ] {
        assert_eq!(scraped.plain(name), count(&all, kind), "{name}");
    }
    // What is planned for a repeat comes to no run.
    let planned = (STARTED + REPEATED) as f64;
    assert_eq!(scraped.plain("agent_workflow_generated_total"), planned);
    let filed = json!({ "stage": "listener", "reason": "not_json" });
    assert_eq!(scraped.value("agent_dead_filed_total", filed), REFUSED as f64);
    let eligible = (STARTED + UNMATCHED + IGNORED) as f64;
    assert_eq!(scraped.plain("agent_strategy_eligible_total"), eligible);
    let matched = (STARTED + IGNORED) as f64 / eligible;
    assert_eq!(scraped.plain("agent_strategy_hit_rate"), matched);
    let said = |strategy: &str, outcome: &str| {
        let labels = json!({ "strategy": strategy, "outcome": outcome });
        scraped.find("agent_strategy_matched_total", &labels)
    };
    assert_eq!(said("start", "started"), Some(STARTED as f64));
    assert_eq!(said("quiet", "ignored"), Some(IGNORED as f64));
    assert_eq!((said("start", "ignored"), said("never", "ignored")), (None, None));
    let near = scraped.value("agent_strategy_near_missed_total", json!({ "strategy": "never" }));
    assert_eq!(near, UNMATCHED as f64);
    let runs = |strategy: &str| {
        scraped.find("agent_strategy_latency_seconds_count", &json!({ "strategy": strategy }))
    };
    assert_eq!((runs("start"), runs("quiet")), (Some(STARTED as f64), None));
    assert_eq!(scraped.plain("fermata_partitions_without_owner"), 0.0);
    assert_eq!(scraped.plain("fermata_broker_interruptions_total"), 0.0);
    for stage in ["listener", "matcher", "builder", "lanes"] {
        assert_eq!(scraped.value("fermata_stage_lag_messages", json!({ "stage": stage })), 0.0);
    }
    for stream in ["EVENTS".to_owned(), journal_stream("0"), commands_stream("1")] {
        let state = reader.stream_state(&stream).await.expect("a stream");
        let labels = || json!({ "stream": stream });
        assert_eq!(scraped.value("fermata_stream_size_bytes", labels()), state.bytes as f64);
        assert_eq!(scraped.value("fermata_stream_messages", labels()), state.messages as f64);
        assert!(scraped.value("fermata_stream_limit_bytes", labels()) > state.bytes as f64);
    }
    // Nothing names what there is no bound on.
    let labels = scraped.0.iter().flat_map(|sample| sample["labels"].as_object().expect("labels"));
    let labels = labels.map(|(name, _)| name.as_str()).collect::<std::collections::BTreeSet<_>>();
    let about_the_process = ["service_name", "telemetry_sdk_language", "telemetry_sdk_name"];
    let bounded = [
        "le",
        "outcome",
        "partition",
        "reason",
        "stage",
        "state",
        "strategy",
        "stream",
        "telemetry_sdk_version",
    ];
    let allowed = about_the_process.into_iter().chain(bounded).collect();
    assert!(labels.is_subset(&allowed), "{labels:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_not_taken_in_are_the_lag_of_the_listener() {
    let engine = RunningEngine::start(&["--http", "127.0.0.1:0", "--partitions", "1"], &[]).await;
    let lag = |number: u32| format!("fermata_stage_lag_messages{{stage=\"listener\"}} {number}\n");
    // The listener has made its consumer, so that there is something to lag behind.
    engine.up.until("/metrics", |answer| answer.body.contains(&lag(0))).await;
    engine.set(&["flags", "set", "orchestration=off"]).await;

    for id in 0..7 {
        engine.publish(&event(id, "counted.unknown").to_string()).await;
    }

    engine.up.until("/metrics", |answer| answer.body.contains(&lag(7))).await;
    let examined = engine.run(&["doctor", "--json"]).await.json();
    let told = examined.iter().find(|check| check["name"] == "lag").expect("a check");
    let found = told["found"].as_str().expect("text");
    assert!(found.starts_with("listener 7 behind, 0 held"), "{found}");
    engine.set(&["flags", "set", "orchestration=on"]).await;
    engine.up.until("/metrics", |answer| answer.body.contains(&lag(0))).await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_waits_for_owners_or_the_broker_lives_and_is_not_ready() {
    let mut stage = Stage::bare().await;
    let worker = Running::worker(
        &stage,
        "worker",
        "listener",
        &["--name", "w-1", "--http", "127.0.0.1:0", "--partitions", "2"],
    )
    .await;

    let waiting = worker.get("/ready").await;
    assert_eq!((waiting.status, waiting.reasons()), (503, vec!["partitions_without_owner".into()]));
    assert!(waiting.head.contains("content-type: application/problem+json"), "{}", waiting.head);
    assert_eq!(waiting.json()["detail"], "no live worker holds partition control, 0, 1");
    let scraped = Scrape::of(&worker.get("/metrics").await.body);
    assert_eq!(scraped.plain("fermata_partitions_without_owner"), 3.0);

    stage.server.stop().await.expect("it ends");
    let cut_off =
        worker.until("/ready", |answer| answer.reasons() == ["broker_disconnected"]).await;
    assert_eq!(cut_off.status, 503);
    let health = worker.get("/health").await;
    assert_eq!(health.status, 200);
    assert_eq!((&health.json()["worker"], &health.json()["status"]), (&"w-1".into(), &"ok".into()));
    // What is not known is not shown; what is, is.
    let scraped =
        worker.until("/metrics", |answer| answer.body.contains("fermata_broker_connected 0\n"));
    let scraped = Scrape::of(&scraped.await.body);
    assert_eq!(scraped.find("fermata_partitions_without_owner", &json!({})), None);
    assert!(scraped.plain("fermata_broker_interruptions_total") >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_a_halted_partition_names_it_and_its_reason() {
    let stage = Stage::bare().await;
    topology().apply(&stage.broker).await.expect("streams");
    stage.append("fermata.journal.0", 0, b"no frame of ours".to_vec()).await;
    let worker = Running::worker(
        &stage,
        "worker",
        "coordinator",
        &["--http", "127.0.0.1:0", "--partitions", "1"],
    )
    .await;

    let halted = worker.until("/ready", |answer| {
        answer.status == 503 && answer.reasons().contains(&"partition_halted".to_owned())
    });
    let halted = halted.await;
    let detail = halted.json()["detail"].as_str().expect("text").to_owned();
    assert!(detail.starts_with("partition 0 is halted here: "), "{detail}");
    assert!(detail.contains("journal message 1 is ours and cannot be decoded"), "{detail}");
    let scraped = Scrape::of(&worker.get("/metrics").await.body);
    let labels = json!({ "partition": "0", "state": "halted" });
    assert_eq!(scraped.value("fermata_partition_state", labels), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_answered_over_http_unless_asked_for() {
    let stage = Stage::bare().await;
    let worker = Running::worker(&stage, "worker", "listener", &[]).await;

    assert_eq!(worker.said["http_url"], Value::Null);
    assert!(!stage.folder.path().join("worker/fermata.http").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_address_is_told_before_anything_starts() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let folder = tempfile::tempdir().expect("a folder");

    let data_dir = folder.path().display().to_string();
    let ended = run(&["up", "--data-dir", &data_dir, "--http", &address]).await;

    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert!(
        ended.stderr.contains(&format!("nothing can answer at `{address}`")),
        "{}",
        ended.stderr
    );
    assert!(!folder.path().join("nats").exists());
}
