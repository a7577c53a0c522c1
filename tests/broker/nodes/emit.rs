//! Events that runs publish: whose they are, what a repeat is, where a loop ends.

use fermata_core::event::HOPS_MAX;
use fermata_core::plan::FailureClass;
use fermata_core::record::{Body, Kind};
use fermata_tests::journal::{count, of_run, run_of};
use fermata_tests::{audit, definitions, events};
use serde_json::Value;

use super::scene::{Scene, failure_of, output_of};

/// The events that are stored, with their subjects.
async fn stored(scene: &Scene) -> Vec<(String, Value)> {
    let messages = audit::messages(&scene.engine.ports().reader, "EVENTS").await;
    let decoded = messages.iter().map(|message| {
        let event = serde_json::from_slice(&message.payload).expect("JSON");
        (message.subject.to_string(), event)
    });
    decoded.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_publishes_an_event_of_its_own_tenant_that_starts_another_run() {
    let scene = Scene::with(
        "
workflow:
  name: under-test
  version: '1'
  tasks:
    - { id: tell, emit: { type: demo.told, data: \"{'n': input.n + 1, 'tenant': 'other'}\" } }
",
    )
    .await;
    let strategy = "
strategies:
  - { name: told, version: 1, tenant: '*', on: demo.told, workflow: { name: heard, version: '1' }, variables: { n: event.data.n, hops: event.fermatahops } }
";
    let heard = "
workflow: { name: heard, version: '1', tasks: [{ id: value, transform: input }] }
";
    definitions::apply_yaml(&scene.engine, &[heard], strategy).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let event = serde_json::json!({
        "specversion": "1.0", "id": "1", "source": "/t", "type": "demo.start",
        "traceparent": format!("00-{trace}-b7ad6b7169203331-01"), "data": { "n": 1 },
    });

    let publisher = &scene.engine.ports().publisher;
    events::publish_raw(publisher, "demo.start", event.to_string().into()).await;
    let records = scene.until(|records| count(records, Kind::RunSucceeded) == 2).await;

    let first = run_of(&records, Kind::NodeDispatched).expect("the run that publishes");
    let key = format!("{first}/tell/1");
    let stored = stored(&scene).await;
    let [_, (subject, event)] = stored.as_slice() else { panic!("{stored:?}") };
    assert_eq!(subject, &format!("fermata.events.{}.demo.told", events::TENANT));
    assert_eq!(event["id"], key);
    assert_eq!(event["source"], "/fermata/workflows/under-test");
    assert_eq!(event["tenant"], events::TENANT);
    assert_eq!(event["fermatahops"], 1);
    assert!(event["traceparent"].as_str().is_some_and(|sent| sent.contains(trace)), "{event}");
    assert_eq!(output_of(&records, first, "tell").expect("an output")["id"], key);
    let second = records.iter().find_map(|(header, record)| match &record.body {
        Body::RunStarted(started) if &*started.workflow == "heard" => header.run,
        _ => None,
    });
    let second = second.expect("the run that was started");
    let value = output_of(&records, second, "value").expect("an output");
    assert_eq!(value, serde_json::json!({ "n": 2, "hops": 1 }));
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_attempt_publishes_the_same_event_which_starts_work_once() {
    let scene = Scene::with(
        "
workflow:
  name: under-test
  version: '1'
  tasks:
    - { id: tell, emit: { type: demo.told } }
",
    )
    .await;
    let strategy = "
strategies:
  - { name: told, version: 1, tenant: '*', on: demo.told, workflow: { name: heard, version: '1' } }
";
    let heard = "
workflow: { name: heard, version: '1', tasks: [{ id: value, transform: '1' }] }
";
    definitions::apply_yaml(&scene.engine, &[heard], strategy).await;
    scene.publish(1).await;
    scene.until(|records| count(records, Kind::RunSucceeded) == 2).await;

    // What a second attempt publishes, byte for byte.
    let stored = stored(&scene).await;
    let [_, (_, event)] = stored.as_slice() else { panic!("{stored:?}") };
    let publisher = &scene.engine.ports().publisher;
    events::publish_raw(publisher, "demo.told", event.to_string().into()).await;
    let records = scene.until(|records| count(records, Kind::EventRepeated) == 1).await;

    assert_eq!(count(&records, Kind::RunStarted), 2);
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_that_starts_itself_again_ends_with_the_most_hops() {
    let scene = Scene::with(
        "
workflow:
  name: under-test
  version: '1'
  tasks:
    - { id: again, emit: { type_from: \"'demo.' + 'start'\", data: \"{'n': input.n + 1}\" } }
",
    )
    .await;

    scene.publish(1).await;
    let (_, run) = scene.until_kind(Kind::RunFailed).await;
    // What a run publishes may be decided before its own end is.
    let hops = usize::try_from(HOPS_MAX).expect("a count");
    let records = scene.until(|records| count(records, Kind::RunSucceeded) >= hops).await;

    assert_eq!(count(&records, Kind::RunSucceeded), hops);
    assert_eq!(count(&records, Kind::RunStarted), hops + 1);
    let (class, detail) = failure_of(&records, run).expect("a failure");
    assert_eq!(class, FailureClass::TooManyHops, "{detail}");
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_computed_type_that_is_no_type_fails_the_node_and_publishes_nothing() {
    let scene = Scene::with(
        "
workflow:
  name: under-test
  version: '1'
  tasks:
    - { id: tell, emit: { type_from: \"'a.>'\" } }
",
    )
    .await;

    scene.publish(1).await;
    let (records, run) = scene.until_kind(Kind::RunFailed).await;

    let (class, detail) = failure_of(&records, run).expect("a failure");
    assert_eq!(class, FailureClass::Expression);
    assert!(detail.contains("no type of an event"), "{detail}");
    assert!(of_run(&records, run).iter().all(|(header, _)| header.kind != Kind::NodeDispatched));
    assert_eq!(stored(&scene).await.len(), 1);
    scene.engine.shut_down().await;
}
