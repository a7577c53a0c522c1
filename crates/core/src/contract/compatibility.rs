//! Whether a new version of a contract takes what the old one took.
//!
//! Backward compatible means: data that was good by the old version is good by
//! the new one. What is shown here is a part of what is true: where two schemas
//! are compatible and it cannot be shown, a difference is told all the same. What
//! is found compatible is so, on one assumption: data does not hold properties
//! that the old version did not describe. Without it no property could ever be
//! added to an object that is open, as nearly all are.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::push_token;

/// Keywords that say nothing about whether data is good.
const ANNOTATIONS: [&str; 14] = [
    "title",
    "description",
    "default",
    "examples",
    "$comment",
    "deprecated",
    "readOnly",
    "writeOnly",
    "$schema",
    "format",
    "contentMediaType",
    "contentEncoding",
    "contentSchema",
    "$anchor",
];

/// Keywords of which a schema that has one less takes more.
const RESTRICTING: [&str; 8] = [
    "not",
    "anyOf",
    "allOf",
    "oneOf",
    "propertyNames",
    "dependentRequired",
    "dependentSchemas",
    "$ref",
];

/// Keywords that may take less where what they refer to takes more.
const REVERSING: [&str; 6] =
    ["not", "if", "oneOf", "maxContains", "unevaluatedProperties", "unevaluatedItems"];

/// Bounds of which a lower one takes more.
const LEAST: [&str; 6] =
    ["minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties", "minContains"];
/// Bounds of which a higher one takes more.
const MOST: [&str; 5] = ["maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"];

/// Where `new` may refuse what `old` takes: a JSON pointer into the new schema and
/// what differs. Empty when everything that is good by `old` is good by `new`.
#[must_use]
pub fn incompatibilities(old: &Value, new: &Value) -> Vec<String> {
    let mut found = Found::default();
    if old == new {
        return found.differences;
    }
    if refers_within_reversing(old) || refers_within_reversing(new) {
        found.add("", "`$ref` and one of `not`, `if`, `oneOf`, `maxContains`, `unevaluated…` are both used, so a change cannot be shown to be compatible");
        return found.differences;
    }
    found.schema(old, new, &mut String::new());
    found.differences
}

fn refers_within_reversing(schema: &Value) -> bool {
    has_member(schema, &["$ref", "$dynamicRef"]) && has_member(schema, &REVERSING)
}

