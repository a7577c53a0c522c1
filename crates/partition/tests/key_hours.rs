//! Keys of closed hours, apart from the snapshots that name them.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use fermata_audit::Tree;
use fermata_core::command::{CancelCommand, Command, EventCommand, EventReference, Verdict};
use fermata_core::identity::{JournalTime, PartitionId, RunId, SourcePosition, StreamPosition};
use fermata_core::partition::{Decision, Limits};
use fermata_partition::auditor::AuditMark;
use fermata_partition::fold::JournalFold;
use fermata_partition::key_hours::HourName;
use fermata_partition::snapshot::{Snapshot, SnapshotError, SnapshotFile, WrittenSnapshot};
use fermata_wire::sealed_file::FileError;
use proptest::prelude::*;
use uuid::Uuid;

const PARTITION: PartitionId = PartitionId(3);
const HOUR_MS: u64 = 3_600_000;
/// A full hour.
const START_MS: u64 = 500_000 * HOUR_MS;
/// Short, so that hours expire.
const WINDOW_MS: u64 = 3 * HOUR_MS;

type Files = BTreeMap<HourName, Vec<u8>>;

fn limits() -> Limits {
    Limits { key_window_ms: WINDOW_MS, ..Limits::default() }
}

/// An event that starts nothing but is remembered by its key.
fn event(key: u64) -> Command {
    let event = EventReference {
        tenant: "acme".parse().unwrap(),
        id: format!("e-{key}").into(),
        source: "test".into(),
        kind: "test".into(),
        traceparent: None,
        hops: 0,
        breach: None,
        replayed: None,
    };
    Command::Event(EventCommand {
        event,
        key: u128::from(key) << 64 | 7,
        source: SourcePosition { sequence: key, index: 1 },
        replay: None,
        verdict: Verdict::Start { runs: Vec::new() },
        correlation: None,
    })
}

fn cancel(id: u64) -> Command {
    Command::Cancel(CancelCommand {
        id: Uuid::from_u128(u128::from(id) << 32 | 5),
        run: Uuid::from_u128(9).to_string().parse::<RunId>().unwrap(),
        by: "someone".to_owned(),
        reason: String::new(),
        reply_to: None,
    })
}

fn fold_at(ms: u64) -> JournalFold {
    let mut fold = JournalFold::new(PARTITION, limits());
    fold.partition_mut().begin_frame(JournalTime(ms));
    fold
}

fn decide(fold: &mut JournalFold, command: &Command) {
    fold.partition_mut().decide(command, &mut Decision::default());
}

fn mark() -> AuditMark {
    let note = "a note".to_owned();
    AuditMark { tree: Tree::new(), last_leaf: None, journal_sequence: 0, note }
}

fn write(fold: &JournalFold, stored: &Files) -> WrittenSnapshot {
    let stored = stored.keys().cloned().collect::<Vec<_>>();
    fold.freeze().encode(&mark(), &stored).unwrap()
}

fn store(written: WrittenSnapshot, files: &mut Files) -> Vec<u8> {
    files.extend(written.new_hours.into_iter().map(|file| (file.name, file.bytes)));
    written.bytes
}

fn read(bytes: &[u8], files: &Files) -> Result<Snapshot, SnapshotError> {
    SnapshotFile::decode(PARTITION, bytes)?.with_hours(files)
}

/// Two hours that are over, and one that is not.
fn three_hours() -> JournalFold {
    let mut fold = fold_at(START_MS);
    decide(&mut fold, &event(1));
    decide(&mut fold, &event(2));
    decide(&mut fold, &cancel(1));
    fold.partition_mut().begin_frame(JournalTime(START_MS + HOUR_MS));
    decide(&mut fold, &cancel(2));
    fold.partition_mut().begin_frame(JournalTime(START_MS + 2 * HOUR_MS));
    decide(&mut fold, &event(3));
    fold
}

