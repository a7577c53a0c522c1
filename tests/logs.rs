//! What is logged about a run can be found by the run's id.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fermata_core::record::Kind;
use fermata_jetstream::Durability;
use fermata_tests::journal::{count, records_until, run_of};
use fermata_tests::{Sink, TestBroker, TestEngine, definitions, events};
use serde_json::Value;
use tracing_subscriber::EnvFilter;

const LIMIT: Duration = Duration::from_secs(15);

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// Lines that mention `text`, wherever.
    fn that_mention(&self, text: &str) -> Vec<Value> {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let lines = String::from_utf8(bytes).expect("text");
        let lines = lines.lines().filter(|line| line.contains(text));
        lines.map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_a_run_carries_its_id_and_its_trace() {
    let lines = Lines::default();
    let written = lines.clone();
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(EnvFilter::new("fermata_actors=debug"))
        .with_writer(move || written.clone())
        .init();
    let broker = TestBroker::start(Durability::Process).await;
    let sink = Sink::start().await;
    let engine = TestEngine::at(broker.url()).with_executors(sink.executors());
    let engine = engine.start(broker.folder()).await;
    engine.ready().await;
    let workflow = "
workflow:
  name: under-test
  version: '1'
  tasks:
    - id: unsteady
      http: { plugin: sink, path: /fail-once }
      retry: { max_attempts: 3, initial: 10ms, on: [http_5xx] }
    - { id: refused, depends_on: [unsteady], http: { plugin: sink, path: /refuse } }
";
    let strategy = "
strategies:
  - name: start
    version: 1
    tenant: '*'
    on: demo.start
    workflow: { name: under-test, version: '1' }
";
    definitions::apply_yaml(&engine, &[workflow], strategy).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let event = serde_json::json!({
        "specversion": "1.0", "id": "1", "source": "/t", "type": "demo.start",
        "traceparent": format!("00-{trace}-b7ad6b7169203331-01"), "data": {},
    });

    let publisher = &engine.ports().publisher;
    events::publish_raw(publisher, "demo.start", event.to_string().into()).await;
    let reader = &engine.ports().reader;
    let records =
        records_until(reader, 2, LIMIT, |records| count(records, Kind::CaseNotified) == 1).await;
    engine.shut_down().await;

    let run = run_of(&records, Kind::RunStarted).expect("a run").to_string();
    let found = lines.that_mention(&run);
    for line in &found {
        assert_eq!(line["run"], *run, "{line}");
        assert!(line["partition"].is_string(), "{line}");
        let of_attempt = line["message"].as_str().is_some_and(|text| text.contains("attempt"));
        assert!(!of_attempt || line["node"].is_string() && line["attempt"].is_u64(), "{line}");
        // A notice knows the run and not the event that began it.
        assert!(line["trace"] == trace || line["case"].is_string(), "{line}");
    }
    let said = found
        .iter()
        .map(|line| {
            let node = line["node"].as_str().unwrap_or("-");
            let level = line["level"].as_str().expect("a level");
            format!("{level} {node} {}", line["message"].as_str().expect("a message"))
        })
        .collect::<Vec<_>>();
    let mut sorted = said.clone();
    sorted.sort_unstable();
    assert_eq!(
        sorted,
        [
            "DEBUG refused an attempt failed",
            "DEBUG refused an attempt starts",
            "DEBUG unsteady an attempt failed",
            "DEBUG unsteady an attempt failed; it is tried again",
            "DEBUG unsteady an attempt starts",
            "DEBUG unsteady an attempt starts",
            "DEBUG unsteady an attempt succeeded",
            "INFO - a case is open",
            "WARN - a run ended, and not well",
            "WARN refused a node failed",
        ],
        "{said:#?}"
    );
}
