//! Purging, step by step: whoever is killed between two of its steps leaves something that the
//! next owner goes on from, that readers read as one journal, and that the next purge completes.
//!
//! The steps are requests to the broker, one after the other; a kill between two of them leaves
//! what the first ones did. So a test does the first ones itself, with no owner there.

use std::time::Duration;

use fermata_actors::Engine;
use fermata_actors::builder::BUILDER_CONSUMER;
use fermata_actors::coordinator::hop_janitor::purge_shared_stream;
use fermata_actors::journal_archive::{JournalArchive, JournalReplay};
use fermata_actors::listener::LISTENER_CONSUMER;
use fermata_actors::matcher::MATCHER_CONSUMER;
use fermata_core::identity::PartitionId;
use fermata_jetstream::core_messages::CoreMessages;
use fermata_jetstream::object_folder::ObjectFolder;
use fermata_jetstream::purge::{purge_before, room_of};
use fermata_jetstream::topology::{
    ADMITTED_STREAM, ADMITTED_SUBJECT, ARCHIVE_BUCKET, EVENTS_STREAM, MATCHED_STREAM,
    MATCHED_SUBJECT, SNAPSHOTS_BUCKET, commands_stream, journal_stream, journal_subject,
};
use fermata_jetstream::{
    Broker, Bytes, ConnectOptions, Durability, PublishOutcome, SharedConsumer,
    SharedConsumerOptions, StreamReader,
};
use fermata_partition::snapshot::{SnapshotFile, SnapshotPolicy};
use fermata_tests::engine::all_owned;
use fermata_tests::journal::{Entry, records_of_until};
use fermata_tests::{TestBroker, TestEngine, definitions, events};
use fermata_wire::journal::JournalFrame;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(90);
const ONLY: PartitionId = PartitionId(0);

const WORKFLOW: &str = "
workflow: { name: one, version: '1', tasks: [{ id: a, noop: {} }] }
";
const STRATEGIES: &str = "
strategies:
  - { name: start, version: 1, tenant: '*', on: demo.start, workflow: { name: one, version: '1' } }
";

/// Snapshots are taken, but nothing is archived: a segment is larger than all that there is.
fn without_archive() -> SnapshotPolicy {
    SnapshotPolicy {
        records_max: 20,
        interval_ms: 200,
        rest_ms: 50,
        segment_bytes: u64::MAX,
        ..SnapshotPolicy::default()
    }
}

fn with_archive() -> SnapshotPolicy {
    SnapshotPolicy { segment_bytes: 2_000, ..without_archive() }
}

async fn start(broker: &TestBroker, policy: SnapshotPolicy) -> Engine {
    let engine = TestEngine { partitions: 1, ..TestEngine::at(broker.url()) };
    let engine = engine.with_snapshots(policy).start(broker.folder()).await;
    all_owned(&[&engine], 2).await;
    engine
}

