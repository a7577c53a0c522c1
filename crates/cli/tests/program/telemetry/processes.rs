//! One trace over processes of different roles, each with a collector of its own.

use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value, json};

use super::{PUBLISHERS_SPAN, TRACE, event, hex, plugin};
use crate::collector::Collector;
use crate::process::Running;
use crate::support::{SOON, Stage, program, write_key};

const WORKFLOW: &str = "
workflow:
  name: far
  version: '1'
  tasks:
    - { id: call, http: { plugin: seen, path: /call, body: '{}' } }
    - { id: queued, depends_on: [call], queue: gpu, http: { plugin: seen, path: /call, body: '{}' } }
    - { id: tell, depends_on: [queued], emit: { type: far.told } }
";
const STRATEGIES: &str = "
strategies:
  - { name: start, version: 1, tenant: '*', on: far.start, workflow: { name: far, version: '1' } }
  - { name: fails, version: 1, tenant: '*', on: far.fails, workflow: { name: far, version: '1' },
      variables: { amount: event.data.amount } }
  - { name: told, version: 1, tenant: '*', on: far.told, action: ignore }
";

/// A process with roles of its own, and what it exports.
struct Part {
    running: Running,
    collector: Collector,
}

impl Part {
    async fn start(stage: &Stage, plugin: &str, name: &str, does: [&str; 2]) -> Self {
        let collector = Collector::start().await;
        let path = |name: &str| stage.folder.path().join(name);
        write_key(&path("audit.key"));
        let mut command = program(&["worker", "--json", "--partitions", "1", "--name", name]);
        command.args(does).arg("--nats-url").arg(stage.server.url());
        command.arg("--data-dir").arg(path(name)).arg("--audit-key").arg(path("audit.key"));
        command.arg("--plugin").arg(format!("seen={plugin}"));
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url);
        command.env("OTEL_BSP_SCHEDULE_DELAY", "50");
        Self { running: Running::of(command).await, collector }
    }

    /// The span of this name, when it comes; there is one.
    async fn span(&self, name: &str) -> Span {
        let received = self.collector.until(|received| received.span(name).is_some()).await;
        received.span(name).expect("a span").clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_runs_through_the_processes_that_an_event_its_run_and_its_tasks_pass() {
    let stage = Stage::bare().await;
    let (plugin, mut calls) = plugin().await;
    let start = |name, does| Part::start(&stage, &plugin, name, does);
    let owner = start("owner", ["--roles", "coordinator"]).await;
    let listener = start("listener", ["--roles", "listener"]).await;
    let matcher = start("matcher", ["--roles", "matcher"]).await;
    let builder = start("builder", ["--roles", "builder"]).await;
    let server = start("server", ["--queues", "gpu"]).await;
    let path = |name: &str| stage.folder.path().join(name).display().to_string();
    for (command, yaml) in [("workflow", WORKFLOW), ("strategy", STRATEGIES)] {
        std::fs::write(path(command), yaml).expect("a file");
        let applied = stage.run(&[command, "apply", &path(command)]).await;
        assert_eq!(applied.code, 0, "{}{}", applied.stdout, applied.stderr);
        for part in [&matcher, &builder] {
            part.running.logs.until_applied(&applied.stdout).await;
        }
    }

    let traceparent = format!("00-{TRACE}-{PUBLISHERS_SPAN}-01");
    let events = [("e-1", "far.start"), ("e-2", "far.fails")];
    let events = events.map(|(id, kind)| -> Value {
        serde_json::from_str(&event(id, kind, &traceparent)).expect("an event")
    });
    std::fs::write(path("events.json"), json!(events).to_string()).expect("a file");
    let published = stage.run(&["publish", &path("events.json")]).await;
    assert_eq!(published.code, 0, "{}{}", published.stdout, published.stderr);

    let run = owner.span("run far").await;
    let [call, tell] = [owner.span("node call").await, owner.span("node tell").await];
    let (strategy, queued) =
        (builder.span("strategy start").await, server.span("node queued").await);
    let is_all = |received: &crate::collector::Received| {
        received.spans.iter().filter(|span| span.name == "event").count() == 3
    };
    let events = listener.collector.until(is_all).await.spans;
    let below = |parent: &str| {
        events.iter().filter(|span| hex(&span.parent_span_id) == parent).collect::<Vec<_>>()
    };
    assert_eq!(below(PUBLISHERS_SPAN).len(), 2);
    assert!(below(PUBLISHERS_SPAN).iter().any(|event| event.span_id == strategy.parent_span_id));
    assert_eq!(run.parent_span_id, strategy.span_id);
    for node in [&call, &queued, &tell] {
        assert_eq!(node.parent_span_id, run.span_id, "{}", node.name);
    }
    assert_eq!(below(&hex(&tell.span_id)).len(), 1, "the event that the run emitted");
    for span in events.iter().chain([&strategy, &run, &call, &queued, &tell]) {
        assert_eq!(hex(&span.trace_id), TRACE, "{}", span.name);
    }
    for node in [&call, &queued] {
        let seen = tokio::time::timeout(SOON, calls.recv()).await.expect("in time");
        assert_eq!(seen.expect("a call"), format!("00-{TRACE}-{}-01", hex(&node.span_id)));
    }

    // What could not be used is found by its trace, too.
    let letters = stage.run(&["dead", "list", "--json"]).await;
    let traces = letters.json().into_iter().map(|letter| letter["trace"].clone());
    let [Value::String(trace)] = &traces.collect::<Vec<_>>()[..] else {
        panic!("{}{}", letters.stdout, letters.stderr)
    };
    assert!(trace.starts_with(&format!("00-{TRACE}-")) && trace.ends_with("-01"), "{trace}");
    for mut part in [listener, matcher, builder, server, owner] {
        part.running.end().await;
    }
}
