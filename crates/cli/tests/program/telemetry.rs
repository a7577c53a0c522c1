//! What `fermata up` exports by OTLP, as a collector receives it.

mod processes;

use std::collections::BTreeMap;

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::collector::{Collector, Received};
use crate::engine::RunningEngine;
use crate::support::SOON;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PUBLISHERS_SPAN: &str = "00f067aa0ba902b7";

const WORKFLOW: &str = "
workflow:
  name: traced
  version: '1'
  tasks:
    - { id: call, http: { plugin: seen, path: /call, body: '{}' } }
    - { id: after, depends_on: [call], noop: {} }
";
const STRATEGIES: &str = "
strategies:
  - { name: start, version: 1, tenant: '*', on: traced.start, workflow: { name: traced, version: '1' } }
";

/// Each kind of task that is an effect, and one that is none. Two of them fail, which keeps
/// none from its span.
const KINDS: &str = "
workflow:
  name: kinds
  version: '1'
  tasks:
    - { id: tell, emit: { type: kinds.told } }
    - { id: ask, nats: { subject: nobody.listens } }
    - { id: start, command: { name: nothing } }
    - { id: call, http: { plugin: seen, path: /call, body: '{}' } }
    - { id: pass, noop: {} }
    - { id: compute, transform: '1' }
";
const KINDS_STRATEGIES: &str = "
strategies:
  - { name: kinds, version: 1, tenant: '*', on: kinds.start, workflow: { name: kinds, version: '1' } }
";

/// A plugin that hands on the `traceparent` of each call. Ends with the test.
async fn plugin() -> (String, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (seen, calls) = mpsc::unbounded_channel();
    let call = move |headers: HeaderMap| async move {
        let traceparent = headers.get("traceparent").map(|value| value.to_str().expect("text"));
        let _ = seen.send(traceparent.unwrap_or_default().to_owned());
        "{}"
    };
    let router = Router::new().route("/call", post(call));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, calls)
}

fn event(id: &str, kind: &str, traceparent: &str) -> String {
    json!({
        "specversion": "1.0", "id": id, "source": "/test", "type": kind, "tenant": "acme",
        "traceparent": traceparent, "data": {},
    })
    .to_string()
}

