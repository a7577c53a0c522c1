//! Which events are needed is asked of every worker that lives: one that keeps its lease and does
//! not answer may own any partition, so EVENTS is not purged, and it is told why.

use std::time::Duration;

use fermata_actors::Engine;
use fermata_actors::status_service::StatusQuestion;
use fermata_jetstream::core_messages::CoreMessages;
use fermata_jetstream::leases::{Acquired, Lease, Leases, Renewed, leaving_key, worker_key};
use fermata_jetstream::purge::room_of;
use fermata_jetstream::topology::{EVENTS_STREAM, LEASE_TTL};
use fermata_jetstream::{Broker, ConnectOptions, Durability, StreamReader};
use fermata_tests::engine::all_owned;
use fermata_tests::{TestBroker, TestEngine, events};
use fermata_wire::subjects;
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(90);

/// A worker that lives, and to which no partition is given: it is about to leave.
async fn lives(broker: &Broker, worker: &'static str) {
    let leases = Leases::open(broker).await.expect("leases");
    let mut held = Vec::<Lease>::new();
    for key in [leaving_key(worker), worker_key(worker)] {
        match leases.acquire(&key, worker.into()).await.expect("an answer") {
            Acquired::Granted(lease) => held.push(lease),
            Acquired::HeldBy(other) => panic!("{other:?}"),
        }
    }
    tokio::spawn(async move {
        let mut renewals = tokio::time::interval(LEASE_TTL / 5);
        loop {
            renewals.tick().await;
            for lease in &mut held {
                if let Ok(Renewed::Renewed(renewed)) = leases.renew(lease).await {
                    *lease = renewed;
                }
            }
        }
    });
}

/// Why the control partition says that EVENTS is not purged.
async fn held(engine: &Engine) -> Option<String> {
    let status = engine.status().await;
    status.into_iter().find(|one| one.partition == "control").and_then(|one| one.events_held)
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_not_purged_before_every_worker_that_lives_has_answered() {
    let broker = TestBroker::start(Durability::Process).await;
    let engine = TestEngine::at(broker.url()).start(broker.folder()).await;
    all_owned(&[&engine], 3).await;
    let connection = Broker::connect(&broker.url(), ConnectOptions::default()).await;
    let connection = connection.expect("a connection");
    lives(&connection, "quiet").await;
    let core = CoreMessages::new(&connection);
    let mut questions = core.subscribe(subjects::STATUS).await.expect("a subscription");
    let client = async_nats::connect(broker.url()).await.expect("a connection");
    let jetstream = async_nats::jetstream::new(client);
    let stream = jetstream.get_stream(EVENTS_STREAM).await.expect("a stream");
    let config = stream.cached_info().config.clone();
    let config = async_nats::jetstream::stream::Config { max_bytes: 20_000, ..config };
    jetstream.update_stream(config).await.expect("less room");
    let mut id = 0;
    loop {
        let room = room_of(&connection, EVENTS_STREAM).await.expect("a stream");
        if room.bytes * 100 >= room.max_bytes * 90 {
            break;
        }
        id = events::publish(&engine.ports().publisher, "demo.start", id).await;
    }
    let reader = StreamReader::new(&connection);
    let first = async || reader.stream_state(EVENTS_STREAM).await.expect("a stream").first_sequence;

    // When the janitor asks again, it has given up what it asked before.
    let asked = async {
        for _ in 0..3 {
            questions.next().await.expect("a question");
        }
    };
    tokio::time::timeout(LIMIT, asked).await.expect("the janitor asks");
    assert_eq!(first().await, 1, "what a worker may need is purged");
    let told = held(&engine).await.expect("a reason");
    assert!(told.contains("no answer from quiet"), "{told}");

    let answered = async {
        while first().await == 1 {
            let question = questions.next().await.expect("a question");
            let question = serde_json::from_slice::<StatusQuestion>(&question.payload);
            let answer = json!({ "worker": "quiet", "version": "0", "partitions": [] });
            let reply_to = question.expect("a question").reply_to;
            core.publish_core(reply_to, answer.to_string().into()).await.expect("sent");
            // The purge comes right behind the answers, or with the next asking.
            let purged = async {
                while first().await == 1 {
                    tokio::task::yield_now().await;
                }
            };
            let _ = tokio::time::timeout(Duration::from_secs(5), purged).await;
        }
    };
    tokio::time::timeout(LIMIT, answered).await.expect("purged in time");
    assert_eq!(held(&engine).await, None);
    engine.shut_down().await;
}
