//! Streams and consumers that another version of the program made: what is different is told, and what to do.

use fermata_jetstream::core_messages::CoreMessages;
use fermata_jetstream::topology::{DEAD_STREAM, TASKS_STREAM};
use fermata_jetstream::{Bytes, StreamReader};
use serde_json::{Value, json};

use crate::support::{Ended, SOON, Stage, topology};

async fn api(stage: &Stage, request: &str, body: &Value) {
    let core = CoreMessages::new(&stage.broker);
    let subject = format!("$JS.API.{request}");
    let answer = core.request(&subject, body.to_string().into_bytes().into(), SOON).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert_eq!(answer["error"], Value::Null, "{answer}");
}

fn check(ended: &Ended, code: &str) -> Value {
    let checks = ended.json();
    let check = checks.iter().find(|check| check["code"] == code);
    check.unwrap_or_else(|| panic!("no `{code}` in {}", ended.stdout)).clone()
}

/// Starts a worker that serves a queue and nothing else.
async fn worker(stage: &Stage) -> Ended {
    let data = stage.folder.path().display().to_string();
    stage.run(&["--data-dir", &data, "worker", "--partitions", "1", "--queues", "gpu"]).await
}

#[tokio::test]
async fn tasks_that_may_not_be_deleted_refuse_a_start_with_what_to_do() {
    let stage = Stage::bare().await;
    let spec = topology().streams().into_iter().find(|spec| spec.name == TASKS_STREAM).unwrap();
    let mut earlier = serde_json::to_value(spec).unwrap();
    earlier["deny_delete"] = true.into();
    api(&stage, "STREAM.CREATE.TASKS", &earlier).await;

    let refused = worker(&stage).await;
    let examined = stage.run(&["doctor", "--json"]).await;

    assert_ne!(refused.code, 0, "{}", refused.stdout);
    let told = "stream `TASKS` has `deny_delete` = true, expected false, which cannot be edited";
    assert!(refused.stderr.contains(told), "{}", refused.stderr);
    let drift = check(&examined, "stream_drift");
    assert_eq!(drift["details"][0]["field"], "deny_delete", "{drift}");
    assert!(drift["hint"].as_str().unwrap().contains("`nats stream rm TASKS`"), "{drift}");
    // As told: the next start makes it anew.
    stage.delete_stream(TASKS_STREAM).await;
    topology().apply(&stage.broker).await.unwrap();
    let examined = stage.run(&["doctor", "--json"]).await;
    assert!(!examined.stdout.contains("stream_drift"), "{}", examined.stdout);
}

#[tokio::test]
async fn a_queue_whose_consumer_is_otherwise_is_told_with_what_to_do() {
    let stage = Stage::new().await;
    let config = json!({
        "name": "tasks-gpu", "durable_name": "tasks-gpu", "deliver_policy": "all",
        "ack_policy": "explicit", "max_deliver": -1, "replay_policy": "instant",
        "filter_subject": "fermata.tasks.gpu", "max_waiting": 512,
    });
    let body = json!({ "stream_name": "TASKS", "config": config });
    api(&stage, "CONSUMER.CREATE.TASKS.tasks-gpu", &body).await;

    let examined = stage.run(&["doctor", "--json"]).await;

    let drift = check(&examined, "consumer_drift");
    assert_eq!((&drift["health"], examined.code), (&"fail".into(), 1));
    let expected = json!([{
        "stream": "TASKS", "consumer": "tasks-gpu", "setting": "max_waiting",
        "expected": 4096, "found": 512,
    }]);
    assert_eq!(drift["details"], expected);
    assert!(
        drift["hint"].as_str().unwrap().contains("nats consumer rm TASKS tasks-gpu"),
        "{drift}"
    );
}

#[tokio::test]
async fn letters_of_an_older_program_are_bounded_as_soon_as_none_is_lost_by_it() {
    let stage = Stage::bare().await;
    let spec = topology().streams().into_iter().find(|spec| spec.name == DEAD_STREAM).unwrap();
    let mut earlier = serde_json::to_value(spec).unwrap();
    earlier["max_msgs_per_subject"] = (-1).into();
    // Room for 32 letters of a subject.
    earlier["max_bytes"] = (1 << 20).into();
    api(&stage, "STREAM.CREATE.DEAD", &earlier).await;
    let file = async |letters: u64| {
        for _ in 0..letters {
            let letter = Bytes::from_static(b"x");
            let stored = stage.publisher.publish("fermata.dead.acme.listener", None, letter).await;
            stored.await.sequence().unwrap();
        }
        let reader = StreamReader::new(&stage.broker);
        reader.stream_state(DEAD_STREAM).await.unwrap().messages
    };
    let unbounded = async || {
        let applied = topology().apply(&stage.broker).await.unwrap();
        applied.drift.iter().any(|drift| drift.field == "max_msgs_per_subject")
    };
    assert_eq!(file(33).await, 33);

    assert!(unbounded().await, "it would lose a letter");
    assert_eq!(file(0).await, 33);
    api(&stage, "STREAM.PURGE.DEAD", &json!({ "keep": 32 })).await;
    assert!(!unbounded().await);
    assert_eq!(file(0).await, 32);
    assert_eq!(file(5).await, 32, "a tenant's further letters drop its own");
    let examined = stage.run(&["doctor", "--json"]).await;
    assert!(!examined.stdout.contains("max_msgs_per_subject"), "{}", examined.stdout);
}
