//! `fermata strategy test` and `fermata strategy explain`.

use std::path::PathBuf;

use fermata_core::command::StrategyEntry;
use fermata_core::json::Json;
use fermata_core::partition::Definitions;
use fermata_jetstream::definitions_store::DefinitionsStore;
use tempfile::TempDir;

use crate::support::{Ended, Stage, run};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

const STRATEGIES: &str = "
strategies:
  - name: failed
    version: 1
    tenant: acme
    on: job.done
    match: { data: { status: [failed], code: [{ numeric: ['>', 3] }] } }
    priority: 5
    workflow: { name: look, version: '1' }
    variables: { code: event.data.code }
  - name: rest
    version: 1
    tenant: '*'
    on: job.>
    when: event.data.code > 0
    action: ignore
";

/// Files in a folder that goes with the test.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path: PathBuf = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

fn told(ended: &Ended) -> String {
    format!("{}{}", ended.stdout, ended.stderr)
}

#[tokio::test]
async fn every_example_of_the_documentation_passes_its_own_tests() {
    let folder = Folder::new();
    let page = std::fs::read_to_string(format!("{ROOT}/docs/strategies.md")).unwrap();
    let blocks: Vec<_> = page.split("```yaml\n").skip(1).collect();
    assert!(blocks.len() >= 2);

    for (number, block) in blocks.into_iter().enumerate() {
        let (example, _) = block.split_once("```").unwrap();
        let file = folder.write(&format!("{number}.yaml"), example);
        let tested = run(&["strategy", "test", &file]).await;

        assert_eq!(tested.code, 0, "{}", told(&tested));
    }
    let tested = run(&["strategy", "test", &format!("{ROOT}/examples/strategies.yaml")]).await;
    assert_eq!(tested.code, 0, "{}", told(&tested));
    assert!(tested.stdout.contains("4 of 4 tests passed"), "{}", tested.stdout);
}

