//! What a record makes of a node, and that of the nodes behind it.

use super::step::Try;
use super::{Node, Phase, Run};
use crate::json::Json;
use crate::plan::{Join, NodeIndex};
use crate::record::{Body, NodeDispatched, Queued, Record};

impl Run {
    /// The transition table: `None` where the record does not apply.
    pub(super) fn next_state(&self, index: NodeIndex, record: &Record) -> Option<Node> {
        let node = self.node(index)?;
        let open = self.phase == Phase::Open;
        let attempt = record.attempt;
        match (&record.body, node) {
            (Body::NodeDispatched(dispatched), Node::Ready) if open && attempt == Some(1) => {
                let input = (!dispatched.input.is_null()).then(|| dispatched.input.clone());
                Some(Node::ordered(dispatched, Try { attempt: 1, failures: 0 }, input))
            }
            (
                Body::NodeDispatched(dispatched),
                Node::Backoff { attempt: last, failures, input, .. }
                | Node::Running { attempt: last, failures, input },
            ) if open && attempt == last.checked_add(1) => {
                let of = Try { attempt: last + 1, failures: *failures };
                Some(Node::ordered(dispatched, of, input.clone()))
            }
            // The first real outcome of the effect counts, whichever attempt brought it.
            (
                Body::NodeSucceeded(succeeded),
                Node::Running { attempt: running, .. } | Node::Queued { attempt: running, .. },
            ) if attempt.is_some_and(|attempt| attempt >= 1 && attempt <= *running) => {
                Some(Node::succeeded(&succeeded.output))
            }
            (Body::NodeSucceeded(succeeded), Node::Ready) if open && attempt.is_none() => {
                Some(Node::succeeded(&succeeded.output))
            }
            (
                Body::NodeRetrying(retrying),
                Node::Running { attempt: running, failures, input }
                | Node::Queued { attempt: running, failures, input, .. },
            ) if open && attempt == Some(*running) => {
                let (failures, input) = (failures.saturating_add(1), input.clone());
                Some(Node::Backoff { attempt: *running, failures, due: retrying.due, input })
            }
            (
                Body::NodeFailed(_),
                Node::Running { attempt: running, .. } | Node::Queued { attempt: running, .. },
            ) if attempt == Some(*running) => Some(Node::Failed),
            (Body::NodeFailed(_), Node::Ready) if open && attempt.is_none() => Some(Node::Failed),
            (
                Body::NodeUnknown(_),
                Node::Running { attempt: running, .. } | Node::Queued { attempt: running, .. },
            ) if attempt == Some(*running) => Some(Node::Unknown),
            (Body::NodeSkipped(_), Node::Ready | Node::Dead) if open => Some(Node::Skipped),
            (Body::NodeDelayed(delayed), Node::Ready) if open && attempt.is_none() => {
                Some(Node::Delayed { due: delayed.due })
            }
            (Body::NodeSucceeded(succeeded), Node::Delayed { .. }) if open && attempt.is_none() => {
                Some(Node::succeeded(&succeeded.output))
            }
            (
                Body::NodeAccepted(accepted),
                Node::Running { attempt: last, failures, input }
                | Node::Queued { attempt: last, failures, input, .. },
            ) if open && attempt.is_some_and(|attempt| (1..=*last).contains(&attempt)) => {
                let (failures, input) = (*failures, input.clone());
                Some(Node::Accepted { attempt: *last, failures, due: accepted.due, input })
            }
            // A callback may come while another attempt waits its turn.
            (
                Body::NodeSucceeded(succeeded),
                Node::Accepted { attempt: last, .. } | Node::Backoff { attempt: last, .. },
            ) if open && attempt == Some(*last) => Some(Node::succeeded(&succeeded.output)),
            (
                Body::NodeRetrying(retrying),
                Node::Accepted { attempt: last, failures, input, .. },
            ) if open && attempt == Some(*last) => {
                let (failures, input) = (failures.saturating_add(1), input.clone());
                Some(Node::Backoff { attempt: *last, failures, due: retrying.due, input })
            }
            (Body::NodeFailed(_), Node::Accepted { attempt: last, .. })
                if open && attempt == Some(*last) =>
            {
                Some(Node::Failed)
            }
            (Body::NodeUnknown(_), Node::Accepted { attempt: last, .. })
                if open && attempt == Some(*last) =>
            {
                Some(Node::Unknown)
            }
            (Body::NodeWaiting(waiting), Node::Ready) if open && attempt.is_none() => {
                let (due, key) = (waiting.due, waiting.correlation.clone());
                Some(Node::Awaiting { due, key })
            }
            (Body::NodeSucceeded(succeeded), Node::Awaiting { .. })
                if open && attempt.is_none() =>
            {
                Some(Node::succeeded(&succeeded.output))
            }
            (Body::NodeFailed(_), Node::Awaiting { .. }) if open && attempt.is_none() => {
                Some(Node::Failed)
            }
            _ => None,
        }
    }

