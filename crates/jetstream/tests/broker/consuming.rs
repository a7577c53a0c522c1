//! Reading, following and sharing streams, against the real broker.

use std::{collections::BTreeSet, time::Duration};

use crate::support::{SOON, Stage, number};
use fermata_jetstream::{
    EpochConsumer, EpochConsumerError, EpochConsumerOptions, PositionCheck, SharedConsumer,
    SharedConsumerOptions,
    epoch_consumer::check_position,
    progress::{SharedProgress, shared_progress},
    reader::{FollowError, Holes, StreamReader},
    shared_consumer::ack_all_of,
};
use tokio::time::timeout;

async fn delete(stage: &Stage, stream: &str, sequence: u64) {
    let core = fermata_jetstream::core_messages::CoreMessages::new(&stage.broker);
    let body = format!("{{\"seq\":{sequence}}}");
    let answer = core
        .request(&format!("$JS.API.STREAM.MSG.DELETE.{stream}"), body.into(), SOON)
        .await
        .expect("an answer");
    assert!(String::from_utf8_lossy(&answer.payload).contains("\"success\":true"), "{answer:?}");
}

async fn purge_below(stage: &Stage, stream: &str, first_kept: u64) {
    let core = fermata_jetstream::core_messages::CoreMessages::new(&stage.broker);
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
    let mut sequences = Vec::new();
    loop {
        let batch = timeout(SOON, replay.next_batch(700)).await.expect("in time").expect("a batch");
        if batch.is_empty() {
            return sequences;
        }
        sequences.extend(batch.iter().map(|message| message.sequence));
    }
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
    assert_eq!(replay.next_batch(10).await.expect("a batch").len(), 3);
    assert!(replay.next_batch(10).await.expect("a batch").is_empty());

    stage.fill("fermata.journal.0", 4..=5).await;

    let batch = timeout(SOON, replay.next_batch(10)).await.expect("in time").expect("a batch");
    assert_eq!(batch.iter().map(|message| number(&message.payload)).collect::<Vec<_>>(), [4, 5]);
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let url = stage.server.url();
    let address = url.trim_start_matches("nats://");
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
    let block = b"NATS/1.0\r\nFermata-Writer: \xff\r\n\r\n";
    let sizes = format!("{} {}", block.len(), block.len() + 4);
    let connect = "CONNECT {\"verbose\":false,\"headers\":true}\r\n";
    let start = format!("{connect}HPUB {subject} {sizes}\r\n");
    let sent = [start.as_bytes(), block, b"body\r\nPING\r\n"].concat();
    stream.write_all(&sent).await.expect("sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"PONG\r\n") {
        let mut chunk = [0; 4096];
        let bytes = stream.read(&mut chunk).await.expect("an answer");
        assert!(bytes > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&chunk[..bytes]);
    }
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
    let before = replay.next_batch(10).await.expect("what lies before the gap");
    let gap = timeout(SOON, replay.next_batch(10)).await.expect("in time");

    assert_eq!(before.len(), 2);
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

fn epoch(start: u64) -> EpochConsumerOptions {
    EpochConsumerOptions {
        stream: "COMMANDS_0".to_owned(),
        epoch: 7,
        incarnation: "0af3".to_owned(),
        start,
    }
}

async fn consume(consumer: &mut EpochConsumer, until: u64) -> Vec<u64> {
    let mut sequences = Vec::new();
    while sequences.last() != Some(&until) {
        let batch =
            timeout(SOON, consumer.next_batch(1_000)).await.expect("in time").expect("a batch");
        sequences.extend(batch.iter().map(|message| message.sequence));
    }
    sequences
}

#[tokio::test]
async fn commands_stay_contiguous_over_a_crash_of_the_server() {
    let mut stage = Stage::new().await;
    stage.fill("fermata.commands.0", 1..=2_000).await;
    let mut consumer = EpochConsumer::open(&stage.broker, epoch(1)).await.expect("a consumer");
    let mut sequences = consume(&mut consumer, 2_000).await;

    stage.server.kill().await.expect("killed");
    stage.server.restart().await.expect("restarted");
    timeout(SOON, stage.broker.connected()).await.expect("connected again");
    stage.fill("fermata.commands.0", 2_001..=2_500).await;
    sequences.extend(consume(&mut consumer, 2_500).await);

    assert_eq!(sequences, (1..=2_500).collect::<Vec<_>>());
    assert!(consumer.consumers_made() > 1);
}

#[tokio::test]
async fn a_consumer_that_the_broker_forgot_is_made_again_at_the_right_place() {
    let stage = Stage::new().await;
    let mut consumer = EpochConsumer::open(&stage.broker, epoch(1)).await.expect("a consumer");
    stage.fill("fermata.commands.0", 1..=10).await;
    let mut sequences = consume(&mut consumer, 10).await;
    let core = fermata_jetstream::core_messages::CoreMessages::new(&stage.broker);

    let name = "epoch-7-0af3-1";
    let deleted = core
        .request(&format!("$JS.API.CONSUMER.DELETE.COMMANDS_0.{name}"), "".into(), SOON)
        .await
        .expect("an answer");
    stage.fill("fermata.commands.0", 11..=20).await;
    sequences.extend(consume(&mut consumer, 20).await);

    assert!(String::from_utf8_lossy(&deleted.payload).contains("\"success\":true"));
    assert_eq!(sequences, (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn deliveries_that_another_reader_took_are_noticed_and_asked_for_again() {
    let stage = Stage::new().await;
    let mut consumer = EpochConsumer::open(&stage.broker, epoch(1)).await.expect("a consumer");
    let core = fermata_jetstream::core_messages::CoreMessages::new(&stage.broker);

    // A thief pulls from the same consumer, so that the broker believes that these were delivered to us.
    let thief = "$JS.API.CONSUMER.MSG.NEXT.COMMANDS_0.epoch-7-0af3-1";
    let stolen = core.request(thief, "1".into(), SOON);
    let (stolen, ()) = tokio::join!(stolen, stage.fill("fermata.commands.0", 1..=1));
    stage.fill("fermata.commands.0", 2..=5).await;
    let sequences = consume(&mut consumer, 5).await;

    stolen.expect("the thief has the first");
    assert_eq!(sequences, [1, 2, 3, 4, 5]);
    assert!(consumer.consumers_made() > 1);
}

#[tokio::test]
async fn silence_after_a_stolen_delivery_is_noticed_without_anything_new_coming() {
    let stage = Stage::new().await;
    let mut consumer = EpochConsumer::open(&stage.broker, epoch(1)).await.expect("a consumer");
    let core = fermata_jetstream::core_messages::CoreMessages::new(&stage.broker);

    let thief = "$JS.API.CONSUMER.MSG.NEXT.COMMANDS_0.epoch-7-0af3-1";
    let (stolen, ()) = tokio::join!(
        core.request(thief, "1".into(), SOON),
        stage.fill("fermata.commands.0", 1..=1)
    );
    stolen.expect("the thief has it");

    assert_eq!(consume(&mut consumer, 1).await, [1]);
}

#[tokio::test]
async fn a_recorded_position_is_checked_against_what_the_stream_holds() {
    let stage = Stage::new().await;
    stage.fill("fermata.commands.0", 1..=3).await;
    let second = StreamReader::new(&stage.broker)
        .read_one("COMMANDS_0", 2)
        .await
        .expect("read")
        .expect("a message");
    let time = second.broker_time_ns;
    let check = async |sequence, time| {
        check_position(&stage.broker, "COMMANDS_0", sequence, time).await.expect("checked")
    };

    assert_eq!(check(0, 0).await, PositionCheck::Ok);
    assert_eq!(check(2, time).await, PositionCheck::Ok);
    assert_eq!(
        check(2, time + 1).await,
        PositionCheck::DifferentTimestamp { recorded_ns: time + 1, found_ns: time }
    );
    assert_eq!(check(9, time).await, PositionCheck::StreamEndsBefore { last: 3 });
    purge_below(&stage, "COMMANDS_0", 3).await;
    assert_eq!(check(2, time).await, PositionCheck::Purged { first: 3 });
}

#[tokio::test]
async fn two_workers_share_a_stream_and_every_message_is_handed_out_once() {
    let stage = Stage::new().await;
    let options = || SharedConsumerOptions {
        pull_messages: 50,
        ..SharedConsumerOptions::new("EVENTS", "listener")
    };
    let mut one = SharedConsumer::open(&stage.broker, options()).await.expect("a consumer");
    let mut other = SharedConsumer::open(&stage.broker, options()).await.expect("a consumer");
    stage.fill("fermata.events.acme.order", 1..=2_000).await;

    let (mut seen, mut deliveries) = (BTreeSet::new(), 0);
    while seen.len() < 2_000 {
        let batch = tokio::select! {
            batch = one.next_batch(100) => batch,
            batch = other.next_batch(100) => batch,
            () = tokio::time::sleep(SOON) => panic!("only {} came", seen.len()),
        };
        let batch = batch.expect("a batch");
        deliveries += batch.len();
        seen.extend(batch.iter().map(|delivery| delivery.stream_sequence));
        ack_all_of(batch.into_iter().map(|delivery| delivery.acker).collect()).await;
    }

    assert_eq!(deliveries, 2_000);
}

#[tokio::test]
async fn what_is_not_acknowledged_comes_again_and_what_is_does_not() {
    let stage = Stage::new().await;
    let options = SharedConsumerOptions {
        acknowledge_within: Duration::from_millis(500),
        ..SharedConsumerOptions::new("EVENTS", "listener")
    };
    let mut consumer = SharedConsumer::open(&stage.broker, options).await.expect("a consumer");
    stage.fill("fermata.events.acme.order", 1..=3).await;
    let mut first = Vec::new();
    while first.len() < 3 {
        first.extend(consumer.next_batch(3 - first.len()).await.expect("a batch"));
    }

    let forgotten = first.remove(1);
    ack_all_of(first.into_iter().map(|delivery| delivery.acker).collect()).await;
    let again = timeout(SOON, consumer.next_batch(10)).await.expect("in time").expect("a batch");

    assert_eq!(again.len(), 1);
    assert_eq!(
        (again[0].stream_sequence, again[0].delivered_count),
        (forgotten.stream_sequence, 2)
    );
}

#[tokio::test]
async fn what_waits_untaken_is_delivered_once_while_it_is_kept_and_to_another_once_given_back() {
    let stage = Stage::new().await;
    let acknowledge_within = Duration::from_secs(2);
    let options = || SharedConsumerOptions {
        acknowledge_within,
        ..SharedConsumerOptions::new("EVENTS", "listener")
    };
    let mut consumer = SharedConsumer::open(&stage.broker, options()).await.expect("a consumer");
    stage.fill("fermata.events.acme.order", 1..=5).await;
    let mut taken = Vec::new();
    while taken.is_empty() {
        taken = consumer.next_batch(1).await.expect("a batch");
    }

    let mut tick = tokio::time::interval(acknowledge_within / 4);
    for _ in 0..8 {
        tick.tick().await;
        taken[0].acker.in_progress().await;
        consumer.keep().await;
    }
    while taken.len() < 3 {
        taken.extend(consumer.next_batch(3 - taken.len()).await.expect("a batch"));
    }
    assert!(taken.iter().all(|delivery| delivery.delivered_count == 1), "{taken:?}");

    let mut other = SharedConsumer::open(&stage.broker, options()).await.expect("a consumer");
    consumer.give_back().await;
    let mut given = BTreeSet::new();
    while !given.is_superset(&[4, 5].into()) {
        let batch = timeout(SOON, other.next_batch(10)).await.expect("in time").expect("a batch");
        given.extend(batch.iter().map(|delivery| delivery.stream_sequence));
    }
}

#[tokio::test]
async fn a_message_put_off_comes_again() {
    let stage = Stage::new().await;
    let options = SharedConsumerOptions::new("EVENTS", "listener");
    let mut consumer = SharedConsumer::open(&stage.broker, options).await.expect("a consumer");
    stage.fill("fermata.events.acme.order", 1..=1).await;

    for delivered in 1..=7 {
        let mut batch =
            timeout(SOON, consumer.next_batch(1)).await.expect("in time").expect("a batch");
        let delivery = batch.remove(0);
        assert_eq!(delivery.delivered_count, delivered);
        delivery.acker.in_progress().await;
        delivery.acker.nak(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn nothing_from_before_a_lost_connection_is_acknowledged_after_it() {
    let mut stage = Stage::new().await;
    let options = SharedConsumerOptions {
        acknowledge_within: Duration::from_secs(2),
        ..SharedConsumerOptions::new("EVENTS", "listener")
    };
    let mut consumer = SharedConsumer::open(&stage.broker, options).await.expect("a consumer");
    stage.fill("fermata.events.acme.order", 1..=1).await;
    let before = consumer.next_batch(1).await.expect("a batch").remove(0);

    stage.server.kill().await.expect("killed");
    stage.server.restart().await.expect("restarted");
    timeout(SOON, async {
        while before.acker.is_current() {
            tokio::task::yield_now().await;
        }
        stage.broker.connected().await;
    })
    .await
    .expect("connected again");
    before.acker.ack().await;
    let after = timeout(SOON, consumer.next_batch(1)).await.expect("in time").expect("a batch");

    assert_eq!(after[0].stream_sequence, 1);
    assert!(after[0].acker.is_current());
}

#[tokio::test]
async fn a_message_deleted_at_the_end_is_a_gap_and_not_the_end() {
    let stage = Stage::new().await;
    stage.fill("fermata.dead.acme.listener", 1..=5).await;
    delete(&stage, "DEAD", 5).await;
    let options = EpochConsumerOptions { stream: "DEAD".to_owned(), ..epoch(5) };

    let mut replay =
        StreamReader::new(&stage.broker).replay("DEAD", 5, Holes::Refused).await.expect("a replay");
    let replayed = timeout(SOON, replay.next_batch(10)).await.expect("in time");
    let mut consumer = EpochConsumer::open(&stage.broker, options).await.expect("a consumer");
    let consumed = timeout(SOON, consumer.next_batch(10)).await.expect("in time");

    assert!(matches!(replayed, Err(FollowError::Gap { expected: 5, got: 6, .. })), "{replayed:?}");
    assert!(
        matches!(consumed, Err(EpochConsumerError::Gap { expected: 5, got: 6, .. })),
        "{consumed:?}"
    );
}

#[tokio::test]
async fn a_stream_that_lost_what_was_received_stops_its_consumer() {
    let mut stage = Stage::new().await;
    stage.fill("fermata.commands.0", 1..=10).await;
    let mut consumer = EpochConsumer::open(&stage.broker, epoch(1)).await.expect("a consumer");
    consume(&mut consumer, 10).await;

    // What a restore of an older copy of the data looks like.
    stage.server.stop().await.expect("stopped");
    let stream = stage.server.data_dir().join("streams/jetstream/$G/streams/COMMANDS_0/msgs");
    std::fs::remove_dir_all(&stream).expect("the messages are gone");
    stage.server.restart().await.expect("restarted");
    let lost = timeout(SOON, consumer.next_batch(10)).await.expect("in time");

    assert!(
        matches!(lost, Err(EpochConsumerError::EndsBefore { last: 0, wanted: 11, .. })),
        "{lost:?}"
    );
}

#[tokio::test]
async fn the_progress_of_a_shared_consumer_ends_where_acknowledgements_have_a_hole() {
    let stage = Stage::new().await;
    let options = SharedConsumerOptions::new("EVENTS", "listener");
    let mut consumer = SharedConsumer::open(&stage.broker, options).await.expect("a consumer");
    stage.fill("fermata.events.acme.order", 1..=5).await;
    let mut held = Vec::new();
    while held.len() < 5 {
        held.extend(consumer.next_batch(5).await.expect("a batch"));
    }

    let third = held.remove(2);
    ack_all_of(held.into_iter().map(|delivery| delivery.acker).collect()).await;
    let progress = timeout(SOON, async {
        loop {
            let progress =
                shared_progress(&stage.broker, "EVENTS", "listener").await.expect("an answer");
            if progress.unacknowledged == 1 {
                return progress;
            }
        }
    })
    .await
    .expect("four are acknowledged");

    assert_eq!(
        progress,
        SharedProgress { acknowledged_up_to: 2, unacknowledged: 1, redelivered: 0, waiting: 0 }
    );
    third.acker.ack().await;
}
