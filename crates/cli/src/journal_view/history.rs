//! One run in full: its nodes and its timeline.

use std::sync::Arc;

use fermata_core::command::Replayed;
use fermata_core::effect::Outcome;
use fermata_core::identity::JournalTime;
use fermata_core::plan::FailureClass;
use fermata_core::record::{Body, EndReason, EventStarted, Header, Kind, Record};
use serde::Serialize;
use serde_json::Value;

use super::RunSummary;
use super::afterwards::{ResolvedCase, StartedAgain};
use super::status::NodeStatus;
use crate::output::{counted, span_text};

/// Everything that the journal tells about a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunHistory {
    /// The run in short.
    #[serde(flatten)]
    pub summary: RunSummary,
    /// Version of the strategy that chose it.
    pub strategy_version: u32,
    /// What the workflow saw as `input`.
    pub input: Value,
    /// When it must have ended, journal time in milliseconds since 1970.
    pub deadline_ms: u64,
    /// Digest of the plan that it runs.
    pub plan: String,
    /// W3C trace context of the event.
    pub traceparent: Option<Arc<str>>,
    /// What the event's contract says against it, where that does not refuse it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breach: Option<Arc<str>>,
    /// Who had the event decided once more, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replayed: Option<Arc<Replayed>>,
    /// What a person decided about its case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved: Option<ResolvedCase>,
    /// What its event started since, decided once more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub started_again: Vec<StartedAgain>,
    /// The nodes that something happened to, in the order of their first record.
    pub nodes: Vec<NodeView>,
    /// What happened, in order.
    pub timeline: Vec<TimelineEntry>,
}

/// A node of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeView {
    /// Its id.
    pub id: Arc<str>,
    /// Which activation of the node, from 1.
    pub activation: u32,
    /// Where it stands.
    pub status: NodeStatus,
    /// Attempts ordered so far; 0 for a node that is computed while deciding.
    pub attempts: u32,
    /// When its first record was written, journal time in milliseconds since 1970.
    pub first_ms: u64,
    /// When its last record was written, likewise.
    pub last_ms: u64,
    /// What it answered.
    pub output: Option<Value>,
    /// When what it waits for is due, while it waits: its next attempt, the end
    /// of a delay, of the wait for a callback or for an event.
    pub due_ms: Option<u64>,
    /// The event that it waits or waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<AwaitedEvent>,
    /// Its last failure: when, of which class, and what was said.
    pub failure: Option<Failure>,
}

/// An event that a node waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AwaitedEvent {
    /// Its type, or a pattern of it.
    #[serde(rename = "type")]
    pub kind: Arc<str>,
    /// Its correlation key.
    pub correlation: Arc<str>,
}

