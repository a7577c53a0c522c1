//! What a run does next: pure, bounded, and the same on every machine.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{Node, Phase, Queue, Run};
use crate::digest::hash_parts;
use crate::effect::{Attempt, AttemptWork, EffectKey, Outcome, bounded_detail, bounded_outcome};
use crate::expression::{Expression, Scope};
use crate::identity::{JournalTime, RunId};
use crate::json::Json;
use crate::plan::{
    Completion, Delay, FailureClass, NodeIndex, PlanNode, TIMEOUT_MS_DEFAULT, Work, point_of_time,
};
use crate::record::{
    Body, NodeDelayed, NodeDispatched, NodeFailed, NodeRetrying, NodeSkipped, NodeSucceeded,
    NodeUnknown, NodeWaiting, Record,
};
use crate::relay::CORRELATION_KEY_BYTES_MAX;

/// Largest output of a node and largest body of a call, bytes of JSON text.
/// A record must fit a broker message of 1 MiB together with its neighbours of
/// the same command; larger data goes by reference. A larger one fails the
/// attempt with `response_too_large`.
pub const OUTPUT_BYTES_MAX: usize = 128 * 1024;

/// A record to append and, where it orders one, the attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The record.
    pub record: Record,
    /// The attempt that the record orders.
    pub attempt: Option<Attempt>,
    /// For whom that attempt is, if its owner does not make it itself.
    pub queue: Option<Box<Queue>>,
}

impl Run {
    /// Moves the node at `index` on, which is ready at `now`, or due after a
    /// delay, a failure or the loss of its owner.
    #[must_use]
    pub fn step(&self, id: RunId, index: NodeIndex, now: JournalTime) -> Option<Step> {
        let node = self.executable.node(index)?;
        match self.node(index)? {
            Node::Dead => Some(self.record_only(id, node, NodeSkipped {}.into())),
            Node::Ready => Some(self.enter(id, index, node, now)),
            Node::Backoff { attempt, input, .. } | Node::Running { attempt, input, .. } => {
                let input = input.clone().unwrap_or_default();
                Some(self.dispatch(id, node, attempt.saturating_add(1), input, now))
            }
            Node::Queued { attempt, failures, .. } => {
                let of = Try { attempt: *attempt, failures: *failures };
                Some(Step { record: self.unserved(id, node, of, now), attempt: None, queue: None })
            }
            Node::Delayed { .. } => {
                let output = Json::null();
                Some(self.record_only(id, node, NodeSucceeded { output }.into()))
            }
            Node::Accepted { attempt, failures, .. } => {
                let of = Try { attempt: *attempt, failures: *failures };
                Some(Step { record: self.overdue(id, node, of, now), attempt: None, queue: None })
            }
            Node::Waiting { .. }
            | Node::Succeeded(_)
            | Node::Skipped
            | Node::Failed
            | Node::Unknown
            | Node::Awaiting { .. } => None,
        }
    }

    /// The record for an outcome of the attempt that the node is running;
    /// `None` when it is running no such attempt.
    #[must_use]
    pub fn conclude(
        &self,
        id: RunId,
        index: NodeIndex,
        attempt: u32,
        outcome: &Outcome,
        now: JournalTime,
    ) -> Option<Record> {
        let node = self.executable.node(index)?;
        let (Node::Running { attempt: running, failures, .. }
        | Node::Queued { attempt: running, failures, .. }) = self.node(index)?
        else {
            return None;
        };
        // An earlier attempt may succeed after its owner was lost and another
        // was ordered: that is the effect's first outcome. Its failure says
        // nothing about the attempt under way, and neither does its acceptance
        // once nobody waits for a callback any more.
        let by_callback = node.work.completion() == Completion::Callback;
        let counts = match outcome {
            Outcome::Succeeded { .. } if by_callback && self.phase != Phase::Open => {
                *running == attempt
            }
            Outcome::Succeeded { .. } => (1..=*running).contains(&attempt),
            Outcome::Failed { .. } => *running == attempt,
        };
        if !counts {
            return None;
        }
        let of = Try { attempt, failures: *failures };
        let body = match bounded_outcome(outcome) {
            Outcome::Succeeded { .. } if by_callback => self.accepted(id, node, of, now),
            Outcome::Succeeded { output } => NodeSucceeded { output }.into(),
            Outcome::Failed { class, detail } => self.failed(id, node, of, class, detail, now),
        };
        Some(Record::of_node(&self.tenant, id, &node.id, body).attempt(attempt))
    }

    /// What follows the failure of an attempt.
    pub(super) fn failed(
        &self,
        id: RunId,
        node: &PlanNode,
        of: Try,
        class: FailureClass,
        detail: String,
        now: JournalTime,
    ) -> Body {
        // Nobody can tell whether the call did its work: never again by itself.
        if may_have_acted(node, class) {
            return NodeUnknown { detail }.into();
        }
        let failures = of.failures.saturating_add(1);
        let open = self.next_phase_is_open();
        if open && node.retry.retries(failures, class) {
            let random = jitter(id, node, of.attempt);
            let due = now.plus_ms(node.retry.delay_ms(failures, random));
            NodeRetrying { class, detail, due }.into()
        } else {
            NodeFailed { class, detail }.into()
        }
    }

