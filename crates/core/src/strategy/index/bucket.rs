//! The strategies of one tenant and one type pattern.

use super::access::{Tally, access_of};
use super::field::FieldIndex;
use crate::event::Event;
use crate::event::selection::{PathId, PathTree, Selected};
use crate::strategy::event_pattern::{EventPattern, Group, Predicate, Wanted};

/// Estimated cost of a condition in CEL, in the unit of
/// [`EventPattern::cost`]: the event is made a map, once, and walked through.
const CONDITION_COST: u64 = 64;

#[derive(Debug, Default)]
pub(in crate::strategy) struct Bucket {
    /// Ranks of all, ascending.
    pub all: Vec<u32>,
    /// Ranks of those that may match whatever the event says, ascending.
    unguarded: Vec<u32>,
    /// Of the unguarded: the estimated cost of trying all of them.
    pub score: u64,
    /// The paths at which somebody looks.
    paths: PathTree,
    /// By path, where there is one.
    fields: Vec<Option<Box<FieldIndex>>>,
}

/// A strategy as a bucket sees it.
pub(in crate::strategy) struct Member<'m> {
    pub rank: u32,
    pub pattern: Option<&'m mut EventPattern>,
    pub has_condition: bool,
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
            let Some(accesses) = accesses else {
                bucket.unguarded.push(member.rank);
                let condition = if member.has_condition { CONDITION_COST } else { 0 };
                bucket.score += condition + pattern.map_or(0, EventPattern::cost);
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
        (bucket, certainties)
    }

    /// Ranks of those that have to be tried for every event.
    pub fn tried(&self) -> impl Iterator<Item = u32> {
        self.unguarded.iter().copied()
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
