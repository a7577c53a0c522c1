//! Strategies as their authors write them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Most strategies in one set: an index of this size still fits in memory
/// many times over; a larger bundle is refused.
pub const STRATEGIES_MAX: usize = 100_000;
/// Longest name of a strategy, workflow or variable, in bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// Most tokens in a type pattern: as many as a broker's subject sensibly has.
pub const PATTERN_TOKENS_MAX: usize = 16;
/// Most variables of one strategy: bounds what one event can cost.
pub const VARIABLES_MAX: usize = 64;
/// Largest weight: with [`STRATEGIES_MAX`] the sum stays far below 2⁶⁴.
pub const WEIGHT_MAX: u32 = 1_000_000;
/// Highest score of strategies that one event can make be tried: about 64 conditions in CEL, some
/// 40 µs, or one of as many steps as there may be. A unit is one comparison.
pub const SCORE_MAX: u64 = 4_096;
/// The tenant scope that stands for every tenant.
pub const TENANT_ANY: &str = "*";

/// One strategy of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StrategyDefinition {
    /// Unique among the strategies that can see the same tenant's events:
    /// letters, digits, `-`, `_`, `.`; 1 to [`NAME_BYTES_MAX`] bytes.
    pub name: String,
    /// Counts up when the author changes something; at least 1.
    pub version: u32,
    /// Whose events it sees: a tenant, or [`TENANT_ANY`].
    pub tenant: String,
    /// Type pattern: exact (`plugin.job.completed`), `*` for one token
    /// (`plugin.job.*`), `>` at the end for one or more (`plugin.>`).
    pub on: String,
    /// What the event must say, as an event pattern; matches when absent.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub pattern: Option<Value>,
    /// Condition in CEL over `event`, for events that the pattern matches; holds
    /// when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// The highest wins.
    #[serde(default)]
    pub priority: i64,
    /// Share among equals, 1 to [`WEIGHT_MAX`]. There is no 0: a strategy
    /// that is never to be picked is taken out of the bundle.
    #[serde(default = "one")]
    pub weight: u32,
    /// Runs beside the winner whenever it matches, whatever its priority.
    #[serde(default)]
    pub fan_out: bool,
    /// What to do.
    pub action: Action,
}

const fn one() -> u32 {
    1
}

/// What a strategy does with an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Starts a workflow.
    Run {
        /// Which one.
        workflow: WorkflowRef,
        /// The run's variables by name, each a CEL expression over `event`,
        /// at most [`VARIABLES_MAX`]. Absent: the event's data.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        variables: Option<BTreeMap<String, String>>,
    },
    /// Starts nothing, on purpose.
    Ignore,
}

/// A workflow by name and version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkflowRef {
    /// The workflow's name.
    pub name: String,
    /// The version as its author writes it, for instance `1.0`.
    pub version: String,
}
