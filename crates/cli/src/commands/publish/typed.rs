//! The type that `--type` says, given to events that name none.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde_json::value::RawValue;

/// The names of an event's members.
type Names = BTreeMap<String, IgnoredAny>;

/// The bytes of an event, or of an array of them, with the type in each that names none; all else stands there as
/// it was written. What is neither is left as it is, and refused for that.
pub(super) fn with_type(bytes: Vec<u8>, kind: &str) -> Vec<u8> {
    let typed = match bytes.trim_ascii_start().first() {
        Some(b'{') => std::str::from_utf8(&bytes).ok().and_then(|text| event_with_type(text, kind)),
        Some(b'[') => batch_with_type(&bytes, kind),
        Some(_) | None => None,
    };
    typed.map_or(bytes, String::into_bytes)
}

fn event_with_type(text: &str, kind: &str) -> Option<String> {
    let names = serde_json::from_str::<Names>(text).ok()?;
    if names.contains_key("type") {
        return None;
    }
    let rest = text.trim_start().strip_prefix('{')?;
    let comma = if names.is_empty() { "" } else { "," };
    Some(format!("{{\"type\":{}{comma}{rest}", serde_json::Value::from(kind)))
}

fn batch_with_type(bytes: &[u8], kind: &str) -> Option<String> {
    let events = serde_json::from_slice::<Vec<&RawValue>>(bytes).ok()?;
    let mut is_changed = false;
    let events = events.into_iter().map(|event| match event_with_type(event.get(), kind) {
        Some(typed) => {
            is_changed = true;
            typed
        }
        None => event.get().to_owned(),
    });
    let text = format!("[{}]", events.collect::<Vec<_>>().join(","));
    is_changed.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_names_no_type_is_given_one_and_nothing_else_is_changed() {
        for (given, typed) in [
            (r#" {"id": "1"}"#, r#"{"type":"a.b","id": "1"}"#),
            ("{ }", r#"{"type":"a.b" }"#),
            (r#"{"type":"c"}"#, r#"{"type":"c"}"#),
            (r#"{"type":null}"#, r#"{"type":null}"#),
            (
                r#"{"id":1.50,"data":{"type":"c"}}"#,
                r#"{"type":"a.b","id":1.50,"data":{"type":"c"}}"#,
            ),
            (r#"[{"type":"c"}, {"id":"1"}, 7]"#, r#"[{"type":"c"},{"type":"a.b","id":"1"},7]"#),
            (r#"[{"type":"c"} ]"#, r#"[{"type":"c"} ]"#),
            ("[]", "[]"),
            ("{half", "{half"),
            ("", ""),
        ] {
            let given = with_type(given.as_bytes().to_vec(), "a.b");
            assert_eq!(String::from_utf8(given).unwrap(), typed);
        }
    }
}
