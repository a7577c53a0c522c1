//! What a runner starts, for whom, and where outcomes go when nobody is there
//! to take them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fermata_actors::coordinator::{Coordinator, CoordinatorMessage};
use fermata_actors::escalator::Escalator;
use fermata_actors::lease_term::LeaseTerm;
use fermata_actors::metrics::Metrics;
use fermata_actors::node_runner::{ATTEMPTS_AT_ONCE_MAX, NodeRunner, NodeRunnerMessage};
use fermata_actors::ports::Ports;
use fermata_actors::uncommitted_reports::UncommittedReports;
use fermata_actors::{Engine, Role};
use fermata_core::command::Command;
use fermata_core::effect::{Attempt, AttemptWork, CaseNotice, Outcome};
use fermata_core::identity::{PartitionId, RunId, SourcePosition};
use fermata_core::json::Json;
use fermata_core::partition::Report;
use fermata_core::plan::Completion;
use fermata_core::run::AttemptReport;
use fermata_executors::Executors;
use fermata_jetstream::Durability;
use fermata_tests::{Sink, TestBroker, TestEngine, audit, events};
use fermata_wire::commands::CommandFrame;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::mpsc;
use uuid::Uuid;

const LIMIT: Duration = Duration::from_secs(60);
const FAR_MS: u64 = 3_600_000;

/// Passes on what it is told, as whoever it stands for would take it.
struct Stand<M>(mpsc::UnboundedSender<M>);

impl<M: ractor::Message> Actor for Stand<M> {
    type Msg = M;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<M>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _: ActorRef<M>,
        message: M,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        // The test may have seen enough.
        let _ = self.0.send(message);
        Ok(())
    }
}

async fn stand<M: ractor::Message>() -> (ActorRef<M>, mpsc::UnboundedReceiver<M>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let (stand, _) = Actor::spawn(None, Stand(sender), ()).await.expect("an actor");
    (stand, receiver)
}

/// A broker, a plugin, and a runner for partitions that nobody owns.
struct Scene {
    runner: ActorRef<NodeRunnerMessage>,
    engine: Engine,
    sink: Sink,
    _broker: TestBroker,
}

/// A coordinator as its runner sees it.
struct Owner {
    partition: PartitionId,
    coordinator: ActorRef<CoordinatorMessage>,
    told: mpsc::UnboundedReceiver<CoordinatorMessage>,
    lease: LeaseTerm,
    adopted: BTreeSet<(String, u32)>,
}

impl Scene {
    async fn new() -> Self {
        let broker = TestBroker::start(Durability::Process).await;
        let sink = Sink::start().await;
        let engine = TestEngine::at(broker.url()).with_roles([Role::Listener]);
        let engine = engine.start(broker.folder()).await;
        let executors = Executors::new(&sink.executors()).expect("executors");
        let runner = NodeRunner::new(engine.ports().clone(), Arc::new(executors));
        let (runner, _) = Actor::spawn(None, runner, ()).await.expect("a runner");
        Self { runner, engine, sink, _broker: broker }
    }

    fn ports(&self) -> &Ports {
        self.engine.ports()
    }

    async fn attach(&self, partition: u16) -> Owner {
        let (coordinator, told) = stand().await;
        let partition = PartitionId(partition);
        let lease = LeaseTerm::new(self.ports().clock, FAR_MS);
        let attach =
            |reply| NodeRunnerMessage::Attach(partition, coordinator.clone(), lease.view(), reply);
        let live = self.runner.call(attach, Some(LIMIT)).await.expect("a runner").unwrap();
        let adopted = live.into_iter().map(|(key, attempt)| (key.to_string(), attempt)).collect();
        Owner { partition, coordinator, told, lease, adopted }
    }

    fn start(&self, owner: &Owner, attempts: Vec<Attempt>) {
        let start = NodeRunnerMessage::Start(owner.coordinator.get_id(), attempts);
        self.runner.cast(start).expect("a runner");
    }

    /// Takes every turn, with calls that hang.
    fn take_all_turns(&self, owner: &Owner) -> RunId {
        let run = run_of(owner.partition, 99);
        let attempt = |number| attempt(run, &format!("filler-{number}"), "/hang");
        self.start(owner, (0..ATTEMPTS_AT_ONCE_MAX).map(attempt).collect());
        run
    }

    fn detach(&self, owner: &Owner) {
        let detach = NodeRunnerMessage::Detach(owner.partition, owner.coordinator.get_id());
        self.runner.cast(detach).expect("a runner");
    }

    fn has_reached_the_sink(&self, run: RunId, node: &str) -> bool {
        self.sink.effects().contains_key(&format!("{run}/{node}/1"))
    }

    /// Outcomes among the commands of a partition.
    async fn outcomes(&self, partition: PartitionId) -> Vec<RunId> {
        let stream = format!("COMMANDS_{partition}");
        let messages = audit::messages(&self.ports().reader, &stream).await;
        let commands = messages
            .iter()
            .flat_map(|message| CommandFrame::decode(&message.payload).expect("a frame").commands);
        commands
            .filter_map(|command| match command {
                Command::Outcome(outcome) => Some(outcome.run),
                _ => None,
            })
            .collect()
    }
}

