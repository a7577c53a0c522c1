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

/// One task: exactly one of `http`, `transform`, `noop`, `delay`,
/// `emit`, `nats`, `command`, `wait`.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
struct Task {
    /// Unique within the workflow. In CEL an id with a hyphen is `tasks['an-id']`.
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[a-z0-9][a-z0-9_-]*$"))]
    id: String,
    /// The tasks that this one waits for.
    depends_on: Option<Vec<String>>,
    /// CEL over `input` and `tasks`: whether the task runs at all.
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
    /// Waits: for a time such as `10s`, or until a point of time.
    delay: Option<Delay>,
    /// Publishes an event of the run's own tenant, with the effect key as its id.
    emit: Option<Emit>,
    /// Asks over NATS and waits for the answer.
    nats: Option<Nats>,
    /// Runs a program of the engine's configuration.
    command: Option<Command>,
    /// Waits for an event.
    wait: Option<Wait>,
    /// The named queue whose workers run it; the engine's own when absent. For
    /// `http`, `nats`, `command`, `emit` and `noop`.
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[a-z0-9][a-z0-9-]*$"))]
    queue: Option<String>,
}

/// A program to run.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
struct Command {
    /// Which program; the engine's configuration says where it lies.
    #[schemars(length(min = 1, max = 128))]
    name: String,
    /// CEL: its arguments, a list of texts; none when absent.
    args: Option<Cel>,
    /// CEL: what it reads from its standard input, as JSON; `input` when absent.
    stdin: Option<Cel>,
    /// Whether it recognises a repeated idempotency key; false when absent.
    idempotent: Option<bool>,
}

/// An event to publish; `type` or `type_from`.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
struct Emit {
    /// The event's type, as it is.
    #[serde(rename = "type")]
    #[schemars(
        length(min = 1, max = 256),
        regex(pattern = r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")
    )]
    event_type: Option<String>,
    /// CEL: the event's type.
    type_from: Option<Cel>,
    /// CEL: the event's data; `input` when absent.
    data: Option<Cel>,
}

/// A question over NATS.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
struct Nats {
    /// Where; the engine's configuration says which subjects may be asked.
    #[schemars(length(min = 1, max = 256))]
    subject: String,
    /// CEL: the body; `input` when absent.
    body: Option<Cel>,
    /// Whether whoever answers recognises a repeated idempotency key; true when absent.
    idempotent: Option<bool>,
    /// What ends the task: the answer, when absent.
    completion: Option<Completion>,
}

/// How long a delay waits; shorter than the run may take.
#[derive(JsonSchema, Serialize)]
#[serde(untagged)]
enum Delay {
    /// From when the task is ready.
    For(DurationText),
    /// Until a point of time.
    Until(DelayUntil),
}

/// Until when a delay waits.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
struct DelayUntil {
    /// CEL: RFC 3339 text with a zone, or milliseconds since 1970.
    until: Cel,
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
    #[schemars(length(min = 1))]
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
    #[serde(rename = "too_many_hops")]
    TooManyHops,
    #[serde(rename = "no_responders")]
    NoResponders,
    #[serde(rename = "service_error")]
    ServiceError,
    #[serde(rename = "reported")]
    Reported,
    #[serde(rename = "exit_status")]
    ExitStatus,
    #[serde(rename = "exit_temporary")]
    ExitTemporary,
    #[serde(rename = "poisoned")]
    Poisoned,
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
    /// What ends the task: the answer, when absent.
    completion: Option<Completion>,
}

/// What ends a task that calls somebody.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
enum Completion {
    /// The answer to the call.
    Answer,
    /// A completion that names the call's token, within the task's `timeout`.
    Callback,
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