    fn next_phase_is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    fn enter(&self, id: RunId, index: NodeIndex, node: &PlanNode, now: JournalTime) -> Step {
        if let Some(guard) = self.executable.guard(index) {
            match self.evaluate(guard, Expression::evaluate_bool) {
                Ok(true) => {}
                Ok(false) => return self.record_only(id, node, NodeSkipped {}.into()),
                Err(detail) => {
                    return self.record_only(id, node, expression_failure("when", &detail));
                }
            }
        }
        match &node.work {
            Work::Transform { .. } => {
                let body = match self.value(index) {
                    Ok(output) => NodeSucceeded { output }.into(),
                    Err(detail) => expression_failure("transform", &detail),
                };
                self.record_only(id, node, body)
            }
            Work::Noop => self.dispatch(id, node, 1, Json::null(), now),
            Work::Http { .. } | Work::Nats { .. } => {
                let body = self.value(index);
                let body = body.map_err(|detail| Refusal::expression("body", &detail));
                self.order(id, node, body, now)
            }
            Work::Emit { event_type, .. } => {
                self.order(id, node, self.event(index, event_type), now)
            }
            Work::Command { .. } => self.order(id, node, self.invocation(index), now),
            Work::Delay(delay) => self.record_only(id, node, self.delay(index, delay, now)),
            Work::Wait { event, .. } => {
                let body = match self.correlation_key(index) {
                    Ok(correlation) => {
                        let (event, due) = (event.as_str().into(), now.plus_ms(node.timeout_ms));
                        NodeWaiting { event, correlation, due }.into()
                    }
                    Err(detail) => expression_failure("wait.correlation", &detail),
                };
                self.record_only(id, node, body)
            }
        }
    }

    /// Orders the first attempt with this input, or fails the node for want of it.
    fn order(
        &self,
        id: RunId,
        node: &PlanNode,
        input: Result<Json, Refusal>,
        now: JournalTime,
    ) -> Step {
        match input {
            Ok(input) => self.dispatch(id, node, 1, input, now),
            Err(Refusal { class, detail }) => {
                self.record_only(id, node, NodeFailed { class, detail }.into())
            }
        }
    }

    /// The record with which a delay begins, or fails: one that would outlast
    /// its run does so at once rather than when the run's time is over.
    fn delay(&self, index: NodeIndex, delay: &Delay, now: JournalTime) -> Body {
        let due = match delay {
            Delay::Milliseconds(milliseconds) => Ok(now.plus_ms(*milliseconds)),
            Delay::Until(_) => self
                .value(index)
                .and_then(|value| point_of_time(&value.parse()))
                .map(|time| JournalTime(time).max(now)),
        };
        match due {
            Ok(due) if due < self.deadline => NodeDelayed { due }.into(),
            Ok(due) => {
                let late_ms = due.0.saturating_sub(self.deadline.0);
                let detail = format!("the delay ends {late_ms} ms after the run must have ended");
                NodeFailed { class: FailureClass::Timeout, detail }.into()
            }
            Err(detail) => expression_failure("until", &detail),
        }
    }

    /// Every attempt sends what the first one sent: other nodes may have ended
    /// since, and a repeated key with another body is no repeat.
    fn dispatch(
        &self,
        id: RunId,
        node: &PlanNode,
        attempt: u32,
        input: Json,
        now: JournalTime,
    ) -> Step {
        let attempt = self.attempt_of(id, node, attempt, &input);
        let queue = Queue::of(node, &attempt, now);
        let queued = queue.as_deref().map(Queue::recorded);
        let body = NodeDispatched { input, queued }.into();
        let record = Record::of_node(&self.tenant, id, &node.id, body).attempt(attempt.attempt);
        Step { record, attempt: Some(attempt), queue }
    }

    pub(super) fn attempt_of(
        &self,
        id: RunId,
        node: &PlanNode,
        attempt: u32,
        input: &Json,
    ) -> Attempt {
        let work = match &node.work {
            Work::Noop | Work::Transform { .. } | Work::Delay(_) | Work::Wait { .. } => {
                AttemptWork::Noop
            }
            Work::Http { plugin, path, .. } => {
                let (plugin, path) = (plugin.as_str().into(), path.as_str().into());
                AttemptWork::Http { plugin, path, body: input.clone() }
            }
            Work::Emit { .. } => self.emitting(input),
            Work::Command { name, .. } => Self::invoking(name, input),
            Work::Nats { subject, .. } => {
                AttemptWork::Nats { subject: subject.as_str().into(), body: input.clone() }
            }
        };
        Attempt {
            run: id,
            node: node.id.clone(),
            activation: 1,
            attempt,
            tenant: self.tenant.clone(),
            timeout_ms: call_timeout_ms(node),
            traceparent: self.traceparent.clone(),
            work,
            completion: node.work.completion(),
        }
    }

