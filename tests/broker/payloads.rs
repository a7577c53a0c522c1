//! Data that is elsewhere: events refer to it, and what is not there starts nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use fermata_actors::Engine;
use fermata_core::digest::Digest;
use fermata_core::event::{PAYLOADS_BUCKET, PayloadReference};
use fermata_core::record::{Body, Kind};
use fermata_jetstream::object_folder::ObjectFolder;
use fermata_jetstream::payloads::put_payload;
use fermata_jetstream::{Durability, PublishOutcome, topology};
use fermata_tests::journal::{count, records_until};
use fermata_tests::{TestBroker, TestEngine, audit, definitions, events};
use fermata_wire::dead::DeadLetter;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

const WORKFLOW: &str = "
workflow: { name: one, version: '1', tasks: [{ id: a, noop: {} }] }
";
const STRATEGIES: &str = "
strategies:
  - name: start
    version: 1
    tenant: '*'
    on: demo.start
    workflow: { name: one, version: '1' }
    variables: { place: 'has(event.dataref) ? event.dataref : event.id' }
";

async fn engine() -> (TestBroker, Engine) {
    let broker = TestBroker::start(Durability::Process).await;
    let engine = TestEngine::at(broker.url()).start(broker.folder()).await;
    engine.ready().await;
    definitions::apply_yaml(&engine, &[WORKFLOW], STRATEGIES).await;
    (broker, engine)
}

async fn store(engine: &Engine, tenant: &str, bytes: &[u8]) -> PayloadReference {
    let digest = Digest::of(bytes);
    let (broker, name) = (&engine.ports().broker, digest.to_string());
    let mut told = 0;
    let stored = put_payload(broker, tenant, digest.0, &name, bytes, |more| told += more).await;
    stored.expect("stored");
    assert_eq!(told, bytes.len());
    PayloadReference { digest }
}

fn referring(id: &str, dataref: &str, digest: Option<String>) -> Bytes {
    let mut event = json!({
        "specversion": "1.0", "id": id, "source": "/t", "type": "demo.start", "dataref": dataref,
    });
    if let Some(digest) = digest {
        event["datadigest"] = digest.into();
    }
    event.to_string().into()
}

async fn publish(engine: &Engine, event: Bytes) -> u64 {
    events::publish_raw(&engine.ports().publisher, "demo.start", event).await
}

fn ours(id: &str, tenant: &str, reference: PayloadReference) -> Bytes {
    referring(id, &reference.uri(tenant), Some(reference.datadigest()))
}

