//! Several workers on one broker: roles apart, partitions shared, and what a
//! worker that comes back finds.

use std::time::Duration;

use bytes::Bytes;
use fermata_actors::Role;
use fermata_actors::readiness::{Awaited, NotReady};
use fermata_core::identity::{PartitionId, SourcePosition};
use fermata_core::record::Kind;
use fermata_jetstream::topology::LEASE_TTL;
use fermata_jetstream::{
    Broker, ConnectOptions, Durability, PublishOutcome, Publisher, PublisherOptions, Topology,
};
use fermata_tests::engine::{all_owned, owned_by};
use fermata_tests::invariants::{
    invariant_each_event_has_one_outcome, invariant_each_run_ends_once, invariant_epochs_rise,
};
use fermata_tests::journal::{count, records, records_until, tally};
use fermata_tests::{TestBroker, TestEngine, definitions, events, garbage};

const LIMIT: Duration = Duration::from_secs(60);

/// What a worker had been sent when it left comes again after the broker's wait
/// for an acknowledgement, 30 s. It gives back what it can, so this is rare.
const REDELIVERED: Duration = Duration::from_secs(45);

const WORKFLOW: &str = "
workflow:
  name: two-noops
  version: '1'
  tasks:
    - { id: a, noop: {} }
    - { id: b, depends_on: [a], noop: {} }
";

const STRATEGIES: &str = "
strategies:
  - { name: start, version: 1, tenant: '*', on: demo.start, workflow: { name: two-noops, version: '1' } }
  - { name: ignore, version: 1, tenant: '*', on: demo.ignore, action: ignore }
";

/// What a user publishes, and what must come of it.
const LOAD: [(&str, u64); 6] = [
    ("demo.start", 1),
    ("demo.start", 1),
    ("demo.ignore", 2),
    ("demo.unknown", 3),
    ("demo.start", 4),
    ("demo.start", 4),
];

