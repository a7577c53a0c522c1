//! Bytes that are no message of ours, on every subject that is consumed:
//! nothing stops, the good goes on, and what was refused can be found.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use fermata_actors::Engine;
use fermata_actors::definitions::ACTIVE_KEY;
use fermata_core::identity::PartitionId;
use fermata_core::record::Kind;
use fermata_jetstream::{Durability, PublishOutcome, StreamReader};
use fermata_tests::engine::{all_owned, start_apart};
use fermata_tests::journal::{count, records_of_until, records_until};
use fermata_tests::{TestBroker, TestEngine, audit, definitions, events, garbage};
use fermata_wire::MessageKind;
use fermata_wire::commands::CommandFrame;
use fermata_wire::dead::DeadLetter;
use fermata_wire::stages::{AdmittedFrame, MatchedFrame, StageFrame};
use fermata_wire::subjects;

const LIMIT: Duration = Duration::from_secs(60);
const PARTITIONS: [PartitionId; 3] = [PartitionId(0), PartitionId(1), PartitionId::CONTROL];
const SEED: u64 = 0x5eed;

const WORKFLOW: &str = "
workflow: { name: one, version: '1', tasks: [{ id: a, noop: {} }] }
";
const STRATEGIES: &str = "
strategies:
  - { name: start, version: 1, tenant: '*', on: demo.start, workflow: { name: one, version: '1' } }
";

async fn publish(engine: &Engine, subject: &str, payload: Bytes) {
    let outcome = engine.ports().publisher.publish(subject.to_owned(), None, payload).await.await;
    assert!(matches!(outcome, PublishOutcome::Stored { .. }), "{subject}: {outcome:?}");
}

async fn publish_good(engine: &Engine, ids: std::ops::Range<u64>) {
    for id in ids {
        events::publish(&engine.ports().publisher, "demo.start", id).await;
    }
}

/// How many dead letters there are by stage and reason, each id once.
async fn dead_letters(reader: &StreamReader) -> BTreeMap<(String, String), usize> {
    let mut letters = BTreeMap::new();
    for message in audit::messages(reader, "DEAD").await {
        let letter = DeadLetter::decode(&message.payload).expect("a dead letter");
        letters.insert(letter.id, (letter.stage, letter.reason));
    }
    let mut counted = BTreeMap::new();
    for letter in letters.into_values() {
        *counted.entry(letter).or_default() += 1;
    }
    counted
}

fn garbage_of(kind: MessageKind) -> Vec<(&'static str, Bytes)> {
    let sound = match kind {
        MessageKind::Commands => CommandFrame { floor: 0, commands: Vec::new() }.encode(),
        MessageKind::Admitted => AdmittedFrame { events: Vec::new() }.encode(),
        _ => MatchedFrame { events: Vec::new() }.encode(),
    };
    garbage::messages(kind, &sound.expect("a frame"), SEED)
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_every_subject_is_recorded_and_filed_and_the_good_goes_on() {
    let broker = TestBroker::start(Durability::Process).await;
    let engine = TestEngine::at(broker.url()).start(broker.folder()).await;
    engine.ready().await;
    definitions::apply_yaml(&engine, &[WORKFLOW], STRATEGIES).await;
    publish_good(&engine, 0..10).await;

    let noise = garbage::messages(MessageKind::Commands, b"\x80", SEED);
    for partition in PARTITIONS {
        for (_, bytes) in &noise {
            publish(&engine, &subjects::journal(partition), bytes.clone()).await;
        }
        for (_, bytes) in garbage_of(MessageKind::Commands) {
            publish(&engine, &subjects::commands(partition), bytes).await;
        }
    }
    for (_, bytes) in &noise {
        publish(&engine, "fermata.events.acme.demo.start", bytes.clone()).await;
        engine.ports().store.put(ACTIVE_KEY, bytes.clone()).await.expect("a stored definition");
    }
    publish(&engine, "fermata.events._nobody.demo.start", Bytes::new()).await;
    publish_good(&engine, 10..20).await;

    let each = noise.len();
    let reader = &engine.ports().reader;
    let records = records_of_until(reader, &PARTITIONS, LIMIT, |records| {
        count(records, Kind::RunSucceeded) == 20
            && count(records, Kind::DeadFiled) == 3 * each
            && count(records, Kind::EventRejected) == each + 1
            && count(records, Kind::ForeignSkipped) == 3 * each
    })
    .await;
    assert_eq!(count(&records, Kind::CommandPoisoned), 3 * each);
    let dead = dead_letters(reader).await;
    let of = |stage: &str, reason: &str| {
        dead.get(&(stage.to_owned(), reason.to_owned())).copied().unwrap_or(0)
    };
    assert_eq!(of("coordinator", "newer_version"), 3, "{dead:?}");
    assert_eq!(of("coordinator", "wrong_kind"), 3, "{dead:?}");
    assert_eq!(of("coordinator", "trailing_bytes"), 3, "{dead:?}");
    assert_eq!(of("coordinator", "malformed"), 3 * (each - 3), "{dead:?}");
    let by_listener = dead.iter().filter(|((stage, _), _)| stage == "listener");
    assert_eq!(by_listener.map(|(_, count)| count).sum::<usize>(), each + 1, "{dead:?}");
    engine.shut_down().await;

    // Who comes next reads over all of it.
    let next = TestEngine::at(broker.url()).start(broker.folder()).await;
    next.ready().await;
    definitions::apply_yaml(&next, &[WORKFLOW], STRATEGIES).await;
    publish_good(&next, 20..25).await;
    let reader = &next.ports().reader;
    records_until(reader, 2, LIMIT, |records| count(records, Kind::RunSucceeded) == 25).await;
    next.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_between_stages_is_filed_and_what_a_newer_program_wrote_waits() {
    let broker = TestBroker::start(Durability::Process).await;
    let workers = start_apart(&broker).await;
    let engine = &workers[0];
    all_owned(&[engine], 3).await;
    definitions::apply_yaml(engine, &[WORKFLOW], STRATEGIES).await;

    let (admitted, matched) = (garbage_of(MessageKind::Admitted), garbage_of(MessageKind::Matched));
    for ((_, one), (_, other)) in admitted.iter().zip(&matched) {
        publish(engine, subjects::ADMITTED, one.clone()).await;
        publish(engine, subjects::MATCHED, other.clone()).await;
    }
    publish_good(engine, 0..10).await;

    let reader = &engine.ports().reader;
    records_until(reader, 2, LIMIT, |records| count(records, Kind::RunSucceeded) == 10).await;
    let filed = async {
        loop {
            let dead = dead_letters(reader).await;
            if dead.values().sum::<usize>() == 2 * (admitted.len() - 1) {
                return dead;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let dead = tokio::time::timeout(LIMIT, filed).await.expect("dead letters in time");
    for stage in ["matcher", "builder"] {
        let of = |reason: &str| dead.get(&(stage.to_owned(), reason.to_owned())).copied();
        assert_eq!(of("newer_version"), None, "{dead:?}");
        assert_eq!(of("wrong_kind"), Some(1), "{dead:?}");
    }
}
