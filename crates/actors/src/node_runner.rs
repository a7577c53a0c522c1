//! NodeRunner: runs attempts, one task each, and brings their outcomes back.
//!
//! An attempt outlives the owner that ordered it: the next owner in this
//! process adopts it, and when there is none its outcome goes to the
//! partition's commands, where whoever owns it then finds it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use fermata_core::command::{Command, OutcomeCommand};
use fermata_core::effect::{Attempt, AttemptWork, EffectKey, Outcome};
use fermata_core::identity::{PartitionId, RunId};
use fermata_core::json::Json;
use fermata_core::partition::Report;
use fermata_core::plan::FailureClass;
use fermata_core::run::AttemptReport;
use fermata_executors::{EffectKind, EffectOutcome, EffectRequest, Executors, HttpCall};
use fermata_wire::commands::CommandFrame;
use fermata_wire::subjects;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use crate::coordinator::CoordinatorMessage;
use crate::hop::{AGAIN_AFTER, publish};
use crate::ports::Ports;
use crate::trace;

/// Attempts that run at once in this process; the rest waits its turn. What is
/// ordered and waits is bounded by each partition's `attempts_open_max`.
pub const ATTEMPTS_AT_ONCE_MAX: usize = 1_024;

/// What a runner is told.
#[derive(Debug)]
pub enum NodeRunnerMessage {
    /// Start these; their records are durable.
    Start(Vec<Attempt>),
    /// Stop what runs for this run; each still reports, as cancelled.
    Abort(RunId),
    /// This coordinator takes the outcomes of a partition from now on; answers
    /// with the attempts that are still under way.
    Attach(PartitionId, ActorRef<CoordinatorMessage>, RpcReplyPort<HashSet<(EffectKey, u32)>>),
    /// Nobody here takes the outcomes of this partition any more.
    Detach(PartitionId),
    /// An attempt ended.
    Ended(AttemptReport),
    /// Outcomes that a coordinator took and could not commit: they go to the
    /// partition's commands.
    Publish(PartitionId, Vec<Report>),
}

/// Behaviour and ports.
#[derive(Debug)]
pub struct NodeRunner {
    ports: Ports,
    executors: Arc<Executors>,
    turns: Arc<Semaphore>,
}

/// What runs, and who takes its outcome.
#[derive(Debug, Default)]
pub struct NodeRunnerState {
    running: HashMap<RunId, Vec<(Arc<str>, u32, AbortHandle)>>,
    coordinators: HashMap<PartitionId, ActorRef<CoordinatorMessage>>,
}

impl NodeRunner {
    /// A runner with these executors.
    #[must_use]
    pub fn new(ports: Ports, executors: Arc<Executors>) -> Self {
        let turns = Arc::new(Semaphore::new(ATTEMPTS_AT_ONCE_MAX));
        Self { ports, executors, turns }
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
            NodeRunnerMessage::Start(attempts) => self.start(&myself, attempts, state),
            NodeRunnerMessage::Abort(run) => abort(run, state, &myself),
            NodeRunnerMessage::Attach(partition, coordinator, reply) => {
                state.coordinators.insert(partition, coordinator);
                let _ = reply.send(live(partition, state));
            }
            NodeRunnerMessage::Detach(partition) => {
                state.coordinators.remove(&partition);
            }
            NodeRunnerMessage::Ended(report) => {
                forget(&report, state);
                self.deliver(report.run.partition(), vec![Report::Attempt(report)], state);
            }
            NodeRunnerMessage::Publish(partition, reports) => self.publish(partition, reports),
        }
        Ok(())
    }
}

impl NodeRunner {
    /// What needs no world is done here and now, in one answer per partition.
    fn start(
        &self,
        myself: &ActorRef<NodeRunnerMessage>,
        attempts: Vec<Attempt>,
        state: &mut NodeRunnerState,
    ) {
        let mut done: HashMap<PartitionId, Vec<Report>> = HashMap::new();
        for attempt in attempts {
            match attempt.work {
                AttemptWork::Noop => {
                    let outcome = Outcome::Succeeded { output: Json::null() };
                    let report = Report::Attempt(report_of(&attempt, outcome));
                    done.entry(attempt.run.partition()).or_default().push(report);
                }
                AttemptWork::Http { .. } => self.spawn(myself, attempt, state),
            }
        }
        for (partition, reports) in done {
            self.deliver(partition, reports, state);
        }
    }

    fn spawn(
        &self,
        myself: &ActorRef<NodeRunnerMessage>,
        attempt: Attempt,
        state: &mut NodeRunnerState,
    ) {
        let (executors, turns, myself) =
            (self.executors.clone(), self.turns.clone(), myself.clone());
        let (run, node, number) = (attempt.run, attempt.node.clone(), attempt.attempt);
        let task = tokio::spawn(async move {
            let _turn = turns.acquire().await;
            let (span, traceparent) = trace::attempt(&attempt);
            let outcome = execute(&executors, &attempt, traceparent).await;
            span.end(failure_of(&outcome));
            // A runner that is gone has nobody to tell; the next owner orders again.
            let _ = myself.cast(NodeRunnerMessage::Ended(report_of(&attempt, outcome)));
        });
        state.running.entry(run).or_default().push((node, number, task.abort_handle()));
    }

