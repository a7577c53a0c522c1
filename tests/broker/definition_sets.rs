//! Sets of definitions that follow one another: what is refused changes nothing, each event is
//! decided by one whole set, runs end by the plan that they began with, and what is retired is
//! gone for the next events alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fermata_actors::Engine;
use fermata_core::digest::Digest;
use fermata_core::identity::RunId;
use fermata_core::record::{Body, Kind};
use fermata_jetstream::{Durability, StreamReader};
use fermata_tests::invariants::invariant_each_run_ends_once;
use fermata_tests::journal::{Entry, count, of_run, records_until};
use fermata_tests::{TestBroker, TestEngine, definitions, events};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(45);

/// A run that stays open until its order is paid.
const FIRST: &str = "
workflow:
  name: order
  version: '1'
  tasks:
    - { id: paid, wait: { event: order.paid, correlation: input.order, timeout: 1h } }
    - { id: told, depends_on: [paid], transform: \"'by the first'\" }
";

/// The next version, of other nodes.
const SECOND: &str = "
workflow:
  name: order
  version: '2'
  tasks:
    - { id: paid, wait: { event: order.paid, correlation: input.order, timeout: 1h } }
    - { id: checked, depends_on: [paid], noop: {} }
    - { id: told, depends_on: [checked], transform: \"'by the second'\" }
";

fn strategy(version: u32, workflow: &str) -> String {
    format!(
        "
strategies:
  - name: order
    version: {version}
    tenant: '*'
    on: order.placed
    variables: {{ order: event.data.order }}
    workflow: {{ name: order, version: '{workflow}' }}
"
    )
}

async fn engine(broker: &TestBroker) -> Engine {
    let engine = TestEngine::at(broker.url()).start(broker.folder()).await;
    engine.ready().await;
    engine
}

async fn place(engine: &Engine, id: u64) {
    let event = events::event_with("order.placed", id, &json!({ "order": id.to_string() }));
    events::publish_raw(&engine.ports().publisher, "order.placed", event).await;
}

async fn pay(engine: &Engine, order: u64) {
    let event = events::event_with("order.paid", 1_000 + order, &json!({}));
    let mut event: Value = serde_json::from_slice(&event).expect("JSON");
    event["correlationkey"] = order.to_string().into();
    let event = event.to_string().into();
    events::publish_raw(&engine.ports().publisher, "order.paid", event).await;
}

async fn until(reader: &StreamReader, kind: Kind, number: usize) -> Vec<Entry> {
    records_until(reader, 2, LIMIT, |records| count(records, kind) >= number).await
}

/// Version of the strategy, plan, and run that each event began.
fn begun(records: &[Entry]) -> Vec<(u64, u32, Digest, RunId)> {
    let begun = records.iter().filter_map(|(header, record)| match &record.body {
        Body::RunStarted(started) => {
            let id = started.event.id.parse().expect("a number");
            Some((id, started.strategy_version, started.plan, header.run?))
        }
        _ => None,
    });
    begun.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn open_runs_end_by_their_own_plan_over_an_upgrade_a_kill_and_a_roll_back() {
    let broker = TestBroker::start(Durability::Process).await;
    let mortal = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let (url, folder) = (broker.url(), broker.folder().to_owned());
    let first = mortal.spawn(async move {
        let engine = TestEngine::at(url).named("killed").start(&folder).await;
        engine.ready().await;
        engine
    });
    let first = first.await.expect("an engine");
    definitions::apply_yaml(&first, &[FIRST], &strategy(1, "1")).await;
    for id in 1..=3 {
        place(&first, id).await;
    }
    until(&first.ports().reader, Kind::RunStarted, 3).await;
    definitions::apply_yaml(&first, &[SECOND], &strategy(2, "2")).await;
    for id in 4..=6 {
        place(&first, id).await;
    }
    until(&first.ports().reader, Kind::RunStarted, 6).await;
    mortal.shutdown_background();
    drop(first);

    let second = engine(&broker).await;
    // Rolled back: the content of the first version under the next name.
    let third = FIRST.replace("version: '1'", "version: '3'");
    definitions::apply_yaml(&second, &[&third], &strategy(3, "3")).await;
    for id in 7..=9 {
        place(&second, id).await;
    }
    let reader = &second.ports().reader;
    until(reader, Kind::RunStarted, 9).await;
    // Mixed, so that no version's runs end together.
    for order in [1, 4, 7, 8, 5, 2, 3, 6, 9] {
        pay(&second, order).await;
    }
    let records = until(reader, Kind::RunSucceeded, 9).await;

    assert_eq!(invariant_each_run_ends_once(&records), Vec::<String>::new());
    let mut plans: BTreeMap<u32, BTreeSet<Digest>> = BTreeMap::new();
    let runs = begun(&records);
    assert_eq!(runs.len(), 9);
    for (event, version, plan, run) in runs {
        assert_eq!(u64::from(version), event.div_ceil(3), "event {event}");
        plans.entry(version).or_default().insert(plan);
        let ended: Vec<(String, Value)> = of_run(&records, run)
            .into_iter()
            .filter_map(|(header, record)| match &record.body {
                Body::NodeSucceeded(succeeded) => {
                    Some((header.node.as_deref()?.to_owned(), succeeded.output.parse()))
                }
                _ => None,
            })
            .collect();
        let nodes: Vec<&str> = ended.iter().map(|(node, _)| node.as_str()).collect();
        let told = ended.last().map(|(_, output)| output.clone());
        match version {
            2 => {
                assert_eq!(nodes, ["paid", "checked", "told"], "event {event}");
                assert_eq!(told, Some(json!("by the second")));
            }
            _ => {
                assert_eq!(nodes, ["paid", "told"], "event {event}");
                assert_eq!(told, Some(json!("by the first")));
            }
        }
    }
    let all: BTreeSet<_> = plans.values().flatten().collect();
    assert!(plans.values().all(|of_version| of_version.len() == 1) && all.len() == 3, "{plans:?}");
    second.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retired_strategy_starts_nothing_more_its_runs_go_on_and_a_higher_version_is_back() {
    let broker = TestBroker::start(Durability::Process).await;
    let engine = engine(&broker).await;
    definitions::apply_yaml(&engine, &[FIRST], &strategy(1, "1")).await;
    let reader = &engine.ports().reader;
    place(&engine, 1).await;
    until(reader, Kind::RunStarted, 1).await;

    let unknown = definitions::retire(&engine, &["order", "nobody"]).await;
    assert!(unknown.len() == 1 && unknown[0].contains("no strategy `nobody`"), "{unknown:?}");
    place(&engine, 2).await;
    until(reader, Kind::RunStarted, 2).await;
    for _ in 0..2 {
        assert_eq!(definitions::retire(&engine, &["order"]).await, Vec::<String>::new());
    }
    place(&engine, 3).await;
    until(reader, Kind::EventUnmatched, 1).await;
    pay(&engine, 1).await;
    pay(&engine, 2).await;
    let records = until(reader, Kind::RunSucceeded, 2).await;
    assert_eq!(count(&records, Kind::RunStarted), 2);

    // It is known to the engine that comes next, too.
    engine.shut_down().await;
    let engine = self::engine(&broker).await;
    let same = definitions::offer_yaml(&engine, &strategy(1, "1")).await;
    assert!(same.len() == 1 && same[0].contains("retired in version 1"), "{same:?}");
    assert_eq!(definitions::offer_yaml(&engine, &strategy(2, "1")).await, Vec::<String>::new());
    place(&engine, 4).await;
    let records = until(&engine.ports().reader, Kind::RunStarted, 3).await;
    let last = begun(&records).into_iter().find(|(event, ..)| *event == 4);
    assert_eq!(last.map(|(_, version, ..)| version), Some(2));
    engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_is_refused_changes_nothing_and_the_old_one_still_decides() {
    let broker = TestBroker::start(Durability::Process).await;
    let engine = engine(&broker).await;
    definitions::apply_yaml(&engine, &[FIRST], &strategy(2, "1")).await;

    let fine = "
  - { name: fine, version: 1, tenant: '*', on: order.tried, workflow: { name: order, version: '1' }, variables: { order: event.id } }
";
    for (set, problem) in [
        (strategy(1, "1"), "version 1 is older"),
        (strategy(2, "1").replace("order.placed", "order.other"), "another content"),
        (strategy(3, "9"), "workflow `order` version `9`, which is not defined"),
    ] {
        // What is sound in it is refused with it.
        let problems = definitions::offer_yaml(&engine, &format!("{set}{fine}")).await;
        assert!(problems.len() == 1 && problems[0].contains(problem), "{problems:?}");
    }
    // Each half is cheap, together they are not.
    let costly = |from: u32| {
        let one = |at| {
            format!(
                "
  - {{ name: costly-{at}, version: 1, tenant: '*', on: order.costly, when: event.data.n > {at}, action: ignore }}"
            )
        };
        format!("strategies:{}", (from..from + 35).map(one).collect::<String>())
    };
    assert_eq!(definitions::offer_yaml(&engine, &costly(0)).await, Vec::<String>::new());
    let problems = definitions::offer_yaml(&engine, &costly(35)).await;
    assert!(problems[0].contains("they score 4480"), "{problems:?}");

    place(&engine, 1).await;
    let tried = events::event("order.tried", 2);
    events::publish_raw(&engine.ports().publisher, "order.tried", tried).await;
    let records = records_until(&engine.ports().reader, 2, LIMIT, |records| {
        count(records, Kind::RunStarted) == 1 && count(records, Kind::EventUnmatched) == 1
    })
    .await;
    let versions: Vec<_> =
        begun(&records).iter().map(|(id, version, ..)| (*id, *version)).collect();
    assert_eq!(versions, [(1, 2)]);
    engine.shut_down().await;
}

const NOOP: &str = "workflow: { name: noop, version: '1', tasks: [{ id: a, noop: {} }] }";

/// Two strategies that every event meets, of one version.
fn pair(version: u32) -> String {
    let one = |name| {
        format!(
            "
  - {{ name: {name}, version: {version}, tenant: '*', on: demo.start, fan_out: true, workflow: {{ name: noop, version: '1' }} }}"
        )
    };
    format!("strategies:{}{}", one("left"), one("right"))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_is_decided_by_one_whole_set_while_sets_are_applied() {
    const SETS: u32 = 12;
    let broker = TestBroker::start(Durability::Process).await;
    let engine = engine(&broker).await;
    definitions::apply_yaml(&engine, &[NOOP], &pair(1)).await;
    let ended = Arc::new(AtomicBool::new(false));
    let publishing = tokio::spawn({
        let (ended, publisher) = (ended.clone(), engine.ports().publisher.clone());
        async move {
            let mut published = 0;
            while !ended.load(Ordering::Relaxed) {
                published += 1;
                events::publish(&publisher, "demo.start", published).await;
            }
            published
        }
    });
    for version in 2..=SETS {
        assert_eq!(definitions::offer_yaml(&engine, &pair(version)).await, Vec::<String>::new());
    }
    ended.store(true, Ordering::Relaxed);
    let published = publishing.await.expect("a publisher");

    let wanted = usize::try_from(published).expect("few") * 2;
    let records = until(&engine.ports().reader, Kind::RunStarted, wanted).await;
    let mut versions: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    for (event, version, ..) in begun(&records) {
        versions.entry(event).or_default().push(version);
    }
    assert_eq!(versions.len(), wanted / 2);
    let torn = versions.iter().find(|(_, of)| of.len() != 2 || of[0] != of[1]);
    assert_eq!(torn, None, "an event met a part of one set and a part of another");
    let met: BTreeSet<u32> = versions.values().flatten().copied().collect();
    assert!(met.len() > 2, "sets were applied while events were decided: {met:?}");
    engine.shut_down().await;
}
