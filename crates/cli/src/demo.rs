//! The parts of the demonstration that are not the engine: a plugin server that
//! counts effects, and the events with what they must come to.

pub mod plugin_server;
pub mod scenario;
pub mod tally;

/// The strategies that the demonstration applies.
pub const STRATEGIES: &str = include_str!("../../../examples/strategies.yaml");
/// The workflow that reports on finished jobs.
pub const REPORT_WORKFLOW: &str = include_str!("../../../examples/report.workflow.yaml");
/// The workflow that handles requests.
pub const REQUEST_WORKFLOW: &str = include_str!("../../../examples/request.workflow.yaml");
