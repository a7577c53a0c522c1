//! The compiled workflow: a graph of nodes as plain data.
//!
//! A plan leaves no choice to execution. It is what a run keeps, so a run goes
//! on with the plan that it started with whatever becomes of the definition.
//!
//! # When a node is ready
//!
//! A node ends as completed, skipped or failed; a failed node fails its run.
//! - [`Join::All`]: ready once every predecessor has ended, completed or
//!   skipped, and at least one completed. If all were skipped, so is the node
//!   (dead path elimination).
//! - [`Join::Any`]: ready once the first predecessor completed; skipped once
//!   all were skipped.
//! - A node without predecessors is ready when the run starts.
//!
//! A ready node evaluates `when`: `false` skips the node, which satisfies its
//! successors as above; a guard that cannot be evaluated fails the node with
//! [`FailureClass::Expression`].

pub mod analysis;
mod delay;
mod executable;
pub mod input;
mod retry;
#[cfg(test)]
pub(crate) mod testing;
mod written;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::json::Json;

pub use delay::Delay;
pub(crate) use delay::point_of_time;
pub use executable::{Executable, PlanProblem};
pub use retry::{FailureClass, RetryPolicy};
pub use written::as_written;

/// The only version of [`Plan`] so far.
pub const PLAN_VERSION: u16 = 1;
/// Most nodes of one plan: what one run can hold in memory and one command can carry.
pub const NODES_MAX: usize = 100_000;
/// Most edges of one plan, over all nodes.
pub const EDGES_MAX: usize = 1_000_000;
/// Longest node id in bytes: ids are repeated in every record of the node.
pub const NODE_ID_BYTES_MAX: usize = 64;
/// Longest workflow name or version in bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// Longest plugin name in bytes.
pub const PLUGIN_BYTES_MAX: usize = 128;
/// Longest name of a queue in bytes: it is a token of a subject, and part of a
/// consumer's name.
pub const QUEUE_BYTES_MAX: usize = 32;
/// Longest path of an HTTP node in bytes.
pub const PATH_BYTES_MAX: usize = 1_024;
/// Longest subject of a NATS node in bytes.
pub const SUBJECT_BYTES_MAX: usize = 256;
/// Most tasks of one plan that wait for an event: those of a run that ends are
/// told of in one frame.
pub const WAITS_MAX: usize = 64;
/// Time limit of a wait when the definition names none: 24 hours, in milliseconds.
pub const WAIT_TIMEOUT_MS_DEFAULT: u64 = 24 * 60 * 60 * 1_000;
/// Longest time limit of an attempt or of a run: 366 days, in milliseconds.
pub const TIMEOUT_MS_MAX: u64 = 366 * 24 * 60 * 60 * 1_000;
/// Time limit of an attempt when the definition names none, in milliseconds.
pub const TIMEOUT_MS_DEFAULT: u64 = 30_000;
/// Time limit of a run when the definition names none: 24 hours, in milliseconds.
pub const RUN_TIMEOUT_MS_DEFAULT: u64 = 24 * 60 * 60 * 1_000;
/// Largest schema of a run's input in bytes.
pub const INPUT_SCHEMA_BYTES_MAX: usize = 64 * 1_024;

/// A node's place in [`Plan::nodes`].
pub type NodeIndex = u32;

/// A workflow, checked and laid out for execution.
///
/// Bytes from outside become a plan by deserialising; only
/// [`Executable::new`] says whether such a plan is sound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`PLAN_VERSION`].
    pub version: u16,
    /// Name of the workflow.
    pub workflow: Arc<str>,
    /// Version of the workflow, as its author wrote it.
    pub workflow_version: Arc<str>,
    /// The nodes in topological order: every predecessor stands before its successors.
    pub nodes: Vec<PlanNode>,
    /// How long a run may take, in milliseconds.
    pub run_timeout_ms: u64,
    /// What a run's input must look like, see [`input::check`].
    pub input_schema: Option<Json>,
}

