//! What is to happen for an event.

use serde_json::{Map, Value};

use super::compile::{Strategy, StrategySet};
use super::definition::Action;
use super::index::{Bucket, Certainty};
use crate::event::Event;
use crate::event::selection::Selected;
use crate::expression::{Expression, Scope};
use crate::json::Json;

/// Most near misses that a decision names, those of the highest priority
/// first: they are for people to read, and travel in a record.
pub const NEAR_MISSES_MAX: usize = 16;

/// What a set decides about one event; the same for the same event, always.
#[derive(Debug, Clone)]
pub enum Decision<'s> {
    /// Nothing starts, on purpose.
    Ignored {
        /// The winner.
        strategy: &'s Strategy,
        /// Others that matched with the winner's priority and specificity: a draw by weight
        /// left them out.
        tied: Vec<&'s Strategy>,
        /// Conditions that could not be evaluated and so counted as false, at
        /// most [`NEAR_MISSES_MAX`].
        failed_conditions: Vec<NearMiss<'s>>,
    },
    /// These runs start.
    Start {
        /// At least one: the winner first, if it starts something, then what
        /// runs beside it, by priority, specificity and name.
        chosen: Vec<Chosen<'s>>,
        /// Others that matched with the winner's priority and specificity: a draw by weight
        /// left them out.
        tied: Vec<&'s Strategy>,
        /// Conditions that could not be evaluated and so counted as false, at
        /// most [`NEAR_MISSES_MAX`].
        failed_conditions: Vec<NearMiss<'s>>,
    },
    /// No strategy matches.
    Unmatched {
        /// Strategies whose tenant and type match but whose pattern or condition
        /// does not hold, at most [`NEAR_MISSES_MAX`].
        near: Vec<NearMiss<'s>>,
    },
    /// A chosen strategy's variables could not be evaluated; nothing starts.
    Failed {
        /// Whose variables.
        strategy: &'s Strategy,
        /// Which variable, and why, for a person.
        detail: String,
    },
}

/// A strategy that starts a run, with the run's variables.
#[derive(Debug, Clone)]
pub struct Chosen<'s> {
    /// The strategy.
    pub strategy: &'s Strategy,
    /// A JSON object: the strategy's variables, or without any declared, the
    /// event's data (`{}` when there are none or they are `null`, `{"data": …}`
    /// when they are no object, `{"data_base64": …}` when they are binary).
    pub variables: Json,
}

/// A strategy for this tenant and type whose pattern or condition does not hold.
#[derive(Debug, Clone)]
pub struct NearMiss<'s> {
    /// The strategy.
    pub strategy: &'s Strategy,
    /// Why the condition could not be evaluated; absent when it is false.
    pub error: Option<String>,
}

