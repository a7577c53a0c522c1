//! Contracts: what breaks them is refused or told of, and none asks the network.

use std::collections::BTreeMap;
use std::time::Duration;

use fermata_actors::Engine;
use fermata_core::command::{Command, ContractEntry, ContractMode, DefineCommand};
use fermata_core::digest::Digest;
use fermata_core::event::PayloadReference;
use fermata_core::flags::Flags;
use fermata_core::identity::PartitionId;
use fermata_core::json::Json;
use fermata_core::record::{Body, Kind};
use fermata_jetstream::payloads::put_payload;
use fermata_jetstream::{Durability, PublishOutcome};
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
  - { name: start, version: 1, tenant: '*', on: demo.start, workflow: { name: one, version: '1' } }
";

fn contract(version: &str, schema: &Value) -> ContractEntry {
    ContractEntry {
        tenant: events::TENANT.parse().expect("a tenant"),
        kind: "demo.start".into(),
        version: version.into(),
        schema: Json::from_value(schema),
    }
}

/// Asks the control partition; returns what speaks against it, and waits until
/// what was applied is active here.
async fn define(
    engine: &Engine,
    contracts: Vec<ContractEntry>,
    mode: Option<ContractMode>,
) -> Vec<String> {
    let ports = engine.ports();
    let id = uuid::Uuid::from_bytes(rand::random());
    let inbox = format!("_INBOX.test.{}", id.simple());
    let mut answers = ports.core.subscribe(&inbox).await.expect("a subscription");
    let contract_modes: BTreeMap<_, _> =
        mode.into_iter().map(|mode| (events::TENANT.into(), mode)).collect();
    let command = Command::Define(DefineCommand {
        id,
        by: "test".to_owned(),
        strategies: Vec::new(),
        workflows: Vec::new(),
        reply_to: Some(inbox.into()),
        flags: Flags::default(),
        contracts,
        contract_modes,
        ..DefineCommand::default()
    });
    definitions::publish_command(engine, PartitionId::CONTROL, command).await;
    let answer = tokio::time::timeout(LIMIT, answers.next()).await.expect("in time");
    let answer: Value = serde_json::from_slice(&answer.expect("an answer").payload).expect("JSON");
    let revision = answer["revision"].as_u64().expect("a revision");
    let mut snapshots = ports.definitions.clone();
    let seen = snapshots.wait_for(|snapshot| snapshot.revision >= revision);
    tokio::time::timeout(LIMIT, seen).await.expect("in time").expect("a watch");
    let problems = answer["problems"].as_array().expect("a list").iter();
    problems.map(|problem| problem.as_str().expect("text").to_owned()).collect()
}

