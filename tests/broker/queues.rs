//! Named task queues: who runs what, how often, and what becomes of workers that
//! die, tasks that are poison, and results that come late.

mod connections;
mod handing_back;
mod scene;
mod taking_back;

use std::collections::BTreeSet;
use std::time::Duration;

use fermata_core::command::{CancelCommand, Command, OutcomeCommand};
use fermata_core::effect::Outcome;
use fermata_core::identity::RunId;
use fermata_core::json::Json;
use fermata_core::plan::FailureClass;
use fermata_core::record::{Body, Kind};
use fermata_jetstream::work_queue::{message_id, queue_standings};
use fermata_jetstream::{Bytes, PublishOutcome, Refusal};
use fermata_tests::journal::{Entry, count, kinds_of, of_run};
use fermata_tests::{TestEngine, definitions};
use fermata_wire::dead::DeadLetter;
use fermata_wire::subjects;
use fermata_wire::tasks::{TaskId, TaskMessage};
use uuid::Uuid;

use scene::{LIMIT, Scene, WAIT, asking, header};

/// Class and text with which a node failed for good, if one did.
fn failure(records: &[Entry]) -> Option<(FailureClass, String)> {
    records.iter().find_map(|(_, record)| match &record.body {
        Body::NodeFailed(failed) => Some((failed.class, failed.detail.clone())),
        _ => None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_serve_a_queue_and_run_each_task_once() {
    const TASKS: usize = 24;
    let mut scene = Scene::with(&asking("timeout: 60s", "")).await;
    let one = scene.worker("one", 3).await;
    let other = scene.worker("other", 3).await;

    for id in 1..=TASKS as u64 {
        scene.publish(id).await;
    }
    // Six are under way at a time, three at each: only both together get that far.
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(scene.question().await);
    }
    let mut keys =
        held.iter().map(|question| header(question, "idempotency-key")).collect::<Vec<_>>();
    for question in &held {
        scene.answer(question).await;
    }
    while keys.len() < TASKS {
        let question = scene.question().await;
        keys.push(header(&question, "idempotency-key"));
        scene.answer(&question).await;
    }

    let records = scene.until_kinds(Kind::RunSucceeded, TASKS).await;
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), TASKS, "each was asked once");
    assert_eq!(count(&records, Kind::NodeDispatched), TASKS);
    assert_eq!(count(&records, Kind::EffectLate), 0);
    assert!(!scene.is_asked_within(2 * WAIT).await, "and none came again");
    assert_eq!(scene.tasks_stored().await, 0);
    one.shut_down().await;
    other.shut_down().await;
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_leaves_its_task_to_another_one() {
    let mut scene = Scene::with(&asking("timeout: 60s", "")).await;
    let doomed = scene.mortal_worker("doomed").await;
    scene.publish(1).await;
    let first = scene.question().await;

    doomed.shutdown_background();
    let heir = scene.worker("heir", 4).await;
    let second = scene.question().await;
    scene.answer(&second).await;
    let (records, run) = scene.until_kind(Kind::RunSucceeded).await;

    let key = "idempotency-key";
    assert_eq!(header(&first, key), header(&second, key));
    assert_eq!(header(&second, "fermata-attempt"), "1", "the same attempt");
    assert_eq!(
        kinds_of(&records, run),
        [Kind::RunStarted, Kind::NodeDispatched, Kind::NodeSucceeded, Kind::RunSucceeded]
    );
    heir.shut_down().await;
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_takes_longer_than_the_broker_waits_is_run_once() {
    // So long that no machine is too busy for the word in between.
    let wait = Duration::from_secs(5);
    let mut scene = Scene { wait, ..Scene::with(&asking("timeout: 60s", "")).await };
    let one = scene.worker("one", 4).await;
    let other = scene.worker("other", 4).await;
    scene.publish(1).await;
    let question = scene.question().await;

    // Without a word it would have come again.
    assert!(!scene.is_asked_within(wait * 7 / 5).await, "nobody else is given it");
    scene.answer(&question).await;
    let (records, run) = scene.until_kind(Kind::RunSucceeded).await;

    assert_eq!(of_run(&records, run).len(), 4, "{records:?}");
    one.shut_down().await;
    other.shut_down().await;
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_takes_no_more_than_it_has_permits_for() {
    let mut scene = Scene::with(&asking("timeout: 60s", "")).await;
    let worker = scene.worker("one", 2).await;
    for id in 1..=5 {
        scene.publish(id).await;
    }
    scene.until_kinds(Kind::NodeDispatched, 5).await;

    let mut held = vec![scene.question().await, scene.question().await];
    assert!(!scene.is_asked_within(WAIT).await, "two permits");
    let standings = queue_standings(&scene.engine.ports().broker).await.expect("standings");
    let [gpu] = standings.as_slice() else { panic!("{standings:?}") };
    assert_eq!((gpu.queue.as_str(), gpu.under_way, gpu.waiting), ("gpu", 2, 3));
    assert!(gpu.is_served);

    for _ in 0..3 {
        scene.answer(&held.remove(0)).await;
        held.push(scene.question().await);
    }
    for question in &held {
        scene.answer(question).await;
    }
    scene.until_kinds(Kind::RunSucceeded, 5).await;
    worker.shut_down().await;
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_nobody_serves_fails_when_its_time_is_over_and_a_late_result_changes_nothing() {
    let scene = Scene::with(&asking("timeout: 1s", "")).await;
    let mut queue = scene.by_hand().await;
    scene.publish(1).await;
    let delivery = queue.take(1).await.expect("a task").remove(0);
    let task: TaskId = message_id(&delivery).expect("an id").parse().expect("a task");
    let (records, run) = scene.until_kind(Kind::RunFailed).await;

    let (class, detail) = failure(&records).expect("a failure");
    assert_eq!(class, FailureClass::Timeout);
    assert!(detail.contains("queue `gpu` within 1000 ms"), "{detail}");
    let outcome = Outcome::Succeeded { output: Json::null() };
    let TaskId { run: of, node, activation, attempt } = task;
    assert_eq!(of, run);
    let late = OutcomeCommand { run, node, activation, attempt, tenant: None, outcome };
    definitions::publish_command(&scene.engine, run.partition(), Command::Outcome(late)).await;
    let records = scene.until_kinds(Kind::EffectLate, 1).await;

    assert_eq!(count(&records, Kind::NodeSucceeded), 0);
    assert_eq!(count(&records, Kind::RunFailed), 1);
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_cancelled_ends_at_once_and_its_worker_is_told_to_stop() {
    let mut scene = Scene::with(&asking("timeout: 60s", "")).await;
    let worker = scene.worker("one", 1).await;
    scene.publish(1).await;
    let question = scene.question().await;
    let (_, run) = scene.until_kind(Kind::NodeDispatched).await;

    cancel(&scene, run).await;
    scene.until_kinds(Kind::RunCancelled, 1).await;
    // What the worker says of it comes behind, and its only permit is free again.
    scene.until_kinds(Kind::EffectLate, 1).await;
    scene.publish(2).await;
    let next = scene.question().await;
    scene.answer(&next).await;
    let records = scene.until_kinds(Kind::RunSucceeded, 1).await;

    assert_ne!(header(&question, "idempotency-key"), header(&next, "idempotency-key"));
    let (class, _) = failure(&records).expect("a failure");
    assert_eq!(class, FailureClass::Cancelled);
    worker.shut_down().await;
    scene.engine.shut_down().await;
}

async fn cancel(scene: &Scene, run: RunId) {
    let id = Uuid::from_bytes(rand::random());
    let (by, reason) = ("ada".to_owned(), "not needed any more".to_owned());
    let command = CancelCommand { id, run, by, reason, reply_to: None };
    definitions::publish_command(&scene.engine, run.partition(), Command::Cancel(command)).await;
}

/// The dead letters that are filed.
async fn dead_letters(scene: &Scene) -> Vec<DeadLetter> {
    let end = fermata_jetstream::progress::end_of(&scene.engine.ports().broker, "DEAD").await;
    let mut letters = Vec::new();
    for sequence in 1..=end.expect("an end") {
        let message = scene.engine.ports().reader.read_one("DEAD", sequence).await;
        let message = message.expect("an answer").expect("a letter");
        letters.push(DeadLetter::decode(&message.payload).expect("a letter"));
    }
    letters
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_at_which_workers_keep_dying_is_parked_and_filed_once() {
    let mut scene = Scene::with(&asking("timeout: 60s", "")).await;
    scene.publish(1).await;
    let mut queue = scene.by_hand().await;
    for deliveries in 1..=5 {
        let delivery = queue.take(1).await.expect("a task").remove(0);
        assert_eq!(delivery.delivered_count, deliveries);
        delivery.acker.nak(Duration::ZERO).await;
    }
    queue.end().await;

    let worker = scene.worker("one", 4).await;
    let (records, run) = scene.until_kind(Kind::RunFailed).await;
    assert!(!scene.is_asked_within(2 * WAIT).await, "nobody runs it");

    let (class, detail) = failure(&records).expect("a failure");
    assert_eq!(class, FailureClass::Poisoned);
    assert!(detail.contains("5 workers"), "{detail}");
    let letters = dead_letters(&scene).await;
    let [letter] = letters.as_slice() else { panic!("{letters:?}") };
    assert_eq!((letter.reason.as_str(), letter.stage.as_str()), ("task_poisoned", "tasks"));
    // The last one found it poisoned.
    assert_eq!(letter.attempts, Some(6));
    let task = TaskMessage::decode(&letter.original).expect("the task").into_attempt();
    assert_eq!(task.run, run);
    assert_eq!(scene.tasks_stored().await, 0, "acknowledged");
    worker.shut_down().await;
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_cannot_be_read_is_parked_and_a_second_letter_is_refused_whenever_it_comes() {
    let scene = Scene::with(&asking("timeout: 60s", "")).await;
    scene.publish(1).await;
    let mut queue = scene.by_hand().await;
    let ordered = queue.take(1).await.expect("the task").remove(0);
    let id = message_id(&ordered).expect("an id").to_owned();
    assert!(ordered.acker.ack_confirmed(LIMIT).await);
    queue.end().await;
    // Something else under the name of the task; the broker knows the name itself.
    let id = id.strip_suffix('1').map(|id| format!("{id}01")).expect("the first attempt");
    let publisher = &scene.engine.ports().publisher;
    let forged = Bytes::from_static(b"\xc1 no message");
    let stored = publisher.publish_task(subjects::tasks("gpu"), &id, LIMIT, forged).await;
    let PublishOutcome::Stored { sequence, duplicate: false } = stored else {
        panic!("{stored:?}")
    };

    let worker = scene.worker("one", 4).await;
    let (records, _) = scene.until_kind(Kind::RunFailed).await;

    let (class, detail) = failure(&records).expect("a failure");
    assert_eq!(class, FailureClass::Poisoned);
    assert!(detail.contains("cannot be read"), "{detail}");
    worker.shut_down().await;
    let letters = dead_letters(&scene).await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0].id, format!("TASKS.{sequence}.all"));
    let again = subjects::dead_task("_engine", sequence);
    let refused = publisher.publish_behind(again, 0, Bytes::from_static(b"again")).await;
    assert!(
        matches!(
            refused,
            PublishOutcome::Refused { refusal: Refusal::WrongLastSequence { last: Some(1..) }, .. }
        ),
        "{refused:?}"
    );
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_holds_its_own_tasks_back_and_loses_none() {
    let workflow = "
workflow:
  name: under-test
  version: '1'
  tasks:
    - { id: beside, noop: {} }
    - { id: ask, queue: gpu, timeout: 60s, nats: { subject: work.ask, body: input.n } }
";
    let mut scene = Scene::with(workflow).await;
    scene.bound_queues(2).await;
    for id in 1..=6 {
        scene.publish(id).await;
    }

    // Everything beside goes on: all six have done what needs no queue.
    scene.until_kinds(Kind::NodeSucceeded, 6).await;
    let waiting = until_waiting(&scene.engine, 4).await;
    assert_eq!(waiting, ["gpu"]);
    assert_eq!(scene.tasks_stored().await, 2);
    let worker = scene.worker("one", 2).await;
    let mut keys = BTreeSet::new();
    for _ in 0..6 {
        let question = scene.question().await;
        keys.insert(header(&question, "idempotency-key"));
        scene.answer(&question).await;
    }
    let records = scene.until_kinds(Kind::RunSucceeded, 6).await;

    assert_eq!(keys.len(), 6);
    assert_eq!(count(&records, Kind::NodeDispatched), 12);
    assert!(until_waiting(&scene.engine, 0).await.is_empty());
    worker.shut_down().await;
    scene.engine.shut_down().await;
}

/// Waits until so many ordered tasks are in no queue yet; returns the queues that
/// are told to be full.
async fn until_waiting(engine: &fermata_actors::Engine, tasks: usize) -> Vec<String> {
    let begun = std::time::Instant::now();
    loop {
        let status = engine.status().await;
        let waiting: usize = status.iter().map(|partition| partition.queued_waiting).sum();
        if waiting == tasks {
            let full = status.iter().flat_map(|partition| partition.queues_full.clone());
            return full.collect::<BTreeSet<_>>().into_iter().collect();
        }
        assert!(begun.elapsed() < LIMIT, "{status:?}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_go_on_while_their_partitions_change_owners() {
    let mut scene = Scene::with(&asking("timeout: 60s", "")).await;
    let worker = scene.worker("one", 4).await;
    for id in 1..=4 {
        scene.publish(id).await;
    }
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(scene.question().await);
    }

    // The next owner publishes what is open once more, under the same names.
    let next = TestEngine::at(scene.broker.url()).named("next").start(scene.broker.folder()).await;
    scene.engine.shut_down().await;
    next.ready().await;
    scene.engine = next;
    assert!(!scene.is_asked_within(2 * WAIT).await, "none is run again");
    scene.asked = scene.engine.ports().core.subscribe("work.>").await.expect("a subscription");
    for question in &held {
        scene.answer(question).await;
    }
    let records = scene.until_kinds(Kind::RunSucceeded, 4).await;

    assert_eq!(count(&records, Kind::NodeDispatched), 4, "no further attempt was ordered");
    assert_eq!(count(&records, Kind::NodeSucceeded), 4);
    assert_eq!(count(&records, Kind::EffectLate), 0);
    worker.shut_down().await;
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_must_not_be_run_twice_is_not_given_to_another_worker() {
    let mut scene = Scene::with(&asking("timeout: 5s", ", idempotent: false")).await;
    let doomed = scene.mortal_worker("doomed").await;
    scene.publish(1).await;
    scene.question().await;
    assert_eq!(scene.tasks_stored().await, 0, "the queue let go of it before it began");

    doomed.shutdown_background();
    let heir = scene.worker("heir", 4).await;
    let (records, _) = scene.until_kind(Kind::NodeUnknown).await;

    assert!(!scene.is_asked_within(WAIT).await, "nobody runs it again");
    assert_eq!(count(&records, Kind::NodeDispatched), 1);
    heir.shut_down().await;
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_must_not_be_run_twice_is_not_begun_on_a_second_delivery() {
    let mut scene = Scene::with(&asking("timeout: 60s", ", idempotent: false")).await;
    scene.publish(1).await;
    let mut queue = scene.by_hand().await;
    let delivery = queue.take(1).await.expect("a task").remove(0);
    // Whoever had it may have run it: it says nothing.
    delivery.acker.nak(Duration::ZERO).await;
    queue.end().await;

    let worker = scene.worker("one", 4).await;
    let (records, _) = scene.until_kind(Kind::NodeUnknown).await;

    assert!(!scene.is_asked_within(WAIT).await, "nobody runs it");
    assert_eq!(count(&records, Kind::NodeDispatched), 1);
    worker.shut_down().await;
    scene.engine.shut_down().await;
}
