//! Journals written by hand.

use std::sync::Arc;

use fermata_core::command::EventReference;
use fermata_core::digest::Digest;
use fermata_core::identity::{
    JournalTime, PartitionId, RunId, SourcePosition, StreamPosition, Tenant,
};
use fermata_core::json::Json;
use fermata_core::plan::FailureClass;
use fermata_core::record::{
    Body, EndReason, NodeDispatched, NodeRetrying, Record, RunCancelled, RunClosing, RunFailed,
    RunStarted, RunSucceeded,
};
use fermata_store::{
    Cursor, FrameChanges, MemoryIndex, Origin, ReadModel, RunIndex, RunQuery, RunStatus,
    StoreLimits, StreamOrigin,
};
use fermata_wire::journal::{FrameBuilder, FrameHead};
use uuid::Uuid;

pub const PARTITIONS: u16 = 3;
pub const TENANTS: [&str; 3] = ["acme", "globex", "initech"];
pub const WORKFLOWS: [&str; 3] = ["report", "invoice", "audit"];

pub fn origin() -> Origin {
    let stream = |partition| StreamOrigin {
        partition: PartitionId(partition),
        stream: format!("JOURNAL_{partition}"),
        created: "2026-11-21T10:00:00Z".to_owned(),
    };
    Origin { engine: "fermata-test".to_owned(), streams: (0..PARTITIONS).map(stream).collect() }
}

/// Only few runs stay in memory, so that most are written.
pub fn limits(runs_max: u64) -> StoreLimits {
    StoreLimits {
        runs_max,
        cache_bytes: 8 * 1024 * 1024,
        young_runs_max: 4,
        ..StoreLimits::default()
    }
}

/// The run number `number` of a partition; its tenant goes with it.
pub fn run(partition: u16, number: u8) -> (RunId, Tenant) {
    let tenant: Tenant = TENANTS[usize::from(number) % 3].parse().unwrap();
    let source = SourcePosition { sequence: 1, index: u32::from(number) };
    (RunId::new(PartitionId(partition), &tenant, 42, source, "report", None), tenant)
}

/// What a record says about a run.
#[derive(Debug, Clone, Copy)]
pub enum Word {
    Started(u8),
    Dispatched,
    DispatchedAgain,
    Retrying,
    Closing,
    Succeeded,
    Failed,
    Cancelled,
}

fn body(word: Word, tenant: &Tenant) -> Body {
    let cancelled = EndReason::Cancelled { by: "me".to_owned(), reason: "test".to_owned() };
    match word {
        Word::Started(workflow) => RunStarted {
            event: EventReference {
                tenant: tenant.clone(),
                id: "e-1".into(),
                source: "/test".into(),
                kind: "job.done".into(),
                traceparent: None,
                hops: 0,
                breach: None,
                replayed: None,
            },
            strategy: "report".into(),
            strategy_version: 1,
            workflow: WORKFLOWS[usize::from(workflow) % 3].into(),
            workflow_version: "1".into(),
            plan: Digest([7; 32]),
            input: Json::null(),
            deadline: JournalTime(u64::MAX),
        }
        .into(),
        Word::Dispatched | Word::DispatchedAgain => {
            NodeDispatched { input: Json::null(), queued: None }.into()
        }
        Word::Retrying => {
            let (class, detail) = (FailureClass::Http5xx, String::new());
            NodeRetrying { class, detail, due: JournalTime(9) }.into()
        }
        Word::Closing => RunClosing { reason: cancelled }.into(),
        Word::Succeeded => RunSucceeded {}.into(),
        Word::Failed => {
            let (class, detail) = (FailureClass::Http5xx, String::new());
            RunFailed { reason: EndReason::Failed { node: "a".into(), class, detail } }.into()
        }
        Word::Cancelled => RunCancelled { reason: cancelled }.into(),
    }
}

/// The bytes of a journal message at `time` with one record for each run and word.
pub fn frame(partition: u16, time: u64, words: &[(u8, Word)]) -> Vec<u8> {
    let time = JournalTime(time);
    let mut builder = FrameBuilder::default();
    for (index, (number, word)) in (0..).zip(words) {
        let (run, tenant) = run(partition, *number);
        let record = match word {
            Word::Dispatched | Word::DispatchedAgain | Word::Retrying => {
                let node: Arc<str> = "a".into();
                let attempt = if matches!(word, Word::DispatchedAgain) { 2 } else { 1 };
                Record::of_node(&tenant, run, &node, body(*word, &tenant)).attempt(attempt)
            }
            Word::Started(_) | Word::Closing | Word::Succeeded | Word::Failed | Word::Cancelled => {
                Record::of_run(&tenant, run, body(*word, &tenant))
            }
        };
        builder.push(&record, index, time, [9; 16]).unwrap();
    }
    let head = FrameHead {
        epoch: 1,
        incarnation: Uuid::from_u128(1),
        number: 0,
        time,
        position: StreamPosition::default(),
        floor: 0,
    };
    builder.finish(&head, 0).unwrap()
}

/// As [`frame`], read again.
pub fn changes(partition: u16, sequence: u64, time: u64, words: &[(u8, Word)]) -> FrameChanges {
    let payload = frame(partition, time, words);
    FrameChanges::read(PartitionId(partition), sequence, &payload).unwrap()
}

/// Every question without a limit that matters.
pub fn questions() -> Vec<RunQuery> {
    let mut questions = Vec::new();
    let names = |names: [&str; 3]| {
        std::iter::once(None).chain(names.map(|name| Some(name.to_owned()))).collect::<Vec<_>>()
    };
    let statuses: Vec<_> =
        std::iter::once(None).chain(RunStatus::ALL.into_iter().map(Some)).collect();
    for tenant in names(TENANTS) {
        for workflow in names(WORKFLOWS) {
            for status in &statuses {
                questions.push(RunQuery {
                    tenant: tenant.as_deref().map(|tenant| tenant.parse().unwrap()),
                    workflow: workflow.as_deref().map(Into::into),
                    status: *status,
                    limit: 500,
                    ..RunQuery::default()
                });
            }
        }
    }
    questions
}

/// Asks both the same and compares: all filters, each run, the positions.
pub fn assert_same(model: &mut ReadModel, memory: &mut MemoryIndex) {
    assert_eq!(model.runs(), memory.runs());
    assert_eq!(model.left_out_until_ms(), memory.left_out_until_ms());
    for partition in (0..PARTITIONS).map(PartitionId) {
        assert_eq!(model.position(partition).unwrap(), memory.position(partition).unwrap());
    }
    for question in questions() {
        let (found, expected) = (model.list(&question).unwrap(), memory.list(&question).unwrap());
        assert_eq!(found, expected, "{question:?}");
    }
    for (partition, number) in (0..PARTITIONS).flat_map(|p| (0..12).map(move |n| (p, n))) {
        let (run, _) = run(partition, number);
        assert_eq!(model.get(run).unwrap(), memory.get(run).unwrap());
    }
}

/// Every run by pages of `limit`.
pub fn in_pages(index: &mut impl RunIndex, query: &RunQuery, limit: usize) -> Vec<Cursor> {
    let mut places = Vec::new();
    let mut query = RunQuery { limit, ..query.clone() };
    loop {
        let page = index.list(&query).unwrap();
        assert!(page.runs.len() <= limit);
        places.extend(page.runs.iter().map(Cursor::of));
        match page.next {
            Some(next) => query.after = Some(next),
            None => return places,
        }
    }
}
