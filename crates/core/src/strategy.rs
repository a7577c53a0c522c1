//! Which event starts which workflow.
//!
//! A [`StrategySet`] is compiled once from a bundle of definitions, all or
//! nothing, and is then immutable: shared behind an `Arc` it decides events on
//! any thread.

mod compile;
mod decide;
mod definition;
mod event_pattern;
mod explain;
mod index;
#[cfg(test)]
mod laws;
mod problem;
mod route;
mod specificity;
#[cfg(test)]
mod tests;
mod type_pattern;

pub use compile::{Strategy, StrategySet};
pub use decide::{Chosen, Decision, NEAR_MISSES_MAX, NearMiss};
pub use definition::{
    Action, NAME_BYTES_MAX, PATTERN_TOKENS_MAX, SCORE_MAX, STRATEGIES_MAX, StrategyDefinition,
    TENANT_ANY, VARIABLES_MAX, WEIGHT_MAX, WorkflowRef,
};
pub use event_pattern::{
    PATTERN_ALTERNATIVES_MAX, PATTERN_DEPTH_MAX, PATTERN_DIGITS_MAX, PATTERN_TEXT_BYTES_MAX,
    PATTERN_VALUES_MAX, WILDCARD_STARS_MAX,
};
pub use explain::{EXPLAINED_MAX, Explained, Explanation, PatternPart, Standing};
pub use problem::{StrategyProblem, StrategyProblemKind};
pub use route::RouteError;
pub use specificity::Specificity;
pub use type_pattern::{check_type_pattern, type_matches};
