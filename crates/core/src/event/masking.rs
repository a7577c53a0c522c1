//! Bytes of others for people to look at, without the secrets in them.
//!
//! What is a secret, its name says: that of a member of a JSON object, of a key of a
//! MessagePack map, or of a header. Names are looked at at any depth, also in JSON that stands
//! in MessagePack as a text of its own; not in texts within JSON, in base64, or in a text that is
//! a value of another name. Of bytes that are neither JSON nor MessagePack nothing is shown
//! behind the first place that looks like such a name.

use std::ops::Range;

use serde::de::IgnoredAny;

use super::msgpack::{Head, extent, take, take_head};

/// What the name of a secret ends with, whatever the case of its letters, `-`, `_`, `.` and
/// spaces left out, and with or without an `s` behind it: `access_token`, `X-Api-Key` and
/// `Passwords` are such names.
pub const SECRET_NAMES: [&str; 13] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "secretkey",
    "privatekey",
    "authorization",
    "cookie",
    "credential",
    "pwd",
];

/// Names that end so and hold no secret: how many tokens a model takes.
const COUNTED_NAMES: [&str; 6] =
    ["tokens", "maxtokens", "totaltokens", "inputtokens", "outputtokens", "completiontokens"];

/// What stands for a text that is masked.
pub const MASK: &str = "***";

/// What each byte becomes where bytes keep their places.
const MASK_BYTE: u8 = b'*';

/// Deepest nesting of MessagePack that is followed; what is deeper counts as neither. JSON needs
/// no bound: its levels are only counted.
const DEPTH_MAX: usize = 64;

/// Bytes whose secrets are masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Masked {
    /// In text a masked value is [`MASK`] in quotes; in MessagePack all of its bytes are `*`.
    pub bytes: Vec<u8>,
    /// How many values are masked; 0 if the bytes are the same.
    pub values: usize,
}

/// Whether a value of this name is a secret.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    let letters = name.chars().filter(|letter| !matches!(letter, '-' | '_' | '.' | ' '));
    let name: String = letters.flat_map(char::to_lowercase).collect();
    let one = name.strip_suffix('s').unwrap_or(&name);
    let is_secret = |secret: &&str| name.ends_with(secret) || one.ends_with(secret);
    SECRET_NAMES.iter().any(is_secret) && !COUNTED_NAMES.contains(&name.as_str())
}

/// Masks the values whose names say that they are secrets.
#[must_use]
pub fn masked(bytes: &[u8]) -> Masked {
    match std::str::from_utf8(bytes) {
        Ok(text) => masked_text(text),
        Err(_) => {
            let spans = spans_of_msgpack(bytes)
                .unwrap_or_else(|| behind_first_name(bytes).into_iter().collect());
            let mut bytes = bytes.to_vec();
            for span in &spans {
                bytes.get_mut(span.clone()).unwrap_or_default().fill(MASK_BYTE);
            }
            Masked { bytes, values: spans.len() }
        }
    }
}

fn masked_text(text: &str) -> Masked {
    let (spans, mask) = match spans_of_json(text) {
        Some(spans) => (spans, format!("\"{MASK}\"")),
        None => (behind_first_name(text.as_bytes()).into_iter().collect(), MASK.to_owned()),
    };
    let mut shown = String::with_capacity(text.len());
    let mut from = 0;
    for span in &spans {
        shown.push_str(text.get(from..span.start).unwrap_or_default());
        shown.push_str(&mask);
        from = span.end;
    }
    shown.push_str(text.get(from..).unwrap_or_default());
    Masked { bytes: shown.into_bytes(), values: spans.len() }
}

