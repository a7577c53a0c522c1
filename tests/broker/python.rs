//! Programs in Python that share no code with the engine: what a user writes
//! works, and the documented bytes are enough to read and check everything.

use std::path::PathBuf;
use std::time::Duration;

use fermata_core::record::Kind;
use fermata_jetstream::Durability;
use fermata_tests::journal::{count, records_until};
use fermata_tests::{TestBroker, TestEngine, definitions};

const LIMIT: Duration = Duration::from_secs(60);

const WORKFLOW: &str = "
workflow:
  name: two
  version: '1'
  tasks:
    - { id: a, noop: {} }
    - { id: b, depends_on: [a], transform: \"{'n': input.n}\" }
";
const STRATEGIES: &str = "
strategies:
  - { name: start, version: 1, tenant: '*', on: demo.start, workflow: { name: two, version: '1' }, variables: { n: event.data.n } }
";

/// The Python that `make tools` makes, with nats-py and msgpack and no more.
fn python() -> PathBuf {
    let tools = std::env::var_os("FERMATA_TOOLS_DIR").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tools")),
        PathBuf::from,
    );
    let python = tools.join("venv/bin/python");
    assert!(python.exists(), "`{}` is not there; `make tools` makes it", python.display());
    python
}

async fn run(script: &str, arguments: &[&str]) -> (bool, String) {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("python").join(script);
    let output = tokio::process::Command::new(python())
        .arg(script)
        .args(arguments)
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(LIMIT, output).await.expect("in time").expect("a program");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.is_empty(), "{errors}");
    (output.status.success(), printed)
}

async fn engine() -> (TestBroker, fermata_actors::Engine) {
    let broker = TestBroker::start(Durability::Process).await;
    let engine = TestEngine::at(broker.url()).start(broker.folder()).await;
    engine.ready().await;
    definitions::apply_yaml(&engine, &[WORKFLOW], STRATEGIES).await;
    (broker, engine)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_published_from_python_becomes_a_run() {
    let (broker, engine) = engine().await;

    let (succeeded, printed) =
        run("publish.py", &[&broker.url(), "acme", "demo.start", r#"{"n": 7}"#]).await;

    assert!(succeeded, "{printed}");
    let reader = &engine.ports().reader;
    records_until(reader, 2, LIMIT, |records| count(records, Kind::RunSucceeded) == 1).await;
    engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_follows_a_run_by_its_audit_entries_and_recomputes_every_leaf() {
    let (broker, engine) = engine().await;

    let (succeeded, printed) =
        run("read_frames.py", &[&broker.url(), "acme", "demo.start", r#"{"n": 7}"#]).await;

    assert!(succeeded, "{printed}");
    let lines = printed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let entries = lines.clone().filter(|line| line[0] == "entry");
    // entry <index> <kind> <node> <attempt>
    let entries = entries.map(|line| (line[2], line[3], line[4])).collect::<Vec<_>>();
    assert_eq!(
        entries,
        [
            ("run.started", "-", "-"),
            ("node.dispatched", "a", "1"),
            ("node.succeeded", "a", "1"),
            ("node.succeeded", "b", "-"),
            ("run.succeeded", "-", "-"),
        ]
    );
    let checked = lines.filter(|line| line[0] == "checked").collect::<Vec<_>>();
    assert_eq!(checked.len(), 3, "{printed}");
    engine.shut_down().await;
}
