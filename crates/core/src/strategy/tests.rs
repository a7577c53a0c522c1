use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::event::{Event, EventLimits, Subject, decode_message};

/// An event of the tenant `acme`.
pub(super) fn with_event<T>(
    id: &str,
    kind: &str,
    data: &str,
    check: impl FnOnce(&Event<'_>) -> T,
) -> T {
    let kind_text = json!(kind);
    let text = format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"/s","type":{kind_text},"data":{data}}}"#
    );
    let subject = Subject { tenant: "acme", kind };
    let outcomes = decode_message(None, text.as_bytes(), subject, &EventLimits::default());
    check(outcomes[0].as_ref().unwrap())
}

pub(super) fn definition(name: &str, on: &str) -> StrategyDefinition {
    StrategyDefinition {
        name: name.to_owned(),
        version: 1,
        tenant: TENANT_ANY.to_owned(),
        on: on.to_owned(),
        pattern: None,
        when: None,
        priority: 0,
        weight: 1,
        fan_out: false,
        action: run(None),
    }
}

pub(super) fn run(variables: Option<&[(&str, &str)]>) -> Action {
    let owned = |(name, source): &(&str, &str)| ((*name).to_owned(), (*source).to_owned());
    Action::Run {
        workflow: WorkflowRef { name: "report".to_owned(), version: "1.0".to_owned() },
        variables: variables.map(|variables| variables.iter().map(owned).collect()),
    }
}

pub(super) fn compile(definitions: &[StrategyDefinition]) -> StrategySet {
    StrategySet::compile(definitions.to_vec()).unwrap()
}

/// What a decision comes to, in names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Summary {
    Ignored(String),
    Start(Vec<String>),
    Unmatched(Vec<String>),
    Failed(String),
}

pub(super) fn summary(decision: &Decision<'_>) -> Summary {
    match decision {
        Decision::Ignored { strategy, .. } => Summary::Ignored(strategy.name().to_owned()),
        Decision::Start { chosen, .. } => {
            Summary::Start(chosen.iter().map(|chosen| chosen.strategy.name().to_owned()).collect())
        }
        Decision::Unmatched { near } => {
            Summary::Unmatched(near.iter().map(|miss| miss.strategy.name().to_owned()).collect())
        }
        Decision::Failed { strategy, .. } => Summary::Failed(strategy.name().to_owned()),
    }
}

fn decide(definitions: &[StrategyDefinition], data: &str) -> Summary {
    let set = compile(definitions);
    with_event("1", "job.done", data, |event| summary(&set.decide(event)))
}

fn start(names: &[&str]) -> Summary {
    Summary::Start(names.iter().map(|name| (*name).to_owned()).collect())
}

