//! Tasks that wait for an event by its type and correlation key, across
//! partitions and across the end of an engine.

use std::time::Duration;

use bytes::Bytes;
use fermata_actors::Engine;
use fermata_core::identity::RunId;
use fermata_core::record::{Body, Kind};
use fermata_jetstream::{Durability, StreamReader};
use fermata_tests::invariants::invariant_each_run_ends_once;
use fermata_tests::journal::{Entry, count, kinds_of, records_until};
use fermata_tests::{TestBroker, TestEngine, definitions, events};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// Runs, keys and events live in both.
const PARTITIONS: u16 = 2;

/// Waits for a payment of the order, and passes on what came.
const WORKFLOW: &str = "
workflow:
  name: order
  version: '1'
  tasks:
    - id: paid
      wait: { event: order.paid, correlation: input.order, timeout: 1h }
    - id: amount
      depends_on: [paid]
      transform: tasks.paid.output.data.amount
";

const IMPATIENT: &str = "
workflow:
  name: impatient
  version: '1'
  tasks:
    - { id: paid, wait: { event: order.paid, correlation: input.order, timeout: 200ms } }
";

const STRATEGIES: &str = "
strategies:
  - name: order
    version: 1
    tenant: '*'
    on: order.placed
    variables: { order: event.data.order }
    workflow: { name: order, version: '1' }
  - name: impatient
    version: 1
    tenant: '*'
    on: order.tried
    variables: { order: event.data.order }
    workflow: { name: impatient, version: '1' }
";

async fn engine(broker: &TestBroker) -> Engine {
    let engine = TestEngine::at(broker.url()).start(broker.folder()).await;
    engine.ready().await;
    engine
}

async fn engine_with_definitions(broker: &TestBroker) -> Engine {
    let engine = engine(broker).await;
    definitions::apply_yaml(&engine, &[WORKFLOW, IMPATIENT], STRATEGIES).await;
    engine
}

async fn place(engine: &Engine, kind: &str, id: u64, order: &str) {
    let event = events::event_with(kind, id, &json!({ "order": order }));
    events::publish_raw(&engine.ports().publisher, kind, event).await;
}

/// A payment as a user publishes it: the correlation key is an attribute.
fn payment(id: u64, order: &str) -> Bytes {
    let event = events::event_with("order.paid", id, &json!({ "amount": id }));
    let mut event: Value = serde_json::from_slice(&event).expect("JSON");
    event["correlationkey"] = order.into();
    event.to_string().into()
}

async fn pay(engine: &Engine, id: u64, order: &str) {
    events::publish_raw(&engine.ports().publisher, "order.paid", payment(id, order)).await;
}

async fn until(reader: &StreamReader, enough: impl Fn(&[Entry]) -> bool) -> Vec<Entry> {
    records_until(reader, PARTITIONS, LIMIT, enough).await
}

/// Runs that were started, and what their waits brought.
fn outputs(records: &[Entry]) -> Vec<(RunId, Value)> {
    let outputs = records.iter().filter_map(|(header, record)| {
        let Body::NodeSucceeded(succeeded) = &record.body else { return None };
        let waited = header.node.as_deref() == Some("paid");
        waited.then(|| Some((header.run?, succeeded.output.parse()))).flatten()
    });
    outputs.collect()
}

