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
const REVERSING: [&str; 4] = ["not", "if", "oneOf", "maxContains"];

/// Keywords that may take less where their neighbours take more.
const LOOKING_ROUND: [&str; 2] = ["unevaluatedProperties", "unevaluatedItems"];

/// Bounds of which a lower one takes more.
const LEAST: [&str; 5] = ["minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"];
/// Bounds of which a higher one takes more.
const MOST: [&str; 5] = ["maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"];

/// Most characters of a value that are told of a difference.
const SHOWN_CHARACTERS_MAX: usize = 60;

/// Where `new` may refuse what `old` takes: a JSON pointer into the new schema and
/// what differs. Empty when everything that is good by `old` is good by `new`.
#[must_use]
pub fn incompatibilities(old: &Value, new: &Value) -> Vec<String> {
    let mut found = Found::default();
    if old == new {
        return found.differences;
    }
    for schema in [old, new] {
        if has_member(schema, &["$ref"]) && has_member(schema, &REVERSING) {
            found.add("", "`$ref` goes with `not`, `if`, `oneOf` or `maxContains`, so a change cannot be shown to be compatible");
            return found.differences;
        }
        if has_member(schema, &LOOKING_ROUND) {
            found.add("", "`unevaluated…` is used, so a change cannot be shown to be compatible");
            return found.differences;
        }
    }
    found.schema(old, new, &mut String::new());
    found.differences
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

    fn changed(&mut self, name: &str, was: Option<&Value>, is: Option<&Value>, place: &str) {
        let (was, is) = (shown(was), shown(is));
        let text =
            format!("`{name}` changed, which cannot be shown to be compatible: was {was}, is {is}");
        self.add(place, &text);
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
            let missing = missing.join(", ");
            let (was, is) = (shown(old.get("type")), shown(new.get("type")));
            self.add(place, &format!("`type` no longer takes {missing}: was {was}, is {is}"));
        }
    }

    fn values(&mut self, old: &Map<String, Value>, new: &Map<String, Value>, place: &str) {
        let listed = |schema: &Map<String, Value>| match (schema.get("const"), schema.get("enum")) {
            (Some(value), Some(Value::Array(values))) if !values.contains(value) => Some(vec![]),
            (Some(value), _) => Some(vec![value.clone()]),
            (None, Some(Value::Array(values))) => Some(values.clone()),
            (None, _) => None,
        };
        let Some(taken) = listed(new) else { return };
        match listed(old) {
            None => {
                let taken = shown(Some(&Value::Array(taken)));
                self.add(place, &format!("`enum` or `const` was not there, is {taken}"));
            }
            Some(was) => {
                for value in was.iter().filter(|value| !taken.contains(value)) {
                    self.add(
                        place,
                        &format!(
                            "`enum` or `const` no longer takes {}: was {}, is {}",
                            shown(Some(value)),
                            shown(Some(&Value::Array(was.clone()))),
                            shown(Some(&Value::Array(taken.clone()))),
                        ),
                    );
                }
            }
        }
    }

    fn required(&mut self, old: &Map<String, Value>, new: &Map<String, Value>, place: &str) {
        let (was, is) = (names(old.get("required")), names(new.get("required")));
        for name in is.difference(&was) {
            let (was, is) = (shown(old.get("required")), shown(new.get("required")));
            self.add(place, &format!("`required` names `{name}` now: was {was}, is {is}"));
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
                let same = old.get(*name) == new.get(*name);
                // Whole numbers beyond 2^53 may differ and be the same as a double.
                let is_narrower = match bound(old, name) {
                    None => true,
                    Some(was) => narrower(is, was) || (was - is).abs() < f64::EPSILON && !same,
                };
                if is_narrower {
                    let (was, is) = (shown(old.get(*name)), shown(new.get(*name)));
                    self.add(place, &format!("`{name}` was {was}, is {is}"));
                }
            }
        }
        if new.get("uniqueItems") == Some(&Value::Bool(true))
            && new.get("uniqueItems") != old.get("uniqueItems")
        {
            self.add(place, "`uniqueItems` was not true, is true");
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
                self.add(place, "was open, is closed now");
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
                (was, is) => self.changed(name, was, is, place),
            }
        }
    }
}

/// A value as it is told, cut to [`SHOWN_CHARACTERS_MAX`].
fn shown(value: Option<&Value>) -> String {
    let Some(value) = value else { return "nothing".to_owned() };
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_CHARACTERS_MAX) {
        None => format!("`{text}`"),
        Some((end, _)) => format!("`{}…`", text.get(..end).unwrap_or_default()),
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
            (
                json!({"enum": [1, 2]}),
                json!({"enum": [1]}),
                "/: `enum` or `const` no longer takes `2`: was `[1,2]`, is `[1]`",
            ),
            (json!({"type": "string"}), json!({"const": "a"}), "/: "),
            (
                json!({"properties": {"a": {"type": "object"}}}),
                json!({"properties": {"a": {"type": "object", "required": ["b"]}}}),
                "/properties/a: `required` names `b`",
            ),
            (
                json!({"additionalProperties": true}),
                json!({"additionalProperties": false}),
                "/additionalProperties: was open",
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
            (json!({"maxLength": 5}), json!({"maxLength": 4}), "/: `maxLength` was `5`, is `4`"),
            (json!({}), json!({"minItems": 1}), "/: `minItems` was nothing, is `1`"),
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
            (
                json!({"contains": true, "minContains": 0}),
                json!({"contains": true}),
                "/: `minContains`",
            ),
            (
                json!({"anyOf": [{"properties": {"a": true}}], "unevaluatedProperties": false}),
                json!({"unevaluatedProperties": false}),
                "/: `unevaluated…`",
            ),
            (
                json!({"minimum": 9_007_199_254_740_992_u64}),
                json!({"minimum": 9_007_199_254_740_993_u64}),
                "/: `minimum`",
            ),
            (json!({"const": 1}), json!({"const": 1, "enum": [2]}), "/: `enum`"),
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
