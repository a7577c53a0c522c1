//! Reading a stream to its end, and following it, against the real broker.

use std::os::unix::fs::FileExt as _;
use std::pin::pin;
use std::process::Command;

use fermata_jetstream::core_messages::CoreMessages;
use fermata_jetstream::epoch_consumer::check_position;
use fermata_jetstream::reader::{FollowError, Holes, Replay, StreamReader};
use fermata_jetstream::{EpochConsumer, EpochConsumerError, PositionCheck};
use futures_util::FutureExt as _;
use tokio::time::timeout;

use crate::consuming::epoch;
use crate::support::{SOON, Stage};

pub async fn delete(stage: &Stage, stream: &str, sequence: u64) {
    let core = CoreMessages::new(&stage.broker);
    let body = format!("{{\"seq\":{sequence}}}");
    let answer = core
        .request(&format!("$JS.API.STREAM.MSG.DELETE.{stream}"), body.into(), SOON)
        .await
        .expect("an answer");
    assert!(String::from_utf8_lossy(&answer.payload).contains("\"success\":true"), "{answer:?}");
}

pub async fn purge_below(stage: &Stage, stream: &str, first_kept: u64) {
    let core = CoreMessages::new(&stage.broker);
    let body = format!("{{\"seq\":{first_kept}}}");
    let answer = core
        .request(&format!("$JS.API.STREAM.PURGE.{stream}"), body.into(), SOON)
        .await
        .expect("an answer");
    assert!(String::from_utf8_lossy(&answer.payload).contains("\"success\":true"), "{answer:?}");
}

async fn replayed(stage: &Stage, stream: &str, from: u64, holes: Holes) -> Vec<u64> {
    let mut replay =
        StreamReader::new(&stage.broker).replay(stream, from, holes).await.expect("a replay");
    let (sequences, ended) = rest_of(&mut replay).await;
    ended.expect("all batches");
    sequences
}

/// What a replay yields, in however many batches, and how it ends.
async fn rest_of(replay: &mut Replay) -> (Vec<u64>, Result<(), FollowError>) {
    let mut sequences = Vec::new();
    loop {
        match timeout(SOON, replay.next_batch(700)).await.expect("in time") {
            Ok(batch) if batch.is_empty() => return (sequences, Ok(())),
            Ok(batch) => sequences.extend(batch.iter().map(|message| message.sequence)),
            Err(error) => return (sequences, Err(error)),
        }
    }
}

#[tokio::test]
async fn a_question_whose_answer_was_lost_with_the_connection_is_asked_again() {
    let mut stage = Stage::new().await;
    stage.fill("fermata.journal.0", 1..=3).await;
    let reader = StreamReader::new(&stage.broker);

    // It hears the question and does not answer.
    let pid = stage.server.pid().to_string();
    let paused = Command::new("kill").args(["-STOP", &pid]).status().expect("the command `kill`");
    assert!(paused.success(), "{paused}");
    let mut asked = pin!(reader.stream_state("JOURNAL_0"));
    assert!(asked.as_mut().now_or_never().is_none());
    stage.broker.flush().await;
    stage.server.kill().await.expect("killed");
    stage.server.restart().await.expect("a server");

    let state = timeout(SOON, asked).await.expect("in time").expect("an answer");
    assert_eq!(state.last_sequence, 3);
}

#[tokio::test]
async fn a_replay_yields_every_message_once_and_in_order() {
    let stage = Stage::new().await;
    stage.fill("fermata.journal.0", 1..=5_000).await;

    assert_eq!(
        replayed(&stage, "JOURNAL_0", 1, Holes::Refused).await,
        (1..=5_000).collect::<Vec<_>>()
    );
    assert_eq!(replayed(&stage, "JOURNAL_0", 4_999, Holes::Refused).await, [4_999, 5_000]);
    assert_eq!(replayed(&stage, "JOURNAL_0", 5_001, Holes::Refused).await, [0_u64; 0]);
}

