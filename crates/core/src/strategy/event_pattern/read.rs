//! From JSON to a pattern, or to everything that is wrong with it.

mod operators;

use serde_json::{Map, Value};

use super::{
    EventPattern, Field, Group, PATTERN_ALTERNATIVES_MAX, PATTERN_DEPTH_MAX,
    PATTERN_TEXT_BYTES_MAX, PATTERN_VALUES_MAX, PatternProblem, Predicate, Wanted,
};
use crate::event::ATTRIBUTE_NAME_BYTES_MAX;
use crate::event::selection::PathId;

/// Most problems that are told of one pattern.
const PROBLEMS_MAX: usize = 50;

pub(super) fn read(value: &Value) -> Result<EventPattern, Vec<PatternProblem>> {
    let mut reader = Reader { problems: Vec::new(), values: 0 };
    let all = reader.group("match", value, Level { depth: 1, attributes: true });
    if reader.values > PATTERN_VALUES_MAX {
        let count = reader.values;
        let message = format!("the pattern has {count} values, the limit is {PATTERN_VALUES_MAX}");
        reader.report("match", message, Some("split the strategy"));
    }
    match all {
        Some(all) if reader.problems.is_empty() => Ok(EventPattern { all }),
        Some(_) | None => Err(reader.problems),
    }
}

/// Where in a pattern something stands.
#[derive(Clone, Copy)]
struct Level {
    depth: usize,
    /// Whether the names are those of the event's attributes.
    attributes: bool,
}

impl Level {
    fn below(self) -> Self {
        Self { depth: self.depth + 1, attributes: false }
    }
}

struct Reader {
    problems: Vec<PatternProblem>,
    values: usize,
}

impl Reader {
    fn report(&mut self, path: &str, message: impl Into<String>, hint: Option<&str>) {
        if self.problems.len() < PROBLEMS_MAX {
            let (path, message, hint) = (path.to_owned(), message.into(), hint.map(str::to_owned));
            self.problems.push(PatternProblem { path, message, hint });
        }
    }

    fn group(&mut self, path: &str, value: &Value, level: Level) -> Option<Group> {
        let Value::Object(members) = value else {
            let message = format!("expected a mapping of fields, found {}", kind(value));
            self.report(path, message, None);
            return None;
        };
        if level.depth > PATTERN_DEPTH_MAX {
            let message = format!("the pattern nests deeper than {PATTERN_DEPTH_MAX} levels");
            self.report(path, message, None);
            return None;
        }
        if members.is_empty() {
            let hint = "name a field, or leave this out; `exists` asks whether something is there";
            self.report(path, "the pattern says nothing here", Some(hint));
        }
        let mut group = Group::default();
        for (name, value) in members {
            let path = format!("{path}.{name}");
            if name == "$or" {
                group.choices.extend(self.choice(&path, value, level));
            } else if self.is_field_name(&path, name, level) {
                let wanted = self.wanted(&path, name, value, level);
                let name = name.as_str().into();
                group.fields.extend(wanted.map(|wanted| Field {
                    name,
                    path: PathId::EVENT,
                    wanted,
                }));
            }
        }
        Some(group)
    }

    fn choice(&mut self, path: &str, value: &Value, level: Level) -> Option<Vec<Group>> {
        let Value::Array(branches) = value else {
            let message = format!("expected a list of mappings, found {}", kind(value));
            self.report(path, message, None);
            return None;
        };
        if !(2..=PATTERN_ALTERNATIVES_MAX).contains(&branches.len()) {
            let count = branches.len();
            let message =
                format!("`$or` has {count} branches; it needs 2 to {PATTERN_ALTERNATIVES_MAX}");
            self.report(path, message, None);
            return None;
        }
        // One level deeper, and still the same names.
        let level = Level { depth: level.depth + 1, ..level };
        let branches = branches.iter().enumerate();
        Some(
            branches
                .filter_map(|(at, branch)| self.group(&format!("{path}[{at}]"), branch, level))
                .collect(),
        )
    }

    fn is_field_name(&mut self, path: &str, name: &str, level: Level) -> bool {
        let hint = if name.starts_with('$') {
            Some("names with `$` are operators, and only `$or` is one")
        } else if !level.attributes {
            (name.len() > PATTERN_TEXT_BYTES_MAX).then_some("the name is too long")
        } else {
            attribute_hint(name)
        };
        if let Some(hint) = hint {
            let shown: String = name.chars().take(80).collect();
            let what = if level.attributes { "an attribute of events" } else { "a field" };
            self.report(path, format!("`{shown}` is not {what}"), Some(hint));
        }
        hint.is_none()
    }

    fn wanted(&mut self, path: &str, name: &str, value: &Value, level: Level) -> Option<Wanted> {
        match value {
            Value::Array(values) => self.alternatives(path, values).map(Wanted::Values),
            Value::Object(_) if level.attributes && name != "data" => {
                let hint = "put the values into a list; fields are those of `data`";
                self.report(
                    path,
                    format!("`{name}` is an attribute, it has no fields"),
                    Some(hint),
                );
                None
            }
            Value::Object(members) => {
                if let Some(operator) = sole_operator(members) {
                    let hint = format!("put it into a list: `[{{ {operator}: … }}]`");
                    let message = format!("`{operator}` stands where a field's name is expected");
                    self.report(path, message, Some(&hint));
                    return None;
                }
                self.group(path, value, level.below()).map(Wanted::Inside)
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                let message = format!("expected a list of values, found {}", kind(value));
                let hint = format!("put it into brackets: `[{value}]`");
                self.report(path, message, Some(&hint));
                None
            }
        }
    }

    fn alternatives(&mut self, path: &str, values: &[Value]) -> Option<Vec<Predicate>> {
        self.each(path, values, Self::predicate)
    }
}

/// Why no event has an attribute of this name.
fn attribute_hint(name: &str) -> Option<&'static str> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    match name {
        "data_base64" => None,
        "specversion" => Some("it is always 1.0"),
        "detail" => Some("the event's content is under `data`"),
        "detail-type" => Some("the event's type is in `type`"),
        _ if name.starts_with("data.") => Some("nest it: `data: { field: [ … ] }`"),
        _ if (1..=ATTRIBUTE_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed) => {
            None
        }
        _ => Some(
            "attributes have 1 to 64 lower-case letters and digits; other fields are in `data`",
        ),
    }
}

/// The only key of a mapping that was probably meant to be a value.
fn sole_operator(members: &Map<String, Value>) -> Option<&str> {
    let mut entries = members.iter();
    let (Some((name, operand)), None) = (entries.next(), entries.next()) else { return None };
    let is_operand = match name.as_str() {
        "prefix" | "suffix" | "wildcard" | "equals-ignore-case" | "cidr" => operand.is_string(),
        "exists" => operand.is_boolean(),
        "anything-but" => !operand.is_object(),
        "numeric" => operand
            .get(0)
            .and_then(Value::as_str)
            .is_some_and(|first| first.starts_with(['<', '>', '='])),
        _ => false,
    };
    is_operand.then_some(name)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}
