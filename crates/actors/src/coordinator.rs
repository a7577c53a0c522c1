//! Coordinator: the shell around [`fermata_partition::owner::Owner`], one per
//! partition that this worker should own.
//!
//! It holds no rules. It feeds the owner what comes from the broker and from
//! this process, and does what the owner wants done. When the owner stands
//! down, the next attempt begins here with a new incarnation; attempts under
//! way and outcomes that were not committed are carried over.

mod perform;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use fermata_core::digest::Digest;
use fermata_core::effect::EffectKey;
use fermata_core::identity::{JournalTime, PartitionId};
use fermata_core::partition::{Limits, Report};
use fermata_core::plan::Executable;
use fermata_jetstream::StoredMessage;
use fermata_partition::append::ReadAnswer;
use fermata_partition::clock::SKEW_ALARM_MS;
use fermata_partition::message::AppendOutcome;
use fermata_partition::owner::{
    Cause, Input, Output, Owner, OwnerConfig, SaltSource, StandDown, Undecidable,
};
use fermata_wire::subjects;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use rand::RngExt as _;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::auditor::{Auditor, AuditorMessage, message_of};
use crate::metrics::Metrics;
use crate::node_runner::NodeRunnerMessage;
use crate::ports::Ports;

/// Journal frames that the auditor may lag behind; above it the partition
/// waits: effects stop, reads go on.
pub const AUDIT_LAG_FRAMES_MAX: usize = 1_024;

/// Handlers of cases that tell people at the same time; the others wait.
const CASES_TOLD_AT_ONCE_MAX: usize = 64;

/// How long an auditor may take to read its newest checkpoint.
const AUDIT_BEGIN_LIMIT: Duration = Duration::from_secs(30);

/// How often a coordinator looks at the time when nothing is due sooner.
const TICK: Duration = Duration::from_millis(250);

/// Pause before another attempt to own the partition; doubles up to the maximum.
const AGAIN_AFTER_FIRST: Duration = Duration::from_millis(50);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(5);

/// What a coordinator is told.
#[derive(Debug)]
pub enum CoordinatorMessage {
    /// Try to own the partition; sent by the coordinator to itself.
    Take,
    /// Messages of the journal while replaying, and who waits to send more.
    Journal(u64, Vec<StoredMessage>, oneshot::Sender<()>),
    /// Messages of COMMANDS, and who waits to send more.
    Commands(u64, Vec<StoredMessage>, oneshot::Sender<()>),
    /// Something asked for came back; the number tells old answers from new.
    Answer(u64, Answer),
    /// Outcomes from this process.
    Reports(Vec<Report>),
    /// The lease holds until this time of the monotonic clock, milliseconds.
    LeaseUntil(u64),
    /// The audit log cannot be trusted: the partition stops.
    AuditHalted(String),
    /// Another auditor goes on with the log: so does another owner.
    AuditLost,
    /// Time has passed, or something is due.
    Tick,
    /// Give the partition back: answers when nothing is in flight any more.
    Drain(RpcReplyPort<()>),
    /// Says how it stands.
    Status(RpcReplyPort<PartitionStatus>),
}

/// What a coordinator asked for.
#[derive(Debug)]
pub enum Answer {
    /// The journal was read to its end.
    JournalEnd(u64),
    /// What became of the append.
    Appended(AppendOutcome),
    /// What stands behind the fence.
    Read(ReadAnswer),
    /// A plan, if there is one.
    Plan(Digest, Option<Arc<Executable>>),
    /// Where the commands ended after the takeover.
    CommandsEnd(u64),
    /// When the broker stored the takeover, if it could be read.
    BrokerTime(Option<i64>),
    /// The commands cannot be trusted: the partition stops.
    CommandsHalted(String),
}

/// How a partition stands here.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PartitionStatus {
    /// Which.
    pub partition: String,
    /// `owning`, `taking`, `halted` or `draining`.
    pub state: &'static str,
    /// Why it is halted, for people.
    pub reason: Option<String>,
    /// Epoch of the owner.
    pub epoch: u64,
    /// Open runs.
    pub runs: usize,
    /// Attempts that are ordered and have no outcome.
    pub attempts: u32,
    /// Command sequence consumed.
    pub position: u64,
}

