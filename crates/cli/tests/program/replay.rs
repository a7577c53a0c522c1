//! `fermata events replay`.

use std::collections::BTreeMap;

use fermata_core::command::{EventReference, StrategyEntry, WorkflowEntry};
use fermata_core::digest::Digest;
use fermata_core::event::msgpack_of_json;
use fermata_core::identity::SourcePosition;
use fermata_core::json::Json;
use fermata_core::partition::Definitions;
use fermata_core::record::{EventRejected, Record};
use fermata_jetstream::Headers;
use fermata_jetstream::core_messages::CoreMessages;
use fermata_jetstream::definitions_store::DefinitionsStore;
use serde_json::Value;

use crate::support::{SOON, Stage};

pub const DRAFT: &str = "
strategies:
  - name: large
    version: 2
    tenant: acme
    on: job.done
    when: event.data.n > 5
    workflow: { name: report, version: '1' }
    variables: { n: event.data.n }
";

pub async fn activate(stage: &Stage) {
    let definition = serde_json::json!({
        "name": "large", "version": 1, "tenant": "acme", "on": "job.done",
        "when": "event.data.n > 10",
        "action": { "run": {
            "workflow": { "name": "report", "version": "1" }, "variables": { "n": "event.data.n" },
        } },
    });
    let entry = StrategyEntry {
        name: "large".into(),
        version: 1,
        definition: Json::from_value(&definition),
    };
    let strategies = BTreeMap::from([(entry.name.clone(), entry)]);
    let plan = Digest::of(b"plan");
    let workflows = vec![WorkflowEntry { name: "report".into(), version: "1".into(), plan }];
    let active = Definitions { revision: 1, strategies, workflows, ..Definitions::default() };
    let bytes = fermata_wire::projection::Projection::of(&active).unwrap().message;
    DefinitionsStore::open(&stage.broker).await.unwrap().put("active", bytes.into()).await.unwrap();
}

async fn publish(stage: &Stage, id: u32, n: u32) {
    let event = format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"/t","type":"job.done","data":{{"n":{n}}}}}"#
    );
    let subject = "fermata.events.acme.job.done";
    let outcome = stage.publisher.publish(subject, None, event.into_bytes().into()).await.await;
    outcome.sequence().expect("stored");
}

