//! Counters and histograms, by the `OpenTelemetry` API; they cost next to
//! nothing while nobody has installed an exporter.

use fermata_core::effect::EventMatch;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, UpDownCounter};

use crate::strategy_figures::{RUN_SECONDS, StrategyFigures};

/// The instruments of this process.
#[derive(Debug, Clone)]
pub struct Metrics {
    strategies: StrategyFigures,
    generated: Counter<u64>,
    node_success: Counter<u64>,
    contract_breached: Counter<u64>,
    escalated: Counter<u64>,
    run_latency: Histogram<f64>,
    tasks_served: Counter<u64>,
    tasks_under_way: UpDownCounter<i64>,
    tasks_refused: Counter<u64>,
}

/// A task of a queue that is under way here; not any more when it is dropped.
#[derive(Debug)]
pub struct TaskUnderWay<'metrics> {
    metrics: &'metrics Metrics,
    queue: [KeyValue; 1],
}

impl TaskUnderWay<'_> {
    /// It ended here; whether with a result.
    pub fn ends(self, with_result: bool) {
        if with_result {
            self.metrics.tasks_served.add(1, &self.queue);
        }
    }
}

impl Drop for TaskUnderWay<'_> {
    fn drop(&mut self) {
        self.metrics.tasks_under_way.add(-1, &self.queue);
    }
}

impl Metrics {
    /// Registers the instruments with the process's meter provider.
    #[must_use]
    pub fn new() -> Self {
        let meter = opentelemetry::global::meter("fermata");
        Self {
            strategies: StrategyFigures::new(&meter),
            generated: meter
                .u64_counter("agent.workflow.generated_total")
                .with_description("Runs that were planned for events")
                .build(),
            node_success: meter
                .u64_counter("agent.node.success_total")
                .with_description("Nodes that ended well")
                .build(),
            contract_breached: meter
                .u64_counter("agent.contract.breached_total")
                .with_description("Events that break their contract and go on, since it only warns")
                .build(),
            escalated: meter
                .u64_counter("agent.manual_escalation_total")
                .with_description("Review cases that were opened")
                .build(),
            run_latency: meter
                .f64_histogram("agent.workflow.latency_p95")
                .with_unit("s")
                .with_boundaries(RUN_SECONDS.to_vec())
                .with_description("Time from the start of a run to its end; take the quantile")
                .build(),
            tasks_served: meter
                .u64_counter("agent.queue.served_total")
                .with_description("Tasks of named queues that were run here, by queue")
                .build(),
            tasks_under_way: meter
                .i64_up_down_counter("agent.queue.in_flight")
                .with_description("Tasks of named queues that are under way here, by queue")
                .build(),
            tasks_refused: meter
                .u64_counter("agent.queue.refused_total")
                .with_description(
                    "Tasks of named queues that were given here and not run, by queue and reason",
                )
                .build(),
        }
    }

    /// A task of `queue` begins here.
    #[must_use]
    pub fn task_begins(&self, queue: &str) -> TaskUnderWay<'_> {
        let queue = [KeyValue::new("queue", queue.to_owned())];
        self.tasks_under_way.add(1, &queue);
        TaskUnderWay { metrics: self, queue }
    }

    /// A task of `queue` was given here and is not run.
    pub fn task_refused(&self, queue: &str, reason: &'static str) {
        let attributes =
            [KeyValue::new("queue", queue.to_owned()), KeyValue::new("reason", reason)];
        self.tasks_refused.add(1, &attributes);
    }

    /// What strategies made of an event is durable.
    pub fn event_matched(&self, matched: &EventMatch) {
        self.strategies.count(matched);
    }

    /// Runs planned.
    pub fn generated(&self, runs: u64) {
        if runs > 0 {
            self.generated.add(runs, &[]);
        }
    }

    /// Nodes that ended well.
    pub fn nodes_succeeded(&self, nodes: u64) {
        if nodes > 0 {
            self.node_success.add(nodes, &[]);
        }
    }

    /// An event that breaks its contract goes on.
    pub fn contract_breached(&self) {
        self.contract_breached.add(1, &[]);
    }

    /// A review case was opened.
    pub fn escalated(&self) {
        self.escalated.add(1, &[]);
    }

    /// A run took this long, milliseconds, and this strategy started it, where that is known.
    pub fn run_ended(&self, milliseconds: u64, strategy: Option<&str>) {
        let milliseconds = u32::try_from(milliseconds).unwrap_or(u32::MAX);
        let seconds = f64::from(milliseconds) / 1_000.0;
        self.run_latency.record(seconds, &[]);
        if let Some(strategy) = strategy {
            self.strategies.run_ended(strategy, seconds);
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
