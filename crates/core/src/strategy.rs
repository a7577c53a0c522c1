//! Which event starts which workflow.
//!
//! A [`StrategySet`] is compiled once from a bundle of definitions, all or
//! nothing, and is then immutable: shared behind an `Arc` it decides events on
//! any thread.

mod compile;
mod decide;
mod definition;
mod index;
#[cfg(test)]
mod laws;
mod pattern;
mod problem;
#[cfg(test)]
mod tests;

pub use compile::{Strategy, StrategySet};
pub use decide::{Chosen, Decision, NEAR_MISSES_MAX, NearMiss};
pub use definition::{
    Action, NAME_BYTES_MAX, PATTERN_TOKENS_MAX, STRATEGIES_MAX, StrategyDefinition, TENANT_ANY,
    VARIABLES_MAX, WEIGHT_MAX, WorkflowRef,
};
pub use problem::{StrategyProblem, StrategyProblemKind};
