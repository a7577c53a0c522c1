//! Coordinator: the shell around [`fermata_partition::owner::Owner`], one per
//! partition that this worker should own.
//!
//! It holds no rules. It feeds the owner what comes from the broker and from
//! this process, and does what the owner wants done. When the owner stands
//! down, the next attempt begins here with a new incarnation; attempts under
//! way and outcomes that were not committed are carried over.
//!
//! | room | holds |
//! |---|---|
//! | `message` | what it is told, and what comes back |
//! | `state` | the owner of the moment, and what outlives it |
//! | `ownership` | beginning to own, standing down, halting |
//! | `outbox` | commands to other partitions |
//! | `outputs`, `effects` | what the owner wants done, here and in the world |
//! | `queues` | attempts on their way to named queues |
//! | `readers` | tasks that read the journal and the commands |
//! | `held_back` | what waits for the auditor |
//! | `events_needed` | events whose bytes may still have to be filed |
//! | `janitor`, `hop_janitor` | purge what snapshots stand for, and what was taken from the shared streams |
//! | `key_hours` | keys of hours that are over, which snapshots only name |
//! | `snapshots` | where a takeover begins, and what it may begin from |
//! | `cases` | notices that wait for their handlers |
//! | `dead_events` | events that the partition rejected itself |
//! | `errands` | dead letters and replays of resolved cases |
//! | `projection` | what every process sees of the definitions |
//! | `settling` | letting what is under way come to its end before the partition is given away |
//! | `status` | how it stands |

mod cases;
mod dead_events;
mod effects;
mod errands;
mod events_needed;
mod held_back;
pub mod hop_janitor;
mod janitor;
mod key_hours;
mod message;
mod outbox;
mod outputs;
mod ownership;
mod projection;
mod queues;
mod readers;
mod settling;
mod snapshots;
mod state;
mod status;

use std::time::Duration;

use fermata_core::identity::PartitionId;
use fermata_core::partition::Report;
use fermata_partition::owner::{Input, Owner, StandDown};
use fermata_wire::subjects;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::oneshot;

use crate::auditor::{Auditor, message_of};
use crate::lease_term::LeaseTerm;
use crate::metrics::Metrics;
use crate::node_runner::NodeRunnerMessage;
use crate::ports::Ports;
use crate::standstill::{OfPartition, Trouble};
use crate::uncommitted_reports::UncommittedReports;

pub use cases::{CASE_HANDLERS_MAX, PendingCase};
pub use message::{Answer, CoordinatorMessage};
pub use projection::CHECK_INTERVAL as PROJECTION_CHECK_INTERVAL;
pub(crate) use readers::describe;
pub use snapshots::KnownSnapshot;
pub use state::CoordinatorState;
pub use status::PartitionStatus;
#[cfg(test)]
pub(crate) use status::status_of;

/// Journal frames that the auditor may lag behind; above it the partition
/// waits: effects stop, reads go on.
pub const AUDIT_LAG_FRAMES_MAX: usize = 1_024;

/// How often a coordinator looks at the time when nothing is due sooner.
const TICK: Duration = Duration::from_millis(250);

/// Pause before something is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

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
        let lease = LeaseTerm::new(self.ports.clock, lease_until_ms);
        let me = myself.get_id();
        let standstills = OfPartition::new(self.ports.standstills.clone(), self.partition);
        Ok(CoordinatorState::new(me, &self.runner, auditor, lease, standstills))
    }

    async fn handle(
        &self,
        myself: ActorRef<CoordinatorMessage>,
        message: CoordinatorMessage,
        state: &mut CoordinatorState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            CoordinatorMessage::Take => self.take(&myself, state)?,
            CoordinatorMessage::Journal(generation, messages, more) => {
                let inputs =
                    messages.into_iter().map(|message| Input::Journal(message_of(message)));
                self.feed(&myself, generation, inputs, state).await?;
                state.journal_waiting.push(more);
            }
            CoordinatorMessage::Commands(generation, messages, more) => {
                state.commands_missed = 0;
                let inputs =
                    messages.into_iter().map(|message| Input::Commands(message_of(message)));
                self.feed(&myself, generation, inputs, state).await?;
                state.commands_waiting.push(more);
            }
            CoordinatorMessage::Answer(generation, answer) if generation == state.generation => {
                self.answer(&myself, answer, state).await?;
            }
            CoordinatorMessage::Answer(..) => {}
            CoordinatorMessage::Reports(reports) => self.report(&myself, reports, state).await?,
            CoordinatorMessage::Handled(report) => {
                self.take_reports(&myself, vec![report], state).await?;
            }
            CoordinatorMessage::TellAgain(generation, case) => {
                if generation == state.generation {
                    state.cases.add_again(case);
                    self.tell_cases(&myself, state).await?;
                }
            }
            CoordinatorMessage::LeaseUntil(until_ms) => {
                state.lease.extend(until_ms);
                let generation = state.generation;
                self.feed(&myself, generation, [Input::LeaseUntil(until_ms)], state).await?;
            }
            CoordinatorMessage::AuditHalted(generation, reason) => {
                if generation == state.generation {
                    self.halt(reason, state);
                }
            }
            CoordinatorMessage::AuditLost(generation) => {
                if generation == state.generation {
                    let by = "another auditor".to_owned();
                    self.stand_down(&myself, StandDown::Fenced { by }, state)?;
                }
            }
            CoordinatorMessage::Marked(generation, mark) => {
                if generation == state.generation {
                    self.store_snapshot(&myself, mark, state);
                }
            }
            CoordinatorMessage::AuditorTakes(generation, permit) => {
                if generation == state.generation {
                    self.go_on_held_back(&myself, permit, state).await?;
                }
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
            CoordinatorMessage::Settle(reply) => self.settle(&myself, reply, state).await?,
            CoordinatorMessage::Told(handler) => {
                state.cases.told(handler);
                self.tell_cases(&myself, state).await?;
            }
        }
        self.go_on(&myself, state);
        Ok(())
    }

    /// The auditor's failure is the coordinator's: both begin anew together. A
    /// handler of a case ends when it has told whom it had to.
    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<CoordinatorMessage>,
        event: SupervisionEvent,
        state: &mut CoordinatorState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(actor, error)
                if actor.get_id() == state.auditor.get_id() =>
            {
                Err(error)
            }
            SupervisionEvent::ActorFailed(actor, error) => {
                self.case_handler_ended(&myself, actor.get_id(), Some(error), state).await
            }
            SupervisionEvent::ActorTerminated(actor, ..) => {
                self.case_handler_ended(&myself, actor.get_id(), None, state).await
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => Ok(()),
        }
    }

    /// What was reported and not committed goes to the commands, while the runner
    /// that takes it there still lives.
    async fn post_stop(
        &self,
        _myself: ActorRef<CoordinatorMessage>,
        state: &mut CoordinatorState,
    ) -> Result<(), ActorProcessingErr> {
        // The state itself is dropped only when the supervisor has looked at it.
        state.end_owner();
        state.detach();
        state.auditor.stop(None);
        Ok(())
    }
}

