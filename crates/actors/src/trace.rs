//! Traces: event → strategy → run → node → HTTP call, in W3C Trace Context.
//!
//! A run may outlive the process that began it, so its span is not held open:
//! its id follows from the run's id, the spans below it name it as their
//! parent, and it is recorded with its start and end when the run has ended. So
//! does the id of the strategy's span, which the builder records: no message
//! between the two carries it.
//! Where nothing exports, an event's own context is passed on as it came.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fermata_core::effect::{Attempt, RunEnded};
use fermata_core::identity::RunId;
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _,
    TraceFlags, TraceId, TraceState, Tracer as _,
};
use opentelemetry::{Context, KeyValue, global};

/// Name of the tracer.
const TRACER: &str = "fermata";

static EXPORTING: AtomicBool = AtomicBool::new(false);

thread_local! {
    static PLANNED: Cell<Option<(TraceId, SpanId)>> = const { Cell::new(None) };
}

/// The ids that the span being built on this thread must have; the process's id
/// generator asks before it draws (the API has no other way to say so).
#[must_use]
pub fn planned_ids() -> Option<(TraceId, SpanId)> {
    PLANNED.get()
}

/// Says that spans are exported: from here on they are made.
pub fn export_spans() {
    EXPORTING.store(true, Ordering::Relaxed);
}

/// Whether spans are made at all.
#[must_use]
pub fn is_exporting() -> bool {
    EXPORTING.load(Ordering::Relaxed)
}

/// The context that an event passes on: that of its own span where spans are
/// exported, else the one that it came with.
#[must_use]
pub fn event(tenant: &str, kind: &str, id: &str, traceparent: Option<&str>) -> Option<String> {
    if !is_exporting() {
        return traceparent.map(str::to_owned);
    }
    let parent = context(traceparent);
    let builder = SpanBuilder::from_name("event").with_kind(SpanKind::Consumer).with_attributes([
        KeyValue::new("messaging.system", "nats"),
        KeyValue::new("cloudevents.event_id", id.to_owned()),
        KeyValue::new("cloudevents.event_type", kind.to_owned()),
        KeyValue::new("fermata.tenant", tenant.to_owned()),
    ]);
    let span = global::tracer(TRACER).build_with_context(builder, &parent);
    Some(traceparent_of(span.span_context()))
}

/// The span of one attempt; it ends when [`AttemptSpan::end`] is told.
#[derive(Debug)]
pub struct AttemptSpan(Option<global::BoxedSpan>);

/// Begins the span of an attempt, and gives the context that its call carries.
#[must_use]
pub fn attempt(attempt: &Attempt) -> (AttemptSpan, Option<String>) {
    if !is_exporting() {
        return (AttemptSpan(None), attempt.traceparent.as_deref().map(str::to_owned));
    }
    let parent = run_context(attempt.run, attempt.traceparent.as_deref());
    let name = format!("node {}", attempt.node);
    let builder = SpanBuilder::from_name(name).with_kind(SpanKind::Client).with_attributes([
        KeyValue::new("fermata.run", attempt.run.to_string()),
        KeyValue::new("fermata.node", attempt.node.to_string()),
        KeyValue::new("fermata.attempt", i64::from(attempt.attempt)),
    ]);
    let parent = Context::new().with_remote_span_context(parent);
    let span = global::tracer(TRACER).build_with_context(builder, &parent);
    let traceparent = traceparent_of(span.span_context());
    (AttemptSpan(Some(span)), Some(traceparent))
}

/// Records the span of an attempt that takes no time and calls nobody.
pub fn noop(noop: &Attempt) {
    if is_exporting() {
        attempt(noop).0.end(None);
    }
}

impl AttemptSpan {
    /// Ends the span; `failure` is what went wrong, if anything did.
    pub fn end(self, failure: Option<&str>) {
        if let Some(mut span) = self.0 {
            if let Some(failure) = failure {
                span.set_status(Status::error(failure.to_owned()));
            }
            span.end();
        }
    }
}

/// Records that a strategy chose to start `run`, below the event's span. Only
/// where spans are exported.
pub fn strategy(run: RunId, traceparent: Option<&str>, strategy: &str, version: u32) {
    let builder = SpanBuilder::from_name(format!("strategy {strategy}"))
        .with_kind(SpanKind::Internal)
        .with_attributes([
            KeyValue::new("fermata.run", run.to_string()),
            KeyValue::new("fermata.strategy.version", i64::from(version)),
        ]);
    let own = strategy_context(run, traceparent);
    PLANNED.set(Some((own.trace_id(), own.span_id())));
    let mut span = global::tracer(TRACER).build_with_context(builder, &context(traceparent));
    PLANNED.set(None);
    span.end();
}

