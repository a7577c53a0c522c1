//! What a run's input must look like.
//!
//! A small part of JSON Schema (2020-12) has an effect: `type: object` with
//! `required` and `properties`, each property with a `type`. Everything else is
//! refused by name, so that nobody relies on a check that is not made.

use serde_json::Value;
use thiserror::Error;

/// Something wrong with a schema or with an input.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct InputProblem {
    /// Where: `input`, `input.properties.job_id`.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

impl InputProblem {
    fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

/// Most problems that are reported of one input.
const PROBLEMS_MAX: usize = 20;
/// Words that describe and check nothing.
const ANNOTATIONS: [&str; 5] = ["title", "description", "examples", "default", "$comment"];
const TYPES: [&str; 7] = ["object", "array", "string", "number", "integer", "boolean", "null"];

/// Checks that every keyword of `schema` has an effect here.
#[must_use]
pub fn check_schema(schema: &Value) -> Vec<InputProblem> {
    let Some(schema) = schema.as_object() else {
        return vec![InputProblem::new("input", "the schema of the input must be a mapping")];
    };
    let mut problems = Vec::new();
    for (keyword, value) in schema {
        match keyword.as_str() {
            "type" if value == "object" => {}
            "type" => problems.push(InputProblem::new("input.type", "`type` must be `object`")),
            "required" => {
                let names = value.as_array().map(Vec::as_slice);
                if !names.is_some_and(|names| names.iter().all(Value::is_string)) {
                    problems.push(InputProblem::new(
                        "input.required",
                        "`required` must be a list of names",
                    ));
                }
            }
            "properties" => match value.as_object() {
                Some(properties) => {
                    for (name, property) in properties {
                        check_property(name, property, &mut problems);
                    }
                }
                None => problems
                    .push(InputProblem::new("input.properties", "`properties` must be a mapping")),
            },
            annotation if ANNOTATIONS.contains(&annotation) => {}
            other => problems.push(without_effect(format!("input.{other}"), other)),
        }
    }
    problems
}

fn check_property(name: &str, property: &Value, problems: &mut Vec<InputProblem>) {
    let path = format!("input.properties.{name}");
    let Some(property) = property.as_object() else {
        return problems.push(InputProblem::new(path, "a property must be a mapping"));
    };
    for (keyword, value) in property {
        match keyword.as_str() {
            "type" => {
                let known =
                    |value: &Value| value.as_str().is_some_and(|name| TYPES.contains(&name));
                let types = types(value);
                if types.is_empty() || !types.iter().all(|value| known(value)) {
                    let message = format!("`type` must be one or more of {}", TYPES.join(", "));
                    problems.push(InputProblem::new(format!("{path}.type"), message));
                }
            }
            annotation if ANNOTATIONS.contains(&annotation) => {}
            other => problems.push(without_effect(format!("{path}.{other}"), other)),
        }
    }
}

fn without_effect(path: String, keyword: &str) -> InputProblem {
    let message =
        format!("`{keyword}` has no effect yet; `type`, `required` and `properties` have");
    InputProblem::new(path, message)
}

fn types(value: &Value) -> Vec<&Value> {
    value.as_array().map_or_else(|| vec![value], |types| types.iter().collect())
}

/// Checks a run's input against its workflow's schema, which
/// [`check_schema`] has passed.
///
/// # Errors
///
/// What is missing or of another type, at most 20 findings.
pub fn check(schema: &Value, input: &Value) -> Result<(), Vec<InputProblem>> {
    let Some(entries) = input.as_object() else {
        let message = format!("the input must be an object, it is {}", type_of(input));
        return Err(vec![InputProblem::new("input", message)]);
    };
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
    let missing = required
        .filter_map(Value::as_str)
        .filter(|name| !entries.contains_key(*name))
        .map(|name| InputProblem::new(format!("input.{name}"), format!("`{name}` is missing")));
    let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    let mistyped = properties.filter_map(|(name, property)| {
        let (value, expected) = (entries.get(name)?, types(property.get("type")?));
        let fits = expected.iter().filter_map(|name| name.as_str()).any(|name| is_a(value, name));
        let expected: Vec<_> = expected.iter().filter_map(|name| name.as_str()).collect();
        (!fits).then(|| {
            let message =
                format!("`{name}` must be {}, it is {}", expected.join(" or "), type_of(value));
            InputProblem::new(format!("input.{name}"), message)
        })
    });
    let problems: Vec<_> = missing.chain(mistyped).take(PROBLEMS_MAX).collect();
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// A whole number is an `integer` however it is written (JSON Schema
/// Validation 2020-12, section 6.1.1).
fn is_a(value: &Value, name: &str) -> bool {
    match name {
        "integer" => {
            value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|it| it.fract() == 0.0)
        }
        "number" => value.is_number(),
        other => type_of(value) == other,
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_input_is_held_against_required_names_and_types() {
        let schema = json!({
            "type": "object",
            "required": ["job_id", "size"],
            "properties": {
                "job_id": {"type": "string"},
                "count": {"type": ["integer", "null"]},
            },
        });

        let problems = check(&schema, &json!({"job_id": 7, "count": 1.5})).unwrap_err();

        let messages: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!(check_schema(&schema), []);
        assert_eq!(
            messages,
            [
                "`size` is missing",
                "`count` must be integer or null, it is number",
                "`job_id` must be string, it is number",
            ]
        );
        assert_eq!(check(&schema, &json!({"job_id": "7", "size": 1, "count": 2.0})), Ok(()));
        assert!(check(&schema, &json!([])).is_err());
    }

    #[test]
    fn a_keyword_without_effect_is_refused_by_name() {
        let schema = json!({"type": "object", "properties": {"a": {"minimum": 1}}, "oneOf": []});

        let paths: Vec<_> = check_schema(&schema).into_iter().map(|problem| problem.path).collect();

        assert_eq!(paths, ["input.oneOf", "input.properties.a.minimum"]);
    }
}