impl Coordinator {
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
        mut reports: UncommittedReports,
        state: &mut CoordinatorState,
    ) -> Result<(), ActorProcessingErr> {
        if state.halted.is_some() {
            // Dropped, they go to the partition's commands.
            return Ok(());
        }
        for report in reports.iter() {
            if let Report::Attempt(report) = report {
                self.log_failure(report, state);
            }
        }
        self.take_reports(myself, reports.take(), state).await
    }

    async fn take_reports(
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
        answer: Answer,
        state: &mut CoordinatorState,
    ) -> Result<(), ActorProcessingErr> {
        let input = match answer {
            Answer::AuditBegun(begun) => return self.begin(myself, begun, state).await,
            Answer::JournalEnd(last_sequence) => Input::JournalEnd { last_sequence },
            Answer::Appended(outcome) => {
                state.append_trouble = Trouble::of(&outcome).unwrap_or(state.append_trouble);
                Input::Appended(outcome)
            }
            Answer::Read(answer) => Input::Read(answer),
            Answer::Plan(digest, plan) => {
                if let Err(problem) = &plan {
                    tracing::error!(partition = %self.partition, %digest, problem, "a plan cannot be used");
                    state.plan_problem = Some(problem.clone());
                }
                Input::Plan(digest, plan.ok())
            }
            Answer::CommandsEnd(last_sequence) => Input::CommandsEnd { last_sequence },
            Answer::BrokerTime(Some(broker_time_ns)) => Input::BrokerTime(broker_time_ns),
            Answer::BrokerTime(None) => return Ok(()),
            Answer::SnapshotEnded(stored) => {
                self.snapshot_ended(stored, state);
                Input::SnapshotEnded
            }
            Answer::JournalMissing(reason) => {
                state.doubts += 1;
                return self.doubt_read(myself, state.doubts, reason, state);
            }
            Answer::CommandsMissing(reason) => {
                state.commands_missed += 1;
                return self.doubt_read(myself, state.commands_missed, reason, state);
            }
            Answer::Relayed(target, up_to, outcome) => Input::Relayed { target, up_to, outcome },
            Answer::CommandsHalted(reason) => {
                self.halt(reason, state);
                return Ok(());
            }
        };
        let generation = state.generation;
        self.feed(myself, generation, [input], state).await
    }

    /// Lets readers read on, wakes up when something is due, ends a drain.
    fn go_on(&self, myself: &ActorRef<CoordinatorMessage>, state: &mut CoordinatorState) {
        if !state.held_back.is_empty() {
            // Nothing more is taken, and nothing has come to its end.
            return;
        }
        state.tell_settled();
        if !state.draining.is_empty() {
            let quiet =
                state.owner.as_ref().is_none_or(Owner::is_quiet) && state.queues.has_published();
            if quiet {
                for reply in state.draining.drain(..) {
                    let _ = reply.send(());
                }
                myself.stop(Some("drained".to_owned()));
            }
            return;
        }
        let Some(owner) = &state.owner else { return };
        if owner.wants_journal() {
            let_go_on(&mut state.journal_waiting);
        }
        if owner.wants_commands() {
            let_go_on(&mut state.commands_waiting);
        }
        let now = self.ports.clock.now();
        let Some(wait_ms) = owner.wakes_in_ms(now) else { return };
        let wakes_at = now.monotonic_ms.saturating_add(wait_ms);
        let wait = Duration::from_millis(wait_ms.max(1));
        if wait < TICK && state.wakes_at.is_none_or(|earlier| wakes_at < earlier) {
            state.wakes_at = Some(wakes_at);
            drop(myself.send_after(wait, || CoordinatorMessage::Tick));
        }
    }
}

fn let_go_on(waiting: &mut Vec<oneshot::Sender<()>>) {
    for more in waiting.drain(..) {
        // A reader that is gone needs no permit.
        let _ = more.send(());
    }
}
