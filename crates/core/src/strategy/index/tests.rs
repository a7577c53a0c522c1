use proptest::prelude::*;
use serde_json::{Value, json};

use super::pile::{FOUND_PER_UNIT, weight_of};
use crate::expression::Expression;
use crate::strategy::tests::{definition, run, with_event};
use crate::strategy::{SCORE_MAX, StrategyDefinition, StrategyProblemKind, StrategySet};

fn strategy(number: usize, pattern: Value, when: Option<&str>) -> StrategyDefinition {
    StrategyDefinition {
        pattern: Some(pattern),
        when: when.map(str::to_owned),
        action: run(Some(&[])),
        ..definition(&format!("s{number}"), "job.done")
    }
}

/// Score of so many strategies with these patterns and this condition; none where it is accepted.
fn refused(
    count: usize,
    when: Option<&str>,
    pattern: impl Fn(usize) -> Value,
) -> Option<(usize, u64)> {
    let all = (0..count).map(|number| strategy(number, pattern(number), when)).collect();
    let problems = StrategySet::compile(all).err()?;
    let StrategyProblemKind::TooCostly { count, score, .. } = &problems[0].kind else {
        panic!("{problems:?}")
    };
    Some((*count, *score))
}

#[test]
fn conditions_behind_a_value_that_every_event_has_are_refused_with_names_and_score() {
    let shared = |_| json!({ "type": ["job.done"] });
    assert_eq!(refused(64, Some("true"), shared), None);
    assert_eq!(refused(65, Some("true"), shared), Some((65, 65 * 64)));

    let all = (0..65).map(|number| strategy(number, shared(number), Some("true"))).collect();
    let text = StrategySet::compile(all).unwrap_err()[0].to_string();
    let names = "`s0`, `s1`, `s2`, `s3`, `s4` and 60 more";
    assert!(text.contains(names) && text.contains("4160") && text.contains("4096"), "{text}");
}

#[test]
fn what_one_value_finds_counts_whatever_finds_it() {
    type Patterns = fn(usize) -> Value;
    let cases: [(&str, Patterns, Patterns); 8] = [
        (
            "texts",
            |_| json!({ "data": { "a": ["x"] } }),
            |number| json!({ "data": { "a": [format!("x{number}")] } }),
        ),
        (
            "numbers",
            |_| json!({ "data": { "a": [7, 8] } }),
            |number| json!({ "data": { "a": [number] } }),
        ),
        (
            "texts in any case",
            |_| json!({ "data": { "a": [{ "equals-ignore-case": "X" }] } }),
            |number| json!({ "data": { "a": [{ "equals-ignore-case": format!("X{number}") }] } }),
        ),
        (
            "beginnings",
            |number| json!({ "data": { "a": [{ "prefix": "x".repeat(number + 1) }] } }),
            |number| json!({ "data": { "a": [{ "prefix": format!("{number:03}") }] } }),
        ),
        (
            "ends",
            |number| json!({ "data": { "a": [{ "suffix": "x".repeat(number + 1) }] } }),
            |number| json!({ "data": { "a": [{ "suffix": format!("{number:03}") }] } }),
        ),
        (
            "ranges",
            |number| json!({ "data": { "a": [{ "numeric": [">=", number, "<", 100] }] } }),
            |number| json!({ "data": { "a": [{ "numeric": [">=", number, "<", number + 1] }] } }),
        ),
        (
            "truth",
            |_| json!({ "data": { "a": [true] } }),
            |number| json!({ "data": { "a": [number] } }),
        ),
        (
            "several paths",
            |number| json!({ "data": { format!("f{}", number % 4): ["x"] } }),
            |number| json!({ "data": { format!("f{}", number % 4): [number] } }),
        ),
    ];
    for (what, shared, apart) in cases {
        let (count, score) = refused(66, Some("true"), shared).unwrap_or_default();
        assert!(count == 66 && score > 66 * 64 - 64, "{what}: {count} score {score}");
        assert_eq!(refused(1_000, Some("true"), apart), None, "{what}");
    }
}

#[test]
fn a_dear_condition_counts_for_more_and_the_dearest_is_accepted_alone() {
    let dear = "event.data.a.exists(x, event.data.b.exists(y, x == y || x == y + 1))";
    let price = Expression::compile(dear).unwrap().price();
    assert!(price > 100 * 64, "{price}");
    let shared = |_| json!({ "type": ["job.done"] });
    let fit = usize::try_from(SCORE_MAX / price.div_ceil(50)).unwrap();

    assert!(fit >= 1);
    assert_eq!(refused(fit, Some(dear), shared), None);
    assert!(refused(fit + 1, Some(dear), shared).is_some());
}

#[test]
fn ten_thousand_that_an_event_tells_apart_are_accepted_with_conditions() {
    let n = 10_000;
    let types = (0..n).map(|number| StrategyDefinition {
        when: Some("true".to_owned()),
        ..definition(&format!("s{number}"), &format!("job.{number}"))
    });
    assert!(StrategySet::compile(types.collect()).is_ok());
    let equality = |number| json!({ "data": { "job": [format!("job-{number}")] } });
    assert_eq!(refused(n, Some("true"), equality), None);
    let range = |number: usize| {
        let range = json!([">=", number * 10, "<", number * 10 + 10]);
        json!({ "data": { "duration_ms": [{ "numeric": range }] } })
    };
    assert_eq!(refused(n, Some("true"), range), None);
    // All of which one event can pass, the highest of which wins.
    let threshold = |number| json!({ "data": { "duration_ms": [{ "numeric": [">=", number] }] } });
    assert_eq!(refused(n, None, threshold), None);
    assert!(refused(n, Some("true"), threshold).is_some());
}

