//! JSON Schemas of the documents, for editors and for those who generate them.
//!
//! The types here only describe; the readers decide. A test holds their keys
//! against each other.

#![expect(dead_code, reason = "the fields exist for the schema that is derived from them")]

mod strategies;
mod workflow;

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde::Serialize;
use serde_json::Value;

/// The JSON Schema (2020-12) of a workflow document.
#[must_use]
pub fn workflow_schema() -> Value {
    schema_of::<workflow::WorkflowFile>()
}

/// The JSON Schema (2020-12) of a strategies document.
#[must_use]
pub fn strategies_schema() -> Value {
    schema_of::<strategies::StrategiesFile>()
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
        let expected: [(&Value, Option<&str>, Keys); 11] = [
            (&workflow, None, workflow::DOCUMENT),
            (&workflow, Some("Workflow"), workflow::WORKFLOW),
            (&workflow, Some("FaultTolerance"), workflow::FAULT_TOLERANCE),
            (&workflow, Some("Task"), workflow::TASK),
            (&workflow, Some("Http"), workflow::HTTP),
            (&workflow, Some("Wait"), workflow::WAIT),
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
