//! How much of DEAD one tenant may take.

use fermata_jetstream::topology::DEAD_STREAM;
use fermata_jetstream::{Bytes, Publisher, PublisherOptions, StreamReader};
use fermata_wire::dead::DeadLetter;
use serde_json::Value;

use crate::engine::RunningEngine;
use crate::process::LOOK_INTERVAL;
use crate::support::SOON;

/// Messages that are no events, each as large as fits a letter with what is said about it.
const FLOOD_MESSAGES: u64 = 80;
const FLOOD_BYTES: usize = 900 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_floods_the_dead_letters_leaves_those_of_others() {
    // DEAD has 48 MiB, EVENTS 190.
    let engine = RunningEngine::start(&["--partitions", "1", "--stream-room", "2GiB"], &[]).await;
    let broker = engine.broker().await;
    let reader = StreamReader::new(&broker);
    let publisher = Publisher::new(&broker, PublisherOptions::default()).await;
    let publisher = publisher.expect("a publisher");
    let publish = async |subject: &str, bytes: Bytes| {
        let stored = publisher.publish(subject.to_owned(), None, bytes).await.await;
        stored.sequence().unwrap_or_else(|| panic!("{stored:?}"));
    };
    let filed = async |expected: u64| {
        let filed = async {
            loop {
                let state = reader.stream_state(DEAD_STREAM).await.expect("a stream");
                if state.last_sequence >= expected {
                    return state;
                }
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        };
        let state = tokio::time::timeout(SOON, filed).await;
        state.unwrap_or_else(|_| panic!("{}", engine.up.logs.all()))
    };

    publish("fermata.events.quiet.a", Bytes::from_static(b"{half")).await;
    filed(1).await;
    for number in 0..FLOOD_MESSAGES {
        publish("fermata.events.loud.a", vec![b'x'; FLOOD_BYTES].into()).await;
        filed(number + 2).await;
    }
    publish("fermata.events.loud.a", Bytes::from_static(b"{small")).await;
    let state = filed(FLOOD_MESSAGES + 2).await;

    assert_eq!(state.messages, FLOOD_MESSAGES + 2, "nothing was pushed out: {state:?}");
    let listed = engine.do_it(&["dead", "list", "--tenant", "quiet", "--json"]).await;
    let letter: Value = serde_json::from_str(&listed).expect("one letter");
    assert_eq!(letter["id"], "1.0");
    let letter = async |sequence| {
        let message = reader.read_one(DEAD_STREAM, sequence).await.expect("a stream");
        DeadLetter::decode(&message.expect("a letter").payload).expect("a letter")
    };
    assert!(!letter(1).await.original.is_empty());
    let bare = letter(FLOOD_MESSAGES + 1).await;
    assert!(bare.original.is_empty() && bare.reason == "too_large", "{}", bare.detail);
    let told = format!("the original of {FLOOD_BYTES} bytes is left out");
    assert!(bare.detail.contains(&told), "{}", bare.detail);
    // A small one has room all the same.
    assert_eq!(letter(FLOOD_MESSAGES + 2).await.original, "{small");
    assert!(engine.up.logs.all().contains("filed without its original bytes"));
}
