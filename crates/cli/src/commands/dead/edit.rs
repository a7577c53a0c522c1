//! What is typed about an event: all of it, or what changes in it.

use fermata_core::json::{check_unique_keys, told};
use serde_json::{Map, Value};

use crate::error::CliError;

/// What `--edit` says.
pub(super) fn patch(text: &str) -> Result<Map<String, Value>, CliError> {
    let why = match serde_json::from_str(text) {
        Ok(Value::Object(members)) => {
            check_unique_keys(text).map_err(|error| twice("`--edit`", &error))?;
            return Ok(members);
        }
        Ok(_) => "is no JSON object".to_owned(),
        Err(error) => format!("is no JSON: {}", told(&error, text)),
    };
    Err(CliError::Usage(format!(
        "`--edit` {why}; it is a JSON merge patch (RFC 7396), which names what changes in the event, as in `--edit \
         '{{\"data\": {{\"amount\": 12}}}}'`, and removes what it gives as null"
    )))
}

pub(super) fn object(text: &str, what: &str) -> Result<Map<String, Value>, CliError> {
    match serde_json::from_str(text) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(unusable(what, "it is no JSON object")),
        // What stands there may be a secret of the event.
        Err(error) => Err(unusable(what, &told(&error, ""))),
    }
}

pub(super) fn twice(what: &str, error: &serde_json::Error) -> CliError {
    CliError::Usage(format!(
        "in {what} {error}; only the last of both would be sent: keep one of them"
    ))
}

pub(super) fn unusable(what: &str, why: &str) -> CliError {
    CliError::Usage(format!(
        "{what} cannot be used: {why}; write the event anew and name the file with `--data`"
    ))
}

/// Merges a patch into an object (RFC 7396).
pub(super) fn merge(target: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (name, value) in patch {
        match value {
            Value::Null => {
                target.remove(&name);
            }
            Value::Object(inner) => {
                let place = target.entry(name).or_insert(Value::Null);
                if !place.is_object() {
                    *place = Value::Object(Map::new());
                }
                if let Value::Object(members) = place {
                    merge(members, inner);
                }
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                target.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_that_is_no_patch_is_told_with_its_place_and_one_that_is() {
        for (edit, why) in [
            (
                "{\"data\":\n{amount: 1}}",
                "is no JSON: expected a key in double quotes, found `amount` at line 2 column 2",
            ),
            ("[1]", "is no JSON object"),
        ] {
            let told = patch(edit).unwrap_err().to_string();

            assert!(told.starts_with(&format!("`--edit` {why}")), "{told}");
            assert!(told.contains("`--edit '{\"data\": {\"amount\": 12}}'`"), "{told}");
        }
    }
}
