//! The index in sled gives the answers of the one in memory.

use proptest::prelude::*;

use fermata_core::identity::PartitionId;
use fermata_store::{
    Applied, FrameChanges, MemoryIndex, OpenError, Origin, ReadModel, Rebuild, RunIndex, RunQuery,
    RunStatus, StoreLimits,
};

use crate::support::{
    PARTITIONS, Word, assert_same, changes, frame, in_pages, limits, origin, questions, run,
};

#[derive(Debug, Clone)]
enum Act {
    Frame { partition: u16, later_ms: u64, words: Vec<(u8, Word)>, gap: bool },
    Foreign { partition: u16 },
    Again { partition: u16 },
    Reopen,
}

fn word() -> impl Strategy<Value = Word> {
    prop_oneof![
        6 => any::<u8>().prop_map(Word::Started),
        1 => Just(Word::Dispatched),
        1 => Just(Word::DispatchedAgain),
        1 => Just(Word::Retrying),
        1 => Just(Word::Closing),
        1 => Just(Word::Succeeded),
        1 => Just(Word::Failed),
        1 => Just(Word::Cancelled),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let words = prop::collection::vec((0..12_u8, word()), 0..8);
    prop_oneof![
        10 => (0..PARTITIONS, 0..3_u64, words, prop::bool::weighted(0.05)).prop_map(
            |(partition, later_ms, words, gap)| Act::Frame { partition, later_ms, words, gap }
        ),
        1 => (0..PARTITIONS).prop_map(|partition| Act::Foreign { partition }),
        1 => (0..PARTITIONS).prop_map(|partition| Act::Again { partition }),
        1 => Just(Act::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_same_frames_give_the_same_answers_wherever_it_is_reopened(
        acts in prop::collection::vec(act(), 1..40),
        runs_max in prop_oneof![Just(u64::MAX), 1..20_u64],
        young_runs_max in 0..12_usize,
    ) {
        let limits = |runs_max| StoreLimits { young_runs_max, ..limits(runs_max) };
        let folder = tempfile::tempdir().unwrap();
        let mut memory = MemoryIndex::new(&origin(), runs_max);
        let mut model = ReadModel::open(folder.path(), &origin(), limits(runs_max)).unwrap().model;
        let (mut time, mut sequence) = (1_000, 0);
        let mut last: Option<FrameChanges> = None;
        for act in acts {
            let frame = match act {
                Act::Frame { partition, later_ms, words, gap } => {
                    time += later_ms;
                    sequence += 1;
                    let frame = changes(partition, sequence, time, &words);
                    if gap { frame.after_gap() } else { frame }
                }
                Act::Foreign { partition } => {
                    sequence += 1;
                    FrameChanges::foreign(PartitionId(partition), sequence, b"foreign")
                }
                Act::Again { partition } => match &last {
                    Some(last) if last.partition.0 == partition => last.clone(),
                    _ => continue,
                },
                Act::Reopen => {
                    model.close().unwrap();
                    let opened = ReadModel::open(folder.path(), &origin(), limits(runs_max)).unwrap();
                    prop_assert!(opened.rebuild.is_none(), "{:?}", opened.rebuild);
                    model = opened.model;
                    continue;
                }
            };
            prop_assert_eq!(model.apply(&frame).unwrap(), memory.apply(&frame).unwrap());
            last = Some(frame);
        }

        assert_same(&mut model, &mut memory);
        for question in questions().iter().step_by(7) {
            let all = in_pages(&mut memory, question, 500);
            prop_assert_eq!(&in_pages(&mut model, question, 3), &all);
            prop_assert_eq!(&in_pages(&mut memory, question, 3), &all);
        }
        for (since, until) in [(1_000, 1_003), (1_002, 1_002), (0, 0), (1_001, u64::MAX)] {
            let question = RunQuery {
                since_ms: Some(since), until_ms: Some(until), limit: 500, ..RunQuery::default()
            };
            let found = model.list(&question).unwrap();
            prop_assert!(found.runs.iter().all(|run| (since..until).contains(&run.started_ms)));
            prop_assert_eq!(found, memory.list(&question).unwrap());
        }
    }
}

#[test]
fn a_run_is_found_by_where_it_stands_now_and_no_more_by_where_it_stood() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = ReadModel::open(folder.path(), &origin(), limits(100)).unwrap().model;
    let by = |status| RunQuery { status: Some(status), limit: 10, ..RunQuery::default() };

    model.apply(&changes(0, 1, 5, &[(0, Word::Started(0)), (0, Word::Dispatched)])).unwrap();
    assert_eq!(model.list(&by(RunStatus::Running)).unwrap().runs.len(), 1);
    model.apply(&changes(0, 2, 9, &[(0, Word::Failed)])).unwrap();

    assert!(model.list(&by(RunStatus::Running)).unwrap().runs.is_empty());
    let failed = model.list(&by(RunStatus::Failed)).unwrap().runs;
    assert_eq!((failed[0].attempts, failed[0].duration_ms()), (1, Some(4)));
}

#[test]
fn an_attempt_that_is_only_due_is_listed_as_no_retry() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = ReadModel::open(folder.path(), &origin(), limits(100)).unwrap().model;
    let mut counts = |sequence, words: &[(u8, Word)]| {
        model.apply(&changes(0, sequence, 5, words)).unwrap();
        let all = RunQuery { limit: 10, ..RunQuery::default() };
        let runs = model.list(&all).unwrap().runs;
        (runs[0].attempts, runs[0].retries)
    };

    let due = [(0, Word::Started(0)), (0, Word::Dispatched), (0, Word::Retrying)];
    assert_eq!(counts(1, &due), (1, 0));
    assert_eq!(counts(2, &[(0, Word::DispatchedAgain)]), (2, 1));
}

#[test]
fn a_message_that_was_applied_changes_nothing_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = ReadModel::open(folder.path(), &origin(), limits(100)).unwrap().model;
    let frame = changes(1, 4, 5, &[(0, Word::Started(0)), (0, Word::Dispatched)]);

    assert_eq!(model.apply(&frame).unwrap(), Applied::Taken);
    assert_eq!(model.apply(&frame).unwrap(), Applied::Known);

    assert_eq!(model.get(run(1, 0).0).unwrap().unwrap().attempts, 1);
}

