//! What is written: a run once for each message that it takes part in, at the most.

use fermata_core::command::EventReference;
use fermata_core::identity::{JournalTime, SourcePosition, StreamPosition, Tenant};
use fermata_core::json::Json;
use fermata_core::record::{Body, NodeDispatched, Record, RunStarted, RunSucceeded};
use fermata_wire::journal::{FrameBuilder, FrameHead};
use sled::{Event, Subscriber};
use uuid::Uuid;

use super::*;
use crate::index::StreamOrigin;

const ONLY: PartitionId = PartitionId(0);
const RUNS: u32 = 10;

/// Nodes of a run that are dispatched in one message.
const NODES: usize = 7;

/// What a record says.
type Said = fn(&Tenant) -> Body;

fn index(folder: &Path, young_runs_max: usize) -> SledIndex {
    let (stream, created) = ("JOURNAL_0".to_owned(), "now".to_owned());
    let streams = vec![StreamOrigin { partition: ONLY, stream, created }];
    let origin = Origin { engine: "test".to_owned(), streams };
    let limits = StoreLimits { young_runs_max, ..StoreLimits::default() };
    SledIndex::create(&folder.join("index"), &origin, limits).unwrap()
}

/// A message in which all runs do the same: `bodies` one after the other, run by run in turns.
fn changes(sequence: u64, bodies: &[Said]) -> FrameChanges {
    let tenant: Tenant = "acme".parse().unwrap();
    let time = JournalTime(1_000 + sequence);
    let mut builder = FrameBuilder::default();
    let mut records = 0;
    for body in bodies {
        for number in 0..RUNS {
            let source = SourcePosition { sequence: 1, index: number };
            let run = RunId::new(ONLY, &tenant, 42, source, "report", None);
            let record = Record::of_run(&tenant, run, body(&tenant));
            builder.push(&record, records, time, [9; 16]).unwrap();
            records += 1;
        }
    }
    let (incarnation, position) = (Uuid::nil(), StreamPosition::default());
    let head = FrameHead { epoch: 1, incarnation, number: sequence, time, position, floor: 0 };
    let payload = builder.finish(&head, 0).unwrap();
    FrameChanges::read(ONLY, sequence, &payload).unwrap()
}

fn started(tenant: &Tenant) -> Body {
    let event = EventReference {
        tenant: tenant.clone(),
        id: "e-1".into(),
        source: "/test".into(),
        kind: "job.done".into(),
        traceparent: None,
        hops: 0,
        breach: None,
        replayed: None,
    };
    RunStarted {
        event,
        strategy: "report".into(),
        strategy_version: 1,
        workflow: "report".into(),
        workflow_version: "1".into(),
        plan: Digest([7; 32]),
        input: Json::null(),
        deadline: JournalTime(u64::MAX),
    }
    .into()
}

fn dispatched(_: &Tenant) -> Body {
    NodeDispatched { input: Json::null(), queued: None }.into()
}

fn succeeded(_: &Tenant) -> Body {
    RunSucceeded {}.into()
}

/// Rows of runs, of ids and of other places that were written since the last look.
fn written(index: &mut SledIndex, writes: &mut Subscriber) -> (u32, u32, u32) {
    // A row of nobody's, behind which nothing was written yet.
    const MARK: &[u8] = &[0xff];
    index.db.with(|db| db.insert(MARK, &[]).and(db.remove(MARK))).unwrap();
    let mut count = (0, 0, 0);
    for event in writes {
        match event {
            Event::Remove { key } if key == MARK => break,
            Event::Insert { key, .. } if key == MARK => {}
            Event::Insert { key, .. } if is_run_key(&key) => count.0 += 1,
            Event::Insert { key, .. } if key.first() == Some(&2) => count.1 += 1,
            Event::Insert { .. } => count.2 += 1,
            Event::Remove { .. } => {}
        }
    }
    count
}

#[test]
fn a_run_is_written_once_for_a_message_however_many_records_of_it_are_in_there() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = index(folder.path(), 0);
    let mut writes = index.db.with(|db| Ok(db.watch_prefix([]))).unwrap();
    let nodes: [Said; NODES] = [dispatched; NODES];

    let first = changes(1, &[&[started as Said], &nodes[..]].concat());
    assert_eq!(first.runs.len(), 10, "each run once");
    index.apply(&first).unwrap();
    assert_eq!(written(&mut index, &mut writes), (RUNS, RUNS, 3 * RUNS), "ten runs begin");

    index.apply(&changes(2, &nodes)).unwrap();
    assert_eq!(
        written(&mut index, &mut writes),
        (RUNS, 0, 0),
        "nothing of their places has changed"
    );

    index.apply(&changes(3, &[dispatched, succeeded])).unwrap();
    assert_eq!(written(&mut index, &mut writes), (RUNS, RUNS, 3 * RUNS), "ten runs end");
}

#[test]
fn a_run_that_begins_and_ends_while_it_is_young_is_written_once_and_as_it_ended() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = index(folder.path(), StoreLimits::default().young_runs_max);
    let mut writes = index.db.with(|db| Ok(db.watch_prefix([]))).unwrap();

    index.apply(&changes(1, &[started, dispatched])).unwrap();
    index.apply(&changes(2, &[dispatched, succeeded])).unwrap();
    assert_eq!(written(&mut index, &mut writes), (0, 0, 0), "they wait for what comes");
    index.write_oldest(0).unwrap();

    assert_eq!(written(&mut index, &mut writes), (RUNS, RUNS, 3 * RUNS));
}