#[test]
fn a_strategy_that_is_found_at_many_paths_counts_once() {
    let branches: Vec<_> = (0..200).map(|n| json!({ format!("f{n}"): ["x", "x"] })).collect();

    assert_eq!(refused(1, Some("true"), |_| json!({ "data": { "$or": branches } })), None);
}

#[test]
fn what_was_accepted_before_is_compiled_whatever_it_costs() {
    let costly = |number| strategy(number, json!({ "type": ["job.done"] }), Some("true"));
    let set = StrategySet::compile_accepted((0..100).map(costly).collect()).unwrap();

    assert!(set.too_costly().is_some());
}

fn predicate() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!("x"),
        json!("xy"),
        json!("XY"),
        json!(1),
        json!(2.5),
        json!(null),
        json!(true),
        json!({ "equals-ignore-case": "xy" }),
        json!({ "prefix": "x" }),
        json!({ "prefix": "xy" }),
        json!({ "suffix": "y" }),
        json!({ "suffix": "xy" }),
        json!({ "wildcard": "x*y" }),
        json!({ "numeric": [">", 1] }),
        json!({ "numeric": [">=", 1, "<", 2.5] }),
        json!({ "numeric": ["<=", 1] }),
        json!({ "numeric": ["<", 1] }),
        json!({ "anything-but": 1 }),
    ])
}

fn pattern() -> impl Strategy<Value = Value> {
    let field = || prop::collection::vec(predicate(), 1..3);
    prop_oneof![
        field().prop_map(|a| json!({ "data": { "a": a } })),
        (field(), field()).prop_map(|(a, b)| json!({ "data": { "a": a, "b": b } })),
        (field(), field())
            .prop_map(|(a, b)| json!({ "data": { "$or": [{ "a": a }, { "b": b }] } })),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!("x"),
        json!("xy"),
        json!("XY"),
        json!("xxy"),
        json!(0),
        json!(1),
        json!(1.5),
        json!(2.5),
        json!(3),
        json!(null),
        json!(true),
        json!(false),
    ])
}

/// What is found for an event costs, and the score of the bucket that it meets.
fn cost_and_score(patterns: Vec<(Value, bool)>, data: &Value) -> Vec<(u64, u64)> {
    let all = patterns.into_iter().enumerate().map(|(number, (pattern, condition))| {
        strategy(number, pattern, condition.then_some("true"))
    });
    let set = StrategySet::compile_accepted(all.collect()).unwrap();
    with_event("7", "job.done", &data.to_string(), |event| {
        let met = set.index.met("acme", "job.done");
        let of_bucket = |bucket: &super::bucket::Bucket| {
            let mut found = Vec::new();
            bucket.collect(&bucket.select(event), &mut found);
            found.sort_unstable();
            found.dedup();
            let weights = found.iter().map(|rank| {
                let strategy = set.strategy(*rank).unwrap();
                let condition = strategy.when.as_ref().map(Expression::price);
                weight_of(strategy.pattern.as_ref(), condition, strategy.certainty)
            });
            (weights.sum::<u64>() / FOUND_PER_UNIT, bucket.score)
        };
        met.map(|(_, bucket)| of_bucket(bucket)).collect()
    })
}

/// Where a strategy is found by two of its values, the place where it is looks heavier than it is.
#[test]
fn a_strategy_that_one_value_finds_twice_counts_once() {
    let [at, below] = [json!({ "numeric": ["<=", 1] }), json!({ "numeric": ["<", 1] })];
    let short = json!({ "numeric": [">=", 1, "<", 2] });
    let [x, xy] = [json!({ "prefix": "x" }), json!({ "prefix": "xy" })];
    let of = |predicates: &[&Value]| (json!({ "data": { "a": predicates } }), true);
    let ranges = vec![of(&[&at, &below]), of(&[&below]), of(&[&short]), of(&[&short])];
    let beginnings = vec![of(&[&x, &xy]), of(&[&json!({ "prefix": "xyz" })])];
    let apart = json!({ "prefix": "z" });
    let beginnings = [beginnings, vec![of(&[&apart]); 3]].concat();

    for (patterns, value) in [(ranges, json!(1)), (beginnings, json!("z"))] {
        let found = cost_and_score(patterns, &json!({ "a": value }));
        assert!(found.iter().all(|(cost, score)| cost == score && *cost >= 192), "{found:?}");
    }
}

proptest! {
    /// Whatever an event says at its paths, what is found costs no more than the score.
    #[test]
    fn no_event_makes_more_be_tried_than_the_score_says(
        patterns in prop::collection::vec((pattern(), any::<bool>()), 1..30),
        a in value(),
        b in value(),
    ) {
        for (cost, score) in cost_and_score(patterns, &json!({ "a": a, "b": b })) {
            prop_assert!(cost <= score, "{cost} of {score}");
        }
    }
}