#[test]
fn a_second_opener_is_told_that_the_folder_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let opened = ReadModel::open(folder.path(), &origin(), limits(100)).unwrap();

    let second = ReadModel::open(folder.path(), &origin(), limits(100)).unwrap_err();
    drop(opened);

    assert!(matches!(second, OpenError::Locked { .. }), "{second:?}");
    assert!(ReadModel::open(folder.path(), &origin(), limits(100)).is_ok());
}

#[test]
fn one_that_was_not_closed_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = ReadModel::open(folder.path(), &origin(), limits(100)).unwrap().model;
    model.apply(&changes(0, 1, 5, &[(0, Word::Started(0))])).unwrap();
    drop(model);

    let mut opened = ReadModel::open(folder.path(), &origin(), limits(100)).unwrap();

    assert!(matches!(opened.rebuild, Some(Rebuild::NotClosed)), "{:?}", opened.rebuild);
    assert_eq!(opened.model.position(PartitionId(0)).unwrap().sequence, 0);
    assert_eq!(opened.model.get(run(0, 0).0).unwrap(), None);
}

#[test]
fn another_engine_and_a_journal_that_was_made_again_do_not_get_the_old_index() {
    let mut made_again = origin();
    made_again.streams[1].created = "2026-11-22T10:00:00Z".to_owned();
    let other_engine = Origin { engine: "fermata-other".to_owned(), ..origin() };
    for other in [made_again, other_engine] {
        let folder = tempfile::tempdir().unwrap();
        let mut model = ReadModel::open(folder.path(), &origin(), limits(100)).unwrap().model;
        model.apply(&changes(0, 1, 5, &[(0, Word::Started(0))])).unwrap();
        model.close().unwrap();

        let opened = ReadModel::open(folder.path(), &other, limits(100)).unwrap();

        assert!(matches!(opened.rebuild, Some(Rebuild::Store(_))), "{:?}", opened.rebuild);
        assert_eq!(opened.model.runs(), 0);
    }
}

#[test]
fn a_message_that_cannot_be_read_is_refused_and_no_bytes_make_it_panic() {
    let payload = frame(0, 5, &[(0, Word::Started(0)), (1, Word::Dispatched)]);
    for cut in 0..payload.len() {
        assert!(FrameChanges::read(PartitionId(0), 1, &payload[..cut]).is_err());
    }
    for place in 0..payload.len() {
        let mut flipped = payload.clone();
        flipped[place] ^= 0x55;
        // Some of the bytes are salts and texts: any are good there.
        let _ = FrameChanges::read(PartitionId(0), 1, &flipped);
    }
}
