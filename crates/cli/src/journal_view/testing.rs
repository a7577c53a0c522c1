//! Journals written by hand, for tests.

use std::sync::Arc;

use fermata_core::command::EventReference;
use fermata_core::digest::Digest;
use fermata_core::identity::{JournalTime, PartitionId, RunId, SourcePosition, Tenant};
use fermata_core::json::Json;
use fermata_core::plan::FailureClass;
use fermata_core::record::{
    Body, CaseResolved, EndReason, EventRejected, EventSignalled, EventStarted, Header,
    NodeDispatched, NodeFailed, NodeRetrying, NodeSucceeded, NodeUnknown, NodeWaiting,
    PartitionOwned, Record, RunFailed, RunStarted, RunSucceeded,
};
use fermata_core::review::Resolution;
use fermata_jetstream::StoredMessage;
use fermata_wire::journal::{FrameBuilder, FrameHead};
use uuid::Uuid;

pub(crate) fn tenant() -> Tenant {
    "acme".parse().unwrap()
}

fn event() -> EventReference {
    EventReference {
        tenant: tenant(),
        id: "e-1".into(),
        source: "/test".into(),
        kind: "plugin.job.completed".into(),
        traceparent: None,
        hops: 0,
        breach: None,
        replayed: None,
    }
}

/// The run of partition 3 that the strategy `strategy` starts.
pub(crate) fn run_of(strategy: &str) -> RunId {
    RunId::new(
        PartitionId(3),
        &tenant(),
        42,
        SourcePosition { sequence: 1, index: 0 },
        strategy,
        None,
    )
}

/// Writes records one after the other.
#[derive(Debug, Default)]
pub(crate) struct Script {
    next_index: u64,
    time: JournalTime,
}

impl Script {
    /// What is written next is of this time, in milliseconds.
    pub(crate) fn at(&mut self, time_ms: u64) -> &mut Self {
        self.time = JournalTime(time_ms);
        self
    }

    fn write(&mut self, record: Record) -> (Header, Record) {
        let header = record.header(self.next_index, self.time);
        self.next_index += 1;
        (header, record)
    }

    fn of_run(&mut self, run: RunId, body: impl Into<Body>) -> (Header, Record) {
        self.write(Record::of_run(&tenant(), run, body.into()))
    }

    fn of_node(
        &mut self,
        run: RunId,
        node: &str,
        attempt: u32,
        body: impl Into<Body>,
    ) -> (Header, Record) {
        let node: Arc<str> = node.into();
        self.write(Record::of_node(&tenant(), run, &node, body.into()).attempt(attempt))
    }

    pub(crate) fn owned(&mut self) -> (Header, Record) {
        let owned =
            PartitionOwned { epoch: 1, worker: "w".into(), incarnation: Uuid::from_u128(1) };
        self.write(Record::of_partition(owned.into()))
    }

    /// The event with `key` at `source` starts a run.
    pub(crate) fn event_started(
        &mut self,
        key: u128,
        source: SourcePosition,
        run: RunId,
    ) -> (Header, Record) {
        self.event_started_by(key, source, run, None)
    }

    /// An event starts several runs.
    pub(crate) fn event_started_all(
        &mut self,
        key: u128,
        source: SourcePosition,
        runs: Vec<RunId>,
    ) -> (Header, Record) {
        let started = EventStarted { event: event(), key, source, replay: None, runs };
        self.write(Record::of_tenant(&tenant(), started.into()))
    }

    /// A replay of it starts another one.
    pub(crate) fn event_replayed(
        &mut self,
        key: u128,
        source: SourcePosition,
        run: RunId,
    ) -> (Header, Record) {
        self.event_started_by(key, source, run, Some(Uuid::from_u128(5)))
    }

    fn event_started_by(
        &mut self,
        key: u128,
        source: SourcePosition,
        run: RunId,
        replay: Option<Uuid>,
    ) -> (Header, Record) {
        let (event, runs) = (event(), vec![run]);
        let started = EventStarted { event, key, source, replay, runs };
        self.write(Record::of_tenant(&tenant(), started.into()))
    }

    /// The case of the run is resolved: the event at `place` is to be decided once more.
    pub(crate) fn case_resolved(
        &mut self,
        run: RunId,
        case: Uuid,
        place: SourcePosition,
    ) -> (Header, Record) {
        let (by, reason) = ("ada".into(), "mended".to_owned());
        let (resolution, events) = (Resolution::Retry, vec![place]);
        self.of_run(run, CaseResolved { case, resolution, by, reason, events, left_out: 0 })
    }

    /// The event `id` with `key` at `source` is for whoever waits for it.
    pub(crate) fn event_signalled(
        &mut self,
        id: &str,
        key: u128,
        source: SourcePosition,
    ) -> (Header, Record) {
        let event = EventReference { id: id.into(), ..event() };
        let (correlation, strategy, near, replay) = ("k".into(), None, Vec::new(), None);
        let signalled = EventSignalled { event, key, source, correlation, strategy, near, replay };
        self.write(Record::of_tenant(&tenant(), signalled.into()))
    }

