//! Thousands of lives, each with its own mixture of faults.
//!
//! `SIM_SEEDS` and `SIM_FIRST_SEED` choose how many and which, `SIM_CUTS` how many of those whose
//! journal loses its end. A failure names its seed;
//! `cargo run --release -p fermata-sim --example simulate -- --seed N
//! --verbose` repeats it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use fermata_sim::{Scenario, Violation, run};

/// Seeds of one run of the suite.
const SEEDS_DEFAULT: u64 = 3_000;

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}=`{text}` is not a number")),
        Err(_) => default,
    }
}

/// Runs the seeds of `numbers` on every core, up to the first violation of each.
fn violations(seeds: std::ops::Range<u64>, scenario: &Scenario) -> Vec<Violation> {
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let mut found = Vec::new();
        while found.len() < 3 {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            found.extend(run(seed, scenario).err().map(|violation| *violation));
        }
        found
    };
    let threads = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        let threads = (0..threads).map(|_| scope.spawn(work)).collect::<Vec<_>>();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

fn report(found: &[Violation]) -> String {
    found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_invariant_holds_whatever_the_seed_brings() {
    let first = setting("SIM_FIRST_SEED", 1);
    let count = setting("SIM_SEEDS", SEEDS_DEFAULT);
    println!("seeds {first} to {}", first + count - 1);

    let found = violations(first..first + count, &Scenario::chaos());

    assert!(found.is_empty(), "{}", report(&found));
}

#[test]
fn a_partition_whose_journal_lost_its_end_halts_until_that_is_accepted_and_goes_on() {
    let found = violations(1..setting("SIM_CUTS", 300) + 1, &Scenario::cut());

    assert!(found.is_empty(), "{}", report(&found));
    let lives = (1..=50).filter_map(|seed| run(seed, &Scenario::cut()).ok());
    let accepted = lives.map(|trace| trace.losses_accepted).sum::<u64>();
    assert!(accepted > 30, "{accepted} losses in 50 lives");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 1..=60 {
        let first = run(seed, &Scenario::chaos()).map_err(|violation| violation.to_string());
        let again = run(seed, &Scenario::chaos()).map_err(|violation| violation.to_string());

        assert_eq!(first, again, "seed {seed}");
    }
}

#[test]
fn another_seed_gives_another_trace() {
    let hashes = (1..=50)
        .map(|seed| run(seed, &Scenario::chaos()).map_or(0, |trace| trace.hash))
        .collect::<std::collections::BTreeSet<_>>();

    assert_eq!(hashes.len(), 50);
}

#[test]
fn the_seeds_bring_takeovers_crashes_and_comparisons() {
    let traces = (1..=50).filter_map(|seed| run(seed, &Scenario::chaos()).ok());
    let (mut stored, mut begun, mut delivered, mut redelivered) = (0, 0, 0, 0);
    let mut taken_back = 0;
    let (mut hours_stored, mut hours_read) = (0, 0);
    let (mut epochs, mut crashes, mut compared, mut attempts, mut undecidable) = (0, 0, 0, 0, 0);
    for trace in traces {
        epochs += trace.epochs;
        crashes += trace.crashes;
        compared += trace.folds_compared;
        attempts += trace.attempts;
        undecidable += trace.undecidable;
        stored += trace.snapshots_stored;
        begun += trace.begun_from_snapshots;
        hours_stored += trace.hours_stored;
        hours_read += trace.hours_read;
        delivered += trace.tasks_delivered;
        redelivered += trace.tasks_redelivered;
        taken_back += trace.tasks_taken_back;
    }

    assert!(delivered > 150, "{delivered} tasks of queues");
    assert!(redelivered > 20, "{redelivered} tasks again");
    assert!(taken_back > 5, "{taken_back} tasks taken back");
    assert!(epochs > 150, "{epochs} takeovers");
    assert!(crashes > 50, "{crashes} crashes");
    assert!(compared > 1_000, "{compared} comparisons");
    assert!(attempts > 500, "{attempts} attempts");
    assert!(undecidable > 20, "{undecidable} commands, messages and runs set aside");
    assert!(stored > 200, "{stored} snapshots stored");
    assert!(begun > 100, "{begun} takeovers from a snapshot");
    assert!(hours_stored > 40, "{hours_stored} closed hours stored");
    assert!(hours_read > 40, "{hours_read} closed hours read");
}
