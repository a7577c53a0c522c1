//! `fermata flags`: what is switched off waits or is left out, and nothing is lost.

use fermata_core::record::Kind;
use fermata_jetstream::StreamReader;
use fermata_jetstream::core_messages::CoreMessages;
use serde_json::json;

use crate::drain::Gate;
use crate::engine::{RunningEngine, event};
use crate::operations::{count, kinds};
use crate::support::SOON;

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

const ARGUMENTS: [&str; 4] = ["--http", "127.0.0.1:0", "--partitions", "1"];

struct Scene {
    engine: RunningEngine,
    plugin: String,
    gate: Gate,
}

impl Scene {
    async fn start() -> Self {
        let gate = Gate::start().await;
        let plugin = format!("gate={}", gate.url);
        let engine = RunningEngine::start(&arguments(&plugin), &[]).await;
        engine.apply("workflow", WORKFLOW).await;
        engine.apply("strategy", STRATEGIES).await;
        Self { engine, plugin, gate }
    }

    async fn publish(&self, ids: std::ops::Range<u32>) {
        let events = ids.map(|id| event(id, "held.start")).collect::<Vec<_>>();
        self.engine.publish(&json!(events).to_string()).await;
    }

    async fn data_kinds(&self) -> Vec<Kind> {
        kinds(&StreamReader::new(&self.engine.broker().await), "0").await
    }
}

fn arguments(plugin: &str) -> Vec<&str> {
    [&ARGUMENTS[..], &["--plugin", plugin]].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_wait_while_orchestration_or_the_strategies_are_off_and_none_is_lost() {
    let mut scene = Scene::start().await;

    scene.engine.set(&["flags", "set", "orchestration=off", "--by", "ada"]).await;
    scene.publish(0..2).await;
    scene.engine.set(&["flags", "set", "strategy_library=off", "orchestration=on"]).await;
    scene.publish(2..4).await;
    // Off in a process that starts, too.
    scene.engine.restart(&arguments(&scene.plugin)).await;
    scene.publish(4..5).await;
    let listed = scene.engine.do_it(&["flags", "list", "--json"]).await;
    let waiting = scene.data_kinds().await;
    let examined = scene.engine.run(&["doctor", "--json"]).await.json();
    let told = examined.iter().find(|check| check["name"] == "flags").expect("a check");
    assert_eq!(
        (&told["code"], &told["details"][0]),
        (&json!("switched_off"), &json!("strategy_library"))
    );
    scene.engine.set(&["flags", "set", "strategy_library=on"]).await;
    for _ in 0..5 {
        assert_eq!(scene.gate.next().await.0, "held");
        scene.gate.let_one_go();
    }
    scene
        .engine
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
    let reader = StreamReader::new(&scene.engine.broker().await);
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

    let alone = scene.engine.run(&["flags", "set", "audit_feed=off", "--cancel-active"]).await;
    let printed = scene.engine.set(&["flags", "set", "orchestration=off", "--cancel-active"]).await;

    assert_eq!(alone.code, 2, "{}", alone.stderr);
    assert!(printed.contains("3 runs were cancelled; 0 have not ended"), "{printed}");
    let all = scene.data_kinds().await;
    assert_eq!(count(&all, Kind::RunCancelled), 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_goes_on_while_its_feed_is_off() {
    let mut scene = Scene::start().await;
    let core = CoreMessages::new(&scene.engine.broker().await);
    let mut feed = core.subscribe("fermata.audit.acme").await.expect("a subscription");

    scene.engine.set(&["flags", "set", "audit_feed=off"]).await;
    scene.publish(0..1).await;
    scene.gate.next().await;
    scene.gate.let_one_go();
    // These records are the takeover and what came of the event.
    let signed = "fermata_partition_signed_records{partition=\"0\"} 6\n";
    let ended = "agent_workflow_latency_p95_seconds_count 1\n";
    scene
        .engine
        .up
        .until("/metrics", |answer| answer.body.contains(ended) && answer.body.contains(signed))
        .await;
    scene.engine.set(&["flags", "set", "audit_feed=on"]).await;
    scene.publish(1..2).await;
    let first = tokio::time::timeout(SOON, feed.next()).await.expect("in time").expect("a frame");

    let frame = fermata_wire::audit::AuditFrame::decode(&first.payload).expect("a frame");
    // What was signed while the feed was off is not in it.
    assert!(frame.entries[0].index >= 6, "{frame:?}");
    scene.gate.next().await;
    scene.gate.let_one_go();
}
