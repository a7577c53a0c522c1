//! The law of matching: the index decides as a scan of every strategy does.
//!
//! Strategies and events are random, and the patterns are made from the events,
//! so that they hold often. What is expected comes from [`scan`], which was
//! written from the description of the syntax and shares nothing with the engine.

mod document;
mod generate;
mod scan;

use std::collections::BTreeMap;

use fermata_core::event::{EventLimits, Subject, decode_message};
use fermata_core::strategy::{Decision, StrategyDefinition, StrategySet};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use generate::Scene;

/// Events that meet one set.
const EVENTS_PER_SET: usize = 10;

/// How often what happened, to show that the cases are not idle.
#[derive(Debug, Default)]
pub struct Tally {
    /// Decisions compared.
    pub cases: u64,
    /// Decisions by which something starts or is ignored.
    pub matched: u64,
    /// Pairs of an event and a strategy with a pattern for its tenant and type.
    pub pairs: u64,
    /// Of those the pairs that match.
    pub held: u64,
    /// How often each operator held for a value.
    pub operators: BTreeMap<String, u64>,
}

/// What a decision comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// These start, the winner first.
    Start(Vec<String>),
    /// This one ignores the event.
    Ignored(String),
    /// Nothing matches; these are near, and whether their condition failed.
    Unmatched(Vec<(String, bool)>),
    /// The variables of this one failed.
    Failed(String),
}

/// Compares `cases` decisions, the choices following from `seed`.
///
/// # Panics
///
/// When a decision differs; the message has a set and an event that show it,
/// with every strategy taken out that makes no difference.
#[must_use]
pub fn compare_decisions(cases: u64, seed: u64) -> Tally {
    let mut dice = StdRng::seed_from_u64(seed);
    let mut tally = Tally::default();
    while tally.cases < cases {
        let scene = Scene::draw(&mut dice, EVENTS_PER_SET);
        let set = compile(&scene.strategies);
        for event in &scene.events {
            let found = decide(&set, event);
            let expected = scan::decide(&scene.strategies, event, &mut tally);
            assert!(found == expected, "{}", complaint(seed, &scene.strategies, event));
            tally.cases += 1;
            tally.matched += u64::from(!matches!(found, Outcome::Unmatched(_)));
        }
    }
    tally
}

fn compile(strategies: &[StrategyDefinition]) -> StrategySet {
    StrategySet::compile(strategies.to_vec())
        .unwrap_or_else(|problems| panic!("the generated strategies do not compile: {problems:?}"))
}

fn decide(set: &StrategySet, event: &generate::TestEvent) -> Outcome {
    let subject = Subject { tenant: "acme", kind: &event.kind };
    let decoded = decode_message(None, event.text.as_bytes(), subject, &EventLimits::default());
    let decoded = decoded[0].as_ref().unwrap_or_else(|rejected| panic!("{rejected:?}"));
    let name = |strategy: &fermata_core::strategy::Strategy| strategy.name().to_owned();
    match set.decide(decoded) {
        Decision::Start { chosen, .. } => {
            Outcome::Start(chosen.iter().map(|chosen| name(chosen.strategy)).collect())
        }
        Decision::Ignored { strategy, .. } => Outcome::Ignored(name(strategy)),
        Decision::Failed { strategy, .. } => Outcome::Failed(name(strategy)),
        Decision::Unmatched { near } => {
            let near = near.iter().map(|miss| (name(miss.strategy), miss.error.is_some()));
            Outcome::Unmatched(near.collect())
        }
    }
}

/// A smallest set by which the decision about `event` differs, and how.
fn complaint(seed: u64, strategies: &[StrategyDefinition], event: &generate::TestEvent) -> String {
    let differ = |strategies: &[StrategyDefinition]| {
        let expected = scan::decide(strategies, event, &mut Tally::default());
        let found = decide(&compile(strategies), event);
        (found != expected).then_some((found, expected))
    };
    let mut strategies = strategies.to_vec();
    while let Some(needless) = (0..strategies.len()).find(|place| {
        let mut fewer = strategies.clone();
        fewer.remove(*place);
        differ(&fewer).is_some()
    }) {
        strategies.remove(needless);
    }
    let shown: Vec<_> =
        strategies.iter().map(|one| serde_json::to_string(one).unwrap_or_default()).collect();
    let (found, expected) = match differ(&strategies) {
        Some((found, expected)) => (format!("{found:?}"), format!("{expected:?}")),
        None => ("the same".to_owned(), "different".to_owned()),
    };
    format!(
        "seed {seed}\nstrategies:\n{}\nevent: {}\nthe index decides {found}, a scan {expected}",
        shown.join("\n"),
        event.text
    )
}
