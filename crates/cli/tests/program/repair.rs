//! `fermata doctor --repair`.

use std::sync::Arc;

use fermata_core::command::Command;
use fermata_core::json::Json;
use fermata_core::plan::{Join, Plan, PlanNode, RetryPolicy, Work};
use fermata_core::record::{Body, NodeDispatched, NodeSucceeded, Record};
use fermata_jetstream::core_messages::CoreMessages;
use fermata_jetstream::definitions_store::DefinitionsStore;
use fermata_jetstream::reader::Holes;
use fermata_jetstream::topology::commands_stream;
use fermata_jetstream::{Broker, StreamReader};
use fermata_wire::commands::CommandFrame;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::drain::Gate;
use crate::engine::{RunningEngine, event};
use crate::runs::{run_of, started, tenant};
use crate::support::{PARTITION, SOON, Stage, run};

const ASK: [&str; 5] = ["doctor", "--repair", "orphaned-nodes", "--reason", "its machine is gone"];

const WORKFLOW: &str = "
workflow:
  name: held
  version: '1'
  tasks:
    - { id: held, http: { plugin: gate, path: /held, body: '{}' } }
    - { id: after, depends_on: [held], http: { plugin: gate, path: /after, body: '{}' } }
";
const STRATEGIES: &str = "
strategies:
  - { name: start, version: 1, tenant: '*', on: held.start, workflow: { name: held, version: '1' } }
";

fn plan() -> Plan {
    let node = PlanNode {
        id: "fetch".into(),
        predecessors: Vec::new(),
        successors: Vec::new(),
        join: Join::All,
        when: None,
        work: Work::Noop,
        timeout_ms: 30_000,
        retry: RetryPolicy::none(),
        queue: None,
    };
    Plan {
        version: 1,
        workflow: "w".into(),
        workflow_version: "1.0".into(),
        nodes: vec![node],
        run_timeout_ms: 86_400_000,
        input_schema: None,
    }
}

/// Two runs, whose attempts were ordered years ago; one has an outcome.
async fn stage() -> Stage {
    let stage = Stage::new().await;
    let (digest, bytes) = fermata_wire::plan::encode(&plan()).unwrap();
    let store = DefinitionsStore::open(&stage.broker).await.unwrap();
    store.put_blob(&digest.to_string(), &bytes).await.unwrap();
    let of_plan = |strategy| {
        let mut record = started(run_of(strategy));
        if let Body::RunStarted(started) = &mut record.body {
            started.plan = digest;
        }
        record
    };
    let node = |strategy, body: Body| {
        let node: Arc<str> = "fetch".into();
        Record::of_node(&tenant(), run_of(strategy), &node, body).attempt(2)
    };
    let records = [
        of_plan("lost"),
        node("lost", NodeDispatched { input: Json::null(), queued: None }.into()),
        of_plan("done"),
        node("done", NodeDispatched { input: Json::null(), queued: None }.into()),
        node("done", NodeSucceeded { output: Json::null() }.into()),
    ];
    stage.journal(0, 0, &records).await;
    stage
}

/// Answers the first command of the data partition as an engine would.
async fn answer(broker: Broker) -> Command {
    let stream = commands_stream(PARTITION);
    let mut tail = StreamReader::new(&broker).tail(&stream, 1, Holes::Refused).await.unwrap();
    let message = tail.next_batch(1).await.unwrap().remove(0);
    let command = CommandFrame::decode(&message.payload).unwrap().commands.remove(0);
    let Command::Orphan(orphan) = &command else { panic!("{command:?}") };
    let to = orphan.reply_to.clone().unwrap().to_string();
    let messages = CoreMessages::new(&broker);
    messages.publish_core(to, "{\"answer\":\"given_up\"}".into()).await.unwrap();
    messages.flush().await.unwrap();
    command
}

#[tokio::test]
async fn an_orphaned_attempt_is_given_up_by_a_command_that_says_who_and_why() {
    let stage = stage().await;

    let dry = stage.run(&[ASK.as_slice(), &["--dry-run", "--json"]].concat()).await;
    let found = dry.json();
    assert_eq!((dry.code, found.len()), (0, 1), "{}{}", dry.stdout, dry.stderr);
    assert_eq!(found[0]["answer"], "would_give_up");
    let engine = tokio::spawn(answer(stage.broker.clone()));
    let repaired = stage.run(&[ASK.as_slice(), &["--by", "ada"]].concat()).await;

    assert_eq!(repaired.code, 0, "{}", repaired.stderr);
    assert!(repaired.stdout.contains("is unknown from now on"), "{}", repaired.stdout);
    let Command::Orphan(orphan) = engine.await.unwrap() else { panic!("no repair") };
    assert_eq!((orphan.run, &*orphan.node, orphan.attempt), (run_of("lost"), "fetch", 2));
    assert_eq!((orphan.by.as_str(), orphan.reason.as_str()), ("ada", "its machine is gone"));
}

