//! `fermata review`, and what is promised of every message that others see.

use std::collections::BTreeSet;

use fermata_jetstream::core_messages::CoreMessages;
use fermata_jetstream::reader::Holes;
use fermata_jetstream::{Publisher, PublisherOptions, StreamReader};
use fermata_wire::audit::AuditFrame;
use fermata_wire::dead::DeadLetter;
use serde_json::Value;

use crate::engine::{RunningEngine, event};
use crate::support::SOON;

const WORKFLOW: &str = "
workflow:
  name: broken
  version: '1'
  tasks:
    - { id: call, http: { plugin: nobody, path: /a, body: '{}' } }
";
const STRATEGIES: &str = "
strategies:
  - { name: start, version: 1, tenant: '*', on: known.start, workflow: { name: broken, version: '1' } }
";

/// Events that nothing matches: more than are kept as samples.
const UNMATCHED: usize = 60;

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

struct Described {
    document: Value,
    seen: BTreeSet<String>,
}

impl Described {
    fn read() -> Self {
        let text = include_str!("../../../../schemas/asyncapi.yaml");
        let document = serde_saphyr::from_str::<Value>(text).expect("YAML");
        assert_eq!(document["asyncapi"], "3.0.0");
        Self { document, seen: BTreeSet::new() }
    }

    /// Holds a message against what is said of its channel.
    fn check(&mut self, channel: &str, subject: &str, value: &Value) {
        let described = &self.document["channels"][channel];
        let address = described["address"].as_str().expect("an address");
        let (prefix, rest) = address.split_once(".{").expect("parameters");
        assert!(subject.starts_with(&format!("{prefix}.")), "{subject} is not at {address}");
        assert!(subject.split('.').count() > address.matches('{').count() + 1, "{subject}: {rest}");
        let messages = described["messages"].as_object().expect("messages");
        let message = messages.values().next().expect("a message");
        let message = &message["$ref"].as_str().expect("a message")[1..];
        let payload = &self.document.pointer(message).expect("a message")["payload"];
        let mut found = Vec::new();
        objections(&self.document, payload, value, channel, &mut found);
        assert_eq!(found, [""; 0], "{subject}: {value}");
        self.seen.insert(channel.to_owned());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cases_are_reviewed_together_and_every_public_message_is_as_the_document_says() {
    let engine = RunningEngine::start(&["--http", "127.0.0.1:0", "--partitions", "2"], &[]).await;
    engine.apply("workflow", WORKFLOW).await;
    engine.apply("strategy", STRATEGIES).await;
    let broker = engine.broker().await;
    let core = CoreMessages::new(&broker);
    let mut escalations = core.subscribe("fermata.escalation.>").await.expect("a subscription");
    let mut audit = core.subscribe("fermata.audit.>").await.expect("a subscription");
    let publisher = Publisher::new(&broker, PublisherOptions::default()).await.expect("one");
    let mut messages = (0..UNMATCHED)
        .map(|id| ("nobody.wants", event(id, "nobody.wants").to_string()))
        .collect::<Vec<_>>();
    messages.push(("known.start", event(0, "known.start").to_string()));
    messages.push(("known.start", "{".to_owned()));
    for (kind, text) in messages {
        let subject = format!("fermata.events.acme.{kind}");
        let outcome = publisher.publish(subject, None, text.into_bytes().into()).await.await;
        outcome.sequence().expect("stored");
    }

    // The run fails at once: its plugin is not allowed.
    let mut described = Described::read();
    let mut reasons = BTreeSet::new();
    while reasons.len() < 2 {
        let told = tokio::time::timeout(SOON, escalations.next()).await.expect("in time");
        let told = told.expect("a message");
        let case = serde_json::from_slice::<Value>(&told.payload).expect("JSON");
        described.check("escalation", &told.subject, &case);
        reasons.insert(case["reason"].as_str().expect("a reason").to_owned());
    }
    assert_eq!(reasons.into_iter().collect::<Vec<_>>(), ["run_failed", "unmatched"]);
    let entry = tokio::time::timeout(SOON, audit.next()).await.expect("in time").expect("a frame");
    let frame = AuditFrame::decode(&entry.payload).expect("a frame");
    described.check("audit", &entry.subject, &serde_json::to_value(frame).expect("JSON"));
    let drained = |answer: &crate::process::Answer| {
        let lines = [
            "fermata_partition_backlog_messages{partition=\"0\"} 0\n",
            "fermata_partition_backlog_messages{partition=\"1\"} 0\n",
            "fermata_stage_unacknowledged_messages{stage=\"listener\"} 0\n",
            "fermata_stage_lag_messages{stage=\"listener\"} 0\n",
        ];
        lines.iter().all(|line| answer.body.contains(line))
    };
    engine.up.until("/metrics", drained).await;
    let reader = StreamReader::new(&broker);
    for (stream, channel) in [("EVENTS", "events"), ("DEAD", "dead")] {
        let mut replay = reader.replay(stream, 1, Holes::Allowed).await.expect("a stream");
        for message in replay.next_batch(1_000).await.expect("messages") {
            let value = match channel {
                "dead" => {
                    let letter = DeadLetter::decode(&message.payload).expect("a letter");
                    serde_json::to_value(letter).expect("JSON")
                }
                // What is no event is the dead letter.
                _ => match serde_json::from_slice(&message.payload) {
                    Ok(event) => event,
                    Err(_) => continue,
                },
            };
            described.check(channel, &message.subject, &value);
        }
    }
    assert_eq!(described.seen.len(), 4, "{:?}", described.seen);

    let listed = engine.run(&["review", "list", "--tenant", "acme", "--json"]).await.json();
    let unmatched = listed.iter().filter(|review| review["reason"] == "unmatched");
    let counts = unmatched.clone().map(|review| review["count"].as_u64().expect("a count"));
    // Two minutes at the most, however many partitions.
    assert_eq!(counts.clone().sum::<u64>(), UNMATCHED as u64, "{listed:?}");
    assert!(counts.count() <= 2, "{listed:?}");
    let case = unmatched.clone().next().expect("a review")["case"].as_str().expect("an id");
    let shown = engine.run(&["review", "show", case]).await;
    assert!(shown.stdout.contains("reason  unmatched, tier 3"), "{}", shown.stdout);
    let failed = engine.run(&["review", "list", "--reason", "run_failed", "--json"]).await.json();
    assert_eq!((failed.len(), &failed[0]["type"]), (1, &"known.start".into()), "{failed:?}");
    assert!(failed[0]["samples"][0]["run"].is_string(), "{failed:?}");
    let missing = engine.run(&["review", "show", "00000000-0000-8000-8000-000000000000"]).await;
    assert_eq!(missing.code, 4, "{}", missing.stderr);
}
