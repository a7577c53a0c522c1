//! The strategies document.

use std::collections::BTreeMap;

use fermata_core::expression::Expression;
use fermata_core::strategy::{
    Action, StrategyDefinition, StrategyProblem, StrategyProblemKind, StrategySet, WorkflowRef,
};

use crate::fields::{Fields, Keys, Reader, join};
use crate::problem::{FoundProblems, Problem, Problems};
use crate::strategy_tests::{self, StrategyTest};
use crate::tree::{Entry, Limits, Located, Tree};

pub(crate) const DOCUMENT: Keys = Keys { known: &["strategies", "tests"], later: &[] };
pub(crate) const STRATEGY: Keys = Keys {
    known: &[
        "name",
        "version",
        "tenant",
        "on",
        "match",
        "when",
        "priority",
        "weight",
        "fan_out",
        "workflow",
        "variables",
        "action",
        "description",
    ],
    later: &[
        ("canary", "apply the strategy when it is ready"),
        ("shadow", "apply the strategy when it is ready"),
        ("state", "apply the strategy when it is ready"),
        ("permission", "leave it out"),
        ("tests", "write them beside `strategies`, not inside of one"),
    ],
};
pub(crate) const WORKFLOW: Keys = Keys { known: &["name", "version"], later: &[] };

/// A strategies document: strategies, and cases that show what they do.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StrategiesDocument {
    /// The strategies.
    pub strategies: Vec<StrategyDefinition>,
    /// The cases, which may also be about strategies of other documents.
    pub tests: Vec<StrategyTest>,
}

/// Reads the strategies of one document, checks everything in it, all or nothing.
///
/// # Errors
///
/// Everything that is wrong with the document, in its order.
pub fn read_strategies(
    source: &str,
    file: Option<&str>,
    limits: &Limits,
) -> Result<Vec<StrategyDefinition>, FoundProblems> {
    read_strategies_document(source, file, limits).map(|document| document.strategies)
}

/// Reads one strategies document with its tests, all or nothing.
///
/// # Errors
///
/// Everything that is wrong with the document, in its order.
pub fn read_strategies_document(
    source: &str,
    file: Option<&str>,
    limits: &Limits,
) -> Result<StrategiesDocument, FoundProblems> {
    let mut problems = Problems::of_file(file);
    let Some(tree) = Located::parse(source, limits, &mut problems) else {
        return Err(problems.into_sorted());
    };
    let mut reader = Reader { problems };
    let (found, places) = document(&mut reader, &tree).unwrap_or_default();
    let mut problems = reader.problems;
    if let Err(found_by_core) = StrategySet::compile(found.strategies.clone()) {
        let of_the_document =
            |one: &StrategyProblem| places.get(one.index).is_none_or(|place| place.is_about(one));
        let found_by_core = found_by_core.into_iter().filter(of_the_document);
        let found_by_core = found_by_core.map(|one| problem(&found.strategies, &places, one));
        problems.locate(found_by_core.collect(), &tree, source);
    }
    if problems.is_empty() { Ok(found) } else { Err(problems.into_sorted()) }
}

/// Where in the document a strategy stands, and what of it its author did not say.
#[derive(Debug)]
struct Origin {
    at: usize,
    /// Keys that are missing or cannot be read, which is told already: stand-ins let the rest of
    /// the strategy be checked.
    stand_ins: Vec<&'static str>,
}

impl Origin {
    /// Whether a problem is about what stands in the document, and not about a stand-in.
    fn is_about(&self, found: &StrategyProblem) -> bool {
        if matches!(found.kind, StrategyProblemKind::TooCostly { .. }) {
            // What a strategy costs depends on all of it.
            return self.stand_ins.is_empty();
        }
        let key = found.field.split('.').next().unwrap_or_default();
        !self.stand_ins.contains(&key)
    }
}

