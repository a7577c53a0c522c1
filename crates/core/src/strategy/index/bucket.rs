//! The strategies of one tenant and one type pattern.

use super::access::{Tally, access_of};
use super::field::FieldIndex;
use super::pile::{FOUND_PER_UNIT, Pile, weight_of};
use crate::event::Event;
use crate::event::selection::{PathId, PathTree, Selected};
use crate::strategy::event_pattern::{EventPattern, Group, Predicate, Wanted};

#[derive(Debug, Default)]
pub(in crate::strategy) struct Bucket {
    /// Ranks of all, ascending.
    pub all: Vec<u32>,
    /// Ranks of those that may match whatever the event says, ascending.
    unguarded: Vec<u32>,
    /// The estimated cost of trying all that one event can find, in the unit of
    /// [`EventPattern::cost`]: the unguarded, and at each path those that are found by the value
    /// that finds most. Of a list one value counts.
    pub score: u64,
    /// Ranks of those that make up the score, ascending.
    pub tried: Vec<u32>,
    /// The paths at which somebody looks.
    paths: PathTree,
    /// By path, where there is one.
    fields: Vec<Option<Box<FieldIndex>>>,
}

/// A strategy as a bucket sees it.
pub(in crate::strategy) struct Member<'m> {
    pub rank: u32,
    pub pattern: Option<&'m mut EventPattern>,
    /// Price of its condition, if it has one.
    pub condition_steps: Option<u64>,
}

/// What the index says about a strategy that it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::strategy) enum Certainty {
    /// Its pattern must be evaluated.
    MayMatch,
    /// Its pattern holds, or it has none.
    Matches,
}

impl Bucket {
    /// Indexes `members`, whose ranks ascend, and binds their patterns; with
    /// what is certain about each that the index finds.
    pub fn build(members: &mut [Member<'_>]) -> (Self, Vec<Certainty>) {
        let mut bucket = Self::default();
        for member in members.iter_mut() {
            if let Some(pattern) = &mut member.pattern {
                pattern.bind(&mut bucket.paths);
            }
        }
        let mut tally = Tally::default();
        let patterns = || members.iter().filter_map(|member| member.pattern.as_deref());
        patterns().for_each(|pattern| tally.count(&pattern.all));
        let mut fields = Vec::new();
        fields.resize_with(bucket.paths.len(), || None);
        let mut certainties = Vec::with_capacity(members.len());
        let mut weights = Vec::with_capacity(members.len());
        for member in members.iter() {
            bucket.all.push(member.rank);
            let pattern = member.pattern.as_deref();
            let accesses = pattern.and_then(|pattern| access_of(&pattern.all, &tally));
            let certain = match (pattern, &accesses) {
                (None, _) => Certainty::Matches,
                (Some(pattern), Some(_)) if is_decided_by_access(&pattern.all) => {
                    Certainty::Matches
                }
                (Some(_), _) => Certainty::MayMatch,
            };
            certainties.push(certain);
            weights.push(weight_of(pattern, member.condition_steps, certain));
            let Some(accesses) = accesses else {
                bucket.unguarded.push(member.rank);
                continue;
            };
            for (path, access) in accesses {
                let slot: Option<&mut Option<Box<FieldIndex>>> = fields.get_mut(path.place());
                if let Some(slot) = slot {
                    slot.get_or_insert_default().insert(access, member.rank);
                }
            }
        }
        fields.iter_mut().flatten().for_each(|field| field.freeze());
        bucket.fields = fields;
        bucket.weigh(&weights);
        (bucket, certainties)
    }

    /// Sets the score, by what each strategy weighs, in the order of their ranks.
    fn weigh(&mut self, weights: &[u64]) {
        let weight = |rank: u32| {
            let place = self.all.binary_search(&rank).ok();
            place.and_then(|place| weights.get(place)).copied().unwrap_or_default()
        };
        let fields = self.fields.iter().flatten().map(|field| field.heaviest(&weight));
        let Pile { weight, mut ranks } = fields.fold(Pile::of(&self.unguarded, &weight), Pile::and);
        ranks.sort_unstable();
        ranks.dedup();
        // A strategy that is found at several paths is tried once.
        let all = weights.iter().fold(0, |all: u64, weight| all.saturating_add(*weight));
        self.score = weight.min(all) / FOUND_PER_UNIT;
        self.tried = ranks;
    }

    /// Reads what the patterns look at.
    pub fn select<'e>(&self, event: &'e Event<'_>) -> Selected<'e> {
        if self.paths.len() == 1 {
            return Selected::Fields(Vec::new());
        }
        event.select(&self.paths)
    }

    /// Adds the ranks of all strategies that may match, some of them twice.
    pub fn collect(&self, selected: &Selected<'_>, found: &mut Vec<u32>) {
        found.extend(&self.unguarded);
        self.look_up(PathId::EVENT, selected, found);
    }

    fn look_up(&self, path: PathId, value: &Selected<'_>, found: &mut Vec<u32>) {
        match value {
            Selected::Fields(fields) => {
                fields.iter().for_each(|(path, value)| self.look_up(*path, value, found));
            }
            Selected::List(values) => {
                values.iter().for_each(|value| self.look_up(path, value, found));
            }
            Selected::Null
            | Selected::Truth(_)
            | Selected::Number(_)
            | Selected::Text(_)
            | Selected::Unreadable => {
                if let Some(Some(field)) = self.fields.get(path.place()) {
                    field.collect(value, found);
                }
            }
        }
    }
}

/// Whether a strategy that its access finds is sure to match: it looks at one
/// path alone, and finds there by what it wants and not by a part of it.
fn is_decided_by_access(group: &Group) -> bool {
    let ([field], []) = (group.fields.as_slice(), group.choices.as_slice()) else { return false };
    match &field.wanted {
        Wanted::Inside(group) => is_decided_by_access(group),
        Wanted::Values(predicates) => predicates.iter().all(|predicate| match predicate {
            Predicate::Equals(literal) => !literal.is_number(),
            Predicate::Prefix(_)
            | Predicate::Suffix(_)
            | Predicate::EqualsIgnoreCase(_)
            | Predicate::Numeric(_) => true,
            Predicate::PrefixIgnoreCase(_)
            | Predicate::SuffixIgnoreCase(_)
            | Predicate::Wildcard(_)
            | Predicate::Cidr(_)
            | Predicate::Exists(_)
            | Predicate::AnythingBut(_) => false,
        }),
    }
}
