//! Keys of closed hours in the object store: read by a takeover, written once,
//! and missed when one is damaged.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use fermata_actors::Engine;
use fermata_core::identity::{JournalTime, PartitionId};
use fermata_core::partition::Limits;
use fermata_core::record::{Body, Kind};
use fermata_jetstream::object_folder::ObjectFolder;
use fermata_jetstream::topology::{SNAPSHOTS_BUCKET, journal_stream};
use fermata_jetstream::{Bytes, Durability};
use fermata_partition::key_hours::HourName;
use fermata_partition::snapshot::{Snapshot, SnapshotFile, SnapshotPolicy};
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
const HOUR_MS: u64 = 3_600_000;

/// Snapshots whenever anything has happened, and everything behind them purged.
fn often() -> SnapshotPolicy {
    SnapshotPolicy {
        records_max: 20,
        bytes_max: u64::MAX,
        interval_ms: 200,
        rest_ms: 50,
        segment_bytes: 1,
        ..SnapshotPolicy::default()
    }
}

async fn start(broker: &TestBroker) -> Engine {
    let engine = TestEngine { partitions: 1, ..TestEngine::at(broker.url()) };
    engine.with_snapshots(often()).start(broker.folder()).await
}

/// The folders of the snapshots, and of the hours that they name.
async fn folders(engine: &Engine) -> [ObjectFolder; 2] {
    let broker = &engine.ports().broker;
    let open = async |name| ObjectFolder::open(broker, SNAPSHOTS_BUCKET, name).await;
    [open("0").await.expect("snapshots"), open("hours-0").await.expect("hours")]
}

/// The newest snapshot behind `than` that has no open run, with its name.
async fn newest_at_rest([snapshots, hours]: &[ObjectFolder; 2], than: &str) -> (String, Snapshot) {
    let found = async {
        loop {
            let mut names = snapshots.list().await.expect("a list");
            names.retain(|name| name.as_str() > than);
            if let Some(name) = names.pop()
                && let Some(bytes) = snapshots.get(&name).await.expect("a snapshot")
            {
                let file = SnapshotFile::decode(ONLY, &bytes).expect("a snapshot");
                let mut files = BTreeMap::new();
                for name in file.hours() {
                    let bytes = hours.get(&name.object()).await.expect("an hour");
                    files.insert(name.clone(), bytes.expect("an hour that is named"));
                }
                let snapshot = file.with_hours(&files).expect("its hours");
                if snapshot.plans().is_empty() {
                    return (name, snapshot);
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, found).await.expect("a snapshot in time")
}

async fn outcomes(engine: &Engine, count: usize) -> Vec<Entry> {
    let is_outcome = |(header, _): &&Entry| header.kind.is_event_outcome();
    let all = |found: &[Entry]| found.iter().filter(is_outcome).count() == count;
    let found = records_of_until(&engine.ports().reader, &[ONLY], LIMIT, all).await;
    found.into_iter().filter(|entry| is_outcome(&entry)).collect()
}

/// Nobody waits an hour here: a snapshot is written again as it would be an hour
/// later.
#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_knows_the_keys_of_closed_hours_and_halts_where_they_are_damaged() {
    let broker = TestBroker::start(Durability::Process).await;
    let engine = start(&broker).await;
    definitions::apply_yaml(&engine, &[WORKFLOW], STRATEGIES).await;
    for id in 0..30 {
        events::publish(&engine.ports().publisher, "demo.start", id).await;
    }
    let before = outcomes(&engine, 30).await;
    let started = before.iter().find(|(header, _)| header.kind == Kind::EventStarted);
    let started = started.map(|(_, record)| &record.body);
    let Some(Body::EventStarted(known)) = started else { panic!("no event has started") };
    let known: u64 = known.event.id.parse().expect("a number");
    let folders = folders(&engine).await;
    newest_at_rest(&folders, "").await;
    engine.shut_down().await;

    // An hour later.
    let (name, snapshot) = newest_at_rest(&folders, "").await;
    let audit = snapshot.audit().clone();
    let mut fold = snapshot.restore(Limits::default(), HashMap::new()).expect("a state");
    let time = fold.partition().time();
    fold.partition_mut().begin_frame(JournalTime(time.0 + HOUR_MS));
    let written = fold.freeze().encode(&audit, &[]).expect("a snapshot");
    let [snapshots, hours] = &folders;
    for file in written.new_hours {
        hours.put(&file.name.object(), &Bytes::from(file.bytes)).await.expect("stored");
    }
    snapshots.put(&name, &Bytes::from(written.bytes)).await.expect("stored");
    let stored = written.hours;
    assert!(stored.iter().map(|name| name.keys).sum::<u64>() > 0, "{stored:?}");

    // Its key is in the hour alone.
    let engine = start(&broker).await;
    events::publish(&engine.ports().publisher, "demo.start", known).await;
    let after = outcomes(&engine, 31).await;
    let last = after.last().map(|(header, _)| header.kind);
    assert_eq!(last, Some(Kind::EventRepeated), "{after:?}");
    // What follows names the same hour.
    let (newer, snapshot) = newest_at_rest(&folders, &name).await;
    assert_eq!(snapshot.hours(), stored);
    let names = hours.list().await.expect("a list");
    assert_eq!(names, stored.iter().map(HourName::object).collect::<Vec<_>>());

    // Both snapshots stand for what is purged, and name it.
    let (newest, _) = newest_at_rest(&folders, &newer).await;
    assert!(newest > newer);
    let reader = &engine.ports().reader;
    let purged = async {
        while reader.stream_state(&journal_stream(ONLY)).await.expect("a stream").first_sequence < 2
        {
            events::publish(&engine.ports().publisher, "demo.start", known).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, purged).await.expect("purged in time");
    engine.shut_down().await;
    hours.put(&names[0], &Bytes::from_static(b"garbage")).await.expect("stored");
    let engine = start(&broker).await;
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
    let reason = tokio::time::timeout(LIMIT, halted).await.expect("halted in time");
    assert!(reason.contains("the keys of hour") && reason.contains("cannot be read"), "{reason}");
    engine.shut_down().await;

    // Where the hour is whole again, the partition goes on.
    let file = fold.freeze().encode(&audit, &[]).expect("a snapshot").new_hours.remove(0);
    hours.put(&names[0], &Bytes::from(file.bytes)).await.expect("stored");
    let engine = start(&broker).await;
    all_owned(&[&engine], 2).await;
    engine.shut_down().await;
}
