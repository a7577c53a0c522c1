//! Why an event is decided as it is.

use super::compile::{Strategy, StrategySet};
use super::decide::{Decision, Facts, draw};
use super::event_pattern::{Field, Group, Wanted};
use super::index::Bucket;
use crate::event::Event;
use crate::event::selection::Selected;

/// Most strategies that an explanation names besides those that match.
pub const EXPLAINED_MAX: usize = 64;

/// Most values of a list that are shown, and most characters of each.
const VALUES_SHOWN_MAX: usize = 3;
const CHARACTERS_SHOWN_MAX: usize = 60;

/// What every strategy says about one event.
#[derive(Debug, Clone)]
pub struct Explanation<'s> {
    /// What is decided.
    pub decision: Decision<'s>,
    /// The strategy that wins, also when it ignores the event or its variables fail.
    pub winner: Option<&'s Strategy>,
    /// Strategies whose tenant and type match, in the order in which they are
    /// considered: all that match, and of the others [`EXPLAINED_MAX`].
    pub candidates: Vec<Explained<'s>>,
    /// How many more do not match.
    pub omitted: usize,
}

/// What one strategy says about an event.
#[derive(Debug, Clone)]
pub struct Explained<'s> {
    /// The strategy.
    pub strategy: &'s Strategy,
    /// What its event pattern asks for, part by part; empty without one.
    pub parts: Vec<PatternPart>,
    /// Whether its event pattern holds, as a whole: parts about a list of objects
    /// must hold for the same one.
    pub pattern_holds: bool,
    /// Whether its condition holds, or why it cannot be evaluated; absent
    /// without a condition, or when the pattern does not hold.
    pub condition: Option<Result<bool, String>>,
    /// What becomes of it.
    pub standing: Standing,
}

/// A part of an event pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternPart {
    /// The field, for instance `data.status`; branches of `$or` are numbered.
    pub path: String,
    /// What it must be, or of an `$or` where it must hold, for a person.
    pub wanted: String,
    /// What it is, or of an `$or` where it holds, for a person.
    pub found: String,
    /// Whether it is.
    pub holds: bool,
}

/// What becomes of a strategy whose tenant and type match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It wins.
    Wins,
    /// It matches and runs beside the winner.
    RunsBeside,
    /// It matches, and the draw by weight chose another one.
    LosesDraw,
    /// It matches, and one of higher priority does too.
    Outranked,
    /// Its event pattern or its condition does not hold.
    DoesNotMatch,
}

impl StrategySet {
    /// Explains what [`StrategySet::decide`] decides for `event`: all strategies
    /// of its tenant and type are tried, none is left out for another one.
    #[must_use]
    pub fn explain(&self, event: &Event<'_>) -> Explanation<'_> {
        let mut facts = Facts::new(event);
        let mut tried = Vec::new();
        for (_, bucket) in self.index.met(event.tenant, &event.kind) {
            let selected = bucket.select(event);
            tried.extend(self.tried(bucket, &selected, &mut facts));
        }
        tried.sort_by_key(|(rank, _)| *rank);
        let mut candidates: Vec<_> = tried.into_iter().map(|(_, candidate)| candidate).collect();
        let winner = settle(&mut candidates, event);
        let mut others = 0;
        let before = candidates.len();
        candidates.retain(|candidate| {
            let matches = candidate.standing != Standing::DoesNotMatch;
            others += usize::from(!matches);
            matches || others <= EXPLAINED_MAX
        });
        let omitted = before - candidates.len();
        Explanation { decision: self.decide(event), winner, candidates, omitted }
    }

    fn tried<'s>(
        &'s self,
        bucket: &Bucket,
        selected: &Selected<'_>,
        facts: &mut Facts<'_>,
    ) -> Vec<(u32, Explained<'s>)> {
        let mut tried = Vec::with_capacity(bucket.all.len());
        for rank in &bucket.all {
            let Some(strategy) = self.strategy(*rank) else { continue };
            let mut parts = Vec::new();
            let pattern = strategy.pattern.as_ref();
            if let Some(pattern) = pattern {
                explain_group(&pattern.all, &[selected], "", &mut parts);
            }
            let pattern_holds = pattern.is_none_or(|pattern| pattern.holds(selected));
            let asked = pattern_holds && strategy.when.is_some();
            let condition = asked.then(|| facts.condition(strategy));
            let matches = pattern_holds && *condition.as_ref().unwrap_or(&Ok(true)) == Ok(true);
            // Who of those that match wins is settled when all are known.
            let standing = if matches { Standing::Outranked } else { Standing::DoesNotMatch };
            let explained = Explained { strategy, parts, pattern_holds, condition, standing };
            tried.push((*rank, explained));
        }
        tried
    }
}

