//! Workers that are killed while they spill: every event is decided once all the same.

use std::collections::BTreeSet;

use fermata_actors::listener::LISTENER_CONSUMER;
use fermata_jetstream::topology::{EVENTS_STREAM, commands_stream};
use tokio::runtime::Runtime;

use super::*;

const MESSAGES: u64 = 10;
const TOGETHER: u64 = 300;

/// A broker with a worker that owns partitions and knows definitions, one that takes events in and
/// will be killed, and something in each lane that nobody gets on with, so that a flood is spilled.
struct Scene {
    broker: TestBroker,
    owner: Engine,
    doomed: Runtime,
    matcher: Broker,
    held: Vec<Delivery>,
    accepted: Vec<SourcePosition>,
}

impl Scene {
    async fn new() -> Self {
        let broker = TestBroker::start(Durability::Process).await;
        let accepted = spilled(&broker, LANES.into()).await;
        let matcher = connect(&broker).await;
        let held = hold_lanes(&matcher, 1).await;
        let owner = TestEngine::at(broker.url()).named("owner").with_roles([Role::Coordinator]);
        let owner = owner.start(broker.folder()).await;
        owner.ready().await;
        definitions::apply_yaml(&owner, &[WORKFLOW], STRATEGIES).await;
        let mut doomed = tokio::runtime::Builder::new_multi_thread();
        let doomed = doomed.worker_threads(2).enable_all().build().expect("a runtime");
        let engine = intake(&broker, "doomed");
        let folder = broker.folder().to_owned();
        let started = doomed.spawn(async move { engine.start(&folder).await.ready().await });
        started.await.expect("a worker");
        Self { broker, owner, doomed, matcher, held, accepted }
    }

    /// A flood with few events of somebody else among it.
    async fn flood(&mut self) {
        for message in 0..MESSAGES {
            let ids = message * TOGETHER..(message + 1) * TOGETHER;
            self.accepted.extend(publish_together(&self.owner, "others", ids).await);
            self.accepted
                .extend(publish_together(&self.owner, "quiet", message..message + 1).await);
        }
    }

    /// Whether all in lanes is marked, and more messages of the flood have events there than are
    /// acknowledged.
    async fn holds_marked(&self) -> bool {
        let ports = self.owner.ports();
        let listener = shared_progress(&ports.broker, EVENTS_STREAM, LISTENER_CONSUMER).await;
        let listener = listener.expect("a consumer");
        let end = self.end_of(ADMITTED_STREAM).await;
        let last = ports.reader.read_one(ADMITTED_STREAM, end).await.expect("a stream");
        let mark = last.and_then(|last| AdmittedFrame::mark(&last.payload));
        let stored = self.end_of(WAITING_STREAM).await;
        if listener.waiting > 0 || mark.is_none_or(|mark| mark.up_to < stored) {
            return false;
        }
        let in_lanes = in_lanes(&self.owner).await.into_keys().map(|position| position.sequence);
        let of_flood = in_lanes.filter(|sequence| *sequence > LANES.into());
        let of_flood = of_flood.collect::<BTreeSet<_>>().len() as u64;
        of_flood + listener.unacknowledged > 2 * MESSAGES
    }

    async fn end_of(&self, stream: &str) -> u64 {
        end_of(&self.owner.ports().broker, stream).await.expect("a stream")
    }

    async fn until(&self, what: &str, is_so: impl AsyncFn() -> bool) {
        let so = async {
            while !is_so().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LIMIT, so).await.unwrap_or_else(|_| panic!("{what} in time"));
    }

    /// No task of the worker goes on, and its connections are gone.
    fn kill(self) -> Killed {
        let Self { broker, owner, doomed, matcher, held, accepted } = self;
        doomed.shutdown_background();
        Killed { broker, owner, matcher, held, accepted }
    }
}

struct Killed {
    broker: TestBroker,
    owner: Engine,
    matcher: Broker,
    held: Vec<Delivery>,
    accepted: Vec<SourcePosition>,
}

impl Killed {
    /// Another worker decides everything, once.
    async fn decided_by_another_one(self) {
        for delivery in self.held {
            delivery.acker.nak(Duration::ZERO).await;
        }
        self.matcher.flush().await;
        let heir = intake(&self.broker, "heir").start(self.broker.folder()).await;
        let reader = &self.owner.ports().reader;
        let ended = |records: &[Entry]| count(records, Kind::RunSucceeded);
        let all = self.accepted.len();
        // What was held comes again when the broker has waited for its acknowledgement.
        let found = records_until(reader, 2, 2 * LIMIT, |records| ended(records) >= all).await;
        drained(&heir).await;
        acknowledged(&heir, self.accepted.last().expect("some").sequence).await;
        let later = records_until(reader, 2, LIMIT, |records| records.len() >= found.len()).await;

        assert_eq!(invariant_each_event_has_one_outcome(&later, self.accepted), [""; 0]);
        assert_eq!(invariant_each_run_ends_once(&later), [""; 0]);
        assert_eq!(count(&later, Kind::EventStarted), all);
        heir.shut_down().await;
        self.owner.shut_down().await;
    }
}

/// A worker that takes events in and owns nothing.
fn intake(broker: &TestBroker, name: &str) -> TestEngine {
    let roles = [Role::Listener, Role::Matcher, Role::Builder];
    TestEngine::at(broker.url()).named(name).with_roles(roles)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_between_frames_and_their_mark_leaves_each_event_to_be_decided_once() {
    let mut scene = Scene::new().await;
    let mut marks = Swallowed::new(&scene.broker, &scene.owner, ADMITTED_STREAM).await;
    let marked = scene.end_of(ADMITTED_STREAM).await;

    scene.flood().await;
    let mark = AdmittedFrame::mark(&marks.next().await).expect("a mark");
    assert!(mark.up_to > LANES.into(), "nothing is stored in a lane");
    assert_eq!(scene.end_of(ADMITTED_STREAM).await, marked, "it is marked");
    let killed = scene.kill();
    marks.end(&killed.broker).await;

    killed.decided_by_another_one().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_between_a_mark_and_the_acknowledgement_leaves_each_event_once() {
    let mut scene = Scene::new().await;
    // Then nothing that is passed on directly is known to be durable, and its batch is held.
    let mut commands = Vec::new();
    for partition in ["0", "1"] {
        commands
            .push(Swallowed::new(&scene.broker, &scene.owner, &commands_stream(partition)).await);
    }

    scene.flood().await;
    scene.until("marked and not acknowledged", async || scene.holds_marked().await).await;
    let killed = scene.kill();
    for commands in commands {
        commands.end(&killed.broker).await;
    }

    killed.decided_by_another_one().await;
}
