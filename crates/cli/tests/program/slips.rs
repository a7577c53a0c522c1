//! What is made active though it is probably a slip: it is told, and active all the same.

use serde_json::Value;

use crate::engine::RunningEngine;
use crate::support::{Ended, examined_until, run};

const WORKFLOW: &str = "
workflow:
  name: shipping
  version: '1'
  input: { required: [order] }
  tasks:
    - { id: a, when: input.ordr != null, http: { plugin: reprots, path: /x } }
";
const STRATEGIES: &str = "
strategies:
  - { name: ship, version: 1, tenant: acme, on: order.placed, workflow: { name: shipping, version: '1' } }
";

fn warnings(answer: &[Value]) -> Vec<&str> {
    let warnings = answer[0]["warnings"].as_array().into_iter().flatten();
    warnings.map(|warning| warning.as_str().expect("a text")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn slips_in_what_is_applied_are_told_and_applied() {
    let arguments = ["--partitions", "1", "--plugin", "reports=http://127.0.0.1:9"];
    let engine = RunningEngine::start(&arguments, &[]).await;
    let file = |name: &str, text: &str| {
        std::fs::write(engine.path(name), text).expect("a file");
        engine.path(name)
    };
    let workflow = file("workflow.yaml", WORKFLOW);
    let schema = file("schema.json", r#"{"type": "object", "requird": ["n"]}"#);

    // What its workers know is asked of them once.
    let have_answered = |ended: &Ended| {
        ended.check("name", "answers").is_some_and(|answers| answers["health"] == "ok")
    };
    examined_until(async || engine.run(&["doctor", "--json"]).await, have_answered).await;
    let applied = engine.run(&["workflow", "apply", &workflow, "--json"]).await.json();
    let checked = engine.run(&["workflow", "check", &workflow]).await;
    assert_eq!(applied[0]["changed"], 1, "{applied:?}");
    let told = warnings(&applied);
    assert!(told.len() == 2 && told[0].ends_with("did you mean `order`?"), "{told:?}");
    assert!(told[1].contains("`reprots`") && told[1].ends_with("`reports`?"), "{told:?}");
    assert_eq!(checked.code, 0);
    assert!(checked.stderr.contains("`input.ordr`"), "{}", checked.stderr);

    engine.apply("strategy", STRATEGIES).await;
    // The process that would make the call says so itself, once something may start it.
    engine.up.logs.until("`reprots`, which this process does not know").await;
    let contract = async |tenant: &str, kind: &str| {
        let named = ["--tenant", tenant, "--type", kind, "--version", "v1"];
        engine.run(&[&["contract", "apply", &schema, "--json"][..], &named].concat()).await.json()
    };
    let sound = contract("acme", "order.placed").await;
    assert!(warnings(&sound).len() == 1 && warnings(&sound)[0].contains("/requird: "), "{sound:?}");
    let tenant = contract("acne", "order.placed").await;
    let kind = contract("acme", "order.placd").await;
    for (answer, meant) in
        [(tenant, "did you mean `acme`?"), (kind, "did you mean `order.placed`?")]
    {
        assert!(warnings(&answer).iter().any(|told| told.ends_with(meant)), "{answer:?}");
        assert_eq!(answer[0]["changed"], 1);
    }

    // The same once more changes nothing.
    let before = active_revision(&engine).await;
    let again = contract("acme", "order.placed").await;
    assert_eq!((&again[0]["changed"], &again[0]["revision"]), (&0.into(), &before));
    engine.stop().await;
}

/// The revision that is active, told by an apply that changes nothing.
async fn active_revision(engine: &RunningEngine) -> Value {
    let workflow = engine.path("workflow.yaml");
    let applied = engine.run(&["workflow", "apply", &workflow, "--json"]).await.json();
    applied[0]["revision"].clone()
}

#[tokio::test]
async fn a_delay_until_a_number_of_seconds_is_refused_when_it_is_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("workflow.yaml").display().to_string();
    let check = async |until: &str| {
        let tasks = format!("[{{ id: a, delay: {{ until: \"{until}\" }} }}]");
        let text = format!("workflow: {{ name: w, version: '1', tasks: {tasks} }}\n");
        std::fs::write(&file, text).expect("a file");
        run(&["workflow", "check", &file]).await
    };

    let seconds = check("1795226531").await;
    assert_eq!(seconds.code, 1, "{}{}", seconds.stdout, seconds.stderr);
    assert!(seconds.stdout.contains("taken for seconds: multiply them by"), "{}", seconds.stdout);
    assert_eq!(check("'tomorrow'").await.code, 1, "it is no time in any run");
    // What has passed may be meant, and what comes with a run is judged there.
    for sound in ["1795226531000", "'1999-12-31T00:00:00Z'", "input.at"] {
        assert_eq!(check(sound).await.code, 0, "{sound}");
    }
}
