//! JSON Schemas of the documents, for editors and for those who generate them.
//!
//! The types here only describe; the readers decide. A test holds their keys
//! against each other.

#![expect(dead_code, reason = "the fields exist for the schema that is derived from them")]

use std::collections::BTreeMap;

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde::Serialize;
use serde_json::Value;

/// The JSON Schema (2020-12) of a workflow document.
#[must_use]
pub fn workflow_schema() -> Value {
    schema_of::<WorkflowFile>()
}

/// The JSON Schema (2020-12) of a strategies document.
#[must_use]
pub fn strategies_schema() -> Value {
    schema_of::<StrategiesFile>()
}

fn schema_of<T: JsonSchema>() -> Value {
    let generator = SchemaGenerator::new(SchemaSettings::draft2020_12());
    let mut schema = generator.into_root_schema_for::<T>().to_value();
    forbid_null(&mut schema);
    schema
}

/// Takes `null` out of every choice: a key that is not wanted is left out, the
/// readers refuse one without a value.
fn forbid_null(schema: &mut Value) {
    let is_null = |choice: &Value| choice == "null" || choice["type"] == "null";
    if let Value::Object(object) = schema {
        for keyword in ["type", "anyOf", "enum"] {
            let Some(Value::Array(choices)) = object.get_mut(keyword) else { continue };
            choices.retain(|choice| !is_null(choice) && !choice.is_null());
            if keyword == "enum" || choices.len() != 1 {
                continue;
            }
            let only = choices.pop();
            object.remove(keyword);
            match only {
                Some(Value::Object(only)) => object.extend(only),
                Some(only) => drop(object.insert(keyword.to_owned(), only)),
                None => {}
            }
        }
        object.values_mut().for_each(forbid_null);
    } else if let Value::Array(items) = schema {
        items.iter_mut().for_each(forbid_null);
    }
}

/// A workflow document.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
struct WorkflowFile {
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

/// One task: exactly one of `http`, `transform`, `noop`.
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
}

