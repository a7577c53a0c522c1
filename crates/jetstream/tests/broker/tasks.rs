//! Queues of tasks, against the real broker.

use std::time::Duration;

use fermata_jetstream::{
    Broker, Bytes, Delivery, PublishOutcome,
    core_messages::CoreMessages,
    purge::room_of,
    work_queue::{TASK_WAIT_DEFAULT, WorkQueue, queue_drifts},
};
use tokio::time::timeout;

use crate::support::{SOON, Stage};

const SUBJECT: &str = "fermata.tasks.gpu";

async fn queue(broker: &Broker) -> WorkQueue {
    WorkQueue::open(broker, "gpu", TASK_WAIT_DEFAULT).await.expect("a queue")
}

async fn task(queue: &mut WorkQueue) -> Delivery {
    timeout(SOON, queue.take(1)).await.expect("in time").expect("a batch").remove(0)
}

#[tokio::test]
async fn an_acknowledgement_without_an_answer_is_told_and_the_task_comes_again() {
    for somebody_hears_it in [false, true] {
        let stage = Stage::new().await;
        let ttl = Duration::from_secs(600);
        let stored = stage.publisher.publish_task(SUBJECT, "one", ttl, Bytes::from("1")).await;
        assert!(matches!(stored, PublishOutcome::Stored { .. }), "{stored:?}");
        let mut first = queue(&stage.broker).await;
        let delivery = task(&mut first).await;
        // The queue forgets its workers: nobody answers, or not who should.
        let core = CoreMessages::new(&stage.broker);
        let forget = "$JS.API.CONSUMER.DELETE.TASKS.tasks-gpu";
        core.request(forget, Bytes::new(), SOON).await.expect("an answer");
        let mut heard = match somebody_hears_it {
            true => Some(core.subscribe("$JS.ACK.>").await.expect("a subscription")),
            false => None,
        };
        stage.broker.flush().await;

        assert!(!delivery.acker.ack_durable(Duration::from_millis(500)).await);
        if let Some(heard) = &mut heard {
            timeout(SOON, heard.next()).await.expect("it was asked").expect("an answer");
        }
        drop(heard);

        let mut second = queue(&stage.broker).await;
        let again = task(&mut second).await;
        assert_eq!(again.stream_sequence, delivery.stream_sequence);
        assert!(again.acker.ack_durable(SOON).await);
        let room = room_of(&stage.broker, "TASKS").await.expect("a stream");
        assert_eq!(room.messages, 0, "what is acknowledged is gone");
    }
}

#[tokio::test]
async fn a_consumer_that_another_version_made_is_told_with_what_is_different() {
    let stage = Stage::new().await;
    let core = CoreMessages::new(&stage.broker);
    let made = r#"{ "stream_name": "TASKS", "config": { "name": "tasks-gpu", "durable_name": "tasks-gpu",
        "deliver_policy": "all", "ack_policy": "explicit", "max_deliver": -1, "replay_policy": "instant",
        "filter_subject": "fermata.tasks.gpu", "max_waiting": 512 } }"#;
    let create = "$JS.API.CONSUMER.CREATE.TASKS.tasks-gpu";
    let answer = core.request(create, made.into(), SOON).await.expect("an answer");
    assert!(!String::from_utf8_lossy(&answer.payload).contains("error"), "{answer:?}");

    let refused = WorkQueue::open(&stage.broker, "gpu", TASK_WAIT_DEFAULT).await;
    let refused = refused.expect_err("it cannot be changed").to_string();
    let drifts = queue_drifts(&stage.broker).await.expect("an answer");
    let forget = "$JS.API.CONSUMER.DELETE.TASKS.tasks-gpu";
    core.request(forget, Bytes::new(), SOON).await.expect("an answer");
    queue(&stage.broker).await;

    assert!(refused.contains("consumer `tasks-gpu` of stream `TASKS`"), "{refused}");
    assert!(refused.contains("`max_waiting` is 512, not 4096"), "{refused}");
    let told = drifts.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(told, ["`max_waiting` is 512, not 4096"]);
    assert_eq!(queue_drifts(&stage.broker).await.expect("an answer"), []);
}