#[test]
fn the_highest_priority_whose_condition_holds_wins() {
    let top = StrategyDefinition {
        priority: 9,
        when: Some("event.data.n >= 5".to_owned()),
        ..definition("top", "job.done")
    };
    let low = definition("low", "job.*");

    assert_eq!(decide(&[low.clone(), top.clone()], r#"{"n":5}"#), start(&["top"]));
    assert_eq!(decide(&[low, top], r#"{"n":4}"#), start(&["low"]));
}

#[test]
fn a_condition_that_fails_counts_as_false_and_is_named() {
    let broken = StrategyDefinition {
        priority: 9,
        when: Some("event.data.missing == 'x'".to_owned()),
        ..definition("broken", "job.done")
    };
    let low = definition("low", "job.done");
    let alone = compile(std::slice::from_ref(&broken));
    let both = compile(&[broken, low]);

    with_event("1", "job.done", "{}", |event| {
        let Decision::Unmatched { near } = alone.decide(event) else { panic!() };
        assert_eq!(near[0].strategy.name(), "broken");
        assert!(near[0].error.as_ref().unwrap().contains("missing"));
        let Decision::Start { chosen, failed_conditions, .. } = both.decide(event) else {
            panic!()
        };
        assert_eq!(chosen[0].strategy.name(), "low");
        assert_eq!(failed_conditions[0].strategy.name(), "broken");
    });
}

#[test]
fn an_ignored_event_starts_nothing_and_its_data_are_not_looked_at() {
    let ignore = StrategyDefinition { action: Action::Ignore, ..definition("ignore", "job.>") };

    assert_eq!(
        decide(std::slice::from_ref(&ignore), "1e999"),
        Summary::Ignored("ignore".to_owned())
    );
}

#[test]
fn what_fans_out_runs_beside_the_winner_at_any_priority() {
    let beside = |name: &str, priority| StrategyDefinition {
        fan_out: true,
        priority,
        ..definition(name, "job.>")
    };
    let winner = StrategyDefinition { priority: 5, ..definition("winner", "job.done") };
    let loser = definition("loser", "job.done");
    let ignore = StrategyDefinition { action: Action::Ignore, ..winner.clone() };
    let (high, low) = (beside("high", 9), beside("low", -9));

    let all = [low.clone(), winner, loser, high.clone()];
    assert_eq!(decide(&all, "{}"), start(&["winner", "high", "low"]));
    assert_eq!(decide(&[low.clone(), ignore, high.clone()], "{}"), start(&["high", "low"]));
    assert_eq!(decide(&[low, high], "{}"), start(&["high", "low"]));
}

#[test]
fn variables_are_evaluated_or_else_the_events_data() {
    let variables = |action: Action, data: &str| {
        let set = compile(&[StrategyDefinition { action, ..definition("s", "job.done") }]);
        with_event("1", "job.done", data, |event| match set.decide(event) {
            Decision::Start { chosen, .. } => Ok(chosen[0].variables.as_str().to_owned()),
            Decision::Failed { detail, .. } => Err(detail),
            decision @ (Decision::Ignored { .. } | Decision::Unmatched { .. }) => {
                panic!("{decision:?}")
            }
        })
    };

    let job = run(Some(&[("job_id", "event.data.job"), ("tenant", "event.tenant")]));
    assert_eq!(variables(job.clone(), r#"{"job":7}"#).unwrap(), r#"{"job_id":7,"tenant":"acme"}"#);
    assert!(variables(job.clone(), "{}").unwrap_err().contains("job_id"));
    assert!(variables(job, "1e999").unwrap_err().contains("data"));
    assert_eq!(variables(run(Some(&[])), r#"{"a": 1}"#).unwrap(), "{}");
    assert_eq!(variables(run(None), r#"{"a": 1}"#).unwrap(), r#"{"a":1}"#);
    assert_eq!(variables(run(None), "null").unwrap(), "{}");
    assert_eq!(variables(run(None), "[1]").unwrap(), r#"{"data":[1]}"#);
    assert!(variables(run(None), r#""\ud800""#).is_err());
}

#[test]
fn equals_are_split_by_weight_and_the_same_event_is_always_dealt_alike() {
    const KEYS: u32 = 100_000;
    let weights = [("a", 70), ("b", 20), ("c", 10)];
    let weighted = |(name, weight): &(&str, u32)| StrategyDefinition {
        weight: *weight,
        ..definition(name, "job.done")
    };
    let mut definitions: Vec<_> = weights.iter().map(weighted).collect();
    let set = compile(&definitions);
    definitions.reverse();
    let reversed = compile(&definitions);

    let mut counts = BTreeMap::<String, u32>::new();
    for key in 0..KEYS {
        with_event(&key.to_string(), "job.done", "{}", |event| {
            let Summary::Start(names) = summary(&set.decide(event)) else { panic!() };
            assert_eq!(summary(&reversed.decide(event)), Summary::Start(names.clone()));
            *counts.entry(names[0].clone()).or_default() += 1;
        });
    }

    // Pearson's statistic; 13.8 is its 99.9th percentile at 2 degrees of freedom.
    let statistic: f64 = weights
        .iter()
        .map(|(name, weight)| {
            let expected = f64::from(KEYS) * f64::from(*weight) / 100.0;
            (f64::from(counts[*name]) - expected).powi(2) / expected
        })
        .sum();
    assert!(statistic < 13.8, "{counts:?}: {statistic}");
}

#[test]
fn every_problem_of_a_bundle_is_reported_at_once() {
    use StrategyProblemKind as Kind;
    let broken = StrategyDefinition {
        name: "no name".to_owned(),
        version: 0,
        tenant: "a.b".to_owned(),
        on: "job.>.x".to_owned(),
        when: Some("tasks.a".to_owned()),
        weight: 0,
        action: run(Some(&[("not-a-name", "event.id"), ("bad", "")])),
        ..definition("", "")
    };
    let pointless =
        StrategyDefinition { fan_out: true, action: Action::Ignore, ..definition("again", "a") };

    let problems =
        StrategySet::compile(vec![definition("again", "a"), broken, pointless]).unwrap_err();

    let fields: Vec<_> =
        problems.iter().map(|problem| (problem.index, problem.field.as_str())).collect();
    let expected = [
        (1, "name"),
        (1, "version"),
        (1, "tenant"),
        (1, "on"),
        (1, "weight"),
        (1, "when"),
        (1, "variables.bad"),
        (1, "variables.not-a-name"),
        (2, "name"),
        (2, "fan_out"),
    ];
    assert_eq!(fields, expected);
    assert!(matches!(&problems[5].kind, Kind::UnknownReference(root) if root == "tasks"));
    assert!(problems.iter().all(|problem| !problem.to_string().is_empty()));
}

#[test]
fn limits_on_counts_are_kept() {
    let variables: Vec<(String, String)> =
        (0..=VARIABLES_MAX).map(|n| (format!("v{n}"), "event.id".to_owned())).collect();
    let borrowed: Vec<_> = variables.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let wordy = StrategyDefinition { action: run(Some(&borrowed)), ..definition("s", "a") };
    assert_eq!(StrategySet::compile(vec![wordy]).unwrap_err()[0].field, "variables");
    let heavy = StrategyDefinition { weight: WEIGHT_MAX + 1, ..definition("s", "a") };
    assert_eq!(StrategySet::compile(vec![heavy]).unwrap_err()[0].field, "weight");
    let crowd = vec![definition("s", "a"); STRATEGIES_MAX + 1];
    assert_eq!(StrategySet::compile(crowd).unwrap_err().len(), 1);
}

#[test]
fn a_name_is_unique_for_every_tenant_that_can_meet_it() {
    let of =
        |tenant: &str| StrategyDefinition { tenant: tenant.to_owned(), ..definition("s", "a") };
    for (tenants, refused) in [
        (["acme", "beta"], false),
        (["acme", "acme"], true),
        (["acme", "*"], true),
        (["*", "acme"], true),
        (["*", "*"], true),
    ] {
        let result = StrategySet::compile(tenants.map(of).to_vec());
        assert_eq!(result.is_err(), refused, "{tenants:?}");
    }
}

#[test]
fn a_pattern_follows_its_grammar() {
    let long = vec!["a"; PATTERN_TOKENS_MAX + 1].join(".");
    for refused in
        ["", ".", "a.", ".a", "a..b", "a.b*", "a.>.b", ">.", "a b", &long, &"x".repeat(257)]
    {
        assert!(StrategySet::compile(vec![definition("s", refused)]).is_err(), "{refused}");
    }
    for accepted in ["a", "a.b", "*", ">", "*.b", "a.*.>"] {
        assert!(StrategySet::compile(vec![definition("s", accepted)]).is_ok(), "{accepted}");
    }
}

#[test]
fn a_set_is_shared_between_threads() {
    fn is_shared<T: Send + Sync + 'static>(_: &T) {}
    is_shared(&compile(&[definition("s", "a")]));
}

#[test]
fn a_definition_reads_back_from_its_json_and_unknown_keys_are_refused() {
    let definition = definition("s", "a");
    let mut text = serde_json::to_value(&definition).unwrap();
    assert_eq!(serde_json::from_value::<StrategyDefinition>(text.clone()).unwrap(), definition);
    text["colour"] = json!("red");
    assert!(serde_json::from_value::<StrategyDefinition>(text).is_err());
}