/// As attributes in headers, with MessagePack as the data.
async fn publish_binary(stage: &Stage, id: u32, n: u32) {
    let mut headers = Headers::new();
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-id", &id.to_string()),
        ("ce-source", "/t"),
        ("ce-type", "job.done"),
        ("Content-Type", "application/msgpack"),
    ] {
        headers.insert(name, value);
    }
    let data = msgpack_of_json(&format!(r#"{{"n":{n}}}"#)).unwrap();
    let subject = "fermata.events.acme.job.done";
    let outcome = stage.publisher.publish(subject, Some(headers), data.into()).await.await;
    outcome.sequence().expect("stored");
}

#[tokio::test]
async fn a_draft_is_compared_with_what_is_active_and_a_difference_ends_with_1() {
    let stage = Stage::new().await;
    activate(&stage).await;
    for (id, n) in [(1, 20), (3, 1), (1, 20)] {
        publish(&stage, id, n).await;
    }
    publish_binary(&stage, 2, 7).await;
    let draft = stage.folder.path().join("draft.yaml");
    std::fs::write(&draft, DRAFT).unwrap();
    let same = stage.folder.path().join("same.yaml");
    std::fs::write(&same, DRAFT.replace("> 5", "> 10")).unwrap();
    let (draft, same) = (draft.display().to_string(), same.display().to_string());

    let unknown = stage.folder.path().join("unknown.yaml");
    std::fs::write(&unknown, DRAFT.replace("version: '1'", "version: '9'")).unwrap();
    let unknown = unknown.display().to_string();
    let refused = stage.run(&["events", "replay", "--against", &unknown]).await;
    let told =
        "the draft could not be applied: `large` starts `report 9`, and no such workflow is active";
    assert!(refused.code == 2 && refused.stderr.contains(told), "{}", refused.stderr);

    let question = ["events", "replay", "--since", "1h", "--against", &draft, "--json"];
    let differs = stage.run(&question).await;
    let agrees = stage.run(&["events", "replay", "--against", &same]).await;
    let later = stage.run(&["events", "replay", "--since", "0s", "--against", &draft]).await;

    assert_eq!(differs.code, 1, "{}{}", differs.stdout, differs.stderr);
    let told = &differs.json()[0];
    assert_eq!((&told["events"], &told["repeats"]), (&3.into(), &1.into()), "{told}");
    let large = &told["strategies"]["large"];
    assert_eq!((&large["same"], &large["only_draft"]), (&1.into(), &1.into()), "{told}");
    assert_eq!(large["samples"][0]["sequence"], 4);
    assert_eq!(agrees.code, 0, "{}{}", agrees.stdout, agrees.stderr);
    assert!(agrees.stdout.ends_with("no run would differ\n"), "{}", agrees.stdout);
    assert!(later.stdout.starts_with("0 events"), "{}", later.stdout);
}

/// Where every stream of the broker ends, buckets included, and how many messages it holds.
async fn ends(stage: &Stage) -> BTreeMap<String, (u64, u64)> {
    let core = CoreMessages::new(&stage.broker);
    let answer = core.request("$JS.API.STREAM.LIST", Default::default(), SOON).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    let streams = answer["streams"].as_array().unwrap();
    assert_eq!(answer["total"], streams.len(), "not all streams are listed");
    let end = |stream: &Value| {
        let number = |name| stream["state"][name].as_u64().unwrap();
        let name = stream["config"]["name"].as_str().unwrap().to_owned();
        (name, (number("last_seq"), number("messages")))
    };
    streams.iter().map(end).collect()
}

#[tokio::test]
async fn a_comparison_of_events_that_a_draft_takes_stores_nothing_anywhere() {
    let stage = Stage::new().await;
    activate(&stage).await;
    for (id, n) in [(1, 20), (2, 7), (3, 1)] {
        publish(&stage, id, n).await;
    }
    let draft = stage.folder.path().join("draft.yaml").display().to_string();
    std::fs::write(&draft, DRAFT).unwrap();
    let before = ends(&stage).await;

    let compared = stage.run(&["events", "replay", "--against", &draft, "--json"]).await;

    let told = &compared.json()[0]["strategies"]["large"];
    assert_eq!((&told["same"], &told["only_draft"]), (&1.into(), &1.into()), "{told}");
    assert_eq!(before["EVENTS"], (3, 3));
    for stream in ["COMMANDS_0", "COMMANDS_control", "JOURNAL_0", "DEAD", "TASKS"] {
        assert_eq!(before[stream], (0, 0), "{stream}");
    }
    assert_eq!(ends(&stage).await, before);
}

#[tokio::test]
async fn what_an_enforced_contract_refused_starts_no_run_in_either_and_is_counted() {
    let stage = Stage::new().await;
    activate(&stage).await;
    for (id, n) in [(1, 7), (2, 7), (3, 7)] {
        publish(&stage, id, n).await;
    }
    let rejected = |sequence, reason: &str| {
        let tenant = "acme".parse().unwrap();
        let event = EventReference {
            tenant,
            id: "1".into(),
            source: "/t".into(),
            kind: "job.done".into(),
            traceparent: None,
            hops: 0,
            breach: None,
            replayed: None,
        };
        let source = SourcePosition { sequence, index: 0 };
        let (reason, detail) = (reason.into(), "why".to_owned());
        let (original, replay) = (None, None);
        let tenant = event.tenant.clone();
        let body = EventRejected { event, source, reason, detail, original, replay };
        Record::of_tenant(&tenant, body.into())
    };
    // The second was refused for what a corrected strategy may take.
    let records = [rejected(1, "contract_violation"), rejected(2, "variables_failed")];
    stage.journal(0, 0, &records).await;
    let draft = stage.folder.path().join("draft.yaml");
    std::fs::write(&draft, DRAFT).unwrap();
    let draft = draft.display().to_string();

    let compared = stage.run(&["events", "replay", "--against", &draft, "--json"]).await;
    let told = stage.run(&["events", "replay", "--against", &draft]).await;

    let compared = &compared.json()[0];
    assert_eq!((&compared["events"], &compared["refused"]), (&2.into(), &1.into()), "{compared}");
    assert_eq!(compared["strategies"]["large"]["only_draft"], 2, "{compared}");
    assert!(told.stdout.contains(", 1 that a contract refused; "), "{}", told.stdout);
}
