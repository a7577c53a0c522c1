//! NodeRunner: runs attempts, one task each, and brings their outcomes back.
//!
//! An attempt that has begun outlives the owner that ordered it: the next owner
//! in this process adopts it, and when there is none its outcome goes to the
//! partition's commands, where whoever owns it then finds it. One that has not
//! begun starts only while the lease of its owner holds, and is withdrawn when
//! that owner goes: whoever owns the partition next orders it again.

mod emit;
mod execution;
mod nats;
mod running;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use fermata_core::command::{CaseCommand, Command, OutcomeCommand};
use fermata_core::effect::{Attempt, AttemptWork, EffectKey, Outcome};
use fermata_core::identity::{PartitionId, RunId, Tenant};
use fermata_core::json::Json;
use fermata_core::partition::Report;
use fermata_core::plan::FailureClass;
use fermata_core::run::AttemptReport;
use fermata_executors::{Executors, FairTurns, Turn};
use fermata_wire::commands::CommandFrame;
use fermata_wire::subjects;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::task::JoinSet;

pub(crate) use self::execution::{Means, carry_out, report_of};
use self::running::{Running, RunningAttempt, Start};
use crate::coordinator::CoordinatorMessage;
use crate::hop::{AGAIN_AFTER, publish};
use crate::lease_term::LeaseView;
use crate::ports::Ports;
use crate::trace;
use crate::uncommitted_reports::UncommittedReports;

/// Attempts that run at once in this process, of one tenant seven eighths at most; the rest waits
/// its turn, fairly between tenants. What is ordered and waits is bounded by each partition's
/// `attempts_open_max`.
pub const ATTEMPTS_AT_ONCE_MAX: usize = 1_024;

/// How long a runner that ends waits for outcomes to be stored among the
/// commands; what is not stored then is ordered again by the next owner.
pub const PUBLISH_LIMIT: Duration = Duration::from_secs(5);

/// What a runner is told.
#[derive(Debug)]
pub enum NodeRunnerMessage {
    /// Start these; their records are durable. Only the coordinator that is
    /// attached may say so: what another orders, its successor orders again.
    Start(ActorId, Vec<Attempt>),
    /// Stop what runs for this run; each still reports, as cancelled.
    Abort(RunId),
    /// This coordinator takes the outcomes of a partition from now on, and this
    /// is its lease; answers with the attempts that are still under way.
    Attach(
        PartitionId,
        ActorRef<CoordinatorMessage>,
        LeaseView,
        RpcReplyPort<HashSet<(EffectKey, u32)>>,
    ),
    /// Another owner goes on: what this coordinator ordered and has not begun
    /// must not begin.
    Withdraw(PartitionId, ActorId),
    /// This coordinator takes no outcomes any more. Says nothing about another
    /// one that has attached meanwhile.
    Detach(PartitionId, ActorId),
    /// An attempt ended.
    Ended(AttemptReport),
    /// Outcomes that a coordinator took and could not commit: they go to the
    /// partition's commands.
    Publish(PartitionId, Vec<Report>),
    /// Answer when no attempt of the partition is under way here.
    Idle(PartitionId, RpcReplyPort<()>),
}

/// Behaviour and ports.
#[derive(Debug)]
pub struct NodeRunner {
    ports: Ports,
    means: Arc<Means>,
    turns: FairTurns,
}

/// What runs, and who takes its outcome.
#[derive(Debug, Default)]
pub struct NodeRunnerState {
    running: Running,
    attached: HashMap<PartitionId, Attached>,
    publishes: JoinSet<()>,
    /// Who waits for the end of a partition's attempts.
    idle_waiting: Vec<(PartitionId, RpcReplyPort<()>)>,
}

/// The coordinator of a partition.
#[derive(Debug)]
struct Attached {
    coordinator: ActorRef<CoordinatorMessage>,
    lease: LeaseView,
}

impl Drop for NodeRunnerState {
    /// What is being stored goes on without the runner, as long as the process lives.
    fn drop(&mut self) {
        self.publishes.detach_all();
    }
}

impl NodeRunnerState {
    /// Answers those who wait for the end of attempts that have ended.
    fn tell_idle(&mut self) {
        let waiting = std::mem::take(&mut self.idle_waiting);
        for (partition, reply) in waiting {
            if self.running.live(partition).is_empty() {
                // Whoever asked may wait no longer.
                let _ = reply.send(());
            } else {
                self.idle_waiting.push((partition, reply));
            }
        }
    }
}

impl NodeRunner {
    /// A runner with these executors.
    #[must_use]
    pub fn new(ports: Ports, executors: Arc<Executors>) -> Self {
        let turns = FairTurns::new(ATTEMPTS_AT_ONCE_MAX);
        let means = Arc::new(Means::of(&ports, executors));
        Self { ports, means, turns }
    }
}