/// A failure of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Journal time, milliseconds since 1970.
    pub time_ms: u64,
    /// The attempt, if one was made.
    pub attempt: Option<u32>,
    /// What kind of failure; absent when nobody knows whether it is one.
    pub class: Option<FailureClass>,
    /// For people.
    pub detail: String,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TimelineEntry {
    /// Milliseconds since the run began.
    pub offset_ms: u64,
    /// Journal time, milliseconds since 1970.
    pub time_ms: u64,
    /// Index of the record in its partition's journal.
    pub index: u64,
    /// Kind of the record.
    pub kind: &'static str,
    /// The node concerned.
    pub node: Option<Arc<str>>,
    /// The attempt concerned.
    pub attempt: Option<u32>,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What happened, and why where it is a failure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct What {
    /// In words.
    pub text: String,
    /// Class of the failure.
    pub class: Option<FailureClass>,
    /// Detail of the failure or ending.
    pub detail: Option<String>,
}

impl What {
    fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    fn failure(text: impl Into<String>, class: FailureClass, detail: &str) -> Self {
        Self { text: text.into(), class: Some(class), detail: Some(detail.to_owned()) }
    }

    fn detailed(text: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { text: text.into(), class: None, detail: Some(detail.into()) }
    }

    fn ending(text: &str, reason: &EndReason) -> Self {
        match reason {
            EndReason::Failed { node, class: class @ FailureClass::Unknown, detail } => {
                Self::failure(
                    format!("{text}: the outcome of node {node} is unknown"),
                    *class,
                    detail,
                )
            }
            EndReason::Failed { node, class, detail } => {
                Self::failure(format!("{text}: node {node} failed"), *class, detail)
            }
            EndReason::Cancelled { by, reason } => {
                Self::detailed(format!("{text}: cancelled by {by}"), reason.as_str())
            }
            EndReason::TimedOut => Self::plain(format!("{text}: the time limit has passed")),
        }
    }
}

impl RunHistory {
    /// The run as its first record leaves it; nothing when the record is no first one.
    #[must_use]
    pub fn begin(header: &Header, record: &Record) -> Option<Self> {
        let Body::RunStarted(started) = &record.body else { return None };
        let mut history = Self {
            summary: RunSummary::begin(header, record)?,
            strategy_version: started.strategy_version,
            input: started.input.parse(),
            deadline_ms: started.deadline.0,
            plan: started.plan.to_string(),
            traceparent: started.event.traceparent.clone(),
            breach: started.event.breach.clone(),
            replayed: started.event.replayed.clone(),
            resolved: None,
            started_again: Vec::new(),
            nodes: Vec::new(),
            timeline: Vec::new(),
        };
        history.note(header, record);
        Some(history)
    }

    /// Folds a later record of the run.
    pub fn fold(&mut self, header: &Header, record: &Record) {
        if let Body::CaseResolved(resolved) = &record.body {
            self.resolved.get_or_insert_with(|| ResolvedCase::of(header, resolved));
        }
        self.summary.fold(header.kind, header.attempt, header.time);
        self.fold_node(header, record);
        self.note(header, record);
    }

    /// Takes note that the run's event was decided once more and started work.
    pub fn start_again(&mut self, header: &Header, started: &EventStarted) {
        let EventStarted { source, runs, .. } = started;
        // The events of a case are decided where they stand; a request to replay is a message of its own.
        let by_case = self.resolved.iter().any(|resolved| resolved.events.contains(source));
        let (runs, time_ms) = (runs.clone(), header.time.0);
        self.started_again.push(StartedAgain { runs, time_ms, by_case });
    }

    fn note(&mut self, header: &Header, record: &Record) {
        self.timeline.push(TimelineEntry {
            offset_ms: header.time.0.saturating_sub(self.summary.started_ms),
            time_ms: header.time.0,
            index: header.index,
            kind: header.kind.as_str(),
            node: header.node.clone(),
            attempt: header.attempt,
            what: what_happened(&record.body, header.time),
        });
    }

    fn fold_node(&mut self, header: &Header, record: &Record) {
        let (Some(id), Some(status)) = (&header.node, node_status(header.kind)) else { return };
        let node = self.node_mut(id, header);
        node.status = status;
        node.last_ms = header.time.0;
        node.attempts = node.attempts.max(header.attempt.unwrap_or(0));
        if let Body::NodeSucceeded(succeeded) = &record.body {
            node.output = Some(succeeded.output.parse());
        }
        if let Body::NodeWaiting(waiting) = &record.body {
            let (kind, correlation) = (waiting.event.clone(), waiting.correlation.clone());
            node.event = Some(AwaitedEvent { kind, correlation });
        }
        node.due_ms = due(&record.body);
        node.failure = failure(header, &record.body).or(node.failure.take());
    }

    fn node_mut(&mut self, id: &Arc<str>, header: &Header) -> &mut NodeView {
        let found = self
            .nodes
            .iter()
            .position(|node| node.id == *id && node.activation == header.activation);
        let at = found.unwrap_or(self.nodes.len());
        if found.is_none() {
            self.nodes.push(NodeView {
                id: id.clone(),
                activation: header.activation,
                status: NodeStatus::Running,
                attempts: 0,
                first_ms: header.time.0,
                last_ms: header.time.0,
                output: None,
                due_ms: None,
                event: None,
                failure: None,
            });
        }
        // `at` is the place of the node that was found or pushed.
        #[expect(clippy::indexing_slicing, reason = "the index was found or pushed just above")]
        &mut self.nodes[at]
    }
}

/// When what the node waits for is due.
fn due(body: &Body) -> Option<u64> {
    let due = if let Body::NodeRetrying(retrying) = body {
        retrying.due
    } else if let Body::NodeDelayed(delayed) = body {
        delayed.due
    } else if let Body::NodeAccepted(accepted) = body {
        accepted.due
    } else if let Body::NodeWaiting(waiting) = body {
        waiting.due
    } else {
        return None;
    };
    Some(due.0)
}

fn failure(header: &Header, body: &Body) -> Option<Failure> {
    let mut class = None;
    let mut detail = None;
    if let Body::NodeRetrying(retrying) = body {
        (class, detail) = (Some(retrying.class), Some(&retrying.detail));
    }
    if let Body::NodeFailed(failed) = body {
        (class, detail) = (Some(failed.class), Some(&failed.detail));
    }
    if let Body::NodeUnknown(unknown) = body {
        detail = Some(&unknown.detail);
    }
    let (time_ms, attempt) = (header.time.0, header.attempt);
    Some(Failure { time_ms, attempt, class, detail: detail?.clone() })
}

fn node_status(kind: Kind) -> Option<NodeStatus> {
    [
        (Kind::NodeDispatched, NodeStatus::Running),
        (Kind::NodeRetrying, NodeStatus::Backoff),
        (Kind::NodeSucceeded, NodeStatus::Succeeded),
        (Kind::NodeSkipped, NodeStatus::Skipped),
        (Kind::NodeFailed, NodeStatus::Failed),
        (Kind::NodeUnknown, NodeStatus::Unknown),
        (Kind::NodeDelayed, NodeStatus::Delayed),
        (Kind::NodeAccepted, NodeStatus::Accepted),
        (Kind::NodeWaiting, NodeStatus::Waiting),
    ]
    .into_iter()
    .find_map(|(of, status)| (of == kind).then_some(status))
}

/// A record's body in words.
fn what_happened(body: &Body, now: JournalTime) -> What {
    match body {
        Body::RunStarted(started) => What::plain(format!(
            "run started: workflow {} {} by strategy {}",
            started.workflow, started.workflow_version, started.strategy
        )),
        Body::NodeDispatched(dispatched) => match &dispatched.queued {
            None => What::plain("attempt ordered"),
            Some(queued) => What::plain(format!("attempt ordered, for queue {}", queued.queue)),
        },
        Body::NodeSucceeded(_) => What::plain("succeeded"),
        Body::NodeRetrying(retrying) => {
            let pause = span_text(retrying.due.0.saturating_sub(now.0));
            let text = format!("attempt failed, the next is due in {pause}");
            What::failure(text, retrying.class, &retrying.detail)
        }
        Body::NodeFailed(failed) => What::failure("failed for good", failed.class, &failed.detail),
        Body::NodeSkipped(_) => What::plain("skipped"),
        Body::NodeAccepted(accepted) => {
            let wait = span_text(accepted.due.0.saturating_sub(now.0));
            What::plain(format!("accepted, its callback is awaited for {wait}"))
        }
        Body::NodeDelayed(delayed) => {
            let wait = span_text(delayed.due.0.saturating_sub(now.0));
            What::plain(format!("delay began, ends in {wait}"))
        }
        Body::NodeUnknown(unknown) => {
            What::detailed("outcome unknown, a person decides", unknown.detail.as_str())
        }
        Body::RunClosing(closing) => What::ending("run closing", &closing.reason),
        Body::RunSucceeded(_) => What::plain("run succeeded"),
        Body::RunFailed(failed) => What::ending("run failed", &failed.reason),
        Body::RunCancelled(cancelled) => What::ending("run cancelled", &cancelled.reason),
        Body::RunTimedOut(timed_out) => What::ending("run timed out", &timed_out.reason),
        Body::RunQuarantined(quarantined) => {
            What::detailed("run quarantined", quarantined.detail.as_str())
        }
        Body::EffectLate(late) => match &late.outcome {
            Outcome::Succeeded { .. } => What::plain("late outcome, changes nothing: succeeded"),
            Outcome::Failed { class, detail } => {
                What::failure("late outcome, changes nothing: failed", *class, detail)
            }
        },
        Body::CaseOpened(opened) => What::plain(format!(
            "review case {} opened for tier {}: {}",
            opened.case, opened.tier, opened.reason
        )),
        Body::CaseNotifying(notifying) => {
            What::plain(format!("review case {} is told of again", notifying.case))
        }
        Body::CaseNotified(notified) => match &notified.outcome {
            Outcome::Succeeded { .. } => {
                What::plain(format!("review case {} told of", notified.case))
            }
            Outcome::Failed { class, detail } => What::failure(
                format!("review case {} could not be told of", notified.case),
                *class,
                detail,
            ),
        },
        Body::CaseResolved(resolved) => What::detailed(
            format!(
                "review case {} resolved by {}: {}",
                resolved.case,
                resolved.by,
                resolved.resolution.as_str()
            ),
            resolved.reason.as_str(),
        ),
        Body::CaseReplayed(replayed) => What::plain(format!(
            "review case {}: {} decided once more",
            replayed.case,
            counted(replayed.asked, "event is", "events are")
        )),
        Body::CancelAnswered(answered) => What::detailed(
            format!("cancel asked by {}: {}", answered.by, answered.answer.as_str()),
            answered.reason.as_str(),
        ),
        Body::NodeWaiting(waiting) => What::plain(format!(
            "waits for {} with correlation key {}, {} at most",
            waiting.event,
            waiting.correlation,
            span_text(waiting.due.0.saturating_sub(now.0))
        )),
        // Records of the partition: none belongs to a run.
        Body::PartitionOwned(_)
        | Body::ForeignSkipped(_)
        | Body::CommandPoisoned(_)
        | Body::DeadFiled(_)
        | Body::EventFiled(_)
        | Body::EventStarted(_)
        | Body::EventIgnored(_)
        | Body::EventUnmatched(_)
        | Body::EventRejected(_)
        | Body::EventRepeated(_)
        | Body::DefinitionsApplied(_)
        | Body::DefinitionsRefused(_)
        | Body::OutboxQueued(_)
        | Body::OutboxDelivered(_)
        | Body::RelayTaken(_)
        | Body::EventSignalled(_)
        | Body::WaitSubscribed(_)
        | Body::WaitClosed(_)
        | Body::WaitMatched(_)
        | Body::SignalKept(_)
        | Body::SignalExpired(_)
        | Body::TruncationAccepted(_) => What::plain(body.kind().as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal_view::testing::{Script, run_of};

    fn history_of(records: &[(Header, Record)]) -> RunHistory {
        let ((header, record), later) = records.split_first().unwrap();
        let mut history = RunHistory::begin(header, record).unwrap();
        later.iter().for_each(|(header, record)| history.fold(header, record));
        history
    }

    #[test]
    fn a_node_that_failed_once_is_shown_with_both_attempts_and_its_output() {
        let run = run_of("a");
        let mut script = Script::default();
        let history = history_of(&[
            script.at(1_000).started(run),
            script.at(1_000).dispatched(run, "fetch", 1),
            script.at(1_030).retrying(run, "fetch", 1, 1_150),
            script.at(1_150).dispatched(run, "fetch", 2),
            script.at(1_180).node_succeeded(run, "fetch", 2, "{\"n\":1}"),
            script.at(1_180).succeeded(run),
        ]);

        let node = &history.nodes[0];
        assert_eq!((node.status, node.attempts), (NodeStatus::Succeeded, 2));
        assert_eq!(node.output, Some(serde_json::json!({ "n": 1 })));
        assert_eq!((history.summary.attempts, history.summary.retries), (2, 1));
        assert_eq!(history.summary.duration_ms(), Some(180));
        let retry = &history.timeline[2];
        assert_eq!(retry.offset_ms, 30);
        assert_eq!(retry.what.text, "attempt failed, the next is due in 120ms");
        assert_eq!(retry.what.class, Some(FailureClass::Http5xx));
    }

    #[test]
    fn an_attempt_that_is_only_due_is_no_retry_yet() {
        let run = run_of("a");
        let mut script = Script::default();
        let history = history_of(&[
            script.at(1_000).started(run),
            script.at(1_000).dispatched(run, "fetch", 1),
            script.at(1_030).retrying(run, "fetch", 1, 1_150),
        ]);

        assert_eq!((history.summary.attempts, history.summary.retries), (1, 0));
    }

    #[test]
    fn a_failed_run_names_the_node_and_the_class() {
        let run = run_of("a");
        let mut script = Script::default();
        let history = history_of(&[script.at(5).started(run), script.at(9).failed(run, "fetch")]);

        let last = history.timeline.last().unwrap();
        assert_eq!(last.what.text, "run failed: node fetch failed");
        assert_eq!(last.what.class, Some(FailureClass::Http5xx));
        assert_eq!(history.summary.duration_ms(), Some(4));
    }
}
