//! Logs, and where an endpoint is configured, traces and metrics.
//!
//! Logs go to standard error, filtered by `FERMATA_LOG` (as in
//! `info,fermata_actors=debug`). With `OTEL_EXPORTER_OTLP_ENDPOINT` set, spans
//! and metrics go there by OTLP over HTTP (protobuf); the other `OTEL_*`
//! variables of the OpenTelemetry specification have their effect. Context is
//! carried as W3C Trace Context.

use std::io::{self, IsTerminal as _};

use opentelemetry::trace::{SpanId, TraceId, TracerProvider as _};
use opentelemetry_otlp::{ExporterBuildError, MetricExporter, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::periodic_reader_with_async_runtime::PeriodicReader;
use opentelemetry_sdk::metrics::{Instrument, SdkMeterProvider, Stream};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::runtime::Tokio;
use opentelemetry_sdk::trace::span_processor_with_async_runtime::BatchSpanProcessor;
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SdkTracerProvider};
use thiserror::Error;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry, filter};

use crate::arguments::LogFormat;

/// Environment variable with the filter of log lines.
pub const LOG_VARIABLE: &str = "FERMATA_LOG";

/// Environment variable with the address of an OTLP collector.
pub const ENDPOINT_VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// Environment variable that switches OpenTelemetry off whatever else is set.
const DISABLED_VARIABLE: &str = "OTEL_SDK_DISABLED";

/// Label sets of one instrument that are told apart; the rest would be summed. An
/// engine of the 1,024 partitions that it may have needs about 4,100.
const LABELS_MAX: usize = 5_000;

/// How to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetryOptions {
    /// Filter of log lines when [`LOG_VARIABLE`] is not set: directives with commas between.
    pub filter_default: &'static str,
    /// How log lines look.
    pub format: LogFormat,
    /// Whether [`scrape`] will be asked for the instruments.
    pub scraped: bool,
}

