//! Contracts: what the data of an event type adheres to, as JSON Schema 2020-12.
//!
//! A contract belongs to a tenant and an event type and has a version; a version
//! never changes. The rules here are pure: what a schema may be, which version an
//! event names, and whether a new version takes what the newest one takes.
//! Whoever listens compiles and asks the schemas.

mod compatibility;
mod cost;
mod price;

use serde_json::Value;

use crate::json::{check_unique_keys, told};

pub use compatibility::incompatibilities;
pub use price::{DataSize, Price};

/// Longest schema, in bytes of JSON: a contract is read by people too.
pub const SCHEMA_BYTES_MAX: usize = 64 * 1024;
/// Deepest nesting of a schema.
pub const SCHEMA_DEPTH_MAX: usize = 32;
/// Most values in a schema, which bounds what compiling it costs.
pub const SCHEMA_VALUES_MAX: usize = 10_000;
/// Longest regular expression in a schema, in bytes.
pub const PATTERN_BYTES_MAX: usize = 1_024;
/// Most regular expressions in a schema.
pub const PATTERNS_MAX: usize = 64;
/// Most references in a schema, which bounds the search for those that lead back.
pub const REFERENCES_MAX: usize = 128;
/// Most schemas that ask each other about the same value, one from within the
/// other: with the depth of events it bounds the stack that checking takes.
pub const SAME_VALUE_DEPTH_MAX: usize = 16;
/// Most that checking data may cost, in keywords that are looked at with every
/// reference written out: what checks in a listener holds up what comes behind.
pub const COST_MAX: u64 = 10_000;
/// Most contracts of an engine, all versions together.
pub const CONTRACTS_MAX: usize = 4_096;
/// Most regular expressions of all contracts of an engine: each that is compiled may
/// take 256 KiB of memory, and as much again while it searches.
pub const CONTRACT_PATTERNS_MAX: usize = 2_048;
/// Most states of regular expressions that look at one text: data of 4 KiB can then
/// always be checked.
pub const STATES_MAX: u64 = 16_384;
/// Most steps that checking the events of one message may take, as [`Price`] tells
/// them: some tenths of a second. Events of 256 KiB fit where no value is looked at by
/// some hundred keywords.
pub const MESSAGE_STEPS_MAX: u64 = 16_000_000;
/// Longest name of a version, in bytes.
pub const VERSION_BYTES_MAX: usize = 64;
/// Most problems that are told of one schema or event; the rest is counted.
pub const PROBLEMS_MAX: usize = 20;

/// What a version's name has to be, for people.
pub const VERSION_RULE: &str = "a version begins with its major number, as `v2`, `2.1` and \
                                `2-draft` do; letters, digits, `.`, `-` and `_`, 64 at most";

/// The one dialect that is read.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// The major version that a version's name begins with, `2` of `v2.1` and of
/// `2`; nothing where it is no version's name. It has to fit a URI's last segment
/// as it is.
#[must_use]
pub fn major_of(version: &str) -> Option<u32> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if version.len() > VERSION_BYTES_MAX || !version.bytes().all(allowed) {
        return None;
    }
    let numbered = version.strip_prefix('v').unwrap_or(version);
    let digits = numbered.bytes().take_while(u8::is_ascii_digit).count();
    let (major, rest) = numbered.split_at_checked(digits)?;
    let ends = rest.bytes().next().is_none_or(|byte| !byte.is_ascii_alphanumeric());
    ends.then(|| major.parse().ok()).flatten()
}

/// The version that an event's `dataschema` names: what follows the last `#`, or
/// else the last segment of the path. Nothing where that is no version's name.
#[must_use]
pub fn version_of(dataschema: &str) -> Option<&str> {
    let named = match dataschema.rsplit_once('#') {
        Some((_, fragment)) if !fragment.is_empty() => fragment,
        Some((uri, _)) => last_segment(uri),
        None => last_segment(dataschema),
    };
    major_of(named).map(|_| named)
}

fn last_segment(uri: &str) -> &str {
    let path = uri.split_once('?').map_or(uri, |(path, _)| path);
    path.trim_end_matches('/').rsplit(['/', ':']).next().unwrap_or_default()
}

