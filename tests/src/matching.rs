//! The law of matching: the index decides as a scan of every strategy does.
//!
//! Strategies and events are random, and the patterns are made from the events,
//! so that they hold often. What is expected comes from `scan`, which was
//! written from the description of the syntax and shares nothing with the engine.

mod document;
mod generate;
mod scan;

use std::collections::BTreeMap;

use fermata_core::event::{Event, EventLimits, Subject, decode_message};
use fermata_core::strategy::{Decision, Explained, Standing, StrategyDefinition, StrategySet};
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

/// One decision in so many is explained too, which takes longer.
const EXPLAINED_EACH: u64 = 10;

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
            // By this an event is ignored without a look into it.
            if let Some(ignoring) = set.ignored_by_type("acme", &event.kind) {
                assert_eq!(found, Outcome::Ignored(ignoring.name().to_owned()), "seed {seed}");
            }
            if tally.cases.is_multiple_of(EXPLAINED_EACH) {
                assert_eq!(explain(&set, event), takers(&found), "seed {seed}, {}", event.text);
            }
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

fn decoded(event: &generate::TestEvent) -> Event<'_> {
    let subject = Subject { tenant: "acme", kind: &event.kind };
    let limits = EventLimits::default();
    let mut decoded = decode_message(None, event.text.as_bytes(), subject, &limits);
    decoded.remove(0).unwrap_or_else(|rejected| panic!("{rejected:?}"))
}

/// Who takes an event, in alphabetical order.
fn takers(outcome: &Outcome) -> Vec<String> {
    let mut names = match outcome {
        Outcome::Start(names) => names.clone(),
        Outcome::Ignored(name) | Outcome::Failed(name) => vec![name.clone()],
        Outcome::Unmatched(_) => Vec::new(),
    };
    names.sort_unstable();
    names
}

/// Who takes the event by what is explained.
fn explain(set: &StrategySet, event: &generate::TestEvent) -> Vec<String> {
    let decoded = decoded(event);
    let explanation = set.explain(&decoded);
    let fans = |one: &&Explained<'_>| one.standing == Standing::RunsBeside;
    let beside = explanation.candidates.iter().filter(fans).count();
    let takes = |one: &&Explained<'_>| match one.standing {
        // An event that starts something else is not ignored.
        Standing::Wins => one.strategy.workflow().is_some() || beside == 0,
        Standing::RunsBeside => true,
        Standing::LosesDraw | Standing::Outranked | Standing::DoesNotMatch => false,
    };
    let takers = explanation.candidates.iter().filter(takes);
    let mut names: Vec<_> = takers.map(|one| one.strategy.name().to_owned()).collect();
    names.sort_unstable();
    names
}

fn decide(set: &StrategySet, event: &generate::TestEvent) -> Outcome {
    let decoded = decoded(event);
    let name = |strategy: &fermata_core::strategy::Strategy| strategy.name().to_owned();
    match set.decide(&decoded) {
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
