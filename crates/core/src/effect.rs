//! What touches the world, and what came of it.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::command::EventReference;
use crate::identity::{JournalTime, RunId, SourcePosition, Tenant};
use crate::json::Json;
use crate::plan::{Completion, FailureClass};
use crate::review::CaseReplay;
use crate::run::OUTPUT_BYTES_MAX;

/// Names one effect for ever: `run/node/activation`.
///
/// All attempts of an effect share the key, across retries, crashes and owners;
/// it is the idempotency key that receivers see. The first outcome recorded
/// for a key is the outcome.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EffectKey {
    /// The run or the review case that the effect belongs to.
    pub owner: Uuid,
    /// The node, or the case's step.
    pub node: Arc<str>,
    /// Counts a node's activations from 1 (a loop activates a node again).
    pub activation: u32,
}

impl EffectKey {
    /// The key of a run's node.
    #[must_use]
    pub fn of_node(run: RunId, node: Arc<str>, activation: u32) -> Self {
        Self { owner: run.as_uuid(), node, activation }
    }
}

impl fmt::Display for EffectKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}/{}", self.owner, self.node, self.activation)
    }
}

/// What came of one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// It did what was asked.
    Succeeded {
        /// What it answered.
        output: Json,
    },
    /// It is known to have failed.
    Failed {
        /// What kind of failure; decides whether another attempt is made.
        class: FailureClass,
        /// For people; at most [`DETAIL_BYTES_MAX`] bytes.
        detail: String,
    },
}

/// Longest failure text kept in a record, bytes; longer text is cut at a
/// character boundary. Receivers answer with whole HTML pages.
pub const DETAIL_BYTES_MAX: usize = 512;

/// Cuts `detail` to [`DETAIL_BYTES_MAX`] bytes at a character boundary.
#[must_use]
pub fn bounded_detail(detail: &str) -> String {
    let end = (0..=detail.len().min(DETAIL_BYTES_MAX))
        .rev()
        .find(|end| detail.is_char_boundary(*end))
        .unwrap_or(0);
    detail.get(..end).unwrap_or_default().to_owned()
}

/// The outcome as it is recorded: an output over `OUTPUT_BYTES_MAX` of
/// [`crate::run`] is a failure, so that its record fits a message.
#[must_use]
pub fn bounded_outcome(outcome: &Outcome) -> Outcome {
    match outcome {
        Outcome::Succeeded { output } if output.as_str().len() > OUTPUT_BYTES_MAX => {
            let bytes = output.as_str().len();
            let detail =
                format!("the answer has {bytes} bytes, at most {OUTPUT_BYTES_MAX} are kept");
            Outcome::Failed { class: FailureClass::ResponseTooLarge, detail }
        }
        Outcome::Succeeded { .. } => outcome.clone(),
        Outcome::Failed { class, detail } => {
            Outcome::Failed { class: *class, detail: bounded_detail(detail) }
        }
    }
}

/// One attempt at a node's effect, ordered by a durable record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The run.
    pub run: RunId,
    /// The node.
    pub node: Arc<str>,
    /// Activation of the node, from 1.
    pub activation: u32,
    /// Attempt number, from 1, over all owners and retries.
    pub attempt: u32,
    /// Whose run it is.
    pub tenant: Tenant,
    /// Longest the attempt may take, milliseconds.
    pub timeout_ms: u64,
    /// W3C trace context of the event that started the run.
    pub traceparent: Option<Arc<str>>,
    /// What to do.
    pub work: AttemptWork,
    /// Whether the answer says only that the call was accepted.
    pub completion: Completion,
}

impl Attempt {
    /// The effect's key.
    #[must_use]
    pub fn key(&self) -> EffectKey {
        EffectKey::of_node(self.run, self.node.clone(), self.activation)
    }
}

/// An attempt for whoever serves a named queue.
///
/// Its owner orders it, keeps its time and takes the first outcome that comes;
/// which process makes it, and whether any does, the owner does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedAttempt {
    /// The attempt.
    pub attempt: Attempt,
    /// The queue.
    pub queue: Arc<str>,
    /// When it counts as failed, journal time.
    pub due: JournalTime,
    /// Whether it may be handed out more than once.
    pub idempotent: bool,
    /// Whether an earlier owner ordered it too: it may be in its queue.
    pub again: bool,
}

/// Attempts in named queues whose run takes nothing new on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recall {
    /// The run.
    pub run: RunId,
    /// Whose run it is.
    pub tenant: Tenant,
    /// Node, attempt number and queue of each.
    pub tasks: Vec<(Arc<str>, u32, Arc<str>)>,
}

