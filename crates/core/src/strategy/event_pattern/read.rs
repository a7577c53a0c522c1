//! From JSON to a pattern, or to everything that is wrong with it.

use std::ops::Bound;

use serde_json::{Map, Value};

use super::network::Network;
use super::predicate::{Folded, Literal, Predicate};
use super::range::Range;
use super::wildcard::Wildcard;
use super::{
    EventPattern, Field, Group, PATTERN_ALTERNATIVES_MAX, PATTERN_DEPTH_MAX, PATTERN_DIGITS_MAX,
    PATTERN_TEXT_BYTES_MAX, PATTERN_VALUES_MAX, PatternProblem, WILDCARD_STARS_MAX, Wanted,
};
use crate::event::ATTRIBUTE_NAME_BYTES_MAX;
use crate::event::number::Number;
use crate::event::selection::PathId;

/// Most problems that are told of one pattern.
const PROBLEMS_MAX: usize = 50;

const OPERATORS: &str = "`prefix`, `suffix`, `wildcard`, `exists`, `anything-but`, `numeric`, \
                         `cidr` and `equals-ignore-case`";

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
        if !(1..=PATTERN_ALTERNATIVES_MAX).contains(&values.len()) {
            let count = values.len();
            let message =
                format!("the list has {count} values; it needs 1 to {PATTERN_ALTERNATIVES_MAX}");
            self.report(path, message, None);
            return None;
        }
        self.values += values.len();
        let values = values.iter().enumerate();
        Some(
            values
                .filter_map(|(at, value)| self.predicate(&format!("{path}[{at}]"), value))
                .collect(),
        )
    }

    fn predicate(&mut self, path: &str, value: &Value) -> Option<Predicate> {
        let Value::Object(members) = value else {
            return self.literal(path, value).map(Predicate::Equals);
        };
        let mut entries = members.iter();
        let (Some((operator, operand)), None) = (entries.next(), entries.next()) else {
            let message = format!("expected one operator, found {}", members.len());
            self.report(path, message, Some(&format!("known are {OPERATORS}")));
            return None;
        };
        let path = &format!("{path}.{operator}");
        match operator.as_str() {
            "prefix" | "suffix" | "equals-ignore-case" | "wildcard" => {
                self.text_predicate(path, operator, operand)
            }
            "exists" => match operand {
                Value::Bool(wanted) => Some(Predicate::Exists(*wanted)),
                other => {
                    let message = format!("expected true or false, found {}", kind(other));
                    self.report(path, message, None);
                    None
                }
            },
            "numeric" => self.numeric(path, operand).map(Predicate::Numeric),
            "cidr" => {
                let text = self.text(path, operand)?;
                match Network::read(text) {
                    Ok(network) => Some(Predicate::Cidr(network)),
                    Err((message, hint)) => {
                        self.report(path, message, hint.as_deref());
                        None
                    }
                }
            }
            "anything-but" => self.anything_but(path, operand).map(Predicate::AnythingBut),
            other => {
                let shown: String = other.chars().take(80).collect();
                let hint = format!("known are {OPERATORS}");
                self.report(path, format!("`{shown}` is no operator"), Some(&hint));
                None
            }
        }
    }

    fn text_predicate(&mut self, path: &str, operator: &str, operand: &Value) -> Option<Predicate> {
        if let Some((inner, folded)) = ignoring_case(operand)
            && matches!(operator, "prefix" | "suffix")
        {
            let text = Folded::new(self.text(&format!("{path}.{inner}"), folded)?);
            return Some(match operator {
                "prefix" => Predicate::PrefixIgnoreCase(text),
                _ => Predicate::SuffixIgnoreCase(text),
            });
        }
        let text = self.text(path, operand)?;
        match operator {
            "equals-ignore-case" => Some(Predicate::EqualsIgnoreCase(Folded::new(text))),
            "wildcard" => self.wildcard(path, text),
            "prefix" => Some(Predicate::Prefix(text.into())),
            _ => Some(Predicate::Suffix(text.into())),
        }
        .filter(|_| {
            let empty = text.is_empty() && operator != "equals-ignore-case";
            if empty {
                let hint = "`exists: true` holds for every value";
                self.report(path, format!("`{operator}` is empty"), Some(hint));
            }
            !empty
        })
    }

    fn wildcard(&mut self, path: &str, text: &str) -> Option<Predicate> {
        let wildcard = match Wildcard::read(text) {
            Ok(wildcard) => wildcard,
            Err(rule) => {
                self.report(path, rule, None);
                return None;
            }
        };
        let (stars, max) = (wildcard.stars(), WILDCARD_STARS_MAX);
        if usize::try_from(stars).is_ok_and(|stars| stars <= max) {
            return Some(Predicate::Wildcard(wildcard));
        }
        self.report(path, format!("the wildcard has {stars} `*`, the limit is {max}"), None);
        None
    }

    fn anything_but(&mut self, path: &str, operand: &Value) -> Option<Vec<Predicate>> {
        match operand {
            Value::Array(values) => {
                let found = self.some_of(path, values, |reader, path, value| {
                    reader.literal(path, value).map(Predicate::Equals)
                });
                found.filter(|found| found.len() == values.len())
            }
            Value::Object(members) => {
                let mut entries = members.iter();
                let known = ["prefix", "suffix", "equals-ignore-case", "wildcard"];
                let entry = (entries.next(), entries.next());
                let (Some((operator, operand)), None) = entry else {
                    self.report(path, "expected one operator", None);
                    return None;
                };
                let path = &format!("{path}.{operator}");
                if !known.contains(&operator.as_str()) {
                    let hint = format!("known here are `{}`", known.join("`, `"));
                    self.report(path, format!("`{operator}` cannot be negated"), Some(&hint));
                    return None;
                }
                let Value::Array(values) = operand else {
                    self.values += 1;
                    return self.text_predicate(path, operator, operand).map(|one| vec![one]);
                };
                self.some_of(path, values, |reader, path, value| {
                    reader.text_predicate(path, operator, value)
                })
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                self.values += 1;
                Some(vec![Predicate::Equals(self.literal(path, operand)?)])
            }
        }
    }

    fn some_of(
        &mut self,
        path: &str,
        values: &[Value],
        mut read: impl FnMut(&mut Self, &str, &Value) -> Option<Predicate>,
    ) -> Option<Vec<Predicate>> {
        if !(1..=PATTERN_ALTERNATIVES_MAX).contains(&values.len()) {
            let count = values.len();
            let message =
                format!("the list has {count} values; it needs 1 to {PATTERN_ALTERNATIVES_MAX}");
            self.report(path, message, None);
            return None;
        }
        self.values += values.len();
        let values = values.iter().enumerate();
        Some(values.filter_map(|(at, value)| read(self, &format!("{path}[{at}]"), value)).collect())
    }

    fn literal(&mut self, path: &str, value: &Value) -> Option<Literal> {
        match value {
            Value::Null => Some(Literal::Null),
            Value::Bool(value) => Some(Literal::Truth(*value)),
            Value::Number(number) => self.number(path, number).map(Literal::Number),
            Value::String(_) => self.text(path, value).map(|text| Literal::Text(text.into())),
            Value::Array(_) | Value::Object(_) => {
                let message = format!("expected a value, found {}", kind(value));
                let hint = "a value is a text, a number, true, false, null or an operator";
                self.report(path, message, Some(hint));
                None
            }
        }
    }

    fn number(&mut self, path: &str, number: &serde_json::Number) -> Option<Number<'static>> {
        let read = Number::new(number.to_string())?;
        let exact = number.is_i64() || number.is_u64();
        if exact || read.significant_digits() <= PATTERN_DIGITS_MAX {
            return Some(read);
        }
        let message = format!(
            "the number has more than {PATTERN_DIGITS_MAX} digits and is no integer of 64 bits"
        );
        self.report(path, message, Some("compare it in `when`, or send it as a text"));
        None
    }

    fn text<'v>(&mut self, path: &str, value: &'v Value) -> Option<&'v str> {
        match value {
            Value::String(text) if text.len() <= PATTERN_TEXT_BYTES_MAX => Some(text),
            Value::String(_) => {
                let message = format!("the text is longer than {PATTERN_TEXT_BYTES_MAX} bytes");
                self.report(path, message, None);
                None
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => {
                let message = format!("expected a text, found {}", kind(value));
                self.report(path, message, None);
                None
            }
        }
    }

    fn numeric(&mut self, path: &str, operand: &Value) -> Option<Range> {
        const HINT: &str = "write one comparison or two: `[\">\", 0]`, `[\">=\", 0, \"<\", 10]`";
        let Value::Array(parts) = operand else {
            self.report(path, format!("expected a list, found {}", kind(operand)), Some(HINT));
            return None;
        };
        let mut range = Range { lower: Bound::Unbounded, upper: Bound::Unbounded };
        let mut sound = matches!(parts.len(), 2 | 4);
        for pair in parts.chunks_exact(2) {
            let [Value::String(operator), Value::Number(number)] = pair else {
                sound = false;
                continue;
            };
            let number = self.number(path, number)?;
            let open = |bound: &Bound<_>| matches!(bound, Bound::Unbounded);
            match operator.as_str() {
                ">" if open(&range.lower) => range.lower = Bound::Excluded(number),
                ">=" if open(&range.lower) => range.lower = Bound::Included(number),
                "<" if open(&range.upper) => range.upper = Bound::Excluded(number),
                "<=" if open(&range.upper) => range.upper = Bound::Included(number),
                "=" if parts.len() == 2 => {
                    range.lower = Bound::Included(number.clone());
                    range.upper = Bound::Included(number);
                }
                _ => sound = false,
            }
        }
        if !sound {
            self.report(path, "this is no comparison with numbers", Some(HINT));
        } else if range.is_empty() {
            self.report(path, "no number is in this range", None);
            sound = false;
        }
        sound.then_some(range)
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

fn ignoring_case(operand: &Value) -> Option<(&str, &Value)> {
    let Value::Object(members) = operand else { return None };
    let (name, text) = members.iter().next()?;
    (members.len() == 1 && name == "equals-ignore-case").then_some((name, text))
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
