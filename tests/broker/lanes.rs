//! Lanes: what waits in them is decided once, whoever comes and goes, and no floor rises over it;
//! whoever is not above their share is not kept waiting by whoever is.

mod failing;
mod killed;
mod starting;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fermata_actors::Engine;
use fermata_actors::Role;
use fermata_actors::floor::FLOOR_INTERVAL;
use fermata_actors::lanes::{LANES, lane_consumer};
use fermata_actors::matcher::MATCHER_CONSUMER;
use fermata_core::identity::SourcePosition;
use fermata_core::record::{Header, Kind};
use fermata_jetstream::core_messages::Subscription;
use fermata_jetstream::progress::{end_of, shared_progress, work_progress};
use fermata_jetstream::topology::{ADMITTED_STREAM, WAITING_STREAM};
use fermata_jetstream::{
    Broker, ConnectOptions, Delivery, Durability, PublishOutcome, Publisher, SharedConsumer,
    SharedConsumerOptions,
};
use fermata_tests::invariants::{
    invariant_each_event_has_one_outcome, invariant_each_run_ends_once,
};
use fermata_tests::journal::{Entry, count, records_until};
use fermata_tests::{TestBroker, TestEngine, definitions};
use fermata_wire::stages::{AdmittedFrame, StageFrame as _, WaitingMark};
use fermata_wire::subjects;
use serde_json::{Value, json};

use crate::floor::{acknowledged, floor, hold_admitted, publish, publish_until_floor};

/// Far more than it takes.
const LIMIT: Duration = Duration::from_secs(60);

const WORKFLOW: &str = "
workflow: { name: one, version: '1', tasks: [{ id: a, noop: {} }] }
";
const STRATEGIES: &str = "
strategies:
  - { name: start, version: 1, tenant: '*', on: demo.start, workflow: { name: one, version: '1' } }
";

async fn store(publisher: &Publisher, subject: &str, bytes: Vec<u8>) -> u64 {
    match publisher.publish(subject.to_owned(), None, bytes.into()).await.await {
        PublishOutcome::Stored { sequence, .. } => sequence,
        outcome => panic!("not stored: {outcome:?}"),
    }
}

async fn connect(broker: &TestBroker) -> Broker {
    Broker::connect(&broker.url(), ConnectOptions::default()).await.expect("a connection")
}

/// Asks the broker's API.
async fn api(broker: &TestBroker, request: &str, body: &Value) -> Value {
    let client = async_nats::connect(broker.url()).await.expect("a connection");
    let answer = client.request(format!("$JS.API.{request}"), body.to_string().into()).await;
    serde_json::from_slice(&answer.expect("an answer").payload).expect("JSON")
}

/// Changes a setting of a stream; says what it was.
async fn edit(broker: &TestBroker, stream: &str, setting: &str, value: Value) -> Value {
    let info = api(broker, &format!("STREAM.INFO.{stream}"), &json!({})).await;
    let mut config = info["config"].clone();
    let before = std::mem::replace(&mut config[setting], value);
    let answer = api(broker, &format!("STREAM.UPDATE.{stream}"), &config).await;
    assert!(answer["error"].is_null(), "{answer}");
    before
}

/// Nobody's subject.
const NOWHERE: &str = "fermata.nowhere";

/// What is published to a stream's subject is neither stored nor answered.
struct Swallowed {
    stream: String,
    subjects: Value,
    seen: Subscription,
}

impl Swallowed {
    async fn new(broker: &TestBroker, engine: &Engine, stream: &str) -> Self {
        let nowhere = json!([format!("{NOWHERE}.{stream}")]);
        let subjects = edit(broker, stream, "subjects", nowhere).await;
        let subject = subjects[0].as_str().expect("a subject");
        let seen = engine.ports().core.subscribe(subject).await.expect("a subscription");
        engine.ports().broker.flush().await;
        Self { stream: stream.to_owned(), subjects, seen }
    }

    async fn next(&mut self) -> Vec<u8> {
        let next = tokio::time::timeout(LIMIT, self.seen.next()).await;
        next.expect("published in time").expect("a message").payload.to_vec()
    }

    async fn end(self, broker: &TestBroker) {
        edit(broker, &self.stream, "subjects", self.subjects).await;
    }
}

/// How often each event is in a lane.
async fn in_lanes(engine: &Engine) -> BTreeMap<SourcePosition, u32> {
    let mut found = BTreeMap::new();
    let end = end_of(&engine.ports().broker, WAITING_STREAM).await.expect("a stream");
    for sequence in 1..=end {
        let stored = engine.ports().reader.read_one(WAITING_STREAM, sequence).await;
        let Some(stored) = stored.expect("a stream") else { continue };
        for event in AdmittedFrame::decode(&stored.payload).expect("a frame").events {
            *found.entry(event.source).or_default() += 1;
        }
    }
    found
}