/// What an attempt does. Messages to the workers of named queues hold it as it is
/// written here: add kinds and optional fields, never change one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum AttemptWork {
    /// Nothing; reported back like everything else.
    Noop,
    /// A POST to a plugin.
    Http {
        /// Name in the configured allow-list.
        plugin: Arc<str>,
        /// Absolute path below the plugin's address.
        path: Arc<str>,
        /// The JSON body.
        body: Json,
    },
    /// An event of the run's tenant, whose id is the effect key.
    Emit {
        /// CloudEvents `type`.
        event_type: Arc<str>,
        /// CloudEvents `source`: the workflow.
        source: Arc<str>,
        /// CloudEvents `data`.
        data: Json,
        /// Events of runs that led to this one, at most
        /// [`HOPS_MAX`](crate::event::HOPS_MAX).
        hops: u32,
    },
    /// A question over NATS.
    Nats {
        /// Where.
        subject: Arc<str>,
        /// The JSON body.
        body: Json,
    },
    /// A program of the configuration.
    Command {
        /// Name in the configured allow-list.
        name: Arc<str>,
        /// Its arguments.
        args: Vec<String>,
        /// What it reads from its standard input.
        stdin: Json,
    },
}

/// What an owner has done once the records that order it are durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Start an attempt.
    Start(Attempt),
    /// Tell the running attempts of a closing run to stop; each still reports.
    Abort(RunId),
    /// Spawn the handler of a review case; its outcome comes back as
    /// [`crate::partition::Report::Case`].
    HandleCase(CaseNotice),
    /// File a command that could not be decided in the dead-letter stream.
    FileDead(DeadCommand),
    /// Tell the instruments that a run has ended.
    Ended(RunEnded),
    /// Publish the active definitions for everyone who watches.
    Project,
    /// Answer whoever sent a command.
    Reply {
        /// NATS subject that the sender waits on.
        to: Arc<str>,
        /// The answer, JSON.
        answer: Json,
    },
    /// Have the events of a resolved case decided once more; what came of it
    /// comes back as [`crate::partition::Report::CaseReplayed`].
    ReplayCase(CaseReplay),
    /// Hand an attempt to whoever serves its queue. Ordered again by the next
    /// owner, the same one, unless it may be handed out only once.
    Enqueue(Box<QueuedAttempt>),
    /// Take attempts of a closing run back from their queues; each still reports,
    /// as cancelled.
    Recall(Box<Recall>),
    /// File an event that the partition rejected in the dead-letter stream, with
    /// its original bytes; that it is filed comes back as
    /// [`crate::partition::Report::EventFiled`].
    FileEvent(Box<DeadEvent>),
    /// Tell the instruments what strategies made of an event.
    Matched(EventMatch),
}

/// A run that has ended, for traces and metrics: telling is no effect on the
/// world, and a run whose owner was lost right then is not told again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunEnded {
    /// The run.
    pub run: RunId,
    /// Its workflow.
    pub workflow: Arc<str>,
    /// The strategy that started it; absent where a snapshot lies between.
    pub strategy: Option<Arc<str>>,
    /// W3C trace context of the event that started it.
    pub traceparent: Option<Arc<str>>,
    /// When it began, journal time, milliseconds.
    pub started_ms: u64,
    /// When it ended, journal time, milliseconds.
    pub ended_ms: u64,
    /// Nodes that ended well.
    pub nodes_succeeded: u32,
    /// Whether it ended other than well.
    pub failed: bool,
}

/// What strategies made of an event that came for the first time, for metrics: a
/// repeat, a replay, a rejected event and one that can only end a wait say
/// nothing about them. Telling is as with [`RunEnded`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventMatch {
    /// A strategy starts a run for it.
    Started {
        /// The strategy.
        strategy: Arc<str>,
        /// Whether another strategy was told for the same event already.
        is_further: bool,
    },
    /// A strategy says that nothing is to happen.
    Ignored {
        /// The strategy.
        strategy: Arc<str>,
    },
    /// No strategy applies.
    Missed {
        /// Those that are of its type and did not apply, as its record names them.
        near: Vec<String>,
    },
}

/// A review case as its handler sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseNotice {
    /// The case.
    pub case: Uuid,
    /// Attempt number of the notice, from 1.
    pub attempt: u32,
    /// Whose case it is.
    pub tenant: Tenant,
    /// Rung of the escalation ladder, 1 to 4 (3: a person).
    pub tier: u8,
    /// Stable reason code.
    pub reason: Arc<str>,
    /// The run concerned, if one is.
    pub run: Option<RunId>,
    /// For people.
    pub detail: Json,
}

/// A command frame or a command in it that was consumed without a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadCommand {
    /// Sequence in the partition's COMMANDS stream.
    pub sequence: u64,
    /// Place of the command in its frame; absent when the frame is unreadable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// Stable reason code.
    pub reason: Arc<str>,
    /// For people.
    pub detail: String,
}

/// An event that a partition rejected itself: no stage has filed its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadEvent {
    /// The event.
    pub event: EventReference,
    /// Where it stands in EVENTS.
    pub source: SourcePosition,
    /// Stable reason code.
    pub reason: Arc<str>,
    /// For people.
    pub detail: String,
}
