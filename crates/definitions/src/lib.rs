//! Workflows and strategies as people write them, in YAML or JSON.
//!
//! A document becomes a tree in which every value knows its line and column,
//! the tree becomes a [`WorkflowDocument`] or a list of strategies, and a
//! workflow becomes a plan. Each step goes on after a problem where it can, so
//! a writer learns of all problems at once. A key that has no effect yet is
//! refused by name: nothing that somebody wrote is silently ignored.
//!
//! Documents are untrusted: their size, depth and number of values are
//! limited by [`Limits`], aliases are refused, and only `true` and `false` are
//! truth values.

mod build;
mod duration;
mod fields;
mod keywords;
mod outlasting;
mod problem;
mod schema;
mod spelling;
mod strategies;
mod strategy_tests;
mod tree;
mod undeclared;
mod workflow;

pub use build::{build, build_plan};
pub use keywords::suspected_keywords;
pub use outlasting::outlasting_timeouts;
pub use problem::{FoundProblems, Problem, lines, report};
pub use schema::{strategies_schema, workflow_schema};
pub use spelling::{did_you_mean, meant, nearest};
pub use strategies::{StrategiesDocument, read_strategies, read_strategies_document};
pub use strategy_tests::{Expectation, StrategyTest};
pub use tree::{DEPTH_MAX, ITEMS_MAX, Limits};
pub use undeclared::undeclared_inputs;
pub use workflow::{ORCHESTRATION_PATTERNS, TaskDocument, WorkflowDocument, read_workflow};

#[cfg(test)]
mod tests;
