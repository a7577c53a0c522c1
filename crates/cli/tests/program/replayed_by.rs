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
    let said = serde_json::json!({"by": "ann", "reason": reason, "unless_started": true});
    assert_eq!(shown["replayed"], said);
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

/// The id of the only letter with a reason, once there is one.
const FAILS: &str = "
workflow: { name: pay, version: '1', tasks: [{ id: a, http: { plugin: nobody, path: /pay } }] }
";

#[tokio::test(flavor = "multi_thread")]
async fn the_failed_run_of_a_replay_is_retried_with_its_case() {
    let mut secrets = NamedTempFile::new().expect("a file");
    writeln!(secrets, "{SECRET}").expect("a file");
    let secrets = secrets.path().to_str().expect("text");
    let arguments = ["--partitions", "1", "--replay-secrets", secrets];
    let engine = RunningEngine::start(&arguments, &[]).await;
    engine.apply("workflow", FAILS).await;
    engine.apply("strategy", STRATEGIES).await;
    engine.publish(&event("o-1", "order.placed").to_string()).await;
    let letter = letter_of(&engine, "variables_failed").await;
    let edit = r#"{"data":{"amount":12}}"#;
    let replay = ["dead", "replay", &letter, "--edit", edit, "--replay-secrets", secrets];
    engine.do_it(&replay).await;

    let case = soon(&engine, &["review", "list"], 1).await[0]["case"].clone();
    let case = case.as_str().expect("an id");
    engine.do_it(&["review", "resolve", case, "--retry", "--reason", "mended"]).await;

    let runs = soon(&engine, &["runs", "list"], 2).await;
    assert_eq!(runs.len(), 2, "{runs:?}");
}

async fn letter_of(engine: &RunningEngine, reason: &str) -> String {
    let letters = soon(engine, &["dead", "list", "--reason", reason], 1).await;
    letters[0]["id"].as_str().expect("an id").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_replay_is_told_as_such_and_the_letter_itself_can_be_replayed_behind_it() {
    let file = |secret: &str| {
        let mut secrets = NamedTempFile::new().expect("a file");
        writeln!(secrets, "{secret}").expect("a file");
        secrets
    };
    let (right, wrong) = (file(SECRET), file("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"));
    let [right, wrong] = [&right, &wrong].map(|file| file.path().to_str().expect("text"));
    let engine = RunningEngine::start(&["--partitions", "1", "--replay-secrets", right], &[]).await;
    engine.apply("workflow", WORKFLOW).await;
    engine.apply("strategy", STRATEGIES).await;
    engine.publish(&event("o-1", "order.placed").to_string()).await;
    let letter = letter_of(&engine, "variables_failed").await;

    let edit = r#"{"data":{"amount":12}}"#;
    let replay = ["dead", "replay", &letter, "--edit", edit, "--replay-secrets"];
    let told = engine.do_it(&[&replay[..], &[wrong]].concat()).await;
    let refused = letter_of(&engine, "replay_forged").await;
    assert!(told.contains(&format!("`fermata dead show {refused}` has why")), "{told}");
    let listed = engine.do_it(&["dead", "list"]).await;
    let row = |listed: &str| {
        let row = listed.lines().find(|line| line.starts_with(&format!(" {letter} ")));
        row.expect(listed).to_owned()
    };
    assert!(row(&listed).contains(&format!("  refused: {refused}  ")), "{listed}");
    let shown = engine.do_it(&["dead", "show", &letter]).await;
    assert!(shown.contains("\nrefused   a replay ") && !shown.contains("\nreplayed"), "{shown}");
    let shown = engine.do_it(&["dead", "show", &refused]).await;
    let hint = format!("`fermata dead replay {letter}`");
    assert!(shown.contains(&hint) && shown.contains("`config_differs`"), "{shown}");

    // The letter of the request is none to be replayed.
    let of_request = engine.run(&["dead", "replay", &refused, "--replay-secrets", right]).await;
    assert_eq!(of_request.code, 2, "{}", of_request.stderr);
    assert!(of_request.stderr.contains(&format!("replay `{letter}`")), "{}", of_request.stderr);

    // With the secret that is known the same command goes through, for nothing was replayed.
    engine.do_it(&[&replay[..], &[right]].concat()).await;
    soon(&engine, &["runs", "list"], 1).await;
    let listed = engine.do_it(&["dead", "list"]).await;
    assert!(!row(&listed).contains("refused") && !row(&listed).contains("  -  "), "{listed}");
    let other = [&replay[..], &[right, "--reason", "once more"]].concat();
    let other = engine.run(&other).await;
    assert!(other.code == 1 && other.stderr.contains("`--again`"), "{}", other.stderr);
}
