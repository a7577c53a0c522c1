//! Attempts that the workers of a named queue make: ordered like others, but kept
//! on the clock here, since nobody in the owner's process works on them.

use std::sync::Arc;

use super::step::{Try, call_timeout_ms};
use super::{Node, Run};
use crate::effect::{Attempt, QueuedAttempt, Recall};
use crate::identity::{JournalTime, RunId};
use crate::plan::{FailureClass, NodeIndex, PlanNode};
use crate::record::{Queued, Record};

/// On what terms an attempt is handed to a named queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Its name.
    pub name: Arc<str>,
    /// When the attempt counts as failed, journal time.
    pub due: JournalTime,
    /// Whether it may be handed out more than once.
    pub idempotent: bool,
}

impl Queue {
    /// The terms of an attempt at a node that names a queue.
    pub(super) fn of(node: &PlanNode, attempt: &Attempt, now: JournalTime) -> Option<Box<Self>> {
        let name = node.queue.clone()?;
        let due = now.plus_ms(attempt.timeout_ms);
        Some(Box::new(Self { name, due, idempotent: node.work.is_repeatable() }))
    }

    pub(super) fn recorded(&self) -> Queued {
        Queued { queue: self.name.clone(), due: self.due }
    }
}

impl Run {
    /// The attempt that is in a queue at the node at `index`, as an earlier owner ordered it.
    #[must_use]
    pub fn queued_attempt(&self, id: RunId, index: NodeIndex) -> Option<QueuedAttempt> {
        let node = self.executable.node(index)?;
        let Node::Queued { attempt, due, input, .. } = self.node(index)? else { return None };
        let input = input.clone().unwrap_or_default();
        Some(QueuedAttempt {
            attempt: self.attempt_of(id, node, *attempt, &input),
            queue: node.queue.clone()?,
            due: *due,
            idempotent: node.work.is_repeatable(),
            again: true,
        })
    }

    /// The queue that the attempt at the node at `index` is in, if it is in one.
    pub(crate) fn queue_of(&self, index: NodeIndex) -> Option<Arc<str>> {
        let Node::Queued { .. } = self.node(index)? else { return None };
        self.executable.node(index)?.queue.clone()
    }

    /// The attempts that are in queues, if the run has any.
    pub(crate) fn recall(&self, id: RunId) -> Option<Recall> {
        if self.queued == 0 {
            return None;
        }
        let tasks = self.nodes().filter_map(|(index, node)| {
            let Node::Queued { attempt, .. } = node else { return None };
            let node = self.executable.node(index)?;
            Some((node.id.clone(), *attempt, node.queue.clone()?))
        });
        Some(Recall { run: id, tenant: self.tenant.clone(), tasks: tasks.collect() })
    }

    /// The record for a result that did not come from a queue in time.
    pub(super) fn unserved(&self, id: RunId, node: &PlanNode, of: Try, now: JournalTime) -> Record {
        let queue = node.queue.as_deref().unwrap_or_default();
        let limit_ms = call_timeout_ms(node);
        let detail = format!(
            "no result came from queue `{queue}` within {limit_ms} ms; `fermata doctor` says \
             whether a worker serves it"
        );
        let body = self.failed(id, node, of, FailureClass::Timeout, detail, now);
        Record::of_node(&self.tenant, id, &node.id, body).attempt(of.attempt)
    }
}
