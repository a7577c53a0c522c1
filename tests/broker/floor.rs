//! The floor of events, by which partitions tell redeliveries: it rises however
//! the stages run, and never over an event that somebody still holds.

use std::time::{Duration, Instant};

use fermata_actors::floor::FLOOR_INTERVAL;
use fermata_actors::listener::LISTENER_CONSUMER;
use fermata_actors::matcher::MATCHER_CONSUMER;
use fermata_actors::{Engine, Role};
use fermata_core::identity::{PartitionId, SourcePosition};
use fermata_core::record::Kind;
use fermata_jetstream::progress::shared_progress;
use fermata_jetstream::topology::{ADMITTED_STREAM, EVENTS_STREAM};
use fermata_jetstream::{
    Broker, ConnectOptions, Delivery, Durability, SharedConsumer, SharedConsumerOptions,
    StreamReader,
};
use fermata_partition::fold::{Decoded, decode};
use fermata_tests::engine::start_apart;
use fermata_tests::invariants::{
    invariant_each_event_has_one_outcome, invariant_each_run_ends_once,
};
use fermata_tests::journal::{JournalWatch, count, records_until};
use fermata_tests::{TestBroker, TestEngine, definitions, events};

const LIMIT: Duration = Duration::from_secs(60);

const WORKFLOW: &str = "
workflow: { name: one, version: '1', tasks: [{ id: a, noop: {} }] }
";
const STRATEGIES: &str = "
strategies:
  - { name: start, version: 1, tenant: '*', on: demo.start, workflow: { name: one, version: '1' } }
";

/// The highest floor that a partition has taken over.
pub(crate) async fn floor(reader: &StreamReader) -> u64 {
    let mut floor = 0;
    for partition in [PartitionId(0), PartitionId(1)] {
        let mut watch = JournalWatch::new(partition);
        watch.read(reader).await.expect("a journal");
        for message in &watch.messages {
            if let Decoded::Frame(frame, _) = decode(message).expect("a readable message") {
                floor = floor.max(frame.head.floor);
            }
        }
    }
    floor
}

pub(crate) async fn publish(
    engine: &Engine,
    ids: impl IntoIterator<Item = u64>,
) -> Vec<SourcePosition> {
    let mut accepted = Vec::new();
    for id in ids {
        let sequence = events::publish(&engine.ports().publisher, "demo.start", id).await;
        accepted.push(SourcePosition { sequence, index: 0 });
    }
    accepted
}

/// Publishes until the floor has reached `sequence`.
pub(crate) async fn publish_until_floor(
    engine: &Engine,
    sequence: u64,
    ids: &mut std::ops::RangeFrom<u64>,
) -> Vec<SourcePosition> {
    let begun = Instant::now();
    let mut accepted = Vec::new();
    while floor(&engine.ports().reader).await < sequence {
        assert!(begun.elapsed() < LIMIT, "the floor does not reach {sequence}");
        accepted.extend(publish(engine, ids.next()).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    accepted
}

/// Waits until the listeners have acknowledged everything up to `sequence`.
pub(crate) async fn acknowledged(engine: &Engine, sequence: u64) {
    let all = async {
        loop {
            let broker = &engine.ports().broker;
            let progress = shared_progress(broker, EVENTS_STREAM, LISTENER_CONSUMER).await;
            if progress.is_ok_and(|progress| progress.acknowledged_up_to >= sequence) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, all).await.expect("acknowledged in time");
}

/// What an apart matcher would hold: every frame that is in ADMITTED now.
pub(crate) async fn hold_admitted(matcher: &Broker) -> Vec<Delivery> {
    let options = SharedConsumerOptions::new(ADMITTED_STREAM, MATCHER_CONSUMER);
    let mut consumer = SharedConsumer::open(matcher, options).await.expect("a consumer");
    let reader = StreamReader::new(matcher);
    let frames = reader.stream_state(ADMITTED_STREAM).await.expect("a stream");
    let mut held = Vec::new();
    while (held.len() as u64) < frames.messages {
        held.extend(consumer.next_batch(100).await.expect("a batch"));
    }
    held
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_an_apart_stage_still_holds_are_not_lost_to_the_floor_of_a_fused_one() {
    let broker = TestBroker::start(Durability::Process).await;
    let apart = TestEngine::at(broker.url()).named("apart").with_roles([Role::Listener]);
    let apart = apart.start(broker.folder()).await;
    let mut accepted = publish(&apart, 0..20).await;
    acknowledged(&apart, 20).await;
    let matcher = Broker::connect(&broker.url(), ConnectOptions::default()).await;
    let matcher = matcher.expect("a connection");
    let held = hold_admitted(&matcher).await;

    // From here on all events go another way than those that are held.
    let fused = TestEngine::at(broker.url()).start(broker.folder()).await;
    fused.ready().await;
    definitions::apply_yaml(&fused, &[WORKFLOW], STRATEGIES).await;
    apart.shut_down().await;
    let reader = &fused.ports().reader;
    let (begun, mut ids) = (Instant::now(), 100..);
    while begun.elapsed() < FLOOR_INTERVAL * 4 {
        accepted.extend(publish(&fused, ids.next()).await);
        let decided = accepted.len() - 20;
        records_until(reader, 2, LIMIT, |records| count(records, Kind::RunSucceeded) == decided)
            .await;
        for delivery in &held {
            delivery.acker.in_progress().await;
        }
    }
    assert_eq!(floor(reader).await, 0, "told although events are held");

    for delivery in held {
        delivery.acker.nak(Duration::ZERO).await;
    }
    matcher.flush().await;
    let last = accepted.last().expect("some").sequence;
    accepted.extend(publish_until_floor(&fused, last, &mut ids).await);
    let found = records_until(reader, 2, LIMIT, |records| {
        count(records, Kind::RunSucceeded) == accepted.len()
    })
    .await;

    assert_eq!(invariant_each_event_has_one_outcome(&found, accepted), [""; 0]);
    assert_eq!(invariant_each_run_ends_once(&found), [""; 0]);
    fused.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_apart_listener_left_is_decided_by_a_fused_worker_alone() {
    let broker = TestBroker::start(Durability::Process).await;
    let apart = TestEngine::at(broker.url()).named("apart").with_roles([Role::Listener]);
    let apart = apart.start(broker.folder()).await;
    let accepted = publish(&apart, 0..20).await;
    acknowledged(&apart, 20).await;
    apart.shut_down().await;

    let fused = TestEngine::at(broker.url()).start(broker.folder()).await;
    let decided = |records: &[_]| count(records, Kind::EventUnmatched) == accepted.len();
    let found = records_until(&fused.ports().reader, 2, LIMIT, decided).await;

    assert_eq!(invariant_each_event_has_one_outcome(&found, accepted), [""; 0]);
    fused.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_floor_rises_where_all_stages_run_apart() {
    let broker = TestBroker::start(Durability::Process).await;
    let workers = start_apart(&broker).await;
    for worker in &workers {
        worker.ready().await;
    }
    let engine = &workers[0];
    definitions::apply_yaml(engine, &[WORKFLOW], STRATEGIES).await;
    let mut ids = 0..;
    let mut accepted = publish(engine, ids.by_ref().take(50)).await;

    accepted.extend(publish_until_floor(engine, 50, &mut ids).await);

    let reader = &engine.ports().reader;
    let found = records_until(reader, 2, LIMIT, |records| {
        count(records, Kind::RunSucceeded) == accepted.len()
    })
    .await;
    assert_eq!(invariant_each_event_has_one_outcome(&found, accepted), [""; 0]);
}