impl Actor for NodeRunner {
    type Msg = NodeRunnerMessage;
    type State = NodeRunnerState;
    type Arguments = ();

    async fn pre_start(
        &self,
        _myself: ActorRef<NodeRunnerMessage>,
        (): (),
    ) -> Result<NodeRunnerState, ActorProcessingErr> {
        Ok(NodeRunnerState::default())
    }

    async fn handle(
        &self,
        myself: ActorRef<NodeRunnerMessage>,
        message: NodeRunnerMessage,
        state: &mut NodeRunnerState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            NodeRunnerMessage::Start(by, attempts) => self.start(&myself, by, attempts, state),
            NodeRunnerMessage::Abort(run) => abort(run, state, &myself),
            NodeRunnerMessage::Attach(partition, coordinator, lease, reply) => {
                attach(partition, Attached { coordinator, lease }, state);
                let _ = reply.send(state.running.live(partition));
            }
            NodeRunnerMessage::Withdraw(partition, by) => {
                if is_attached(partition, by, state) {
                    withdraw(partition, state);
                }
            }
            NodeRunnerMessage::Detach(partition, by) => {
                if is_attached(partition, by, state) {
                    state.attached.remove(&partition);
                    withdraw(partition, state);
                }
            }
            NodeRunnerMessage::Ended(report) => {
                state.running.forget(&report);
                let partition = report.run.partition();
                self.deliver(&myself, partition, vec![Report::Attempt(report)], state);
            }
            NodeRunnerMessage::Publish(partition, reports) => {
                self.publish(partition, reports, state);
            }
            NodeRunnerMessage::Idle(partition, reply) => {
                state.idle_waiting.push((partition, reply));
            }
        }
        state.tell_idle();
        Ok(())
    }

    /// Waits for the outcomes that are being stored, a while.
    async fn post_stop(
        &self,
        _myself: ActorRef<NodeRunnerMessage>,
        state: &mut NodeRunnerState,
    ) -> Result<(), ActorProcessingErr> {
        let stored = async { while state.publishes.join_next().await.is_some() {} };
        if tokio::time::timeout(PUBLISH_LIMIT, stored).await.is_err() {
            let left = state.publishes.len();
            tracing::warn!(left, "outcomes could not be stored in time; they are ordered again");
        }
        Ok(())
    }
}

impl NodeRunner {
    /// What needs no world is done here and now, in one answer per partition.
    fn start(
        &self,
        myself: &ActorRef<NodeRunnerMessage>,
        by: ActorId,
        attempts: Vec<Attempt>,
        state: &mut NodeRunnerState,
    ) {
        let mut done: HashMap<PartitionId, Vec<Report>> = HashMap::new();
        for attempt in attempts {
            let partition = attempt.run.partition();
            let Some(lease) = lease_of(partition, by, state) else {
                let (run, node, number) = (attempt.run, &*attempt.node, attempt.attempt);
                tracing::debug!(%partition, %run, node, attempt = number, "an attempt of an owner that has gone is left to the next one");
                continue;
            };
            match attempt.work {
                AttemptWork::Noop => {
                    trace::noop(&attempt);
                    let outcome = Outcome::Succeeded { output: Json::null() };
                    let report = Report::Attempt(report_of(&attempt, outcome));
                    done.entry(partition).or_default().push(report);
                }
                AttemptWork::Http { .. }
                | AttemptWork::Emit { .. }
                | AttemptWork::Nats { .. }
                | AttemptWork::Command { .. } => {
                    let lease = lease.clone();
                    self.spawn(myself, attempt, lease, state);
                }
            }
        }
        for (partition, reports) in done {
            self.deliver(myself, partition, reports, state);
        }
    }

    fn spawn(
        &self,
        myself: &ActorRef<NodeRunnerMessage>,
        attempt: Attempt,
        mut lease: LeaseView,
        state: &mut NodeRunnerState,
    ) {
        let (means, turns, myself) = (self.means.clone(), self.turns.clone(), myself.clone());
        let (run, node, number) = (attempt.run, attempt.node.clone(), attempt.attempt);
        let tenant = attempt.tenant.clone();
        let start = Arc::<Start>::default();
        let begins = start.clone();
        let task = tokio::spawn(async move {
            // Its owner has gone: the runner withdraws it, or has done so.
            let Some(_turn) = turn(&turns, &attempt.tenant, &mut lease).await else { return };
            if !begins.begin() {
                return;
            }
            // Boxed, as a task takes the room of its largest step from the beginning, and very many
            // wait for their turn.
            let outcome = Box::pin(carry_out(&means, &attempt)).await;
            // A runner that is gone has nobody to tell; the next owner orders again.
            let _ = myself.cast(NodeRunnerMessage::Ended(report_of(&attempt, outcome)));
        });
        let task = task.abort_handle();
        state.running.add(run, RunningAttempt { tenant, node, attempt: number, start, task });
    }

