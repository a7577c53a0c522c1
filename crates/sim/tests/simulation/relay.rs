//! Several partitions that send each other commands, under faults on all sides.
//!
//! `SIM_SEEDS` and `SIM_FIRST_SEED` choose how many lives and which.

use fermata_sim::{RelayScenario, RelayTrace, run_relays};

/// Lives of one run of the suite.
const SEEDS_DEFAULT: u64 = 300;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

#[test]
fn commands_between_partitions_are_decided_once_and_in_order() {
    let first = setting("SIM_FIRST_SEED", 1);
    let count = setting("SIM_SEEDS", SEEDS_DEFAULT);
    let mut sum = RelayTrace::default();
    for seed in first..first + count {
        let trace = run_relays(seed, &RelayScenario::chaos()).unwrap_or_else(|violation| {
            panic!("{violation}");
        });
        sum.queued += trace.queued;
        sum.epochs += trace.epochs;
        sum.poisoned += trace.poisoned;
        sum.resumed += trace.resumed;
        sum.timed_out += trace.timed_out;
        sum.kept += trace.kept;
        sum.refused += trace.refused;
        sum.folds_compared += trace.folds_compared;
        sum.snapshots += trace.snapshots;
        sum.begun_from_snapshots += trace.begun_from_snapshots;
    }
    println!("{sum:?}");

    // The lives must bring about what the laws are about.
    assert!(sum.queued > 50 * count, "{sum:?}");
    assert!(sum.epochs > 6 * count, "{sum:?}");
    assert!(sum.resumed > 2 * count, "{sum:?}");
    assert!(sum.timed_out > count, "{sum:?}");
    assert!(sum.kept > 2 * count, "{sum:?}");
    assert!(sum.folds_compared > 20 * count, "{sum:?}");
    assert!(sum.poisoned > count / 10, "{sum:?}");
    assert!(sum.snapshots > 10 * count, "{sum:?}");
    assert!(sum.begun_from_snapshots > 3 * count, "{sum:?}");
}

#[test]
fn the_same_seed_gives_the_same_trace_of_several_partitions() {
    for seed in 1..=10 {
        let first = run_relays(seed, &RelayScenario::chaos()).map_err(|v| v.to_string());
        let again = run_relays(seed, &RelayScenario::chaos()).map_err(|v| v.to_string());

        assert_eq!(first, again, "seed {seed}");
    }
}
