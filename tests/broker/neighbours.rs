//! Tenants beside each other: what one of them does, or cannot do, keeps no other
//! from getting on.

use std::collections::BTreeMap;
use std::time::Duration;

use fermata_actors::Engine;
use fermata_actors::task_worker::{DELIVERIES_MAX, ServedQueues};
use fermata_core::record::{Header, Kind};
use fermata_executors::HttpConfig;
use fermata_jetstream::work_queue::WorkQueue;
use fermata_jetstream::{Durability, PublishOutcome, StreamReader};
use fermata_tests::journal::{Entry, records_until};
use fermata_tests::{Sink, TestBroker, TestEngine, audit, definitions};
use fermata_wire::dead::DeadLetter;
use serde_json::json;

/// Far more than it takes, and less than anything here waits for.
const LIMIT: Duration = Duration::from_secs(60);

/// How long the broker waits to hear of a task: longer than any test.
const WAIT: Duration = Duration::from_secs(600);

const STRATEGIES: &str = "
strategies:
  - { name: others, version: 1, tenant: others, on: demo.start, workflow: { name: others, version: '1' } }
  - { name: quiet, version: 1, tenant: quiet, on: demo.start, workflow: { name: quiet, version: '1' } }
";

/// Workflows of one call each, of the others and of the quiet tenant.
fn workflows(task: &str) -> [String; 2] {
    let workflow = |name: &str, path: &str| {
        format!(
            "
workflow:
  name: {name}
  version: '1'
  tasks:
    - {{ id: call, {task} timeout: 1h, http: {{ plugin: sink, path: {path} }} }}
"
        )
    };
    [workflow("others", "/hang"), workflow("quiet", "/ok")]
}

async fn start(engine: &Engine, workflows: [String; 2]) {
    engine.ready().await;
    let [others, quiet] = workflows;
    definitions::apply_yaml(engine, &[&others, &quiet], STRATEGIES).await;
}

/// Publishes so many events of a tenant, all in one message.
async fn publish(engine: &Engine, tenant: &str, events: u64) {
    let event = |id: u64| {
        json!({ "specversion": "1.0", "id": id.to_string(), "source": "/t", "type": "demo.start",
            "tenant": tenant, "data": {} })
    };
    let batch = serde_json::Value::from_iter((0..events).map(event));
    let subject = format!("fermata.events.{tenant}.demo.start");
    let publisher = &engine.ports().publisher;
    let outcome = publisher.publish(subject, None, batch.to_string().into()).await.await;
    assert!(matches!(outcome, PublishOutcome::Stored { .. }), "{outcome:?}");
}

async fn until(engine: &Engine, enough: impl Fn(&[Entry]) -> bool) -> Vec<Entry> {
    records_until(&engine.ports().reader, 2, LIMIT, enough).await
}

/// How many records a tenant has for which this holds.
fn of(records: &[Entry], tenant: &str, holds: impl Fn(&Header) -> bool) -> usize {
    let is_of = |header: &Header| header.tenant.as_ref().is_some_and(|of| of.as_str() == tenant);
    records.iter().filter(|(header, _)| is_of(header) && holds(header)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_a_quiet_tenant_ends_while_thousands_of_another_one_hang_in_the_same_plugin() {
    const HANGING: u64 = 2_000;
    let broker = TestBroker::start(Durability::Process).await;
    let sink = Sink::start().await;
    let engine = TestEngine::at(broker.url()).with_executors(sink.executors());
    let engine = engine.start(broker.folder()).await;
    start(&engine, workflows("")).await;

    publish(&engine, "others", HANGING).await;
    let ordered = |records: &[Entry]| {
        of(records, "others", |header| header.kind == Kind::NodeDispatched) as u64 == HANGING
    };
    until(&engine, ordered).await;
    // As many connections as one tenant gets; all others wait behind them.
    let connections = HttpConfig::default().connections_per_plugin_max as u64;
    sink.arrived(connections - connections / 8).await;
    publish(&engine, "quiet", 1).await;
    let ended = |records: &[Entry]| of(records, "quiet", |header| header.kind.ends_run()) == 1;
    let records = until(&engine, ended).await;

    assert_eq!(of(&records, "quiet", |header| header.kind == Kind::RunSucceeded), 1);
    assert_eq!(of(&records, "others", |header| header.kind == Kind::RunStarted) as u64, HANGING);
    let ended = of(&records, "others", |header| header.kind.ends_run());
    assert_eq!(ended, 0, "nobody let them go");
    engine.shut_down().await;
}

/// Takes every task of the queue and ends none, as workers that die at them, until each is poison.
async fn lose_workers(engine: &Engine, tasks: usize) {
    let mut queue = WorkQueue::open(&engine.ports().broker, "gpu", WAIT).await.expect("a queue");
    let mut deliveries = BTreeMap::new();
    while deliveries.len() < tasks || deliveries.values().any(|count| *count < DELIVERIES_MAX) {
        for delivery in queue.take(tasks).await.expect("tasks") {
            deliveries.insert(delivery.stream_sequence, delivery.delivered_count);
            delivery.acker.nak(Duration::ZERO).await;
        }
    }
    for delivery in queue.end().await {
        delivery.acker.nak(Duration::ZERO).await;
    }
}

/// How many dead letters there are, by tenant and reason, each message counted.
async fn dead_letters(reader: &StreamReader) -> BTreeMap<(String, String), usize> {
    let mut counted = BTreeMap::new();
    for message in audit::messages(reader, "DEAD").await {
        let letter = DeadLetter::decode(&message.payload).expect("a dead letter");
        *counted.entry((letter.tenant, letter.reason)).or_default() += 1;
    }
    counted
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_at_which_workers_die_keep_no_task_of_another_tenant_from_being_run() {
    const POISON: u64 = 20;
    let broker = TestBroker::start(Durability::Process).await;
    let sink = Sink::start().await;
    let engine = TestEngine::at(broker.url()).start(broker.folder()).await;
    start(&engine, workflows("queue: gpu,")).await;
    publish(&engine, "others", POISON).await;
    lose_workers(&engine, POISON as usize).await;
    publish(&engine, "quiet", 1).await;

    // A worker that runs one task at a time: one that hangs would be its last.
    let queues = ServedQueues { names: vec!["gpu".to_owned()], permits: 1, wait: WAIT };
    let worker = TestEngine::at(broker.url()).named("one").with_roles([]).with_queues(queues);
    let worker = worker.with_executors(sink.executors()).start(broker.folder()).await;
    let ended = |tenant: &str, records: &[Entry]| {
        of(records, tenant, |header| header.kind.ends_run()) as u64
    };
    let all =
        |records: &[Entry]| ended("quiet", records) == 1 && ended("others", records) == POISON;
    let records = until(&engine, all).await;
    worker.shut_down().await;

    assert_eq!(of(&records, "quiet", |header| header.kind == Kind::RunSucceeded), 1);
    assert_eq!(of(&records, "others", |header| header.kind == Kind::RunFailed) as u64, POISON);
    let letters = dead_letters(&engine.ports().reader).await;
    let one_each = (("others".to_owned(), "task_poisoned".to_owned()), POISON as usize);
    assert_eq!(letters, BTreeMap::from([one_each]));
    assert_eq!(sink.effects().len(), 1, "nobody ran them");
    engine.shut_down().await;
}