/// Records the span of a run that has ended.
pub fn run_ended(ended: &RunEnded) {
    if !is_exporting() {
        return;
    }
    let traceparent = ended.traceparent.as_deref();
    let own = run_context(ended.run, traceparent);
    let builder = SpanBuilder::from_name(format!("run {}", ended.workflow))
        .with_kind(SpanKind::Internal)
        .with_start_time(time(ended.started_ms))
        .with_attributes([KeyValue::new("fermata.run", ended.run.to_string())]);
    PLANNED.set(Some((own.trace_id(), own.span_id())));
    let parent = strategy_context(ended.run, traceparent);
    let parent = Context::new().with_remote_span_context(parent);
    let mut span = global::tracer(TRACER).build_with_context(builder, &parent);
    PLANNED.set(None);
    if ended.failed {
        span.set_status(Status::error("the run did not succeed"));
    }
    span.end_with_timestamp(time(ended.ended_ms));
}

/// The trace that a run belongs to: its event's, or one of its own. For log lines.
#[must_use]
pub fn id(run: RunId, traceparent: Option<&str>) -> TraceId {
    run_context(run, traceparent).trace_id()
}

fn time(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}

/// The context of a run's span: the event's trace, a span id made of the run's id.
fn run_context(run: RunId, traceparent: Option<&str>) -> SpanContext {
    let id = u128::from_be_bytes(*run.as_uuid().as_bytes());
    let parent = context(traceparent);
    let parent = parent.span().span_context().clone();
    let (trace, flags) = match parent.is_valid() {
        // What the publisher does not sample is not sampled below it either.
        true => (parent.trace_id(), parent.trace_flags()),
        false => (TraceId::from(id), TraceFlags::SAMPLED),
    };
    let low = u64::try_from(id & u128::from(u64::MAX)).unwrap_or(1).max(1);
    SpanContext::new(trace, SpanId::from(low), flags, true, TraceState::default())
}

/// The context of the span of the strategy that started a run: in the run's
/// trace, its span id made of the run's id, too.
fn strategy_context(run: RunId, traceparent: Option<&str>) -> SpanContext {
    let own = run_context(run, traceparent);
    // Another one than the run's, as good as always.
    let id = u64::from_be_bytes(own.span_id().to_bytes()).reverse_bits().max(1);
    SpanContext::new(
        own.trace_id(),
        SpanId::from(id),
        own.trace_flags(),
        true,
        TraceState::default(),
    )
}

/// Reads a `traceparent` (W3C Trace Context, section 3.2); an empty context
/// where there is none or it is not valid.
fn context(traceparent: Option<&str>) -> Context {
    let read = || {
        let mut parts = traceparent?.split('-');
        let (_version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if trace.len() != 32 || span.len() != 16 {
            return None;
        }
        let trace = TraceId::from_hex(trace).ok()?;
        let span = SpanId::from_hex(span).ok()?;
        let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
        Some(SpanContext::new(trace, span, flags, true, TraceState::default()))
    };
    match read() {
        Some(remote) => Context::new().with_remote_span_context(remote),
        None => Context::new(),
    }
}

fn traceparent_of(context: &SpanContext) -> String {
    let flags = context.trace_flags().to_u8();
    format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id())
}

#[cfg(test)]
mod tests {
    use fermata_core::identity::{PartitionId, SourcePosition};

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_runs_span_is_in_the_events_trace_and_named_after_the_run() {
        let tenant = "acme".parse().unwrap();
        let run = RunId::new(
            PartitionId(3),
            &tenant,
            7,
            SourcePosition { sequence: 1, index: 0 },
            "s",
            None,
        );

        let first = run_context(run, Some(PARENT));
        let again = run_context(run, Some(PARENT));
        let alone = run_context(run, None);

        assert_eq!(first.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(first.span_id(), again.span_id());
        assert!(alone.is_valid());
        assert_ne!(alone.trace_id(), first.trace_id());
    }

    #[test]
    fn what_the_publisher_does_not_sample_is_not_sampled_below_it() {
        let run = "00066749-e18e-8d5c-af2a-1debd8534c2a".parse().unwrap();

        let unsampled = run_context(run, Some(&PARENT.replace("-01", "-00")));

        assert!(!unsampled.is_sampled());
        assert!(run_context(run, Some(PARENT)).is_sampled());
        assert!(run_context(run, None).is_sampled());
    }

    #[test]
    fn a_context_that_is_not_valid_is_no_context() {
        for text in ["", "00", "00-zz-zz-zz", "00-4bf92f35-00f067aa-01"] {
            assert!(!context(Some(text)).span().span_context().is_valid(), "{text}");
        }
    }
}