/// The document, and where in it each of its strategies stands: one that is no mapping is none,
/// so that the others can be checked.
fn document(reader: &mut Reader, tree: &Located) -> Option<(StrategiesDocument, Vec<Origin>)> {
    let fields = reader.mapping("", tree, &DOCUMENT)?;
    let tests = fields.read(reader, "tests", |reader, path, located| {
        each(reader, path, located, strategy_tests::test)
    });
    // A document may hold tests alone, for strategies that stand elsewhere.
    let strategies =
        |reader: &mut Reader, path: &str, located| each(reader, path, located, strategy);
    let strategies = if fields.get("tests").is_some() {
        fields.read(reader, "strategies", strategies)
    } else {
        fields.require(reader, "strategies", strategies)
    };
    let (places, strategies) = strategies.unwrap_or_default();
    let place = |(at, (strategy, stand_ins))| (strategy, Origin { at, stand_ins });
    let (strategies, places) = places.into_iter().zip(strategies).map(place).unzip();
    let (_, tests) = tests.unwrap_or_default();
    Some((StrategiesDocument { strategies, tests }, places))
}

/// What could be read of a list, with its places.
fn each<T>(
    reader: &mut Reader,
    path: &str,
    located: &Located,
    read: impl Fn(&mut Reader, &str, &Located) -> Option<T>,
) -> Option<(Vec<usize>, Vec<T>)> {
    let items = reader.list(path, located)?.iter().enumerate();
    let read = |(at, item)| Some((at, read(reader, &format!("{path}[{at}]"), item)?));
    Some(items.filter_map(read).unzip())
}

/// A strategy, with stand-ins for the keys that could not be read.
fn strategy(
    reader: &mut Reader,
    path: &str,
    located: &Located,
) -> Option<(StrategyDefinition, Vec<&'static str>)> {
    let fields = reader.mapping(path, located, &STRATEGY)?;
    let name = fields.require(reader, "name", Reader::text);
    let version = fields.require(reader, "version", Reader::whole);
    let tenant = fields.require(reader, "tenant", Reader::text);
    let on = fields.require(reader, "on", Reader::text);
    fields.read(reader, "description", Reader::text);
    let pattern = fields.get("match").map(Located::to_json);
    let when = fields.read(reader, "when", Reader::expression);
    let priority = fields.read(reader, "priority", Reader::whole);
    let weight = fields.read(reader, "weight", Reader::whole);
    let fan_out = fields.read(reader, "fan_out", Reader::truth);
    let action = action(reader, &fields);
    let read = [
        ("name", name.is_some()),
        ("version", version.is_some()),
        ("tenant", tenant.is_some()),
        ("on", on.is_some()),
        ("workflow", action.is_some()),
        ("fan_out", action.is_some()),
    ];
    let stand_ins = read.into_iter().filter(|(_, is_read)| !is_read).map(|(key, _)| key).collect();
    let definition = StrategyDefinition {
        // No name can be so: it is that of no other strategy.
        name: name.unwrap_or_else(|| path.to_owned()),
        version: version.unwrap_or(1),
        tenant: tenant.unwrap_or_else(|| path.to_owned()),
        on: on.unwrap_or_else(|| path.to_owned()),
        pattern,
        when,
        priority: priority.unwrap_or(0),
        weight: weight.unwrap_or(WEIGHT_DEFAULT),
        fan_out: fan_out.unwrap_or(false),
        action: action.unwrap_or_else(|| unread_action(&fields)),
    };
    Some((definition, stand_ins))
}

/// What stands for an action that could not be read: its variables can be checked all the same.
fn unread_action(fields: &Fields<'_>) -> Action {
    // Whatever is wrong with one of them is told where the action is read.
    let expression = |entry: &Entry| match &entry.value.value {
        Tree::Text(text) => Some((entry.key.clone(), text.clone())),
        Tree::Null | Tree::Bool(_) | Tree::Number(_) | Tree::List(_) | Tree::Map(_) => None,
    };
    let variables = match fields.get("variables").map(|variables| &variables.value) {
        Some(Tree::Map(entries)) => Some(entries.iter().filter_map(expression).collect()),
        Some(Tree::Null | Tree::Bool(_) | Tree::Number(_) | Tree::Text(_) | Tree::List(_))
        | None => None,
    };
    let unread = WorkflowRef { name: String::new(), version: String::new() };
    Action::Run { workflow: unread, variables }
}

/// Weight of a strategy that names none: a hundred, so that others can be
/// lighter as well as heavier.
const WEIGHT_DEFAULT: u32 = 100;