#[tokio::test]
async fn a_replay_of_an_empty_stream_is_empty() {
    let stage = Stage::new().await;

    assert_eq!(replayed(&stage, "JOURNAL_0", 1, Holes::Refused).await, [0_u64; 0]);
}

#[tokio::test]
async fn a_replay_that_has_ended_goes_on_with_what_came_since() {
    let stage = Stage::new().await;
    stage.fill("fermata.journal.0", 1..=3).await;
    let mut replay = StreamReader::new(&stage.broker)
        .replay("JOURNAL_0", 1, Holes::Refused)
        .await
        .expect("a replay");
    let (before, _) = rest_of(&mut replay).await;

    stage.fill("fermata.journal.0", 4..=5).await;

    let (since, ended) = rest_of(&mut replay).await;
    assert_eq!((before, since), (vec![1, 2, 3], vec![4, 5]));
    assert!(ended.is_ok(), "{ended:?}");
}

/// Stands for a consumer on a server that has not heard of what came last.
async fn pause_consumers(stage: &Stage, stream: &str) {
    let core = CoreMessages::new(&stage.broker);
    let api = async |operation: String, body: &str| {
        let subject = format!("$JS.API.CONSUMER.{operation}");
        let answer = core.request(&subject, body.to_owned().into(), SOON).await.expect("an answer");
        serde_json::from_slice::<serde_json::Value>(&answer.payload).expect("JSON")
    };
    let names = api(format!("NAMES.{stream}"), "{}").await;
    for name in names["consumers"].as_array().expect("consumers") {
        let name = name.as_str().expect("a name");
        let until = "{\"pause_until\":\"2100-01-01T00:00:00Z\"}";
        let paused = api(format!("PAUSE.{stream}.{name}"), until).await;
        assert_eq!(paused["paused"], true, "{paused}");
    }
}

#[tokio::test]
async fn a_consumer_that_knows_of_nothing_more_is_no_end_of_a_replay() {
    for holes in [Holes::Refused, Holes::Allowed] {
        let stage = Stage::new().await;
        stage.fill("fermata.journal.0", 1..=3).await;
        let reader = StreamReader::new(&stage.broker);
        let mut replay = reader.replay("JOURNAL_0", 1, holes).await.expect("a replay");
        let mut read = 0;
        while read < 3 {
            let batch = timeout(SOON, replay.next_batch(3)).await.expect("in time");
            read += batch.expect("a batch").len();
        }

        pause_consumers(&stage, "JOURNAL_0").await;
        stage.fill("fermata.journal.0", 4..=5).await;

        let (since, ended) = rest_of(&mut replay).await;
        assert_eq!(since, [4, 5], "{holes:?}");
        assert!(ended.is_ok(), "{ended:?}");
    }
}

#[tokio::test]
async fn a_start_beyond_the_end_is_refused_because_it_would_lose_what_comes_up_to_it() {
    let stage = Stage::new().await;
    stage.fill("fermata.commands.0", 1..=3).await;

    let error = EpochConsumer::open(&stage.broker, epoch(6)).await.expect_err("beyond the end");

    assert!(matches!(error, EpochConsumerError::EndsBefore { last: 3, wanted: 6, .. }), "{error}");
}

#[tokio::test]
async fn a_message_whose_headers_are_none_is_handed_on_as_a_foreign_one() {
    let stage = Stage::new().await;
    stage.fill("fermata.commands.0", 1..=2).await;
    publish_unreadable(&stage, "fermata.commands.0").await;
    publish_unreadable(&stage, "fermata.commands.0").await;
    stage.fill("fermata.commands.0", 5..=6).await;

    let mut consumer = EpochConsumer::open(&stage.broker, epoch(1)).await.expect("a consumer");
    let mut messages = Vec::new();
    while messages.len() < 6 {
        messages.extend(timeout(SOON, consumer.next_batch(10)).await.expect("in time").unwrap());
    }

    assert_eq!(
        messages.iter().map(|message| message.sequence).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5, 6]
    );
    assert_eq!(messages[2].writer, None);
    assert_eq!(&messages[2].payload[..], b"body");
    let position = check_position(&stage.broker, "COMMANDS_0", 3, messages[2].broker_time_ns).await;
    assert_eq!(position.expect("a position"), PositionCheck::Ok);
}