/// So many accepted events, each a frame in some lane, marked and acknowledged: what is left of a
/// listener that spilled them and ended.
async fn spilled(broker: &TestBroker, events: u64) -> Vec<SourcePosition> {
    let apart = TestEngine::at(broker.url()).named("apart").with_roles([Role::Listener]);
    let apart = apart.start(broker.folder()).await;
    let accepted = publish(&apart, 0..events).await;
    acknowledged(&apart, events).await;
    let matcher = connect(broker).await;
    let publisher = &apart.ports().publisher;
    let (mut lane, mut up_to) = (0, 0);
    let held = hold_admitted(&matcher).await;
    for delivery in &held {
        for event in AdmittedFrame::decode(&delivery.payload).expect("a frame").events {
            let frame = AdmittedFrame { events: vec![event] }.encode().expect("a small frame");
            up_to = store(publisher, &subjects::waiting(lane), frame).await;
            lane = (lane + 1) % LANES;
        }
    }
    assert_eq!(up_to, events);
    let mark = WaitingMark { up_to }.encode().expect("a small message");
    store(publisher, subjects::ADMITTED, mark).await;
    for delivery in held {
        assert!(delivery.acker.ack_confirmed(LIMIT).await);
    }
    apart.shut_down().await;
    accepted
}

/// What is in the lanes, so many frames in each, with somebody who does not get on.
async fn hold_lanes(matcher: &Broker, each: usize) -> Vec<Delivery> {
    let mut held = Vec::new();
    for lane in 0..LANES {
        let options = lane_consumer(lane);
        let mut consumer = SharedConsumer::open(matcher, options).await.expect("a consumer");
        while held.len() < usize::from(lane + 1) * each {
            held.extend(consumer.next_batch(each).await.expect("a batch"));
        }
    }
    held
}