async fn engine(collector: &Collector, plugin: &str) -> RunningEngine {
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()),
        ("OTEL_METRIC_EXPORT_INTERVAL", "50"),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ];
    let arguments = ["--plugin", &format!("seen={plugin}"), "--partitions", "1"];
    let engine = RunningEngine::start(&arguments, &variables).await;
    engine.apply("workflow", WORKFLOW).await;
    engine.apply("strategy", STRATEGIES).await;
    engine
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_sees_event_strategy_run_node_and_call_in_the_publishers_trace() {
    let collector = Collector::start().await;
    let (plugin, mut calls) = plugin().await;
    let engine = engine(&collector, &plugin).await;

    let traceparent = format!("00-{TRACE}-{PUBLISHERS_SPAN}-01");
    engine.publish(&event("e-1", "traced.start", &traceparent)).await;

    let all = ["event", "strategy start", "run traced", "node call", "node after"];
    let has_all = |received: &Received| all.iter().all(|name| received.span(name).is_some());
    let received = collector.until(has_all).await;
    let call = tokio::time::timeout(SOON, calls.recv()).await.expect("in time").expect("a call");
    let [event, strategy, run, node, after] = all.map(|name| received.span(name).expect("a span"));
    for span in [event, strategy, run, node, after] {
        assert_eq!(hex(&span.trace_id), TRACE, "{}", span.name);
    }
    assert_eq!(hex(&event.parent_span_id), PUBLISHERS_SPAN);
    assert_eq!(strategy.parent_span_id, event.span_id);
    assert_eq!(run.parent_span_id, strategy.span_id);
    assert_eq!(node.parent_span_id, run.span_id);
    assert_eq!(after.parent_span_id, run.span_id);
    assert_eq!(call, format!("00-{TRACE}-{}-01", hex(&node.span_id)));
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_task_that_is_an_effect_has_a_span_and_what_is_none_has_not() {
    let collector = Collector::start().await;
    let (plugin, _calls) = plugin().await;
    let engine = engine(&collector, &plugin).await;
    engine.apply("workflow", KINDS).await;
    engine.apply("strategy", KINDS_STRATEGIES).await;

    let traceparent = format!("00-{TRACE}-{PUBLISHERS_SPAN}-01");
    engine.publish(&event("e-1", "kinds.start", &traceparent)).await;

    let effects = ["node tell", "node ask", "node start", "node call", "node pass"];
    let has_all = |received: &Received| {
        effects.iter().chain(&["run kinds"]).all(|name| received.span(name).is_some())
    };
    collector.until(has_all).await;
    // Ending sends what is left.
    engine.stop().await;
    let received = collector.until(|_| true).await;
    assert!(received.span("node compute").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_that_the_publisher_does_not_sample_is_passed_on_and_not_exported() {
    const OTHER_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let collector = Collector::start().await;
    let (plugin, mut calls) = plugin().await;
    let engine = engine(&collector, &plugin).await;

    let unsampled = format!("00-{OTHER_TRACE}-{PUBLISHERS_SPAN}-00");
    engine.publish(&event("e-1", "traced.start", &unsampled)).await;
    let call = tokio::time::timeout(SOON, calls.recv()).await.expect("in time").expect("a call");
    let sampled = format!("00-{TRACE}-{PUBLISHERS_SPAN}-01");
    engine.publish(&event("e-2", "traced.start", &sampled)).await;
    let is_through = |received: &Received| {
        let ended = received.metrics.get("agent.workflow.latency_p95");
        ended.is_some_and(|ended| *ended >= 2.0) && received.span("run traced").is_some()
    };
    collector.until(is_through).await;
    // Ending sends what is left.
    engine.stop().await;
    let received = collector.until(|_| true).await;

    assert!(call.starts_with(&format!("00-{OTHER_TRACE}-")) && call.ends_with("-00"), "{call}");
    let traces = received.spans.iter().map(|span| hex(&span.trace_id)).collect::<Vec<_>>();
    assert!(traces.iter().all(|trace| trace == TRACE), "{traces:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_sees_the_counters_of_what_happened() {
    let collector = Collector::start().await;
    let (plugin, _calls) = plugin().await;
    let engine = engine(&collector, &plugin).await;

    let traceparent = format!("00-{TRACE}-{PUBLISHERS_SPAN}-01");
    let event = |id: &str, kind: &str| -> Value {
        serde_json::from_str(&event(id, kind, &traceparent)).expect("an event")
    };
    engine.publish(&event("e-1", "traced.start").to_string()).await;
    let has_ended = |received: &Received| {
        received.metrics.get("agent.workflow.latency_p95").is_some_and(|ended| *ended >= 1.0)
    };
    collector.until(has_ended).await;
    // Decided together: a repeat, what can only end a wait, and what nobody wants.
    let mut ends_a_wait = event("e-2", "nobody.wants");
    ends_a_wait["correlationkey"] = "o-1".into();
    let events = [event("e-1", "traced.start"), ends_a_wait, event("e-3", "nobody.wants")];
    engine.publish(&json!(events).to_string()).await;

    // One event of two matched, its run of two nodes ended, and the other is for people.
    let expected = [
        ("agent.manual_escalation_total", 1.0),
        ("agent.node.success_total", 2.0),
        ("agent.strategy.eligible_total", 2.0),
        ("agent.strategy.hit_rate", 0.5),
        ("agent.strategy.latency", 1.0),
        ("agent.strategy.matched_total", 1.0),
        ("agent.strategy.missed_total", 1.0),
        // Planned again for the repeat, of which no run comes.
        ("agent.workflow.generated_total", 2.0),
        ("agent.workflow.latency_p95", 1.0),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
    let events = |received: &Received| {
        let ours = received.metrics.iter().filter(|(name, _)| name.starts_with("agent."));
        ours.map(|(name, value)| (name.clone(), *value)).collect::<BTreeMap<_, _>>()
    };
    let is_through = |received: &Received| {
        // How things stand is exported too.
        let owned = received.metrics.get("fermata.partition.state");
        events(received) == expected && owned.is_some_and(|owned| *owned == 2.0)
    };
    let received = collector.until(is_through).await;
    assert_eq!(events(&received), expected);
    engine.stop().await;
}