fn has_member(value: &Value, names: &[&str]) -> bool {
    match value {
        Value::Object(members) => members
            .iter()
            .any(|(name, member)| names.contains(&name.as_str()) || has_member(member, names)),
        Value::Array(items) => items.iter().any(|item| has_member(item, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[derive(Default)]
struct Found {
    differences: Vec<String>,
}

impl Found {
    fn add(&mut self, place: &str, difference: &str) {
        let place = if place.is_empty() { "/" } else { place };
        self.differences.push(format!("{place}: {difference}"));
    }

    /// Tells where `new` may refuse what `old` takes.
    fn schema(&mut self, old: &Value, new: &Value, place: &mut String) {
        if old == new || is_anything(new) || *old == Value::Bool(false) {
            return;
        }
        let nothing = Map::new();
        let (old, new) = match (old, new) {
            (Value::Object(old), Value::Object(new)) => (old, new),
            (_, Value::Object(new)) => (&nothing, new),
            (_, _) => return self.add(place, "takes nothing any more"),
        };
        self.types(old, new, place);
        self.values(old, new, place);
        self.required(old, new, place);
        self.bounds(old, new, place);
        self.object(old, new, place);
        self.within("items", old, new, place);
        self.definitions(old, new, place);
        self.others(old, new, place);
    }

    fn types(&mut self, old: &Map<String, Value>, new: &Map<String, Value>, place: &str) {
        let Some(taken) = types(new.get("type")) else { return };
        let was = types(old.get("type")).unwrap_or_else(|| ALL_TYPES.into_iter().collect());
        let missing: Vec<_> = was
            .into_iter()
            .filter(|name| {
                !(taken.contains(name) || *name == "integer" && taken.contains("number"))
            })
            .collect();
        if !missing.is_empty() {
            self.add(place, &format!("`type` no longer takes {}", missing.join(", ")));
        }
    }

    fn values(&mut self, old: &Map<String, Value>, new: &Map<String, Value>, place: &str) {
        let listed = |schema: &Map<String, Value>| match (schema.get("const"), schema.get("enum")) {
            (Some(value), _) => Some(vec![value.clone()]),
            (None, Some(Value::Array(values))) => Some(values.clone()),
            (None, _) => None,
        };
        let Some(taken) = listed(new) else { return };
        match listed(old) {
            None => self.add(place, "takes only listed values now (`enum`, `const`)"),
            Some(was) => {
                for value in was.iter().filter(|value| !taken.contains(value)) {
                    self.add(
                        place,
                        &format!("no longer takes the value {value} (`enum`, `const`)"),
                    );
                }
            }
        }
    }

    fn required(&mut self, old: &Map<String, Value>, new: &Map<String, Value>, place: &str) {
        let (was, is) = (names(old.get("required")), names(new.get("required")));
        for name in is.difference(&was) {
            self.add(place, &format!("`required` names `{name}` now"));
        }
    }

    fn bounds(&mut self, old: &Map<String, Value>, new: &Map<String, Value>, place: &str) {
        let bound =
            |schema: &Map<String, Value>, name: &str| schema.get(name).and_then(Value::as_f64);
        for (names, narrower) in [
            (&LEAST[..], (|new, old| new > old) as fn(f64, f64) -> bool),
            (&MOST[..], |new, old| new < old),
        ] {
            for name in names {
                let Some(is) = bound(new, name) else { continue };
                match bound(old, name) {
                    None => self.add(place, &format!("`{name}` is {is} now and was not there")),
                    Some(was) if narrower(is, was) => {
                        self.add(place, &format!("`{name}` is {is} now and was {was}"));
                    }
                    Some(_) => {}
                }
            }
        }
        if new.get("uniqueItems") == Some(&Value::Bool(true))
            && new.get("uniqueItems") != old.get("uniqueItems")
        {
            self.add(place, "`uniqueItems` is there now");
        }
    }

    fn object(&mut self, old: &Map<String, Value>, new: &Map<String, Value>, place: &mut String) {
        let anything = Value::Bool(true);
        let described = |schema: &Map<String, Value>| match schema.get("properties") {
            Some(Value::Object(properties)) => properties.clone(),
            Some(_) | None => Map::new(),
        };
        let beside = |schema: &Map<String, Value>| {
            schema.get("additionalProperties").cloned().unwrap_or(Value::Bool(true))
        };
        let (was, is) = (described(old), described(new));
        let (was_beside, is_beside) = (beside(old), beside(new));
        let length = place.len();
        for (name, old_property) in &was {
            push_token(place, "properties");
            push_token(place, name);
            match is.get(name) {
                Some(new_property) => self.schema(old_property, new_property, place),
                None if is_beside == Value::Bool(false) => {
                    self.add(place, "is no longer taken: it is not described, and `additionalProperties` is false");
                }
                None => self.schema(old_property, &is_beside, place),
            }
            place.truncate(length);
        }
        for (name, new_property) in is.iter().filter(|(name, _)| !was.contains_key(*name)) {
            if old.contains_key("patternProperties") {
                self.add(place, &format!("`{name}` is described now, and `patternProperties` may have been its description"));
            }
            // What is not described is taken as not being sent, except where the old
            // version says what it is like.
            if was_beside != anything && was_beside != Value::Bool(false) {
                push_token(place, "properties");
                push_token(place, name);
                self.schema(&was_beside, new_property, place);
                place.truncate(length);
            }
        }
        if was_beside != is_beside {
            push_token(place, "additionalProperties");
            if is_beside == Value::Bool(false) {
                self.add(place, "is closed now");
            } else {
                self.schema(&was_beside, &is_beside, place);
            }
            place.truncate(length);
        }
    }

    fn within(
        &mut self,
        name: &str,
        old: &Map<String, Value>,
        new: &Map<String, Value>,
        place: &mut String,
    ) {
        let Some(is) = new.get(name) else { return };
        let length = place.len();
        push_token(place, name);
        self.schema(old.get(name).unwrap_or(&Value::Bool(true)), is, place);
        place.truncate(length);
    }

    fn definitions(
        &mut self,
        old: &Map<String, Value>,
        new: &Map<String, Value>,
        place: &mut String,
    ) {
        for group in ["$defs", "definitions"] {
            let (Some(Value::Object(was)), Some(Value::Object(is))) =
                (old.get(group), new.get(group))
            else {
                continue;
            };
            let length = place.len();
            for (name, new_definition) in is {
                let Some(old_definition) = was.get(name) else { continue };
                push_token(place, group);
                push_token(place, name);
                self.schema(old_definition, new_definition, place);
                place.truncate(length);
            }
        }
    }

    /// Keywords whose meaning is not compared: they must be as they were, or gone
    /// where that takes more.
    fn others(&mut self, old: &Map<String, Value>, new: &Map<String, Value>, place: &str) {
        let compared = |name: &str| {
            let others = [
                "type",
                "enum",
                "const",
                "required",
                "uniqueItems",
                "properties",
                "additionalProperties",
                "items",
                "$defs",
                "definitions",
            ];
            others.contains(&name)
                || ANNOTATIONS.contains(&name)
                || LEAST.contains(&name)
                || MOST.contains(&name)
                || name.starts_with("x-")
        };
        let all: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for name in all.into_iter().filter(|name| !compared(name)) {
            match (old.get(name), new.get(name)) {
                (was, is) if was == is => {}
                (Some(_), None)
                    if RESTRICTING.contains(&name.as_str())
                        || name == "pattern"
                        || name == "multipleOf" => {}
                (_, _) => self.add(
                    place,
                    &format!("`{name}` changed, which cannot be shown to be compatible"),
                ),
            }
        }
    }
}

const ALL_TYPES: [&str; 6] = ["array", "boolean", "null", "number", "object", "string"];

fn types(value: Option<&Value>) -> Option<BTreeSet<&str>> {
    match value? {
        Value::String(name) => Some(BTreeSet::from([name.as_str()])),
        Value::Array(names) => Some(names.iter().filter_map(Value::as_str).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

fn names(value: Option<&Value>) -> BTreeSet<&str> {
    let items = value.and_then(Value::as_array);
    items.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Whether a schema takes everything.
fn is_anything(schema: &Value) -> bool {
    match schema {
        Value::Bool(anything) => *anything,
        Value::Object(members) => members
            .keys()
            .all(|name| ANNOTATIONS.contains(&name.as_str()) || name.starts_with("x-")),
        Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_takes_more_is_compatible() {
        let cases = [
            (json!({"type": "integer"}), json!({"type": "number"})),
            (json!({"type": "string"}), json!({"type": ["string", "null"]})),
            (json!({"enum": [1, 2]}), json!({"enum": [2, 1, 3]})),
            (json!({"const": 1}), json!({"enum": [1]})),
            (json!({"required": ["a", "b"]}), json!({"required": ["a"]})),
            (
                json!({"properties": {"a": true}}),
                json!({"properties": {"a": true, "b": {"type": "string"}}}),
            ),
            (
                json!({"additionalProperties": false}),
                json!({"properties": {"b": {"type": "string"}}, "additionalProperties": false}),
            ),
            (json!({"minLength": 3, "maximum": 5}), json!({"minLength": 2, "maximum": 6})),
            (json!({"pattern": "^a", "not": {"const": 1}}), json!({})),
            (
                json!({"$ref": "#/$defs/a", "$defs": {"a": {"type": "integer"}}}),
                json!({"$ref": "#/$defs/a", "$defs": {"a": {"type": "number"}, "b": false}}),
            ),
            (json!({"items": {"type": "integer"}}), json!({"items": {}})),
            (json!(false), json!({"type": "string"})),
            (json!({"title": "a", "format": "date"}), json!({"title": "b", "x-owner": "c"})),
        ];
        for (old, new) in cases {
            assert_eq!(incompatibilities(&old, &new), Vec::<String>::new(), "{old} {new}");
        }
    }

    #[test]
    fn what_takes_less_is_told_with_its_place() {
        let cases = [
            (json!({"type": "number"}), json!({"type": "integer"}), "/: `type`"),
            (json!({}), json!({"type": "string"}), "/: `type`"),
            (json!({"enum": [1, 2]}), json!({"enum": [1]}), "/: no longer takes the value 2"),
            (json!({"type": "string"}), json!({"const": "a"}), "/: "),
            (
                json!({"properties": {"a": {"type": "object"}}}),
                json!({"properties": {"a": {"type": "object", "required": ["b"]}}}),
                "/properties/a: `required` names `b`",
            ),
            (
                json!({"additionalProperties": true}),
                json!({"additionalProperties": false}),
                "/additionalProperties: is closed",
            ),
            (
                json!({"properties": {"a": {}}}),
                json!({"properties": {}, "additionalProperties": false}),
                "/properties/a: is no longer taken",
            ),
            (
                json!({"additionalProperties": {"type": "string"}}),
                json!({"properties": {"a": {"type": "null"}}, "additionalProperties": {"type": "string"}}),
                "/properties/a: `type`",
            ),
            (json!({"maxLength": 5}), json!({"maxLength": 4}), "/: `maxLength` is 4"),
            (json!({}), json!({"minItems": 1}), "/: `minItems` is 1"),
            (json!({}), json!({"uniqueItems": true}), "/: `uniqueItems`"),
            (json!({}), json!({"pattern": "a"}), "/: `pattern`"),
            (
                json!({"items": {"type": "array"}}),
                json!({"items": {"type": "array", "items": {"type": "null"}}}),
                "/items/items: `type`",
            ),
            (json!({"anyOf": [true]}), json!({"anyOf": [false]}), "/: `anyOf`"),
            (
                json!({"patternProperties": {"a": true}, "additionalProperties": false}),
                json!({"additionalProperties": false}),
                "/: `patternProperties`",
            ),
            (json!({"if": true, "then": true}), json!({"if": true, "then": false}), "/: `then`"),
            (
                json!({"$defs": {"a": {}}}),
                json!({"$defs": {"a": {"type": "null"}}}),
                "/$defs/a: `type`",
            ),
            (
                json!({"not": {"$ref": "#/$defs/a"}, "$defs": {"a": {"type": "null"}}}),
                json!({"not": {"$ref": "#/$defs/a"}, "$defs": {"a": {}}}),
                "/: `$ref`",
            ),
            (json!({"type": "string"}), json!(false), "/: takes nothing"),
        ];
        for (old, new, told) in cases {
            let differences = incompatibilities(&old, &new);
            assert!(
                differences.first().is_some_and(|first| first.starts_with(told)),
                "{old} {new}: {differences:?}"
            );
        }
    }
}
