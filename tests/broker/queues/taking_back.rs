//! Tasks that nobody waits for any more: they leave their queue, and are not begun.

use fermata_core::identity::RunId;
use fermata_core::record::Kind;
use fermata_tests::journal::Entry;
use fermata_wire::subjects;
use fermata_wire::tasks::TaskId;

use super::cancel;
use super::scene::{Scene, WAIT, asking};

/// The runs that ordered a task, in order.
fn ordering(records: &[Entry]) -> Vec<RunId> {
    let ordered = records.iter().filter(|(_, record)| record.body.kind() == Kind::NodeDispatched);
    ordered.filter_map(|(_, record)| record.run).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_waits_leaves_its_queue_when_its_run_is_cancelled() {
    let mut scene = Scene::with(&asking("timeout: 60s", "")).await;
    scene.publish(1).await;
    scene.until_tasks_are_stored(1).await;
    let (_, run) = scene.until_kind(Kind::NodeDispatched).await;

    cancel(&scene, run).await;
    scene.until_kinds(Kind::RunCancelled, 1).await;

    // Nobody serves the queue: its owner takes it out.
    scene.until_tasks_are_stored(0).await;
    let worker = scene.worker("one", 1).await;
    assert!(!scene.is_asked_within(WAIT).await, "nobody begins it");
    worker.shut_down().await;
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_does_not_begin_a_task_of_which_it_was_told_that_it_is_taken_back() {
    let mut scene = Scene::with(&asking("timeout: 60s", "")).await;
    let worker = scene.worker("one", 1).await;
    scene.publish(1).await;
    let question = scene.question().await;
    let first = scene.until_kind(Kind::NodeDispatched).await.1;
    scene.publish(2).await;
    scene.until_tasks_are_stored(2).await;
    let records = scene.until_kinds(Kind::NodeDispatched, 2).await;
    let second = ordering(&records).into_iter().find(|run| *run != first).expect("a run");

    // As its owner tells it; this one cannot take it out of the queue.
    let task = TaskId { run: second, node: "ask".into(), activation: 1, attempt: 1 };
    let core = &scene.engine.ports().core;
    let text = task.to_string().into();
    core.publish_core(subjects::tasks_cancel("gpu"), text).await.expect("a message");
    core.flush().await.expect("a connection");
    assert!(!scene.is_asked_within(WAIT / 2).await, "it has one permit");
    scene.answer(&question).await;
    scene.until_tasks_are_stored(0).await;

    assert!(!scene.is_asked_within(WAIT).await, "and does not begin the other one");
    worker.shut_down().await;
    scene.engine.shut_down().await;
}
