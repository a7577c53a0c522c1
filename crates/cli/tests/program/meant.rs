//! Names that are nearly right, and lists of a tenant that nobody knows: told with what may be meant.

use std::collections::BTreeMap;

use fermata_core::command::{ContractMode, Retirement, StrategyEntry, WorkflowEntry};
use fermata_core::digest::Digest;
use fermata_core::flags::Flags;
use fermata_core::identity::PartitionId;
use fermata_core::json::Json;
use fermata_core::partition::Definitions;
use fermata_core::record::{DefinitionsApplied, Record};
use fermata_jetstream::definitions_store::DefinitionsStore;
use fermata_wire::dead::DeadLetter;
use serde_json::json;
use uuid::Uuid;

use crate::definitions::answer_define;
use crate::support::{Stage, run};

fn strategy(name: &str) -> StrategyEntry {
    let definition = json!({
        "name": name, "version": 1, "tenant": "acme", "on": "job.done", "action": "ignore",
    });
    StrategyEntry { name: name.into(), version: 1, definition: Json::from_value(&definition) }
}

/// The record of strategies that were applied, or retired for a reason.
fn applied(by: &str, strategies: Vec<StrategyEntry>, retire: &[&str], reason: &str) -> Record {
    let strategies_to_retire = retire.iter().map(|name| (*name).into()).collect();
    let retire = Retirement { strategies: strategies_to_retire, reason: Some(reason.into()) };
    Record::of_partition(
        DefinitionsApplied {
            id: Uuid::from_u128(1),
            by: by.into(),
            revision: 7,
            strategies,
            workflows: Vec::new(),
            flags: Flags::default(),
            contracts: Vec::new(),
            contract_modes: BTreeMap::new(),
            retire,
        }
        .into(),
    )
}

/// A tenant with a strategy, a mode and a retired strategy, and a workflow.
async fn known(stage: &Stage) {
    let plan = Digest::of(b"a plan");
    let active = Definitions {
        revision: 3,
        workflows: vec![WorkflowEntry { name: "report".into(), version: "1".into(), plan }],
        strategies: [("note-jobs".into(), strategy("note-jobs"))].into(),
        contract_modes: [("acme".into(), ContractMode::Enforce)].into(),
        retired: [("old-jobs".into(), 1)].into(),
        ..Definitions::default()
    };
    let bytes = fermata_wire::projection::Projection::of(&active).unwrap().message;
    let store = DefinitionsStore::open(&stage.broker).await.unwrap();
    store.put("active", bytes.into()).await.unwrap();
}

#[tokio::test]
async fn a_list_of_a_tenant_of_whom_nothing_is_known_says_so_and_who_may_be_meant() {
    let stage = Stage::new().await;
    known(&stage).await;

    for (list, what) in [("contract", "contracts"), ("strategy", "strategies"), ("runs", "runs")] {
        let listed = stage.run(&[list, "list", "--tenant", "acne"]).await;
        let of_programs = stage.run(&[list, "list", "--tenant", "acne", "--json"]).await;

        assert_eq!(listed.code, 0, "{}", listed.stderr);
        let told = format!("no {what} of tenant `acne` are known; did you mean `acme`?");
        assert!(listed.stdout.contains(&told), "{}", listed.stdout);
        assert_eq!(of_programs.stdout, "");
        assert!(of_programs.stderr.contains(&told), "{}", of_programs.stderr);
    }
    for (list, what) in [("dead", "dead letters"), ("review", "cases")] {
        let listed = stage.run(&[list, "list", "--tenant", "acne"]).await;
        let told = format!("no {what} of tenant `acne` are known");
        assert!(listed.stdout.contains(&told), "{}", listed.stdout);
    }
    let of_known = stage.run(&["runs", "list", "--tenant", "acme"]).await;
    assert!(!of_known.stdout.contains("are known"), "{}", of_known.stdout);
}

