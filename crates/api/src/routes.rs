//! The paths and what they answer.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, Method, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use crate::operated::Operated;
use crate::problem::Problem;
use crate::receipts;
use crate::replay::{self, REPLAY_PATH};

/// Media type of `/metrics`.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What `/health` says.
#[derive(Debug, Serialize)]
struct Health {
    status: &'static str,
    worker: String,
    version: &'static str,
    uptime_seconds: u64,
}

/// What `/ready` says when it is.
#[derive(Debug, Serialize)]
struct Ready {
    status: &'static str,
    worker: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    switched_off: Vec<&'static str>,
}

/// All paths; each answers within `limit` or says that it could not.
pub(crate) fn routes<O: Operated>(operated: Arc<O>, limit: Duration) -> Router {
    Router::new()
        .route("/health", get(health::<O>))
        .route("/ready", get(ready::<O>))
        .route("/metrics", get(metrics::<O>))
        .merge(replay::routes())
        .merge(receipts::routes())
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .layer(middleware::from_fn(move |request, next| within(limit, request, next)))
        .with_state(operated)
}

async fn health<O: Operated>(State(operated): State<Arc<O>>) -> Response {
    let identity = operated.identity();
    let uptime_seconds = identity.since.elapsed().as_secs();
    let (worker, version) = (identity.worker, identity.version);
    Json(Health { status: "ok", worker, version, uptime_seconds }).into_response()
}

async fn ready<O: Operated>(State(operated): State<Arc<O>>) -> Response {
    let obstacles = operated.obstacles().await;
    if obstacles.is_empty() {
        let (worker, switched_off) = (operated.identity().worker, operated.switched_off());
        return Json(Ready { status: "ready", worker, switched_off }).into_response();
    }
    Problem::not_ready(obstacles).into_response()
}

async fn metrics<O: Operated>(State(operated): State<Arc<O>>) -> Response {
    match operated.metrics().await {
        Ok(text) => ([(CONTENT_TYPE, PROMETHEUS_TEXT)], text).into_response(),
        Err(error) => Problem::no_metrics(error).into_response(),
    }
}

async fn not_found(uri: Uri) -> Problem {
    Problem::not_found(uri.path())
}

async fn method_not_allowed(method: Method, uri: Uri) -> Response {
    let allowed = if uri.path() == REPLAY_PATH { "POST" } else { "GET,HEAD" };
    let mut response = Problem::method_not_allowed(method.as_str(), allowed).into_response();
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

async fn within(limit: Duration, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let mut response = match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::too_slow(format!("`{path}` took longer than {limit:?}")).into_response(),
    };
    // How things stand is true only now.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