/// Behaviour and ports.
#[derive(Debug)]
pub struct Coordinator {
    ports: Ports,
    partition: PartitionId,
    journal_stream: String,
    journal_subject: String,
    commands_stream: String,
    runner: ActorRef<NodeRunnerMessage>,
    metrics: Metrics,
}

/// The owner of the moment and what outlives it.
pub struct CoordinatorState {
    owner: Option<Owner>,
    /// Tells answers to the present owner from answers to earlier ones.
    generation: u64,
    attempts_to_own: u32,
    /// Reads of the journal in a row that found less than was signed or read.
    doubts: u32,
    auditor: ActorRef<AuditorMessage>,
    audit_permits: Arc<Semaphore>,
    carried: Vec<Report>,
    set_aside: HashMap<Undecidable, Cause>,
    lease_until_ms: u64,
    halted: Option<String>,
    draining: Vec<RpcReplyPort<()>>,
    readers: Vec<JoinHandle<()>>,
    waiting: Vec<oneshot::Sender<()>>,
    wakes_at: Option<JournalTime>,
    alarmed: bool,
    outputs: Vec<Output>,
    /// Takes the newest definitions to be projected.
    projection: Option<watch::Sender<bytes::Bytes>>,
    cases_told_at_once: Arc<Semaphore>,
}

impl std::fmt::Debug for CoordinatorState {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("CoordinatorState")
            .field("owner", &self.owner)
            .field("generation", &self.generation)
            .field("halted", &self.halted)
            .finish_non_exhaustive()
    }
}

impl Drop for CoordinatorState {
    fn drop(&mut self) {
        self.readers.iter().for_each(JoinHandle::abort);
    }
}

/// Draws from the thread's cryptographically secure generator.
struct RandomSalts;

impl SaltSource for RandomSalts {
    fn salt(&mut self) -> [u8; 16] {
        rand::rng().random()
    }
}

impl Coordinator {
    /// The coordinator of `partition`.
    #[must_use]
    pub fn new(
        ports: Ports,
        partition: PartitionId,
        runner: ActorRef<NodeRunnerMessage>,
        metrics: Metrics,
    ) -> Self {
        Self {
            ports,
            partition,
            journal_stream: format!("JOURNAL_{partition}"),
            journal_subject: subjects::journal(partition),
            commands_stream: format!("COMMANDS_{partition}"),
            runner,
            metrics,
        }
    }
}

impl Actor for Coordinator {
    type Msg = CoordinatorMessage;
    type State = CoordinatorState;
    type Arguments = u64;

