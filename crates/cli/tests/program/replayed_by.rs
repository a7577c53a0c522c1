//! Who had an event replayed, and why: from a letter to the audit log.

use std::io::Write as _;

use serde_json::Value;
use tempfile::NamedTempFile;

use crate::engine::{RunningEngine, event};
use crate::support::SOON;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

const WORKFLOW: &str = "
workflow: { name: pay, version: '1', tasks: [{ id: a, noop: {} }] }
";
const STRATEGIES: &str = "
strategies:
  - name: pay
    version: 1
    tenant: acme
    on: order.placed
    workflow: { name: pay, version: '1' }
    variables: { amount: event.data.amount }
";

/// What a command prints as JSON, once it has printed `wanted` lines and ended well.
async fn soon(engine: &RunningEngine, arguments: &[&str], wanted: usize) -> Vec<Value> {
    let asked = async {
        loop {
            let ended = engine.run(&[arguments, &["--json"]].concat()).await;
            if ended.code == 0 && ended.stdout.lines().count() >= wanted {
                return ended.json();
            }
        }
    };
    let told = tokio::time::timeout(SOON, asked).await;
    told.unwrap_or_else(|_| panic!("{arguments:?}\n{}", engine.up.logs.all()))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_had_a_letter_replayed_and_why_is_journaled_and_proven() {
    let mut secrets = NamedTempFile::new().expect("a file");
    writeln!(secrets, "{SECRET}").expect("a file");
    let secrets = secrets.path().to_str().expect("text");
    let arguments = ["--partitions", "1", "--replay-secrets", secrets];
    let engine = RunningEngine::start(&arguments, &[]).await;
    engine.apply("workflow", WORKFLOW).await;
    engine.apply("strategy", STRATEGIES).await;

    engine.publish(&event("o-1", "order.placed").to_string()).await;
    let letter = soon(&engine, &["dead", "list"], 1).await[0]["id"].clone();
    let (letter, reason) = (letter.as_str().expect("an id"), "the amount was missing");
    let edit = r#"{"data":{"amount":12}}"#;
    let replay = ["dead", "replay", letter, "--edit", edit, "--by", "ann", "--reason", reason];
    engine.do_it(&[&replay[..], &["--replay-secrets", secrets]].concat()).await;

    let run = soon(&engine, &["runs", "list"], 1).await[0]["id"].clone();
    let run = run.as_str().expect("an id");
    let shown = engine.do_it(&["runs", "show", run]).await;
    assert!(shown.contains("replayed  by ann: the amount was missing\n"), "{shown}");
    let shown = engine.do_it(&["runs", "show", run, "--json"]).await;
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown["replayed"], serde_json::json!({"by": "ann", "reason": reason}));
    let explained = engine.do_it(&["runs", "explain", run]).await;
    let sentence = "decided once more because `ann` asked for it: the amount was missing.";
    assert!(explained.contains(sentence), "{explained}");

    // The record is below what was signed: its leaf is proven, and opens to who and why.
    let receipts = soon(&engine, &["audit", "prove", "--run", run, "--open"], 1).await;
    let opened = &receipts[0];
    let payload = opened["opened"]["payload"].as_str().unwrap_or_else(|| panic!("{opened}"));
    for said in ["ann", reason] {
        let digits = said.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert!(payload.contains(&digits), "{said}: {payload}");
    }
    let file = engine.path("receipts.ndjson");
    std::fs::write(&file, format!("{opened}\n")).expect("a file");
    let vkey = engine.do_it(&["audit", "key"]).await;
    let check = ["audit", "check-receipt", &file, "--vkey", vkey.trim(), "--json"];
    let checked = engine.do_it(&check).await;
    assert!(checked.contains("\"opened\":true"), "{checked}");
    engine.do_it(&["audit", "verify"]).await;
}
