//! Plans and definitions that are gone or not what they were: what can be said
//! about them is said, and everything else goes on.

use std::time::Duration;

use fermata_actors::definitions::{ACTIVE_KEY, PlanError};
use fermata_core::command::{Command, EventCommand, EventReference, StartRun, Verdict};
use fermata_core::digest::Digest;
use fermata_core::identity::{PartitionId, SourcePosition};
use fermata_core::json::Json;
use fermata_core::record::{Body, Kind};
use fermata_definitions::{Limits, read_workflow};
use fermata_jetstream::Durability;
use fermata_jetstream::topology::PLANS_BUCKET;
use fermata_tests::journal::{count, records_until};
use fermata_tests::{Sink, TestBroker, TestEngine, definitions, events};

const LIMIT: Duration = Duration::from_secs(60);

const WORKFLOW: &str = "
workflow:
  name: one
  version: '1'
  tasks:
    - { id: a, timeout: 1h, http: { plugin: sink, path: /hang } }
";
const STRATEGIES: &str = "
strategies:
  - { name: start, version: 1, tenant: '*', on: demo.start, workflow: { name: one, version: '1' } }
";

fn start_of(plan: Digest, number: u64) -> Command {
    Command::Event(EventCommand {
        event: EventReference {
            tenant: events::TENANT.parse().expect("a tenant"),
            id: number.to_string().into(),
            source: "/t".into(),
            kind: "demo.start".into(),
            traceparent: None,
            hops: 0,
            breach: None,
            replayed: None,
        },
        key: u128::from(number),
        source: SourcePosition { sequence: 1_000_000 + number, index: 0 },
        replay: None,
        correlation: None,
        verdict: Verdict::Start {
            runs: vec![StartRun {
                strategy: "start".into(),
                strategy_version: 1,
                plan,
                input: Json::null(),
            }],
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_whose_plan_is_broken_or_gone_is_rejected_and_the_next_command_is_decided() {
    let broker = TestBroker::start(Durability::Process).await;
    let engine = TestEngine::at(broker.url()).start(broker.folder()).await;
    engine.ready().await;
    let (broken, gone) = (Digest::of(b"a plan"), Digest::of(b"another plan"));
    let sound = read_workflow(
        "workflow: { name: n, version: '1', tasks: [{ id: a, noop: {} }] }",
        None,
        &Limits::WRITTEN,
    );
    let (sound, bytes) =
        fermata_wire::plan::encode(&sound.expect("a sound workflow").into_plan()).expect("a plan");
    let store = &engine.ports().store;
    store.put_blob(&broken.to_string(), b"not that plan").await.expect("a stored blob");
    store.put_blob(&sound.to_string(), &bytes).await.expect("a stored blob");

    for (number, plan) in [broken, gone, sound].into_iter().enumerate() {
        let command = start_of(plan, number as u64);
        definitions::publish_command(&engine, PartitionId(0), command).await;
    }

    let reader = &engine.ports().reader;
    let records =
        records_until(reader, 2, LIMIT, |records| count(records, Kind::RunSucceeded) == 1).await;
    let rejected = records.iter().filter_map(|(_, record)| match &record.body {
        Body::EventRejected(rejected) => Some(&*rejected.reason),
        _ => None,
    });
    assert_eq!(rejected.collect::<Vec<_>>(), ["definition_missing"; 2]);
    engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_read_that_does_not_find_a_plan_is_not_final_and_several_are() {
    let broker = TestBroker::start(Durability::Process).await;
    let engine = TestEngine::at(broker.url()).start(broker.folder()).await;
    let ports = engine.ports();
    let plan = read_workflow(WORKFLOW, None, &Limits::WRITTEN).expect("a sound workflow");
    let (digest, bytes) = fermata_wire::plan::encode(&plan.into_plan()).expect("a plan");

    // Polled first, so that it reads before the plan is stored.
    let (found, stored) = tokio::join!(ports.plans.fetch(digest), async {
        let asked = ports.store.get_blob(&digest.to_string()).await;
        assert!(asked.expect("an answer").is_none());
        ports.store.put_blob(&digest.to_string(), &bytes).await
    });

    stored.expect("a stored plan");
    assert_eq!(&*found.expect("the plan").plan().workflow, "one");
    let never = ports.plans.fetch(Digest::of(b"never stored")).await;
    assert!(matches!(never, Err(PlanError::Missing { .. })), "{never:?}");
    engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_whose_journal_needs_a_plan_that_is_broken_halts_and_says_so() {
    let broker = TestBroker::start(Durability::Process).await;
    let sink = Sink::start().await;
    let start = async || {
        let engine = TestEngine::at(broker.url()).with_executors(sink.executors());
        engine.start(broker.folder()).await
    };
    let engine = start().await;
    engine.ready().await;
    definitions::apply_yaml(&engine, &[WORKFLOW], STRATEGIES).await;
    events::publish(&engine.ports().publisher, "demo.start", 1).await;
    sink.arrived(1).await;
    let plan = read_workflow(WORKFLOW, None, &Limits::WRITTEN).expect("a sound workflow");
    let (digest, bytes) = fermata_wire::plan::encode(&plan.into_plan()).expect("a plan");
    engine.shut_down().await;

    let client = async_nats::connect(broker.url()).await.expect("a connection");
    let context = async_nats::jetstream::new(client);
    let blobs = context.get_object_store(PLANS_BUCKET).await.expect("the blobs");
    let name = digest.to_string();
    blobs.put(&*name, &mut b"not that plan".as_slice()).await.expect("another blob");
    let engine = start().await;

    let halted = async {
        loop {
            let halted = engine.status().await.into_iter().find_map(|status| status.reason);
            if let Some(reason) = halted {
                return reason;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let reason = tokio::time::timeout(LIMIT, halted).await.expect("halted in time");
    assert!(reason.contains(&name) && reason.contains("changed or cut"), "{reason}");
    engine.shut_down().await;

    // With the plan in its place the partition goes on.
    blobs.put(&*name, &mut bytes.as_slice()).await.expect("the blob");
    let engine = start().await;
    engine.ready().await;
    engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_that_were_overwritten_are_projected_again_and_used_all_the_while() {
    let broker = TestBroker::start(Durability::Process).await;
    let engine = TestEngine::at(broker.url()).start(broker.folder()).await;
    engine.ready().await;
    let revision = definitions::apply_yaml(&engine, &[WORKFLOW], STRATEGIES).await;
    let store = &engine.ports().store;
    let projected = store.get(ACTIVE_KEY).await.expect("an answer").expect("a projection");

    for garbage in [b"".as_slice(), b"garbage", b"\xff\xff\xff\xff"] {
        store.put(ACTIVE_KEY, garbage.into()).await.expect("a stored definition");
    }

    let repaired = async {
        loop {
            let found = store.get(ACTIVE_KEY).await.expect("an answer").expect("a projection");
            assert_eq!(engine.ports().definitions.borrow().revision, revision);
            if found.value == projected.value {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, repaired).await.expect("projected again in time");
    engine.shut_down().await;
}
