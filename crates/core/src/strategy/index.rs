//! From a tenant and a type to the strategies that may match.
//!
//! Strategies are known here by rank, their place in the order in which they
//! are considered, so that candidates from several places are put in order by
//! sorting numbers.

use std::collections::HashMap;

use super::definition::TENANT_ANY;
use super::pattern::Token;

#[derive(Debug, Default)]
pub(super) struct Index {
    tenants: HashMap<Box<str>, Types>,
    any_tenant: Types,
}

impl Index {
    pub fn insert(&mut self, tenant: &str, pattern: &str, tokens: &[Token<'_>], rank: u32) {
        let types = if tenant == TENANT_ANY {
            &mut self.any_tenant
        } else {
            self.tenants.entry(tenant.into()).or_default()
        };
        if tokens.iter().all(|token| matches!(token, Token::Literal(_))) {
            types.exact.entry(pattern.into()).or_default().push(rank);
        } else {
            types.patterns.insert(tokens, rank);
        }
    }

    /// Ranks of all strategies whose tenant and type pattern match, ascending.
    pub fn candidates(&self, tenant: &str, kind: &str) -> Candidates {
        let mut found = Candidates::default();
        self.any_tenant.collect(kind, &mut found);
        if let Some(types) = self.tenants.get(tenant) {
            types.collect(kind, &mut found);
        }
        found.sort();
        found
    }
}

#[derive(Debug, Default)]
struct Types {
    exact: HashMap<Box<str>, Vec<u32>>,
    patterns: Node,
}

impl Types {
    fn collect(&self, kind: &str, found: &mut Candidates) {
        if let Some(ranks) = self.exact.get(kind) {
            found.extend(ranks);
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
    /// Patterns that end here.
    end: Vec<u32>,
    /// Patterns that end here with `>`.
    rest: Vec<u32>,
}

impl Node {
    fn insert(&mut self, tokens: &[Token<'_>], rank: u32) {
        match tokens.split_first() {
            None => self.end.push(rank),
            Some((Token::Rest, _)) => self.rest.push(rank),
            Some((Token::One, tokens)) => self.one.get_or_insert_default().insert(tokens, rank),
            Some((Token::Literal(token), tokens)) => {
                self.literal.entry((*token).into()).or_default().insert(tokens, rank);
            }
        }
    }

    /// Collects what matches `kind`, the tokens that are left, if any.
    fn collect(&self, kind: Option<&str>, found: &mut Candidates) {
        let Some(kind) = kind else {
            return found.extend(&self.end);
        };
        found.extend(&self.rest);
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
}

/// How many candidates are held without allocating: more than most types have.
const INLINE: usize = 8;

/// Ranks of candidates.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    inline: [u32; INLINE],
    count: usize,
    /// Holds all of them once there are more than [`INLINE`].
    spilled: Vec<u32>,
}

impl Candidates {
    fn extend(&mut self, ranks: &[u32]) {
        let count = self.count + ranks.len();
        if self.spilled.is_empty()
            && let Some(free) = self.inline.get_mut(self.count..count)
        {
            free.copy_from_slice(ranks);
        } else {
            if self.spilled.is_empty() {
                self.spilled.extend(self.inline.iter().take(self.count));
            }
            self.spilled.extend(ranks);
        }
        self.count = count;
    }

    fn sort(&mut self) {
        if self.spilled.is_empty() {
            if let Some(ranks) = self.inline.get_mut(..self.count) {
                ranks.sort_unstable();
            }
        } else {
            self.spilled.sort_unstable();
        }
    }

    pub fn as_slice(&self) -> &[u32] {
        if self.spilled.is_empty() {
            self.inline.get(..self.count).unwrap_or_default()
        } else {
            &self.spilled
        }
    }
}