/// Why telemetry could not be set up.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The filter is none.
    #[error("`{LOG_VARIABLE}` is no filter; write for example `info,fermata_actors=debug`")]
    Filter(#[from] filter::ParseError),
    /// The exporter refuses its configuration.
    #[error("the OTLP export cannot be set up; check the `OTEL_EXPORTER_OTLP_…` variables")]
    Export(#[from] ExporterBuildError),
    /// The instruments cannot be read.
    #[error("the instruments cannot be read for Prometheus")]
    Scrape(#[from] opentelemetry_sdk::error::OTelSdkError),
    /// Telemetry is set up already.
    #[error("telemetry is set up already in this process")]
    Twice(#[from] TryInitError),
}

/// Sends what has been gathered when it is dropped; hold it until the program ends.
#[derive(Debug)]
#[must_use = "what has been gathered is sent when this is dropped"]
pub struct TelemetryGuard {
    spans: Option<SdkTracerProvider>,
    metrics: Option<SdkMeterProvider>,
}

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        // The collector may be gone; a program that ends cannot do more than say so.
        let spans = self.spans.as_ref().and_then(|spans| spans.shutdown().err());
        let metrics = self.metrics.as_ref().and_then(|metrics| metrics.shutdown().err());
        for failed in [spans, metrics].into_iter().flatten() {
            tracing::warn!(error = %failed, "telemetry could not be sent");
        }
    }
}

/// Sets up logs, and the export where an endpoint is configured. Once per
/// process, inside a tokio runtime with worker threads.
///
/// # Errors
///
/// [`TelemetryError`] when the environment's filter or endpoint cannot be used.
pub fn init(options: &TelemetryOptions) -> Result<TelemetryGuard, TelemetryError> {
    let filter = std::env::var(LOG_VARIABLE).ok().filter(|text| !text.trim().is_empty());
    let filter = EnvFilter::builder().parse(filter.as_deref().unwrap_or(options.filter_default))?;
    let is_export_wanted = is_export_wanted();
    let spans = if is_export_wanted { Some(export_spans()?) } else { None };
    let metrics = if is_export_wanted || options.scraped {
        Some(export_metrics(is_export_wanted, options.scraped)?)
    } else {
        None
    };
    let layer = spans.as_ref().map(|spans| {
        // Our own spans are exported from `info` on, whatever the log lines' filter says;
        // those of the libraries (one per actor) are of no use outside.
        tracing_opentelemetry::layer()
            .with_tracer(spans.tracer("fermata"))
            .with_filter(filter::Targets::new().with_target("fermata", filter::LevelFilter::INFO))
    });
    tracing_subscriber::registry().with(layer).with(lines(options.format, filter)).try_init()?;
    Ok(TelemetryGuard { spans, metrics })
}

/// Every instrument of this process in the Prometheus text format 0.0.4.
///
/// # Errors
///
/// When one cannot be written as such.
pub fn scrape() -> Result<String, prometheus::Error> {
    prometheus::TextEncoder::new().encode_to_string(&prometheus::gather())
}

type SpansThenLines<Spans> = tracing_subscriber::layer::Layered<Spans, Registry>;

fn lines<Spans>(
    format: LogFormat,
    filter: EnvFilter,
) -> Box<dyn Layer<SpansThenLines<Spans>> + Send + Sync>
where
    Spans: Layer<Registry> + Send + Sync + 'static,
    SpansThenLines<Spans>:
        tracing::Subscriber + for<'span> tracing_subscriber::registry::LookupSpan<'span>,
{
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = io::stderr().is_terminal() && !no_colour;
    let layer = tracing_subscriber::fmt::layer().with_ansi(colour).with_writer(io::stderr);
    match format {
        LogFormat::Text => layer.with_filter(filter).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_filter(filter).boxed(),
    }
}

/// Random ids, except for the span of a run: that id follows from the run, so
/// that the spans below it could name it before it was recorded.
#[derive(Debug)]
struct PlannedIds(RandomIdGenerator);

impl IdGenerator for PlannedIds {
    fn new_trace_id(&self) -> TraceId {
        fermata_actors::trace::planned_ids()
            .map_or_else(|| self.0.new_trace_id(), |(trace, _)| trace)
    }

    fn new_span_id(&self) -> SpanId {
        fermata_actors::trace::planned_ids().map_or_else(|| self.0.new_span_id(), |(_, span)| span)
    }
}

/// Whether traces and metrics are sent to a collector.
#[must_use]
pub fn is_export_wanted() -> bool {
    let set = |name| std::env::var(name).is_ok_and(|value| !value.is_empty());
    let disabled =
        std::env::var(DISABLED_VARIABLE).is_ok_and(|value| value.eq_ignore_ascii_case("true"));
    set(ENDPOINT_VARIABLE) && !disabled
}

fn resource() -> Resource {
    let name = std::env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| "fermata".to_owned());
    Resource::builder().with_service_name(name).build()
}

fn export_spans() -> Result<SdkTracerProvider, TelemetryError> {
    // An error means that another part of the process has chosen the same provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let exporter = SpanExporter::builder().with_http().build()?;
    let spans = SdkTracerProvider::builder()
        .with_resource(resource())
        .with_id_generator(PlannedIds(RandomIdGenerator::default()))
        .with_span_processor(BatchSpanProcessor::builder(exporter, Tokio).build())
        .build();
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    opentelemetry::global::set_tracer_provider(spans.clone());
    fermata_actors::trace::export_spans();
    Ok(spans)
}

fn export_metrics(exported: bool, scraped: bool) -> Result<SdkMeterProvider, TelemetryError> {
    let mut metrics = SdkMeterProvider::builder().with_resource(resource()).with_view(labelled);
    if exported {
        let exporter = MetricExporter::builder().with_http().build()?;
        metrics = metrics.with_reader(PeriodicReader::builder(exporter, Tokio).build());
    }
    if scraped {
        // Our counters end in `_total` by themselves.
        let reader = opentelemetry_prometheus::exporter()
            .with_registry(prometheus::default_registry().clone())
            .without_counter_suffixes()
            .scope_info_enabled(false)
            .build()?;
        metrics = metrics.with_reader(reader);
    }
    let metrics = metrics.build();
    opentelemetry::global::set_meter_provider(metrics.clone());
    Ok(metrics)
}

/// The instruments with a label per stream or partition have room for all of them.
fn labelled(instrument: &Instrument) -> Option<Stream> {
    let has_many = ["fermata.stream.", "fermata.partition."];
    let has_many = has_many.iter().any(|prefix| instrument.name().starts_with(prefix));
    // One that refused this limit would have the default one.
    has_many.then(|| Stream::builder().with_cardinality_limit(LABELS_MAX).build().ok()).flatten()
}