    /// Starts with the time of the monotonic clock until which the lease holds.
    async fn pre_start(
        &self,
        myself: ActorRef<CoordinatorMessage>,
        lease_until_ms: u64,
    ) -> Result<CoordinatorState, ActorProcessingErr> {
        let auditor = Auditor::new(self.ports.clone(), self.partition, myself.clone());
        let (auditor, _) = Actor::spawn_linked(None, auditor, (), myself.get_cell()).await?;
        drop(myself.send_interval(TICK, || CoordinatorMessage::Tick));
        myself.cast(CoordinatorMessage::Take)?;
        Ok(CoordinatorState {
            owner: None,
            generation: 0,
            attempts_to_own: 0,
            doubts: 0,
            auditor,
            audit_permits: Arc::new(Semaphore::new(AUDIT_LAG_FRAMES_MAX)),
            carried: Vec::new(),
            set_aside: HashMap::new(),
            lease_until_ms,
            halted: None,
            draining: Vec::new(),
            readers: Vec::new(),
            waiting: Vec::new(),
            wakes_at: None,
            alarmed: false,
            outputs: Vec::new(),
            projection: None,
            cases_told_at_once: Arc::new(Semaphore::new(CASES_TOLD_AT_ONCE_MAX)),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<CoordinatorMessage>,
        message: CoordinatorMessage,
        state: &mut CoordinatorState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            CoordinatorMessage::Take => self.take(&myself, state).await?,
            CoordinatorMessage::Journal(generation, messages, more) => {
                let inputs =
                    messages.into_iter().map(|message| Input::Journal(message_of(message)));
                self.feed(&myself, generation, inputs, state).await?;
                let _ = more.send(());
            }
            CoordinatorMessage::Commands(generation, messages, more) => {
                let inputs =
                    messages.into_iter().map(|message| Input::Commands(message_of(message)));
                self.feed(&myself, generation, inputs, state).await?;
                state.waiting.push(more);
            }
            CoordinatorMessage::Answer(generation, answer) => {
                self.answer(&myself, generation, answer, state).await?;
            }
            CoordinatorMessage::Reports(reports) => self.report(&myself, reports, state).await?,
            CoordinatorMessage::LeaseUntil(until_ms) => {
                state.lease_until_ms = until_ms;
                let generation = state.generation;
                self.feed(&myself, generation, [Input::LeaseUntil(until_ms)], state).await?;
            }
            CoordinatorMessage::AuditHalted(reason) => self.halt(reason, state),
            CoordinatorMessage::AuditLost => {
                let by = "another auditor".to_owned();
                self.stand_down(&myself, StandDown::Fenced { by }, state)?;
            }
            CoordinatorMessage::Tick => {
                state.wakes_at = None;
                let generation = state.generation;
                self.feed(&myself, generation, [Input::Tick], state).await?;
                self.watch_clock(state);
            }
            CoordinatorMessage::Drain(reply) => state.draining.push(reply),
            CoordinatorMessage::Status(reply) => {
                let _ = reply.send(self.status(state));
            }
        }
        self.go_on(&myself, state);
        Ok(())
    }

    /// The auditor's failure is the coordinator's: both begin anew together. A
    /// handler of a case ends when it has told whom it had to.
    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<CoordinatorMessage>,
        event: SupervisionEvent,
        state: &mut CoordinatorState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(actor, error)
                if actor.get_id() == state.auditor.get_id() =>
            {
                Err(error)
            }
            SupervisionEvent::ActorFailed(_, error) => {
                tracing::error!(partition = %self.partition, %error, "the handler of a case failed; the next owner spawns it again");
                Ok(())
            }
            SupervisionEvent::ActorTerminated(..)
            | SupervisionEvent::ActorStarted(_)
            | SupervisionEvent::ProcessGroupChanged(_) => Ok(()),
        }
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<CoordinatorMessage>,
        state: &mut CoordinatorState,
    ) -> Result<(), ActorProcessingErr> {
        state.auditor.stop(None);
        let mut reports = std::mem::take(&mut state.carried);
        if let Some(owner) = &mut state.owner {
            reports.extend(owner.take_uncommitted_reports());
        }
        self.runner.cast(NodeRunnerMessage::Detach(self.partition))?;
        self.runner.cast(NodeRunnerMessage::Publish(self.partition, reports))?;
        Ok(())
    }
}

impl Coordinator {
    /// Begins another attempt to own the partition.
    async fn take(
        &self,
        myself: &ActorRef<CoordinatorMessage>,
        state: &mut CoordinatorState,
    ) -> Result<(), ActorProcessingErr> {
        if state.halted.is_some() || !state.draining.is_empty() || state.owner.is_some() {
            return Ok(());
        }
        // Whoever was paused and has lost the partition must not take it back
        // from its new owner; the lease keeper says whether the lease is renewed.
        if self.ports.clock.now().monotonic_ms >= state.lease_until_ms {
            drop(myself.send_after(AGAIN_AFTER_MAX / 10, || CoordinatorMessage::Take));
            return Ok(());
        }
        state.generation += 1;
        state.audit_permits = Arc::new(Semaphore::new(AUDIT_LAG_FRAMES_MAX));
        let live = self.attach(myself, state).await?;
        let incarnation = Uuid::from_bytes(rand::rng().random());
        let Some(signed_records) = self.begin_audit(incarnation, state).await? else {
            return Ok(());
        };
        let config = OwnerConfig {
            partition: self.partition,
            limits: Limits::default(),
            worker: self.ports.facts.worker.clone(),
            incarnation,
            salts: Box::new(RandomSalts),
            live,
            set_aside: state.set_aside.clone(),
            signed_records,
        };
        let mut outputs = Vec::new();
        let mut owner = Owner::new(config, &mut outputs);
        let now = self.ports.clock.now();
        owner.handle(Input::LeaseUntil(state.lease_until_ms), now, &mut outputs);
        owner.handle_reports(std::mem::take(&mut state.carried), now, &mut outputs);
        state.owner = Some(owner);
        self.perform_all(myself, outputs, state).await
    }

