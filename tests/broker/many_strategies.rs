//! More strategies than fit into one message: they are applied in several commands, projected as
//! an object, and used by whoever comes next.

use std::time::{Duration, Instant};

use fermata_actors::Engine;
use fermata_actors::definitions::{ACTIVE_KEY, OBJECTS_FOLDER, active_definitions};
use fermata_core::digest::Digest;
use fermata_core::record::Kind;
use fermata_core::strategy::StrategyDefinition;
use fermata_definitions::{Limits, read_workflow};
use fermata_jetstream::definitions_store::DefinitionsStore;
use fermata_jetstream::object_folder::ObjectFolder;
use fermata_jetstream::{Broker, ConnectOptions, Durability};
use fermata_tests::journal::{count, records_until};
use fermata_tests::{TestBroker, TestEngine, definitions, events};
use fermata_wire::projection::{Projected, StoredDefinitions};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);

const WORKFLOW: &str = "workflow: { name: noop, version: '1', tasks: [{ id: a, noop: {} }] }";

/// Strategies of one type, each for a shop of its own.
fn strategies(numbers: std::ops::Range<u64>) -> Vec<StrategyDefinition> {
    let one = |number: u64| {
        let definition = json!({
            "name": format!("orders-of-shop-{number}"), "version": 1, "tenant": "*",
            "on": "order.placed", "priority": 0, "weight": 1, "fan_out": false,
            "match": { "data": { "shop": [format!("shop-{number}")] } },
            "action": { "run": {
                "workflow": { "name": "noop", "version": "1" },
                "variables": { "order": "event.id", "number": format!("{number}") },
            } },
        });
        serde_json::from_value(definition).expect("a strategy")
    };
    numbers.map(one).collect()
}

async fn engine(broker: &TestBroker, worker: &str) -> Engine {
    let engine = TestEngine::at(broker.url()).named(worker).start(broker.folder()).await;
    engine.ready().await;
    engine
}

async fn apply(engine: &Engine, numbers: std::ops::Range<u64>) -> u64 {
    let plan = read_workflow(WORKFLOW, None, &Limits::WRITTEN).expect("a sound workflow");
    definitions::apply(engine, vec![plan.into_plan()], strategies(numbers)).await
}

/// An order of a shop starts its run, the `started`th.
async fn order(engine: &Engine, id: u64, shop: u64, started: usize) {
    let event = events::event_with("order.placed", id, &json!({ "shop": format!("shop-{shop}") }));
    events::publish_raw(&engine.ports().publisher, "order.placed", event).await;
    let reader = &engine.ports().reader;
    records_until(reader, 2, LIMIT, |records| count(records, Kind::RunSucceeded) == started).await;
}

/// What the projected message names.
async fn pointer(engine: &Engine) -> StoredDefinitions {
    pointer_in(&engine.ports().store).await
}

async fn pointer_in(store: &DefinitionsStore) -> StoredDefinitions {
    let found = store.get(ACTIVE_KEY).await.expect("an answer");
    match Projected::decode(&found.expect("a projection").value).expect("a message") {
        Projected::Stored(stored) => stored,
        Projected::Whole(definitions) => panic!("revision {} is whole", definitions.revision),
    }
}

