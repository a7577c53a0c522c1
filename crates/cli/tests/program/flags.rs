//! `fermata flags`: what is switched off waits or is left out, and nothing is lost.

use fermata_core::record::Kind;
use fermata_jetstream::core_messages::CoreMessages;
use fermata_jetstream::{Broker, ConnectOptions, StreamReader};
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use crate::drain::Gate;
use crate::operations::{count, kinds};
use crate::process::Running;
use crate::support::{SOON, run};

const WORKFLOW: &str = "
workflow:
  name: held
  version: '1'
  tasks:
    - { id: held, http: { plugin: gate, path: /held, body: '{}' } }
";
const STRATEGIES: &str = "
strategies:
  - { name: start, version: 1, tenant: '*', on: held.start, workflow: { name: held, version: '1' } }
";

struct Scene {
    folder: TempDir,
    gate: Gate,
    up: Running,
}

impl Scene {
    async fn start() -> Self {
        let (folder, gate) = (tempfile::tempdir().expect("a folder"), Gate::start().await);
        let up = start(&folder, &gate).await;
        let scene = Self { folder, gate, up };
        for (command, yaml) in [("workflow", WORKFLOW), ("strategy", STRATEGIES)] {
            let file = scene.path(command);
            std::fs::write(&file, yaml).expect("a file");
            scene.set(&[command, "apply", &file]).await;
        }
        scene
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    async fn run(&self, arguments: &[&str]) -> String {
        let data_dir = self.path("engine");
        let mut all = vec!["--data-dir", data_dir.as_str()];
        all.extend(arguments);
        let ended = run(&all).await;
        assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
        ended.stdout
    }

    /// Runs a command that changes definitions, and waits until the engine works by them.
    async fn set(&self, arguments: &[&str]) -> String {
        let printed = self.run(arguments).await;
        self.up.logs.until_applied(&printed).await;
        printed
    }

    async fn publish(&self, ids: std::ops::Range<u32>) {
        let event = |id: u32| {
            json!({
                "specversion": "1.0", "id": id.to_string(), "source": "/test", "type": "held.start",
                "tenant": "acme", "data": {},
            })
        };
        let events = ids.map(event).collect::<Vec<_>>();
        std::fs::write(self.path("events.json"), json!(events).to_string()).expect("a file");
        self.run(&["publish", &self.path("events.json")]).await;
    }

    async fn broker(&self) -> Broker {
        let url = self.up.said["nats_url"].as_str().expect("an address");
        Broker::connect(url, ConnectOptions::default()).await.expect("a connection")
    }

    async fn data_kinds(&self) -> Vec<Kind> {
        let reader = StreamReader::new(&self.broker().await);
        kinds(&reader, "0").await
    }
}

async fn start(folder: &TempDir, gate: &Gate) -> Running {
    let (data_dir, plugin) =
        (folder.path().join("engine").display().to_string(), format!("gate={}", gate.url));
    Running::start(&[
        "up",
        "--json",
        "--durability",
        "process",
        "--data-dir",
        &data_dir,
        "--http",
        "127.0.0.1:0",
        "--partitions",
        "1",
        "--plugin",
        &plugin,
    ])
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn events_wait_while_orchestration_or_the_strategies_are_off_and_none_is_lost() {
    let mut scene = Scene::start().await;

    scene.set(&["flags", "set", "orchestration=off", "--by", "ada"]).await;
    scene.publish(0..2).await;
    scene.set(&["flags", "set", "strategy_library=off", "orchestration=on"]).await;
    scene.publish(2..4).await;
    // Off in a process that starts, too.
    scene.up.signal(Signal::TERM);
    assert_eq!(scene.up.ended().await, Some(0), "{}", scene.up.logs.all());
    scene.up = start(&scene.folder, &scene.gate).await;
    scene.publish(4..5).await;
    let listed = scene.run(&["flags", "list", "--json"]).await;
    let waiting = scene.data_kinds().await;
    scene.set(&["flags", "set", "strategy_library=on"]).await;
    for _ in 0..5 {
        assert_eq!(scene.gate.next().await.0, "held");
        scene.gate.let_one_go();
    }
    scene
        .up
        .until("/metrics", |answer| {
            answer.body.contains("agent_workflow_latency_p95_seconds_count 5\n")
        })
        .await;

    assert!(listed.contains(r#"{"flag":"strategy_library","on":false}"#), "{listed}");
    assert!(listed.contains(r#"{"flag":"orchestration","on":true}"#), "{listed}");
    assert!(waiting.iter().all(|kind| *kind == Kind::PartitionOwned), "{waiting:?}");
    let all = scene.data_kinds().await;
    assert_eq!((count(&all, Kind::EventStarted), count(&all, Kind::EventUnmatched)), (5.0, 0.0));
    let reader = StreamReader::new(&scene.broker().await);
    let control = kinds(&reader, "control").await;
    assert_eq!(
        count(&control, Kind::DefinitionsApplied),
        2.0 + 3.0,
        "two definitions, three flags"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn open_runs_are_cancelled_with_orchestration_and_only_then() {
    let mut scene = Scene::start().await;
    scene.publish(0..3).await;
    for _ in 0..3 {
        scene.gate.next().await;
    }

    let data_dir = scene.path("engine");
    let alone =
        run(&["--data-dir", &data_dir, "flags", "set", "audit_feed=off", "--cancel-active"]).await;
    let printed = scene.set(&["flags", "set", "orchestration=off", "--cancel-active"]).await;

    assert_eq!(alone.code, 2, "{}", alone.stderr);
    assert!(printed.contains("3 runs were cancelled; 0 wait"), "{printed}");
    let all = scene.data_kinds().await;
    assert_eq!(count(&all, Kind::RunCancelled), 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_goes_on_while_its_feed_is_off() {
    let mut scene = Scene::start().await;
    let core = CoreMessages::new(&scene.broker().await);
    let mut feed = core.subscribe("fermata.audit.acme").await.expect("a subscription");

    scene.set(&["flags", "set", "audit_feed=off"]).await;
    scene.publish(0..1).await;
    scene.gate.next().await;
    scene.gate.let_one_go();
    let signed = "fermata_partition_auditor_lag_records{partition=\"0\"} 0\n";
    let ended = "agent_workflow_latency_p95_seconds_count 1\n";
    scene
        .up
        .until("/metrics", |answer| answer.body.contains(ended) && answer.body.contains(signed))
        .await;
    scene.set(&["flags", "set", "audit_feed=on"]).await;
    scene.publish(1..2).await;
    let first = tokio::time::timeout(SOON, feed.next()).await.expect("in time").expect("a frame");

    let frame = fermata_wire::audit::AuditFrame::decode(&first.payload).expect("a frame");
    // The first six records are the takeover and what came of the first event.
    assert!(frame.entries[0].index >= 6, "{frame:?}");
    scene.gate.next().await;
    scene.gate.let_one_go();
}