/// Publishes events until as many snapshots are stored as are kept, behind `than`; tells the older
/// one's sequence and position.
async fn two_snapshots(
    engine: &Engine,
    than: u64,
    ids: &mut std::ops::RangeFrom<u64>,
) -> (u64, u64) {
    let folder = ObjectFolder::open(&engine.ports().broker, SNAPSHOTS_BUCKET, "0").await;
    let folder = folder.expect("a folder");
    let stored = async {
        loop {
            for id in ids.by_ref().take(5) {
                events::publish(&engine.ports().publisher, "demo.start", id).await;
            }
            let mut names = folder.list().await.expect("a list");
            names.retain(|name| name.parse::<u64>().is_ok_and(|sequence| sequence > than));
            if names.len() >= 2
                && let Some(bytes) = folder.get(&names[0]).await.expect("a snapshot")
            {
                let older = SnapshotFile::decode(ONLY, &bytes).expect("a snapshot");
                return (older.sequence(), older.position().sequence);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, stored).await.expect("snapshots in time")
}

async fn connect(broker: &TestBroker) -> Broker {
    Broker::connect(&broker.url(), ConnectOptions::default()).await.expect("a connection")
}

async fn first_of(reader: &StreamReader, stream: &str) -> u64 {
    reader.stream_state(stream).await.expect("a stream").first_sequence
}

/// Every record once, in order, from the archive or the stream; as many events decided as published.
async fn is_whole(engine: &Engine, events: u64) {
    let is_outcome = |(header, _): &&Entry| header.kind.is_event_outcome();
    let all = |found: &[Entry]| found.iter().filter(is_outcome).count() as u64 >= events;
    let found = records_of_until(&engine.ports().reader, &[ONLY], LIMIT, all).await;
    assert_eq!(found.iter().filter(is_outcome).count() as u64, events);
    let indices = found.iter().map(|(header, _)| header.index);
    assert!(indices.eq(0..found.len() as u64), "records are missing, or there twice");
}

async fn is_purged(engine: &Engine, stream: &str, to: u64) {
    let purged = async {
        while first_of(&engine.ports().reader, stream).await < to {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, purged).await.expect("purged in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_killed_between_a_segment_and_its_purge_loses_nothing_and_doubles_nothing() {
    let broker = TestBroker::start(Durability::Process).await;
    let engine = start(&broker, without_archive()).await;
    definitions::apply_yaml(&engine, &[WORKFLOW], STRATEGIES).await;
    let mut ids = 0..;
    let (sequence, _) = two_snapshots(&engine, 0, &mut ids).await;
    engine.shut_down().await;

    let connection = connect(&broker).await;
    let reader = StreamReader::new(&connection);
    let archive = JournalArchive::open(&reader, ONLY).await.expect("an archive");
    let archived = archive.archive(&reader, sequence, 2_000).await.expect("segments");
    assert!(archived > 0, "nothing is archived");
    assert_eq!(first_of(&reader, &journal_stream(ONLY)).await, 1, "nothing is purged");

    let engine = start(&broker, with_archive()).await;
    is_whole(&engine, ids.start).await;
    two_snapshots(&engine, sequence, &mut ids).await;
    is_purged(&engine, &journal_stream(ONLY), archived + 1).await;
    is_whole(&engine, ids.start).await;
    engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_killed_between_the_purges_of_commands_and_journal_loses_nothing() {
    let broker = TestBroker::start(Durability::Process).await;
    let engine = start(&broker, without_archive()).await;
    definitions::apply_yaml(&engine, &[WORKFLOW], STRATEGIES).await;
    let mut ids = 0..;
    let (sequence, position) = two_snapshots(&engine, 0, &mut ids).await;
    engine.shut_down().await;

    let connection = connect(&broker).await;
    let reader = StreamReader::new(&connection);
    purge_before(&connection, &commands_stream(ONLY), position).await.expect("purged");
    assert!(first_of(&reader, &commands_stream(ONLY)).await > 1, "nothing is purged");
    assert_eq!(first_of(&reader, &journal_stream(ONLY)).await, 1, "the journal is purged");

    let engine = start(&broker, with_archive()).await;
    is_whole(&engine, ids.start).await;
    let (later, _) = two_snapshots(&engine, sequence, &mut ids).await;
    assert!(later > sequence);
    is_purged(&engine, &journal_stream(ONLY), 2).await;
    is_whole(&engine, ids.start).await;
    engine.shut_down().await;
}

/// Publishes messages that no stage runs for, holds some of them, and lets go of the rest.
async fn holds(broker: &Broker, engine: &Engine, stream: &str, subject: &str, consumer: &str) {
    let publisher = &engine.ports().publisher;
    for number in 0..20 {
        let bytes = Bytes::from(format!("message {number}"));
        let outcome = publisher.publish(subject.to_owned(), None, bytes).await.await;
        assert!(matches!(outcome, PublishOutcome::Stored { .. }), "{outcome:?}");
    }
    let options = SharedConsumerOptions::new(stream, consumer);
    let mut taken = SharedConsumer::open(broker, options).await.expect("a consumer");
    let mut held = Vec::new();
    while held.len() < 20 {
        held.extend(taken.next_batch(20).await.expect("a batch"));
    }
    // Out of order: the fifth is held while later ones are acknowledged.
    let fifth = held.remove(4);
    for delivery in held {
        delivery.acker.ack().await;
    }
    broker.flush().await;
    let purge = || purge_shared_stream(broker, stream, consumer, u64::MAX);
    let reader = StreamReader::new(broker);
    let settled = async {
        while first_of(&reader, stream).await < 4 {
            purge().await.expect("purged");
        }
    };
    tokio::time::timeout(LIMIT, settled).await.expect("acknowledgements arrive");
    // A purge that is done again, as after a kill, takes nothing more.
    purge().await.expect("purged");
    assert_eq!(first_of(&reader, stream).await, 4, "{stream}: what is held is purged, or more");

    fifth.acker.ack().await;
    broker.flush().await;
    let rest = async {
        while first_of(&reader, stream).await < 20 {
            purge().await.expect("purged");
        }
    };
    tokio::time::timeout(LIMIT, rest).await.expect("the rest is purged");
    assert_eq!(first_of(&reader, stream).await, 20, "{stream}: the last one stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_stream_is_purged_up_to_what_is_acknowledged_and_never_past_it() {
    let broker = TestBroker::start(Durability::Process).await;
    // No stage and no owner: nobody else takes or purges.
    let engine = TestEngine::at(broker.url()).with_roles([]).start(broker.folder()).await;
    let connection = connect(&broker).await;

    holds(&connection, &engine, ADMITTED_STREAM, ADMITTED_SUBJECT, MATCHER_CONSUMER).await;
    holds(&connection, &engine, MATCHED_STREAM, MATCHED_SUBJECT, BUILDER_CONSUMER).await;
    engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stream_of_events_is_purged_but_for_what_a_listener_holds() {
    let broker = TestBroker::start(Durability::Process).await;
    let engine = TestEngine::at(broker.url()).with_roles([]).start(broker.folder()).await;
    let connection = connect(&broker).await;
    let client = async_nats::connect(broker.url()).await.expect("a connection");
    let jetstream = async_nats::jetstream::new(client);
    let stream = jetstream.get_stream(EVENTS_STREAM).await.expect("a stream");
    let config = stream.cached_info().config.clone();
    let config = async_nats::jetstream::stream::Config { max_bytes: 20_000, ..config };
    jetstream.update_stream(config).await.expect("less room");
    let mut last = 0;
    let filled = async || {
        let room = room_of(&connection, EVENTS_STREAM).await.expect("a stream");
        room.bytes * 100 / room.max_bytes
    };
    while filled().await < 90 {
        last = events::publish(&engine.ports().publisher, "demo.start", last).await;
    }
    let options = SharedConsumerOptions::new(EVENTS_STREAM, LISTENER_CONSUMER);
    let mut taken = SharedConsumer::open(&connection, options).await.expect("a consumer");
    let mut held = Vec::new();
    while (held.len() as u64) < last {
        held.extend(taken.next_batch(100).await.expect("a batch"));
    }
    let purge_to =
        |needed| purge_shared_stream(&connection, EVENTS_STREAM, LISTENER_CONSUMER, needed);
    let purge = || purge_to(u64::MAX);
    let reader = StreamReader::new(&connection);
    purge().await.expect("purged");
    assert_eq!(first_of(&reader, EVENTS_STREAM).await, 1, "all are held");

    for delivery in held.drain(..3) {
        delivery.acker.ack().await;
    }
    connection.flush().await;
    let some = async {
        while first_of(&reader, EVENTS_STREAM).await < 3 {
            purge().await.expect("purged");
        }
    };
    tokio::time::timeout(LIMIT, some).await.expect("acknowledgements arrive");
    purge().await.expect("purged");
    assert_eq!(first_of(&reader, EVENTS_STREAM).await, 3, "the others are held");
    engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_that_were_kept_long_enough_go_and_it_is_told_which() {
    let broker = TestBroker::start(Durability::Process).await;
    let engine = start(&broker, with_archive()).await;
    definitions::apply_yaml(&engine, &[WORKFLOW], STRATEGIES).await;
    let mut ids = 0..;
    let (sequence, _) = two_snapshots(&engine, 0, &mut ids).await;
    is_purged(&engine, &journal_stream(ONLY), 2).await;
    two_snapshots(&engine, sequence, &mut ids).await;
    let reader = StreamReader::new(&engine.ports().broker);
    let archive = JournalArchive::open(&reader, ONLY).await.expect("an archive");
    assert_eq!(archive.removed().await.expect("an answer"), None, "they are kept for ever");
    engine.shut_down().await;

    let kept = SnapshotPolicy { archive_retention_ms: Some(1), ..with_archive() };
    let engine = start(&broker, kept).await;
    let told = async {
        loop {
            for id in ids.by_ref().take(5) {
                events::publish(&engine.ports().publisher, "demo.start", id).await;
            }
            if let Some(told) = archive.removed().await.expect("an answer")
                && told.segments > 1
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, told).await.expect("removed in time");
    engine.shut_down().await;
    let connection = connect(&broker).await;
    let reader = StreamReader::new(&connection);
    let archive = JournalArchive::open(&reader, ONLY).await.expect("an archive");
    let told = archive.removed().await.expect("an answer").expect("some are removed");
    let folder = ObjectFolder::open(&connection, ARCHIVE_BUCKET, "0").await.expect("a folder");
    let names = folder.list().await.expect("a list");
    assert!(names.len() > 1, "the newest segment stays: {names:?}");

    // What is left begins where it is told, and goes on without a hole.
    let mut replay = JournalReplay::open(&reader, ONLY, 1).await.expect("a journal");
    let first = replay.next_batch(1).await.expect("a message").remove(0);
    assert!(first.sequence <= told.last_sequence + 1, "more is gone than is told");
    let frame = JournalFrame::decode(&first.payload).expect("a frame");
    assert!(frame.first_record_index <= told.next_record_index, "more records are gone");
    let mut next = first.sequence + 1;
    loop {
        let batch = replay.next_batch(100).await.expect("messages");
        if batch.is_empty() {
            break;
        }
        for message in batch {
            assert_eq!(message.sequence, next, "a hole in what is left");
            next += 1;
        }
    }
    // And whoever owns it next goes on.
    let engine = start(&broker, with_archive()).await;
    engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_purged_while_a_journal_is_read_is_read_from_its_archive() {
    let broker = TestBroker::start(Durability::Process).await;
    // No owner: nobody else purges.
    let engine = TestEngine::at(broker.url()).with_roles([]).start(broker.folder()).await;
    let reader = StreamReader::new(&engine.ports().broker);
    // More than a reader asks for ahead.
    let message = Bytes::from(vec![7; 900 * 1024]);
    for _ in 0..40 {
        let publisher = &engine.ports().publisher;
        let stored = publisher.publish(journal_subject(ONLY), None, message.clone()).await.await;
        assert!(matches!(stored, PublishOutcome::Stored { .. }), "{stored:?}");
    }
    let mut replay = JournalReplay::open(&reader, ONLY, 1).await.expect("a journal");
    let mut read = replay.next_batch(1).await.expect("a message");

    let archive = JournalArchive::open(&reader, ONLY).await.expect("an archive");
    assert_eq!(archive.archive(&reader, 39, 1).await.expect("segments"), 39);
    purge_before(&engine.ports().broker, &journal_stream(ONLY), 40).await.expect("purged");
    loop {
        let batch = replay.next_batch(100).await.expect("messages");
        if batch.is_empty() {
            break;
        }
        read.extend(batch);
    }

    let sequences = read.iter().map(|message| message.sequence);
    assert!(sequences.eq(1..=40), "messages are missing, or there twice");
    engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_model_that_is_made_anew_has_the_runs_that_only_the_archive_holds() {
    let broker = TestBroker::start(Durability::Process).await;
    let engine = start(&broker, with_archive()).await;
    definitions::apply_yaml(&engine, &[WORKFLOW], STRATEGIES).await;
    let mut ids = 0..;
    let (sequence, _) = two_snapshots(&engine, 0, &mut ids).await;
    two_snapshots(&engine, sequence, &mut ids).await;
    is_purged(&engine, &journal_stream(ONLY), 20).await;
    is_whole(&engine, ids.start).await;
    engine.shut_down().await;
    std::fs::remove_dir_all(broker.folder().join("read-model")).expect("a read model");

    let engine = start(&broker, with_archive()).await;
    let core = CoreMessages::new(&engine.ports().broker);
    // How many it holds, however many those are: a slow machine publishes for longer.
    let question = r#"{"query":{"limit":1}}"#;
    let listed = async {
        loop {
            let answer = core.request("fermata.query.runs", question.into(), LIMIT).await;
            if let Ok(answer) = answer
                && let Ok(answer) = serde_json::from_slice::<Value>(&answer.payload)
                && answer["ok"]["runs_held"] == ids.start
            {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let answer = tokio::time::timeout(LIMIT, listed).await.expect("all runs in time");
    assert_eq!(answer["ok"]["left_out_until_ms"], Value::Null, "{answer}");
    engine.shut_down().await;
}