/// Waits until nothing is in the lanes, and no mark is left.
async fn drained(engine: &Engine) {
    let broker = &engine.ports().broker;
    let drained = async {
        loop {
            let left = work_progress(broker, WAITING_STREAM).await.expect("a stream").left;
            let end = end_of(broker, ADMITTED_STREAM).await.expect("a stream");
            let done = shared_progress(broker, ADMITTED_STREAM, MATCHER_CONSUMER).await;
            let done = done.expect("a consumer").acknowledged_up_to;
            if left == 0 && done >= end {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, drained).await.expect("drained in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_wait_in_lanes_are_not_lost_to_a_floor() {
    const WAITING: u64 = 2 * LANES as u64;
    let broker = TestBroker::start(Durability::Process).await;
    let mut accepted = spilled(&broker, WAITING).await;
    let matcher = connect(&broker).await;
    let held = hold_lanes(&matcher, 2).await;

    // From here on all events go another way than those that are held.
    let engine = TestEngine::at(broker.url()).start(broker.folder()).await;
    engine.ready().await;
    definitions::apply_yaml(&engine, &[WORKFLOW], STRATEGIES).await;
    let reader = &engine.ports().reader;
    let (begun, mut ids) = (Instant::now(), 100..);
    while begun.elapsed() < FLOOR_INTERVAL * 4 {
        accepted.extend(publish(&engine, ids.next()).await);
        let decided = accepted.len() - WAITING as usize;
        records_until(reader, 2, LIMIT, |records| count(records, Kind::RunSucceeded) == decided)
            .await;
        for delivery in &held {
            delivery.acker.in_progress().await;
        }
    }
    assert_eq!(floor(reader).await, 0, "told although events wait in lanes");

    for delivery in held {
        delivery.acker.nak(Duration::ZERO).await;
    }
    matcher.flush().await;
    let last = accepted.last().expect("some").sequence;
    accepted.extend(publish_until_floor(&engine, last, &mut ids).await);
    let found = records_until(reader, 2, LIMIT, |records| {
        count(records, Kind::RunSucceeded) == accepted.len()
    })
    .await;

    assert_eq!(invariant_each_event_has_one_outcome(&found, accepted), [""; 0]);
    assert_eq!(invariant_each_run_ends_once(&found), [""; 0]);
    drained(&engine).await;
    engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_lanes_is_decided_once_by_whoever_comes_and_stays() {
    const WAITING: u64 = 3_000;
    let broker = TestBroker::start(Durability::Process).await;
    let accepted = spilled(&broker, WAITING).await;

    let first = TestEngine::at(broker.url()).named("first").start(broker.folder()).await;
    let second = TestEngine::at(broker.url()).named("second").start(broker.folder()).await;
    let reader = &second.ports().reader;
    let decided = |records: &[Entry]| count(records, Kind::EventUnmatched);
    records_until(reader, 2, LIMIT, |records| decided(records) > 0).await;
    first.shut_down().await;
    let found =
        records_until(reader, 2, LIMIT, |records| decided(records) == WAITING as usize).await;

    assert_eq!(invariant_each_event_has_one_outcome(&found, accepted), [""; 0]);
    drained(&second).await;
    second.shut_down().await;
}

/// Publishes events of a tenant, all in one message; says where they stand.
async fn publish_together(
    engine: &Engine,
    tenant: &str,
    ids: std::ops::Range<u64>,
) -> Vec<SourcePosition> {
    publish_at_once(engine, &[(tenant, ids)]).await
}

/// Publishes messages of many events one right behind the other.
async fn publish_at_once(
    engine: &Engine,
    messages: &[(&str, std::ops::Range<u64>)],
) -> Vec<SourcePosition> {
    let batch = |(tenant, ids): &(&str, std::ops::Range<u64>)| {
        let event = |id: u64| {
            json!({ "specversion": "1.0", "id": id.to_string(), "source": "/t",
                "type": "demo.start", "tenant": tenant, "data": {} })
        };
        let subject = format!("fermata.events.{tenant}.demo.start");
        (subject, serde_json::Value::from_iter(ids.clone().map(event)).to_string())
    };
    let mut receipts = Vec::new();
    // Written before the first one goes out: writing takes longer than deciding.
    for (subject, batch) in messages.iter().map(batch).collect::<Vec<_>>() {
        receipts.push(engine.ports().publisher.publish(subject, None, batch.into()).await);
    }
    let mut positions = Vec::new();
    for (receipt, (_, ids)) in receipts.into_iter().zip(messages) {
        let sequence = receipt.await.sequence().expect("stored");
        let indexes = 0..u32::try_from(ids.end - ids.start).expect("few");
        positions.extend(indexes.map(|index| SourcePosition { sequence, index }));
    }
    positions
}

/// How many events of a tenant started a run.
fn started(records: &[Entry], tenant: &str) -> usize {
    let is_of = |header: &Header| header.tenant.as_ref().is_some_and(|of| of.as_str() == tenant);
    let started = |header: &Header| header.kind == Kind::EventStarted && is_of(header);
    records.iter().filter(|(header, _)| started(header)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_a_quiet_tenant_is_decided_while_the_flood_of_another_one_waits() {
    const MESSAGES: u64 = 16;
    const TOGETHER: u64 = 4_000;
    let broker = TestBroker::start(Durability::Process).await;
    let engine = TestEngine::at(broker.url()).start(broker.folder()).await;
    engine.ready().await;
    definitions::apply_yaml(&engine, &[WORKFLOW], STRATEGIES).await;
    let reader = &engine.ports().reader;
    let mut accepted = publish_together(&engine, "quiet", 0..1).await;
    records_until(reader, 2, LIMIT, |records| started(records, "quiet") == 1).await;

    let flood = (0..MESSAGES).map(|message| message * TOGETHER..(message + 1) * TOGETHER);
    let mut messages: Vec<_> = flood.map(|ids| ("others", ids)).collect();
    messages.push(("quiet", 1..2));
    accepted.extend(publish_at_once(&engine, &messages).await);
    let found = records_until(reader, 2, LIMIT, |records| started(records, "quiet") == 2).await;
    let flood = (MESSAGES * TOGETHER) as usize;
    // By the time of the journals: what was decided while they were read counts for nothing.
    let of_quiet = |(header, _): &&Entry| {
        header.kind == Kind::EventStarted
            && header.tenant.as_ref().is_some_and(|tenant| tenant.as_str() == "quiet")
    };
    let quiet = found.iter().filter(of_quiet).map(|(header, _)| header.time).max();
    let before = found.iter().filter(|(header, _)| Some(header.time) < quiet).cloned();
    let decided = started(&before.collect::<Vec<_>>(), "others");
    let left = work_progress(&engine.ports().broker, WAITING_STREAM).await.expect("a stream").left;
    assert!(decided < flood / 2, "{decided} of {flood} were decided before");
    assert!(left > 0, "nothing waits in a lane");

    let found =
        records_until(reader, 2, 2 * LIMIT, |records| started(records, "others") == flood).await;
    assert_eq!(invariant_each_event_has_one_outcome(&found, accepted), [""; 0]);
    drained(&engine).await;
    engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_keeps_up_stores_nothing_in_lanes_and_consumes_none() {
    let broker = TestBroker::start(Durability::Process).await;
    let engine = TestEngine::at(broker.url()).start(broker.folder()).await;
    engine.ready().await;
    definitions::apply_yaml(&engine, &[WORKFLOW], STRATEGIES).await;

    for round in 0..20 {
        publish_together(&engine, "quiet", round..round + 1).await;
        publish_together(&engine, "others", round..round + 1).await;
    }
    let decided = |records: &[Entry]| started(records, "quiet") + started(records, "others");
    records_until(&engine.ports().reader, 2, LIMIT, |records| decided(records) == 40).await;

    let broker = &engine.ports().broker;
    let progress = work_progress(broker, WAITING_STREAM).await.expect("a stream");
    assert_eq!((progress.done_up_to, progress.left), (0, 0), "something was spilled");
    for lane in 0..LANES {
        let consumer = lane_consumer(lane).name;
        let progress = shared_progress(broker, WAITING_STREAM, &consumer).await;
        assert!(progress.is_err(), "`{consumer}` is there: {progress:?}");
    }
    engine.shut_down().await;
}