impl StrategySet {
    /// Decides what happens for `event`.
    ///
    /// A strategy matches when its tenant, its type pattern, its event pattern
    /// and its condition do, looked at in this order; a condition that fails to
    /// evaluate counts as false. Those with
    /// `fan_out` that match all run. Of the others that match one wins: the
    /// highest priority, among those the highest [`specificity`](Strategy::specificity), among
    /// equals of both by weight, drawn by the event's [`idempotency`](Event::idempotency) over
    /// the names in order. Conditions below the winner are not looked at, `fan_out` aside.
    #[must_use]
    pub fn decide(&self, event: &Event<'_>) -> Decision<'_> {
        let mut facts = Facts::new(event);
        let Matches { winner, equals, beside, failed, near } = self.find(event, &mut facts);
        let first = winner;
        let winner = first.map(|first| draw(first, &equals, event));
        let rivals = first.into_iter().chain(equals);
        let tied = rivals.filter(|rival| winner.is_some_and(|won| !std::ptr::eq(*rival, won)));
        let tied = tied.collect();
        if winner.is_none() && beside.is_empty() {
            return Decision::Unmatched { near };
        }
        let failed = failed.into_iter().take(NEAR_MISSES_MAX).filter_map(|(rank, error)| {
            Some(NearMiss { strategy: self.strategy(rank)?, error: Some(error) })
        });
        let failed_conditions = failed.collect();
        if let (Some(strategy), true) = (winner, beside.is_empty())
            && strategy.definition().action == Action::Ignore
        {
            return Decision::Ignored { strategy, tied, failed_conditions };
        }
        let runs = winner.into_iter().filter(|winner| winner.workflow().is_some()).chain(beside);
        let mut chosen = Vec::with_capacity(1);
        for strategy in runs {
            match facts.variables(strategy) {
                Ok(variables) => chosen.push(Chosen { strategy, variables }),
                Err(detail) => return Decision::Failed { strategy, detail },
            }
        }
        Decision::Start { chosen, tied, failed_conditions }
    }

    /// The strategy that ignores every event of `kind` of `tenant`, whatever
    /// the event says: then nobody needs to look into it.
    #[must_use]
    pub fn ignored_by_type(&self, tenant: &str, kind: &str) -> Option<&Strategy> {
        let mut ranks = self.index.met(tenant, kind).flat_map(|(_, bucket)| &bucket.all);
        let (Some(rank), None) = (ranks.next(), ranks.next()) else { return None };
        let strategy = self.strategy(*rank)?;
        let always = strategy.when.is_none() && strategy.pattern.is_none();
        (always && strategy.definition().action == Action::Ignore).then_some(strategy)
    }

    fn find<'s>(&'s self, event: &Event<'_>, facts: &mut Facts<'_>) -> Matches<'s> {
        let mut matches = Matches::default();
        let mut found = Vec::new();
        let met: Vec<_> = self
            .index
            .met(event.tenant, &event.kind)
            .map(|(place, bucket)| {
                let selected = bucket.select(event);
                bucket.collect(&selected, &mut found);
                (place, bucket, selected)
            })
            .collect();
        found.sort_unstable();
        found.dedup();
        for rank in found {
            let Some(strategy) = self.strategy(rank) else { continue };
            if !matches.wants(strategy) {
                if self.last_beside.is_none_or(|last| last < rank) {
                    break;
                }
                continue;
            }
            let selected = met.iter().find(|(place, ..)| *place == strategy.bucket);
            let selected = selected.map(|(_, _, selected)| selected);
            if !selected.is_some_and(|selected| strategy.pattern_holds(selected)) {
                continue;
            }
            match facts.condition(strategy) {
                Ok(true) => matches.add(strategy),
                Ok(false) => {}
                Err(error) => matches.failed.push((rank, error)),
            }
        }
        if matches.winner.is_none() && matches.beside.is_empty() {
            matches.near = self.near(met.iter().map(|(_, bucket, _)| *bucket), &matches.failed);
        }
        matches
    }

    /// The first of all strategies that see the event, none of which matches.
    fn near<'s>(
        &'s self,
        met: impl Iterator<Item = &'s Bucket>,
        failed: &[(u32, String)],
    ) -> Vec<NearMiss<'s>> {
        let first = |bucket: &'s Bucket| bucket.all.iter().take(NEAR_MISSES_MAX);
        let mut ranks: Vec<u32> = met.flat_map(first).copied().collect();
        ranks.sort_unstable();
        ranks.truncate(NEAR_MISSES_MAX);
        let miss = |rank: u32| {
            let error = failed.iter().find(|(failed, _)| *failed == rank);
            let error = error.map(|(_, error)| error.clone());
            Some(NearMiss { strategy: self.strategy(rank)?, error })
        };
        ranks.into_iter().filter_map(miss).collect()
    }

    pub(super) fn strategy(&self, rank: u32) -> Option<&Strategy> {
        self.strategies().get(usize::try_from(rank).ok()?)
    }
}

impl Strategy {
    /// Whether its pattern holds for what its bucket selected, the index having
    /// found it there.
    fn pattern_holds(&self, selected: &Selected<'_>) -> bool {
        self.certainty == Certainty::Matches
            || self.pattern.as_ref().is_none_or(|pattern| pattern.holds(selected))
    }
}