/// Asks the broker's own API.
async fn ask(engine: &Engine, operation: &str, request: Value) -> Value {
    let subject = format!("$JS.API.{operation}");
    let payload = if request.is_null() { Bytes::new() } else { request.to_string().into() };
    let answer = engine.ports().core.request(&subject, payload, LIMIT).await.expect("an answer");
    let answer: Value = serde_json::from_slice(&answer.payload).expect("JSON");
    assert!(answer.get("error").is_none(), "{operation}: {answer}");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_starts_a_run_only_where_its_data_is_there_and_its_own() {
    let (_broker, engine) = engine().await;
    // More than one chunk.
    let found = store(&engine, events::TENANT, &vec![7; 1_200_000]).await;
    // Published again it takes no room again.
    let stream = format!("OBJ_{PAYLOADS_BUCKET}");
    let room = async || engine.ports().reader.stream_state(&stream).await.expect("a state").bytes;
    let before = room().await;
    assert_eq!(store(&engine, events::TENANT, &vec![7; 1_200_000]).await, found);
    assert_eq!(room().await, before);
    let others = store(&engine, "other", b"of another tenant").await;
    let missing = PayloadReference { digest: Digest::of(b"missing") };
    let changed = PayloadReference { digest: Digest::of(b"as it was") };
    let broker = &engine.ports().broker;
    let folder =
        ObjectFolder::open(broker, PAYLOADS_BUCKET, events::TENANT).await.expect("a bucket");
    let name = changed.digest.to_string();
    folder.put(&name, &Bytes::from_static(b"as it is")).await.expect("stored");

    publish(&engine, ours("found", events::TENANT, found)).await;
    publish(&engine, referring("foreign", "https://acme.example/a", None)).await;
    let mut refused = BTreeMap::new();
    for (event, reason) in [
        (ours("missing", events::TENANT, missing), "payload_missing"),
        (ours("changed", events::TENANT, changed), "payload_changed"),
        (ours("other", "other", others), "bad_payload_reference"),
        (referring("undigested", &found.uri(events::TENANT), None), "bad_payload_reference"),
    ] {
        refused.insert(publish(&engine, event.clone()).await, (reason.to_owned(), event));
    }
    let reader = &engine.ports().reader;
    records_until(reader, 2, LIMIT, |records| {
        count(records, Kind::RunSucceeded) == 2 && count(records, Kind::EventRejected) == 4
    })
    .await;
    let letters = audit::messages(reader, "DEAD").await;
    let letters =
        letters.iter().map(|letter| DeadLetter::decode(&letter.payload).expect("a letter"));
    let letters: BTreeMap<_, _> = letters
        .map(|letter| {
            let sequence = letter.id.split_once('.').expect("an id").0.parse().expect("a number");
            (sequence, (letter.reason, letter.original))
        })
        .collect();
    assert_eq!(letters, refused);

    // What was missing is there now, and nothing has claimed the event's key.
    store(&engine, events::TENANT, b"missing").await;
    publish(&engine, ours("missing", events::TENANT, missing)).await;
    let records =
        records_until(reader, 2, LIMIT, |records| count(records, Kind::RunSucceeded) == 3).await;
    assert_eq!(count(&records, Kind::EventRepeated), 0);
    let inputs = records.iter().filter_map(|(_, record)| match &record.body {
        Body::RunStarted(started) => {
            Some((started.event.id.to_string(), started.input.parse()["place"].clone()))
        }
        _ => None,
    });
    let expected: BTreeMap<String, Value> = [
        ("found".to_owned(), json!(found.uri(events::TENANT))),
        ("foreign".to_owned(), json!("https://acme.example/a")),
        ("missing".to_owned(), json!(missing.uri(events::TENANT))),
    ]
    .into();
    assert_eq!(inputs.collect::<BTreeMap<_, _>>(), expected);
    engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_nobody_knows_whether_data_is_there_its_event_waits() {
    let (_broker, engine) = engine().await;
    assert_eq!(topology::PAYLOADS_BUCKET, PAYLOADS_BUCKET);
    let stream = format!("OBJ_{PAYLOADS_BUCKET}");
    let config =
        ask(&engine, &format!("STREAM.INFO.{stream}"), Value::Null).await["config"].clone();
    ask(&engine, &format!("STREAM.DELETE.{stream}"), Value::Null).await;
    let reference = PayloadReference { digest: Digest::of(b"late") };

    publish(&engine, ours("late", events::TENANT, reference)).await;
    let redelivered = async {
        let listener = "CONSUMER.INFO.EVENTS.listener";
        while ask(&engine, listener, Value::Null).await["num_redelivered"] == 0 {}
    };
    tokio::time::timeout(LIMIT, redelivered).await.expect("delivered again");
    let reader = &engine.ports().reader;
    ask(&engine, &format!("STREAM.CREATE.{stream}"), config).await;
    store(&engine, events::TENANT, b"late").await;

    let records =
        records_until(reader, 2, LIMIT, |records| count(records, Kind::RunSucceeded) == 1).await;
    assert_eq!(count(&records, Kind::EventRejected), 0);
    engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_others_go_on_while_the_store_of_payloads_is_away() {
    let (_broker, engine) = engine().await;
    let stream = format!("OBJ_{PAYLOADS_BUCKET}");
    let config =
        ask(&engine, &format!("STREAM.INFO.{stream}"), Value::Null).await["config"].clone();
    ask(&engine, &format!("STREAM.DELETE.{stream}"), Value::Null).await;
    let reference = PayloadReference { digest: Digest::of(b"away") };

    // Side by side, so that they come in one batch; and two events in one message.
    let both = json!([
        serde_json::from_slice::<Value>(&ours("late-2", events::TENANT, reference)).expect("JSON"),
        { "specversion": "1.0", "id": "beside", "source": "/t", "type": "demo.start" },
    ]);
    publish(&engine, ours("late-1", events::TENANT, reference)).await;
    publish(&engine, both.to_string().into()).await;
    let publisher = &engine.ports().publisher;
    let others = (1..=20).map(|id| {
        let event = json!({
            "specversion": "1.0", "id": id.to_string(), "source": "/t", "type": "demo.start",
        });
        publisher.publish("fermata.events.other.demo.start", None, event.to_string().into())
    });
    for receipt in futures_util::future::join_all(others).await {
        assert!(matches!(receipt.await, PublishOutcome::Stored { .. }));
    }
    let reader = &engine.ports().reader;
    let decided =
        records_until(reader, 2, LIMIT, |records| count(records, Kind::RunSucceeded) == 20).await;
    assert_eq!(count(&decided, Kind::EventRejected), 0);

    // Nothing of the held ones is decided, and each of them once when it can be.
    ask(&engine, &format!("STREAM.CREATE.{stream}"), config).await;
    store(&engine, events::TENANT, b"away").await;
    let records =
        records_until(reader, 2, LIMIT, |records| count(records, Kind::RunSucceeded) == 23).await;
    assert_eq!(count(&records, Kind::EventRepeated), 0);
    engine.shut_down().await;
}
