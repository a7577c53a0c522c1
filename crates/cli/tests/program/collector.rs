//! An OTLP collector: it decodes what the program exports over HTTP, and keeps it.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::support::SOON;

/// What has arrived so far.
#[derive(Debug, Clone, Default)]
pub struct Received {
    pub spans: Vec<Span>,
    /// Name and value of each instrument, the newest value of each: of a counter its sum, of
    /// a histogram how much it has counted.
    pub metrics: std::collections::BTreeMap<String, f64>,
}

impl Received {
    /// The span of this name.
    pub fn span(&self, name: &str) -> Option<&Span> {
        self.spans.iter().find(|span| span.name == name)
    }

    fn take_metrics(&mut self, request: ExportMetricsServiceRequest) {
        let scopes = request.resource_metrics.into_iter().flat_map(|one| one.scope_metrics);
        for metric in scopes.flat_map(|scope| scope.metrics) {
            let points = match metric.data {
                Some(Data::Gauge(gauge)) => gauge.data_points,
                Some(Data::Sum(sum)) => sum.data_points,
                Some(Data::Histogram(histogram)) => {
                    let counted =
                        histogram.data_points.iter().map(|point| point.count).sum::<u64>();
                    self.metrics.insert(metric.name, counted as f64);
                    continue;
                }
                other => panic!("`{}` is of a kind that we do not export: {other:?}", metric.name),
            };
            let value = |value: Value| match value {
                Value::AsDouble(value) => value,
                Value::AsInt(value) => value as f64,
            };
            let sum = points.into_iter().filter_map(|point| point.value).map(value).sum();
            self.metrics.insert(metric.name, sum);
        }
    }
}

type Shared = Arc<watch::Sender<Received>>;

/// The running collector; it ends with its value.
pub struct Collector {
    pub url: String,
    received: Shared,
    server: JoinHandle<()>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Collector {
    /// Starts it on a free loopback port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let received = Shared::new(watch::channel(Received::default()).0);
        let router = Router::new()
            .route("/v1/traces", post(traces))
            .route("/v1/metrics", post(metrics))
            .with_state(received.clone());
        let server =
            tokio::spawn(async move { axum::serve(listener, router).await.expect("serving") });
        Self { url, received, server }
    }

    /// Waits until what has arrived is `enough`, and gives it.
    pub async fn until(&self, enough: impl FnMut(&Received) -> bool) -> Received {
        let mut watched = self.received.subscribe();
        let waited = tokio::time::timeout(SOON, watched.wait_for(enough)).await;
        let received = waited.map(|received| received.expect("a collector").clone());
        received.unwrap_or_else(|_| panic!("not in time; so far {:#?}", self.received.borrow()))
    }
}

async fn traces(State(received): State<Shared>, body: Bytes) -> StatusCode {
    let Ok(request) = ExportTraceServiceRequest::decode(body) else {
        return StatusCode::BAD_REQUEST;
    };
    let scopes = request.resource_spans.into_iter().flat_map(|one| one.scope_spans);
    received.send_modify(|all| all.spans.extend(scopes.flat_map(|scope| scope.spans)));
    StatusCode::OK
}

async fn metrics(State(received): State<Shared>, body: Bytes) -> StatusCode {
    let Ok(request) = ExportMetricsServiceRequest::decode(body) else {
        return StatusCode::BAD_REQUEST;
    };
    received.send_modify(|all| all.take_metrics(request));
    StatusCode::OK
}