/// What matches, found in order of priority, specificity and name.
#[derive(Default)]
struct Matches<'s> {
    winner: Option<&'s Strategy>,
    /// Others of the winner's priority and specificity.
    equals: Vec<&'s Strategy>,
    beside: Vec<&'s Strategy>,
    /// Ranks of those whose condition could not be evaluated, and why.
    failed: Vec<(u32, String)>,
    /// Filled when nothing matches.
    near: Vec<NearMiss<'s>>,
}

impl<'s> Matches<'s> {
    fn wants(&self, strategy: &Strategy) -> bool {
        strategy.definition().fan_out
            || self.winner.is_none_or(|winner| winner.precedence() == strategy.precedence())
    }

    fn add(&mut self, strategy: &'s Strategy) {
        if strategy.definition().fan_out {
            self.beside.push(strategy);
        } else if self.winner.is_none() {
            self.winner = Some(strategy);
        } else {
            self.equals.push(strategy);
        }
    }
}

/// Draws one of `first` and `equals` by weight and the event's key.
pub(super) fn draw<'s>(
    first: &'s Strategy,
    equals: &[&'s Strategy],
    event: &Event<'_>,
) -> &'s Strategy {
    if equals.is_empty() {
        return first;
    }
    let weight = |strategy: &Strategy| u128::from(strategy.definition().weight);
    let total: u128 = weight(first) + equals.iter().map(|strategy| weight(strategy)).sum::<u128>();
    let mut point = event.idempotency() % total.max(1);
    for strategy in std::iter::once(first).chain(equals.iter().copied()) {
        match point.checked_sub(weight(strategy)) {
            Some(left) => point = left,
            None => return strategy,
        }
    }
    first
}

/// The event as expressions see it, made when the first of them asks.
pub(super) struct Facts<'e> {
    event: &'e Event<'e>,
    attributes: Option<Result<Value, String>>,
    whole: Option<Result<Value, String>>,
}

impl<'e> Facts<'e> {
    pub fn new(event: &'e Event<'e>) -> Self {
        Self { event, attributes: None, whole: None }
    }

    pub fn condition(&mut self, strategy: &Strategy) -> Result<bool, String> {
        let Some(when) = &strategy.when else { return Ok(true) };
        let scope = Scope::new().with("event", self.seen_by(when)?);
        when.evaluate_bool(&scope).map_err(|error| error.to_string())
    }

    pub fn variables(&mut self, strategy: &Strategy) -> Result<Json, String> {
        let Some(variables) = &strategy.variables else { return self.data_as_variables() };
        let mut object = Map::new();
        for (name, expression) in variables {
            let value = self
                .seen_by(expression)
                .and_then(|event| {
                    let scope = Scope::new().with("event", event);
                    expression.evaluate(&scope).map_err(|error| error.to_string())
                })
                .map_err(|error| format!("variable `{name}`: {error}"))?;
            object.insert(name.clone(), value);
        }
        Ok(Json::from_value(&Value::Object(object)))
    }

    fn data_as_variables(&self) -> Result<Json, String> {
        let data: Value = match (self.event.data, &self.event.data_base64) {
            (Some(data), _) => {
                serde_json::from_str(data.get()).map_err(|error| unreadable(&error))?
            }
            (None, Some(binary)) => serde_json::json!({ "data_base64": binary }),
            (None, None) => Value::Null,
        };
        Ok(Json::from_value(&match data {
            Value::Null => Value::Object(Map::new()),
            Value::Object(_) => data,
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                serde_json::json!({ "data": data })
            }
        }))
    }

    fn seen_by(&mut self, expression: &Expression) -> Result<&Value, String> {
        let event = self.event;
        let view = if expression.references().event_data {
            self.whole.get_or_insert_with(|| event.view().map_err(|error| unreadable(&error)))
        } else {
            self.attributes
                .get_or_insert_with(|| event.attributes_view().map_err(|error| unreadable(&error)))
        };
        view.as_ref().map_err(Clone::clone)
    }
}

fn unreadable(error: &serde_json::Error) -> String {
    format!("the event's data cannot be read: {error}")
}