    pub(super) fn put(&mut self, index: NodeIndex, next: Node) {
        let Some(slot) = self.nodes.get_mut(index as usize) else { return };
        let before = std::mem::replace(slot, next);
        if matches!(before, Node::Ready | Node::Dead) {
            self.leave_ready(index);
        }
        let after = self.nodes.get(index as usize);
        let is_running = after.is_some_and(Node::is_attempted);
        match (before.is_attempted(), is_running) {
            (false, true) => self.running += 1,
            (true, false) => self.running -= 1,
            (true, true) | (false, false) => {}
        }
        self.queued -= u32::from(matches!(before, Node::Queued { .. }));
        self.queued += u32::from(matches!(after, Some(Node::Queued { .. })));
        self.awaiting -= u32::from(matches!(before, Node::Awaiting { .. }));
        self.awaiting += u32::from(matches!(after, Some(Node::Awaiting { .. })));
        match after {
            Some(Node::Succeeded(_)) => self.end_node(index, true),
            Some(Node::Skipped) => self.end_node(index, false),
            _ => {}
        }
    }

    fn leave_ready(&mut self, index: NodeIndex) {
        match self.ready.front() {
            Some(front) if *front == index => {
                self.ready.pop_front();
            }
            _ => self.ready.retain(|waiting| *waiting != index),
        }
    }

    fn end_node(&mut self, index: NodeIndex, completed: bool) {
        self.not_ended = self.not_ended.saturating_sub(1);
        let executable = self.executable.clone();
        let Some(node) = executable.node(index) else { return };
        for successor in &node.successors {
            let Some(definition) = executable.node(*successor) else { continue };
            let Some(slot) = self.nodes.get_mut(*successor as usize) else { continue };
            let Node::Waiting { ended, completed: all } = slot else { continue };
            *ended += 1;
            *all += u32::from(completed);
            let everyone = definition.predecessors.len() == *ended as usize;
            let next = match (definition.join, *all > 0) {
                (Join::Any, true) => Node::Ready,
                (Join::All, true) if everyone => Node::Ready,
                (Join::All | Join::Any, false) if everyone => Node::Dead,
                (Join::All | Join::Any, _) => continue,
            };
            *slot = next;
            self.ready.push_back(*successor);
        }
    }
}

impl Node {
    /// What an ordered attempt makes of a node.
    fn ordered(dispatched: &NodeDispatched, of: Try, input: Option<Json>) -> Self {
        let Try { attempt, failures } = of;
        match &dispatched.queued {
            None => Self::Running { attempt, failures, input },
            Some(Queued { due, .. }) => Self::Queued { attempt, failures, due: *due, input },
        }
    }

    /// Whether an attempt is ordered and has no outcome, wherever it is made.
    pub(super) fn is_attempted(&self) -> bool {
        matches!(self, Self::Running { .. } | Self::Queued { .. })
    }

    fn succeeded(output: &Json) -> Self {
        Self::Succeeded((!output.is_null()).then(|| output.clone()))
    }
}