#[tokio::test]
async fn an_unknown_tenant_beside_what_is_for_every_tenant_and_an_unknown_workflow_are_asked_about()
{
    let stage = Stage::new().await;
    known(&stage).await;

    let entries = ["audit", "tail", "--from-start", "--no-follow", "--tenant"];
    let tailed = stage.run(&[&entries[..], &["acne"]].concat()).await;
    let of_known = stage.run(&[&entries[..], &["acme"]].concat()).await;
    let slip = stage.run(&["runs", "list", "--workflow", "repotr"]).await;
    let far = stage.run(&["runs", "list", "--workflow", "nightly", "--json"]).await;
    let there = stage.run(&["runs", "list", "--workflow", "report"]).await;
    let mut of_all = strategy("every-job");
    let definition = json!({
        "name": "every-job", "version": 1, "tenant": "*", "on": "job.done", "priority": 0,
        "weight": 1, "fan_out": false, "action": "ignore",
    });
    of_all.definition = Json::from_value(&definition);
    let mode = ("acme".into(), ContractMode::Enforce);
    let active = Definitions {
        strategies: [("every-job".into(), of_all)].into(),
        contract_modes: [mode].into(),
        ..Definitions::default()
    };
    let bytes = fermata_wire::projection::Projection::of(&active).unwrap().message;
    let store = DefinitionsStore::open(&stage.broker).await.unwrap();
    store.put("active", bytes.into()).await.unwrap();
    let listed = stage.run(&["strategy", "list", "--tenant", "acne"]).await;

    let told = "note: no strategies or contracts of tenant `acne` are known; did you mean `acme`?";
    assert!(tailed.code == 0 && tailed.stderr.contains(told), "{}", tailed.stderr);
    assert_eq!(of_known.stderr, "");
    let told = "there is no workflow `repotr`; did you mean `report`?";
    assert!(slip.code == 0 && slip.stdout.contains(told), "{}", slip.stdout);
    let told = "there is no workflow `nightly`; `fermata workflow list` lists them";
    assert!(far.stdout.is_empty() && far.stderr.contains(told), "{}", far.stderr);
    assert!(!there.stdout.contains("no workflow"), "{}", there.stdout);
    assert!(listed.code == 0 && listed.stdout.contains("every-job"), "{}", listed.stderr);
    let told = "note: no strategy is for tenant `acne` alone; did you mean `acme`?";
    assert!(listed.stderr.contains(told), "{}", listed.stderr);
}

#[tokio::test]
async fn a_mode_without_a_contract_is_listed() {
    let stage = Stage::new().await;
    known(&stage).await;

    let listed = stage.run(&["contract", "list", "--tenant", "acme"]).await;
    let of_programs = stage.run(&["contract", "list", "--json"]).await;

    let row = listed.stdout.lines().nth(1).expect(&listed.stdout);
    let row: Vec<_> = row.split_whitespace().collect();
    assert_eq!(row, ["acme", "-", "-", "enforce", "-"], "{}", listed.stdout);
    let value = &of_programs.json()[0];
    assert_eq!((&value["type"], &value["mode"]), (&json!(null), &json!("enforce")));
}

#[tokio::test]
async fn a_contract_whose_tenant_and_type_were_swapped_is_told_the_right_way_round() {
    let stage = Stage::new().await;
    let contract = fermata_core::command::ContractEntry {
        tenant: "acme".parse().unwrap(),
        kind: "placed".into(),
        version: "v1".into(),
        schema: Json::from_value(&json!({})),
    };
    let active = Definitions { contracts: vec![contract], ..Definitions::default() };
    let bytes = fermata_wire::projection::Projection::of(&active).unwrap().message;
    let store = DefinitionsStore::open(&stage.broker).await.unwrap();
    store.put("active", bytes.into()).await.unwrap();

    for (arguments, told) in [
        (["--tenant", "placed", "--type", "acme"], "did you mean `--tenant acme --type placed`?"),
        (["--tenant", "acme", "--type", "plcaed"], "did you mean `--type placed`?"),
    ] {
        let shown = stage.run(&[&["contract", "show"][..], &arguments].concat()).await;
        assert_eq!(shown.code, 4, "{}", shown.stderr);
        assert!(shown.stderr.contains(told), "{}", shown.stderr);
    }
    let version = ["contract", "show", "--tenant", "acme", "--type", "placed", "--version", "v2"];
    let shown = stage.run(&version).await;
    assert!(shown.stderr.contains("its versions are `v1`, and none is `v2`"), "{}", shown.stderr);
}

#[tokio::test]
async fn who_retired_a_strategy_when_and_why_is_listed() {
    let stage = Stage::new().await;
    known(&stage).await;
    let records = [
        applied("alice", Vec::new(), &["old-jobs"], "a trial"),
        applied("bob", vec![strategy("old-jobs")], &[], ""),
        applied("carol", Vec::new(), &["old-jobs"], "the shop is closed"),
        applied("dave", Vec::new(), &["old-jobs"], "once more"),
    ];
    stage.journal_of(PartitionId::CONTROL, 0, 0, &records).await;

    let listed = stage.run(&["strategy", "list", "--retired"]).await;

    assert_eq!(listed.code, 0, "{}", listed.stderr);
    let row = listed.stdout.lines().nth(1).expect(&listed.stdout);
    let row: Vec<_> = row.split_whitespace().collect();
    let time = "2023-11-14T22:13:20.000Z";
    assert_eq!(row, ["old-jobs", "1", time, "carol", "the", "shop", "is", "closed"]);
}

