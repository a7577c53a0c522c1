//! From an event to the strategies that may match.
//!
//! Strategies are known here by rank, their place in the order in which they
//! are considered, so that candidates from several places are put in order by
//! sorting numbers. Those of one tenant and one type pattern share a
//! [`Bucket`], which looks into the event for all of them at once.

mod access;
mod bucket;
mod field;
mod intervals;
mod pile;
mod prefixes;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use super::definition::TENANT_ANY;
use super::type_pattern::Token;

pub(super) use bucket::{Bucket, Certainty, Member};

#[derive(Debug, Default)]
pub(super) struct Index {
    tenants: HashMap<Box<str>, Types>,
    any_tenant: Types,
    buckets: Vec<Bucket>,
}

impl Index {
    /// Adds the strategies of a tenant and a type pattern, once for each such
    /// pair; returns the bucket's place.
    pub fn insert(
        &mut self,
        tenant: &str,
        pattern: &str,
        tokens: &[Token<'_>],
        bucket: Bucket,
    ) -> usize {
        let place = self.buckets.len();
        self.buckets.push(bucket);
        let types = if tenant == TENANT_ANY {
            &mut self.any_tenant
        } else {
            self.tenants.entry(tenant.into()).or_default()
        };
        if tokens.iter().all(|token| matches!(token, Token::Literal(_))) {
            types.exact.insert(pattern.into(), place);
        } else {
            types.patterns.insert(tokens, place);
        }
        place
    }

    /// The buckets that see events of this tenant and type, by place.
    pub fn met(&self, tenant: &str, kind: &str) -> impl Iterator<Item = (usize, &Bucket)> {
        let mut places = Inline::default();
        self.any_tenant.collect(kind, &mut places);
        if let Some(types) = self.tenants.get(tenant) {
            types.collect(kind, &mut places);
        }
        places.into_iter().filter_map(|place| Some((place, self.buckets.get(place)?)))
    }

    /// The highest score that one event can meet, and where most of it comes from.
    ///
    /// A bucket's score is the estimated cost of those of its strategies that one
    /// event can make be tried. For types that are named this is
    /// exact, for others a bound: two wildcards are taken to meet.
    pub fn heaviest(&self) -> Option<Load<'_>> {
        let any = self.load_of(TENANT_ANY, &self.any_tenant).or(self.bound(&self.any_tenant));
        let tenants = self.tenants.iter().map(|(tenant, types)| {
            let wildcards = self.bound(types);
            let both = if wildcards.share.is_some() { wildcards.and(any) } else { wildcards };
            self.load_of(tenant, types).or(both)
        });
        let heaviest = tenants.fold(any, Heaviest::or);
        let (_, place) = heaviest.share?;
        let bucket = self.buckets.get(place)?;
        Some(Load { score: heaviest.score, bucket })
    }

    /// The heaviest of the types that are named for `tenant`.
    fn load_of(&self, tenant: &str, types: &Types) -> Heaviest {
        let loads = types.exact.keys().map(|kind| {
            let met = self.met(tenant, kind);
            met.map(|(place, _)| self.load(place)).fold(Heaviest::default(), Heaviest::and)
        });
        loads.fold(Heaviest::default(), Heaviest::or)
    }

    /// The heaviest that wildcards can be for one type.
    fn bound(&self, types: &Types) -> Heaviest {
        types.patterns.bound(&|place| self.load(place))
    }

    fn load(&self, place: usize) -> Heaviest {
        let score = self.buckets.get(place).map_or(0, |bucket| bucket.score);
        Heaviest { score, share: (score > 0).then_some((score, place)) }
    }
}

/// What one event can cost at most, and the bucket that has the largest share.
pub(super) struct Load<'i> {
    pub score: u64,
    pub bucket: &'i Bucket,
}

#[derive(Debug, Clone, Copy, Default)]
struct Heaviest {
    score: u64,
    /// The bucket with the largest share, and that share.
    share: Option<(u64, usize)>,
}

impl Heaviest {
    fn and(self, other: Self) -> Self {
        Self { score: self.score + other.score, share: self.share.max(other.share) }
    }

    fn or(self, other: Self) -> Self {
        if other.score > self.score { other } else { self }
    }
}

#[derive(Debug, Default)]
struct Types {
    exact: HashMap<Box<str>, usize>,
    patterns: Node,
}

impl Types {
    fn collect(&self, kind: &str, found: &mut Inline) {
        if let Some(place) = self.exact.get(kind) {
            found.push(*place);
        }
        self.patterns.collect(Some(kind), found);
    }
}

/// One place in the tree of wildcard patterns; its depth is bounded by
/// [`super::PATTERN_TOKENS_MAX`].
#[derive(Debug, Default)]
struct Node {
    literal: HashMap<Box<str>, Node>,
    one: Option<Box<Node>>,
    /// The pattern that ends here.
    end: Option<usize>,
    /// The pattern that ends here with `>`.
    rest: Option<usize>,
}

impl Node {
    fn insert(&mut self, tokens: &[Token<'_>], place: usize) {
        match tokens.split_first() {
            None => self.end = Some(place),
            Some((Token::Rest, _)) => self.rest = Some(place),
            Some((Token::One, tokens)) => self.one.get_or_insert_default().insert(tokens, place),
            Some((Token::Literal(token), tokens)) => {
                self.literal.entry((*token).into()).or_default().insert(tokens, place);
            }
        }
    }

    /// Collects what matches `kind`, the tokens that are left, if any.
    fn collect(&self, kind: Option<&str>, found: &mut Inline) {
        let Some(kind) = kind else {
            return self.end.into_iter().for_each(|place| found.push(place));
        };
        self.rest.into_iter().for_each(|place| found.push(place));
        if self.literal.is_empty() && self.one.is_none() {
            return;
        }
        let (token, rest) =
            kind.split_once('.').map_or((kind, None), |(token, rest)| (token, Some(rest)));
        if let Some(node) = self.literal.get(token) {
            node.collect(rest, found);
        }
        if let Some(node) = &self.one {
            node.collect(rest, found);
        }
    }

    fn bound(&self, load: &impl Fn(usize) -> Heaviest) -> Heaviest {
        let of = |place: Option<usize>| place.map(load).unwrap_or_default();
        let literals = self.literal.values().map(|node| node.bound(load));
        let one = self.one.as_deref().map(|node| node.bound(load)).unwrap_or_default();
        let longer = literals.fold(Heaviest::default(), Heaviest::or).and(one);
        of(self.rest).and(longer).or(of(self.end))
    }
}

/// Places of buckets, the first few of them without allocating.
#[derive(Debug, Default)]
struct Inline {
    first: [usize; 4],
    count: usize,
    others: Vec<usize>,
}

impl Inline {
    fn push(&mut self, place: usize) {
        match self.first.get_mut(self.count) {
            Some(slot) => *slot = place,
            None => self.others.push(place),
        }
        self.count += 1;
    }

    fn into_iter(self) -> impl Iterator<Item = usize> {
        self.first.into_iter().take(self.count).chain(self.others)
    }
}