impl Owner {
    /// Waits for the outcome of a run's attempt.
    async fn until_reported(&mut self, run: RunId) {
        let reported = async {
            while let Some(message) = self.told.recv().await {
                let CoordinatorMessage::Reports(mut reports) = message else { continue };
                let mut found = reports.take().into_iter();
                if found.any(|report| matches!(report, Report::Attempt(of) if of.run == run)) {
                    return;
                }
            }
            panic!("the coordinator has ended");
        };
        tokio::time::timeout(LIMIT, reported).await.expect("an outcome in time");
    }
}

fn run_of(partition: PartitionId, number: u64) -> RunId {
    let tenant = events::TENANT.parse().expect("a tenant");
    let source = SourcePosition { sequence: number, index: 0 };
    RunId::new(partition, &tenant, 7, source, "s", None)
}

fn attempt(run: RunId, node: &str, path: &str) -> Attempt {
    Attempt {
        run,
        node: node.into(),
        activation: 1,
        attempt: 1,
        tenant: events::TENANT.parse().expect("a tenant"),
        timeout_ms: FAR_MS,
        traceparent: None,
        completion: Completion::Answer,
        work: AttemptWork::Http {
            plugin: fermata_tests::sink::PLUGIN.into(),
            path: path.into(),
            body: Json::null(),
        },
    }
}

