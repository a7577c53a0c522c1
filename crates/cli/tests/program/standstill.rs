//! A journal that is full: `/ready`, the gauge and `fermata doctor` name it, and what doctor says enlarges it.

use std::time::Instant;

use fermata_jetstream::core_messages::CoreMessages;
use fermata_jetstream::purge::room_of;
use serde_json::{Value, json};

use crate::engine::{RunningEngine, event};
use crate::operations::Scrape;
use crate::support::{Ended, SOON, examined_until, run};

const STREAM: &str = "JOURNAL_0";

#[tokio::test(flavor = "multi_thread")]
async fn a_full_journal_is_named_everywhere_and_enlarged_by_the_command_that_is_named() {
    let engine = RunningEngine::start(&["--http", "127.0.0.1:0", "--partitions", "1"], &[]).await;
    let broker = engine.broker().await;
    let core = CoreMessages::new(&broker);
    let ask = async |operation: &str, body: Vec<u8>| {
        let subject = format!("$JS.API.STREAM.{operation}.{STREAM}");
        let answer = core.request(&subject, body.into(), SOON).await.expect("an answer");
        let answer = serde_json::from_slice::<Value>(&answer.payload).expect("JSON");
        assert_eq!(answer["error"], Value::Null);
        answer
    };
    let made = room_of(&broker, STREAM).await.expect("a stream").max_bytes;
    let info = ask("INFO", Vec::new()).await;
    let mut config = info["config"].clone();
    config["max_bytes"] = info["state"]["bytes"].clone();
    ask("UPDATE", config.to_string().into_bytes()).await;
    engine.publish(&event(1, "nobody.knows").to_string()).await;

    let up = &engine.up;
    let still = up.until("/ready", |answer| answer.status == 503).await;
    assert_eq!(still.reasons(), ["partition_stands_still"]);
    let detail = still.json()["detail"].as_str().expect("text").to_owned();
    assert!(detail.starts_with("partition 0 stands still here: `JOURNAL_0` "), "{detail}");
    let scraped = Scrape::of(&up.get("/metrics").await.body);
    let of = |partition: &str| json!({ "partition": partition });
    assert_eq!(scraped.value("fermata_partition_standstill", of("0")), 1.0);
    assert_eq!(scraped.value("fermata_partition_standstill", of("control")), 0.0);
    assert_eq!(scraped.value("fermata_leases_standstill", json!({})), 0.0);

    // Decided ahead of the journal goes only so much; what comes behind that is the backlog.
    let (behind, mut ids) = (Instant::now(), 2..);
    let backlog =
        |text: &str| Scrape::of(text).value("fermata_partition_backlog_messages", of("0"));
    while backlog(&up.get("/metrics").await.body) == 0.0 {
        assert!(behind.elapsed() < SOON, "no backlog though {ids:?} come next");
        let events = ids.by_ref().take(500).map(|id| event(id, "nobody.knows"));
        engine.publish(&json!(events.collect::<Vec<_>>()).to_string()).await;
    }

    let doctor = async || engine.run(&["doctor", "--json"]).await;
    let codes = ["partition_stands_still", "stream_full"];
    let told = |ended: &Ended| codes.iter().all(|code| ended.check("code", code).is_some());
    let examined = examined_until(doctor, told).await;
    let [still, full] = codes.map(|code| examined.check("code", code).expect("it is told"));
    assert_eq!(examined.code, 1);
    let standstill = &still["details"][0];
    assert_eq!((&standstill["partition"], &standstill["stream"]), (&"0".into(), &STREAM.into()));
    assert!(standstill["seconds"].as_u64() >= Some(10), "{standstill}");
    let hint = full["hint"].as_str().expect("a hint");
    assert!(hint.contains("`fermata doctor --repair room --stream-room 16GiB`"), "{hint}");

    let dry = engine.run(&["doctor", "--repair", "room", "--dry-run", "--json"]).await.json();
    assert!(dry.iter().any(|line| line["stream"] == STREAM), "{dry:?}");
    assert!(dry.iter().all(|line| line["answer"] == "would_enlarge"), "{dry:?}");
    let repair = ["doctor", "--repair", "room", "--stream-room", "8GiB"];
    let repaired = engine.do_it(&repair).await;
    assert!(repaired.ends_with("room: 1 stream is larger\n"), "{repaired}");
    assert_eq!(room_of(&broker, STREAM).await.expect("a stream").max_bytes, made);
    up.until("/ready", |answer| answer.status == 200).await;
    up.until("/metrics", |answer| {
        answer.body.contains("fermata_partition_standstill{partition=\"0\"} 0\n")
            && answer.body.contains("fermata_partition_backlog_messages{partition=\"0\"} 0\n")
    })
    .await;
    engine.stop().await;
}

#[tokio::test]
async fn room_that_is_no_size_or_that_no_engine_can_have_is_refused_with_what_can_be_given() {
    let small = run(&["up", "--stream-room", "1GiB"]).await;
    assert_eq!(small.code, 2);
    assert!(small.stderr.contains("the streams of an engine take 2GiB to "), "{}", small.stderr);
    let none = run(&["worker", "--stream-room", "lots"]).await;
    assert_eq!(none.code, 2);
    assert!(none.stderr.contains("as in `40GiB`"), "{}", none.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_started_with_more_room_has_it_and_with_less_keeps_what_it_has() {
    let mut engine =
        RunningEngine::start(&["--partitions", "1", "--stream-room", "3GiB"], &[]).await;
    let sizes = async |engine: &RunningEngine| {
        let broker = engine.broker().await;
        let mut sizes = Vec::new();
        for stream in ["AUDIT_0", "JOURNAL_0", "EVENTS", "OBJ_fermata-archive"] {
            sizes.push(room_of(&broker, stream).await.expect("a stream").max_bytes);
        }
        sizes
    };
    let small = sizes(&engine).await;

    engine.restart(&["--stream-room", "6GiB"]).await;
    let large = sizes(&engine).await;
    assert!(small.iter().zip(&large).all(|(small, large)| large > small), "{small:?} {large:?}");

    engine.restart(&["--stream-room", "2GiB"]).await;
    assert_eq!(sizes(&engine).await, large);
    let examined = engine.run(&["doctor", "--json"]).await;
    let streams = examined.json().into_iter().find(|check| check["name"] == "streams");
    assert_eq!(streams.expect("a check")["health"], "ok", "sizes are no drift");
    engine.stop().await;
}
