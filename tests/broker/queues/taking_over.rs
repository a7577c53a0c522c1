//! Owners that take over: what waits in a queue is there already.

use std::time::Duration;

use fermata_core::record::Kind;
use fermata_tests::TestEngine;
use fermata_tests::journal::count;
use serde_json::json;

use super::scene::{Scene, asking};

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_a_queue_is_not_published_again_by_the_next_owner() {
    let mut scene = Scene::with(&asking("timeout: 60s", "")).await;
    scene.publish(1).await;
    scene.publish(2).await;
    scene.until_tasks_are_stored(2).await;
    // The broker forgets ids soon, and one of the tasks is gone: lost, as far as anybody knows.
    scene.forget_ids_within(Duration::from_millis(100)).await;
    let gone = json!({ "seq": 1 });
    let answer = scene.api("STREAM.MSG.DELETE.TASKS", &gone).await;
    assert!(answer["error"].is_null(), "{answer}");

    let next = TestEngine::at(scene.broker.url()).named("next").start(scene.broker.folder()).await;
    scene.engine.shut_down().await;
    next.ready().await;
    scene.engine = next;
    scene.asked = scene.engine.ports().core.subscribe("work.>").await.expect("a subscription");
    // The one that is gone is published anew, behind the other.
    scene.until_last_task(3).await;
    let worker = scene.worker("one", 4).await;
    for _ in 0..2 {
        let question = scene.question().await;
        scene.answer(&question).await;
    }
    let records = scene.until_kinds(Kind::RunSucceeded, 2).await;

    scene.until_tasks_are_stored(0).await;
    scene.until_last_task(3).await;
    assert_eq!(scene.deliveries().await, 2, "nobody was given a copy");
    assert_eq!(count(&records, Kind::NodeDispatched), 2);
    worker.shut_down().await;
    scene.engine.shut_down().await;
}
