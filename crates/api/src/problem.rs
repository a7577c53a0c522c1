//! Errors as RFC 9457 problem details.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::operated::Obstacle;
use crate::receipts::RECEIPTS_PATH;
use crate::replay::REPLAY_PATH;

/// Media type of an error.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// What a sender is asked to wait where it may try again: longer than a broker's
/// moment of trouble mostly lasts.
pub const RETRY_AFTER_SECONDS: u16 = 2;

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
    /// Seconds after which it may be tried again, for the header `Retry-After`.
    #[serde(skip)]
    pub retry_after_seconds: Option<u16>,
}

/// Kinds of problems with a request to replay events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayProblem {
    /// This process has no secrets.
    NotConfigured,
    /// The request is not signed as it has to be.
    NotSigned,
    /// It is not what is read here.
    Malformed,
    /// It is read, and its events would be refused.
    Unusable,
    /// Its form is not taken here.
    UnsupportedForm,
    /// It is too large.
    TooLarge,
    /// Its id came with another body before.
    Differs,
    /// Too many requests are under way.
    Busy,
    /// It cannot be stored now.
    Unavailable,
    /// It has no id.
    Unnamed,
    /// A request with its id is under way.
    InFlight,
}

/// Kinds of problems with a request for receipts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiptProblem {
    /// It does not say which records.
    Malformed,
    /// There is no such partition, or no such record among what is signed.
    NotFound,
    /// Too many requests are under way.
    Busy,
    /// The log is being read.
    Reading,
    /// This process gives none.
    NotServed,
    /// The log is too large for it.
    LogTooLarge,
    /// The log is not what was signed.
    Unsound,
    /// The log cannot be read now.
    Unavailable,
}

impl Problem {
    /// There are no receipts.
    #[must_use]
    pub fn receipts(problem: ReceiptProblem, detail: String) -> Self {
        let (kind, title, status) = match problem {
            ReceiptProblem::Malformed => (
                "urn:fermata:problem:receipts-malformed",
                "the request does not say which records",
                StatusCode::BAD_REQUEST,
            ),
            ReceiptProblem::NotFound => (
                "urn:fermata:problem:receipts-not-found",
                "nothing like it is signed",
                StatusCode::NOT_FOUND,
            ),
            ReceiptProblem::Busy => (
                "urn:fermata:problem:receipts-busy",
                "too many requests at once",
                StatusCode::TOO_MANY_REQUESTS,
            ),
            ReceiptProblem::Reading => (
                "urn:fermata:problem:receipts-reading",
                "the log is being read",
                StatusCode::SERVICE_UNAVAILABLE,
            ),
            ReceiptProblem::NotServed => (
                "urn:fermata:problem:receipts-not-served",
                "receipts are not given here",
                StatusCode::FORBIDDEN,
            ),
            ReceiptProblem::LogTooLarge => (
                "urn:fermata:problem:receipts-log-too-large",
                "the log is too large",
                StatusCode::NOT_IMPLEMENTED,
            ),
            ReceiptProblem::Unsound => (
                "urn:fermata:problem:receipts-unsound",
                "the log is not what was signed",
                StatusCode::INTERNAL_SERVER_ERROR,
            ),
            ReceiptProblem::Unavailable => (
                "urn:fermata:problem:receipts-unavailable",
                "the log cannot be read now",
                StatusCode::SERVICE_UNAVAILABLE,
            ),
        };
        let retry_after_seconds = match problem {
            ReceiptProblem::Busy | ReceiptProblem::Reading | ReceiptProblem::Unavailable => {
                Some(RETRY_AFTER_SECONDS)
            }
            ReceiptProblem::Malformed
            | ReceiptProblem::NotFound
            | ReceiptProblem::NotServed
            | ReceiptProblem::LogTooLarge
            | ReceiptProblem::Unsound => None,
        };
        Self::of(kind, title, status, detail, retry_after_seconds)
    }

    fn of(
        kind: &'static str,
        title: &'static str,
        status: StatusCode,
        detail: String,
        retry_after_seconds: Option<u16>,
    ) -> Self {
        let (status, reasons) = (status.as_u16(), Vec::new());
        Self { kind, title, status, detail, reasons, retry_after_seconds }
    }