    fn deliver(&self, partition: PartitionId, reports: Vec<Report>, state: &mut NodeRunnerState) {
        let message = CoordinatorMessage::Reports(reports);
        let undelivered = match state.coordinators.get(&partition) {
            Some(coordinator) => match coordinator.cast(message) {
                Ok(()) => return,
                Err(ractor::MessagingErr::SendErr(message)) => message,
                Err(_) => return,
            },
            None => message,
        };
        state.coordinators.remove(&partition);
        if let CoordinatorMessage::Reports(reports) = undelivered {
            self.publish(partition, reports);
        }
    }

    /// Sends outcomes to whoever owns the partition now.
    fn publish(&self, partition: PartitionId, reports: Vec<Report>) {
        let commands = reports.into_iter().filter_map(command_of).collect::<Vec<_>>();
        if commands.is_empty() {
            return;
        }
        let (publisher, subject) = (self.ports.publisher.clone(), subjects::commands(partition));
        tokio::spawn(async move {
            for command in commands {
                let frame = CommandFrame { floor: 0, commands: vec![command] };
                let Ok(bytes) = frame.encode() else { continue };
                let bytes = bytes::Bytes::from(bytes);
                while !publish(&publisher, &subject, bytes.clone()).await {
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
            }
        });
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
        // The next owner orders these again.
        Report::Case { .. } | Report::DeadFiled { .. } => None,
    }
}

fn report_of(attempt: &Attempt, outcome: Outcome) -> AttemptReport {
    AttemptReport {
        run: attempt.run,
        node: attempt.node.clone(),
        activation: attempt.activation,
        attempt: attempt.attempt,
        tenant: Some(attempt.tenant.clone()),
        outcome,
    }
}

fn live(partition: PartitionId, state: &NodeRunnerState) -> HashSet<(EffectKey, u32)> {
    let runs = state.running.iter().filter(|(run, _)| run.partition() == partition);
    runs.flat_map(|(run, attempts)| {
        let key = |node: &Arc<str>| EffectKey::of_node(*run, node.clone(), 1);
        attempts.iter().map(move |(node, attempt, _)| (key(node), *attempt))
    })
    .collect()
}

fn forget(report: &AttemptReport, state: &mut NodeRunnerState) {
    if let Some(attempts) = state.running.get_mut(&report.run) {
        attempts.retain(|(node, attempt, _)| *node != report.node || *attempt != report.attempt);
        if attempts.is_empty() {
            state.running.remove(&report.run);
        }
    }
}

fn abort(run: RunId, state: &mut NodeRunnerState, myself: &ActorRef<NodeRunnerMessage>) {
    for (node, attempt, task) in state.running.remove(&run).unwrap_or_default() {
        // A task that has ended has reported already.
        if task.is_finished() {
            continue;
        }
        task.abort();
        let detail = "the run is closing".to_owned();
        let outcome = Outcome::Failed { class: FailureClass::Cancelled, detail };
        // The run is closing, so the partition knows whose it is.
        let report = AttemptReport { run, node, activation: 1, attempt, tenant: None, outcome };
        let _ = myself.cast(NodeRunnerMessage::Ended(report));
    }
}

async fn execute(executors: &Executors, attempt: &Attempt, traceparent: Option<String>) -> Outcome {
    let kind = match &attempt.work {
        AttemptWork::Noop => EffectKind::Noop,
        AttemptWork::Http { plugin, path, body } => EffectKind::Http(HttpCall {
            plugin: plugin.to_string(),
            path: path.to_string(),
            body: body.parse(),
        }),
    };
    let request = EffectRequest {
        key: attempt.key().to_string(),
        attempt: attempt.attempt,
        traceparent,
        timeout: Duration::from_millis(attempt.timeout_ms),
        kind,
    };
    match executors.execute(request).await {
        EffectOutcome::Succeeded { output } => {
            Outcome::Succeeded { output: Json::from_value(&output) }
        }
        EffectOutcome::Failed { class, detail } => {
            Outcome::Failed { class: failure_class(class), detail }
        }
    }
}

fn failure_of(outcome: &Outcome) -> Option<&str> {
    match outcome {
        Outcome::Succeeded { .. } => None,
        Outcome::Failed { detail, .. } => Some(detail),
    }
}

fn failure_class(class: fermata_executors::FailureClass) -> FailureClass {
    use fermata_executors::FailureClass as Class;
    match class {
        Class::Timeout => FailureClass::Timeout,
        Class::Connect => FailureClass::Connect,
        Class::Http3xx => FailureClass::Http3xx,
        Class::Http4xx => FailureClass::Http4xx,
        Class::Http5xx => FailureClass::Http5xx,
        Class::ResponseTooLarge => FailureClass::ResponseTooLarge,
        Class::ResponseNotJson => FailureClass::ResponseNotJson,
        Class::NotAllowed => FailureClass::NotAllowed,
        Class::Cancelled => FailureClass::Cancelled,
    }
}
