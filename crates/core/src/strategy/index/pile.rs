//! What an event can find at most, by what it costs to try.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::bucket::Certainty;
use crate::strategy::event_pattern::EventPattern;

/// Estimated cost of a condition in CEL at least, in the unit of [`EventPattern::cost`]: the event
/// is made a map, once, and walked through.
const CONDITION_COST: u64 = 64;

/// Steps of a condition that count as one such unit: the dearest condition that there may be
/// ([`STEPS_MAX`](crate::expression::STEPS_MAX)) is within
/// [`SCORE_MAX`](crate::strategy::SCORE_MAX) when it is alone, and so all conditions that one
/// event can meet take no more steps together than one expression may.
const STEPS_PER_UNIT: u64 = 50;

/// Strategies that are found and not evaluated which count as one such unit: a number is sorted.
pub(super) const FOUND_PER_UNIT: u64 = 32;

/// What finding and trying a strategy costs, [`FOUND_PER_UNIT`] times the unit.
pub(super) fn weight_of(
    pattern: Option<&EventPattern>,
    condition_steps: Option<u64>,
    certainty: Certainty,
) -> u64 {
    let condition = condition_steps.map_or(0, condition_cost);
    let pattern = match certainty {
        Certainty::Matches => 0,
        Certainty::MayMatch => pattern.map_or(0, EventPattern::cost),
    };
    FOUND_PER_UNIT.saturating_mul(condition.saturating_add(pattern)).max(1)
}

/// What trying a condition costs whose price is so many steps.
fn condition_cost(steps: u64) -> u64 {
    steps.div_ceil(STEPS_PER_UNIT).max(CONDITION_COST)
}

/// Strategies that are found together.
#[derive(Debug, Default)]
pub(super) struct Pile {
    pub weight: u64,
    pub ranks: Vec<u32>,
}

impl Pile {
    pub fn of(ranks: &[u32], weight: &impl Fn(u32) -> u64) -> Self {
        Self { weight: sum(ranks, weight), ranks: ranks.to_vec() }
    }

    /// The heaviest of these lists.
    pub fn heaviest<'l>(
        lists: impl Iterator<Item = &'l Vec<u32>>,
        weight: &impl Fn(u32) -> u64,
    ) -> Self {
        // Of equal ones the same, whatever the order of a hash table.
        let heaviest = lists.max_by_key(|ranks| (sum(ranks, weight), Reverse(*ranks)));
        heaviest.map(|ranks| Self::of(ranks, weight)).unwrap_or_default()
    }

    /// Both.
    pub fn and(mut self, other: Self) -> Self {
        self.weight = self.weight.saturating_add(other.weight);
        self.ranks.extend(other.ranks);
        self
    }

    /// The heavier one.
    pub fn or(self, other: Self) -> Self {
        if other.weight > self.weight { other } else { self }
    }
}

/// What is found at a place while places are walked through. A strategy that is found by several of its values
/// counts once.
#[derive(Debug, Default)]
pub(super) struct Together {
    times: HashMap<u32, usize>,
    pub weight: u64,
}

impl Together {
    pub fn add(&mut self, rank: u32, weight: &impl Fn(u32) -> u64) {
        let times = self.times.entry(rank).or_default();
        *times += 1;
        if *times == 1 {
            self.weight = self.weight.saturating_add(weight(rank));
        }
    }

    pub fn remove(&mut self, rank: u32, weight: &impl Fn(u32) -> u64) {
        let Some(times) = self.times.get_mut(&rank) else { return };
        *times -= 1;
        if *times == 0 {
            self.times.remove(&rank);
            self.weight = self.weight.saturating_sub(weight(rank));
        }
    }
}

/// What ranks weigh that ascend; one that is there for several values counts once.
fn sum(ranks: &[u32], weight: &impl Fn(u32) -> u64) -> u64 {
    let once = ranks.chunk_by(|one, two| one == two).filter_map(<[u32]>::first);
    once.fold(0, |sum: u64, rank| sum.saturating_add(weight(*rank)))
}
