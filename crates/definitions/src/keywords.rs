//! Words of a contract's schema that are probably keywords with a slip in them.
//!
//! JSON Schema takes a word that it does not know for an annotation, so nothing may be refused for one. What
//! is a slip away from a keyword checks nothing, though, and says nothing of that.

use serde_json::Value;

use crate::build::shown;
use crate::spelling::{meant, nearest};

/// The keywords of draft 2020-12 (core 8, applicators 10 and 11, validation 6, annotations 7 to 9), and those
/// of older drafts that are still read.
const KEYWORDS: [&str; 61] = [
    "$schema",
    "$id",
    "$ref",
    "$anchor",
    "$dynamicRef",
    "$dynamicAnchor",
    "$vocabulary",
    "$comment",
    "$defs",
    "definitions",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
    "dependentSchemas",
    "dependencies",
    "prefixItems",
    "items",
    "additionalItems",
    "contains",
    "properties",
    "patternProperties",
    "additionalProperties",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
    "type",
    "enum",
    "const",
    "multipleOf",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "uniqueItems",
    "maxContains",
    "minContains",
    "maxProperties",
    "minProperties",
    "required",
    "dependentRequired",
    "title",
    "description",
    "default",
    "deprecated",
    "readOnly",
    "writeOnly",
    "examples",
    "format",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "$recursiveRef",
];
/// Words of other tools that lie near a keyword and are meant as they are.
const OF_OTHER_TOOLS: [&str; 3] = ["example", "id", "name"];
/// Keywords whose value is a map from names to schemas.
const MAPS: [&str; 6] =
    ["$defs", "definitions", "properties", "patternProperties", "dependentSchemas", "dependencies"];
/// Keywords whose value is a schema, or a list of schemas.
const SCHEMAS: [&str; 16] = [
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
    "prefixItems",
    "items",
    "additionalItems",
    "contains",
    "additionalProperties",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
    "contentSchema",
];
/// Most that is told of one schema.
const TOLD_MAX: usize = 20;

/// What is told for people of words in a schema that are none of JSON Schema 2020-12 and near to one, each with
/// its place as a JSON pointer. The schema was read before, which bounds its depth.
#[must_use]
pub fn suspected_keywords(schema: &Value) -> Vec<String> {
    let mut told = Vec::new();
    look(schema, "", &mut told);
    told.truncate(TOLD_MAX);
    told
}

fn look(schema: &Value, place: &str, told: &mut Vec<String>) {
    let Value::Object(members) = schema else { return };
    for (word, value) in members {
        let at = format!("{place}/{}", word.replace('~', "~0").replace('/', "~1"));
        match (word.as_str(), value) {
            (word, Value::Object(schemas)) if MAPS.contains(&word) => {
                for (name, schema) in schemas {
                    let name = name.replace('~', "~0").replace('/', "~1");
                    look(schema, &format!("{at}/{name}"), told);
                }
            }
            (word, Value::Array(schemas)) if SCHEMAS.contains(&word) => {
                for (schema, index) in schemas.iter().zip(0..) {
                    look(schema, &format!("{at}/{index}"), told);
                }
            }
            (word, schema) if SCHEMAS.contains(&word) => look(schema, &at, told),
            (word, _) if KEYWORDS.contains(&word) || OF_OTHER_TOOLS.contains(&word) => {}
            (word, _) => {
                if let Some(question) = meant(nearest(word, KEYWORDS)) {
                    let word = shown(word);
                    told.push(format!(
                        "{at}: `{word}` is no keyword of JSON Schema, so it checks nothing; {question}"
                    ));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_slip_in_a_keyword_is_told_with_its_place_wherever_a_schema_stands() {
        let schema = json!({
            "type": "object",
            "requird": ["n"],
            "properties": { "n": { "minmum": 1 }, "a/b": { "items": { "enun": [1] } } },
            "anyOf": [{ "proprties": {} }],
            "$defs": { "d": { "not": { "tpye": "string" } } },
        });

        let told = suspected_keywords(&schema);

        let parts = [
            "/$defs/d/not/tpye: `tpye`",
            "/anyOf/0/proprties: `proprties` is no keyword of JSON Schema, so it checks nothing; did you mean \
             `properties`?",
            "/properties/a~1b/items/enun: ",
            "/properties/n/minmum: ",
            "/requird: `requird` is no keyword of JSON Schema, so it checks nothing; did you mean `required`?",
        ];
        for part in parts {
            assert!(told.iter().any(|told| told.starts_with(part)), "{part}: {told:?}");
        }
        assert_eq!(told.len(), parts.len(), "{told:?}");
    }

    #[test]
    fn annotations_and_names_of_properties_are_nobodys_slip() {
        let schema = json!({
            "x-owner": "shop",
            "example": { "requird": 1 },
            "deprecated": false,
            "properties": { "requird": { "const": { "tpye": 1 } }, "tpye": true },
            "required": ["requird"],
            "additionalProperties": false,
        });

        assert_eq!(suspected_keywords(&schema), Vec::<String>::new());
        assert_eq!(suspected_keywords(&json!(true)), Vec::<String>::new());
    }
}