fn succeeded(run: RunId, node: &str) -> Report {
    let outcome = Outcome::Succeeded { output: Json::null() };
    let node = node.into();
    let tenant = None;
    Report::Attempt(AttemptReport { run, node, activation: 1, attempt: 1, tenant, outcome })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_waited_beyond_its_lease_starts_when_the_lease_is_renewed() {
    let scene = Scene::new().await;
    let mut other = scene.attach(0).await;
    let mut owner = scene.attach(1).await;
    let fillers = scene.take_all_turns(&other);
    scene.sink.arrived(1).await;
    let (run, marker) = (run_of(owner.partition, 1), run_of(other.partition, 2));
    scene.start(&owner, vec![attempt(run, "late", "/ok")]);

    owner.lease.extend(0);
    scene.start(&other, vec![attempt(marker, "marker", "/ok")]);
    scene.runner.cast(NodeRunnerMessage::Abort(fillers)).expect("a runner");
    other.until_reported(marker).await;

    assert!(!scene.has_reached_the_sink(run, "late"), "its lease has run out");
    owner.lease.extend(FAR_MS);
    owner.until_reported(run).await;
    assert!(scene.has_reached_the_sink(run, "late"));
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_begun_is_adopted_and_what_has_not_is_left_to_be_ordered_again() {
    let scene = Scene::new().await;
    let first = scene.attach(0).await;
    let other = scene.attach(1).await;
    let (begun, waiting) = (run_of(first.partition, 1), run_of(first.partition, 2));
    scene.start(&first, vec![attempt(begun, "begun", "/hang")]);
    scene.sink.arrived(1).await;
    let fillers = scene.take_all_turns(&other);
    scene.sink.arrived(2).await;
    // Should a turn be left yet, it is not this one's: it waits for its owner's lease.
    first.lease.extend(0);
    scene.start(&first, vec![attempt(waiting, "waiting", "/ok")]);

    scene.detach(&first);
    let mut next = scene.attach(0).await;
    first.lease.extend(FAR_MS);
    scene.runner.cast(NodeRunnerMessage::Abort(fillers)).expect("a runner");
    let marker = run_of(next.partition, 3);
    scene.start(&next, vec![attempt(marker, "marker", "/ok")]);
    next.until_reported(marker).await;

    assert_eq!(next.adopted, BTreeSet::from([(format!("{begun}/begun/1"), 1)]));
    assert!(!scene.has_reached_the_sink(waiting, "waiting"));
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_stops_late_takes_nothing_from_its_successor() {
    let scene = Scene::new().await;
    let first = scene.attach(0).await;
    let mut next = scene.attach(0).await;
    let (of_first, of_next) = (run_of(first.partition, 1), run_of(first.partition, 2));

    scene.start(&first, vec![attempt(of_first, "call", "/ok")]);
    scene.detach(&first);
    scene.start(&next, vec![attempt(of_next, "call", "/ok")]);
    next.until_reported(of_next).await;

    assert!(!scene.has_reached_the_sink(of_first, "call"), "its successor orders it again");
    scene.runner.drain_and_wait(Some(LIMIT)).await.expect("a runner that ends");
    assert_eq!(scene.outcomes(next.partition).await, []);
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_ends_when_the_outcomes_that_nobody_took_are_stored() {
    let scene = Scene::new().await;
    let partition = PartitionId(0);
    let runs = (0..200).map(|number| run_of(partition, number)).collect::<Vec<_>>();

    let reports = runs.iter().map(|run| succeeded(*run, "call")).collect();
    scene.runner.cast(NodeRunnerMessage::Publish(partition, reports)).expect("a runner");
    scene.runner.drain_and_wait(Some(LIMIT)).await.expect("a runner that ends");

    assert_eq!(scene.outcomes(partition).await, runs);
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outcomes_in_the_hands_of_a_coordinator_that_ends_or_halts_are_published() {
    let scene = Scene::new().await;
    let partition = PartitionId(0);
    let (runner, mut told) = stand::<NodeRunnerMessage>().await;
    let (sender, mut published) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(message) = told.recv().await {
            match message {
                NodeRunnerMessage::Publish(partition, reports) => {
                    // The test may have seen enough.
                    let _ = sender.send((partition, reports));
                }
                NodeRunnerMessage::Attach(.., reply) => drop(reply.send([].into())),
                _ => {}
            }
        }
    });
    let mut until_published = async |run| {
        let found = tokio::time::timeout(LIMIT, published.recv()).await.expect("in time");
        assert_eq!(found, Some((partition, vec![succeeded(run, "call")])));
    };
    let until_ms = scene.ports().clock.now().monotonic_ms + FAR_MS;
    let report = |run| {
        let reports = vec![succeeded(run, "call")];
        CoordinatorMessage::Reports(UncommittedReports::new(partition, runner.clone(), reports))
    };
    let status = async |coordinator: &ActorRef<CoordinatorMessage>| {
        let status = coordinator.call(CoordinatorMessage::Status, Some(LIMIT)).await;
        status.expect("a coordinator").unwrap()
    };
    let spawn = async || {
        let ports = scene.ports().clone();
        let coordinator = Coordinator::new(ports, partition, runner.clone(), Metrics::new());
        Actor::spawn(None, coordinator, until_ms).await.expect("a coordinator").0
    };

    let killed = spawn().await;
    killed.cast(report(run_of(partition, 1))).expect("a coordinator");
    let _ = status(&killed).await;
    killed.kill();
    until_published(run_of(partition, 1)).await;

    let halts = spawn().await;
    halts.cast(report(run_of(partition, 2))).expect("a coordinator");
    // From the auditor of an owner that has gone: it means nothing.
    halts.cast(CoordinatorMessage::AuditHalted(0, "old".to_owned())).expect("a coordinator");
    assert_ne!(status(&halts).await.state, "halted");
    halts.cast(CoordinatorMessage::AuditHalted(1, "now".to_owned())).expect("a coordinator");
    assert_eq!(status(&halts).await.reason.as_deref(), Some("now"));
    until_published(run_of(partition, 2)).await;
    halts.cast(report(run_of(partition, 3))).expect("a coordinator");
    until_published(run_of(partition, 3)).await;
    halts.stop(None);
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_that_waited_beyond_its_lease_is_told_when_the_lease_is_renewed() {
    let scene = Scene::new().await;
    let core = &scene.ports().core;
    let subject = "fermata.escalation.acme.3";
    let mut told = core.subscribe(subject).await.expect("a subscription");
    // Publishing has a connection of its own: what it sends can be there before
    // the subscription is, until one message has come through.
    loop {
        core.publish_core(subject.to_owned(), "{}".into()).await.expect("a connection");
        core.flush().await.expect("a connection");
        if tokio::time::timeout(Duration::from_millis(100), told.next()).await.is_ok() {
            break;
        }
    }
    let (coordinator, mut handled) = stand::<CoordinatorMessage>().await;
    let spawn = async |case: u128, lease: &LeaseTerm| {
        let notice = CaseNotice {
            case: Uuid::from_u128(case),
            attempt: 1,
            tenant: events::TENANT.parse().expect("a tenant"),
            tier: 3,
            reason: "unmatched".into(),
            run: None,
            detail: Json::null(),
        };
        let ports = scene.ports().clone();
        let escalator = Escalator::new(ports, notice, coordinator.clone(), lease.view());
        Actor::spawn(None, escalator, ()).await.expect("an escalator");
    };
    let mut next_case = async || {
        loop {
            let message = tokio::time::timeout(LIMIT, told.next()).await.expect("a notice in time");
            let message = message.expect("a message");
            let notice: serde_json::Value = serde_json::from_slice(&message.payload).expect("JSON");
            if let Some(case) = notice["case"].as_str() {
                return case.to_owned();
            }
        }
    };
    let [late, held] = [0, FAR_MS].map(|until_ms| LeaseTerm::new(scene.ports().clock, until_ms));

    spawn(1, &late).await;
    spawn(2, &held).await;
    assert_eq!(next_case().await, Uuid::from_u128(2).to_string());
    late.extend(FAR_MS);
    assert_eq!(next_case().await, Uuid::from_u128(1).to_string());

    for _ in 0..2 {
        let report = tokio::time::timeout(LIMIT, handled.recv()).await.expect("in time");
        assert!(matches!(report, Some(CoordinatorMessage::Handled(Report::Case { .. }))));
    }
    scene.engine.shut_down().await;
}