fn check(records: &[Entry]) {
    assert_eq!(invariant_each_run_ends_once(records), Vec::<String>::new());
    assert_eq!(count(records, Kind::CommandPoisoned), 0);
    let (queued, taken) = (count(records, Kind::OutboxQueued), count(records, Kind::RelayTaken));
    assert_eq!(queued, taken, "every relayed command is decided once");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_find_the_runs_that_wait_for_them_whichever_comes_first() {
    const ORDERS: u64 = 12;
    let broker = TestBroker::start(Durability::Process).await;
    let engine = engine_with_definitions(&broker).await;
    let reader = engine.ports().reader.clone();
    for order in 0..ORDERS / 2 {
        place(&engine, "order.placed", order, &format!("o-{order}")).await;
    }
    for order in ORDERS / 2..ORDERS {
        pay(&engine, 100 + order, &format!("o-{order}")).await;
    }
    // Half of the runs wait for their event, half of the events for their run.
    let half = usize::try_from(ORDERS / 2).expect("small");
    until(&reader, |records| {
        count(records, Kind::WaitSubscribed) == half && count(records, Kind::SignalKept) == half
    })
    .await;

    for order in 0..ORDERS / 2 {
        pay(&engine, 100 + order, &format!("o-{order}")).await;
    }
    for order in ORDERS / 2..ORDERS {
        place(&engine, "order.placed", order, &format!("o-{order}")).await;
    }
    let all = usize::try_from(ORDERS).expect("small");
    let records = until(&reader, |records| {
        count(records, Kind::RunSucceeded) == all
            && count(records, Kind::OutboxQueued) == count(records, Kind::RelayTaken)
    })
    .await;

    check(&records);
    assert_eq!(count(&records, Kind::WaitMatched), all, "each wait is resumed once");
    let mut amounts = outputs(&records)
        .into_iter()
        .map(|(_, output)| {
            assert_eq!((&output["type"], &output["source"]), (&json!("order.paid"), &json!("/t")));
            assert_eq!(output["id"], json!(output["data"]["amount"].to_string()));
            output["data"]["amount"].as_u64().expect("a number")
        })
        .collect::<Vec<_>>();
    amounts.sort_unstable();
    assert_eq!(amounts, (100..100 + ORDERS).collect::<Vec<_>>());
    let elsewhere = records.iter().any(|(_, record)| {
        matches!(&record.body, Body::WaitSubscribed(wait) if wait.waiter.run.partition().0 > 0)
    });
    assert!(elsewhere, "runs live in several partitions");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_when_its_time_is_over_and_a_later_event_resumes_nobody() {
    let broker = TestBroker::start(Durability::Process).await;
    let engine = engine_with_definitions(&broker).await;
    let reader = engine.ports().reader.clone();

    place(&engine, "order.tried", 1, "o-1").await;
    let records = until(&reader, |records| {
        count(records, Kind::RunFailed) == 1 && count(records, Kind::WaitClosed) == 1
    })
    .await;
    let timed_out = records.iter().any(|(_, record)| {
        matches!(&record.body, Body::NodeFailed(failed) if failed.class.as_str() == "timeout")
    });
    assert!(timed_out, "{:?}", kinds_of(&records, records_run(&records)));

    pay(&engine, 2, "o-1").await;
    let records = until(&reader, |records| count(records, Kind::SignalKept) == 1).await;
    check(&records);
    assert_eq!(count(&records, Kind::WaitMatched), 0);
}

fn records_run(records: &[Entry]) -> RunId {
    fermata_tests::journal::run_of(records, Kind::RunStarted).expect("a run")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_starts_again_goes_on_waiting_and_resumes_each_run_once() {
    const ORDERS: u64 = 6;
    let all = usize::try_from(ORDERS).expect("small");
    let broker = TestBroker::start(Durability::Process).await;
    let first = engine_with_definitions(&broker).await;
    let reader = first.ports().reader.clone();
    for order in 0..ORDERS {
        place(&first, "order.placed", order, &format!("o-{order}")).await;
    }
    // The engine ends wherever it stands: subscriptions may be under way.
    until(&reader, |records| count(records, Kind::NodeWaiting) == all).await;
    first.shut_down().await;

    let second = engine(&broker).await;
    for order in 0..ORDERS {
        pay(&second, 100 + order, &format!("o-{order}")).await;
    }
    // Some signals may be decided, and nobody resumed.
    let reader = second.ports().reader.clone();
    until(&reader, |records| count(records, Kind::EventSignalled) == all).await;
    second.shut_down().await;

    let third = engine(&broker).await;
    let reader = third.ports().reader.clone();
    let records = until(&reader, |records| {
        count(records, Kind::RunSucceeded) == all
            && count(records, Kind::OutboxQueued) == count(records, Kind::RelayTaken)
    })
    .await;
    check(&records);
    assert_eq!(count(&records, Kind::WaitMatched), all);
    assert_eq!(outputs(&records).len(), all, "each wait ends once");
    assert_eq!(count(&records, Kind::EffectLate), 0);
}
