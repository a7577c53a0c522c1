//! The streams between stages that run apart hold what is under way, and no more.

use std::time::Duration;

use fermata_actors::builder::BUILDER_CONSUMER;
use fermata_actors::matcher::MATCHER_CONSUMER;
use fermata_actors::{Engine, Role};
use fermata_jetstream::Durability;
use fermata_jetstream::progress::shared_progress;
use fermata_jetstream::topology::{ADMITTED_STREAM, MATCHED_STREAM};
use fermata_tests::{TestBroker, TestEngine, events};

/// The hops are looked at every ten seconds.
const LIMIT: Duration = Duration::from_secs(60);

const HOPS: [(&str, &str); 2] =
    [(ADMITTED_STREAM, MATCHER_CONSUMER), (MATCHED_STREAM, BUILDER_CONSUMER)];

/// Publishes an event, and waits until each hop has `nth` messages and all of them are taken.
async fn publish_and_take(engine: &Engine, nth: u64) {
    events::publish(&engine.ports().publisher, "demo.start", nth).await;
    for (stream, consumer) in HOPS {
        let taken = async {
            loop {
                let progress = shared_progress(&engine.ports().broker, stream, consumer).await;
                if progress.is_ok_and(|progress| progress.acknowledged_up_to >= nth) {
                    return;
                }
            }
        };
        let taken = tokio::time::timeout(LIMIT, taken).await;
        taken.unwrap_or_else(|_| panic!("{stream}: message {nth} is not taken"));
    }
}

async fn first_of(engine: &Engine, stream: &str) -> u64 {
    engine.ports().reader.stream_state(stream).await.expect("a stream").first_sequence
}

/// Waits until of each hop only what stands at `last` is left.
async fn until_purged(engine: &Engine, last: u64) {
    for (stream, _) in HOPS {
        let purged = async { while first_of(engine, stream).await < last {} };
        let purged = tokio::time::timeout(LIMIT, purged).await;
        purged.unwrap_or_else(|_| panic!("{stream}: nobody purges it up to {last}"));
        assert_eq!(first_of(engine, stream).await, last, "{stream}: the last one stays");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_engine_purges_what_was_taken_from_the_hops_again_and_again() {
    let broker = TestBroker::start(Durability::Process).await;
    let mut stages = Vec::new();
    for (role, name) in
        [(Role::Builder, "builder"), (Role::Matcher, "matcher"), (Role::Listener, "listener")]
    {
        let stage = TestEngine::at(broker.url()).named(name).with_roles([role]);
        stages.push(stage.start(broker.folder()).await);
    }
    for nth in 1..=3 {
        publish_and_take(&stages[0], nth).await;
    }

    let owner = TestEngine::at(broker.url()).named("owner").with_roles([Role::Coordinator]);
    let owner = owner.start(broker.folder()).await;
    until_purged(&owner, 3).await;
    publish_and_take(&owner, 4).await;
    until_purged(&owner, 4).await;

    owner.shut_down().await;
    for stage in stages {
        stage.shut_down().await;
    }
}