    fn deliver(
        &self,
        myself: &ActorRef<NodeRunnerMessage>,
        partition: PartitionId,
        reports: Vec<Report>,
        state: &mut NodeRunnerState,
    ) {
        match state.attached.get(&partition) {
            // One that ends before it has taken them sends them back by itself.
            Some(attached) => {
                let reports = UncommittedReports::new(partition, myself.clone(), reports);
                let _ = attached.coordinator.cast(CoordinatorMessage::Reports(reports));
            }
            None => self.publish(partition, reports, state),
        }
    }

    /// Sends outcomes to whoever owns the partition now.
    fn publish(&self, partition: PartitionId, reports: Vec<Report>, state: &mut NodeRunnerState) {
        // Those that have ended meanwhile are let go.
        while state.publishes.try_join_next().is_some() {}
        let commands = reports.into_iter().filter_map(command_of).collect::<Vec<_>>();
        if commands.is_empty() {
            return;
        }
        let (publisher, subject) = (self.ports.publisher.clone(), subjects::commands(partition));
        state.publishes.spawn(async move {
            for command in commands {
                let frame = CommandFrame { floor: 0, commands: vec![command] };
                let bytes = match frame.encode() {
                    Ok(bytes) => bytes::Bytes::from(bytes),
                    Err(error) => {
                        tracing::error!(%partition, %error, "an outcome does not fit a message; it is ordered again");
                        continue;
                    }
                };
                while !publish(&publisher, &subject, bytes.clone()).await {
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
            }
        });
    }
}

/// Waits for a turn, and for the lease to hold when the turn has come: only then
/// does nobody else own the partition. Nothing when the lease is nobody's any more.
async fn turn(turns: &FairTurns, tenant: &Tenant, lease: &mut LeaseView) -> Option<Turn> {
    let tenant = tenant.as_str().into();
    loop {
        let turn = turns.turn(&tenant).await;
        if lease.holds() {
            return Some(turn);
        }
        // Others may use the turn while this one waits.
        drop(turn);
        if !lease.until_held().await {
            return None;
        }
    }
}

fn attach(partition: PartitionId, attached: Attached, state: &mut NodeRunnerState) {
    let by = attached.coordinator.get_id();
    let before = state.attached.insert(partition, attached);
    if before.is_some_and(|before| before.coordinator.get_id() != by) {
        withdraw(partition, state);
    }
}

fn is_attached(partition: PartitionId, by: ActorId, state: &NodeRunnerState) -> bool {
    lease_of(partition, by, state).is_some()
}

fn lease_of(partition: PartitionId, by: ActorId, state: &NodeRunnerState) -> Option<&LeaseView> {
    let attached = state.attached.get(&partition)?;
    (attached.coordinator.get_id() == by).then_some(&attached.lease)
}

fn withdraw(partition: PartitionId, state: &mut NodeRunnerState) {
    let attempts = state.running.withdraw(partition);
    if attempts > 0 {
        tracing::info!(%partition, attempts, "attempts that had not begun are left to the next owner");
    }
}

fn abort(run: RunId, state: &mut NodeRunnerState, myself: &ActorRef<NodeRunnerMessage>) {
    for RunningAttempt { tenant, node, attempt, task, .. } in state.running.take(run) {
        // A task that has ended has reported already.
        if task.is_finished() {
            continue;
        }
        task.abort();
        let detail = "the run is closing".to_owned();
        let partition = run.partition();
        tracing::debug!(%partition, %run, node = &*node, attempt, "an attempt is stopped: its run is closing");
        let outcome = Outcome::Failed { class: FailureClass::Cancelled, detail };
        let tenant = Some(tenant);
        let report = AttemptReport { run, node, activation: 1, attempt, tenant, outcome };
        let _ = myself.cast(NodeRunnerMessage::Ended(report));
    }
}

fn command_of(report: Report) -> Option<Command> {
    match report {
        Report::Attempt(report) => Some(Command::Outcome(OutcomeCommand {
            run: report.run,
            node: report.node,
            activation: report.activation,
            attempt: report.attempt,
            tenant: report.tenant,
            outcome: report.outcome,
        })),
        Report::Case { case, attempt, outcome } => {
            Some(Command::Case(CaseCommand { case, attempt, outcome }))
        }
        // The next owner files it again, and sends what it finds undelivered.
        Report::DeadFiled { .. }
        | Report::Relayed { .. }
        | Report::CaseReplayed(_)
        | Report::EventFiled { .. } => None,
    }
}
