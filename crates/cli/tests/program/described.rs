//! schemas/asyncapi.yaml, and whether messages are as it says.

use std::collections::BTreeSet;

use serde_json::Value;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../schemas/asyncapi.yaml");

/// The channels of messages that are stored or sent, which the test of review cases sees.
pub const STORED_OR_SENT: [&str; 4] = ["audit", "dead", "escalation", "events"];

/// Yields where `value` is not as the JSON Schema `schema` wants it, of whose words it knows
/// those that the document uses.
fn objections(document: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#')).expect(reference);
        return objections(document, target, value, at, found);
    }
    let is_of = |kind: &str| match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "integer" => value.is_u64(),
        "null" => value.is_null(),
        // Bytes of MessagePack, as their decoder gives them.
        "string" if schema["format"] == "binary" => value.is_array() || value.is_string(),
        "string" => value.is_string(),
        other => panic!("`{other}` is no type of the document"),
    };
    let fits = match &schema["type"] {
        Value::Null => true,
        Value::String(kind) => is_of(kind),
        Value::Array(kinds) => kinds.iter().any(|kind| is_of(kind.as_str().expect("a type"))),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Object(_)) => {
            panic!("{other} is no type")
        }
    };
    if !fits {
        return found.push(format!("{at} is {value}, not {}", schema["type"]));
    }
    let alternatives = schema["anyOf"].as_array();
    let takes = |schema: &Value| {
        let mut found = Vec::new();
        objections(document, schema, value, at, &mut found);
        found.is_empty()
    };
    if alternatives.is_some_and(|alternatives| !alternatives.iter().any(takes)) {
        found.push(format!("{at} is {value}, none of {}", schema["anyOf"]));
    }
    if schema["enum"].as_array().is_some_and(|values| !values.contains(value)) {
        found.push(format!("{at} is {value}, none of {}", schema["enum"]));
    }
    if schema.get("const").is_some_and(|only| only != value) {
        found.push(format!("{at} is {value}, not {}", schema["const"]));
    }
    let length = value.as_str().map_or(u64::MAX, |text| text.len() as u64);
    if length < schema["minLength"].as_u64().unwrap_or(0) {
        found.push(format!("{at} is too short"));
    }
    if let Some(number) = value.as_u64() {
        let (least, most) = (schema["minimum"].as_u64(), schema["maximum"].as_u64());
        if number < least.unwrap_or(0) || number > most.unwrap_or(u64::MAX) {
            found.push(format!("{at} is {number}"));
        }
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().expect("a name");
        if value.get(name).is_none() {
            found.push(format!("{at} has no `{name}`"));
        }
    }
    for (name, inner) in value.as_object().into_iter().flatten() {
        match schema["properties"].get(name) {
            Some(schema) => objections(document, schema, inner, &format!("{at}.{name}"), found),
            None if schema["additionalProperties"] == false => {
                found.push(format!("{at}.{name} is not described"));
            }
            None => {}
        }
    }
    for (place, inner) in value.as_array().into_iter().flatten().enumerate() {
        if let Some(schema) = schema.get("items") {
            objections(document, schema, inner, &format!("{at}[{place}]"), found);
        }
    }
}

/// Whether `subject` is at `address`; the last parameter may have several tokens. Without an
/// address it is an inbox.
fn is_at(address: &Value, subject: &str) -> bool {
    let Some(address) = address.as_str() else { return subject.starts_with("_INBOX.") };
    let (wanted, given) =
        (address.split('.').collect::<Vec<_>>(), subject.split('.').collect::<Vec<_>>());
    let has_length = match wanted.last().is_some_and(|last| last.starts_with('{')) {
        true => given.len() >= wanted.len(),
        false => given.len() == wanted.len(),
    };
    let mut tokens = wanted.iter().zip(&given);
    has_length && tokens.all(|(wanted, given)| wanted.starts_with('{') || wanted == given)
}

/// The document, and which of its messages were seen.
pub struct Described {
    document: Value,
    seen: BTreeSet<(String, String)>,
}

impl Described {
    pub fn read() -> Self {
        let text = std::fs::read_to_string(DOCUMENT).expect("the document");
        let document = serde_saphyr::from_str::<Value>(&text).expect("YAML");
        assert_eq!(document["asyncapi"], "3.0.0");
        Self { document, seen: BTreeSet::new() }
    }

    /// Holds a message against what is said of the only one of its channel.
    pub fn check(&mut self, channel: &str, subject: &str, value: &Value) {
        let messages = self.document["channels"][channel]["messages"].as_object();
        let messages = messages.expect("messages").keys().cloned().collect::<Vec<_>>();
        let [message] = &messages[..] else { panic!("{channel} has {messages:?}") };
        self.check_one_of(channel, message, subject, value);
    }

    /// Holds a message against what is said of `message` of its channel.
    pub fn check_one_of(&mut self, channel: &str, message: &str, subject: &str, value: &Value) {
        let described = &self.document["channels"][channel];
        assert!(is_at(&described["address"], subject), "{subject} is not of {channel}");
        let reference = described["messages"][message]["$ref"].as_str().expect("a message");
        let payload = &self.document.pointer(&reference[1..]).expect("a message")["payload"];
        let mut found = Vec::new();
        objections(&self.document, payload, value, message, &mut found);
        assert_eq!(found, [""; 0], "{subject}: {value}");
        self.seen.insert((channel.to_owned(), message.to_owned()));
    }

    /// The channels of the messages that were seen.
    pub fn channels(&self) -> Vec<String> {
        let channels = self.seen.iter().map(|(channel, _)| channel.clone());
        channels.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Messages that the document has and that were not seen, those of `others` aside.
    pub fn unseen(&self, others: &[&str]) -> Vec<String> {
        let channels = self.document["channels"].as_object().expect("channels").iter();
        let channels = channels.filter(|(name, _)| !others.contains(&name.as_str()));
        let all = channels.flat_map(|(channel, described)| {
            let messages = described["messages"].as_object().expect("messages");
            messages.keys().map(|message| (channel.clone(), message.clone()))
        });
        let unseen = all.filter(|message| !self.seen.contains(message));
        unseen.map(|(channel, message)| format!("{channel}: {message}")).collect()
    }
}
