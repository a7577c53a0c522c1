//! `fermata review`, and what is promised of every message that others see.

use std::collections::BTreeSet;

use fermata_jetstream::core_messages::CoreMessages;
use fermata_jetstream::reader::Holes;
use fermata_jetstream::{Publisher, PublisherOptions, StreamReader};
use fermata_wire::audit::AuditFrame;
use fermata_wire::dead::DeadLetter;
use serde_json::Value;

use crate::described::{Described, STORED_OR_SENT};
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

#[tokio::test(flavor = "multi_thread")]
async fn cases_are_reviewed_together_and_every_message_about_them_is_as_the_document_says() {
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
    // Under an id of its own: one that comes again behind the run would be a repeat of it.
    messages.push(("known.start", event(UNMATCHED, "known.start").to_string()));
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
    assert_eq!(described.channels(), STORED_OR_SENT);

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
