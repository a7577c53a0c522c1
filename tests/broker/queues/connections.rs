//! Workers whose connection breaks while they are at a task.

use std::time::Duration;

use fermata_core::record::Kind;
use fermata_tests::Wire;
use fermata_tests::journal::count;

use super::scene::{Scene, asking};

/// How long the broker waits to hear of a task: long enough to connect again on a
/// busy machine.
const WAIT: Duration = Duration::from_secs(5);

/// Connections of one worker.
const CONNECTIONS: u64 = 2;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_connection_breaks_keeps_the_task_that_it_is_at() {
    let mut scene = Scene { wait: WAIT, ..Scene::with(&asking("timeout: 60s", "")).await };
    let wire = Wire::to(&scene.broker.url()).await;
    let worker = scene.worker_at(wire.url(), "one", 4).await;
    scene.publish(1).await;
    let question = scene.question().await;
    let heir = scene.worker("heir", 4).await;

    for cuts in 1..=2 {
        wire.cut();
        wire.carried(CONNECTIONS * (cuts + 1)).await;
        assert!(!scene.is_asked_within(WAIT * 7 / 5).await, "nobody else is given it");
    }
    scene.answer(&question).await;
    let (records, _) = scene.until_kind(Kind::RunSucceeded).await;

    scene.until_tasks_are_stored(0).await;
    assert_eq!(scene.deliveries().await, 1);
    assert_eq!(count(&records, Kind::NodeDispatched), 1);
    assert_eq!(count(&records, Kind::EffectLate), 0);
    heir.shut_down().await;
    worker.shut_down().await;
    scene.engine.shut_down().await;
}
