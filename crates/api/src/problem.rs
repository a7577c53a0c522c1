//! Errors as RFC 9457 problem details.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::operated::Obstacle;

/// Media type of an error.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// An error answer (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Names the kind of problem; stays the same over versions.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The kind in words.
    pub title: &'static str,
    /// HTTP status, as in the answer's first line.
    pub status: u16,
    /// This occurrence in words.
    pub detail: String,
    /// Each thing that is in the way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Obstacle>,
}

impl Problem {
    /// The process must not be given work.
    #[must_use]
    pub fn not_ready(reasons: Vec<Obstacle>) -> Self {
        let details = reasons.iter().map(|reason| reason.detail.as_str()).collect::<Vec<_>>();
        Self {
            kind: "urn:fermata:problem:not-ready",
            title: "not ready",
            status: StatusCode::SERVICE_UNAVAILABLE.as_u16(),
            detail: details.join("; "),
            reasons,
        }
    }

    /// The answer took too long.
    #[must_use]
    pub fn too_slow(detail: String) -> Self {
        Self {
            kind: "urn:fermata:problem:no-answer",
            title: "no answer in time",
            status: StatusCode::GATEWAY_TIMEOUT.as_u16(),
            detail,
            reasons: Vec::new(),
        }
    }

    /// There are no figures.
    #[must_use]
    pub fn no_metrics(detail: String) -> Self {
        Self {
            kind: "urn:fermata:problem:no-metrics",
            title: "the figures cannot be told",
            status: StatusCode::INTERNAL_SERVER_ERROR.as_u16(),
            detail,
            reasons: Vec::new(),
        }
    }

    /// Nothing answers under this path.
    #[must_use]
    pub fn not_found(path: &str) -> Self {
        Self {
            kind: "urn:fermata:problem:not-found",
            title: "not found",
            status: StatusCode::NOT_FOUND.as_u16(),
            detail: format!("`{path}` is not here; /health, /ready and /metrics are"),
            reasons: Vec::new(),
        }
    }

    /// The path answers, but not this method.
    #[must_use]
    pub fn method_not_allowed(method: &str) -> Self {
        Self {
            kind: "urn:fermata:problem:method-not-allowed",
            title: "method not allowed",
            status: StatusCode::METHOD_NOT_ALLOWED.as_u16(),
            detail: format!("`{method}` is not answered here; GET and HEAD are"),
            reasons: Vec::new(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // Text and numbers alone: this cannot fail.
        let body = serde_json::to_string(&self).unwrap_or_default();
        (status, [(CONTENT_TYPE, PROBLEM_JSON)], body).into_response()
    }
}
