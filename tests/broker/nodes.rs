//! What becomes of a run's nodes: calls that fail, hang and are refused,
//! branches and joins, cancelling, time limits.

use std::time::Duration;

use fermata_core::command::{CancelCommand, Command};
use fermata_core::identity::RunId;
use fermata_core::plan::FailureClass;
use fermata_core::record::{Body, CancelAnswer, EndReason, Kind};
use fermata_jetstream::Durability;
use fermata_tests::journal::{Entry, count, kinds_of, of_run, records_until, run_of};
use fermata_tests::{Sink, TestBroker, TestEngine, definitions, events};
use uuid::Uuid;

const LIMIT: Duration = Duration::from_secs(15);

struct Scene {
    // Ends last: the engine needs it to shut down.
    engine: fermata_actors::Engine,
    sink: Sink,
    _broker: TestBroker,
}

impl Scene {
    /// An engine with one workflow that every `demo.start` begins.
    async fn with(workflow: &str) -> Self {
        let broker = TestBroker::start(Durability::Process).await;
        let sink = Sink::start().await;
        let engine = TestEngine::at(broker.url()).with_executors(sink.executors());
        let engine = engine.start(broker.folder()).await;
        engine.ready().await;
        let strategy = "
strategies:
  - name: start
    version: 1
    tenant: '*'
    on: demo.start
    workflow: { name: under-test, version: '1' }
    variables: { n: event.data.n }
";
        definitions::apply_yaml(&engine, &[workflow], strategy).await;
        Self { engine, sink, _broker: broker }
    }

    async fn publish(&self, id: u64) {
        events::publish(&self.engine.ports().publisher, "demo.start", id).await;
    }

    async fn until(&self, enough: impl Fn(&[Entry]) -> bool) -> Vec<Entry> {
        records_until(&self.engine.ports().reader, 2, LIMIT, enough).await
    }

    async fn until_kind(&self, kind: Kind) -> (Vec<Entry>, RunId) {
        let records = self.until(|records| count(records, kind) > 0).await;
        let run = run_of(&records, kind).expect("a run");
        (records, run)
    }

