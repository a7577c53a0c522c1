//! `fermata publish` of what is too large for an event: where its data goes, a store without room, and an upload
//! that is ended by a signal.

use std::collections::BTreeMap;
use std::time::Instant;

use fermata_core::digest::Digest;
use fermata_core::event::PAYLOADS_BUCKET;
use fermata_jetstream::StreamReader;
use fermata_jetstream::core_messages::CoreMessages;
use fermata_jetstream::object_folder::ObjectFolder;
use fermata_jetstream::topology::EVENTS_STREAM;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Child;
use tokio::sync::watch;

use crate::engine::RunningEngine;
use crate::support::{Ended, SOON, Stage, program};

const PAYLOADS: &str = "OBJ_fermata-payloads";
const MIB: u64 = 1024 * 1024;

const WORKFLOW: &str = "
workflow: { name: scan, version: '1', tasks: [{ id: note, transform: input.place }] }
";
const STRATEGIES: &str = "
strategies:
  - name: scans
    version: 1
    tenant: acme
    on: scan.stored
    workflow: { name: scan, version: '1' }
    variables: { place: 'has(event.dataref) ? event.dataref : event.id' }
";

/// Lets the store of payloads hold so many bytes.
async fn give_room(stage: &Stage, bytes: u64) {
    let core = CoreMessages::new(&stage.broker);
    let info = format!("$JS.API.STREAM.INFO.{PAYLOADS}");
    let answer = core.request(&info, Default::default(), SOON).await.unwrap();
    let mut config = serde_json::from_slice::<Value>(&answer.payload).unwrap()["config"].take();
    config["max_bytes"] = bytes.into();
    let update = format!("$JS.API.STREAM.UPDATE.{PAYLOADS}");
    let answer = core.request(&update, config.to_string().into(), SOON).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert!(answer.get("error").is_none(), "{answer}");
}

/// A file of so many bytes, and how it is published.
fn publishing(stage: &Stage, bytes: u64) -> Vec<String> {
    let file = stage.folder.path().join("scan.tiff");
    std::fs::File::create(&file).unwrap().set_len(bytes).unwrap();
    let arguments = ["publish", "--tenant", "acme", "--type", "scan.stored", "--data-file"];
    let file = file.display().to_string();
    arguments.iter().map(ToString::to_string).chain([file]).collect()
}

async fn messages(stage: &Stage, stream: &str) -> u64 {
    StreamReader::new(&stage.broker).stream_state(stream).await.unwrap().messages
}

/// Publishes a file of so many bytes, by a program whose data folder tells how to monitor the broker.
async fn publish(stage: &Stage, bytes: u64) -> Ended {
    let monitor = stage.server.monitor_url().expect("it was asked for");
    std::fs::write(stage.folder.path().join("fermata.monitor"), monitor).unwrap();
    let folder = stage.folder.path().display().to_string();
    let arguments = publishing(stage, bytes);
    let arguments = arguments.iter().map(String::as_str);
    stage.run(&["--data-dir", &folder].into_iter().chain(arguments).collect::<Vec<_>>()).await
}

#[tokio::test]
async fn a_store_of_payloads_without_room_is_told_with_its_figures_and_what_to_do() {
    let stage = Stage::new().await;
    give_room(&stage, 5 * MIB).await;

    let stored = publish(&stage, 4 * MIB).await;
    assert_eq!(stored.code, 0, "{}", stored.stderr);
    let held = messages(&stage, PAYLOADS).await;
    let refused = publish(&stage, 3 * MIB).await;

    assert_eq!(refused.code, 1, "{}", refused.stderr);
    for part in [
        "the store of payloads (`OBJ_fermata-payloads`) has no room for the 3.0 MiB of `",
        "scan.tiff`: 4.0 MiB of 5.0 MiB are used",
        "`fermata doctor --repair room --only OBJ_fermata-payloads --to 10MiB`. Payloads",
        "nothing was published",
    ] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    let left = (messages(&stage, PAYLOADS).await, messages(&stage, EVENTS_STREAM).await);
    assert_eq!(left, (held, 1));
}

