//! What a worker finds in lanes when it starts, and what it finds there later that nobody told of.

use super::*;

/// Far more than it takes, and less than until somebody looks for the next time.
const SOON: Duration = Duration::from_secs(25);

/// Definitions whose plans take a while to be read, since there are so many.
async fn define_much(engine: &Engine) {
    const WORKFLOWS: usize = 300;
    let other = |number| WORKFLOW.replace("name: one", &format!("name: other-{number}"));
    let mut workflows: Vec<String> = (0..WORKFLOWS).map(other).collect();
    workflows.push(WORKFLOW.to_owned());
    let workflows: Vec<&str> = workflows.iter().map(String::as_str).collect();
    definitions::apply_yaml(engine, &workflows, STRATEGIES).await;
}

/// An engine that was defined, and is gone.
async fn defined_before(broker: &TestBroker) {
    let engine = TestEngine::at(broker.url()).start(broker.folder()).await;
    engine.ready().await;
    define_much(&engine).await;
    engine.shut_down().await;
}

/// Every one of the events started a run, once.
async fn all_start(engine: &Engine, accepted: Vec<SourcePosition>) {
    let all = accepted.len();
    let reader = &engine.ports().reader;
    let decided = |records: &[Entry]| {
        count(records, Kind::EventStarted) + count(records, Kind::EventUnmatched)
    };
    let found = records_until(reader, 2, LIMIT, |records| decided(records) == all).await;
    assert_eq!(count(&found, Kind::EventUnmatched), 0, "decided before it was known by what");
    assert_eq!(invariant_each_event_has_one_outcome(&found, accepted), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_lanes_is_decided_by_definitions_that_a_restarted_worker_reads_first() {
    let broker = TestBroker::start(Durability::Process).await;
    defined_before(&broker).await;
    let accepted = spilled(&broker, 4 * u64::from(LANES)).await;

    let engine = TestEngine::at(broker.url()).start(broker.folder()).await;

    all_start(&engine, accepted).await;
    drained(&engine).await;
    engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_before_an_apart_matcher_is_decided_by_definitions_that_it_reads_first() {
    const WAITING: u64 = 64;
    let broker = TestBroker::start(Durability::Process).await;
    defined_before(&broker).await;
    let apart = |name: &str, role| {
        TestEngine::at(broker.url()).named(name).with_roles([role]).start(broker.folder())
    };
    let listener = apart("listener", Role::Listener).await;
    let accepted = publish(&listener, 0..WAITING).await;
    acknowledged(&listener, WAITING).await;
    listener.shut_down().await;

    let matcher = apart("matcher", Role::Matcher).await;
    let builder = apart("builder", Role::Builder).await;
    let coordinator = apart("coordinator", Role::Coordinator).await;

    all_start(&coordinator, accepted).await;
    matcher.shut_down().await;
    builder.shut_down().await;
    coordinator.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_starts_while_lanes_hold_something_lets_no_flood_past_them() {
    const MESSAGES: u64 = 8;
    const TOGETHER: u64 = 500;
    let broker = TestBroker::start(Durability::Process).await;
    let mut accepted = spilled(&broker, LANES.into()).await;
    let matcher = connect(&broker).await;
    let held = hold_lanes(&matcher, 1).await;
    let engine = TestEngine::at(broker.url()).start(broker.folder()).await;
    engine.ready().await;

    // Nobody else publishes.
    for message in 0..MESSAGES {
        let ids = message * TOGETHER..(message + 1) * TOGETHER;
        accepted.extend(publish_together(&engine, "others", ids).await);
    }
    let spilling = async {
        while end_of(&engine.ports().broker, WAITING_STREAM).await.expect("a stream")
            == u64::from(LANES)
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, spilling).await.expect("the flood is spilled");

    for delivery in held {
        delivery.acker.nak(Duration::ZERO).await;
    }
    matcher.flush().await;
    let reader = &engine.ports().reader;
    let decided = |records: &[Entry]| count(records, Kind::EventUnmatched);
    let all = accepted.len();
    let found = records_until(reader, 2, LIMIT, |records| decided(records) == all).await;
    assert_eq!(invariant_each_event_has_one_outcome(&found, accepted), [""; 0]);
    drained(&engine).await;
    engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_nobody_marked_is_drained_by_workers_that_live() {
    let broker = TestBroker::start(Durability::Process).await;
    let apart = TestEngine::at(broker.url()).named("apart").with_roles([Role::Listener]);
    let apart = apart.start(broker.folder()).await;
    publish(&apart, 0..1).await;
    acknowledged(&apart, 1).await;
    let held = hold_admitted(&connect(&broker).await).await;
    let delivery = held.into_iter().next().expect("a frame");
    let mut frame = AdmittedFrame::decode(&delivery.payload).expect("a frame");
    // Of another event, which nobody has acknowledged.
    let position = SourcePosition { sequence: 1_000, index: 0 };
    frame.events[0].source = position;
    assert!(delivery.acker.ack_confirmed(LIMIT).await);
    apart.shut_down().await;
    let engine = TestEngine::at(broker.url()).start(broker.folder()).await;
    engine.ready().await;

    // As one leaves it that was killed before it stored a mark.
    store(&engine.ports().publisher, &subjects::waiting(7), frame.encode().expect("small")).await;

    let reader = &engine.ports().reader;
    let decided = |records: &[Entry]| count(records, Kind::EventUnmatched);
    let found = records_until(reader, 2, LIMIT, |records| decided(records) == 1).await;
    assert_eq!(invariant_each_event_has_one_outcome(&found, [position]), [""; 0]);
    drained(&engine).await;
    engine.shut_down().await;
}
