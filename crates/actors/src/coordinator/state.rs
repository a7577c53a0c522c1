//! The owner of the moment, and what outlives it.

use std::collections::HashMap;
use std::sync::Arc;

use fermata_core::identity::PartitionId;
use fermata_partition::owner::{Cause, Output, Owner, Undecidable};
use ractor::{ActorId, ActorRef, RpcReplyPort};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::cases::Cases;
use super::errands::Errands;
use super::held_back::HeldBack;
use super::hop_janitor::EventsHeld;
use super::projection::Projection;
use super::queues::Queues;
use super::settling::Settling;
use super::snapshots::Snapshots;
use crate::auditor::AuditorMessage;
use crate::lease_term::LeaseTerm;
use crate::log_pace::LogPace;
use crate::node_runner::NodeRunnerMessage;
use crate::standstill::{OfPartition, Trouble};
use crate::uncommitted_reports::UncommittedReports;

/// Failures of nodes, and of runs, that a partition tells in the log in 10 s; the others
/// are counted there, and stand in the journal.
const FAILURES_TOLD_MAX: u32 = 20;

/// A task that ends with its value.
#[derive(Debug)]
pub(super) struct Task(JoinHandle<()>);

impl Task {
    pub(super) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The owner of the moment and what outlives it.
pub struct CoordinatorState {
    pub(super) owner: Option<Owner>,
    /// An attempt to own that waits for its auditor: its incarnation.
    pub(super) beginning: Option<Uuid>,
    /// Tells answers to the present owner from answers to earlier ones.
    pub(super) generation: u64,
    pub(super) attempts_to_own: u32,
    /// Reads in a row that found less than was signed, read or started.
    pub(super) doubts: u32,
    /// Times in a row that the commands lacked what is to be consumed.
    pub(super) commands_missed: u32,
    pub(super) snapshots: Snapshots,
    /// Purges what snapshots stand for.
    pub(super) janitor: Option<Task>,
    /// Purges what was taken from the shared streams; the control partition's only.
    pub(super) hop_janitor: Option<Task>,
    pub(super) auditor: ActorRef<AuditorMessage>,
    pub(super) audit_permits: Arc<Semaphore>,
    pub(super) carried: UncommittedReports,
    /// What could not be decided, and why: not tried again as it was.
    pub(super) set_aside: HashMap<Undecidable, Cause>,
    pub(super) lease: LeaseTerm,
    pub(super) halted: Option<String>,
    pub(super) draining: Vec<RpcReplyPort<()>>,
    pub(super) journal_reader: Option<Task>,
    pub(super) commands_reader: Option<Task>,
    /// Who waits to hand over more of the journal.
    pub(super) journal_waiting: Vec<oneshot::Sender<()>>,
    /// Who waits to hand over more commands.
    pub(super) commands_waiting: Vec<oneshot::Sender<()>>,
    /// Why the last plan cannot be used, for people.
    pub(super) plan_problem: Option<String>,
    /// When a tick comes that was asked for: monotonic clock, milliseconds.
    pub(super) wakes_at: Option<u64>,
    pub(super) alarmed: bool,
    pub(super) outputs: Vec<Output>,
    pub(super) projection: Option<Projection>,
    pub(super) cases: Cases,
    /// What waits for the auditor.
    pub(super) held_back: HeldBack,
    /// How the newest append that was not stored failed.
    pub(super) append_trouble: Trouble,
    _standstills: OfPartition,
    attachment: Attachment,
    pub(super) settling: Settling,
    pub(super) errands: Errands,
    /// Failed nodes are told one by one only while they are few.
    pub(super) failed_nodes: LogPace,
    /// As `failed_nodes`, of runs.
    pub(super) failed_runs: LogPace,
    pub(super) queues: Queues,
    pub(super) events_held: EventsHeld,
}

/// Lets the runner go when it is dropped, however the coordinator ends.
struct Attachment {
    partition: PartitionId,
    coordinator: ActorId,
    runner: ActorRef<NodeRunnerMessage>,
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.detach();
    }
}

impl Attachment {
    fn detach(&self) {
        // A runner that is gone brings nothing.
        let _ = self.runner.cast(NodeRunnerMessage::Detach(self.partition, self.coordinator));
    }
}

impl CoordinatorState {
    pub(super) fn new(
        coordinator: ActorId,
        runner: &ActorRef<NodeRunnerMessage>,
        auditor: ActorRef<AuditorMessage>,
        lease: LeaseTerm,
        standstills: OfPartition,
    ) -> Self {
        let partition = standstills.partition();
        Self {
            owner: None,
            beginning: None,
            generation: 0,
            attempts_to_own: 0,
            doubts: 0,
            commands_missed: 0,
            snapshots: Snapshots::default(),
            janitor: None,
            hop_janitor: None,
            auditor,
            audit_permits: Arc::new(Semaphore::new(super::AUDIT_LAG_FRAMES_MAX)),
            carried: UncommittedReports::new(partition, runner.clone(), Vec::new()),
            set_aside: HashMap::new(),
            lease,
            halted: None,
            draining: Vec::new(),
            journal_reader: None,
            commands_reader: None,
            journal_waiting: Vec::new(),
            commands_waiting: Vec::new(),
            plan_problem: None,
            wakes_at: None,
            alarmed: false,
            outputs: Vec::new(),
            projection: None,
            held_back: HeldBack::default(),
            append_trouble: Trouble::NoAnswer,
            _standstills: standstills,
            cases: Cases::default(),
            attachment: Attachment { partition, coordinator, runner: runner.clone() },
            settling: Settling::default(),
            errands: Errands::default(),
            failed_nodes: LogPace::new(FAILURES_TOLD_MAX),
            failed_runs: LogPace::new(FAILURES_TOLD_MAX),
            queues: Queues::default(),
            events_held: EventsHeld::default(),
        }
    }

    /// Drops the owner of the moment; its uncommitted reports are carried over.
    pub(super) fn end_owner(&mut self) {
        if let Some(mut owner) = self.owner.take() {
            self.carried.extend(owner.take_uncommitted_reports());
        }
        self.beginning = None;
        self.held_back = HeldBack::default();
        self.generation += 1;
        self.journal_reader = None;
        self.commands_reader = None;
        self.janitor = None;
        self.hop_janitor = None;
        // An old task may still say something: it says it to nobody.
        self.events_held = EventsHeld::default();
        self.journal_waiting.clear();
        self.commands_waiting.clear();
        self.wakes_at = None;
        self.projection = None;
        self.cases.forget_waiting();
        self.errands.end();
    }

    /// Takes no outcomes any more: those that are here and those that come go
    /// to the partition's commands.
    pub(super) fn detach(&mut self) {
        self.attachment.detach();
        self.carried.publish();
    }
}

impl Drop for CoordinatorState {
    /// When the coordinator is killed or panics there is no `post_stop`; what is
    /// carried is published when its value is dropped.
    fn drop(&mut self) {
        if let Some(owner) = &mut self.owner {
            self.carried.extend(owner.take_uncommitted_reports());
        }
    }
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