    /// A request to replay events is not taken.
    #[must_use]
    pub fn replay(problem: ReplayProblem, detail: String) -> Self {
        let (kind, title, status) = match problem {
            ReplayProblem::NotConfigured => (
                "urn:fermata:problem:replay-not-configured",
                "replays are not taken here",
                StatusCode::FORBIDDEN,
            ),
            ReplayProblem::NotSigned => (
                "urn:fermata:problem:replay-not-signed",
                "the request is not signed as it has to be",
                StatusCode::UNAUTHORIZED,
            ),
            ReplayProblem::Malformed => (
                "urn:fermata:problem:replay-malformed",
                "the body cannot be read",
                StatusCode::BAD_REQUEST,
            ),
            ReplayProblem::Unusable => (
                "urn:fermata:problem:replay-unusable",
                "an event would be refused",
                StatusCode::UNPROCESSABLE_ENTITY,
            ),
            ReplayProblem::UnsupportedForm => (
                "urn:fermata:problem:replay-form",
                "this form of an event is not taken here",
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ),
            ReplayProblem::TooLarge => (
                "urn:fermata:problem:replay-too-large",
                "the request is too large",
                StatusCode::PAYLOAD_TOO_LARGE,
            ),
            ReplayProblem::Differs => (
                "urn:fermata:problem:replay-differs",
                "the id came with another body",
                StatusCode::UNPROCESSABLE_ENTITY,
            ),
            ReplayProblem::Busy => (
                "urn:fermata:problem:replay-busy",
                "too many requests at once",
                StatusCode::TOO_MANY_REQUESTS,
            ),
            ReplayProblem::Unavailable => (
                "urn:fermata:problem:replay-unavailable",
                "it cannot be stored now",
                StatusCode::SERVICE_UNAVAILABLE,
            ),
            ReplayProblem::Unnamed => (
                "urn:fermata:problem:replay-unnamed",
                "the request has no id",
                StatusCode::BAD_REQUEST,
            ),
            ReplayProblem::InFlight => (
                "urn:fermata:problem:replay-in-flight",
                "the request is under way",
                StatusCode::CONFLICT,
            ),
        };
        let retry_after_seconds = match problem {
            ReplayProblem::Busy | ReplayProblem::Unavailable | ReplayProblem::InFlight => {
                Some(RETRY_AFTER_SECONDS)
            }
            ReplayProblem::NotConfigured
            | ReplayProblem::NotSigned
            | ReplayProblem::Malformed
            | ReplayProblem::Unusable
            | ReplayProblem::UnsupportedForm
            | ReplayProblem::TooLarge
            | ReplayProblem::Differs
            | ReplayProblem::Unnamed => None,
        };
        Self::of(kind, title, status, detail, retry_after_seconds)
    }

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
            retry_after_seconds: None,
        }
    }

    /// The answer took too long.
    #[must_use]
    pub fn too_slow(detail: String) -> Self {
        let (kind, title) = ("urn:fermata:problem:no-answer", "no answer in time");
        Self::of(kind, title, StatusCode::GATEWAY_TIMEOUT, detail, None)
    }

    /// There are no figures.
    #[must_use]
    pub fn no_metrics(detail: String) -> Self {
        let (kind, title) = ("urn:fermata:problem:no-metrics", "the figures cannot be told");
        Self::of(kind, title, StatusCode::INTERNAL_SERVER_ERROR, detail, None)
    }

    /// Nothing answers under this path.
    #[must_use]
    pub fn not_found(path: &str) -> Self {
        Self {
            kind: "urn:fermata:problem:not-found",
            title: "not found",
            status: StatusCode::NOT_FOUND.as_u16(),
            detail: format!(
                "`{path}` is not here; /health, /ready, /metrics, {RECEIPTS_PATH} and {REPLAY_PATH} are"
            ),
            reasons: Vec::new(),
            retry_after_seconds: None,
        }
    }

    /// The path answers, but not this method.
    #[must_use]
    pub fn method_not_allowed(method: &str, allowed: &str) -> Self {
        Self {
            kind: "urn:fermata:problem:method-not-allowed",
            title: "method not allowed",
            status: StatusCode::METHOD_NOT_ALLOWED.as_u16(),
            detail: format!("`{method}` is not answered here; {allowed} is"),
            reasons: Vec::new(),
            retry_after_seconds: None,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // Text and numbers alone: this cannot fail.
        let body = serde_json::to_string(&self).unwrap_or_default();
        let mut response = (status, [(CONTENT_TYPE, PROBLEM_JSON)], body).into_response();
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
