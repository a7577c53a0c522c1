//! What is wrong with a bundle.

use thiserror::Error;

/// One thing wrong with one definition.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("strategy `{strategy}`, `{field}`: {kind}{}", in_brackets(.kind.hint()))]
pub struct StrategyProblem {
    /// Place of the definition in the bundle, from 0.
    pub index: usize,
    /// Its name, at most 80 characters of it.
    pub strategy: String,
    /// The key that is wrong, for instance `when` or `variables.job_id`.
    pub field: String,
    /// What is wrong and what to do.
    pub kind: StrategyProblemKind,
}

/// The kinds of [`StrategyProblem`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StrategyProblemKind {
    /// More definitions than the limit.
    #[error("the bundle has {count} strategies, the limit is {limit}; split it")]
    TooMany {
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A name outside its grammar.
    #[error(
        "`{0}` is not a name; use 1 to 128 ASCII letters, digits, `-`, `_`, `.`, beginning with a letter or digit"
    )]
    BadName(String),
    /// Version 0.
    #[error("the version is 0; count from 1")]
    BadVersion,
    /// No tenant name and not `*`.
    #[error("`{0}` is not a tenant name and not `*`")]
    BadTenant(String),
    /// A type pattern outside its grammar.
    #[error("`{pattern}` is not a type pattern: {why}")]
    BadPattern {
        /// The pattern, at most 80 characters of it.
        pattern: String,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// An event pattern outside its syntax or limits.
    #[error("{message}")]
    BadMatch {
        /// What is wrong.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// Too many strategies that one event can make be tried, or too dear ones.
    #[error(
        "{count} strategies for `{on}` may have to be tried for one event: {}; with others that one event can meet they score {score}, the limit is {limit}",
        named(.names, *.count)
    )]
    TooCostly {
        /// The type pattern with the largest share.
        on: String,
        /// Some of the strategies, the dearest first.
        names: Vec<String>,
        /// How many strategies of it there are.
        count: usize,
        /// The score of all that one event can meet.
        score: u64,
        /// How high it may be.
        limit: u64,
    },
    /// A weight outside its range.
    #[error("the weight is {0}; use 1 to 1000000, or take the strategy out of the bundle")]
    BadWeight(u32),
    /// Two definitions that one event could confuse.
    #[error(
        "the name is already taken by definition {other} (from 0); names are unique per tenant, `*` included"
    )]
    DuplicateName {
        /// Place of the earlier definition, from 0.
        other: usize,
    },
    /// A workflow version that is empty, too long or has spaces.
    #[error(
        "`{0}` is not a workflow version; use 1 to 128 printable ASCII characters without spaces"
    )]
    BadWorkflowVersion(String),
    /// More variables than the limit.
    #[error("{count} variables, the limit is {limit}; pass an object instead")]
    TooManyVariables {
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A variable's name that no expression could refer to.
    #[error(
        "`{0}` is not a variable name; use 1 to 128 ASCII letters, digits and `_`, not beginning with a digit"
    )]
    BadVariableName(String),
    /// `fan_out` with nothing to run.
    #[error("`fan_out` has no effect with `action: ignore`; remove one of them")]
    FanOutOfNothing,
    /// An expression that does not compile.
    #[error("the expression does not compile: {0}")]
    BadExpression(String),
    /// An expression that refers to more than the event.
    #[error("`{0}` is not known here; an expression of a strategy can refer to `event` only")]
    UnknownReference(String),
}

impl StrategyProblemKind {
    /// What to do about it, where the text does not say so.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::BadMatch { hint, .. } => hint.as_deref(),
            Self::TooCostly { .. } => Some(TOO_COSTLY_HINT),
            Self::TooMany { .. }
            | Self::BadName(_)
            | Self::BadVersion
            | Self::BadTenant(_)
            | Self::BadPattern { .. }
            | Self::BadWeight(_)
            | Self::DuplicateName { .. }
            | Self::BadWorkflowVersion(_)
            | Self::TooManyVariables { .. }
            | Self::BadVariableName(_)
            | Self::FanOutOfNothing
            | Self::BadExpression(_)
            | Self::UnknownReference(_) => None,
        }
    }
}

const TOO_COSTLY_HINT: &str = "give them a `match` with a value, a `prefix`, a `suffix` or a `numeric` range that few of them share, or a type of their own";

fn named(names: &[String], count: usize) -> String {
    let listed = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match count.saturating_sub(names.len()) {
        0 => listed,
        more => format!("{listed} and {more} more"),
    }
}

fn in_brackets(hint: Option<&str>) -> String {
    hint.map(|hint| format!(" ({hint})")).unwrap_or_default()
}