    fn record_only(&self, id: RunId, node: &PlanNode, body: Body) -> Step {
        let record = Record::of_node(&self.tenant, id, &node.id, body);
        Step { record, attempt: None, queue: None }
    }

    pub(super) fn value(&self, index: NodeIndex) -> Result<Json, String> {
        let Some(expression) = self.executable.value(index) else { return Ok(Json::null()) };
        let value = self.evaluate(expression, Expression::evaluate)?;
        within_limit(Json::from_value(&value))
    }

    pub(super) fn second_value(&self, index: NodeIndex) -> Result<Value, String> {
        let Some(expression) = self.executable.second_value(index) else { return Ok(Value::Null) };
        self.evaluate(expression, Expression::evaluate)
    }

    /// What a wait is found by.
    fn correlation_key(&self, index: NodeIndex) -> Result<Arc<str>, String> {
        let Some(expression) = self.executable.value(index) else { return Err(String::new()) };
        let value = self.evaluate(expression, Expression::evaluate)?;
        let Some(key) = value.as_str() else {
            return Err(bounded_detail(&format!("the key is no text but `{value}`")));
        };
        match key.len() {
            1..=CORRELATION_KEY_BYTES_MAX => Ok(key.into()),
            bytes => Err(format!(
                "the key has {bytes} bytes, it can have 1 to {CORRELATION_KEY_BYTES_MAX}"
            )),
        }
    }

    fn evaluate<T, E: std::fmt::Display>(
        &self,
        expression: &Expression,
        evaluate: impl Fn(&Expression, &Scope<'_>) -> Result<T, E>,
    ) -> Result<T, String> {
        let references = expression.references();
        let input = match references.roots.contains("input") {
            true => self.input.parse(),
            false => Value::Null,
        };
        let tasks = references
            .tasks
            .iter()
            .filter_map(|id| Some((id.clone(), self.task(self.executable.find(id)?)?)))
            .collect::<Map<String, Value>>();
        let tasks = Value::Object(tasks);
        let scope = Scope::new().with("input", &input).with("tasks", &tasks);
        evaluate(expression, &scope).map_err(|error| bounded_detail(&error.to_string()))
    }

    /// What expressions see as `tasks.<id>`.
    fn task(&self, index: NodeIndex) -> Option<Value> {
        match self.node(index)? {
            Node::Succeeded(output) => {
                let output = output.as_ref().map_or(Value::Null, Json::parse);
                Some(json!({ "status": "succeeded", "output": output }))
            }
            Node::Skipped => Some(json!({ "status": "skipped", "output": null })),
            Node::Waiting { .. }
            | Node::Ready
            | Node::Dead
            | Node::Running { .. }
            | Node::Backoff { .. }
            | Node::Delayed { .. }
            | Node::Accepted { .. }
            | Node::Failed
            | Node::Awaiting { .. }
            | Node::Queued { .. }
            | Node::Unknown => Some(json!({ "status": "pending", "output": null })),
        }
    }
}

/// An attempt, and how many failed before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Try {
    pub(super) attempt: u32,
    pub(super) failures: u32,
}

/// How long the call itself may take: where the outcome comes by callback, the
/// node's time limit is for that, and the call has the usual one at the most.
pub(super) fn call_timeout_ms(node: &PlanNode) -> u64 {
    match node.work.completion() {
        Completion::Answer => node.timeout_ms,
        Completion::Callback => node.timeout_ms.min(TIMEOUT_MS_DEFAULT),
    }
}

/// Whether an attempt that ended like this may have acted at a target that does
/// not recognise repeats.
fn may_have_acted(node: &PlanNode, class: FailureClass) -> bool {
    let lost = matches!(
        class,
        FailureClass::Timeout
            | FailureClass::Connect
            | FailureClass::Cancelled
            | FailureClass::Unknown
    );
    lost && !node.work.is_repeatable()
}

/// Why a node that was ready is not tried at all.
pub(super) struct Refusal {
    pub(super) class: FailureClass,
    pub(super) detail: String,
}

impl Refusal {
    pub(super) fn expression(field: &str, detail: &str) -> Self {
        let detail = bounded_detail(&format!("`{field}` could not be evaluated: {detail}"));
        Self { class: FailureClass::Expression, detail }
    }
}

fn expression_failure(field: &str, detail: &str) -> Body {
    let Refusal { class, detail } = Refusal::expression(field, detail);
    NodeFailed { class, detail }.into()
}

/// `value`, if it is small enough to be kept.
pub(super) fn within_limit(value: Json) -> Result<Json, String> {
    match value.as_str().len() {
        0..=OUTPUT_BYTES_MAX => Ok(value),
        bytes => Err(format!("the value has {bytes} bytes, at most {OUTPUT_BYTES_MAX} are kept")),
    }
}

/// A number that is uniform over effects and attempts and the same each time.
fn jitter(run: RunId, node: &PlanNode, attempt: u32) -> u64 {
    let key = EffectKey::of_node(run, node.id.clone(), 1).to_string();
    let [a, b, c, d, e, f, g, h, ..] =
        hash_parts(&[b"retry", key.as_bytes(), &attempt.to_be_bytes()]);
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}
