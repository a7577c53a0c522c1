//! Supervisor: starts the actors of a process, restarts what fails, with
//! backoff and a limit, and stops them in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use fermata_core::identity::PartitionId;
use fermata_executors::Executors;
use fermata_jetstream::SharedConsumerOptions;
use fermata_jetstream::topology::{ADMITTED_STREAM, MATCHED_STREAM};
use fermata_wire::subjects::{ADMITTED, MATCHED};
use ractor::{
    Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent,
};
use tokio::task::JoinHandle;

use crate::builder::Builder;
use crate::coordinator::{Coordinator, CoordinatorMessage, PartitionStatus};
use crate::engine::Role;
use crate::hop::{Hop, feed};
use crate::lease_keeper::{LeaseKeeper, LeaseKeeperMessage};
use crate::listener::Listener;
use crate::matcher::Matcher;
use crate::metrics::Metrics;
use crate::node_runner::{NodeRunner, NodeRunnerMessage};
use crate::ports::Ports;

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
    /// The coordinator of a partition has finished and ended.
    Drained(PartitionId, ActorId),
    /// Start a child again.
    Restart(Child),
    /// How the partitions stand.
    Status(RpcReplyPort<Vec<PartitionStatus>>),
    /// Finish, give everything back, end.
    Drain(RpcReplyPort<()>),
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
}

/// The children.
#[derive(Debug, Default)]
pub struct SupervisorState {
    names: BTreeMap<ActorId, Child>,
    intake: Vec<ActorCell>,
    feeds: Vec<JoinHandle<()>>,
    runner: Option<ActorRef<NodeRunnerMessage>>,
    keeper: Option<ActorRef<LeaseKeeperMessage>>,
    coordinators: BTreeMap<PartitionId, ActorRef<CoordinatorMessage>>,
    leases: BTreeMap<PartitionId, u64>,
    /// Restarts in a row, and when the last failure was.
    restarts: BTreeMap<Child, (u32, Instant)>,
    draining: bool,
}

