//! Calls that are accepted first and completed later.

use super::step::Try;
use super::{Node, Phase, Run};
use crate::effect::{Outcome, bounded_outcome};
use crate::identity::{JournalTime, RunId};
use crate::plan::{Completion, FailureClass, NodeIndex, PlanNode};
use crate::record::{Body, NodeAccepted, NodeSucceeded, Record};

impl Run {
    /// What an answer to a call means whose outcome comes by callback. One that
    /// comes while the run closes is not waited for.
    pub(super) fn accepted(&self, id: RunId, node: &PlanNode, of: Try, now: JournalTime) -> Body {
        if self.phase == Phase::Open {
            return NodeAccepted { due: now.plus_ms(node.timeout_ms) }.into();
        }
        let detail = "the call was accepted while the run was closing".to_owned();
        self.failed(id, node, of, FailureClass::Cancelled, detail, now)
    }

    /// The record for a callback about the node at `index`; `None` when it has an
    /// outcome, takes no callback, or the run takes nothing new on.
    #[must_use]
    pub fn complete(
        &self,
        id: RunId,
        index: NodeIndex,
        outcome: &Outcome,
        now: JournalTime,
    ) -> Option<Record> {
        let node = self.executable.node(index)?;
        if node.work.completion() != Completion::Callback || self.phase != Phase::Open {
            return None;
        }
        let outcome = bounded_outcome(outcome);
        let (attempt, failures) = match (self.node(index)?, &outcome) {
            (
                Node::Accepted { attempt, failures, .. }
                | Node::Running { attempt, failures, .. }
                | Node::Queued { attempt, failures, .. },
                _,
            )
            // The call may be made again, and has done its work all the same.
            | (Node::Backoff { attempt, failures, .. }, Outcome::Succeeded { .. }) => {
                (*attempt, *failures)
            }
            _ => return None,
        };
        let body = match outcome {
            Outcome::Succeeded { output } => NodeSucceeded { output }.into(),
            Outcome::Failed { class, detail } => {
                self.failed(id, node, Try { attempt, failures }, class, detail, now)
            }
        };
        Some(Record::of_node(&self.tenant, id, &node.id, body).attempt(attempt))
    }

    /// The record for a callback that did not come in time.
    pub(super) fn overdue(&self, id: RunId, node: &PlanNode, of: Try, now: JournalTime) -> Record {
        let detail = format!("no callback within {} ms", node.timeout_ms);
        let body = self.failed(id, node, of, FailureClass::Timeout, detail, now);
        Record::of_node(&self.tenant, id, &node.id, body).attempt(of.attempt)
    }
}
