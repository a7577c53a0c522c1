//! Cases beside strategies: an event, and what is to become of it.

use fermata_core::identity::Tenant;
use serde_json::{Map, Value};

use crate::fields::{Fields, Keys, Reader};
use crate::spelling;
use crate::tree::{Located, Tree};

pub(crate) const TEST: Keys =
    Keys { known: &["name", "tenant", "event", "expect", "description"], later: &[] };
pub(crate) const EXPECT: Keys =
    Keys { known: &["start", "variables", "ignored", "failed"], later: &[] };

/// Whose the event of a test is that names no tenant.
const TENANT_DEFAULT: &str = "test";

/// What an event says that a test leaves out.
const ATTRIBUTES_DEFAULT: [(&str, &str); 3] =
    [("specversion", "1.0"), ("id", "test"), ("source", "/test")];

/// One case.
#[derive(Debug, Clone, PartialEq)]
pub struct StrategyTest {
    /// What it shows, unique or not.
    pub name: String,
    /// Line in the document, from 1.
    pub line: u32,
    /// Whose event it is.
    pub tenant: String,
    /// The event as a JSON object, with what every event must have.
    pub event: Value,
    /// What is to become of it.
    pub expect: Expectation,
}

/// What is to become of an event.
#[derive(Debug, Clone, PartialEq)]
pub enum Expectation {
    /// These strategies start runs, in any order.
    Start {
        /// Their names.
        strategies: Vec<String>,
        /// All variables of the run, where only one is to start.
        variables: Option<Value>,
    },
    /// This strategy ignores it.
    Ignored(String),
    /// The variables of this strategy cannot be evaluated.
    Failed(String),
    /// No strategy matches.
    Unmatched,
    /// It is no event that is let in.
    Rejected,
}

pub(crate) fn test(reader: &mut Reader, path: &str, located: &Located) -> Option<StrategyTest> {
    let fields = reader.mapping(path, located, &TEST)?;
    let name = fields.require(reader, "name", Reader::text);
    fields.read(reader, "description", Reader::text);
    let tenant = fields.read(reader, "tenant", tenant);
    let event = fields.require(reader, "event", event);
    let expect = fields.require(reader, "expect", expectation);
    Some(StrategyTest {
        name: name?,
        line: located.start.line,
        tenant: tenant.unwrap_or_else(|| TENANT_DEFAULT.to_owned()),
        event: event?,
        expect: expect?,
    })
}

fn tenant(reader: &mut Reader, path: &str, located: &Located) -> Option<String> {
    let name = reader.text(path, located)?;
    if name.parse::<Tenant>().is_ok() {
        return Some(name);
    }
    reader.problems.add(
        located.start,
        path,
        "an event belongs to one tenant; this is no name of one",
    );
    None
}

fn event(reader: &mut Reader, path: &str, located: &Located) -> Option<Value> {
    let Value::Object(given) = located.to_json() else {
        reader.expected(path, located, "a mapping: the event");
        return None;
    };
    if !given.contains_key("type") {
        let hint = "the other attributes may be left out";
        reader.problems.add_with_hint(located.start, path, "`type` is missing", hint);
        return None;
    }
    let defaults = ATTRIBUTES_DEFAULT.map(|(name, value)| (name.to_owned(), value.into()));
    let mut event: Map<String, Value> = defaults.into_iter().collect();
    event.extend(given);
    Some(Value::Object(event))
}

fn expectation(reader: &mut Reader, path: &str, located: &Located) -> Option<Expectation> {
    const HINT: &str = "write `unmatched`, `rejected`, or one of `start`, `ignored` and `failed` \
                        with the names of strategies";
    match &located.value {
        Tree::Text(text) if text == "unmatched" => Some(Expectation::Unmatched),
        Tree::Text(text) if text == "rejected" => Some(Expectation::Rejected),
        Tree::Text(text) => {
            let hint = spelling::hint(text, ["unmatched", "rejected"]);
            let message = "this is no outcome of an event";
            reader.problems.add_with_hint(
                located.start,
                path,
                message,
                hint.as_deref().unwrap_or(HINT),
            );
            None
        }
        Tree::Map(_) => {
            let fields = reader.mapping(path, located, &EXPECT)?;
            let outcomes = ["start", "ignored", "failed"];
            if outcomes.into_iter().filter(|outcome| fields.get(outcome).is_some()).count() != 1 {
                reader.problems.add_with_hint(located.start, path, "expected one outcome", HINT);
                return None;
            }
            outcome(reader, &fields)
        }
        Tree::Null | Tree::Bool(_) | Tree::Number(_) | Tree::List(_) => {
            reader.expected(path, located, "a text or a mapping");
            None
        }
    }
}

fn outcome(reader: &mut Reader, fields: &Fields<'_>) -> Option<Expectation> {
    if let Some(strategy) = fields.read(reader, "ignored", Reader::text) {
        return without_variables(reader, fields, Expectation::Ignored(strategy));
    }
    if let Some(strategy) = fields.read(reader, "failed", Reader::text) {
        return without_variables(reader, fields, Expectation::Failed(strategy));
    }
    let strategies = fields.read(reader, "start", names)?;
    if strategies.len() == 1 {
        let variables = fields.get("variables").map(Located::to_json);
        return Some(Expectation::Start { strategies, variables });
    }
    without_variables(reader, fields, Expectation::Start { strategies, variables: None })
}

fn without_variables(
    reader: &mut Reader,
    fields: &Fields<'_>,
    expected: Expectation,
) -> Option<Expectation> {
    let Some(entry) = fields.entry("variables") else { return Some(expected) };
    let message = "`variables` are those of one run; expect one strategy to start";
    reader.problems.add(entry.key_start, &fields.path_to("variables"), message);
    None
}

fn names(reader: &mut Reader, path: &str, located: &Located) -> Option<Vec<String>> {
    if let Tree::Text(name) = &located.value {
        return Some(vec![name.clone()]);
    }
    let items = reader.list(path, located)?;
    if items.is_empty() {
        let hint = "write `unmatched`, or `ignored` with a strategy";
        reader.problems.add_with_hint(located.start, path, "nothing is to start", hint);
        return None;
    }
    let items = items.iter().enumerate();
    items.map(|(at, item)| reader.text(&format!("{path}[{at}]"), item)).collect()
}
