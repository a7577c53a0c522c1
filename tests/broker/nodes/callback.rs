//! Calls that are accepted and completed later, by whoever holds the token.

use std::sync::Arc;

use bytes::Bytes;
use fermata_core::plan::FailureClass;
use fermata_core::record::Kind;
use fermata_jetstream::core_messages::CoreMessages;
use fermata_tests::events;
use fermata_tests::journal::{count, kinds_of};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::scene::{LIMIT, Scene, failure_of, output_of};

/// A service that accepts every call, and the tokens that it was given.
struct Callee {
    tokens: watch::Receiver<Vec<String>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Callee {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Callee {
    async fn start(scene: &Scene) -> Self {
        let core = scene.engine.ports().core.clone();
        let mut calls = core.subscribe("approvals.ask").await.expect("a subscription");
        let (sender, tokens) = watch::channel(Vec::new());
        let task = tokio::spawn(async move {
            while let Some(call) = calls.next().await {
                let headers = call.headers.expect("headers");
                let token = headers.get("fermata-callback-token").expect("a token");
                sender.send_modify(|tokens| tokens.push(token.as_str().to_owned()));
                let to = call.reply.expect("somebody who waits");
                core.publish_core(to, Bytes::from_static(b"wait for it")).await.expect("sent");
            }
        });
        Self { tokens, task }
    }

    async fn token(&self) -> String {
        let mut tokens = self.tokens.clone();
        let tokens = tokio::time::timeout(LIMIT, tokens.wait_for(|tokens| !tokens.is_empty()));
        tokens.await.expect("in time").expect("a callee")[0].clone()
    }
}

async fn scene(timeout: &str, idempotent: bool) -> Scene {
    let workflow = format!(
        "
workflow:
  name: under-test
  version: '1'
  tasks:
    - {{ id: ask, timeout: {timeout}, nats: {{ subject: approvals.ask, completion: callback, idempotent: {idempotent} }} }}
    - {{ id: after, depends_on: [ask], transform: tasks.ask.output }}
"
    );
    let allowed = vec!["approvals.ask".to_owned()];
    Scene::with_executors(&workflow, |executors| executors.nats.subjects = allowed).await
}

pub(super) async fn complete(core: &Arc<CoreMessages>, tenant: &str, message: Value) -> String {
    let subject = format!("fermata.callbacks.{tenant}");
    let answer = core.request(&subject, message.to_string().into(), LIMIT).await;
    let answer: Value = serde_json::from_slice(&answer.expect("an answer").payload).expect("JSON");
    answer["answer"].as_str().expect("a word").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_stays_open_over_a_change_of_owners_until_it_is_completed_once() {
    let scene = scene("1h", false).await;
    let callee = Callee::start(&scene).await;
    scene.publish(1).await;
    let token = callee.token().await;
    scene.until_kind(Kind::NodeAccepted).await;

    let scene = scene.restarted().await;
    let core = Arc::new(scene.engine.ports().core.clone());
    let output = json!({ "approved": true });
    let first = complete(&core, events::TENANT, json!({ "token": token, "output": output })).await;
    let (records, run) = scene.until_kind(Kind::RunSucceeded).await;
    let again = complete(&core, events::TENANT, json!({ "token": token, "failed": "no" })).await;

    assert_eq!((first.as_str(), again.as_str()), ("completed", "late"));
    assert_eq!(output_of(&records, run, "after"), Some(output));
    assert_eq!(
        kinds_of(&records, run),
        [
            Kind::RunStarted,
            Kind::NodeDispatched,
            Kind::NodeAccepted,
            Kind::NodeSucceeded,
            Kind::NodeSucceeded,
            Kind::RunSucceeded,
        ],
        "the call was not made again"
    );
    let records = scene.until(|records| count(records, Kind::EffectLate) == 1).await;
    assert_eq!(count(&records, Kind::RunSucceeded), 1);
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_token_of_the_call_completes_it_and_only_for_its_tenant() {
    let scene = scene("1h", true).await;
    let callee = Callee::start(&scene).await;
    scene.publish(1).await;
    let token = callee.token().await;
    scene.until_kind(Kind::NodeAccepted).await;
    let core = Arc::new(scene.engine.ports().core.clone());

    let mut forged = token.clone();
    let last = if forged.pop() == Some('A') { 'B' } else { 'A' };
    forged.insert(forged.find('.').expect("two parts") + 1, last);
    for (tenant, message) in [
        (events::TENANT, json!({ "token": forged, "output": 1 })),
        (events::TENANT, json!({ "token": "", "output": 1 })),
        ("other", json!({ "token": token, "output": 1 })),
    ] {
        assert_eq!(complete(&core, tenant, message.clone()).await, "invalid_token", "{message}");
    }
    let both = json!({ "token": token, "output": 1, "failed": "x" });
    assert_eq!(complete(&core, events::TENANT, both).await, "unreadable");

    // An answer elsewhere would be ours to send where the asker may not.
    let foreign = json!({ "token": token, "output": 1 });
    let subject = format!("fermata.callbacks.{}", events::TENANT);
    scene.ask_with_reply(&subject, "fermata.events.acme.demo.start", &foreign).await;

    let failed = json!({ "token": token, "failed": "declined by ada" });
    assert_eq!(complete(&core, events::TENANT, failed).await, "completed");
    let (records, run) = scene.until_kind(Kind::RunFailed).await;
    let failure = failure_of(&records, run);
    assert_eq!(failure, Some((FailureClass::Reported, "declined by ada".to_owned())));
    assert_eq!(count(&records, Kind::EffectLate), 0);
    assert_eq!(count(&records, Kind::RunStarted), 1);
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_does_not_come_in_time_fails_the_node() {
    let scene = scene("1200ms", true).await;
    let _callee = Callee::start(&scene).await;

    scene.publish(1).await;
    let (records, run) = scene.until_kind(Kind::RunFailed).await;

    let (class, detail) = failure_of(&records, run).expect("a failure");
    assert_eq!(class, FailureClass::Timeout);
    assert!(detail.contains("no callback within 1200 ms"), "{detail}");
    assert_eq!(count(&records, Kind::NodeAccepted), 1);
    scene.engine.shut_down().await;
}