/// A CEL expression of at most 4 KiB.
#[derive(JsonSchema, Serialize)]
#[serde(untagged)]
enum Cel {
    /// The expression.
    Text(String),
    /// A constant.
    Number(f64),
    /// A constant.
    Truth(bool),
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

/// Nothing.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
struct Noop {}

/// A strategies document: `strategies`, or `tests`, or both.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
struct StrategiesFile {
    /// The strategies; all of a document are applied or none.
    strategies: Option<Vec<Strategy>>,
    /// Cases for `fermata strategy test`.
    tests: Option<Vec<Test>>,
}

/// A case: an event, and what is to become of it.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
struct Test {
    /// What the case shows.
    name: String,
    /// Why the case is here.
    description: Option<String>,
    /// Whose event it is; `test` when absent.
    tenant: Option<String>,
    /// The event, as CloudEvents JSON; only `type` must be there.
    event: BTreeMap<String, Value>,
    /// What is to become of it.
    expect: Expected,
}

/// What is to become of an event.
#[derive(JsonSchema, Serialize)]
#[serde(untagged)]
enum Expected {
    /// No strategy takes it.
    Nothing(ExpectedNothing),
    /// A strategy takes it.
    Outcome(Outcome),
}

/// What becomes of an event that no strategy takes.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
enum ExpectedNothing {
    Unmatched,
    Rejected,
}

/// One of `start`, `ignored` and `failed`.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
struct Outcome {
    /// The strategies that start a run, in any order.
    start: Option<OneOrMore>,
    /// All variables of the run, where one is to start.
    variables: Option<BTreeMap<String, Value>>,
    /// The strategy that ignores the event.
    ignored: Option<String>,
    /// The strategy whose variables cannot be evaluated.
    failed: Option<String>,
}

/// A name or several.
#[derive(JsonSchema, Serialize)]
#[serde(untagged)]
enum OneOrMore {
    /// One name.
    One(String),
    /// Several.
    More(Vec<String>),
}

/// What an event must say, in the syntax of EventBridge: all fields must match,
/// and `$or` holds patterns of which one must.
#[derive(JsonSchema, Serialize)]
#[serde(transparent)]
struct EventPattern(BTreeMap<String, PatternField>);

/// What a field must be.
#[derive(JsonSchema, Serialize)]
#[serde(untagged)]
enum PatternField {
    /// One of these; a value that is no object equals only itself.
    Values(#[schemars(length(min = 1, max = 256))] Vec<PatternValue>),
    /// An object, or a list with an object, that matches.
    Inside(EventPattern),
    /// Under `$or`: one of these.
    Either(#[schemars(length(min = 2, max = 256))] Vec<EventPattern>),
}

/// What a value must be.
#[derive(JsonSchema, Serialize)]
#[serde(untagged)]
enum PatternValue {
    /// This text.
    Text(#[schemars(length(max = 1024))] String),
    /// This number.
    Number(f64),
    /// This truth value.
    Truth(bool),
    /// No value.
    Nothing(NoValue),
    /// What the operator says.
    Operator(Operator),
}

/// `null`.
#[derive(Serialize)]
struct NoValue;

impl JsonSchema for NoValue {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "NoValue".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "const": null })
    }
}

/// One operator.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Operator {
    /// A text that begins so.
    Prefix(TextOrAnyCase),
    /// A text that ends so.
    Suffix(TextOrAnyCase),
    /// This text, upper and lower case being alike.
    EqualsIgnoreCase(String),
    /// A text in which `*` stands for any characters.
    Wildcard(String),
    /// An IP address in this network.
    Cidr(String),
    /// Whether there is a value at all.
    Exists(bool),
    /// A number that compares so: `[">", 0, "<=", 5]`.
    Numeric(#[schemars(length(min = 2, max = 4))] Vec<Comparison>),
    /// Any value but these, or none that the operator holds for.
    AnythingBut(Value),
}

/// A text, or one whose case does not matter.
#[derive(JsonSchema, Serialize)]
#[serde(untagged)]
enum TextOrAnyCase {
    /// As it is.
    Text(String),
    /// In any case.
    AnyCase(AnyCase),
}

/// In any case.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
#[serde(rename_all = "kebab-case")]
struct AnyCase {
    equals_ignore_case: String,
}

/// An operator or a number.
#[derive(JsonSchema, Serialize)]
#[serde(untagged)]
enum Comparison {
    /// The operator.
    Operator(#[schemars(regex(pattern = r"^(<|<=|>|>=|=)$"))] String),
    /// The number.
    Number(f64),
}

/// Which event starts which workflow: `workflow` or `action: ignore`.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
struct Strategy {
    /// Unique per tenant.
    #[schemars(length(min = 1, max = 128))]
    name: String,
    /// Counts up with every change.
    #[schemars(range(min = 1))]
    version: u32,
    /// A tenant, or `*` for all.
    tenant: String,
    /// Type pattern: exact, `plugin.job.*` (one token), `plugin.>` (one or more).
    on: String,
    /// What the event must say for the strategy to match.
    #[serde(rename = "match")]
    pattern: Option<EventPattern>,
    /// What the strategy is for.
    description: Option<String>,
    /// CEL over `event`: whether the strategy matches, asked when `match` does.
    when: Option<Cel>,
    /// The highest wins; 0 when absent.
    priority: Option<i64>,
    /// Share among equals, split by event key; 100 when absent.
    #[schemars(range(min = 1, max = 1_000_000))]
    weight: Option<u32>,
    /// Runs beside the winner.
    fan_out: Option<bool>,
    /// The workflow to run.
    workflow: Option<WorkflowName>,
    /// The run's input by name, each a CEL expression over `event`; the
    /// event's data when absent.
    variables: Option<BTreeMap<String, Cel>>,
    /// `ignore`: starts nothing, on purpose.
    action: Option<ActionName>,
}

/// A workflow by name and version.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
struct WorkflowName {
    name: String,
    version: String,
}

/// What to do instead of running a workflow.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
enum ActionName {
    Ignore,
    Run,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::fields::Keys;
    use crate::{strategies, strategy_tests, workflow};

    fn keys_of(schema: &Value, definition: Option<&str>) -> BTreeSet<String> {
        let object = match definition {
            Some(name) => &schema["$defs"][name],
            None => schema,
        };
        object["properties"].as_object().unwrap().keys().cloned().collect()
    }

    #[test]
    fn no_schema_allows_a_key_without_a_value() {
        let task = &workflow_schema()["$defs"]["Task"]["properties"];

        assert_eq!(task["depends_on"]["type"], "array");
        assert_eq!(task["join"]["$ref"], "#/$defs/Join");
        assert!(!workflow_schema().to_string().contains("null"));
        // A pattern's value may be `null`; that is a constant, and no type.
        assert!(!strategies_schema().to_string().contains("\"null\""));
    }

    #[test]
    fn the_schemas_know_the_keys_that_the_readers_know() {
        let workflow = workflow_schema();
        let strategies = strategies_schema();
        let expected: [(&Value, Option<&str>, Keys); 10] = [
            (&workflow, None, workflow::DOCUMENT),
            (&workflow, Some("Workflow"), workflow::WORKFLOW),
            (&workflow, Some("FaultTolerance"), workflow::FAULT_TOLERANCE),
            (&workflow, Some("Task"), workflow::TASK),
            (&workflow, Some("Http"), workflow::HTTP),
            (&workflow, Some("Retry"), workflow::RETRY),
            (&strategies, None, strategies::DOCUMENT),
            (&strategies, Some("Strategy"), strategies::STRATEGY),
            (&strategies, Some("Test"), strategy_tests::TEST),
            (&strategies, Some("Outcome"), strategy_tests::EXPECT),
        ];
        for (schema, definition, keys) in expected {
            let known: BTreeSet<_> = keys.known.iter().map(|key| (*key).to_owned()).collect();

            assert_eq!(keys_of(schema, definition), known, "{definition:?}");
        }
    }
}