#[tokio::test]
async fn an_attempt_that_nobody_can_tell_of_is_named_and_the_repair_is_not_whole() {
    let stage = Stage::new().await;
    let node: Arc<str> = "fetch".into();
    let ordered = NodeDispatched { input: Json::null(), queued: None };
    let ordered = Record::of_node(&tenant(), run_of("lost"), &node, ordered.into()).attempt(2);
    // Nobody stored its plan.
    stage.journal(0, 0, &[started(run_of("lost")), ordered]).await;

    let repaired = stage.run(&[ASK.as_slice(), &["--json"]].concat()).await;

    let found = repaired.json();
    assert_eq!((repaired.code, found.len()), (1, 1), "{}{}", repaired.stdout, repaired.stderr);
    assert_eq!((&found[0]["answer"], &found[0]["attempt"]), (&"skipped".into(), &2.into()));
}

#[tokio::test]
async fn nothing_is_repaired_without_a_reason() {
    let stage = Stage::new().await;

    let refused = stage.run(&["doctor", "--repair", "all"]).await;

    assert_eq!(refused.code, 2, "{}", refused.stdout);
    assert!(refused.stderr.contains("--reason"), "{}", refused.stderr);
}

/// A way to the broker at `url` by which its clock tells a time of the next century: every attempt under way is
/// over by it, and nobody has to wait. It ends with the test.
async fn a_century_on(url: &str) -> String {
    let server = url.strip_prefix("nats://").expect("an address").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let broker = TcpStream::connect(&server).await.expect("a connection");
            let (said, mut asks) = broker.into_split();
            let (mut asked, mut told) = client.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut asked, &mut asks).await });
            tokio::spawn(async move {
                let (mut said, mut line) = (BufReader::new(said), Vec::new());
                while said.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
                    let time = br#""ts":"20"#;
                    if let Some(at) = line.windows(time.len()).position(|part| part == time) {
                        line[at + time.len() - 1] = b'1';
                    }
                    if told.write_all(&line).await.is_err() {
                        return;
                    }
                    line.clear();
                }
            });
        }
    });
    format!("nats://{address}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_engine_gives_the_attempt_up_records_who_and_why_and_takes_its_outcome_for_late()
{
    let mut gate = Gate::start().await;
    let plugin = format!("gate={}", gate.url);
    let engine = RunningEngine::start(&["--partitions", "1", "--plugin", &plugin], &[]).await;
    engine.apply("workflow", WORKFLOW).await;
    engine.apply("strategy", STRATEGIES).await;
    engine.publish(&event(1, "held.start").to_string()).await;
    assert_eq!(gate.next().await, ("held".to_owned(), "1".to_owned()));
    let later = a_century_on(engine.up.said["nats_url"].as_str().expect("an address")).await;
    let ask = [ASK.as_slice(), &["--by", "ada", "--json"]].concat();
    let ask_later = [&ask[..], &["--nats-url", &later]].concat();

    let too_early = engine.run(&ask).await;
    let repaired = run(&ask_later).await;
    let again = run(&ask_later).await;

    assert_eq!((too_early.code, too_early.stdout.as_str()), (0, ""), "{}", too_early.stderr);
    assert_eq!(repaired.code, 0, "{}{}", repaired.stdout, repaired.stderr);
    let [found] = &repaired.json()[..] else { panic!("{}", repaired.stdout) };
    assert_eq!((&found["answer"], &found["node"]), (&"given_up".into(), &"held".into()), "{found}");
    assert_eq!((again.code, again.stdout.as_str()), (0, ""), "{}", again.stderr);
    let id = found["run"].as_str().expect("a run");
    let records = async || {
        let shown = engine.run(&["runs", "show", id, "--json"]).await;
        let shown = shown.json().remove(0);
        let told = |entry: &Value| entry["kind"].as_str().expect("a kind").to_owned();
        let timeline = shown["timeline"].as_array().expect("records").clone();
        (timeline.iter().map(told).collect::<Vec<_>>(), timeline, shown)
    };
    let (kinds, timeline, shown) = tokio::time::timeout(SOON, async {
        loop {
            let (kinds, timeline, shown) = records().await;
            if kinds.iter().any(|kind| kind == "effect.late") {
                return (kinds, timeline, shown);
            }
        }
    })
    .await
    .expect("the attempt reports");
    let unknown = kinds.iter().position(|kind| kind == "node.unknown").expect("it is recorded");
    assert!(kinds.iter().position(|kind| kind == "effect.late") > Some(unknown), "{kinds:?}");
    let said =
        json!({ "node": "held", "attempt": 1, "detail": "given up by ada: its machine is gone" });
    for (name, expected) in said.as_object().expect("names") {
        assert_eq!(timeline[unknown][name], *expected, "{}", timeline[unknown]);
    }
    assert_eq!(shown["status"], "failed", "{shown}");
    assert!(kinds.iter().all(|kind| kind != "node.succeeded"), "{kinds:?}");
    let verified = engine.run(&["audit", "verify", "--json"]).await;
    assert_eq!(verified.code, 0, "{}{}", verified.stdout, verified.stderr);
    engine.stop().await;
}
