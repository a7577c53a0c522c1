//! What came of events can't be stored: the rest of a batch that is spilled, or what was taken from
//! lanes by a worker that ends.

use fermata_actors::listener::LISTENER_CONSUMER;
use fermata_jetstream::topology::{EVENTS_STREAM, commands_stream};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_a_lane_is_not_stored_there_again_because_the_rest_of_its_batch_fails() {
    const MESSAGES: u64 = 10;
    const TOGETHER: u64 = 300;
    const AGAIN: u64 = 4;
    let broker = TestBroker::start(Durability::Process).await;
    let mut accepted = spilled(&broker, LANES.into()).await;
    let matcher = connect(&broker).await;
    let held = hold_lanes(&matcher, 1).await;
    let engine = TestEngine::at(broker.url()).start(broker.folder()).await;
    engine.ready().await;
    let commands = ["0", "1"].map(commands_stream);
    let mut sizes = Vec::new();
    for stream in &commands {
        sizes.push(edit(&broker, stream, "max_msg_size", 1.into()).await);
    }

    for message in 0..MESSAGES {
        let ids = message * TOGETHER..(message + 1) * TOGETHER;
        accepted.extend(publish_together(&engine, "others", ids).await);
        accepted.extend(publish_together(&engine, "quiet", message..message + 1).await);
    }
    let info = format!("CONSUMER.INFO.{EVENTS_STREAM}.{LISTENER_CONSUMER}");
    let tried = async {
        let sent = u64::from(LANES) + 2 * MESSAGES;
        // Each of the quiet ones comes again and again.
        loop {
            let info = api(&broker, &info, &json!({})).await;
            let delivered = info["delivered"]["consumer_seq"].as_u64().expect("a number");
            if delivered >= sent + AGAIN * MESSAGES {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, tried).await.expect("tried in time");
    let stored = in_lanes(&engine).await;
    let flood = (MESSAGES * TOGETHER) as usize;
    assert!(stored.len() > flood / 2, "{} of {flood} were spilled", stored.len());
    let copies: Vec<_> = stored.iter().filter(|(_, times)| **times > 1).collect();
    assert!(copies.is_empty(), "{} are in a lane more than once: {:?}", copies.len(), copies[0]);

    for (stream, size) in commands.iter().zip(sizes) {
        edit(&broker, stream, "max_msg_size", size).await;
    }
    for delivery in held {
        delivery.acker.nak(Duration::ZERO).await;
    }
    matcher.flush().await;
    let reader = &engine.ports().reader;
    let decided = |records: &[Entry]| count(records, Kind::EventUnmatched);
    let all = accepted.len();
    let found = records_until(reader, 2, LIMIT, |records| decided(records) == all).await;
    assert_eq!(invariant_each_event_has_one_outcome(&found, accepted), [""; 0]);
    drained(&engine).await;
    engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_ends_gives_marks_back_before_all_that_it_took_is_settled() {
    /// Less than what is taken may take to be settled.
    const SOON: Duration = Duration::from_secs(5);
    let broker = TestBroker::start(Durability::Process).await;
    spilled(&broker, LANES.into()).await;
    let matcher = connect(&broker).await;
    let held = hold_lanes(&matcher, 1).await;
    let engine = TestEngine::at(broker.url()).start(broker.folder()).await;
    engine.ready().await;
    let mut zero = Swallowed::new(&broker, &engine, &commands_stream("0")).await;
    let mut one = Swallowed::new(&broker, &engine, &commands_stream("1")).await;
    for delivery in held {
        delivery.acker.nak(Duration::ZERO).await;
    }
    matcher.flush().await;
    tokio::select! {
        _ = zero.next() => {}
        _ = one.next() => {}
    }

    let ending = tokio::spawn(engine.shut_down());
    let options = SharedConsumerOptions::new(ADMITTED_STREAM, MATCHER_CONSUMER);
    let mut consumer = SharedConsumer::open(&matcher, options).await.expect("a consumer");
    let given = tokio::time::timeout(SOON, consumer.next_batch(1)).await;

    let given = given.expect("given back in time").expect("a batch");
    assert!(AdmittedFrame::mark(&given[0].payload).is_some(), "not a mark");
    ending.await.expect("it ends");
}