/// Publishes headers that the client library would not send, nor read.
async fn publish_unreadable(stage: &Stage, subject: &str) {
    stage.publish_block(subject, b"NATS/1.0\r\nFermata-Writer: \xff\r\n\r\n").await;
}

#[tokio::test]
async fn a_stream_that_ends_before_what_was_read_has_lost_messages() {
    let stage = Stage::new().await;
    stage.fill("fermata.journal.0", 1..=10).await;
    let reader = StreamReader::new(&stage.broker);

    let whole = reader.replay("JOURNAL_0", 11, Holes::Refused).await;
    let lost = reader.replay("JOURNAL_0", 12, Holes::Refused).await;

    assert!(whole.is_ok(), "{whole:?}");
    assert!(matches!(lost, Err(FollowError::EndsBefore { last: 10, wanted: 12, .. })));
}

#[tokio::test]
async fn purged_messages_are_a_gap_unless_holes_are_allowed() {
    let stage = Stage::new().await;
    stage.fill("fermata.journal.0", 1..=10).await;
    purge_below(&stage, "JOURNAL_0", 5).await;

    let refused = StreamReader::new(&stage.broker).replay("JOURNAL_0", 1, Holes::Refused).await;

    assert!(matches!(refused, Err(FollowError::Gap { expected: 1, got: 5, .. })));
    assert_eq!(
        replayed(&stage, "JOURNAL_0", 1, Holes::Allowed).await,
        (5..=10).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_deleted_message_is_a_gap_that_is_named_unless_holes_are_allowed() {
    let stage = Stage::new().await;
    stage.fill("fermata.dead.acme.listener", 1..=5).await;
    delete(&stage, "DEAD", 3).await;

    let mut replay =
        StreamReader::new(&stage.broker).replay("DEAD", 1, Holes::Refused).await.expect("a replay");
    let (before, gap) = rest_of(&mut replay).await;

    assert_eq!(before, [1, 2]);
    assert!(matches!(gap, Err(FollowError::Gap { expected: 3, got: 4, .. })), "{gap:?}");
    assert_eq!(replayed(&stage, "DEAD", 1, Holes::Allowed).await, [1, 2, 4, 5]);
}

#[tokio::test]
async fn a_replay_ends_although_the_last_message_was_deleted() {
    let stage = Stage::new().await;
    stage.fill("fermata.dead.acme.listener", 1..=5).await;
    delete(&stage, "DEAD", 5).await;

    assert_eq!(replayed(&stage, "DEAD", 1, Holes::Allowed).await, [1, 2, 3, 4]);
}

#[tokio::test]
async fn one_message_is_read_by_its_sequence_and_a_missing_one_is_none() {
    let stage = Stage::new().await;
    stage.fill("fermata.journal.0", 1..=2).await;
    let reader = StreamReader::new(&stage.broker);
    let mut replay = reader.replay("JOURNAL_0", 2, Holes::Refused).await.expect("a replay");

    let read = reader.read_one("JOURNAL_0", 2).await.expect("read").expect("a message");

    assert_eq!(replay.next_batch(1).await.expect("a batch"), [read]);
    assert_eq!(reader.read_one("JOURNAL_0", 3).await.expect("read"), None);
}

#[tokio::test]
async fn a_tail_waits_for_what_comes() {
    let stage = Stage::new().await;
    stage.fill("fermata.journal.0", 1..=1).await;
    let mut tail = StreamReader::new(&stage.broker)
        .tail("JOURNAL_0", 2, Holes::Allowed)
        .await
        .expect("a tail");

    let (batch, ()) =
        tokio::join!(timeout(SOON, tail.next_batch(10)), stage.fill("fermata.journal.0", 2..=2));

    assert_eq!(batch.expect("in time").expect("a batch")[0].sequence, 2);
}

#[tokio::test]
async fn a_reader_that_has_come_to_the_end_or_has_gone_leaves_no_consumer_behind() {
    let stage = Stage::new().await;
    stage.fill("fermata.journal.0", 1..=3).await;
    let core = CoreMessages::new(&stage.broker);
    let consumers = || async {
        let answer = core.request("$JS.API.CONSUMER.NAMES.JOURNAL_0", "".into(), SOON).await;
        let answer = String::from_utf8_lossy(&answer.expect("an answer").payload).into_owned();
        answer.matches("reader-").count()
    };
    let reader = StreamReader::new(&stage.broker);

    assert_eq!(replayed(&stage, "JOURNAL_0", 1, Holes::Refused).await.len(), 3);
    let mut dropped = reader.replay("JOURNAL_0", 1, Holes::Refused).await.expect("a replay");
    assert_eq!(dropped.next_batch(1).await.expect("a batch").len(), 1);
    assert!(consumers().await > 0, "the second one is still reading");
    drop(dropped);

    let gone = async {
        while consumers().await > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, gone).await.expect("consumers that go with their readers");
}

/// Bytes of the checksum that a server writes behind each message.
const CHECKSUM_BYTES: u64 = 8;

/// Flips a bit of the last message that the server has stored of a stream; it starts again and knows of it.
async fn damage_last(stage: &mut Stage, stream: &str) {
    stage.server.stop().await.expect("a stopped server");
    let store = stage.server.data_dir().join("streams/jetstream/$G/streams").join(stream);
    let block = store.join("msgs/1.blk");
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&block);
    let file = file.unwrap_or_else(|error| panic!("{}: {error}", block.display()));
    let at = file.metadata().expect("a file").len() - CHECKSUM_BYTES - 1;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("a byte");
    file.write_all_at(&[byte[0] ^ 1], at).expect("a written byte");
    stage.server.restart().await.expect("a server that starts again");
}

#[tokio::test]
async fn a_last_message_that_the_broker_cannot_read_is_a_gap_unless_holes_are_allowed() {
    let mut stage = Stage::new().await;
    stage.fill("fermata.journal.0", 1..=5).await;
    damage_last(&mut stage, "JOURNAL_0").await;

    let reader = StreamReader::new(&stage.broker);
    let mut replay = reader.replay("JOURNAL_0", 1, Holes::Refused).await.expect("a replay");
    let mut before = 0;
    let gap = loop {
        match timeout(SOON, replay.next_batch(10)).await.expect("in time") {
            Ok(batch) if batch.is_empty() => break Ok(()),
            Ok(batch) => before += batch.len(),
            Err(error) => break Err(error),
        }
    };

    assert_eq!(before, 4);
    assert!(matches!(gap, Err(FollowError::Gap { expected: 5, .. })), "{gap:?}");
    assert_eq!(replayed(&stage, "JOURNAL_0", 1, Holes::Allowed).await, [1, 2, 3, 4]);
    let mut replay = reader.replay("JOURNAL_0", 5, Holes::Allowed).await.expect("a replay");
    assert_eq!(timeout(SOON, replay.next_batch(10)).await.expect("in time").expect("none"), []);
    stage.fill("fermata.journal.0", 6..=6).await;
    let behind = timeout(SOON, replay.next_batch(10)).await.expect("in time").expect("a batch");
    assert_eq!(behind.iter().map(|message| message.sequence).collect::<Vec<_>>(), [6]);
}

#[tokio::test]
async fn commands_whose_last_one_the_broker_cannot_read_are_not_waited_for() {
    let mut stage = Stage::new().await;
    stage.fill("fermata.commands.0", 1..=3).await;
    damage_last(&mut stage, "COMMANDS_0").await;

    let mut consumer = EpochConsumer::open(&stage.broker, epoch(1)).await.expect("a consumer");
    let mut before = 0;
    let gap = loop {
        match timeout(SOON, consumer.next_batch(10)).await.expect("in time") {
            Ok(batch) => before += batch.len(),
            Err(error) => break error,
        }
    };

    assert_eq!(before, 2);
    assert!(matches!(gap, EpochConsumerError::Gap { expected: 3, .. }), "{gap:?}");
}