/// Settles who wins among those that match; in order of priority, specificity and name.
fn settle<'s>(candidates: &mut [Explained<'s>], event: &Event<'_>) -> Option<&'s Strategy> {
    let mut equals: Vec<&'s Strategy> = Vec::new();
    for candidate in candidates.iter_mut() {
        let definition = candidate.strategy.definition();
        if candidate.standing == Standing::DoesNotMatch {
            continue;
        }
        let highest = equals.first().map(|first| first.precedence());
        if definition.fan_out {
            candidate.standing = Standing::RunsBeside;
        } else if highest.is_none_or(|highest| highest == candidate.strategy.precedence()) {
            candidate.standing = Standing::LosesDraw;
            equals.push(candidate.strategy);
        }
    }
    let (first, others) = equals.split_first()?;
    let winner = draw(first, others, event);
    let won = |candidate: &&mut Explained<'_>| std::ptr::eq(candidate.strategy, winner);
    if let Some(candidate) = candidates.iter_mut().find(won) {
        candidate.standing = Standing::Wins;
    }
    Some(winner)
}

/// Explains each part of `group` by itself, for the values at one path.
fn explain_group(
    group: &Group,
    values: &[&Selected<'_>],
    path: &str,
    parts: &mut Vec<PatternPart>,
) {
    let values = without_lists(values);
    for field in &group.fields {
        let path = join(path, &field.name);
        let inside: Vec<_> = values.iter().filter_map(|value| value.field(field.path)).collect();
        match &field.wanted {
            Wanted::Inside(group) => explain_group(group, &inside, &path, parts),
            Wanted::Values(wanted) => {
                let wanted: Vec<_> = wanted.iter().map(ToString::to_string).collect();
                let holds = holds_for_one(field, &values);
                let found = describe(&inside);
                parts.push(PatternPart { path, wanted: wanted.join(" or "), found, holds });
            }
        }
    }
    for groups in &group.choices {
        let path = join(path, "$or");
        let holds = |group: &Group| group.holds_for_one(&values);
        let held: Vec<_> = (1..).zip(groups).filter(|(_, group)| holds(group)).collect();
        let held: Vec<_> = held.iter().map(|(number, _)| format!("branch {number}")).collect();
        let found = if held.is_empty() { "none".to_owned() } else { held.join(", ") };
        let (wanted, holds) = (format!("one of {} branches", groups.len()), !held.is_empty());
        parts.push(PatternPart { path: path.clone(), wanted, found, holds });
        for (number, group) in (1..).zip(groups) {
            explain_group(group, &values, &format!("{path}[{number}]"), parts);
        }
    }
}

fn holds_for_one(field: &Field, values: &[&Selected<'_>]) -> bool {
    match values {
        [] => field.holds(None),
        values => values.iter().any(|value| field.holds(value.field(field.path))),
    }
}

fn without_lists<'v, 'e>(values: &[&'v Selected<'e>]) -> Vec<&'v Selected<'e>> {
    let mut flat = Vec::new();
    for value in values {
        match value {
            Selected::List(items) => flat.extend(without_lists(&items.iter().collect::<Vec<_>>())),
            Selected::Null
            | Selected::Truth(_)
            | Selected::Number(_)
            | Selected::Text(_)
            | Selected::Fields(_)
            | Selected::Unreadable => flat.push(*value),
        }
    }
    flat
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn describe(values: &[&Selected<'_>]) -> String {
    let flat = without_lists(values);
    if flat.is_empty() {
        return "not there".to_owned();
    }
    let shown: Vec<_> = flat.iter().take(VALUES_SHOWN_MAX).map(|value| shown(value)).collect();
    let more = flat.len() - shown.len();
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{more}", shown.join(", "))
}

fn shown(value: &Selected<'_>) -> String {
    match value {
        Selected::Null => "null".to_owned(),
        Selected::Truth(value) => value.to_string(),
        Selected::Number(number) => number.as_str().chars().take(CHARACTERS_SHOWN_MAX).collect(),
        Selected::Text(text) => {
            let start: String = text.chars().take(CHARACTERS_SHOWN_MAX).collect();
            let cut = if start.len() < text.len() { "…" } else { "" };
            format!("{start:?}{cut}")
        }
        Selected::List(_) => "a list".to_owned(),
        Selected::Fields(_) => "an object".to_owned(),
        Selected::Unreadable => "something that is not read".to_owned(),
    }
}