async fn outcomes(engines: &[&fermata_actors::Engine]) -> Vec<(&'static str, usize)> {
    let engine = engines[0];
    definitions::apply_yaml(engine, &[WORKFLOW], STRATEGIES).await;
    // The one that matches is another, and has them a moment later.
    for engine in engines {
        engine.ready().await;
    }
    let publisher = &engine.ports().publisher;
    for (kind, id) in LOAD {
        events::publish(publisher, kind, id).await;
    }
    events::publish_raw(publisher, "demo.start", "{".into()).await;
    let found = records_until(&engine.ports().reader, 2, LIMIT, |records| {
        count(records, Kind::RunSucceeded) == 2
            && count(records, Kind::CaseNotified) == 1
            && count(records, Kind::EventRejected) == 1
            && count(records, Kind::EventRepeated) == 2
            && count(records, Kind::EventIgnored) == 1
    })
    .await;
    let mut tally = tally(&found);
    // How often a partition was taken over is not an outcome.
    tally.remove("partition.owned");
    tally.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_in_processes_of_their_own_come_to_the_same_outcomes_as_fused() {
    let (fused, apart) = (
        TestBroker::start(Durability::Process).await,
        TestBroker::start(Durability::Process).await,
    );
    let one = TestEngine::at(fused.url()).start(fused.folder()).await;
    one.ready().await;
    let mut workers = Vec::new();
    for (role, name) in [
        (Role::Coordinator, "coordinator"),
        (Role::Builder, "builder"),
        (Role::Matcher, "matcher"),
        (Role::Listener, "listener"),
    ] {
        let worker = TestEngine::at(apart.url()).named(name).with_roles([role]);
        workers.push(worker.start(apart.folder()).await);
    }
    workers[0].ready().await;
    let workers = workers.iter().collect::<Vec<_>>();

    assert_eq!(outcomes(&workers).await, outcomes(&[&one]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_starts_again_knows_repeats_and_absorbs_redeliveries() {
    let broker = TestBroker::start(Durability::Process).await;
    let first = TestEngine::at(broker.url()).start(broker.folder()).await;
    first.ready().await;
    definitions::apply_yaml(&first, &[WORKFLOW], STRATEGIES).await;
    events::publish(&first.ports().publisher, "demo.start", 1).await;
    let reader = first.ports().reader.clone();
    records_until(&reader, 2, LIMIT, |records| count(records, Kind::RunSucceeded) == 1).await;
    // The message with the event's command, as a redelivery would publish it.
    let mut redelivered = Vec::new();
    for partition in [PartitionId(0), PartitionId(1)] {
        let stream = format!("COMMANDS_{partition}");
        let messages = fermata_tests::audit::messages(&reader, &stream).await;
        redelivered.extend(messages.into_iter().map(|message| (message.subject, message.payload)));
    }
    first.shut_down().await;

    let second = TestEngine::at(broker.url()).start(broker.folder()).await;
    second.ready().await;
    let publisher = &second.ports().publisher;
    for (subject, payload) in redelivered {
        let _ = publisher.publish(subject, None, payload).await.await;
    }
    events::publish(publisher, "demo.start", 1).await;
    events::publish(publisher, "demo.start", 2).await;
    let reader = &second.ports().reader;
    let found = records_until(reader, 2, LIMIT, |records| {
        count(records, Kind::RunSucceeded) == 2 && count(records, Kind::EventRepeated) == 1
    })
    .await;

    assert_eq!(count(&found, Kind::EventStarted), 2);
    assert_eq!(count(&found, Kind::RunStarted), 2);
    second.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_shared_and_the_rest_is_taken_over_from_a_worker_that_leaves() {
    let broker = TestBroker::start(Durability::Process).await;
    let start = |name| TestEngine { partitions: 8, ..TestEngine::at(broker.url()).named(name) };
    let one = start("w-1").start(broker.folder()).await;
    all_owned(&[&one], 9).await;
    definitions::apply_yaml(&one, &[WORKFLOW], STRATEGIES).await;
    let publisher = one.ports().publisher.clone();
    let mut accepted = Vec::new();
    for id in 0..50 {
        accepted.push(events::publish(&publisher, "demo.start", id).await);
    }

    let two = start("w-2").start(broker.folder()).await;
    // Both own some, all are owned: the one gives back, the other takes over.
    let shared = async {
        loop {
            let (by_one, by_two) = (owned_by(&one).await, owned_by(&two).await);
            if by_one > 0 && by_two > 0 && by_one + by_two == 9 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, shared).await.expect("shared partitions in time");
    for id in 50..100 {
        accepted.push(events::publish(&publisher, "demo.start", id).await);
    }
    one.shut_down().await;
    all_owned(&[&two], 9).await;
    for id in 100..150 {
        accepted.push(events::publish(&two.ports().publisher, "demo.start", id).await);
    }
    let reader = &two.ports().reader;
    let found =
        records_until(reader, 8, REDELIVERED, |records| count(records, Kind::RunSucceeded) == 150)
            .await;

    let accepted = accepted.into_iter().map(|sequence| SourcePosition { sequence, index: 0 });
    assert_eq!(invariant_each_event_has_one_outcome(&found, accepted), [""; 0]);
    assert_eq!(invariant_each_run_ends_once(&found), [""; 0]);
    for partition in (0..8).map(PartitionId).chain([PartitionId::CONTROL]) {
        let records = records(reader, partition).await;
        assert_eq!(invariant_epochs_rise(&records), [""; 0]);
    }
    two.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_side_by_side_are_ready_whoever_owns_the_partitions() {
    let broker = TestBroker::start(Durability::Process).await;
    let apart = TestEngine::at(broker.url()).named("listener").with_roles([Role::Listener]);
    let listener = apart.start(broker.folder()).await;
    let alone = listener.ready_within(Duration::from_millis(500)).await.expect_err("alone");
    assert_eq!(
        alone.to_string(),
        "not ready within 500ms: no live worker holds partition control, 0, 1"
    );

    let one = TestEngine::at(broker.url()).start(broker.folder()).await;
    one.ready_within(LIMIT).await.expect("owns all");
    definitions::apply_yaml(&one, &[WORKFLOW], STRATEGIES).await;
    let two = TestEngine::at(broker.url()).named("w-2").start(broker.folder()).await;

    two.ready_within(LIMIT).await.expect("owns what the first has left");
    listener.ready_within(LIMIT).await.expect("owns nothing");
    for engine in [&one, &two, &listener] {
        assert!(engine.ports().definitions.borrow().workflow("two-noops", "1").is_some());
    }
    one.shut_down().await;
    two.ready_within(LIMIT * 2).await.expect("owns all");
    assert_eq!(owned_by(&two).await, 3);
    two.shut_down().await;
    let none = listener.ready_within(Duration::from_millis(500)).await;
    assert!(matches!(none, Err(NotReady::Waiting { awaited: Awaited::Owners(_), .. })), "{none:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_among_leases_and_before_the_configuration_keeps_no_partition_from_its_owner() {
    let broker = TestBroker::start(Durability::Process).await;
    let client = Broker::connect(&broker.url(), ConnectOptions::default()).await;
    let client = client.expect("a connection");
    let publisher = Publisher::new(&client, PublisherOptions::default()).await;
    let publisher = publisher.expect("a publisher");
    let put = async |subject: &str, bytes: Bytes| {
        let outcome = publisher.publish(subject.to_owned(), None, bytes).await.await;
        assert!(matches!(outcome, PublishOutcome::Stored { .. }), "{subject}: {outcome:?}");
    };
    Topology::default().apply_config(&client, None).await.expect("a stream");
    put("fermata.config", garbage::noise(1, 300)).await;
    let engine = TestEngine::at(broker.url()).start(broker.folder()).await;
    engine.ready_within(LIMIT).await.expect("ready");
    definitions::apply_yaml(&engine, &[WORKFLOW], STRATEGIES).await;

    put("fermata.config", garbage::depth_bomb()).await;
    for key in ["partition.0", "partition.1", "partition.control", "worker.w-1", "another"] {
        put(&format!("$KV.fermata-leases.{key}"), garbage::noise(2, 300)).await;
    }
    for phantom in 0..20 {
        // Rendezvous hashing would prefer one of these to the one who lives.
        put(&format!("$KV.fermata-leases.worker.phantom-{phantom}"), Bytes::new()).await;
    }

    // Sooner than the garbage would have run out.
    let leases = &engine.ports().leases;
    let repaired = async {
        loop {
            let held = leases.held().await.expect("leases");
            if held.workers == ["w-1"] && held.leases.len() == 4 {
                return held;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let held = tokio::time::timeout(LEASE_TTL - Duration::from_secs(2), repaired).await;
    let held = held.expect("repaired in time");
    assert!(held.leases.values().all(|lease| lease.worker() == Some("w-1")), "{held:?}");
    engine.ready_within(LIMIT).await.expect("ready");
    for id in 0..10 {
        events::publish(&engine.ports().publisher, "demo.start", id).await;
    }
    let reader = &engine.ports().reader;
    records_until(reader, 2, LIMIT, |records| count(records, Kind::RunSucceeded) == 10).await;
    engine.shut_down().await;

    let next = TestEngine::at(broker.url()).named("w-2").start(broker.folder()).await;
    next.ready_within(LIMIT).await.expect("agrees on the configuration that is there");
    next.shut_down().await;
}
