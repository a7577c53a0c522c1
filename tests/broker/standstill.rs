//! A stream that is full: no effect starts, whoever asks is told which stream it is, and when it is
//! larger everything goes on.

use std::time::{Duration, Instant};

use fermata_actors::Engine;
use fermata_actors::readiness::Obstacle;
use fermata_core::identity::PartitionId;
use fermata_core::record::Kind;
use fermata_jetstream::purge::room_of;
use fermata_jetstream::topology::{Enlargement, audit_stream, journal_stream};
use fermata_jetstream::{Durability, Topology};
use fermata_tests::engine::all_owned;
use fermata_tests::journal::{count, records_of_until};
use fermata_tests::{TestBroker, TestEngine, audit, definitions, events};

const LIMIT: Duration = Duration::from_secs(120);
const ONLY: PartitionId = PartitionId(0);

/// How long nothing may happen.
const STILL_FOR: Duration = Duration::from_secs(2);

const WORKFLOW: &str = "
workflow: { name: one, version: '1', tasks: [{ id: a, noop: {} }] }
";
const STRATEGIES: &str = "
strategies:
  - { name: start, version: 1, tenant: '*', on: demo.start, workflow: { name: one, version: '1' } }
";

async fn start(broker: &TestBroker) -> Engine {
    let engine = TestEngine { partitions: 1, ..TestEngine::at(broker.url()) };
    let engine = engine.start(broker.folder()).await;
    all_owned(&[&engine], 2).await;
    definitions::apply_yaml(&engine, &[WORKFLOW], STRATEGIES).await;
    engine
}

/// Leaves a stream no room beyond what it holds.
async fn fill(broker: &TestBroker, engine: &Engine, stream: &str) {
    let bytes = room_of(&engine.ports().broker, stream).await.expect("a stream").bytes;
    let client = async_nats::connect(broker.url()).await.expect("a connection");
    let jetstream = async_nats::jetstream::new(client);
    let config = jetstream.get_stream(stream).await.expect("a stream").cached_info().config.clone();
    let max_bytes = i64::try_from(bytes).expect("a size");
    let config = async_nats::jetstream::stream::Config { max_bytes, ..config };
    jetstream.update_stream(config).await.expect("less room");
}

/// Gives every stream the room that it had, and says which had less.
async fn enlarge(engine: &Engine) -> Vec<String> {
    let topology = Topology { partitions: 1, ..Topology::default() }.fitted_to(6 << 30);
    let broker = &engine.ports().broker;
    let enlargement = Enlargement::plan(broker, &topology.streams()).await.expect("streams");
    let enlarged = enlargement.make(broker).await.expect("more room");
    enlarged.into_iter().map(|enlarged| enlarged.stream).collect()
}

/// What it says stands still, by streams; nothing else may be in the way.
async fn standing_still(engine: &Engine) -> Vec<String> {
    let obstacles = engine.obstacles().await.into_iter();
    let streams = obstacles.map(|obstacle| match &obstacle {
        Obstacle::StandsStill(standstill) => {
            assert_eq!(obstacle.code(), "partition_stands_still");
            standstill.stream.clone()
        }
        Obstacle::Draining
        | Obstacle::Disconnected
        | Obstacle::Halted { .. }
        | Obstacle::Awaited(_) => panic!("{obstacle}"),
    });
    streams.collect()
}

async fn journal_end(engine: &Engine) -> u64 {
    let state = engine.ports().reader.stream_state(&journal_stream(ONLY)).await;
    state.expect("a stream").last_sequence
}

/// Nothing more comes into the journal.
async fn stands_still(engine: &Engine) -> bool {
    let before = journal_end(engine).await;
    tokio::time::sleep(STILL_FOR).await;
    before == journal_end(engine).await
}

/// The partition answers, and says which stream it is.
async fn says_why(engine: &Engine, stream: &str) {
    let status = engine.status().await;
    let only = status.iter().find(|one| one.partition == "0").expect("an answer");
    assert_eq!(only.state, "owning");
    let reason = only.reason.as_deref().expect("a reason");
    assert!(reason.contains(stream) && reason.contains("it is full"), "{reason}");
    let others = status.iter().filter(|one| one.partition != "0");
    assert!(others.into_iter().all(|one| one.reason.is_none()), "{status:?}");
    let figures = engine.observe().await;
    assert_eq!(figures.standstills.len(), 1);
}

/// Every event has a run that ended, and every record is in the signed log.
async fn is_whole(engine: &Engine, events: u64) {
    let reader = &engine.ports().reader;
    let ended = |found: &[_]| count(found, Kind::RunSucceeded) as u64 >= events;
    let found = records_of_until(reader, &[ONLY], LIMIT, ended).await;
    assert_eq!(count(&found, Kind::RunSucceeded) as u64, events);
    let evidence = audit::complete(reader, ONLY, LIMIT).await;
    assert!(evidence.records.len() >= found.len());
    let bytes = room_of(&engine.ports().broker, &audit_stream(ONLY)).await.expect("a stream").bytes;
    println!(
        "audit log: {} bytes a record; {} records a run",
        bytes / evidence.entries.len() as u64,
        found.len() as u64 / events
    );
    assert_eq!(standing_still(engine).await, [""; 0]);
    assert!(engine.status().await.iter().all(|one| one.reason.is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_audit_log_stops_effects_is_told_and_is_complete_when_it_is_larger() {
    let broker = TestBroker::start(Durability::Process).await;
    let engine = start(&broker).await;
    let publisher = &engine.ports().publisher;
    let mut ids = 0..;
    for id in ids.by_ref().take(20) {
        events::publish(publisher, "demo.start", id).await;
    }
    audit::complete(&engine.ports().reader, ONLY, LIMIT).await;

    let stream = audit_stream(ONLY);
    fill(&broker, &engine, &stream).await;
    let begun = Instant::now();
    let mut published = 20;
    loop {
        // One by one, so that frames are many: the journal may be a thousand of them ahead.
        for id in ids.by_ref().take(200) {
            events::publish(publisher, "demo.start", id).await;
            published += 1;
        }
        if standing_still(&engine).await == [stream.as_str()] && stands_still(&engine).await {
            break;
        }
        assert!(begun.elapsed() < LIMIT, "effects start without an audit log");
    }
    says_why(&engine, &stream).await;
    let ahead = journal_end(&engine).await;
    assert!(ahead > 1_000, "it stands still after {ahead} frames");

    assert_eq!(enlarge(&engine).await, [stream]);
    is_whole(&engine, published).await;
    engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_journal_stops_effects_is_told_and_goes_on_when_it_is_larger() {
    let broker = TestBroker::start(Durability::Process).await;
    let engine = start(&broker).await;
    let publisher = &engine.ports().publisher;
    for id in 0..20 {
        events::publish(publisher, "demo.start", id).await;
    }
    audit::complete(&engine.ports().reader, ONLY, LIMIT).await;

    let stream = journal_stream(ONLY);
    fill(&broker, &engine, &stream).await;
    for id in 20..60 {
        events::publish(publisher, "demo.start", id).await;
    }
    let told = async {
        while standing_still(&engine).await != [stream.as_str()] {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(LIMIT, told).await.expect("told in time");
    assert!(stands_still(&engine).await, "a full journal grows");
    says_why(&engine, &stream).await;

    assert_eq!(enlarge(&engine).await, [stream]);
    is_whole(&engine, 60).await;
    engine.shut_down().await;
}
