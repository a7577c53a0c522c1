use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

use super::tests::{Summary, compile, definition, run, summary, with_event};
use super::{Action, NEAR_MISSES_MAX, StrategyDefinition};
use crate::event::Event;

/// The rule for patterns, as plainly as it can be said.
fn pattern_matches(pattern: &[&str], kind: &[&str]) -> bool {
    match (pattern, kind) {
        ([], []) => true,
        ([">"], [_, ..]) => true,
        (["*", pattern @ ..], [_, kind @ ..]) => pattern_matches(pattern, kind),
        ([a, pattern @ ..], [b, kind @ ..]) => a == b && pattern_matches(pattern, kind),
        _ => false,
    }
}

/// The rules for deciding, by looking at every definition.
fn naive(definitions: &[StrategyDefinition], event: &Event<'_>, n: i64) -> Summary {
    let kind: Vec<&str> = event.kind.split('.').collect();
    let in_scope = |definition: &&StrategyDefinition| {
        let pattern: Vec<&str> = definition.on.split('.').collect();
        (definition.tenant == "*" || definition.tenant == event.tenant)
            && pattern_matches(&pattern, &kind)
    };
    let mut candidates: Vec<_> = definitions.iter().filter(in_scope).collect();
    let asks = |definition: &StrategyDefinition| {
        let tokens: Vec<&str> = definition.on.split('.').collect();
        let literals = tokens.iter().filter(|token| !["*", ">"].contains(token)).count();
        let exact = literals == tokens.len();
        (definition.tenant != "*", exact, literals, definition.when.is_some())
    };
    let precedence = |definition: &StrategyDefinition| {
        std::cmp::Reverse((definition.priority, asks(definition)))
    };
    candidates.sort_by_key(|definition| (precedence(definition), &definition.name));
    let names = |definitions: &[&StrategyDefinition]| -> Vec<String> {
        definitions.iter().map(|definition| definition.name.clone()).collect()
    };
    let holds = |definition: &&StrategyDefinition| {
        let bound =
            definition.when.as_deref().map(|when| when.trim_start_matches("event.data.n >= "));
        bound.is_none_or(|bound| n >= bound.parse().unwrap())
    };
    let (beside, others): (Vec<&StrategyDefinition>, Vec<_>) =
        candidates.iter().copied().filter(holds).partition(|definition| definition.fan_out);
    let highest = others.first().map(|definition| precedence(definition));
    // As many tickets as its weight for each.
    let tickets: Vec<&StrategyDefinition> = others
        .into_iter()
        .filter(|definition| Some(precedence(definition)) == highest)
        .flat_map(|definition| (0..definition.weight).map(move |_| definition))
        .collect();
    if tickets.is_empty() && beside.is_empty() {
        candidates.truncate(NEAR_MISSES_MAX);
        return Summary::Unmatched(names(&candidates));
    }
    let mut started = Vec::new();
    if !tickets.is_empty() {
        let ticket = event.idempotency() % u128::try_from(tickets.len()).unwrap();
        let winner = tickets[usize::try_from(ticket).unwrap()];
        if winner.action != Action::Ignore {
            started.push(winner);
        } else if beside.is_empty() {
            return Summary::Ignored(winner.name.clone());
        }
    }
    started.extend(beside);
    Summary::Start(names(&started))
}

fn any_definition() -> impl Strategy<Value = StrategyDefinition> {
    let on = (vec(select(vec!["a", "b", "*"]), 0..4), select(vec!["a", "b", "*", ">"])).prop_map(
        |(mut tokens, last)| {
            tokens.push(last);
            tokens.join(".")
        },
    );
    let tenant = select(vec!["*", "acme", "beta"]);
    let when = option::of((0..4_i64).prop_map(|n| format!("event.data.n >= {n}")));
    (on, tenant, when, -1..2_i64, 1..5_u32, any::<bool>(), any::<bool>()).prop_map(
        |(on, tenant, when, priority, weight, ignore, fan_out)| StrategyDefinition {
            tenant: tenant.to_owned(),
            when,
            priority,
            weight,
            fan_out: fan_out && !ignore,
            action: if ignore { Action::Ignore } else { run(None) },
            ..definition("", &on)
        },
    )
}

proptest! {
    #[test]
    fn the_index_decides_as_a_scan_of_everything_does(
        mut definitions in vec(any_definition(), 0..60),
        kind in vec(select(vec!["a", "b", "c"]), 1..5),
        n in 0..4_i64,
        id in 0..1_000_u32,
    ) {
        for (number, definition) in definitions.iter_mut().enumerate() {
            // Names that sort against the order of the bundle.
            definition.name = format!("s{:03}", 999 - number);
        }
        let set = compile(&definitions);
        let data = json!({ "n": n }).to_string();

        let outcome = with_event(&id.to_string(), &kind.join("."), &data, |event| {
            (summary(&set.decide(event)), naive(&definitions, event, n))
        });

        prop_assert_eq!(outcome.0, outcome.1);
    }
}