/// One node of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanNode {
    /// Unique within the plan: `[a-z0-9][a-z0-9_-]*`, at most [`NODE_ID_BYTES_MAX`] bytes.
    pub id: Arc<str>,
    /// The nodes that this one waits for, ascending.
    pub predecessors: Vec<NodeIndex>,
    /// The nodes that wait for this one, ascending.
    pub successors: Vec<NodeIndex>,
    /// Which predecessors must have ended.
    pub join: Join,
    /// CEL: whether the node runs at all; absent means yes.
    pub when: Option<String>,
    /// What the node does.
    pub work: Work,
    /// Time limit of one attempt, in milliseconds.
    pub timeout_ms: u64,
    /// When a failed attempt is made again.
    pub retry: RetryPolicy,
    /// The named queue whose workers make its attempts; absent where the workers
    /// that own partitions do: `[a-z0-9][a-z0-9-]*`, at most [`QUEUE_BYTES_MAX`] bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<Arc<str>>,
}

/// Whether `name` can name a queue.
#[must_use]
pub fn is_queue_name(name: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= QUEUE_BYTES_MAX
        && name.bytes().next().is_some_and(alphanumeric)
        && name.bytes().all(|byte| alphanumeric(byte) || byte == b'-')
}

/// Which predecessors a node waits for; see the [module](self).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Join {
    /// All of them.
    #[default]
    All,
    /// The first that completes.
    Any,
}

/// What a node does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Work {
    /// Nothing, but as a real effect: dispatched and reported back.
    Noop,
    /// Computes a value from what is known.
    Transform {
        /// CEL: the node's output.
        value: String,
    },
    /// Calls a plugin over HTTP: `POST` with a JSON body.
    Http {
        /// Which plugin; the engine's configuration says where it lives.
        plugin: String,
        /// Path of the call, from `/`.
        path: String,
        /// CEL: the body.
        body: String,
        /// Whether the plugin recognises a repeated idempotency key.
        idempotent: bool,
        /// What ends the node.
        #[serde(default, skip_serializing_if = "Completion::is_answer")]
        completion: Completion,
    },
    /// Waits as a timer of the run; holds no worker and no attempt.
    Delay(Delay),
    /// Publishes an event of the run's own tenant; a repeated attempt publishes
    /// the same event again.
    Emit {
        /// The event's type.
        event_type: EventType,
        /// CEL: the event's data.
        data: String,
    },
    /// Asks over NATS and waits for the answer.
    Nats {
        /// Where; the engine's configuration says which subjects may be asked.
        subject: String,
        /// CEL: the body.
        body: String,
        /// Whether whoever answers recognises a repeated idempotency key.
        idempotent: bool,
        /// What ends the node.
        #[serde(default, skip_serializing_if = "Completion::is_answer")]
        completion: Completion,
    },
    /// Runs a program of the engine's configuration.
    Command {
        /// Which one; the configuration says where it lies.
        name: String,
        /// CEL: its arguments, a list of texts; none when absent.
        args: Option<String>,
        /// CEL: what it reads from its standard input, as JSON.
        stdin: String,
        /// Whether it recognises a repeated idempotency key.
        idempotent: bool,
    },
    /// Waits for an event; the node's time limit is that of the wait.
    Wait {
        /// Pattern of the event's type, as strategies have it.
        event: String,
        /// CEL: the event's correlation key.
        correlation: String,
    },
}

/// What ends a node that calls somebody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Completion {
    /// The answer to the call.
    #[default]
    Answer,
    /// A completion that names the call's token; the answer says only that the
    /// call was accepted.
    Callback,
}

impl Completion {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    fn is_answer(&self) -> bool {
        *self == Self::Answer
    }
}

/// The type of an event that a run publishes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventType {
    /// Always this one.
    Constant(String),
    /// CEL: the type.
    Computed(String),
}

