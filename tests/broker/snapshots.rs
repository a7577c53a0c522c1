//! Snapshots and what is purged behind them: a takeover begins from the newest
//! one that is good, and halts where nothing stands for what is gone.

use std::time::Duration;

use fermata_actors::Engine;
use fermata_core::identity::PartitionId;
use fermata_jetstream::object_folder::ObjectFolder;
use fermata_jetstream::topology::{SNAPSHOTS_BUCKET, commands_stream, journal_stream};
use fermata_jetstream::{Bytes, Durability};
use fermata_partition::snapshot::SnapshotPolicy;
use fermata_tests::engine::all_owned;
use fermata_tests::journal::{Entry, records_of_until};
use fermata_tests::{TestBroker, TestEngine, definitions, events};

const LIMIT: Duration = Duration::from_secs(60);

const WORKFLOW: &str = "
workflow: { name: one, version: '1', tasks: [{ id: a, noop: {} }] }
";
const STRATEGIES: &str = "
strategies:
  - { name: start, version: 1, tenant: '*', on: demo.start, workflow: { name: one, version: '1' } }
";

const ONLY: PartitionId = PartitionId(0);

/// Snapshots whenever anything has happened.
fn often() -> SnapshotPolicy {
    SnapshotPolicy {
        records_max: 20,
        bytes_max: u64::MAX,
        interval_ms: 200,
        rest_ms: 50,
        segment_bytes: 2_000,
        ..SnapshotPolicy::default()
    }
}

async fn start(broker: &TestBroker) -> Engine {
    let engine = TestEngine { partitions: 1, ..TestEngine::at(broker.url()) };
    engine.with_snapshots(often()).start(broker.folder()).await
}

async fn folder(engine: &Engine) -> ObjectFolder {
    ObjectFolder::open(&engine.ports().broker, SNAPSHOTS_BUCKET, "0").await.expect("a folder")
}

/// Publishes events until two snapshots are there that are newer than `than`,
/// and returns their names.
async fn two_snapshots(
    engine: &Engine,
    than: &str,
    ids: &mut std::ops::RangeFrom<u64>,
) -> Vec<String> {
    let folder = folder(engine).await;
    let stored = async {
        loop {
            for id in ids.by_ref().take(5) {
                events::publish(&engine.ports().publisher, "demo.start", id).await;
            }
            let names = folder.list().await.expect("a list");
            if names.iter().filter(|name| name.as_str() > than).count() >= 2 {
                return names;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, stored).await.expect("snapshots in time")
}

/// Waits until no more than the two newest snapshots are there: an older one goes when the next is stored.
async fn only_two(engine: &Engine) -> Vec<String> {
    let folder = folder(engine).await;
    let mut names = Vec::new();
    let kept = async {
        loop {
            names = folder.list().await.expect("a list");
            if names.len() == 2 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let kept = tokio::time::timeout(LIMIT, kept).await;
    assert!(kept.is_ok(), "old ones stay: {names:?}");
    names
}

/// Waits until what snapshots stand for is purged from a stream.
async fn purged(engine: &Engine, stream: &str) -> u64 {
    let reader = &engine.ports().reader;
    let begins = async {
        loop {
            let first = reader.stream_state(stream).await.expect("a stream").first_sequence;
            if first > 1 {
                return first;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, begins).await.expect("purged in time")
}

/// Why partition 0 is halted, when it is.
async fn halted(engine: &Engine) -> String {
    let halted = async {
        loop {
            let all = engine.status().await;
            let reason = all.into_iter().find(|status| status.partition == "0");
            if let Some(reason) = reason.and_then(|status| status.reason) {
                return reason;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, halted).await.expect("halted in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_begins_from_the_newest_good_snapshot_and_halts_where_there_is_none() {
    let broker = TestBroker::start(Durability::Process).await;
    let engine = start(&broker).await;
    definitions::apply_yaml(&engine, &[WORKFLOW], STRATEGIES).await;
    let mut ids = 0..;
    two_snapshots(&engine, "", &mut ids).await;
    purged(&engine, &commands_stream(ONLY)).await;
    engine.shut_down().await;

    // From the newest: whoever read from the beginning could not.
    let engine = start(&broker).await;
    purged(&engine, &journal_stream(ONLY)).await;
    let names = two_snapshots(&engine, "", &mut ids).await;
    engine.shut_down().await;
    let engine = start(&broker).await;
    all_owned(&[&engine], 2).await;
    let newest = names.last().expect("a snapshot").clone();
    let names = two_snapshots(&engine, &newest, &mut ids).await;
    let kept = only_two(&engine).await;
    assert!(
        kept[0] > newest && names.last() <= kept.last(),
        "the newest stay: {names:?}, {kept:?}"
    );
    engine.shut_down().await;

    // Whoever reads the journal reads all of it, from the archive on.
    let engine = start(&broker).await;
    let first = purged(&engine, &journal_stream(ONLY)).await;
    // The first may have come before the strategies were known: they have an outcome, too.
    let is_outcome = |(header, _): &&Entry| header.kind.is_event_outcome();
    let all = |found: &[Entry]| found.iter().filter(is_outcome).count() as u64 == ids.start;
    let found = records_of_until(&engine.ports().reader, &[ONLY], LIMIT, all).await;
    let indices = found.iter().map(|(header, _)| header.index);
    assert!(indices.eq(0..found.len() as u64), "records are missing");
    assert!(first > 1, "the stream does not hold them");
    engine.shut_down().await;

    // From the older one, where the newest is damaged.
    let (store, names) = {
        let engine = start(&broker).await;
        let store = folder(&engine).await;
        engine.shut_down().await;
        let names = store.list().await.expect("a list");
        (store, names)
    };
    let damaged = names.last().expect("a snapshot");
    store.put(damaged, &Bytes::from_static(b"garbage")).await.expect("stored");
    let engine = start(&broker).await;
    all_owned(&[&engine], 2).await;
    engine.shut_down().await;

    for name in store.list().await.expect("a list") {
        store.remove(&name).await.expect("removed");
    }
    let engine = start(&broker).await;
    let reason = halted(&engine).await;
    assert!(reason.contains("nothing stands for what is missing"), "{reason}");
    engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_while_it_is_read_is_read_whole_or_gone_soon() {
    let broker = TestBroker::start(Durability::Process).await;
    let engine = start(&broker).await;
    let folder = folder(&engine).await;
    // Of several chunks, so that some may be gone when others have come.
    let stored = Bytes::from(vec![7; 2_000_000]);
    for _ in 0..6 {
        folder.put("other", &stored).await.expect("stored");

        let read = tokio::time::timeout(LIMIT, folder.get("other"));
        let (read, removed) = tokio::join!(read, folder.remove("other"));

        removed.expect("removed");
        let read = read.expect("in time").expect("whole or gone");
        assert!(read.is_none_or(|read| read == stored));
    }
    engine.shut_down().await;
}