fn action(reader: &mut Reader, fields: &Fields<'_>) -> Option<Action> {
    let named = fields.read(reader, "action", Reader::text);
    match (named.as_deref(), fields.entry("workflow")) {
        (Some("ignore"), None) => {
            if let Some(entry) = fields.entry("variables") {
                let path = fields.path_to("variables");
                let message = "`variables` have no effect with `action: ignore`";
                reader.problems.add(entry.key_start, &path, message);
            }
            Some(Action::Ignore)
        }
        (Some("ignore"), Some(entry)) => {
            let message = "a strategy either ignores an event or runs a workflow";
            reader.problems.add(entry.key_start, &fields.path_to("workflow"), message);
            None
        }
        (Some("run") | None, Some(_)) => {
            let workflow = fields.read(reader, "workflow", workflow);
            let variables = fields.read(reader, "variables", variables);
            Some(Action::Run { workflow: workflow?, variables })
        }
        (Some(_), _) => {
            let start = fields.get("action").map_or(fields.start, |located| located.start);
            let hint = "`ignore`, or leave it out and name a `workflow`";
            let path = fields.path_to("action");
            reader.problems.add_with_hint(start, &path, "expected `ignore`", hint);
            None
        }
        (None, None) => {
            if fields.get("action").is_none() {
                let message = "the strategy does nothing";
                let hint = "name a `workflow`, or write `action: ignore`";
                reader.problems.add_with_hint(fields.start, &fields.path, message, hint);
            }
            None
        }
    }
}

fn workflow(reader: &mut Reader, path: &str, located: &Located) -> Option<WorkflowRef> {
    let fields = reader.mapping(path, located, &WORKFLOW)?;
    let name = fields.require(reader, "name", Reader::text);
    let version = fields.require(reader, "version", Reader::text);
    Some(WorkflowRef { name: name?, version: version? })
}

fn variables(
    reader: &mut Reader,
    path: &str,
    located: &Located,
) -> Option<BTreeMap<String, String>> {
    let Tree::Map(entries) = &located.value else {
        reader.expected(path, located, "a mapping of names to CEL expressions");
        return None;
    };
    let mut variables = BTreeMap::new();
    for entry in entries {
        // One that cannot be read is told; the others can be checked.
        let value = reader.expression(&join(path, &entry.key), &entry.value);
        variables.extend(value.map(|value| (entry.key.clone(), value)));
    }
    Some(variables)
}

/// A problem that core found, with the path to it and, for an expression, the
/// place inside of it.
fn problem(
    definitions: &[StrategyDefinition],
    places: &[Origin],
    mut found: StrategyProblem,
) -> Problem {
    let place = |index: usize| places.get(index).map_or(index, |place| place.at);
    if let StrategyProblemKind::DuplicateName { other } = &mut found.kind {
        *other = place(*other);
    }
    let position = match &found.kind {
        StrategyProblemKind::BadExpression(_) => expression(definitions, &found)
            .and_then(|source| Expression::compile(source).err())
            .and_then(|error| error.position),
        StrategyProblemKind::TooMany { .. }
        | StrategyProblemKind::BadName(_)
        | StrategyProblemKind::BadVersion
        | StrategyProblemKind::BadTenant(_)
        | StrategyProblemKind::BadPattern { .. }
        | StrategyProblemKind::BadMatch { .. }
        | StrategyProblemKind::TooCostly { .. }
        | StrategyProblemKind::BadWeight(_)
        | StrategyProblemKind::DuplicateName { .. }
        | StrategyProblemKind::BadWorkflowVersion(_)
        | StrategyProblemKind::TooManyVariables { .. }
        | StrategyProblemKind::BadVariableName(_)
        | StrategyProblemKind::FanOutOfNothing
        | StrategyProblemKind::UnknownReference(_) => None,
    };
    let (line, column) = position.unwrap_or((0, 0));
    let path = if let StrategyProblemKind::TooMany { .. } = &found.kind {
        "strategies".to_owned()
    } else {
        format!("strategies[{}].{}", place(found.index), found.field)
    };
    let hint = found.kind.hint().map(str::to_owned);
    Problem { file: None, line, column, path, message: found.kind.to_string(), hint }
}

fn expression<'d>(
    definitions: &'d [StrategyDefinition],
    found: &StrategyProblem,
) -> Option<&'d str> {
    let definition = definitions.get(found.index)?;
    match (&definition.action, found.field.strip_prefix("variables.")) {
        (Action::Run { variables, .. }, Some(name)) => {
            variables.as_ref()?.get(name).map(String::as_str)
        }
        (Action::Run { .. } | Action::Ignore, _) => definition.when.as_deref(),
    }
}