/// Where in a JSON text the secrets stand; nothing if it is none, or one text for which no name
/// speaks.
fn spans_of_json(text: &str) -> Option<Vec<Range<usize>>> {
    if text.trim_start().starts_with('"') {
        return None;
    }
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    let bytes = text.as_bytes();
    let mut spans = Vec::new();
    let mut at = 0;
    // It is JSON, so a text that a colon follows is a name, and what follows that its value.
    while let Some(byte) = bytes.get(at) {
        if *byte != b'"' {
            at += 1;
            continue;
        }
        let end = end_of_text(bytes, at);
        let literal = text.get(at..end).unwrap_or_default();
        at = match start_of_member(bytes, end) {
            Some(start) if is_secret_literal(literal) => {
                let end = end_of_value(bytes, start);
                spans.push(start..end);
                end
            }
            Some(_) | None => end,
        };
    }
    Some(spans)
}

fn is_secret_literal(literal: &str) -> bool {
    match serde_json::from_str::<String>(literal) {
        Ok(name) => is_secret_name(&name),
        // Half of a surrogate pair: no text, but what is readable of it counts.
        Err(_) => is_secret_name(literal.trim_matches('"')),
    }
}

/// Behind the closing quote of the text whose opening one is at `start`.
fn end_of_text(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = bytes.get(at) {
        at += match byte {
            b'\\' => 2,
            b'"' => return at + 1,
            _ => 1,
        };
    }
    bytes.len()
}

/// Where the value of a member begins whose name ends at `end`; nothing if it is no name.
fn start_of_member(bytes: &[u8], end: usize) -> Option<usize> {
    let colon = end + spaces(bytes.get(end..)?);
    if bytes.get(colon) != Some(&b':') {
        return None;
    }
    Some(colon + 1 + spaces(bytes.get(colon + 1..)?))
}

fn spaces(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count()
}

/// Behind the JSON value that begins at `start`.
fn end_of_value(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut open) = (start, 0_usize);
    while let Some(byte) = bytes.get(at) {
        at = match byte {
            b'"' => end_of_text(bytes, at),
            b'{' | b'[' => {
                open += 1;
                at + 1
            }
            b'}' | b']' if open > 0 => {
                open -= 1;
                at + 1
            }
            b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n' if open == 0 => return at,
            _ => at + 1,
        };
        if open == 0 && matches!(byte, b'"' | b'}' | b']') {
            return at;
        }
    }
    bytes.len()
}

/// Where in one MessagePack value the secrets stand; nothing if the bytes are not one.
fn spans_of_msgpack(bytes: &[u8]) -> Option<Vec<Range<usize>>> {
    let mut spans = Vec::new();
    let mut rest = bytes;
    // How many values are still to come on each level, and whether names and values take turns.
    let mut open = vec![(1_usize, false)];
    while let Some((pending, is_map)) = open.last_mut() {
        let Some(left) = pending.checked_sub(1) else {
            open.pop();
            continue;
        };
        *pending = left;
        let is_name = *is_map && left % 2 == 1;
        let head = take_head(&mut rest)?;
        let end = bytes.len() - rest.len();
        match head {
            Head::Text(content) | Head::Bytes(content) => {
                let text = std::str::from_utf8(content).ok();
                if is_name && text.is_some_and(is_secret_name) {
                    let value = take_value(&mut rest)?;
                    spans.push(end..end + value);
                    *pending = left.saturating_sub(1);
                } else if let Some(text) = text.filter(|text| !is_name && looks_like_json(text)) {
                    let first = end - content.len();
                    let within = spans_of_json(text)
                        .unwrap_or_else(|| behind_first_name(content).into_iter().collect());
                    let within = within.into_iter();
                    spans.extend(within.map(|span| first + span.start..first + span.end));
                }
            }
            Head::List(values) => open.push((values, false)),
            Head::Map(pairs) => open.push((pairs.checked_mul(2)?, true)),
            Head::Nil
            | Head::Truth(_)
            | Head::Unsigned(_)
            | Head::Signed(_)
            | Head::Float(_)
            | Head::Extension => {}
        }
        if open.len() > DEPTH_MAX {
            return None;
        }
    }
    rest.is_empty().then_some(spans)
}

/// Takes a value with all that is in it; how many bytes it has.
fn take_value(rest: &mut &[u8]) -> Option<usize> {
    let bytes = extent(rest)?;
    take(rest, bytes)?;
    Some(bytes)
}