    pub(crate) fn event_rejected(&mut self, source: SourcePosition) -> (Header, Record) {
        let (reason, detail) = ("replay_forged".into(), "why".to_owned());
        let (event, original, replay) = (event(), None, None);
        let rejected = EventRejected { event, source, reason, detail, original, replay };
        self.write(Record::of_tenant(&tenant(), rejected.into()))
    }

    pub(crate) fn started(&mut self, run: RunId) -> (Header, Record) {
        let started = RunStarted {
            event: event(),
            strategy: "report".into(),
            strategy_version: 1,
            workflow: "job-report".into(),
            workflow_version: "1.0".into(),
            plan: Digest([7; 32]),
            input: Json::from_text("{\"job_id\":\"j-1\"}").unwrap(),
            deadline: self.time.plus_ms(1_000),
        };
        self.of_run(run, started)
    }

    pub(crate) fn dispatched(&mut self, run: RunId, node: &str, attempt: u32) -> (Header, Record) {
        self.of_node(run, node, attempt, NodeDispatched { input: Json::null(), queued: None })
    }

    pub(crate) fn retrying(
        &mut self,
        run: RunId,
        node: &str,
        attempt: u32,
        due_ms: u64,
    ) -> (Header, Record) {
        let (class, detail) = (FailureClass::Http5xx, "status 500".to_owned());
        self.of_node(run, node, attempt, NodeRetrying { class, detail, due: JournalTime(due_ms) })
    }

    pub(crate) fn waiting(
        &mut self,
        run: RunId,
        node: &str,
        (event, correlation): (&str, &str),
        due: u64,
    ) -> (Header, Record) {
        let (event, correlation) = (event.into(), correlation.into());
        let body = NodeWaiting { event, correlation, due: JournalTime(due) }.into();
        self.write(Record::of_node(&tenant(), run, &node.into(), body))
    }

    pub(crate) fn node_succeeded(
        &mut self,
        run: RunId,
        node: &str,
        attempt: u32,
        output: &str,
    ) -> (Header, Record) {
        let output = Json::from_text(output).unwrap();
        self.of_node(run, node, attempt, NodeSucceeded { output })
    }

    pub(crate) fn node_failed(
        &mut self,
        run: RunId,
        node: &str,
        attempt: u32,
        class: FailureClass,
    ) -> (Header, Record) {
        self.of_node(run, node, attempt, NodeFailed { class, detail: "why".to_owned() })
    }

    pub(crate) fn node_unknown(
        &mut self,
        run: RunId,
        node: &str,
        attempt: u32,
    ) -> (Header, Record) {
        self.of_node(run, node, attempt, NodeUnknown { detail: "its owner was lost".to_owned() })
    }

    /// The run ended because nobody knows what became of `node`.
    pub(crate) fn failed_unknown(&mut self, run: RunId, node: &str) -> (Header, Record) {
        let (class, detail) = (FailureClass::Unknown, "its owner was lost".to_owned());
        let reason = EndReason::Failed { node: node.into(), class, detail };
        self.of_run(run, RunFailed { reason })
    }

    pub(crate) fn succeeded(&mut self, run: RunId) -> (Header, Record) {
        self.of_run(run, RunSucceeded {})
    }

    pub(crate) fn failed(&mut self, run: RunId, node: &str) -> (Header, Record) {
        let (class, detail) = (FailureClass::Http5xx, "status 500".to_owned());
        let reason = EndReason::Failed { node: node.into(), class, detail };
        self.of_run(run, RunFailed { reason })
    }

    /// The records as a message at sequence 1.
    pub(crate) fn message(&self, records: &[(Header, Record)]) -> StoredMessage {
        StoredMessage {
            sequence: 1,
            broker_time_ns: 0,
            writer: Some("w".to_owned()),
            subject: "fermata.journal.3".into(),
            headers: None,
            payload: frame(records).into(),
        }
    }
}

/// The records as the bytes of a frame.
pub(crate) fn frame(records: &[(Header, Record)]) -> Vec<u8> {
    let first = records.first().map_or(0, |(header, _)| header.index);
    let time = records.first().map_or(JournalTime(0), |(header, _)| header.time);
    let mut builder = FrameBuilder::default();
    for (header, record) in records {
        builder.push(record, header.index, header.time, [9; 16]).unwrap();
    }
    let head = FrameHead {
        epoch: 1,
        incarnation: Uuid::from_u128(1),
        number: 0,
        time,
        position: fermata_core::identity::StreamPosition::default(),
        floor: 0,
    };
    builder.finish(&head, first).unwrap()
}