impl Work {
    /// The CEL text whose value the node is made of: a transform's value, a
    /// call's body, a delay's end, a wait's key.
    #[must_use]
    pub fn value(&self) -> Option<&str> {
        match self {
            Self::Noop | Self::Delay(Delay::Milliseconds(_)) => None,
            Self::Transform { value } => Some(value),
            Self::Http { body, .. } => Some(body),
            Self::Delay(Delay::Until(time)) => Some(time),
            Self::Emit { data, .. } => Some(data),
            Self::Nats { body, .. } => Some(body),
            Self::Command { stdin, .. } => Some(stdin),
            Self::Wait { correlation, .. } => Some(correlation),
        }
    }

    /// Where [`Self::value`] stands in a definition, below its task.
    #[must_use]
    pub fn value_field(&self) -> &'static str {
        match self {
            Self::Noop => "noop",
            Self::Transform { .. } => "transform",
            Self::Http { .. } => "http.body",
            Self::Delay(_) => "delay.until",
            Self::Emit { .. } => "emit.data",
            Self::Nats { .. } => "nats.body",
            Self::Command { .. } => "command.stdin",
            Self::Wait { .. } => "wait.correlation",
        }
    }

    /// A second CEL text, where the node needs one, and where it stands in a
    /// definition, below its task.
    #[must_use]
    pub fn second_value(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::Emit { event_type: EventType::Computed(text), .. } => {
                Some(("emit.type_from", text))
            }
            Self::Command { args: Some(args), .. } => Some(("command.args", args)),
            Self::Emit { event_type: EventType::Constant(_), .. }
            | Self::Command { args: None, .. }
            | Self::Noop
            | Self::Transform { .. }
            | Self::Http { .. }
            | Self::Delay(_)
            | Self::Nats { .. }
            | Self::Wait { .. } => None,
        }
    }

    /// The failures that `exponential_backoff` tries again, which a plan spells
    /// out: those of old kinds of nodes never change, or the same definition
    /// would make another plan.
    #[must_use]
    pub fn retryable_by_default(&self) -> Vec<FailureClass> {
        let own = match self {
            Self::Nats { .. } => Some(FailureClass::NoResponders),
            Self::Command { .. } => Some(FailureClass::ExitTemporary),
            Self::Noop
            | Self::Transform { .. }
            | Self::Http { .. }
            | Self::Delay(_)
            | Self::Emit { .. }
            | Self::Wait { .. } => None,
        };
        RetryPolicy::exponential_backoff().on.into_iter().chain(own).collect()
    }

    /// What ends the node, if it calls somebody.
    #[must_use]
    pub fn completion(&self) -> Completion {
        match self {
            Self::Http { completion, .. } | Self::Nats { completion, .. } => *completion,
            Self::Noop
            | Self::Transform { .. }
            | Self::Delay(_)
            | Self::Emit { .. }
            | Self::Command { .. }
            | Self::Wait { .. } => Completion::Answer,
        }
    }

    /// Whether somebody else than its owner can do it: an attempt, not a value or
    /// a wait of the run itself.
    #[must_use]
    pub fn is_attempted(&self) -> bool {
        match self {
            Self::Noop
            | Self::Http { .. }
            | Self::Emit { .. }
            | Self::Nats { .. }
            | Self::Command { .. } => true,
            Self::Transform { .. } | Self::Delay(_) | Self::Wait { .. } => false,
        }
    }

    /// The system outside that the node needs, if it needs one.
    #[must_use]
    pub fn system(&self) -> Option<&str> {
        match self {
            Self::Http { plugin, .. } => Some(plugin),
            Self::Nats { subject, .. } => Some(subject),
            Self::Command { name, .. } => Some(name),
            Self::Noop
            | Self::Transform { .. }
            | Self::Delay(_)
            | Self::Emit { .. }
            | Self::Wait { .. } => None,
        }
    }

    /// Whether an attempt that nobody knows the outcome of may be made again.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        match self {
            Self::Noop
            | Self::Transform { .. }
            | Self::Delay(_)
            | Self::Emit { .. }
            | Self::Wait { .. } => true,
            Self::Http { idempotent, .. }
            | Self::Nats { idempotent, .. }
            | Self::Command { idempotent, .. } => *idempotent,
        }
    }
}
