//! A short life without other faults, and a crash at every point of it.

use fermata_sim::{Scenario, run};

/// The seed of the short life.
const SEED: u64 = 1;

fn outputs_without_a_crash() -> u64 {
    match run(SEED, &Scenario::short()) {
        Ok(trace) => trace.outputs,
        Err(violation) => panic!("{violation}"),
    }
}

fn life_with(crashes: &[u64]) {
    let scenario = Scenario { crashes: crashes.to_vec(), ..Scenario::short() };
    if let Err(violation) = run(SEED, &scenario) {
        panic!("crashes before outputs {crashes:?}: {violation}");
    }
}

#[test]
fn an_owner_may_crash_before_any_output() {
    let outputs = outputs_without_a_crash();
    assert!(outputs > 100, "{outputs} outputs");

    for output in 1..=outputs {
        life_with(&[output]);
    }
}

#[test]
fn the_next_owner_may_crash_as_well_wherever_it_stands() {
    let outputs = outputs_without_a_crash();

    for first in 1..=outputs {
        // Each first crash meets every fourth second one, the next first crash
        // those beside them.
        for second in (1 + first % 4..=32).step_by(4) {
            life_with(&[first, first + second]);
        }
    }
}
