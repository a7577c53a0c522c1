//! Following by position and sharing streams, against the real broker.

use std::{collections::BTreeSet, time::Duration};

use fermata_jetstream::{
    EpochConsumer, EpochConsumerError, EpochConsumerOptions, PositionCheck, SharedConsumer,
    SharedConsumerOptions,
    epoch_consumer::check_position,
    progress::{SharedProgress, shared_progress},
    reader::{FollowError, Holes, StreamReader},
    shared_consumer::ack_all_of,
};
use tokio::time::timeout;

use crate::reading::{delete, purge_below};
use crate::support::{SOON, Stage};

pub fn epoch(start: u64) -> EpochConsumerOptions {
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
        acknowledge_within: Duration::from_secs(2),
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

    // More than once where this thread stood for as long.
    assert_eq!(again[0].delivered_count, 2);
    assert!(again.iter().all(|more| more.stream_sequence == forgotten.stream_sequence));
}

#[tokio::test]
async fn what_waits_untaken_is_delivered_once_while_it_is_kept_and_to_another_once_given_back() {
    let stage = Stage::new().await;
    let acknowledge_within = Duration::from_secs(4);
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

    let mut tick = tokio::time::interval(acknowledge_within / 8);
    for _ in 0..12 {
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