#[tokio::test]
async fn an_event_that_a_retired_strategy_took_is_told_so_and_when_it_was_retired() {
    let stage = Stage::new().await;
    let active = Definitions { retired: [("old-jobs".into(), 1)].into(), ..Definitions::default() };
    let bytes = fermata_wire::projection::Projection::of(&active).unwrap().message;
    let store = DefinitionsStore::open(&stage.broker).await.unwrap();
    store.put("active", bytes.into()).await.unwrap();
    let records = [
        applied("alice", vec![strategy("old-jobs")], &[], ""),
        applied("carol", Vec::new(), &["old-jobs"], "the shop is closed"),
    ];
    stage.journal_of(PartitionId::CONTROL, 0, 0, &records).await;
    let file = stage.folder.path().join("event.json").display().to_string();
    let mut explained = Vec::new();
    for (kind, tenant) in [("job.done", "acme"), ("job.dome", "acme"), ("job.done", "globex")] {
        let event = json!({ "specversion": "1.0", "id": "1", "source": "/s", "type": kind });
        std::fs::write(&file, event.to_string()).unwrap();
        let explain = ["strategy", "explain", &file, "--tenant", tenant, "--json"];
        explained.push(stage.run(&explain).await);
    }

    let told = "`old-jobs` took the type `job.done` until it was retired at 2023-11-14T22:13:20.000Z (revision 7) by \
                carol: the shop is closed; applied in a version above 1, it takes it again";
    assert!(explained[0].stderr.contains(told), "{}", explained[0].stderr);
    let retired = &explained[0].json()[0]["retired"][0];
    assert_eq!((&retired["strategy"], &retired["revision"]), (&json!("old-jobs"), &json!(7)));
    for other in &explained[1..] {
        assert!(!other.stderr.contains("old-jobs"), "{}", other.stderr);
        assert_eq!(other.json()[0]["retired"], json!([]), "{}", other.stdout);
    }
}

#[tokio::test]
async fn a_strategy_to_retire_and_a_letter_that_are_nearly_named_are_asked_about() {
    let stage = Stage::new().await;
    known(&stage).await;
    let answer = r#"{"revision":3,"problems":["there is no strategy `note-job`; `fermata strategy list` shows what is active"]}"#;
    let engine = tokio::spawn(answer_define(stage.broker.clone(), answer));
    let letter = DeadLetter {
        id: "17.0".to_owned(),
        tenant: "acme".to_owned(),
        stage: "listener".to_owned(),
        reason: "not_json".to_owned(),
        detail: String::new(),
        subject: "fermata.events.acme.a".to_owned(),
        original: b"{"[..].into(),
        time_ms: 1_700_000_000_000,
        headers: Vec::new(),
        attempts: None,
        trace: None,
    };
    let (subject, payload) = ("fermata.dead.acme.listener", letter.encode().unwrap());
    let stored = stage.publisher.publish(subject.to_owned(), None, payload.into()).await.await;
    stored.sequence().expect("stored");

    // Nothing is asked of the engine.
    let pattern = stage.run(&["strategy", "retire", "note-*"]).await;
    let retired = stage.run(&["strategy", "retire", "note-job"]).await;
    engine.await.unwrap();
    let shown = stage.run(&["dead", "show", "17.1"]).await;

    assert_eq!((retired.code, shown.code), (1, 4), "{}{}", retired.stderr, shown.stderr);
    let told = "there is no strategy `note-job`; did you mean `note-jobs`?";
    assert!(retired.stdout.contains(told), "{}", retired.stdout);
    assert_eq!(pattern.code, 2, "{}", pattern.stderr);
    let told = "write `fermata strategy retire note-jobs`";
    assert!(pattern.stderr.contains(told), "{}", pattern.stderr);
    let told = "there is no dead letter `17.1`; did you mean `17.0`?";
    assert!(shown.stderr.contains(told), "{}", shown.stderr);
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_told_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display().to_string();
    let missing = format!("{path}/missing.yaml");
    let binary = format!("{path}/binary.yaml");
    std::fs::write(&binary, b"\xff\xfe").unwrap();

    for (file, told) in [
        (&missing, "see whether the path is right"),
        (&path, "it is a folder: name a file in it"),
        (&binary, "it holds no text in UTF-8"),
    ] {
        let checked = run(&["workflow", "check", file]).await;

        assert_eq!(checked.code, 2, "{}", checked.stderr);
        assert!(checked.stderr.contains(told), "{}", checked.stderr);
    }
}

#[tokio::test]
async fn an_event_of_a_type_that_no_strategy_names_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let strategies = "
strategies:
  - { name: done, version: 1, tenant: acme, on: job.done, action: ignore }
  - { name: rest, version: 1, tenant: acme, on: '>', action: ignore }
";
    std::fs::write(file("strategies.yaml"), strategies).unwrap();
    let mut explained = Vec::new();
    for kind in ["job.dome", "job.done"] {
        let event = json!({ "specversion": "1.0", "id": "1", "source": "/s", "type": kind });
        std::fs::write(file("event.json"), event.to_string()).unwrap();
        let (event, strategies) = (file("event.json"), file("strategies.yaml"));
        let explain = ["strategy", "explain", &event, "--tenant", "acme", "--strategies"];
        explained.push(run(&[&explain[..], &[&strategies]].concat()).await);
    }

    let told = "no strategy names the type `job.dome`, only what is for every type sees it; did you mean `job.done`?";
    assert!(explained[0].stderr.contains(told), "{}{}", explained[0].stdout, explained[0].stderr);
    assert_eq!(explained[1].stderr, "");
}