fn looks_like_json(text: &str) -> bool {
    text.trim_start().starts_with(['{', '['])
}

/// Everything behind the first place that looks like the name of a secret; nothing where there
/// is none, or nothing behind it.
fn behind_first_name(bytes: &[u8]) -> Option<Range<usize>> {
    let ends = (0..bytes.len()).find_map(|at| {
        let rest = bytes.get(at..)?;
        SECRET_NAMES.iter().find_map(|name| length_of_name(rest, name)).map(|length| at + length)
    });
    ends.filter(|end| *end < bytes.len()).map(|end| end..bytes.len())
}

/// How many bytes `name` has where `bytes` begin with it, with `-`, `_`, `.` and spaces in it.
fn length_of_name(bytes: &[u8], name: &str) -> Option<usize> {
    let mut letters = name.bytes().peekable();
    for (length, byte) in bytes.iter().enumerate() {
        match letters.peek() {
            None => return Some(length),
            Some(letter) if byte.eq_ignore_ascii_case(letter) => {
                letters.next();
            }
            Some(_) if length > 0 && matches!(byte, b'-' | b'_' | b'.' | b' ') => {}
            Some(_) => return None,
        }
    }
    letters.peek().is_none().then_some(bytes.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::event::msgpack_of_json;

    fn text(text: &str) -> (String, usize) {
        let Masked { bytes, values } = masked(text.as_bytes());
        (String::from_utf8(bytes).unwrap(), values)
    }

    #[test]
    fn names_of_secrets_are_known_however_they_are_written() {
        for name in [
            "password",
            "PassWord",
            "db_password",
            "X-Api-Key",
            "access_token",
            "Cookie",
            "Passwords",
            "apiKeys",
            "api.key",
            "Api Key",
            "credentials",
            "access_tokens",
            "pwd",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "",
            "s",
            "pass",
            "tokens_used",
            "max_tokens",
            "tokens",
            "secretary",
            "key",
            "authorized",
            "passport",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn a_text_stays_as_it_was_written_but_for_its_secrets() {
        let written = "{ \"a\" : 1,\n \"Api-Key\" :\t\"x\\\"y\" , \"a\":[ {\"secret\":{\"b\":[1,\"}\"]}}, \
                       {\"p\\u0061ssword\":-1.5e3}],\"token\":null }";

        let shown = "{ \"a\" : 1,\n \"Api-Key\" :\t\"***\" , \"a\":[ {\"secret\":\"***\"}, \
                     {\"p\\u0061ssword\":\"***\"}],\"token\":\"***\" }";
        assert_eq!(text(written), (shown.to_owned(), 4));
        let plain = "{\"a\": \"password\", \"b\": [\"secret\", \"token\"]}";
        assert_eq!(text(plain), (plain.to_owned(), 0));
    }

    #[test]
    fn of_what_cannot_be_read_nothing_is_shown_behind_a_name() {
        for (written, shown) in [
            (r#"{"id": 1, "Pass-Word": "hunter2"#, r#"{"id": 1, "Pass-Word***"#),
            ("user=a&token=hunter2&b=c", "user=a&token***"),
            (r#""password=hunter2""#, r#""password***"#),
            ("no such thing", "no such thing"),
            ("my secret", "my secret"),
        ] {
            assert_eq!(text(written).0, shown);
        }
        let deep = format!("{}{{\"token\":1}}{}", "[".repeat(200), "]".repeat(200));
        assert!(!text(&deep).0.contains('1'));
        let cut = masked(b"\x82\xa1a\x01\xa5token\xa8hunter");
        assert_eq!(cut.bytes, b"\x82\xa1a\x01\xa5token*******");
    }

    #[test]
    fn secrets_within_messagepack_keep_their_places() {
        let inner = r#"{"token":"hunter2","b":1}"#;
        let value = json!({"a": [1, {"secret": [1, {"x": "hunter2"}]}], "event": inner, "z": "z"});
        let bytes = msgpack_of_json(&value.to_string()).unwrap();

        let Masked { bytes: shown, values } = masked(&bytes);

        assert_eq!((shown.len(), values), (bytes.len(), 2));
        let shown = String::from_utf8_lossy(&shown);
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains(r#"{"token":*********,"b":1}"#), "{shown}");
    }

    /// A value with its secrets replaced, as JSON shows it; they are put into `secrets`, in their
    /// order.
    fn replaced(value: Value, secrets: &mut Vec<Value>) -> Value {
        match value {
            Value::Object(members) => Value::Object(
                members
                    .into_iter()
                    .map(|(name, value)| {
                        if is_secret_name(&name) {
                            secrets.push(value);
                            return (name, MASK.into());
                        }
                        (name, replaced(value, secrets))
                    })
                    .collect::<Map<_, _>>(),
            ),
            Value::Array(values) => {
                Value::Array(values.into_iter().map(|value| replaced(value, secrets)).collect())
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
        }
    }

    /// Values, with texts that are hard to tell from what is around them.
    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-z\"\\\\:{},\\[\\] é]{0,8}".prop_map(Value::from),
            Just(Value::from("\"token\":\"")),
        ];
        let name = prop_oneof![
            "[a-z\"\\\\:é]{0,4}",
            Just("token".to_owned()),
            Just("Private_Key".to_owned()),
            Just("x-SECRET".to_owned()),
        ];
        leaf.prop_recursive(5, 40, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(name.clone(), inner, 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Only values under such names change, and none of them stays.
        #[test]
        fn masking_json_replaces_secrets_and_nothing_else(value in values(), pretty: bool) {
            // A text alone is no object, and read like what is none.
            let value = json!({ "outer": value });
            let written = if pretty {
                serde_json::to_string_pretty(&value).unwrap()
            } else {
                value.to_string()
            };
            let mut secrets = Vec::new();
            let expected = replaced(value, &mut secrets);

            let (shown, masked) = text(&written);

            prop_assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), expected);
            prop_assert_eq!(masked, secrets.len());
            prop_assert!(masked > 0 || shown == written);
        }

        /// In MessagePack as well: a secret has become `*` at its place, the rest is the same.
        #[test]
        fn masking_messagepack_replaces_secrets_and_nothing_else(value in values()) {
            // A map at the outside is never UTF-8, which would be taken for text.
            let value = json!({ "outer": value });
            let bytes = msgpack_of_json(&value.to_string()).unwrap();
            let mut secrets = Vec::new();
            replaced(value, &mut secrets);
            let written = |secret: &Value| msgpack_of_json(&secret.to_string()).unwrap();
            let secrets = secrets.iter().map(written).collect::<Vec<_>>();
            let spans = spans_of_msgpack(&bytes).unwrap();

            let Masked { bytes: shown, values } = masked(&bytes);

            let within = spans.iter().map(|span| bytes[span.clone()].to_vec()).collect::<Vec<_>>();
            prop_assert_eq!((shown.len(), values, within), (bytes.len(), secrets.len(), secrets));
            for (at, (shown, byte)) in shown.iter().zip(&bytes).enumerate() {
                let expected = if spans.iter().any(|span| span.contains(&at)) { b'*' } else { *byte };
                prop_assert_eq!(*shown, expected);
            }
        }

        #[test]
        fn any_bytes_are_masked_without_a_panic(bytes: Vec<u8>, name in 0..SECRET_NAMES.len()) {
            let Masked { bytes: shown, values } = masked(&bytes);
            prop_assert!(values > 0 || shown == bytes);

            // No UTF-8, and no MessagePack.
            let mut named = vec![0xc1];
            named.extend(bytes);
            named.extend(SECRET_NAMES[name].bytes());
            named.extend(b"=hunter2");
            let shown = masked(&named).bytes;
            prop_assert!(!shown.windows(7).any(|window| window == b"hunter2"));
        }
    }
}