#[test]
fn a_closed_hour_is_written_once_and_only_named_after_that() {
    let mut fold = three_hours();
    let mut files = Files::new();
    let first = write(&fold, &files);
    let counts: Vec<_> = first.hours.iter().map(|name| (name.keys, name.commands)).collect();
    assert_eq!((first.new_hours.len(), counts), (2, vec![(2, 1), (0, 1)]));
    store(first, &mut files);

    decide(&mut fold, &event(4));
    let second = write(&fold, &files);
    assert_eq!((second.hours.len(), second.new_hours.len()), (2, 0), "no hour was closed since");
    fold.partition_mut().begin_frame(JournalTime(START_MS + 3 * HOUR_MS));
    let third = write(&fold, &files);

    let new: Vec<_> = third.new_hours.iter().map(|file| (file.name.hour, file.name.keys)).collect();
    assert_eq!(new, [(500_002, 2)]);
}

#[test]
fn what_an_hour_holds_is_in_its_file_alone() {
    let mut fold = fold_at(START_MS);
    for key in 1..=10_000 {
        decide(&mut fold, &event(key));
    }
    // What follows is above the floor of no event.
    fold.partition_mut().advance(StreamPosition::default(), 10_000);
    let open = write(&fold, &Files::new());
    fold.partition_mut().begin_frame(JournalTime(START_MS + HOUR_MS));
    let closed = write(&fold, &Files::new());

    assert!(open.new_hours.is_empty() && open.bytes.len() > 280_000, "{}", open.bytes.len());
    assert!(closed.bytes.len() < 1_000, "{} bytes", closed.bytes.len());
    assert!(closed.new_hours[0].bytes.len() > 280_000);
}

#[test]
fn a_snapshot_without_one_of_its_hours_is_none() {
    let fold = three_hours();
    let mut files = Files::new();
    let bytes = store(write(&fold, &files), &mut files);
    assert!(read(&bytes, &files).is_ok());
    let name = files.keys().next().unwrap().clone();

    let mut missing = files.clone();
    missing.remove(&name);
    assert!(matches!(read(&bytes, &missing), Err(SnapshotError::HourMissing { hour: 500_000 })));
    let mut damaged = files.clone();
    let file = damaged.get_mut(&name).unwrap();
    let at = file.len() / 2;
    file[at] ^= 1;
    let refused = read(&bytes, &damaged);
    let is_damaged = matches!(
        refused,
        Err(SnapshotError::Hour { hour: 500_000, source: FileError::Damaged { .. } })
    );
    assert!(is_damaged, "{refused:?}");

    // Sound, and not the one that is named.
    let mut other = fold_at(START_MS);
    decide(&mut other, &event(9));
    other.partition_mut().begin_frame(JournalTime(START_MS + HOUR_MS));
    let mut swapped = files.clone();
    swapped.insert(name, write(&other, &Files::new()).new_hours.remove(0).bytes);
    assert!(matches!(read(&bytes, &swapped), Err(SnapshotError::Hour { hour: 500_000, .. })));
}

#[test]
fn an_object_tells_its_hour() {
    let name = write(&three_hours(), &Files::new()).hours.remove(0);

    assert_eq!(HourName::hour_of(&name.object()), Some(500_000));
    assert!(name.object().starts_with("0000500000-"), "in the order of hours");
    assert_eq!(HourName::hour_of("00000000000000000042"), None);
}

/// The bytes of version 1 are read and written for ever; `UPDATE=1` writes the
/// file where there is none.
#[test]
fn version_1_of_an_hour_and_a_snapshot_that_names_it_are_written_as_they_always_were() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/key-hour-v1.hex");
    let hex = |bytes: &[u8]| {
        let line = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        bytes.chunks(32).map(|chunk| line(chunk) + "\n").collect::<String>()
    };
    let written = write(&three_hours(), &Files::new());
    let written = format!("{}\n{}", hex(&written.new_hours[0].bytes), hex(&written.bytes));
    if !path.exists() && std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &written).unwrap();
    }

    assert_eq!(written, std::fs::read_to_string(&path).unwrap());
}

