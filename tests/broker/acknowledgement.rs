//! A source is acknowledged only after everything that came of it is durable.

use std::time::Duration;

use fermata_actors::hop::Hop;
use fermata_actors::listener::{LISTENER_CONSUMER, Listener};
use fermata_actors::metrics::Metrics;
use fermata_actors::source::Source;
use fermata_actors::stage::{Durable, Stage, spawn_stage};
use fermata_actors::{Engine, Role};
use fermata_jetstream::progress::shared_progress;
use fermata_jetstream::topology::{DEAD_STREAM, EVENTS_STREAM};
use fermata_jetstream::{Durability, SharedConsumerOptions};
use fermata_tests::{TestBroker, TestEngine, audit, events};
use fermata_wire::dead::DeadLetter;
use fermata_wire::stages::AdmittedFrame;
use futures_util::future::BoxFuture;
use ractor::ActorCell;
use tokio::sync::{mpsc, oneshot};

/// How long a redelivery may take: the pause before it is a second.
const LIMIT: Duration = Duration::from_secs(60);

/// How long the broker waits for an acknowledgement where a test sees it pass.
const ACKNOWLEDGE_WITHIN: Duration = Duration::from_secs(5);

/// A stage that says what it was passed, and whose outputs are durable when the
/// test says so.
struct Told {
    seen: mpsc::UnboundedSender<(Vec<u64>, oneshot::Sender<bool>)>,
}

impl Stage for Told {
    type Input = AdmittedFrame;

    fn take(&mut self, frame: AdmittedFrame) -> BoxFuture<'static, Durable> {
        let positions = frame.events.iter().map(|event| event.source.sequence).collect();
        let (durable, told) = oneshot::channel();
        self.seen.send((positions, durable)).expect("the test listens");
        Box::pin(async move { told.await.unwrap_or(false).into() })
    }
}

/// A listener with such a stage behind it, on a broker of its own.
struct Scene {
    broker: TestBroker,
    engine: Engine,
    source: Source,
    stages: Vec<ActorCell>,
    frames: mpsc::UnboundedReceiver<(Vec<u64>, oneshot::Sender<bool>)>,
}

impl Scene {
    async fn set() -> Self {
        let broker = TestBroker::start(Durability::Process).await;
        // Only for its connections: no stage of its own.
        let engine = TestEngine::at(broker.url()).with_roles([Role::Coordinator]);
        let engine = engine.start(broker.folder()).await;
        let (seen, frames) = mpsc::unbounded_channel();
        let told = spawn_stage(Told { seen }, None).await.expect("the stage starts");
        let listener =
            Listener::new(engine.ports().clone(), Hop::Memory(told.clone()), Metrics::new());
        let listener = spawn_stage(listener, None).await.expect("the listener starts");
        let options = SharedConsumerOptions {
            acknowledge_within: ACKNOWLEDGE_WITHIN,
            ..Listener::consumer()
        };
        let stages = vec![listener.get_cell(), told.get_cell()];
        let source = Source::start(engine.ports().clone(), options, listener);
        Self { broker, engine, source, stages, frames }
    }

    async fn publish(&self, id: u64) -> u64 {
        events::publish(&self.engine.ports().publisher, "demo.start", id).await
    }

    async fn frame(&mut self) -> (Vec<u64>, oneshot::Sender<bool>) {
        let frame = tokio::time::timeout(LIMIT, self.frames.recv()).await;
        frame.expect("within the limit").expect("a frame")
    }

    async fn end(self) {
        self.source.drain(LIMIT).await;
        self.stages.iter().for_each(|stage| stage.stop(None));
        self.engine.shut_down().await;
        drop(self.broker);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_outputs_were_not_stored_is_delivered_again() {
    let mut scene = Scene::set().await;

    let sequence = scene.publish(1).await;

    for durable in [false, true] {
        let (positions, told) = scene.frame().await;
        assert_eq!(positions, [sequence]);
        told.send(durable).expect("the stage waits");
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_a_stage_holds_for_long_is_not_delivered_again() {
    let mut scene = Scene::set().await;
    let first = scene.publish(1).await;
    let (positions, held) = scene.frame().await;
    assert_eq!(positions, [first]);
    let second = scene.publish(2).await;
    let (positions, held_too) = scene.frame().await;
    assert_eq!(positions, [second]);
    // No room for this one: it waits in memory.
    let third = scene.publish(3).await;

    let again = tokio::time::timeout(ACKNOWLEDGE_WITHIN * 7 / 5, scene.frames.recv()).await;
    assert!(again.is_err(), "delivered while held: {again:?}");
    let broker = &scene.engine.ports().broker;
    let progress = shared_progress(broker, EVENTS_STREAM, LISTENER_CONSUMER).await;
    let progress = progress.expect("a consumer");
    assert_eq!((progress.unacknowledged, progress.redelivered), (3, 0));

    held.send(true).expect("the stage waits");
    let (positions, last) = scene.frame().await;
    assert_eq!(positions, [third]);
    last.send(true).expect("the stage waits");
    held_too.send(true).expect("the stage waits");
    scene.end().await;
}

/// Bounds the messages that DEAD takes; -1 takes any.
async fn bound_dead_letters(broker: &TestBroker, max_message_size: i32) {
    let client = async_nats::connect(broker.url()).await.expect("a connection");
    let jetstream = async_nats::jetstream::new(client);
    let stream = jetstream.get_stream(DEAD_STREAM).await.expect("a stream");
    let config = stream.cached_info().config.clone();
    let config = async_nats::jetstream::stream::Config { max_message_size, ..config };
    jetstream.update_stream(config).await.expect("another bound");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_letter_was_refused_is_delivered_again_until_the_letter_is_there() {
    let mut scene = Scene::set().await;
    let ports = scene.engine.ports().clone();
    bound_dead_letters(&scene.broker, 1).await;

    let malformed = "no event".into();
    let sequence = events::publish_raw(&ports.publisher, "demo.start", malformed).await;

    let delivered_again = async {
        loop {
            let progress = shared_progress(&ports.broker, EVENTS_STREAM, LISTENER_CONSUMER).await;
            let progress = progress.expect("a consumer");
            assert_eq!(progress.acknowledged_up_to, 0, "acknowledged without its letter");
            assert!(scene.frames.try_recv().is_err(), "passed on without its letter");
            if progress.redelivered == 1 {
                return;
            }
        }
    };
    tokio::time::timeout(LIMIT, delivered_again).await.expect("it is delivered again");
    assert!(audit::messages(&ports.reader, DEAD_STREAM).await.is_empty());

    bound_dead_letters(&scene.broker, -1).await;
    let (positions, told) = scene.frame().await;
    assert_eq!(positions, [sequence]);
    let letters = audit::messages(&ports.reader, DEAD_STREAM).await;
    let ids = letters.iter().map(|letter| DeadLetter::decode(&letter.payload).expect("one").id);
    assert_eq!(ids.collect::<Vec<_>>(), [format!("{sequence}.0")]);
    told.send(true).expect("the stage waits");
    let acknowledged = async {
        loop {
            let progress = shared_progress(&ports.broker, EVENTS_STREAM, LISTENER_CONSUMER).await;
            if progress.expect("a consumer").acknowledged_up_to == sequence {
                return;
            }
        }
    };
    tokio::time::timeout(LIMIT, acknowledged).await.expect("it is acknowledged");
    scene.end().await;
}
