//! Supervisor: starts the actors of a process, restarts what fails, with
//! backoff and a limit, and stops them in order.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fermata_core::identity::PartitionId;
use fermata_executors::Executors;
use futures_util::future::join_all;
use ractor::rpc::CallResult;
use ractor::{
    Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent,
};

use crate::coordinator::{Coordinator, CoordinatorMessage, PartitionStatus};
use crate::engine::Role;
use crate::hand_over::{ATTEMPTS_LIMIT_DEFAULT, HandOver};
use crate::intake::Intake;
use crate::lease_keeper::{LeaseKeeper, LeaseKeeperMessage};
use crate::metrics::Metrics;
use crate::node_runner::{NodeRunner, NodeRunnerMessage};
use crate::partitions::{Drained as GivenBack, Partitions};
use crate::ports::Ports;
use crate::projector::{Projector, ProjectorMessage};
use crate::task_worker::{ServedQueues, TaskWorker, TaskWorkerMessage};

/// Restarts of one actor that are allowed in a row before the process gives up:
/// with the backoff below, half a minute of failing.
pub const RESTARTS_MAX: u32 = 10;

/// How long an actor must have run for its earlier restarts not to count: longer
/// than the longest wait, so that one which fails at once never gets there.
pub const RESTARTS_FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// Wait before the first restart; doubles each time up to the maximum.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(50);

/// Longest wait before a restart.
pub const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// How long a partition may take to finish what is in flight when it is given back.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// How long a status may take.
const STATUS_LIMIT: Duration = Duration::from_secs(2);

/// What the supervisor is told.
#[derive(Debug)]
pub enum SupervisorMessage {
    /// The lease of a partition is held until this monotonic time: own it.
    Own(PartitionId, u64),
    /// The lease of a partition holds until this monotonic time.
    LeaseUntil(PartitionId, u64),
    /// The lease of a partition is gone: stop owning it at once.
    Disown(PartitionId),
    /// Another worker should own the partition: finish and give it back.
    GiveBack(PartitionId),
    /// This coordinator of a partition that is given back has ended; none ran
    /// when none is named.
    Drained(PartitionId, Option<ActorId>),
    /// Start a child again.
    Restart(Child),
    /// How the partitions stand.
    Status(RpcReplyPort<Vec<PartitionStatus>>),
    /// Finish, give everything back, end; attempts under way may take this long.
    Drain(Duration, RpcReplyPort<Drained>),
    /// All is given back.
    End(Drained, RpcReplyPort<Drained>),
}

/// What became of what was under way when a process was asked to end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drained {
    /// Partitions in which attempts had not ended in time: whoever owns them next
    /// orders those again, or records them as unknown.
    pub cut: Vec<PartitionId>,
}

/// A child by what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Child {
    /// Events in, and what is fused behind it.
    Intake,
    /// Runs attempts.
    NodeRunner,
    /// Keeps leases.
    LeaseKeeper,
    /// One partition.
    Coordinator(PartitionId),
    /// Keeps the read model.
    Projector,
    /// Serves the queue at this place of [`ServedQueues::names`].
    TaskWorker(usize),
}

/// What the supervisor starts its children with.
#[derive(Debug)]
pub struct Supervisor {
    /// The world.
    pub ports: Ports,
    /// What this process does.
    pub roles: BTreeSet<Role>,
    /// Runs attempts.
    pub executors: Arc<Executors>,
    /// Instruments.
    pub metrics: Metrics,
    /// Folder for the read model.
    pub read_model_dir: PathBuf,
    /// Named queues that this process serves.
    pub queues: ServedQueues,
}

/// The children.
#[derive(Debug, Default)]
pub struct SupervisorState {
    names: BTreeMap<ActorId, Child>,
    intake: Intake,
    runner: Option<ActorRef<NodeRunnerMessage>>,
    keeper: Option<ActorRef<LeaseKeeperMessage>>,
    partitions: Partitions<ActorRef<CoordinatorMessage>>,
    /// Restarts in a row, and when the last failure was.
    restarts: BTreeMap<Child, (u32, Instant)>,
    draining: bool,
    projector: Option<ActorRef<ProjectorMessage>>,
    task_workers: BTreeMap<usize, ActorRef<TaskWorkerMessage>>,
}

