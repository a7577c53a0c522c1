//! What the fuzzer once found interesting, and what is not far from it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use fermata_fuzz::{TARGETS, Target};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;

/// Longest that any input may take, on a machine that has much else to do.
const LIMIT: Duration = Duration::from_secs(5);

/// Mutations tried of each corpus in every run of the tests.
const MUTATIONS: u32 = 10_000;

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("`{}`: {error}", folder.display()))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    assert!(files.len() >= 8, "`{}` holds {} files", folder.display(), files.len());
    files.iter().map(|file| std::fs::read(file).expect("a readable file")).collect()
}

fn timed(target: Target, bytes: &[u8]) {
    let begun = Instant::now();
    target(bytes);
    let taken = begun.elapsed();
    assert!(taken < LIMIT, "{taken:?} for {} bytes: {}", bytes.len(), bytes.escape_ascii());
}

#[test]
fn what_the_fuzzer_kept_breaks_no_law() {
    for (name, target) in TARGETS {
        for bytes in corpus(name) {
            timed(target, &bytes);
        }
    }
}

/// One change to the bytes of a file.
#[derive(Debug, Clone)]
enum Change {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Cut(Index, Index),
    Repeat(Index, Index, usize),
    Splice(Index, Index),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        any::<(Index, u8)>().prop_map(|(at, byte)| Change::Set(at, byte)),
        (any::<Index>(), vec(any::<u8>(), 1..8)).prop_map(|(at, new)| Change::Insert(at, new)),
        any::<(Index, Index)>().prop_map(|(from, to)| Change::Cut(from, to)),
        (any::<Index>(), any::<Index>(), 1..200_usize)
            .prop_map(|(from, to, times)| Change::Repeat(from, to, times)),
        any::<(Index, Index)>().prop_map(|(file, at)| Change::Splice(file, at)),
    ]
}

fn apply(change: &Change, bytes: &mut Vec<u8>, all: &[Vec<u8>]) {
    let place = |index: &Index| index.index(bytes.len() + 1);
    let ordered = |one: &Index, other: &Index| {
        let (one, other) = (place(one), place(other));
        one.min(other)..one.max(other)
    };
    match change {
        Change::Set(at, byte) => {
            let at = place(at);
            if let Some(place) = bytes.get_mut(at) {
                *place = *byte;
            }
        }
        Change::Insert(at, new) => {
            let at = place(at);
            bytes.splice(at..at, new.iter().copied());
        }
        Change::Cut(from, to) => drop(bytes.drain(ordered(from, to))),
        Change::Repeat(from, to, times) => {
            let range = ordered(from, to);
            let part = bytes[range.clone()].repeat((*times).min(20_000 / range.len().max(1)));
            bytes.splice(range.end..range.end, part);
        }
        Change::Splice(file, at) => {
            let (at, other) = (place(at), &all[file.index(all.len())]);
            bytes.truncate(at);
            bytes.extend_from_slice(other.get(at..).unwrap_or_default());
        }
    }
}

#[test]
fn what_is_not_far_from_it_breaks_no_law() {
    for (name, target) in TARGETS {
        let all = corpus(name);
        let mut runner = TestRunner::new(ProptestConfig {
            cases: MUTATIONS,
            failure_persistence: None,
            ..ProptestConfig::default()
        });
        let outcome = runner.run(&(any::<Index>(), vec(change(), 1..6)), |(file, changes)| {
            let mut bytes = all[file.index(all.len())].clone();
            for change in &changes {
                apply(change, &mut bytes, &all);
            }
            timed(target, &bytes);
            Ok(())
        });
        outcome.unwrap_or_else(|failure| panic!("{name}: {failure}"));
    }
}
