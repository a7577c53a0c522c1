//! From a published event to a completed, audited run, on a real broker.

use std::time::Duration;

use fermata_core::record::Kind;
use fermata_jetstream::{Durability, PublishOutcome};
use fermata_tests::{TestBroker, TestEngine, definitions, journal};

const THREE_NOOPS: &str = "
workflow:
  name: three-noops
  version: '1'
  tasks:
    - { id: a, noop: {} }
    - { id: b, depends_on: [a], noop: {} }
    - { id: c, depends_on: [b], noop: {} }
";

const STRATEGIES: &str = "
strategies:
  - name: run-three
    version: 1
    tenant: '*'
    on: demo.start
    workflow: { name: three-noops, version: '1' }
  - name: ignore
    version: 1
    tenant: '*'
    on: demo.ignore
    action: ignore
";

fn event(kind: &str, id: u32) -> bytes::Bytes {
    format!(r#"{{"specversion":"1.0","id":"{id}","source":"/t","type":"{kind}","tenant":"acme","data":{{"n":{id}}}}}"#)
        .into()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_becomes_a_completed_run_and_a_repeat_is_recognised() {
    let broker = TestBroker::start(Durability::Process).await;
    let engine = TestEngine::at(broker.url()).start(broker.folder()).await;
    engine.ready().await;
    definitions::apply_yaml(&engine, &[THREE_NOOPS], STRATEGIES).await;

    let publisher = &engine.ports().publisher;
    for (kind, id) in [
        ("demo.start", 1),
        ("demo.start", 1),
        ("demo.ignore", 2),
        ("demo.unknown", 3),
        ("demo.start", 4),
    ] {
        let subject = format!("fermata.events.acme.{kind}");
        let outcome = publisher.publish(subject, None, event(kind, id)).await.await;
        assert!(matches!(outcome, PublishOutcome::Stored { .. }));
    }
    let malformed =
        publisher.publish("fermata.events.acme.demo.start", None, "{".into()).await.await;
    assert!(matches!(malformed, PublishOutcome::Stored { .. }));

    let reader = &engine.ports().reader;
    let count = |records: &[(_, fermata_core::record::Record)], kind| {
        records.iter().filter(|(_, record)| record.body.kind() == kind).count()
    };
    let records = journal::records_until(reader, 2, Duration::from_secs(60), |records| {
        count(records, Kind::RunSucceeded) == 2
            && count(records, Kind::CaseNotified) == 1
            && count(records, Kind::EventRejected) == 1
            && count(records, Kind::EventRepeated) == 1
            && count(records, Kind::EventIgnored) == 1
    })
    .await;

    assert_eq!(count(&records, Kind::EventStarted), 2);
    assert_eq!(count(&records, Kind::NodeDispatched), 6);
    assert_eq!(count(&records, Kind::NodeSucceeded), 6);
    assert_eq!(count(&records, Kind::EventUnmatched), 1);
    engine.shut_down().await;
}
