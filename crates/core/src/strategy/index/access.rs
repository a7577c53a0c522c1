//! By which of its parts a pattern is found.
//!
//! A pattern can match only if one of its accesses finds it, so that an event
//! which none of them fits needs not be held against the pattern. Of several
//! fields that would do, the one is taken by which fewest others are found.

use std::collections::HashMap;

use crate::event::selection::PathId;
use crate::strategy::event_pattern::{Field, Group, Literal, Predicate, Range, Wanted};

/// A way to find a pattern by one value at a path.
#[derive(Debug, Clone, Copy)]
pub(super) enum Access<'p> {
    Equals(&'p Literal),
    /// The text in lower case.
    EqualsIgnoreCase(&'p str),
    Prefix(&'p str),
    Suffix(&'p str),
    Range(&'p Range),
}

/// Patterns that are found together: all prefixes of a path count as one kind,
/// because nothing is known about how long events' texts are.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Kind<'p> {
    Null,
    Truth(bool),
    Number(u64),
    Text(&'p str),
    EqualsIgnoreCase(&'p str),
    Prefix,
    Suffix,
    Range,
}

impl<'p> Access<'p> {
    /// Nothing when no index finds what the predicate holds for.
    fn of(predicate: &'p Predicate) -> Option<Self> {
        match predicate {
            Predicate::Equals(literal) => Some(Self::Equals(literal)),
            Predicate::EqualsIgnoreCase(text) => Some(Self::EqualsIgnoreCase(text.lower())),
            Predicate::Prefix(text) => Some(Self::Prefix(text)),
            Predicate::Suffix(text) => Some(Self::Suffix(text)),
            Predicate::Numeric(range) => Some(Self::Range(range)),
            Predicate::Wildcard(wildcard) => {
                Some(wildcard.head()).filter(|head| !head.is_empty()).map(Self::Prefix)
            }
            Predicate::PrefixIgnoreCase(_)
            | Predicate::SuffixIgnoreCase(_)
            | Predicate::Cidr(_)
            | Predicate::Exists(_)
            | Predicate::AnythingBut(_) => None,
        }
    }

    fn kind(self) -> Kind<'p> {
        match self {
            Self::Equals(Literal::Null) => Kind::Null,
            Self::Equals(Literal::Truth(value)) => Kind::Truth(*value),
            Self::Equals(Literal::Number(number)) => Kind::Number(number.key()),
            Self::Equals(Literal::Text(text)) => Kind::Text(text),
            Self::EqualsIgnoreCase(text) => Kind::EqualsIgnoreCase(text),
            Self::Prefix(_) => Kind::Prefix,
            Self::Suffix(_) => Kind::Suffix,
            Self::Range(_) => Kind::Range,
        }
    }

    /// What it costs more than an equality that finds as many.
    fn handicap(self) -> u64 {
        match self {
            Self::Equals(_) => 0,
            Self::EqualsIgnoreCase(_) | Self::Prefix(_) | Self::Suffix(_) | Self::Range(_) => 1,
        }
    }
}

/// How many patterns each access would find.
#[derive(Debug, Default)]
pub(super) struct Tally<'p>(HashMap<(PathId, Kind<'p>), u64>);

impl<'p> Tally<'p> {
    /// Counts everything by which `group` could be found.
    pub fn count(&mut self, group: &'p Group) {
        for field in &group.fields {
            match &field.wanted {
                Wanted::Inside(group) => self.count(group),
                Wanted::Values(predicates) => {
                    for access in predicates.iter().filter_map(Access::of) {
                        *self.0.entry((field.path, access.kind())).or_default() += 1;
                    }
                }
            }
        }
        group.choices.iter().flatten().for_each(|group| self.count(group));
    }

    fn found_by(&self, path: PathId, access: Access<'p>) -> u64 {
        self.0.get(&(path, access.kind())).copied().unwrap_or_default() + access.handicap()
    }
}

/// What finds `group` whenever it holds; nothing when only trying tells.
pub(super) fn access_of<'p>(
    group: &'p Group,
    tally: &Tally<'p>,
) -> Option<Vec<(PathId, Access<'p>)>> {
    cheapest(group, tally).map(|(_, accesses)| accesses)
}

type Priced<'p> = (u64, Vec<(PathId, Access<'p>)>);

fn cheapest<'p>(group: &'p Group, tally: &Tally<'p>) -> Option<Priced<'p>> {
    let fields = group.fields.iter().filter_map(|field| by_field(field, tally));
    let choices = group.choices.iter().filter_map(|groups| by_each(groups, tally));
    fields.chain(choices).min_by_key(|(found, _)| *found)
}

fn by_field<'p>(field: &'p Field, tally: &Tally<'p>) -> Option<Priced<'p>> {
    let predicates = match &field.wanted {
        Wanted::Inside(group) => return cheapest(group, tally),
        Wanted::Values(predicates) => predicates,
    };
    let mut found = 0;
    let mut accesses = Vec::with_capacity(predicates.len());
    for predicate in predicates {
        let access = Access::of(predicate)?;
        found += tally.found_by(field.path, access);
        accesses.push((field.path, access));
    }
    Some((found, accesses))
}

fn by_each<'p>(groups: &'p [Group], tally: &Tally<'p>) -> Option<Priced<'p>> {
    let mut all = (0, Vec::new());
    for group in groups {
        let (found, accesses) = cheapest(group, tally)?;
        all.0 += found;
        all.1.extend(accesses);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::event::selection::PathTree;
    use crate::strategy::event_pattern::EventPattern;

    /// Whether each of the patterns, which are of one type, is found by an equality alone.
    fn by_equality(patterns: &[Value]) -> Vec<bool> {
        let mut tree = PathTree::default();
        let mut patterns: Vec<_> =
            patterns.iter().map(|pattern| EventPattern::read(pattern).unwrap()).collect();
        patterns.iter_mut().for_each(|pattern| pattern.bind(&mut tree));
        let mut tally = Tally::default();
        patterns.iter().for_each(|pattern| tally.count(&pattern.all));
        let found = patterns.iter().map(|pattern| access_of(&pattern.all, &tally).unwrap());
        found.map(|found| matches!(found.as_slice(), [(_, Access::Equals(_))])).collect()
    }

    #[test]
    fn an_equality_goes_before_a_range_that_finds_as_few() {
        let above = json!([{ "numeric": [">", 1] }]);
        let before = json!({ "data": { "a": ["x"], "b": above } });
        let behind = json!({ "data": { "a": above, "b": ["x"] } });

        assert_eq!(by_equality(&[before]), [true]);
        assert_eq!(by_equality(&[behind]), [true]);
    }

    #[test]
    fn an_equality_goes_before_ranges_that_others_have_too() {
        let one = |number: u32| {
            let range = json!([{ "numeric": [">=", number, "<", number + 1] }]);
            json!({ "data": { "a": range, "b": [number / 3] } })
        };
        let patterns: Vec<_> = (0..9).map(one).collect();

        assert_eq!(by_equality(&patterns), [true; 9]);
    }

    #[test]
    fn a_range_goes_before_an_equality_that_all_share() {
        let patterns = [
            json!({ "data": { "a": [{ "numeric": [">", 1] }], "b": ["x"] } }),
            json!({ "data": { "b": ["x"] } }),
            json!({ "data": { "b": ["x"] } }),
        ];

        assert_eq!(by_equality(&patterns), [false, true, true]);
    }
}
