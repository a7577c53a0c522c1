//! The workflow document.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::Cel;

/// A workflow document.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub(super) struct WorkflowFile {
    /// The workflow.
    workflow: Workflow,
}

/// Tasks, the order between them, and what a run may take.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
struct Workflow {
    /// Name of the workflow.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9._-]+$"))]
    name: String,
    /// Version; put it in quotes: "1.0".
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9._-]+$"))]
    version: String,
    /// What the workflow is for.
    description: Option<String>,
    /// How the work is organised; descriptive.
    orchestration_pattern: Option<Pattern>,
    /// JSON Schema of a run's input; `type`, `required` and `properties` with
    /// `type` have an effect.
    input: Option<BTreeMap<String, Value>>,
    /// The tasks, in any order.
    #[schemars(length(min = 1, max = 100_000))]
    tasks: Vec<Task>,
    /// What a run may take.
    fault_tolerance: Option<FaultTolerance>,
}

/// How the work is organised.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
enum Pattern {
    Supervisor,
    Hierarchical,
    Handoff,
    Swarm,
    Network,
    Custom,
    Pipeline,
}

/// What a run may take.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
struct FaultTolerance {
    /// Time limit of a run; 24h when absent.
    run_timeout: Option<DurationText>,
}

/// One task: exactly one of `http`, `transform`, `noop`, `wait`.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
struct Task {
    /// Unique within the workflow. In CEL an id with a hyphen is `tasks['an-id']`.
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[a-z0-9][a-z0-9_-]*$"))]
    id: String,
    /// The tasks that this one waits for.
    depends_on: Option<Vec<String>>,
    /// CEL over `input`, `tasks`, `event`: whether the task runs at all.
    when: Option<Cel>,
    /// `all` (default): all have ended and one completed; `any`: the first has completed.
    join: Option<Join>,
    /// Time limit of one attempt; 30s when absent.
    timeout: Option<DurationText>,
    /// When a failed attempt is made again; one attempt when absent.
    retry: Option<Retry>,
    /// Short form of `retry`.
    retry_policy: Option<RetryPolicy>,
    /// Calls a plugin: POST with a JSON body.
    http: Option<Http>,
    /// CEL: the task's output.
    transform: Option<Cel>,
    /// Does nothing: `noop: {}`.
    noop: Option<Noop>,
    /// Waits for an event.
    wait: Option<Wait>,
}

/// A number of seconds, or a text such as 200ms, 10s, 5m, 24h, 7d.
#[derive(JsonSchema, Serialize)]
#[serde(untagged)]
enum DurationText {
    /// With a unit.
    Text(#[schemars(regex(pattern = r"^[0-9]+(ms|s|m|h|d)$"))] String),
    /// Seconds.
    Seconds(f64),
}

/// Which dependencies must have ended.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
enum Join {
    All,
    Any,
}

/// Exponential backoff with full jitter.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
struct Retry {
    /// Attempts in all.
    #[schemars(range(min = 1, max = 100))]
    max_attempts: u32,
    /// Upper bound of the first pause; 200ms when absent.
    initial: Option<DurationText>,
    /// Growth of that bound; 2 when absent.
    #[schemars(range(min = 1, max = 100))]
    factor: Option<f64>,
    /// Largest bound; 30s when absent.
    max: Option<DurationText>,
    /// Only full jitter exists.
    jitter: Option<Jitter>,
    /// The failures worth another attempt; timeout, connect, `http_5xx` when absent.
    on: Option<Vec<FailureClass>>,
}

/// How pauses vary.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
enum Jitter {
    Full,
}

/// Why an attempt failed.
#[derive(JsonSchema, Serialize)]
enum FailureClass {
    #[serde(rename = "timeout")]
    Timeout,
    #[serde(rename = "connect")]
    Connect,
    #[serde(rename = "http_3xx")]
    Http3xx,
    #[serde(rename = "http_4xx")]
    Http4xx,
    #[serde(rename = "http_5xx")]
    Http5xx,
    #[serde(rename = "response_too_large")]
    ResponseTooLarge,
    #[serde(rename = "response_not_json")]
    ResponseNotJson,
    #[serde(rename = "not_allowed")]
    NotAllowed,
    #[serde(rename = "cancelled")]
    Cancelled,
    #[serde(rename = "expression")]
    Expression,
    #[serde(rename = "unknown")]
    Unknown,
}

/// Short forms of `retry`.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
enum RetryPolicy {
    ExponentialBackoff,
    None,
}

/// A call of a plugin.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
struct Http {
    /// Which plugin; the engine's configuration says where it lives.
    #[schemars(length(min = 1, max = 128))]
    plugin: String,
    /// `/plugin/runtime/<plugin>/execute` when absent.
    path: Option<String>,
    /// CEL: the body; `input` when absent.
    body: Option<Cel>,
    /// Whether the plugin recognises a repeated idempotency key; true when absent.
    idempotent: Option<bool>,
}

/// A wait for an event by its type and correlation key.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
struct Wait {
    /// Type of the event, or a pattern: `*` is one token, `>` at the end the rest.
    #[schemars(length(min = 1, max = 256))]
    event: String,
    /// CEL: the event's `correlationkey`, a text of 1 to 2048 bytes.
    correlation: Cel,
    /// How long to wait; 24h when absent.
    timeout: Option<DurationText>,
}

/// Nothing.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
struct Noop {}