/// Reads a schema and tells what speaks against it as a contract: nothing is
/// fetched, so a reference must stay within the document.
///
/// # Errors
///
/// The problems, each with the place as a JSON pointer.
pub fn read_schema(text: &str) -> Result<Value, Vec<String>> {
    if text.len() > SCHEMA_BYTES_MAX {
        let bytes = text.len();
        return Err(vec![format!("the schema has {bytes} bytes, at most {SCHEMA_BYTES_MAX}")]);
    }
    let schema: Value = serde_json::from_str(text)
        .map_err(|error| vec![format!("the schema is no JSON: {}", told(&error, text))])?;
    check_unique_keys(text)
        .map_err(|error| vec![format!("{error}: which of both holds? Keep one of them")])?;
    if !schema.is_object() && !schema.is_boolean() {
        return Err(vec!["a schema is an object, `true` or `false`".to_owned()]);
    }
    let mut walk = Walk { problems: Vec::new(), values: 0, patterns: 0, references: 0 };
    walk.value(&schema, &mut String::new(), 1);
    if walk.values > SCHEMA_VALUES_MAX {
        walk.problems.push(format!("the schema has more than {SCHEMA_VALUES_MAX} values"));
    }
    if walk.patterns > PATTERNS_MAX {
        walk.problems.push(format!("the schema has more than {PATTERNS_MAX} regular expressions"));
    }
    if walk.references > REFERENCES_MAX {
        walk.problems.push(format!("the schema has more than {REFERENCES_MAX} references"));
    }
    if walk.problems.is_empty() {
        walk.problems = cost::problems(&schema);
    }
    if walk.problems.is_empty() { Ok(schema) } else { Err(walk.problems) }
}

/// How many regular expressions a schema has.
#[must_use]
pub fn patterns_of(schema: &Value) -> usize {
    let mut walk = Walk { problems: Vec::new(), values: 0, patterns: 0, references: 0 };
    walk.value(schema, &mut String::new(), 1);
    walk.patterns
}

struct Walk {
    problems: Vec<String>,
    values: usize,
    patterns: usize,
    references: usize,
}

impl Walk {
    fn value(&mut self, value: &Value, place: &mut String, depth: usize) {
        self.values += 1;
        if self.problems.len() >= PROBLEMS_MAX || self.values > SCHEMA_VALUES_MAX {
            return;
        }
        if depth > SCHEMA_DEPTH_MAX {
            let problem = format!("{place}: nests deeper than {SCHEMA_DEPTH_MAX} levels");
            return self.problems.push(problem);
        }
        let length = place.len();
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    push_token(place, name);
                    self.member(name, member, place, depth);
                    self.value(member, place, depth + 1);
                    place.truncate(length);
                }
            }
            Value::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    push_token(place, &at.to_string());
                    self.value(item, place, depth + 1);
                    place.truncate(length);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// Looks at a member by its name wherever it stands: what only looks like a
    /// keyword is refused as well, which costs nobody a network.
    fn member(&mut self, name: &str, value: &Value, place: &str, depth: usize) {
        if name == "patternProperties" {
            let names = value.as_object().into_iter().flat_map(|members| members.keys());
            names.for_each(|pattern| self.pattern(pattern, place));
        }
        let Value::String(text) = value else { return };
        let problem = match name {
            "$ref" if !text.starts_with('#') => {
                "refers beyond the document; nothing is fetched, so put it under `$defs`"
            }
            "$ref" if !is_definition(text) => "is neither `#` nor of the form `#/$defs/name`",
            "$ref" => {
                self.references += 1;
                return;
            }
            "$id" => "is not allowed: a contract is named by tenant, type and version",
            "$dynamicRef" | "$dynamicAnchor" | "$recursiveRef" | "$vocabulary" => {
                "is not read here"
            }
            "$schema" if depth > 1 || text.trim_end_matches('#') != DIALECT => {
                "is another dialect; JSON Schema 2020-12 is read"
            }
            "pattern" => return self.pattern(text, place),
            _ => return,
        };
        self.problems.push(format!("{place}: {problem}"));
    }

    fn pattern(&mut self, pattern: &str, place: &str) {
        self.patterns += 1;
        if pattern.len() > PATTERN_BYTES_MAX {
            let problem =
                format!("{place}: a regular expression has at most {PATTERN_BYTES_MAX} bytes");
            self.problems.push(problem);
        }
    }
}

