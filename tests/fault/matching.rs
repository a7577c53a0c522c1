//! The index of strategies against a scan of all of them, at length.

use fermata_tests::matching::compare_decisions;

const CASES: u64 = 1_000_000;

#[test]
fn a_million_decisions_are_those_of_a_scan_of_every_strategy() {
    let seed = std::env::var("FAULT_SEED")
        .ok()
        .map_or_else(rand::random, |seed| seed.parse().expect("`FAULT_SEED` is a whole number"));
    println!("fault: matching: FAULT_SEED={seed}");

    let tally = compare_decisions(CASES, seed);

    println!("fault: matching: {} of {} events matched", tally.matched, tally.cases);
    assert!(tally.matched > CASES / 4);
}
