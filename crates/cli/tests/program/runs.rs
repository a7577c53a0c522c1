//! `fermata runs`.

use std::sync::Arc;

use fermata_core::command::{Command, EventReference};
use fermata_core::digest::Digest;
use fermata_core::identity::{JournalTime, RunId, SourcePosition, Tenant};

use fermata_core::json::Json;
use fermata_core::record::{NodeDispatched, NodeSucceeded, Record, RunStarted, RunSucceeded};
use fermata_jetstream::core_messages::CoreMessages;
use fermata_jetstream::reader::Holes;
use fermata_jetstream::topology::commands_stream;
use fermata_jetstream::{Broker, StreamReader};
use fermata_wire::commands::CommandFrame;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::support::{PARTITION, Stage, program};

const SOURCE: SourcePosition = SourcePosition { sequence: 1, index: 0 };

pub fn tenant() -> Tenant {
    "acme".parse().unwrap()
}

pub fn run_of(strategy: &str) -> RunId {
    RunId::new(PARTITION, &tenant(), 1, SOURCE, strategy, None)
}

pub fn started(run: RunId) -> Record {
    let event = EventReference {
        tenant: tenant(),
        id: "e-1".into(),
        source: "/test".into(),
        kind: "a.b".into(),
        traceparent: None,
        hops: 0,
        breach: None,
        replayed: None,
    };
    let started = RunStarted {
        event,
        strategy: "s".into(),
        strategy_version: 1,
        workflow: "w".into(),
        workflow_version: "1.0".into(),
        plan: Digest([0; 32]),
        input: Json::null(),
        deadline: JournalTime(1_800_000_000_000),
    };
    Record::of_run(&tenant(), run, started.into())
}

fn node(run: RunId, body: fermata_core::record::Body) -> Record {
    let node: Arc<str> = "fetch".into();
    Record::of_node(&tenant(), run, &node, body).attempt(1)
}

/// A run that has begun, and what ends it.
fn beginning(run: RunId) -> Vec<Record> {
    vec![started(run), node(run, NodeDispatched { input: Json::null(), queued: None }.into())]
}

fn ending(run: RunId) -> Vec<Record> {
    let output = Json::from_text("{\"n\":1}").unwrap();
    let succeeded = Record::of_run(&tenant(), run, RunSucceeded {}.into());
    vec![node(run, NodeSucceeded { output }.into()), succeeded]
}

#[tokio::test]
async fn runs_are_listed_by_what_is_asked_for() {
    let stage = Stage::new().await;
    let (ended, open) = (run_of("a"), run_of("b"));
    stage.journal(0, 0, &[beginning(ended), ending(ended)].concat()).await;
    stage.journal(1, 4, &beginning(open)).await;

    let all = stage.run(&["runs", "list", "--json"]).await;
    let running = stage.run(&["runs", "list", "--json", "--status", "running"]).await;
    let of_another = stage.run(&["runs", "list", "--tenant", "globex"]).await;

    assert_eq!(all.code, 0, "{}", all.stderr);
    assert_eq!(all.json().len(), 2);
    let ids: Vec<_> = running.json().iter().map(|run| run["id"].clone()).collect();
    assert_eq!(ids, [open.to_string()]);
    let told = "no runs of tenant `globex` are known\n";
    assert_eq!(of_another.stdout, told);
}

