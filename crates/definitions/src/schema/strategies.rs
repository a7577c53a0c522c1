//! The strategies document.

use std::collections::BTreeMap;

use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde_json::Value;

use super::Cel;

/// A strategies document: `strategies`, or `tests`, or both.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub(super) struct StrategiesFile {
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