    /// Has the auditor begin anew; answers with the records that are signed, or
    /// halts the partition and answers nothing.
    async fn begin_audit(
        &self,
        incarnation: Uuid,
        state: &mut CoordinatorState,
    ) -> Result<Option<u64>, ActorProcessingErr> {
        let writer = incarnation.simple().to_string();
        let begin = |signed| AuditorMessage::Begin { writer, signed };
        let begun = state.auditor.call(begin, Some(AUDIT_BEGIN_LIMIT)).await?;
        match begun.success_or(ActorProcessingErr::from("the auditor did not begin in time"))? {
            Ok(signed) => Ok(Some(signed)),
            Err(reason) => {
                self.halt(reason, state);
                Ok(None)
            }
        }
    }

    /// What is under way here, and what ended and is not committed.
    async fn attach(
        &self,
        myself: &ActorRef<CoordinatorMessage>,
        state: &CoordinatorState,
    ) -> Result<HashSet<(EffectKey, u32)>, ActorProcessingErr> {
        let attach = |reply| NodeRunnerMessage::Attach(self.partition, myself.clone(), reply);
        let mut live = self
            .runner
            .call(attach, Some(Duration::from_secs(10)))
            .await?
            .success_or(ActorProcessingErr::from("the node runner did not answer"))?;
        for report in &state.carried {
            if let Report::Attempt(report) = report {
                let key = EffectKey::of_node(report.run, report.node.clone(), report.activation);
                live.insert((key, report.attempt));
            }
        }
        Ok(live)
    }

    async fn feed(
        &self,
        myself: &ActorRef<CoordinatorMessage>,
        generation: u64,
        inputs: impl IntoIterator<Item = Input>,
        state: &mut CoordinatorState,
    ) -> Result<(), ActorProcessingErr> {
        if generation != state.generation {
            return Ok(());
        }
        let Some(owner) = &mut state.owner else { return Ok(()) };
        let now = self.ports.clock.now();
        let mut outputs = std::mem::take(&mut state.outputs);
        for input in inputs {
            owner.handle(input, now, &mut outputs);
        }
        self.perform_all(myself, outputs, state).await
    }

    async fn report(
        &self,
        myself: &ActorRef<CoordinatorMessage>,
        reports: Vec<Report>,
        state: &mut CoordinatorState,
    ) -> Result<(), ActorProcessingErr> {
        let Some(owner) = &mut state.owner else {
            state.carried.extend(reports);
            return Ok(());
        };
        let now = self.ports.clock.now();
        let mut outputs = std::mem::take(&mut state.outputs);
        owner.handle_reports(reports, now, &mut outputs);
        self.perform_all(myself, outputs, state).await
    }

    async fn answer(
        &self,
        myself: &ActorRef<CoordinatorMessage>,
        generation: u64,
        answer: Answer,
        state: &mut CoordinatorState,
    ) -> Result<(), ActorProcessingErr> {
        let input = match answer {
            Answer::JournalEnd(last_sequence) => Input::JournalEnd { last_sequence },
            Answer::Appended(outcome) => Input::Appended(outcome),
            Answer::Read(answer) => Input::Read(answer),
            Answer::Plan(digest, plan) => Input::Plan(digest, plan),
            Answer::CommandsEnd(last_sequence) => Input::CommandsEnd { last_sequence },
            Answer::BrokerTime(Some(broker_time_ns)) => Input::BrokerTime(broker_time_ns),
            Answer::BrokerTime(None) => return Ok(()),
            Answer::CommandsHalted(reason) => {
                if generation == state.generation {
                    self.halt(reason, state);
                }
                return Ok(());
            }
        };
        self.feed(myself, generation, [input], state).await
    }