    async fn cancel(&self, run: RunId, id: Uuid) -> String {
        let core = &self.engine.ports().core;
        let inbox = format!("_INBOX.test.{}", Uuid::from_bytes(rand::random()).simple());
        let mut answers = core.subscribe(&inbox).await.expect("a subscription");
        let (by, reason) = ("ada".to_owned(), "not needed any more".to_owned());
        let command = CancelCommand { id, run, by, reason, reply_to: Some(inbox.into()) };
        let partition = run.partition();
        definitions::publish_command(&self.engine, partition, Command::Cancel(command)).await;
        let answer = tokio::time::timeout(LIMIT, answers.next()).await.expect("an answer in time");
        let answer: serde_json::Value =
            serde_json::from_slice(&answer.expect("an answer").payload).expect("JSON");
        answer["answer"].as_str().expect("an answer").to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_fails_once_is_tried_again_under_the_same_key() {
    let scene = Scene::with(
        "
workflow:
  name: under-test
  version: '1'
  tasks:
    - id: call
      http: { plugin: sink, path: /fail-once, body: \"{'n': input.n}\" }
      retry: { max_attempts: 3, initial: 10ms, on: [http_5xx] }
",
    )
    .await;

    scene.publish(1).await;
    let (records, run) = scene.until_kind(Kind::RunSucceeded).await;

    let attempts = of_run(&records, run)
        .into_iter()
        .filter(|(header, _)| header.node.is_some())
        .map(|(header, _)| (header.kind, header.attempt))
        .collect::<Vec<_>>();
    assert_eq!(
        attempts,
        [
            (Kind::NodeDispatched, Some(1)),
            (Kind::NodeRetrying, Some(1)),
            (Kind::NodeDispatched, Some(2)),
            (Kind::NodeSucceeded, Some(2)),
        ]
    );
    let effects = scene.sink.effects();
    let effect = effects.get(&format!("{run}/call/1")).expect("one key for both attempts");
    assert_eq!(effects.len(), 1);
    assert_eq!((effect.commits, effect.attempts.as_slice()), (1, [1, 2].as_slice()));
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_hangs_ends_with_its_time_limit() {
    let scene = Scene::with(
        "
workflow:
  name: under-test
  version: '1'
  tasks:
    - { id: call, timeout: 200ms, http: { plugin: sink, path: /hang } }
",
    )
    .await;

    scene.publish(1).await;
    let (records, run) = scene.until_kind(Kind::RunFailed).await;

    assert!(
        of_run(&records, run).iter().any(|(_, record)| matches!(
            &record.body,
            Body::NodeFailed(failed) if failed.class == FailureClass::Timeout
        )),
        "{records:?}"
    );
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_call_fails_the_run_and_a_person_is_told() {
    let scene = Scene::with(
        "
workflow:
  name: under-test
  version: '1'
  tasks:
    - { id: call, http: { plugin: sink, path: /refuse }, retry_policy: exponential_backoff }
    - { id: after, depends_on: [call], noop: {} }
",
    )
    .await;
    let subject = format!("fermata.escalation.{}.3", events::TENANT);
    let mut escalations =
        scene.engine.ports().core.subscribe(&subject).await.expect("a subscription");

    scene.publish(1).await;
    let (records, run) = scene.until_kind(Kind::CaseNotified).await;
    let told = tokio::time::timeout(LIMIT, escalations.next()).await.expect("in time");

    assert_eq!(
        kinds_of(&records, run),
        [
            Kind::RunStarted,
            Kind::NodeDispatched,
            Kind::NodeFailed,
            Kind::RunClosing,
            Kind::RunFailed,
            Kind::CaseOpened,
            Kind::CaseNotified,
        ]
    );
    let told: serde_json::Value =
        serde_json::from_slice(&told.expect("a message").payload).expect("JSON");
    assert_eq!(told["run"], run.to_string());
    assert_eq!(told["tier"], 3);
    assert_eq!(told["tenant"], events::TENANT);
    assert_eq!(scene.sink.effects().values().map(|effect| effect.attempts.len()).sum::<usize>(), 1);
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_takes_one_way_and_the_join_goes_on() {
    let scene = Scene::with(
        "
workflow:
  name: under-test
  version: '1'
  tasks:
    - { id: first, transform: \"{'large': input.n > 10}\" }
    - { id: large, depends_on: [first], when: tasks.first.output.large, http: { plugin: sink, path: /ok } }
    - { id: small, depends_on: [first], when: \"!tasks.first.output.large\", noop: {} }
    - { id: both, depends_on: [large, small], noop: {} }
    - { id: either, depends_on: [large, small], join: any, noop: {} }
",
    )
    .await;

    scene.publish(3).await;
    scene.publish(30).await;
    let records = scene.until(|records| count(records, Kind::RunSucceeded) == 2).await;

    let mut skipped = records
        .iter()
        .filter(|(header, _)| header.kind == Kind::NodeSkipped)
        .filter_map(|(header, _)| header.node.as_deref())
        .collect::<Vec<_>>();
    skipped.sort_unstable();
    assert_eq!(skipped, ["large", "small"]);
    // first, one branch, both, either; twice.
    assert_eq!(count(&records, Kind::NodeSucceeded), 8);
    assert_eq!(scene.sink.effects().len(), 1);
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_closes_before_it_ends_and_a_second_cancel_changes_nothing() {
    let scene = Scene::with(
        "
workflow:
  name: under-test
  version: '1'
  tasks:
    - { id: call, timeout: 1h, http: { plugin: sink, path: /hang } }
    - { id: after, depends_on: [call], noop: {} }
",
    )
    .await;
    scene.publish(1).await;
    let (_, run) = scene.until_kind(Kind::NodeDispatched).await;
    tokio::time::timeout(LIMIT, scene.sink.arrived(1)).await.expect("the call in time");
    let id = Uuid::from_bytes(rand::random());

    assert_eq!(scene.cancel(run, id).await, "closing");
    let (records, _) = scene.until_kind(Kind::RunCancelled).await;
    // The same command once more, and another one.
    scene.cancel(run, id).await;
    assert_eq!(scene.cancel(run, Uuid::from_bytes(rand::random())).await, "not_running");
    let after = scene.until(|records| count(records, Kind::CancelAnswered) == 2).await;

    assert_eq!(
        kinds_of(&records, run),
        [
            Kind::RunStarted,
            Kind::NodeDispatched,
            Kind::CancelAnswered,
            Kind::RunClosing,
            Kind::NodeFailed,
            Kind::RunCancelled,
        ]
    );
    let failed = of_run(&records, run).into_iter().find_map(|(_, record)| match &record.body {
        Body::NodeFailed(failed) => Some(failed.class),
        _ => None,
    });
    assert_eq!(failed, Some(FailureClass::Cancelled));
    assert_eq!(count(&after, Kind::RunCancelled), 1);
    let answers = after.iter().filter_map(|(_, record)| match &record.body {
        Body::CancelAnswered(answered) => Some(answered.answer),
        _ => None,
    });
    assert_eq!(answers.collect::<Vec<_>>(), [CancelAnswer::Closing, CancelAnswer::NotRunning]);
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_takes_too_long_is_ended_and_a_person_is_told() {
    let scene = Scene::with(
        "
workflow:
  name: under-test
  version: '1'
  fault_tolerance: { run_timeout: 300ms }
  tasks:
    - { id: call, timeout: 1h, http: { plugin: sink, path: /hang } }
",
    )
    .await;

    scene.publish(1).await;
    let (records, run) = scene.until_kind(Kind::CaseNotified).await;

    assert_eq!(
        kinds_of(&records, run),
        [
            Kind::RunStarted,
            Kind::NodeDispatched,
            Kind::RunClosing,
            Kind::NodeFailed,
            Kind::RunTimedOut,
            Kind::CaseOpened,
            Kind::CaseNotified,
        ]
    );
    let closing = of_run(&records, run).into_iter().find_map(|(_, record)| match &record.body {
        Body::RunClosing(closing) => Some(closing.reason.clone()),
        _ => None,
    });
    assert_eq!(closing, Some(EndReason::TimedOut));
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_context_reaches_the_plugin_with_its_trace_id() {
    let scene = Scene::with(
        "
workflow:
  name: under-test
  version: '1'
  tasks:
    - { id: call, http: { plugin: sink, path: /ok } }
",
    )
    .await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let event = serde_json::json!({
        "specversion": "1.0", "id": "1", "source": "/t", "type": "demo.start",
        "traceparent": format!("00-{trace}-b7ad6b7169203331-01"), "data": { "n": 1 },
    });

    let publisher = &scene.engine.ports().publisher;
    events::publish_raw(publisher, "demo.start", event.to_string().into()).await;
    scene.until_kind(Kind::RunSucceeded).await;

    let effects = scene.sink.effects();
    let (_, effect) = effects.first_key_value().expect("an effect");
    let seen = effect.traceparents[0].as_deref().unwrap_or_default();
    assert!(seen.starts_with(&format!("00-{trace}-")), "`{seen}`");
    scene.engine.shut_down().await;
}
