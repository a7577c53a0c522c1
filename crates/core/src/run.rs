//! One run as a fold of its records.
//!
//! ```text
//! node:  Waiting ─► Ready ─► Running ─► Succeeded
//!           │         │        │  ▲ └──► Failed, Unknown
//!           │         │        ▼  │
//!           │         │      Backoff
//!           │         ├──► Succeeded (a value)  ·  Failed (a value that does not evaluate)
//!           │         ├──► Queued: like Running, made by whoever serves a queue, until its time is over
//!           │         ├──► Delayed ─► Succeeded
//!           │         │   Running ─► Accepted ─► Succeeded, Failed, Unknown, Backoff
//!           └► Dead ──┴──► Skipped
//!
//! run:   Open ─► Closing(reason) ─► ended     (Open ─► ended when all nodes ended well)
//! ```
//!
//! A run closes before it ends: in `Closing` nothing new is dispatched, and the
//! terminal record comes only when every ordered effect has an outcome.

mod callback;
mod command;
mod emit;
mod image;
mod queue;
mod step;
mod transition;

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::digest::Digest;
use crate::effect::{Outcome, RunEnded};
use crate::identity::{JournalTime, RunId, Tenant};
use crate::json::Json;
use crate::plan::{Executable, NodeIndex};
use crate::record::{Body, EndReason, Record, RunStarted};

pub use command::ARGUMENTS_MAX;
pub use image::{NotThePlan, RunImage};
pub use queue::Queue;
pub use step::{OUTPUT_BYTES_MAX, Step};

/// A run that has begun and not ended.
#[derive(Debug, Clone)]
pub struct Run {
    /// Whose run it is.
    pub tenant: Tenant,
    /// Digest of the plan it began with and keeps.
    pub plan: Digest,
    /// That plan.
    pub executable: Arc<Executable>,
    /// What the workflow sees as `input`.
    pub input: Json,
    /// W3C trace context of the event that started it.
    pub traceparent: Option<Arc<str>>,
    /// Events of runs that led to the event that started it.
    pub hops: u32,
    /// When it must have ended, journal time.
    pub deadline: JournalTime,
    /// The strategy that started it, for instruments: no snapshot holds it, so a run that
    /// comes from one has none.
    pub strategy: Option<Arc<str>>,
    phase: Phase,
    nodes: Box<[Node]>,
    ready: VecDeque<NodeIndex>,
    not_ended: u32,
    running: u32,
    awaiting: u32,
    queued: u32,
}

/// Whether a run takes anything new on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// It does.
    Open,
    /// It does not; it waits for what is under way.
    Closing(Box<EndReason>),
}

/// Where a node stands. Snapshots hold it as it is written here: add states and
/// optional fields, never change one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Node {
    /// For its predecessors; how many ended, how many of those completed.
    Waiting {
        /// Completed or skipped.
        ended: u32,
        /// Completed.
        completed: u32,
    },
    /// Its join is satisfied.
    Ready,
    /// Every predecessor was skipped, so it will be.
    Dead,
    /// An attempt is ordered and has no outcome.
    Running {
        /// Attempt number, from 1.
        attempt: u32,
        /// Attempts that failed before it; crashes of the owner do not count.
        failures: u32,
        /// What the first attempt sent and all others send; `None` for `null`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        input: Option<Json>,
    },
    /// Waits to try again.
    Backoff {
        /// Number of the last attempt.
        attempt: u32,
        /// Attempts that failed.
        failures: u32,
        /// When the next is due, journal time.
        due: JournalTime,
        /// What the first attempt sent and all others send; `None` for `null`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        input: Option<Json>,
    },
    /// Ended well; `None` stands for the output `null`.
    Succeeded(Option<Json>),
    /// Not taken.
    Skipped,
    /// Failed for good.
    Failed,
    /// Nobody knows whether its effect happened.
    Unknown,
    /// A delay that has begun.
    Delayed {
        /// When it ends, journal time.
        due: JournalTime,
    },
    /// A call that was accepted and whose outcome comes by callback; nobody works
    /// on it here.
    Accepted {
        /// Attempt number.
        attempt: u32,
        /// Attempts that failed before it.
        failures: u32,
        /// When it counts as failed, journal time.
        due: JournalTime,
        /// What the first attempt sent and all others send; `None` for `null`.
        input: Option<Json>,
    },
    /// Waits for an event, or for its time-out.
    Awaiting {
        /// When it has waited too long, journal time.
        due: JournalTime,
        /// The correlation key.
        key: Arc<str>,
    },
    /// An attempt is ordered that the workers of a named queue make; it has no
    /// outcome.
    Queued {
        /// Attempt number, from 1.
        attempt: u32,
        /// Attempts that failed before it.
        failures: u32,
        /// When it counts as failed, journal time.
        due: JournalTime,
        /// What the first attempt sent and all others send; `None` for `null`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        input: Option<Json>,
    },
}

/// A record that cannot follow the ones before it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{kind}` cannot follow: {detail}")]
pub struct CorruptHistory {
    /// Kind of the record.
    pub kind: &'static str,
    /// What it met.
    pub detail: String,
}

impl CorruptHistory {
    /// Says that `record` met `detail`.
    #[must_use]
    pub fn new(record: &Record, detail: impl Into<String>) -> Self {
        Self { kind: record.body.kind().as_str(), detail: detail.into() }
    }
}