/// Whether a reference leads to the whole schema or to a definition of it: what
/// stands elsewhere is not compared with its next version.
fn is_definition(reference: &str) -> bool {
    let name = ["#/$defs/", "#/definitions/"].iter().find_map(|head| reference.strip_prefix(head));
    reference == "#" || name.is_some_and(|name| !name.contains(['/', '%']))
}

/// Adds a token to a JSON pointer (RFC 6901).
fn push_token(pointer: &mut String, token: &str) {
    pointer.push('/');
    pointer.push_str(&token.replace('~', "~0").replace('/', "~1"));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_that_is_there_twice_is_refused_with_its_place() {
        let twice = "{\"type\": \"object\",\n \"properties\": {\"n\": {},\n  \"n\": {}}}";

        let found = read_schema(twice).unwrap_err();

        assert_eq!(
            found,
            ["`n` is there twice at line 3 column 5: which of both holds? Keep one of them"]
        );
        assert!(
            read_schema(r#"{"properties": {"n": {"title": "a"}, "m": {"title": "a"}}}"#).is_ok()
        );
    }

    #[test]
    fn a_dataschema_names_the_version_by_its_fragment_or_its_last_segment() {
        let cases = [
            ("https://acme.example/order/v2", Some("v2")),
            ("https://acme.example/order/1.0.3?x=/y", Some("1.0.3")),
            ("https://acme.example/order#v3", Some("v3")),
            ("https://acme.example/order/v2#", Some("v2")),
            ("https://acme.example/order/v2/", Some("v2")),
            ("urn:acme:order:7", Some("7")),
            ("v2", Some("v2")),
            ("https://acme.example/#/a b", None),
            ("https://acme.example/order", None),
            ("urn:acme:1x", None),
            ("", None),
        ];
        for (uri, version) in cases {
            assert_eq!(version_of(uri), version, "{uri}");
        }
    }

    #[test]
    fn what_refers_beyond_the_document_is_refused_wherever_it_stands() {
        for schema in [
            json!({"$ref": "https://acme.example/a.json"}),
            json!({"properties": {"a": {"$ref": "other.json#/b"}}}),
            json!({"anyOf": [{"$ref": "file:///etc/passwd"}]}),
            json!({"$dynamicRef": "#a", "$defs": {"a": {"$dynamicAnchor": "a"}}}),
            json!({"$ref": "#a", "$defs": {"a": {"$anchor": "a"}}}),
            json!({"$ref": "#/x-hidden", "x-hidden": {"type": "string"}}),
            json!({"$id": "https://acme.example/a.json"}),
            json!({"$defs": {"a": {"$id": "#a"}}}),
            json!({"$schema": "http://json-schema.org/draft-07/schema#"}),
            json!({"properties": {"a": {"$schema": DIALECT}}}),
            json!({"pattern": "x".repeat(PATTERN_BYTES_MAX + 1)}),
            json!([]),
        ] {
            assert!(read_schema(&schema.to_string()).is_err(), "{schema}");
        }
        let sound = json!({
            "$schema": DIALECT,
            "$ref": "#/$defs/a",
            "$defs": {"a": {"properties": {"$ref": {"type": "string"}}}},
        });
        assert_eq!(read_schema(&sound.to_string()), Ok(sound));
        assert!(read_schema("{").is_err());
        let deep = format!("{}true{}", "{\"not\":".repeat(33), "}".repeat(33));
        assert!(read_schema(&deep).is_err());
        let problems = read_schema(&json!({"a/b": {"$ref": "x"}}).to_string()).unwrap_err();
        assert!(problems[0].starts_with("/a~1b/$ref: "), "{problems:?}");
    }
}