    fn stand_down(
        &self,
        myself: &ActorRef<CoordinatorMessage>,
        reason: StandDown,
        state: &mut CoordinatorState,
    ) -> Result<(), ActorProcessingErr> {
        tracing::warn!(partition = %self.partition, ?reason, "the owner stands down");
        let carried = state.owner.take().map(|mut owner| owner.take_uncommitted_reports());
        match reason {
            // It must not be tried again as it was.
            StandDown::Undecidable { what, cause } => {
                state.set_aside.insert(what, cause);
                state.carried.extend(carried.into_iter().flatten());
            }
            StandDown::Fenced { .. } | StandDown::Truncated { .. } => {
                state.carried.extend(carried.into_iter().flatten());
            }
        }
        self.end_readers(state);
        let pause = AGAIN_AFTER_FIRST.saturating_mul(1 << state.attempts_to_own.min(10));
        state.attempts_to_own += 1;
        drop(myself.send_after(pause.min(AGAIN_AFTER_MAX), || CoordinatorMessage::Take));
        Ok(())
    }

    fn halt(&self, reason: String, state: &mut CoordinatorState) {
        tracing::error!(partition = %self.partition, reason, "the partition is halted; `fermata doctor` explains");
        state.owner = None;
        state.halted = Some(reason);
        self.end_readers(state);
    }

    fn end_readers(&self, state: &mut CoordinatorState) {
        state.generation += 1;
        state.readers.drain(..).for_each(|reader| reader.abort());
        state.waiting.clear();
        state.wakes_at = None;
        state.projection = None;
    }

    /// Lets readers read on, wakes up when something is due, ends a drain.
    fn go_on(&self, myself: &ActorRef<CoordinatorMessage>, state: &mut CoordinatorState) {
        if !state.draining.is_empty() {
            let quiet = state.owner.as_ref().is_none_or(Owner::is_quiet);
            if quiet {
                for reply in state.draining.drain(..) {
                    let _ = reply.send(());
                }
                myself.stop(Some("drained".to_owned()));
            }
            return;
        }
        let Some(owner) = &state.owner else { return };
        if owner.wants_commands() {
            for more in state.waiting.drain(..) {
                // A reader that is gone needs no permit.
                let _ = more.send(());
            }
        }
        let Some(due) = owner.partition().next_due().filter(|_| owner.is_owning()) else { return };
        if state.wakes_at.is_none_or(|wakes_at| due < wakes_at) {
            let wait_ms = due.0.saturating_sub(self.ports.clock.now().wall_ms).max(1);
            if wait_ms < u64::try_from(TICK.as_millis()).unwrap_or(u64::MAX) {
                state.wakes_at = Some(due);
                let wait = Duration::from_millis(wait_ms);
                drop(myself.send_after(wait, || CoordinatorMessage::Tick));
            }
        }
    }

    fn watch_clock(&self, state: &mut CoordinatorState) {
        let skew = state.owner.as_ref().and_then(|owner| owner.skew_ms(self.ports.clock.now()));
        let alarming = skew.is_some_and(|skew| skew.unsigned_abs() > SKEW_ALARM_MS);
        if alarming && !state.alarmed {
            tracing::error!(partition = %self.partition, skew_ms = skew, "this machine's clock and the broker's differ; set them by NTP");
        }
        state.alarmed = alarming;
    }

    fn status(&self, state: &CoordinatorState) -> PartitionStatus {
        let owning = state.owner.as_ref().is_some_and(Owner::is_owning);
        let partition = state.owner.as_ref().map(Owner::partition);
        PartitionStatus {
            partition: self.partition.to_string(),
            state: match (&state.halted, state.draining.is_empty(), owning) {
                (Some(_), _, _) => "halted",
                (None, false, _) => "draining",
                (None, true, true) => "owning",
                (None, true, false) => "taking",
            },
            reason: state.halted.clone(),
            epoch: partition.map_or(0, fermata_core::partition::Partition::epoch),
            runs: partition.map_or(0, |partition| partition.runs().count()),
            attempts: partition.map_or(0, fermata_core::partition::Partition::running),
            position: partition.map_or(0, |partition| partition.position().sequence),
        }
    }
}