impl Drop for SupervisorState {
    fn drop(&mut self) {
        self.feeds.iter().for_each(JoinHandle::abort);
    }
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
                state.leases.insert(partition, until_ms);
                let child = Child::Coordinator(partition);
                if let Err(error) = self.start(&myself, child, state).await {
                    self.restart_later(&myself, child, error, state)?;
                }
            }
            SupervisorMessage::LeaseUntil(partition, until_ms) => {
                state.leases.insert(partition, until_ms);
                if let Some(coordinator) = state.coordinators.get(&partition) {
                    let _ = coordinator.cast(CoordinatorMessage::LeaseUntil(until_ms));
                }
            }
            SupervisorMessage::Disown(partition) => {
                state.leases.remove(&partition);
                if let Some(coordinator) = state.coordinators.remove(&partition) {
                    coordinator.stop(Some("the lease is gone".to_owned()));
                }
            }
            SupervisorMessage::GiveBack(partition) => match state.coordinators.get(&partition) {
                Some(coordinator) => drain_later(myself, partition, coordinator.clone()),
                None => given_back(partition, state)?,
            },
            SupervisorMessage::Drained(partition, coordinator) => {
                // Another one may have begun meanwhile, with another lease.
                if present(partition, state).is_none_or(|present| present == coordinator) {
                    given_back(partition, state)?;
                }
            }
            SupervisorMessage::Restart(child) => {
                if let Err(error) = self.start(&myself, child, state).await {
                    self.restart_later(&myself, child, error, state)?;
                }
            }
            SupervisorMessage::Status(reply) => {
                let _ = reply.send(status(state).await);
            }
            SupervisorMessage::Drain(reply) => {
                self.drain(state).await;
                let _ = reply.send(());
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
                let id = actor.get_id();
                match state.names.remove(&id) {
                    // It was replaced while it stopped.
                    Some(Child::Coordinator(partition))
                        if present(partition, state) != Some(id) =>
                    {
                        tracing::warn!(%partition, %error, "a coordinator failed that was stopping");
                    }
                    Some(child) => return self.restart_later(&myself, child, error, state),
                    None => {}
                }
            }
            SupervisionEvent::ActorTerminated(actor, ..) => {
                if let Some(Child::Coordinator(partition)) = state.names.remove(&actor.get_id())
                    && present(partition, state) == Some(actor.get_id())
                {
                    state.coordinators.remove(&partition);
                }
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
            Child::Intake => self.start_intake(myself, state).await,
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
        }
    }

    async fn start_coordinator(
        &self,
        myself: &ActorRef<SupervisorMessage>,
        partition: PartitionId,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        let (Some(until_ms), Some(runner)) = (state.leases.get(&partition), &state.runner) else {
            return Ok(());
        };
        if state.coordinators.contains_key(&partition) {
            return Ok(());
        }
        let coordinator =
            Coordinator::new(self.ports.clone(), partition, runner.clone(), self.metrics.clone());
        let (coordinator, _) =
            Actor::spawn_linked(None, coordinator, *until_ms, myself.get_cell()).await?;
        state.names.insert(coordinator.get_id(), Child::Coordinator(partition));
        state.coordinators.insert(partition, coordinator);
        Ok(())
    }

    /// Stages that run here side by side are fused: they pass frames in memory.
    async fn start_intake(
        &self,
        myself: &ActorRef<SupervisorMessage>,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        for actor in state.intake.drain(..) {
            state.names.remove(&actor.get_id());
            actor.stop(None);
        }
        state.feeds.drain(..).for_each(|feed| feed.abort());
        let has = |role| self.roles.contains(&role);
        let supervisor = || myself.get_cell();
        let publisher = &self.ports.publisher;
        let floor = Arc::new(AtomicU64::new(0));
        let fused = has(Role::Listener) && has(Role::Matcher) && has(Role::Builder);

        let builder = if has(Role::Builder) {
            // What a fused chain acknowledges has reached the partitions. That
            // holds for the whole floor only while no other process runs the
            // stages apart: docs/failure-semantics.md says not to mix them.
            let floor = if fused { floor.clone() } else { Arc::default() };
            let (ports, definitions) = (self.ports.clone(), self.ports.definitions.clone());
            let builder = Builder::new(ports, definitions, floor, self.metrics.clone());
            let (builder, _) = Actor::spawn_linked(None, builder, (), supervisor()).await?;
            state.intake.push(builder.get_cell());
            if !has(Role::Matcher) {
                let options = SharedConsumerOptions::new(MATCHED_STREAM, "builder");
                let feed = feed(self.ports.clone(), options, builder.clone());
                state.feeds.push(tokio::spawn(feed));
            }
            Hop::Memory(builder)
        } else {
            Hop::Stream { publisher: publisher.clone(), subject: MATCHED.into() }
        };
        let matcher = if has(Role::Matcher) {
            let (ports, definitions) = (self.ports.clone(), self.ports.definitions.clone());
            let matcher = Matcher::new(ports, definitions, builder, self.metrics.clone());
            let (matcher, _) = Actor::spawn_linked(None, matcher, (), supervisor()).await?;
            state.intake.push(matcher.get_cell());
            if !has(Role::Listener) {
                let options = SharedConsumerOptions::new(ADMITTED_STREAM, "matcher");
                let feed = feed(self.ports.clone(), options, matcher.clone());
                state.feeds.push(tokio::spawn(feed));
            }
            Hop::Memory(matcher)
        } else {
            Hop::Stream { publisher: publisher.clone(), subject: ADMITTED.into() }
        };
        if has(Role::Listener) {
            let listener = Listener::new(self.ports.clone(), matcher, floor);
            let (listener, _) = Actor::spawn_linked(None, listener, (), supervisor()).await?;
            state.intake.push(listener.get_cell());
        }
        state.names.extend(state.intake.iter().map(|actor| (actor.get_id(), Child::Intake)));
        Ok(())
    }

    fn restart_later(
        &self,
        myself: &ActorRef<SupervisorMessage>,
        child: Child,
        error: ActorProcessingErr,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        if let Child::Coordinator(partition) = child {
            state.coordinators.remove(&partition);
        }
        let (restarts, failed_at) =
            state.restarts.entry(child).or_insert_with(|| (0, Instant::now()));
        if failed_at.elapsed() >= RESTARTS_FORGOTTEN_AFTER {
            *restarts = 0;
        }
        *failed_at = Instant::now();
        if *restarts == RESTARTS_MAX {
            return Err(error);
        }
        let backoff = BACKOFF_FIRST.saturating_mul(1 << (*restarts).min(10)).min(BACKOFF_MAX);
        *restarts += 1;
        tracing::error!(?child, %error, ?backoff, restarts, "an actor failed and is started again");
        drop(myself.send_after(backoff, move || SupervisorMessage::Restart(child)));
        Ok(())
    }

    /// Children first, sources before sinks: a stopped parent would kill them.
    async fn drain(&self, state: &mut SupervisorState) {
        state.draining = true;
        state.feeds.drain(..).for_each(|feed| feed.abort());
        for actor in state.intake.drain(..).rev() {
            // What it holds already it passes on: dropped, it would come again
            // only when the broker has waited for its acknowledgement.
            let _ = actor.drain_and_wait(Some(DRAIN_LIMIT)).await;
        }
        let partitions = std::mem::take(&mut state.coordinators);
        for coordinator in partitions.values() {
            let _ = coordinator.call(CoordinatorMessage::Drain, Some(DRAIN_LIMIT)).await;
            let _ = coordinator.stop_and_wait(None, Some(DRAIN_LIMIT)).await;
        }
        if let Some(runner) = state.runner.take() {
            let _ = runner.drain_and_wait(Some(DRAIN_LIMIT)).await;
        }
        self.ports.publisher.flush().await;
        if let Some(keeper) = state.keeper.take() {
            let owned = partitions.into_keys().collect::<Vec<_>>();
            let leave = |reply| LeaseKeeperMessage::Leave(owned, reply);
            let _ = keeper.call(leave, Some(DRAIN_LIMIT)).await;
        }
    }
}

fn drain_later(
    myself: ActorRef<SupervisorMessage>,
    partition: PartitionId,
    coordinator: ActorRef<CoordinatorMessage>,
) {
    tokio::spawn(async move {
        let _ = coordinator.call(CoordinatorMessage::Drain, Some(DRAIN_LIMIT)).await;
        let _ = coordinator.stop_and_wait(None, Some(DRAIN_LIMIT)).await;
        let _ = myself.cast(SupervisorMessage::Drained(partition, coordinator.get_id()));
    });
}

/// The coordinator that a partition has here now.
fn present(partition: PartitionId, state: &SupervisorState) -> Option<ActorId> {
    state.coordinators.get(&partition).map(|present| present.get_id())
}

fn given_back(
    partition: PartitionId,
    state: &mut SupervisorState,
) -> Result<(), ActorProcessingErr> {
    state.leases.remove(&partition);
    state.coordinators.remove(&partition);
    if let Some(keeper) = &state.keeper {
        keeper.cast(LeaseKeeperMessage::Released(partition))?;
    }
    Ok(())
}

async fn status(state: &SupervisorState) -> Vec<PartitionStatus> {
    let mut found = Vec::new();
    for coordinator in state.coordinators.values() {
        if let Ok(ractor::rpc::CallResult::Success(status)) =
            coordinator.call(CoordinatorMessage::Status, Some(STATUS_LIMIT)).await
        {
            found.push(status);
        }
    }
    found
}