#[tokio::test]
async fn a_test_that_fails_is_told_with_its_reason_and_ends_with_1() {
    let folder = Folder::new();
    let strategies = folder.write("strategies.yaml", STRATEGIES);
    let tests = folder.write(
        "more.tests.yaml",
        "
tests:
  - name: right
    tenant: acme
    event: { type: job.done, data: { status: failed, code: 4 } }
    expect: { start: failed, variables: { code: 4 } }
  - name: wrong outcome
    tenant: acme
    event: { type: job.done, data: { status: failed, code: 3 } }
    expect: { start: failed }
  - name: wrong variables
    tenant: acme
    event: { type: job.done, data: { status: failed, code: 4 } }
    expect: { start: [failed], variables: { code: 5 } }
  - name: unknown strategy
    event: { type: job.done, data: { code: 0 } }
    expect: { ignored: rset }
  - name: not let in
    event: { type: job.done, specversion: '2.0' }
    expect: rejected
",
    );

    let tested = run(&["strategy", "test", &strategies, &tests]).await;
    let lines = run(&["strategy", "test", &strategies, &tests, "--json"]).await;

    assert_eq!((tested.code, lines.code), (1, 1), "{}", told(&tested));
    assert!(tested.stdout.contains("2 of 5 tests passed"), "{}", tested.stdout);
    let lines = lines.json();
    let passed: Vec<_> = lines.iter().filter_map(|line| line["passed"].as_bool()).collect();
    assert_eq!(passed, [true, false, false, false, true]);
    let reason = |at: usize| lines[at]["reason"].as_str().unwrap().to_owned();
    assert_eq!(reason(1), "ignored rest; `failed` does not match: data.code is 3 and must be > 3");
    assert_eq!(reason(2), r#"the variables are {"code":4}, expected are {"code":5}"#);
    assert_eq!(reason(3), "unmatched; `rset` is in none of these files");
    assert_eq!((&lines[1]["line"], &lines[5]["failed"]), (&7.into(), &3.into()));
}

#[tokio::test]
async fn files_without_tests_or_with_problems_are_no_success() {
    let folder = Folder::new();
    let strategies = folder.write("strategies.yaml", STRATEGIES);
    let broken = folder.write("broken.yaml", &STRATEGIES.replace("numeric", "numeirc"));

    let nothing = run(&["strategy", "test", &strategies]).await;
    let problems = run(&["strategy", "test", &broken]).await;

    assert_eq!(nothing.code, 2, "{}", told(&nothing));
    assert_eq!(problems.code, 1, "{}", told(&problems));
    assert!(told(&problems).contains("`numeirc` is no operator"), "{}", told(&problems));
}

#[tokio::test]
async fn an_event_is_explained_by_files_without_a_broker() {
    let folder = Folder::new();
    let strategies = folder.write("strategies.yaml", STRATEGIES);
    let event = folder.write(
        "event.json",
        r#"{"specversion":"1.0","id":"7","source":"/s","type":"job.done","tenant":"acme",
            "data":{"status":"failed","code":4}}"#,
    );
    let arguments = ["strategy", "explain", &event, "--strategies", &strategies];

    let explained = run(&arguments).await;
    let json = run(&[&arguments[..], &["--json"]].concat()).await;

    assert_eq!(explained.code, 0, "{}", told(&explained));
    for sentence in [
        "event `7` of type `job.done` and tenant `acme`: starts `look 1` for `failed`",
        "failed wins: of those that match none has a priority above 5.",
        "yes data.status is \"failed\" and must be \"failed\"",
        "yes data.code is 4 and must be > 3",
        "rest matches, and `failed` has the higher priority, 5 over 0.",
        "yes when `event.data.code > 0`: holds",
    ] {
        assert!(explained.stdout.contains(sentence), "{sentence}\n{}", explained.stdout);
    }
    let explained = &json.json()[0];
    assert_eq!((&explained["outcome"], &explained["winner"]), (&"start".into(), &"failed".into()));
    assert_eq!(explained["candidates"][1]["standing"], "outranked");
    assert_eq!(explained["candidates"][0]["match"]["parts"][0]["path"], "data.code");
}

#[tokio::test]
async fn an_event_is_explained_by_what_is_active() {
    let stage = Stage::new().await;
    let read = fermata_definitions::read_strategies(STRATEGIES, None, &Default::default()).unwrap();
    let entry = |definition: &fermata_core::strategy::StrategyDefinition| StrategyEntry {
        name: definition.name.as_str().into(),
        version: definition.version,
        definition: Json::from_value(&serde_json::to_value(definition).unwrap()),
    };
    let strategies = read.iter().map(entry).map(|entry| (entry.name.clone(), entry)).collect();
    let active = Definitions { revision: 1, strategies, ..Definitions::default() };
    let bytes = fermata_wire::projection::Projection::of(&active).unwrap().message;
    DefinitionsStore::open(&stage.broker).await.unwrap().put("active", bytes.into()).await.unwrap();
    let event = stage.folder.path().join("event.json");
    let text =
        r#"{"specversion":"1.0","id":"7","source":"/s","type":"job.done","data":{"code":"x"}}"#;
    std::fs::write(&event, text).unwrap();
    let event = event.display().to_string();

    let explained = stage.run(&["strategy", "explain", &event, "--tenant", "acme"]).await;
    let unnamed = stage.run(&["strategy", "explain", &event]).await;

    assert_eq!(explained.code, 0, "{}", told(&explained));
    assert!(
        explained.stdout.contains("matches nothing, and goes to review"),
        "{}",
        explained.stdout
    );
    assert!(
        explained.stdout.contains("failed does not match: data.code is \"x\" and must be > 3"),
        "{}",
        explained.stdout
    );
    assert!(explained.stdout.contains("cannot be evaluated"), "{}", explained.stdout);
    assert_eq!(unnamed.code, 2, "{}", told(&unnamed));
}