fn objects(engine: &Engine) -> ObjectFolder {
    engine.ports().store.folder(OBJECTS_FOLDER)
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("{what}, in time"));
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_strategies_start_runs_and_so_do_they_after_a_takeover() {
    let broker = TestBroker::start(Durability::Process).await;
    let first = engine(&broker, "w-1").await;

    let began = Instant::now();
    let revision = apply(&first, 0..10_000).await;
    eprintln!("10,000 strategies were applied in {revision} commands in {:?}", began.elapsed());
    assert!(revision > 3, "{revision} commands");
    order(&first, 1, 9_999, 1).await;
    assert_eq!(pointer(&first).await.revision, revision);
    let began = Instant::now();
    assert_eq!(apply(&first, 10_000..10_001).await, revision + 1);
    eprintln!("one more was applied and used in {:?}", began.elapsed());
    first.shut_down().await;

    let began = Instant::now();
    let second = engine(&broker, "w-2").await;
    eprintln!("the next worker was ready in {:?}", began.elapsed());
    order(&second, 2, 9_999, 2).await;
    let revision = apply(&second, 10_001..10_002).await;
    order(&second, 3, 10_001, 3).await;

    let active = active_definitions(&second.ports().store).await.expect("what is active");
    assert_eq!((active.revision, active.strategies.len()), (revision, 10_002));
    until("superseded objects are removed", async || {
        objects(&second).list().await.expect("a list").len() == 2
    })
    .await;
    assert!(objects(&second).is_whole(&pointer(&second).await.name()).await.expect("an answer"));
    second.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_an_object_is_gone_or_damaged_the_old_set_decides_until_it_is_stored_again() {
    let broker = TestBroker::start(Durability::Process).await;
    let first = engine(&broker, "w-1").await;
    let revision = apply(&first, 0..4_000).await;
    let (stored, objects) = (pointer(&first).await, objects(&first));
    let sound = objects.get(&stored.name()).await.expect("an answer").expect("an object");

    // One that names an object which was never there.
    let mut message = first.ports().store.get(ACTIVE_KEY).await.unwrap().unwrap().value.to_vec();
    let digest = stored.digest.0;
    let at = message.windows(digest.len()).position(|bytes| bytes == digest);
    message[at.expect("the digest is in the message")] ^= 1;
    first.ports().store.put(ACTIVE_KEY, message.into()).await.expect("a stored message");
    order(&first, 1, 3_999, 1).await;
    until("the message is projected again", async || {
        let found = first.ports().store.get(ACTIVE_KEY).await.expect("an answer");
        Projected::decode(&found.expect("a message").value)
            .is_ok_and(|found| matches!(found, Projected::Stored(found) if found == stored))
    })
    .await;

    objects.remove(&stored.name()).await.expect("removed");
    order(&first, 2, 3_999, 2).await;
    until("what was removed is stored again", async || {
        objects.is_whole(&stored.name()).await.expect("an answer")
    })
    .await;

    // Whoever comes next has no older set, and waits.
    let garbage = fermata_jetstream::Bytes::from(vec![7; sound.len()]);
    objects.put(&stored.name(), &garbage).await.expect("stored");
    order(&first, 3, 3_999, 3).await;
    let second = engine(&broker, "w-2").await;
    assert_eq!(second.ports().definitions.borrow().revision, revision);
    let again = objects.get(&stored.name()).await.expect("an answer").expect("an object");
    assert_eq!(Digest::of(&again), stored.digest);
    assert_eq!(first.ports().definitions.borrow().revision, revision);
    second.shut_down().await;
    first.shut_down().await;
}

/// Steps of a projection after which its owner is killed.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The first command is on its way.
    Asked,
    /// An object is stored, and its message perhaps not yet.
    Stored,
    /// The message names it.
    Named,
}

async fn next_owner_projects_what_one_left_that_was_killed_after(step: Step) {
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
        apply(&engine, 0..4_000).await;
        engine
    });
    let first = first.await.expect("an engine");
    let connection = Broker::connect(&broker.url(), ConnectOptions::default()).await;
    let store = DefinitionsStore::open(&connection.expect("a connection")).await.expect("a store");
    let objects_then = store.folder(OBJECTS_FOLDER);
    let before = pointer_in(&store).await;
    mortal.spawn(async move { apply(&first, 4_000..4_100).await });
    match step {
        Step::Asked => {}
        Step::Stored => {
            // Without a pause: the message follows within a millisecond or two.
            let stored = async {
                loop {
                    let names = objects_then.list().await.expect("a list");
                    if names.last().is_some_and(|name| *name > before.name()) {
                        break;
                    }
                }
            };
            tokio::time::timeout(LIMIT, stored).await.expect("an object is stored, in time");
        }
        Step::Named => {
            until("it is named", async || pointer_in(&store).await.revision > before.revision)
                .await;
        }
    }
    mortal.shutdown_background();
    let named = pointer_in(&store).await.revision;
    eprintln!("killed after {step:?} of {}, with {named} named", before.revision + 1);

    let second = engine(&broker, "w-2").await;
    order(&second, 1, 3_999, 1).await;
    let revision = apply(&second, 4_000..4_100).await;
    order(&second, 2, 4_099, 2).await;

    let active = active_definitions(&second.ports().store).await.expect("what is active");
    assert_eq!((active.revision, active.strategies.len()), (revision, 4_100), "{step:?}");
    until("superseded objects are removed", async || {
        objects(&second).list().await.expect("a list").len() == 2
    })
    .await;
    second.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_is_killed_while_it_projects_leaves_nothing_that_the_next_cannot_mend() {
    let killed_after = next_owner_projects_what_one_left_that_was_killed_after;
    tokio::join!(killed_after(Step::Asked), killed_after(Step::Stored), killed_after(Step::Named));
}