async fn publish(engine: &Engine, id: u64, data: Value) {
    let event = events::event_with("demo.start", id, &data);
    events::publish_raw(&engine.ports().publisher, "demo.start", event).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_a_contract_is_told_of_or_refused_as_the_mode_says() {
    let broker = TestBroker::start(Durability::Process).await;
    let engine = TestEngine::at(broker.url()).start(broker.folder()).await;
    engine.ready().await;
    definitions::apply_yaml(&engine, &[WORKFLOW], STRATEGIES).await;
    let schema = json!({"properties": {"n": {"type": "integer"}, "m": {"minLength": 3}}});
    assert_eq!(define(&engine, vec![contract("v1", &schema)], None).await, Vec::<String>::new());

    publish(&engine, 1, json!({"n": 1})).await;
    publish(&engine, 2, json!({"n": "warned", "m": "x"})).await;
    let reader = &engine.ports().reader;
    let records =
        records_until(reader, 2, LIMIT, |records| count(records, Kind::RunSucceeded) == 2).await;
    let breaches: Vec<_> = records
        .iter()
        .filter_map(|(_, record)| match &record.body {
            Body::EventStarted(started) => started.event.breach.as_deref(),
            _ => None,
        })
        .collect();
    assert_eq!(breaches.len(), 1, "{breaches:?}");
    assert!(breaches[0].contains("/n: ") && breaches[0].contains("/m: "), "{breaches:?}");

    assert!(define(&engine, Vec::new(), Some(ContractMode::Enforce)).await.is_empty());
    publish(&engine, 3, json!({"n": "refused"})).await;
    // A rejection claims no key: the repaired event under the same id starts.
    publish(&engine, 3, json!({"n": 3})).await;
    let records = records_until(reader, 2, LIMIT, |records| {
        count(records, Kind::RunSucceeded) == 3 && count(records, Kind::EventRejected) == 1
    })
    .await;
    assert_eq!(count(&records, Kind::EventRepeated), 0);
    let letters = audit::messages(reader, "DEAD").await;
    let letter = DeadLetter::decode(&letters[0].payload).expect("a dead letter");
    assert_eq!((letter.reason.as_str(), letters.len()), ("contract_violation", 1));
    assert!(letter.detail.contains("/n: ") && !letter.detail.contains("refused"), "{letter:?}");
    engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incompatible_version_and_a_reference_to_the_network_are_refused() {
    let broker = TestBroker::start(Durability::Process).await;
    let engine = TestEngine::at(broker.url()).start(broker.folder()).await;
    engine.ready().await;
    let canary = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let remote = format!("http://{}/schema.json", canary.local_addr().expect("an address"));
    let v1 = json!({"properties": {"n": {"type": "integer"}}});
    assert!(define(&engine, vec![contract("v1", &v1)], None).await.is_empty());

    let narrowed = json!({"required": ["n"], "properties": {"n": {"type": "integer"}}});
    let problems = define(&engine, vec![contract("v1.1", &narrowed)], None).await;
    assert!(problems[0].contains("`required` names `n`"), "{problems:?}");
    let problems = define(&engine, vec![contract("v1", &narrowed)], None).await;
    assert!(problems[0].contains("make a new version"), "{problems:?}");
    let problems = define(&engine, vec![contract("v1.1", &json!({"$ref": remote}))], None).await;
    assert!(problems[0].contains("beyond the document"), "{problems:?}");
    let named = contract("v1.1", &json!({"$id": remote}));
    let problems = define(&engine, vec![named], None).await;
    assert!(problems[0].contains("/$id: is not allowed"), "{problems:?}");
    assert!(define(&engine, vec![contract("v2", &narrowed)], None).await.is_empty());
    let widened = json!({"properties": {"n": {"type": "number"}, "m": {"type": "string"}}});
    assert!(define(&engine, vec![contract("v1.1", &widened)], None).await.is_empty());

    let asked = tokio::time::timeout(Duration::ZERO, canary.accept()).await;
    assert!(asked.is_err(), "nobody connected");
    engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_costly_to_check_is_filed_or_waits_and_others_go_on() {
    let broker = TestBroker::start(Durability::Process).await;
    let engine = TestEngine::at(broker.url()).start(broker.folder()).await;
    engine.ready().await;
    definitions::apply_yaml(&engine, &[WORKFLOW], STRATEGIES).await;
    let all: Vec<_> = (0..3_000).map(|at| json!({ "maximum": at })).collect();
    let costly = json!({"properties": {"list": {"items": {"anyOf": all}}}});
    let enforce = Some(ContractMode::Enforce);
    assert!(define(&engine, vec![contract("v1", &costly)], enforce).await.is_empty());

    // Beyond what is checked; as much as is checked, good and bad.
    publish(&engine, 1, json!({"list": vec![0; 20_000]})).await;
    for id in 2..=9 {
        publish(&engine, id, json!({"list": vec![2_999; 1_500]})).await;
    }
    publish(&engine, 10, json!({"list": vec![3_000; 1_500]})).await;
    let publisher = &engine.ports().publisher;
    let other = json!({"specversion": "1.0", "id": "o", "source": "/t", "type": "demo.start"});
    let subject = "fermata.events.other.demo.start";
    let stored = publisher.publish(subject, None, other.to_string().into()).await.await;
    assert!(matches!(stored, PublishOutcome::Stored { .. }), "{stored:?}");

    let reader = &engine.ports().reader;
    let records = records_until(reader, 2, LIMIT, |records| {
        count(records, Kind::RunSucceeded) == 9 && count(records, Kind::EventRejected) == 2
    })
    .await;
    assert_eq!(count(&records, Kind::EventRepeated), 0);
    let letters = audit::messages(reader, "DEAD").await;
    let letters = letters.iter().map(|letter| DeadLetter::decode(&letter.payload).expect("one"));
    let mut letters: Vec<_> = letters
        .map(|letter| {
            let original: Value = serde_json::from_slice(&letter.original).expect("an event");
            (letter.reason, original["id"].as_str().expect("an id").to_owned(), letter.detail)
        })
        .collect();
    letters.sort();
    assert_eq!((letters[0].0.as_str(), letters[0].1.as_str()), ("contract_too_costly", "1"));
    assert!(letters[0].2.contains("not checked"), "{letters:?}");
    assert_eq!((letters[1].0.as_str(), letters[1].1.as_str()), ("contract_violation", "10"));
    engine.shut_down().await;
}

/// Members of an event whose data is in the store of payloads.
async fn stored(engine: &Engine, data: &Value) -> Value {
    let bytes = data.to_string().into_bytes();
    let digest = Digest::of(&bytes);
    let (broker, name) = (&engine.ports().broker, digest.to_string());
    let put = put_payload(broker, events::TENANT, digest.0, &name, &bytes[..], |_| ()).await;
    put.expect("stored");
    let reference = PayloadReference { digest };
    let (uri, digest) = (reference.uri(events::TENANT), reference.datadigest());
    json!({"dataref": uri, "datadigest": digest, "datacontenttype": "application/json"})
}

fn with(id: &str, members: &Value) -> Value {
    let mut event = json!({"specversion": "1.0", "id": id, "source": "/t", "type": "demo.start"});
    let all = event.as_object_mut().expect("an object");
    all.extend(members.as_object().expect("an object").clone());
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_is_elsewhere_passes_no_contract_unread() {
    let broker = TestBroker::start(Durability::Process).await;
    let engine = TestEngine::at(broker.url()).start(broker.folder()).await;
    engine.ready().await;
    definitions::apply_yaml(&engine, &[WORKFLOW], STRATEGIES).await;
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}});
    let enforce = Some(ContractMode::Enforce);
    assert!(define(&engine, vec![contract("v1", &schema)], enforce).await.is_empty());
    let padding = "x".repeat(300_000);
    let good = stored(&engine, &json!({"n": 1, "padding": padding})).await;
    let bad = stored(&engine, &json!({"n": "one", "padding": padding})).await;
    let large = stored(&engine, &json!({"n": 1, "padding": padding.repeat(8)})).await;
    let mut picture = good.clone();
    picture["datacontenttype"] = "image/png".into();
    let foreign = json!({"dataref": "https://acme.example/data"});

    let publisher = &engine.ports().publisher;
    for (id, members) in [
        ("good", &good),
        ("bad", &bad),
        ("large", &large),
        ("picture", &picture),
        ("foreign", &foreign),
    ] {
        let event = with(id, members).to_string().into();
        events::publish_raw(publisher, "demo.start", event).await;
    }
    // More of one message than is read.
    let many: Vec<_> = (1..=9).map(|at| with(&format!("of-many-{at}"), &good)).collect();
    events::publish_raw(publisher, "batch", Value::from(many).to_string().into()).await;

    let reader = &engine.ports().reader;
    records_until(reader, 2, LIMIT, |records| {
        count(records, Kind::RunSucceeded) == 9 && count(records, Kind::EventRejected) == 5
    })
    .await;
    let letters = audit::messages(reader, "DEAD").await;
    let letters = letters.iter().map(|letter| DeadLetter::decode(&letter.payload).expect("one"));
    let letters: BTreeMap<_, _> = letters
        .map(|letter| {
            let original: Value = serde_json::from_slice(&letter.original).expect("an event");
            (original["id"].as_str().expect("an id").to_owned(), (letter.reason, letter.detail))
        })
        .collect();
    let reasons: Vec<_> =
        letters.iter().map(|(id, (reason, _))| (id.as_str(), reason.as_str())).collect();
    assert_eq!(
        reasons,
        [
            ("bad", "contract_violation"),
            ("foreign", "contract_unchecked"),
            ("large", "contract_unchecked"),
            ("of-many-9", "contract_unchecked"),
            ("picture", "contract_violation"),
        ]
    );
    assert!(letters["bad"].1.contains("/n: "), "{letters:?}");
    assert!(letters["large"].1.contains("2097152"), "{letters:?}");

    // Where it is only to be told of, it is told.
    assert!(define(&engine, Vec::new(), Some(ContractMode::Warn)).await.is_empty());
    for (id, members) in [("foreign", &foreign), ("bad", &bad), ("large", &large)] {
        let event = with(id, members).to_string().into();
        events::publish_raw(publisher, "demo.start", event).await;
    }
    let records =
        records_until(reader, 2, LIMIT, |records| count(records, Kind::RunSucceeded) == 12).await;
    let told = records.iter().filter_map(|(_, record)| match &record.body {
        Body::EventStarted(started) => started.event.breach.as_deref(),
        _ => None,
    });
    assert_eq!(told.filter(|breach| breach.starts_with("version `v1`: ")).count(), 3);
    engine.shut_down().await;
}