#[tokio::test]
async fn a_run_is_shown_with_outputs_and_timeline() {
    let stage = Stage::new().await;
    let run = run_of("a");
    stage.journal(0, 0, &[beginning(run), ending(run)].concat()).await;

    let shown = stage.run(&["runs", "show", &run.to_string(), "--json"]).await;

    let history = &shown.json()[0];
    assert_eq!((shown.code, &history["status"]), (0, &"succeeded".into()), "{}", shown.stderr);
    assert_eq!(history["nodes"][0]["output"]["n"], 1);
    assert_eq!(history["timeline"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn a_run_that_is_not_there_is_told_apart_from_a_failure() {
    let stage = Stage::new().await;

    let shown = stage.run(&["runs", "show", &run_of("a").to_string()]).await;
    assert_eq!(shown.code, 4, "{}", shown.stderr);

    // Nearly another's id.
    stage.journal(0, 0, &beginning(run_of("b"))).await;
    let right = run_of("b").to_string();
    let last = if right.ends_with('0') { "1" } else { "0" };
    let wrong = format!("{}{last}", &right[..right.len() - 1]);
    let shown = stage.run(&["runs", "show", &wrong]).await;
    assert_eq!(shown.code, 4, "{}", shown.stderr);
    assert!(shown.stderr.contains(&format!("did you mean `{right}`?")), "{}", shown.stderr);

    // Of a partition that does not exist.
    let elsewhere =
        RunId::new(fermata_core::identity::PartitionId(7), &tenant(), 1, SOURCE, "a", None);
    let shown = stage.run(&["runs", "show", &elsewhere.to_string()]).await;
    assert_eq!(shown.code, 4, "{}", shown.stderr);
    assert!(shown.stderr.contains("name its partition, here 7"), "{}", shown.stderr);
}

#[tokio::test]
async fn a_run_is_explained_in_sentences() {
    let stage = Stage::new().await;
    let run = run_of("a");
    stage.journal(0, 0, &beginning(run)).await;

    let explained = stage.run(&["runs", "explain", &run.to_string()]).await;
    let lines = stage.run(&["runs", "explain", &run.to_string(), "--json"]).await;

    assert_eq!((explained.code, lines.code), (0, 0), "{}", explained.stderr);
    let text = &explained.stdout;
    assert!(text.contains("strategy `s` (version 1) chose workflow `w` 1.0"), "{text}");
    assert!(text.contains("`fetch` waits for the outcome of attempt 1"), "{text}");
    assert!(text.contains("is not in the object store"), "{text}");
    let sentences = lines.json()[0]["sentences"].as_array().unwrap().len();
    assert_eq!(sentences, explained.stdout.lines().count());
}

#[tokio::test]
async fn a_watched_run_is_followed_to_its_end() {
    let stage = Stage::new().await;
    let run = run_of("a");
    stage.journal(0, 0, &beginning(run)).await;

    let id = run.to_string();
    let mut watching =
        program(&["--nats-url", &stage.server.url(), "runs", "watch", &id, "--json"])
            .spawn()
            .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    for expected in ["run.started", "node.dispatched"] {
        let line = lines.next_line().await.unwrap().unwrap();
        assert!(line.contains(expected), "{line}");
    }
    stage.journal(1, 2, &ending(run)).await;
    for expected in ["node.succeeded", "run.succeeded"] {
        let line = lines.next_line().await.unwrap().unwrap();
        assert!(line.contains(expected), "{line}");
    }

    assert!(watching.wait().await.unwrap().success());
}

/// Answers the first command of the data partition as an engine would.
async fn answer_cancel(broker: Broker) -> Command {
    let stream = commands_stream(PARTITION);
    let mut tail = StreamReader::new(&broker).tail(&stream, 1, Holes::Refused).await.unwrap();
    let message = tail.next_batch(1).await.unwrap().remove(0);
    let command = CommandFrame::decode(&message.payload).unwrap().commands.remove(0);
    let Command::Cancel(cancel) = &command else { panic!("{command:?}") };
    let to = cancel.reply_to.clone().unwrap().to_string();
    let messages = CoreMessages::new(&broker);
    messages.publish_core(to, "{\"answer\":\"closing\"}".into()).await.unwrap();
    messages.flush().await.unwrap();
    command
}

#[tokio::test]
async fn a_cancel_is_a_command_to_the_partition_of_the_run() {
    let stage = Stage::new().await;
    let run = run_of("a");
    stage.journal(0, 0, &beginning(run)).await;
    let engine = tokio::spawn(answer_cancel(stage.broker.clone()));

    let id = run.to_string();
    let cancelled = stage.run(&["runs", "cancel", &id, "--reason", "twice", "--by", "alice"]).await;

    assert_eq!(cancelled.code, 0, "{}", cancelled.stderr);
    assert!(cancelled.stdout.starts_with("the run is closing"), "{}", cancelled.stdout);
    let Command::Cancel(cancel) = engine.await.unwrap() else { panic!("no cancel") };
    assert_eq!((cancel.run, cancel.by.as_str(), cancel.reason.as_str()), (run, "alice", "twice"));
}
