//! What becomes of a run's nodes: calls that fail, hang and are refused,
//! branches and joins, cancelling, time limits; each further kind of node has a
//! file of its own.

mod callback;
mod command;
mod delay;
mod emit;
mod http_callback;
mod nats;
mod scene;

use fermata_core::plan::FailureClass;
use fermata_core::record::{Body, CancelAnswer, EndReason, Kind};
use fermata_tests::events;
use fermata_tests::journal::{count, kinds_of, of_run};
use uuid::Uuid;

use scene::{LIMIT, Scene};

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