#[tokio::test]
async fn a_payload_that_the_store_can_never_hold_is_refused_before_it_is_uploaded() {
    let stage = Stage::new().await;
    give_room(&stage, 2 * MIB).await;

    let refused = publish(&stage, 50 * MIB).await;

    assert_eq!(refused.code, 1, "{}", refused.stderr);
    for part in [
        "holds 2.0 MiB at the most, and never the 50.0 MiB of `",
        "`fermata doctor --repair room --only OBJ_fermata-payloads --to 51MiB`;",
        "nothing was stored or published",
    ] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    let state = StreamReader::new(&stage.broker).stream_state(PAYLOADS).await.unwrap();
    assert_eq!(state.last_sequence, 0, "a part was uploaded");
}

#[tokio::test]
async fn no_room_is_advised_that_the_server_does_not_have() {
    let stage = Stage::with_store(4_115 * MIB).await;
    let filled = publish(&stage, 200 * MIB).await;

    assert_eq!(filled.code, 1, "{}", filled.stderr);
    for part in ["the server has 4.0 GiB for streams", "raise `max_file_store`"] {
        assert!(filled.stderr.contains(part), "{part}: {}", filled.stderr);
    }
    assert!(!filled.stderr.contains("--repair"), "{}", filled.stderr);
}

fn send(signal: Signal, child: &Child) {
    let pid = Pid::from_raw(i32::try_from(child.id().expect("it runs")).unwrap()).unwrap();
    kill_process(pid, signal).expect("a signal");
}

/// What a program says that a signal ends before its work is done.
async fn told_at_its_end(child: Child) -> String {
    let ended = tokio::time::timeout(SOON, child.wait_with_output()).await;
    let ended = ended.expect("in time").expect("an end");
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(130), "{told}");
    told
}

#[tokio::test]
async fn a_signal_while_the_data_is_read_is_told_of() {
    for signal in [Signal::INT, Signal::TERM] {
        let stage = Stage::new().await;
        let pipe = stage.folder.path().join("scan.tiff");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
        assert!(made.success());
        let url = stage.server.url();
        let mut command = program(&["--nats-url", &url]);
        let arguments = ["publish", "--tenant", "acme", "--type", "scan.stored", "--data-file"];
        let child = command.args(arguments).arg(&pipe).spawn().expect("a program");
        // It opens when somebody reads, and gives nothing.
        let opened =
            tokio::task::spawn_blocking(move || std::fs::OpenOptions::new().write(true).open(pipe));
        let _held = tokio::time::timeout(SOON, opened).await.expect("it reads").unwrap().unwrap();

        send(signal, &child);
        let told = told_at_its_end(child).await;

        assert!(told.contains("nothing was stored or published"), "{told}");
        assert_eq!(messages(&stage, EVENTS_STREAM).await, 0, "{told}");
    }
}

/// A way to the broker of `stage` on which each connection gets so many bytes through, and the others only once
/// it is told that they may go.
async fn held_back(stage: &Stage, bytes: u64) -> (String, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("nats://{}", listener.local_addr().expect("an address"));
    let server = stage.server.url().strip_prefix("nats://").expect("an address").to_owned();
    let (may_go, held) = watch::channel(false);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let broker = TcpStream::connect(&server).await.expect("a connection");
            let (mut said, mut asks) = broker.into_split();
            let (asked, mut told) = client.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut said, &mut told).await });
            let mut held = held.clone();
            tokio::spawn(async move {
                let mut first = asked.take(bytes);
                tokio::io::copy(&mut first, &mut asks).await?;
                let _ = held.wait_for(|may_go| *may_go).await;
                tokio::io::copy(&mut first.into_inner(), &mut asks).await
            });
        }
    });
    (url, may_go)
}

