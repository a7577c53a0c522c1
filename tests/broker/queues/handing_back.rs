//! Tasks that a worker gives away: it ends, or cannot read them.

use std::time::Duration;

use fermata_core::record::Kind;
use fermata_jetstream::work_queue::message_id;
use fermata_jetstream::{Bytes, PublishOutcome};
use fermata_tests::journal::count;
use fermata_wire::subjects;
use fermata_wire::tasks::TaskId;
use fermata_wire::{Envelope, MessageKind};
use serde_json::json;

use super::scene::{LIMIT, Scene, WAIT, asking, header};

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_workers_give_back_as_they_end_is_not_poison() {
    let mut scene = Scene::with(&asking("timeout: 120s", "")).await;
    scene.publish(1).await;

    // Once more than workers may be lost with it.
    let mut keys = Vec::new();
    for number in 1..=6 {
        let worker = scene.worker(&format!("w-{number}"), 1).await;
        keys.push(header(&scene.question().await, "idempotency-key"));
        worker.shut_down().await;
    }
    let last = scene.worker("last", 1).await;
    let question = scene.question().await;
    scene.answer(&question).await;
    let (records, _) = scene.until_kind(Kind::RunSucceeded).await;

    keys.push(header(&question, "idempotency-key"));
    keys.dedup();
    assert_eq!(keys.len(), 1, "the same task each time");
    assert_eq!(count(&records, Kind::NodeDispatched), 1);
    scene.until_tasks_are_stored(0).await;
    last.shut_down().await;
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_a_newer_program_wrote_is_handed_on_and_counts_no_delivery() {
    let scene = Scene::with(&asking("timeout: 60s", "")).await;
    let newer = Envelope { version: 99, ..Envelope::new(MessageKind::Task, None, b"\x80") };
    let bytes = Bytes::from(newer.encode().expect("an envelope"));
    let id = "00000000-0000-8000-8000-000000000001/ask/1/1";
    let subject = subjects::tasks("gpu");
    let stored = scene.engine.ports().publisher.publish_task(subject, id, LIMIT, bytes).await;
    let PublishOutcome::Stored { sequence, .. } = stored else { panic!("{stored:?}") };

    let worker = scene.worker("older", 1).await;
    scene.until_last_task(sequence + 1).await;
    worker.shut_down().await;
    let mut queue = scene.by_hand().await;
    let delivery = queue.take(1).await.expect("a task").remove(0);

    assert_eq!(delivery.delivered_count, 1);
    let name = message_id(&delivery).expect("an id");
    assert!(name.starts_with(&format!("{id}/back-")), "{name}");
    assert_eq!(TaskId::of_message(name), id.parse().ok());
    queue.end().await;
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_a_queue_has_what_came_and_asks_for_nothing_more() {
    // What was taken does not come again.
    let wait = Duration::from_secs(60);
    let scene = Scene { wait, ..Scene::with(&asking("timeout: 60s", "")).await };
    let mut queue = scene.by_hand().await;
    scene.publish(1).await;
    // Room for three: one comes now, one before it is looked at, one is asked for still.
    let taken = queue.take(3).await.expect("a task");
    assert_eq!(taken.len(), 1);
    scene.publish(2).await;
    scene.until_deliveries(2).await;

    let left = queue.end().await;

    assert_eq!(left.len(), 1);
    let info = scene.api("CONSUMER.INFO.TASKS.tasks-gpu", &json!({})).await;
    assert_eq!(info["num_waiting"], 0, "{info}");
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_asks_for_what_it_has_room_for_in_few_requests() {
    const PERMITS: usize = 16;
    let mut scene = Scene::with(&asking("timeout: 60s", "")).await;
    let worker = scene.worker("one", PERMITS).await;

    for id in 1..=40 {
        scene.publish(id).await;
        let question = scene.question().await;
        scene.answer(&question).await;
        scene.until_kinds(Kind::RunSucceeded, id as usize).await;
    }

    let info = scene.api("CONSUMER.INFO.TASKS.tasks-gpu", &json!({})).await;
    let waiting = info["num_waiting"].as_u64().expect("a number");
    assert!((1..=6).contains(&waiting), "{waiting} requests for {PERMITS} tasks");
    assert_eq!(info["config"]["max_waiting"], 4_096);
    worker.shut_down().await;
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_no_client_can_be_given_is_filed_and_the_others_are_run() {
    let mut scene = Scene::with(&asking("timeout: 60s", "")).await;
    let worker = scene.worker("one", 4).await;
    let url = scene.broker.url();
    let messages: [(&[u8], &[u8]); 2] = [
        (b"fermata.tasks.gpu", b"NATS/1.0\r\na: \xff\xfe"),
        // Delivered, and looks like the broker's word that the consumer is gone.
        (b"fermata.tasks.gpu", b"NATS/1.0 503 gone\r\na: b"),
    ];
    crate::events::publish_raw(&url, &messages).await;

    scene.publish(1).await;
    let question = scene.question().await;
    scene.answer(&question).await;
    scene.until_kind(Kind::RunSucceeded).await;
    scene.until_tasks_are_stored(0).await;

    let letters = super::dead_letters(&scene).await;
    assert_eq!(letters.len(), 2, "{letters:#?}");
    assert!(letters.iter().all(|letter| &letter.original[..] == b"body"));
    assert!(!scene.is_asked_within(WAIT + Duration::from_millis(200)).await);
    worker.shut_down().await;
    scene.engine.shut_down().await;
}