impl Run {
    /// The run as its first record leaves it.
    #[must_use]
    pub fn start(tenant: &Tenant, started: &RunStarted, executable: Arc<Executable>) -> Self {
        let nodes = executable
            .plan()
            .nodes
            .iter()
            .map(|node| match node.predecessors.is_empty() {
                true => Node::Ready,
                false => Node::Waiting { ended: 0, completed: 0 },
            })
            .collect::<Box<[Node]>>();
        let ready = (0..).zip(nodes.iter()).filter(|(_, node)| **node == Node::Ready);
        Self {
            tenant: tenant.clone(),
            plan: started.plan,
            input: started.input.clone(),
            traceparent: started.event.traceparent.clone(),
            hops: started.event.hops,
            deadline: started.deadline,
            strategy: Some(started.strategy.clone()),
            phase: Phase::Open,
            ready: ready.map(|(index, _)| index).collect(),
            not_ended: u32::try_from(nodes.len()).unwrap_or(u32::MAX),
            running: 0,
            awaiting: 0,
            queued: 0,
            nodes,
            executable,
        }
    }

    /// Whether the run takes anything new on.
    #[must_use]
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Where the node at `index` stands.
    #[must_use]
    pub fn node(&self, index: NodeIndex) -> Option<&Node> {
        self.nodes.get(index as usize)
    }

    /// Every node with its place in the plan.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeIndex, &Node)> {
        (0..).zip(self.nodes.iter())
    }

    /// Attempts that are ordered and have no outcome, those in queues included.
    #[must_use]
    pub fn running(&self) -> u32 {
        self.running
    }

    /// Attempts in named queues that have no outcome.
    #[must_use]
    pub fn queued(&self) -> u32 {
        self.queued
    }

    /// Nodes that wait for an event.
    #[must_use]
    pub fn awaiting(&self) -> u32 {
        self.awaiting
    }

    /// The next node to move on, if the run takes anything new on.
    #[must_use]
    pub fn next_ready(&self) -> Option<NodeIndex> {
        match self.phase {
            Phase::Open => self.ready.front().copied(),
            Phase::Closing(_) => None,
        }
    }

    /// The node to move on when the first `waiting` ready ones have to wait, if the
    /// run takes anything new on.
    #[must_use]
    pub fn ready_behind(&self, waiting: usize) -> Option<NodeIndex> {
        match self.phase {
            Phase::Open => self.ready.get(waiting).copied(),
            Phase::Closing(_) => None,
        }
    }

    /// The record that ends the run now, if it can end.
    #[must_use]
    pub fn ending(&self) -> Option<Body> {
        match &self.phase {
            Phase::Open if self.not_ended == 0 => {
                Some(Body::RunSucceeded(crate::record::RunSucceeded {}))
            }
            Phase::Closing(reason) if self.running == 0 => Some(ending_of(reason)),
            Phase::Open | Phase::Closing(_) => None,
        }
    }

    /// What the instruments are told when the run ends at `time`.
    #[must_use]
    pub fn ended(&self, run: RunId, time: JournalTime, failed: bool) -> RunEnded {
        let plan = self.executable.plan();
        let succeeded = self.nodes.iter().filter(|node| matches!(node, Node::Succeeded(_))).count();
        RunEnded {
            run,
            workflow: plan.workflow.clone(),
            strategy: self.strategy.clone(),
            traceparent: self.traceparent.clone(),
            started_ms: self.deadline.0.saturating_sub(plan.run_timeout_ms),
            ended_ms: time.0,
            nodes_succeeded: u32::try_from(succeeded).unwrap_or(u32::MAX),
            failed,
        }
    }

    /// Folds one of the run's records, other than its first and its last.
    ///
    /// The run is unchanged when the record is refused.
    ///
    /// # Errors
    ///
    /// [`CorruptHistory`] if the record cannot follow.
    pub fn evolve(&mut self, record: &Record) -> Result<(), CorruptHistory> {
        if let Body::RunClosing(closing) = &record.body {
            if self.phase != Phase::Open {
                return Err(CorruptHistory::new(record, "the run is closing already"));
            }
            self.phase = Phase::Closing(Box::new(closing.reason.clone()));
            return Ok(());
        }
        let index = self.index_of(record)?;
        let Some(next) = self.next_state(index, record) else {
            let detail = format!("node `{}` is {:?}", self.id(index), self.node(index));
            return Err(CorruptHistory::new(record, detail));
        };
        self.put(index, next);
        Ok(())
    }

    fn index_of(&self, record: &Record) -> Result<NodeIndex, CorruptHistory> {
        record
            .node
            .as_deref()
            .and_then(|id| self.executable.find(id))
            .ok_or_else(|| CorruptHistory::new(record, "the plan has no such node"))
    }

    fn id(&self, index: NodeIndex) -> &str {
        self.executable.node(index).map_or("?", |node| &node.id)
    }
}

fn ending_of(reason: &EndReason) -> Body {
    let reason = reason.clone();
    match reason {
        EndReason::Failed { .. } => Body::RunFailed(crate::record::RunFailed { reason }),
        EndReason::Cancelled { .. } => Body::RunCancelled(crate::record::RunCancelled { reason }),
        EndReason::TimedOut => Body::RunTimedOut(crate::record::RunTimedOut { reason }),
    }
}

/// An outcome of an attempt, as its runner reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptReport {
    /// The run.
    pub run: RunId,
    /// The node.
    pub node: Arc<str>,
    /// Activation of the node.
    pub activation: u32,
    /// The attempt.
    pub attempt: u32,
    /// Whose run it is, as far as the reporter knows: the run may have ended.
    pub tenant: Option<Tenant>,
    /// What came of it.
    pub outcome: Outcome,
}
