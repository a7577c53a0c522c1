//! The index of strategies against a scan of all of them.

use fermata_tests::matching::compare_decisions;

/// Cases of every run of the tests; a million more are among the fault tests.
const CASES: u64 = 100_000;

#[test]
fn the_index_decides_as_a_scan_of_every_strategy_does() {
    let tally = compare_decisions(CASES, 1);

    let percent = |part: u64, whole: u64| part * 100 / whole;
    let (matched, held) = (percent(tally.matched, tally.cases), percent(tally.held, tally.pairs));
    println!("{matched} % of the events match, {held} % of the patterns hold: {tally:?}");
    assert!((30..=95).contains(&matched), "{matched} % of the events match something");
    assert!((10..=70).contains(&held), "{held} % of the patterns hold");
    for operator in [
        "value",
        "prefix",
        "suffix",
        "equals-ignore-case",
        "wildcard",
        "numeric",
        "cidr",
        "exists",
        "anything-but",
    ] {
        let held = tally.operators.get(operator).copied().unwrap_or_default();
        assert!(held >= 500, "`{operator}` held {held} times");
    }
}