#[tokio::test]
async fn an_upload_that_a_signal_ends_leaves_no_chunks_behind() {
    for signal in [Signal::INT, Signal::TERM] {
        let stage = Stage::new().await;
        give_room(&stage, 256 * MIB).await;
        // However late the signal comes, the upload is not through.
        let (url, may_go) = held_back(&stage, 20 * MIB).await;
        let mut command = program(&["--nats-url", &url]);
        let child = command.args(publishing(&stage, 200 * MIB)).spawn().expect("a program");
        let begun = Instant::now();
        while messages(&stage, PAYLOADS).await == 0 {
            assert!(begun.elapsed() < SOON, "nothing is uploaded");
        }

        send(signal, &child);
        may_go.send(true).expect("it is waited for");
        let told = told_at_its_end(child).await;

        assert!(told.contains("nothing was published"), "{told}");
        assert_eq!(messages(&stage, PAYLOADS).await, 0, "{told}");
        assert_eq!(messages(&stage, EVENTS_STREAM).await, 0, "{told}");
    }
}

fn scan(id: &str, data: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"/t","type":"scan.stored","tenant":"acme","data":{data}}}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_an_event_that_is_too_large_starts_a_run_with_the_place_of_its_data() {
    let engine = RunningEngine::start(&["--http", "127.0.0.1:0", "--partitions", "1"], &[]).await;
    engine.apply("workflow", WORKFLOW).await;
    engine.apply("strategy", STRATEGIES).await;
    // Not as any program would write it.
    let data = format!(r#"{{ "dpi": 1.10, "text": "{}" }}"#, "x".repeat(300_000));
    let lines = [scan("first", "1"), scan("large", &data), scan("last", "2")].join("\n");
    let file = engine.path("scans.ndjson");
    std::fs::write(&file, lines).unwrap();

    engine.publish(&scan("scan", &data)).await;
    let of_lines = engine.run(&["publish", "--keep-going", "--json", &file]).await;

    // Nothing is taken out of lines.
    assert_eq!(of_lines.code, 1, "{}{}", of_lines.stdout, of_lines.stderr);
    let told = of_lines.json();
    let refused = told.iter().find(|line| line["reason"] == "too_large").expect(&of_lines.stdout);
    assert!(refused["from"].as_str().unwrap().ends_with("scans.ndjson:2"), "{refused}");
    let ended = "agent_workflow_latency_p95_seconds_count 3\n";
    engine.up.until("/metrics", |answer| answer.body.contains(ended)).await;
    let begun = Instant::now();
    // The list may be behind the figures.
    let runs = loop {
        let runs = engine.run(&["runs", "list", "--json"]).await.json();
        if runs.len() == 3 {
            break runs;
        }
        assert!(begun.elapsed() < SOON, "{runs:?}");
    };
    let mut started = BTreeMap::new();
    for run in runs {
        let shown = engine.run(&["runs", "show", run["id"].as_str().unwrap(), "--json"]).await;
        let shown = shown.json().remove(0);
        let of = shown["event_id"].as_str().unwrap().to_owned();
        started.insert(of, shown["input"]["place"].clone());
    }
    let digest = Digest::of(data.as_bytes()).to_string();
    let place = format!("nats-object://fermata-payloads/acme/{digest}");
    let expected = [("first", "first"), ("last", "last"), ("scan", &*place)];
    assert_eq!(started, expected.map(|(of, place)| (of.to_owned(), json!(place))).into());
    let payloads =
        ObjectFolder::open(&engine.broker().await, PAYLOADS_BUCKET, "acme").await.unwrap();
    assert_eq!(payloads.list().await.unwrap(), [digest.as_str()]);
    let stored = payloads.get(&digest).await.unwrap().unwrap();
    assert!(stored == data.as_bytes(), "not as it was written");
    engine.stop().await;
}
