//! `POST /internal/agent/events`: events that are decided once more, signed by
//! Standard Webhooks.

use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse as _;
use axum::routing::post;
use axum::{Json, Router};
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::in_flight::InFlight;
use crate::operated::{Operated, Replay, ReplayRequest};
use crate::problem::{Problem, ReplayProblem};

/// Where requests to replay events are posted.
pub const REPLAY_PATH: &str = "/internal/agent/events";

/// Bytes of a request's body: what one message may have.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Verified requests that are stored at once; the broker is better asked by a few.
pub const REPLAYS_AT_ONCE_MAX: usize = 8;

/// The header that names a request: the same name with the same body is the same request.
const ID_HEADER: &str = "webhook-id";

/// Media types of the forms that are taken.
const FORMS: [&str; 3] =
    ["application/json", "application/cloudevents+json", "application/cloudevents-batch+json"];

/// What the headers of an event in binary mode begin with.
const ATTRIBUTE_PREFIX: &str = "ce-";

/// The answer to a request whose events are all stored.
#[derive(Debug, Serialize)]
struct Accepted {
    events: Vec<Replay>,
}

pub(crate) fn routes<O: Operated>() -> Router<Arc<O>> {
    let places = Arc::new(Semaphore::new(REPLAYS_AT_ONCE_MAX));
    let in_flight = Arc::new(InFlight::default());
    Router::new().route(
        REPLAY_PATH,
        post(move |State(operated): State<Arc<O>>, request: Request| async move {
            match answer(&*operated, &places, &in_flight, request).await {
                Ok(events) => (StatusCode::ACCEPTED, Json(Accepted { events })).into_response(),
                Err(problem) => problem.into_response(),
            }
        }),
    )
}

async fn answer<O: Operated>(
    operated: &O,
    places: &Semaphore,
    in_flight: &InFlight,
    request: Request,
) -> Result<Vec<Replay>, Problem> {
    let (parts, body) = request.into_parts();
    is_taken(&parts.headers)?;
    let body = read(&parts.headers, body).await?;
    let text = |(name, value): (&axum::http::HeaderName, &axum::http::HeaderValue)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    };
    let headers = parts.headers.iter().filter_map(text).collect();
    let request = ReplayRequest { headers, body };
    // Only whoever knows a secret may take a place from others. What is read before is
    // bounded by the connections.
    operated.verify_replay(&request)?;
    let Ok(_place) = places.try_acquire() else {
        let detail = format!("{REPLAYS_AT_ONCE_MAX} requests are under way, send it again");
        return Err(Problem::replay(ReplayProblem::Busy, detail));
    };
    // Of headers with one name the last counts, as where the signature is verified.
    let id = request.headers.iter().rfind(|(name, _)| name == ID_HEADER).map(|(_, id)| id.clone());
    let _begun = match id.map(|id| in_flight.begin(id)) {
        Some(None) => {
            let detail = "a request with this `webhook-id` is under way, send it again".to_owned();
            return Err(Problem::replay(ReplayProblem::InFlight, detail));
        }
        Some(begun) => begun,
        None => None,
    };
    operated.replay(request).await
}

/// Structured JSON only: the signature is over the body, so nothing that decides
/// about an event may stand in headers.
fn is_taken(headers: &HeaderMap) -> Result<(), Problem> {
    let unsupported = |detail: String| Problem::replay(ReplayProblem::UnsupportedForm, detail);
    if let Some(name) = headers.keys().find(|name| name.as_str().starts_with(ATTRIBUTE_PREFIX)) {
        let detail = format!(
            "`{name}`: attributes in headers are not covered by the signature; send the event as \
             structured JSON"
        );
        return Err(unsupported(detail));
    }
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let value = value.to_str().unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    if FORMS.iter().any(|form| form.eq_ignore_ascii_case(essence)) {
        return Ok(());
    }
    let detail = format!("`Content-Type` is none of {}", FORMS.join(", "));
    Err(unsupported(detail))
}

async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let too_large = || {
        let detail = format!("the body has more than {BODY_BYTES_MAX} bytes, or ended early");
        Problem::replay(ReplayProblem::TooLarge, detail)
    };
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if length.and_then(|length| length.parse::<usize>().ok()) > Some(BODY_BYTES_MAX) {
        return Err(too_large());
    }
    to_bytes(body, BODY_BYTES_MAX).await.map_err(|_| too_large())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Instant;

    use tokio::sync::Notify;

    use super::*;
    use crate::operated::{Identity, Obstacle};

    /// Takes every request, once it may.
    #[derive(Default)]
    struct Slow {
        begun: Notify,
        may_end: Notify,
    }

    impl Operated for Slow {
        fn identity(&self) -> Identity {
            Identity { worker: "w".to_owned(), version: "1.2.3", since: Instant::now() }
        }

        async fn obstacles(&self) -> Vec<Obstacle> {
            Vec::new()
        }

        fn switched_off(&self) -> Vec<&'static str> {
            Vec::new()
        }

        async fn metrics(&self) -> Result<String, String> {
            Ok(String::new())
        }

        async fn receipts(
            &self,
            _partition: &str,
            _records: BTreeSet<u64>,
        ) -> Result<Vec<String>, Problem> {
            Ok(Vec::new())
        }

        fn verify_replay(&self, _request: &ReplayRequest) -> Result<(), Problem> {
            Ok(())
        }

        async fn replay(&self, _request: ReplayRequest) -> Result<Vec<Replay>, Problem> {
            self.begun.notify_one();
            self.may_end.notified().await;
            Ok(Vec::new())
        }
    }

    fn named(id: &str, body: &'static str) -> Request {
        Request::post(REPLAY_PATH).header("Webhook-Id", id).body(Body::from(body)).unwrap()
    }

    #[tokio::test]
    async fn a_request_that_is_under_way_is_not_begun_again_whatever_its_body() {
        let (slow, places) = (Slow::default(), Semaphore::new(3));
        let in_flight = InFlight::default();
        let ask = |request| answer(&slow, &places, &in_flight, request);

        let mut first = Box::pin(ask(named("one", "a")));
        tokio::select! {
            ended = &mut first => panic!("{ended:?}"),
            () = slow.begun.notified() => {}
        }
        for body in ["a", "b"] {
            let refused = ask(named("one", body)).await.unwrap_err();
            assert_eq!(
                (refused.status, refused.kind),
                (409, "urn:fermata:problem:replay-in-flight")
            );
            assert!(refused.retry_after_seconds.is_some());
        }
        slow.may_end.notify_one();
        assert!(first.await.is_ok());

        slow.may_end.notify_one();
        assert!(ask(named("one", "a")).await.is_ok(), "it has ended");
    }

    #[tokio::test]
    async fn other_requests_go_on_and_one_whose_sender_has_gone_is_under_way_no_more() {
        let (slow, places) = (Slow::default(), Semaphore::new(3));
        let in_flight = InFlight::default();
        let ask = |request| answer(&slow, &places, &in_flight, request);

        let mut gone = Box::pin(ask(named("one", "a")));
        let mut other = Box::pin(ask(named("two", "a")));
        for begun in [&mut gone, &mut other] {
            tokio::select! {
                ended = begun => panic!("{ended:?}"),
                () = slow.begun.notified() => {}
            }
        }
        drop((gone, other));

        slow.may_end.notify_one();
        assert!(ask(named("one", "a")).await.is_ok());
    }
}
