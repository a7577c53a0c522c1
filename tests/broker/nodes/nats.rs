//! Questions over NATS: answers, nobody there, silence, what may not be asked.

use bytes::Bytes;
use fermata_core::plan::FailureClass;
use fermata_core::record::Kind;
use fermata_jetstream::core_messages::CoreMessage;
use fermata_tests::journal::count;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::scene::{LIMIT, Scene, failure_of, output_of};

/// A service that answers as it is told, and what it was asked.
struct Service {
    asked: mpsc::UnboundedReceiver<CoreMessage>,
    task: JoinHandle<()>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers every question on `subject` with `answer`; nothing is no answer.
async fn service(scene: &Scene, subject: &str, answer: Option<Bytes>) -> Service {
    let core = scene.engine.ports().core.clone();
    let mut questions = core.subscribe(subject).await.expect("a subscription");
    let (sender, asked) = mpsc::unbounded_channel();
    let task = tokio::spawn(async move {
        while let Some(question) = questions.next().await {
            if let (Some(answer), Some(to)) = (answer.clone(), question.reply.clone()) {
                core.publish_core(to, answer).await.expect("an answer");
            }
            // The test may have seen enough.
            let _ = sender.send(question);
        }
    });
    Service { asked, task }
}

fn workflow(nats: &str) -> String {
    format!(
        "
workflow:
  name: under-test
  version: '1'
  tasks:
    - {{ id: ask, timeout: 2s, nats: {nats}, retry: {{ max_attempts: 20, initial: 400ms, factor: 1, on: [no_responders] }} }}
"
    )
}

async fn scene(nats: &str) -> Scene {
    let allowed = vec!["billing.>".to_owned()];
    Scene::with_executors(&workflow(nats), |executors| executors.nats.subjects = allowed).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_carries_its_key_and_the_answer_is_the_output() {
    let scene = scene("{ subject: billing.charge, body: \"{'amount': input.n}\" }").await;
    let mut service = service(&scene, "billing.*", Some("{\"charged\":true}".into())).await;

    scene.publish(7).await;
    let (records, run) = scene.until_kind(Kind::RunSucceeded).await;

    assert_eq!(output_of(&records, run, "ask"), Some(json!({ "charged": true })));
    let question = service.asked.recv().await.expect("a question");
    assert_eq!(&question.payload[..], br#"{"amount":7}"#);
    let headers = question.headers.expect("headers");
    let header = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());
    assert_eq!(header("idempotency-key"), Some(format!("{run}/ask/1")));
    assert_eq!(header("fermata-attempt").as_deref(), Some("1"));
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_not_there_yet_is_asked_again() {
    let scene = scene("{ subject: billing.charge, idempotent: false }").await;

    scene.publish(1).await;
    let (records, _) = scene.until_kind(Kind::NodeRetrying).await;
    assert_eq!(count(&records, Kind::NodeUnknown), 0, "nobody can have acted");
    let _service = service(&scene, "billing.charge", Some(Bytes::new())).await;
    let (records, run) = scene.until_kind(Kind::RunSucceeded).await;

    assert_eq!(output_of(&records, run, "ask"), Some(json!(null)));
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_of_a_service_that_may_have_acted_is_left_to_a_person() {
    let scene = scene("{ subject: billing.charge, idempotent: false }").await;
    let mut service = service(&scene, "billing.charge", None).await;

    scene.publish(1).await;
    let asked = tokio::time::timeout(LIMIT, service.asked.recv()).await;
    assert!(asked.expect("in time").is_some());
    let (records, _) = scene.until_kind(Kind::CaseOpened).await;

    assert_eq!(count(&records, Kind::NodeUnknown), 1, "{records:?}");
    assert_eq!(count(&records, Kind::NodeDispatched), 1);
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_that_is_not_allowed_is_not_asked() {
    let scene = scene("{ subject: payroll.raise }").await;
    let mut service = service(&scene, "payroll.>", Some("1".into())).await;

    scene.publish(1).await;
    let (records, run) = scene.until_kind(Kind::RunFailed).await;

    let (class, detail) = failure_of(&records, run).expect("a failure");
    assert_eq!(class, FailureClass::NotAllowed);
    assert!(detail.contains("nats.subjects"), "{detail}");
    assert!(service.asked.try_recv().is_err(), "nobody was asked");
    scene.engine.shut_down().await;
}