#[derive(Debug, Clone)]
enum Act {
    Event(u64),
    Cancel(u64),
    Pass(u64),
    /// Writes a snapshot, and stores all of it or its hours alone.
    Write(bool),
    /// Another owner begins from the last snapshot and folds what came since.
    Restore,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (1..400_u64).prop_map(Act::Event),
        2 => (1..400_u64).prop_map(Act::Cancel),
        3 => (0..2 * HOUR_MS).prop_map(Act::Pass),
        2 => any::<bool>().prop_map(Act::Write),
        1 => Just(Act::Restore),
    ]
}

/// What the journal says, at its time.
fn fold_on(fold: &mut JournalFold, act: &Act, now: u64) {
    fold.partition_mut().begin_frame(JournalTime(now));
    match act {
        Act::Event(key) => decide(fold, &event(*key)),
        Act::Cancel(id) => decide(fold, &cancel(*id)),
        Act::Pass(_) | Act::Write(_) | Act::Restore => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// With hours written once, and those removed that the older of two snapshots
    /// is beyond.
    #[test]
    fn a_snapshot_with_its_hours_is_the_fold(acts in prop::collection::vec(act(), 1..120)) {
        let mut fold = fold_at(START_MS);
        let (mut files, mut now) = (Files::new(), START_MS);
        let mut kept: Vec<(Vec<u8>, JournalFold)> = Vec::new();
        let mut tail = Vec::new();
        for act in acts {
            match act {
                Act::Event(_) | Act::Cancel(_) | Act::Pass(_) => {
                    now += if let Act::Pass(ms) = act { ms } else { 0 };
                    fold_on(&mut fold, &act, now);
                    tail.push((act, now));
                }
                Act::Write(whole) => {
                    let bytes = store(write(&fold, &files), &mut files);
                    if whole {
                        kept.push((bytes, fold.clone()));
                        kept.drain(..kept.len().saturating_sub(2));
                        let first = read(&kept[0].0, &files).unwrap().first_hour();
                        prop_assert_eq!(first, kept[0].1.freeze().first_hour());
                        files.retain(|name, _| name.hour >= first);
                        tail.clear();
                    }
                }
                Act::Restore => if let Some((bytes, then)) = kept.last() {
                    let snapshot = read(bytes, &files).unwrap();
                    let before = fold;
                    fold = snapshot.restore(limits(), HashMap::new()).unwrap();
                    prop_assert!(fold.partition().is_like(then.partition()));
                    for (act, at) in &tail {
                        fold_on(&mut fold, act, *at);
                    }
                    prop_assert!(fold.partition().is_like(before.partition()));
                }
            }
            for (bytes, then) in &kept {
                let restored = read(bytes, &files).unwrap();
                let restored = restored.restore(limits(), HashMap::new()).unwrap();
                prop_assert_eq!(restored.partition().summary(), then.partition().summary());
            }
        }
    }

    /// A paused owner removes by what it knew, and stores what it had: neither
    /// touches what a later owner names.
    #[test]
    fn what_is_removed_by_an_earlier_snapshot_is_named_by_no_later_one(
        acts in prop::collection::vec(act(), 1..80),
        at in any::<prop::sample::Index>(),
    ) {
        let at = at.index(acts.len());
        let (mut fold, mut now, mut first) = (fold_at(START_MS), START_MS, 0);
        let mut earlier = BTreeSet::new();
        for (place, act) in acts.iter().enumerate() {
            now += if let Act::Pass(ms) = act { *ms } else { 0 };
            fold_on(&mut fold, act, now);
            if place == at {
                first = fold.freeze().first_hour();
                earlier = write(&fold, &Files::new()).hours.into_iter().collect();
            }
            if place > at {
                let named = write(&fold, &Files::new()).hours;
                prop_assert!(named.iter().all(|name| name.hour >= first));
                let again = |name: &&HourName| earlier.iter().any(|known| known.hour == name.hour);
                prop_assert!(named.iter().filter(again).all(|name| earlier.contains(name)));
            }
        }
    }
}