impl Actor for Supervisor {
    type Msg = SupervisorMessage;
    type State = SupervisorState;
    type Arguments = ();

    async fn pre_start(
        &self,
        myself: ActorRef<SupervisorMessage>,
        (): (),
    ) -> Result<SupervisorState, ActorProcessingErr> {
        let mut state = SupervisorState::default();
        if self.roles.contains(&Role::Coordinator) {
            self.start(&myself, Child::NodeRunner, &mut state).await?;
            self.start(&myself, Child::LeaseKeeper, &mut state).await?;
        }
        self.start(&myself, Child::Intake, &mut state).await?;
        if self.roles.contains(&Role::Projector) {
            self.start(&myself, Child::Projector, &mut state).await?;
        }
        for place in 0..self.queues.names.len() {
            self.start(&myself, Child::TaskWorker(place), &mut state).await?;
        }
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<SupervisorMessage>,
        message: SupervisorMessage,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SupervisorMessage::Own(partition, until_ms) => {
                state.partitions.leased(partition, until_ms);
                self.start_or_later(&myself, Child::Coordinator(partition), state).await?;
            }
            SupervisorMessage::LeaseUntil(partition, until_ms) => {
                if let Some(coordinator) = state.partitions.renewed(partition, until_ms) {
                    let _ = coordinator.cast(CoordinatorMessage::LeaseUntil(until_ms));
                }
            }
            SupervisorMessage::Disown(partition) => {
                if let Some(coordinator) = state.partitions.lost(partition) {
                    coordinator.stop(Some("the lease is gone".to_owned()));
                }
            }
            SupervisorMessage::GiveBack(partition) => match state.partitions.give_back(partition) {
                Some(coordinator) => drain_later(
                    myself,
                    HandOver {
                        partition,
                        coordinator: coordinator.clone(),
                        runner: state.runner.clone(),
                        limit: ATTEMPTS_LIMIT_DEFAULT,
                    },
                ),
                None => myself.cast(SupervisorMessage::Drained(partition, None))?,
            },
            SupervisorMessage::Drained(partition, actor) => {
                self.drained(&myself, partition, actor, state).await?;
            }
            SupervisorMessage::Restart(child) => {
                self.start_or_later(&myself, child, state).await?;
            }
            SupervisorMessage::Status(reply) => {
                let coordinators = state.partitions.coordinators().cloned().collect();
                tokio::spawn(answer_status(coordinators, reply));
            }
            SupervisorMessage::Drain(limit, reply) => {
                tokio::spawn(self.drain(myself, limit, reply, state));
            }
            SupervisorMessage::End(drained, reply) => {
                let _ = reply.send(drained);
                myself.stop(None);
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<SupervisorMessage>,
        event: SupervisionEvent,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(actor, error) => {
                if let Some(child) = forget(&actor, state) {
                    return self.restart_later(&myself, child, error, state);
                }
                tracing::warn!(%error, "an actor failed whose work another has taken over");
            }
            SupervisionEvent::ActorTerminated(actor, ..) => {
                forget(&actor, state);
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }
}

impl Supervisor {
    async fn start(
        &self,
        myself: &ActorRef<SupervisorMessage>,
        child: Child,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        if state.draining {
            return Ok(());
        }
        match child {
            Child::Intake => {
                // What is left of the stages ends before they begin anew.
                state.names.retain(|_, child| *child != Child::Intake);
                state.intake = Intake::default();
                let supervisor = myself.get_cell();
                state.intake =
                    Intake::start(&self.ports, &self.roles, &self.metrics, &supervisor).await?;
                state.names.extend(state.intake.actors().map(|actor| (actor, Child::Intake)));
                Ok(())
            }
            Child::NodeRunner => {
                let runner = NodeRunner::new(self.ports.clone(), self.executors.clone());
                let (runner, _) = Actor::spawn_linked(None, runner, (), myself.get_cell()).await?;
                state.names.insert(runner.get_id(), child);
                state.runner = Some(runner);
                Ok(())
            }
            Child::LeaseKeeper => {
                let keeper = LeaseKeeper::new(self.ports.clone(), myself.clone());
                let (keeper, _) = Actor::spawn_linked(None, keeper, (), myself.get_cell()).await?;
                state.names.insert(keeper.get_id(), child);
                state.keeper = Some(keeper);
                Ok(())
            }
            Child::Coordinator(partition) => self.start_coordinator(myself, partition, state).await,
            Child::Projector => {
                let projector = Projector::new(self.ports.clone(), self.read_model_dir.clone());
                let (projector, _) =
                    Actor::spawn_linked(None, projector, (), myself.get_cell()).await?;
                state.names.insert(projector.get_id(), child);
                state.projector = Some(projector);
                Ok(())
            }
            Child::TaskWorker(place) => {
                let Some(queue) = self.queues.names.get(place) else { return Ok(()) };
                let worker = TaskWorker::new(
                    self.ports.clone(),
                    self.executors.clone(),
                    self.metrics.clone(),
                    queue,
                    &self.queues,
                );
                let (worker, _) = Actor::spawn_linked(None, worker, (), myself.get_cell()).await?;
                state.names.insert(worker.get_id(), child);
                state.task_workers.insert(place, worker);
                Ok(())
            }
        }
    }

    async fn start_coordinator(
        &self,
        myself: &ActorRef<SupervisorMessage>,
        partition: PartitionId,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        let (Some(until_ms), Some(runner)) = (state.partitions.to_start(partition), &state.runner)
        else {
            return Ok(());
        };
        let coordinator =
            Coordinator::new(self.ports.clone(), partition, runner.clone(), self.metrics.clone());
        let (coordinator, _) =
            Actor::spawn_linked(None, coordinator, until_ms, myself.get_cell()).await?;
        state.names.insert(coordinator.get_id(), Child::Coordinator(partition));
        state.partitions.started(partition, coordinator.get_id(), coordinator);
        Ok(())
    }

    async fn start_or_later(
        &self,
        myself: &ActorRef<SupervisorMessage>,
        child: Child,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match self.start(myself, child, state).await {
            Ok(()) => Ok(()),
            Err(error) => self.restart_later(myself, child, error, state),
        }
    }

    async fn drained(
        &self,
        myself: &ActorRef<SupervisorMessage>,
        partition: PartitionId,
        actor: Option<ActorId>,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match (state.partitions.drained(partition, actor), &state.keeper) {
            (GivenBack::Release, Some(keeper)) => {
                // One that failed holds no lease; this one runs out by itself.
                let _ = keeper.cast(LeaseKeeperMessage::Released(partition));
                Ok(())
            }
            (GivenBack::StartAgain, _) => {
                self.start_or_later(myself, Child::Coordinator(partition), state).await
            }
            (GivenBack::Release, None) | (GivenBack::Nothing, _) => Ok(()),
        }
    }

    fn restart_later(
        &self,
        myself: &ActorRef<SupervisorMessage>,
        child: Child,
        error: ActorProcessingErr,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        let (restarts, failed_at) =
            state.restarts.entry(child).or_insert_with(|| (0, Instant::now()));
        if failed_at.elapsed() >= RESTARTS_FORGOTTEN_AFTER {
            *restarts = 0;
        }
        *failed_at = Instant::now();
        // Nothing depends on the read model: it is tried for ever.
        if *restarts >= RESTARTS_MAX && child != Child::Projector {
            return Err(error);
        }
        let backoff = BACKOFF_FIRST.saturating_mul(1 << (*restarts).min(10)).min(BACKOFF_MAX);
        *restarts = restarts.saturating_add(1);
        tracing::error!(?child, %error, ?backoff, restarts, "an actor failed and is started again");
        drop(myself.send_after(backoff, move || SupervisorMessage::Restart(child)));
        Ok(())
    }

    /// Children first, sources before sinks: a stopped parent would kill them. A
    /// partition whose attempts have ended is given away at once, the others when
    /// the runner has stored what it could. Leases are kept meanwhile, so this
    /// goes on beside the supervisor.
    fn drain(
        &self,
        myself: ActorRef<SupervisorMessage>,
        limit: Duration,
        reply: RpcReplyPort<Drained>,
        state: &mut SupervisorState,
    ) -> impl Future<Output = ()> + Send + use<> {
        state.draining = true;
        let intake = std::mem::take(&mut state.intake);
        let (runner, keeper) = (state.runner.clone(), state.keeper.clone());
        let projector = state.projector.take();
        let task_workers = std::mem::take(&mut state.task_workers);
        let running = state.partitions.running().map(|(partition, coordinator)| HandOver {
            partition,
            coordinator: coordinator.clone(),
            runner: runner.clone(),
            limit,
        });
        let running = running.collect::<Vec<_>>();
        let broker = self.ports.broker.clone();
        async move {
            if let Some(keeper) = &keeper {
                let _ = keeper.cast(LeaseKeeperMessage::Retire);
            }
            let given_away =
                join_all(running.iter().map(|hand_over| give_away(hand_over, &keeper)));
            let served = join_all(task_workers.values().map(|worker| end_serving(worker, limit)));
            let ((), cut, _) = tokio::join!(intake.drain(DRAIN_LIMIT), given_away, served);
            if let Some(runner) = runner {
                let _ = runner.drain_and_wait(Some(DRAIN_LIMIT)).await;
            }
            if let Some(projector) = projector {
                let _ = projector.stop_and_wait(None, Some(DRAIN_LIMIT)).await;
            }
            let _ = tokio::time::timeout(DRAIN_LIMIT, broker.flush()).await;
            if let Some(keeper) = keeper {
                let _ = keeper.call(LeaseKeeperMessage::Leave, Some(DRAIN_LIMIT)).await;
            }
            let drained = Drained { cut: cut.into_iter().flatten().collect() };
            // A supervisor that is gone has nobody to end.
            let _ = myself.cast(SupervisorMessage::End(drained, reply));
        }
    }
}

/// Lets a queue go; what had not ended in time goes to other workers.
async fn end_serving(worker: &ActorRef<TaskWorkerMessage>, limit: Duration) {
    let drain = |reply| TaskWorkerMessage::Drain(limit, reply);
    let _ = worker.call(drain, Some(limit + DRAIN_LIMIT)).await;
    let _ = worker.stop_and_wait(None, Some(DRAIN_LIMIT)).await;
}

/// Gives a partition away; returns it when attempts had not ended in time.
async fn give_away(
    hand_over: &HandOver,
    keeper: &Option<ActorRef<LeaseKeeperMessage>>,
) -> Option<PartitionId> {
    let partition = hand_over.partition;
    if !hand_over.carry_out().await {
        return Some(partition);
    }
    if let Some(keeper) = keeper {
        let _ = keeper.cast(LeaseKeeperMessage::Released(partition));
    }
    None
}

/// Strikes an actor off; tells what it was, unless another has taken its place.
fn forget(actor: &ActorCell, state: &mut SupervisorState) -> Option<Child> {
    let child = state.names.remove(&actor.get_id())?;
    // Its stages begin anew together, once.
    if child == Child::Intake {
        state.names.retain(|_, other| *other != Child::Intake);
    }
    let is_present = match child {
        Child::Coordinator(partition) => state.partitions.ended(partition, actor.get_id()),
        Child::Intake
        | Child::NodeRunner
        | Child::LeaseKeeper
        | Child::Projector
        | Child::TaskWorker(_) => true,
    };
    is_present.then_some(child)
}

fn drain_later(myself: ActorRef<SupervisorMessage>, hand_over: HandOver) {
    tokio::spawn(async move {
        hand_over.carry_out().await;
        let HandOver { partition, coordinator, .. } = hand_over;
        let _ = myself.cast(SupervisorMessage::Drained(partition, Some(coordinator.get_id())));
    });
}

async fn answer_status(
    coordinators: Vec<ActorRef<CoordinatorMessage>>,
    reply: RpcReplyPort<Vec<PartitionStatus>>,
) {
    let asked = coordinators
        .iter()
        .map(|coordinator| coordinator.call(CoordinatorMessage::Status, Some(STATUS_LIMIT)));
    let answers = join_all(asked).await.into_iter();
    let found = answers.filter_map(|answer| match answer {
        Ok(CallResult::Success(status)) => Some(status),
        Ok(CallResult::Timeout | CallResult::SenderError) | Err(_) => None,
    });
    let _ = reply.send(found.collect());
}
