//! A plugin that commits at most once per idempotency key, and misbehaves as
//! its path says.
//!
//! | path | the first time a key comes | later |
//! |---|---|---|
//! | `/ok` | commits, answers | the first answer |
//! | `/fail-once` | answers 500 | as `/ok` |
//! | `/refuse` | answers 422 | answers 422 |
//! | `/hang` | answers nothing | answers nothing |
//! | `/drop-once` | commits, then breaks the connection | the first answer |
//! | `/unsteady` | one of these by the key, twice at most | as `/ok` |

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use fermata_executors::{ExecutorsConfig, HttpConfig, PluginTarget};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::networks::NETWORKS;

/// Name of the plugin in workflows.
pub const PLUGIN: &str = "sink";

/// What the sink saw of one effect.
#[derive(Debug, Clone, Default)]
pub struct SeenEffect {
    /// How often it was committed.
    pub commits: u32,
    /// Attempt numbers in order of arrival.
    pub attempts: Vec<u32>,
    /// The `traceparent` of each arrival.
    pub traceparents: Vec<Option<String>>,
    /// Arrivals whose body was another than the first one's.
    pub other_bodies: u32,
    body: Bytes,
}

/// What the sink does with an arrival.
#[derive(Debug, Clone, Copy)]
enum Act {
    Answer,
    Fail,
    Refuse,
    Hang,
    HangForNow,
    CommitAndBreak,
    CommitAndHang,
    CommitAndFail,
}

/// How the sink takes every arrival, whatever its path says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Answers 500.
    Fails,
    /// Answers nothing until the mood is over, then 500.
    Hangs,
    /// Commits, then breaks the connection.
    Hides,
}

#[derive(Debug)]
struct Shared {
    effects: Mutex<HashMap<String, SeenEffect>>,
    arrivals: watch::Sender<u64>,
    mood: watch::Sender<Option<Mood>>,
}

/// The running plugin; it ends with its value.
#[derive(Debug)]
pub struct Sink {
    url: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Sink {
    /// Starts it on a free loopback port.
    ///
    /// # Panics
    ///
    /// When there is no free port.
    pub async fn start() -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into()).await
    }

    /// Starts it on a free port of an address of this machine.
    ///
    /// # Panics
    ///
    /// When there is no free port.
    pub async fn start_at(address: IpAddr) -> Self {
        let listener = TcpListener::bind((address, 0)).await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (arrivals, mood) = (watch::channel(0).0, watch::channel(None).0);
        let shared = Arc::new(Shared { effects: Mutex::default(), arrivals, mood });
        let router =
            Router::new().route("/{act}", axum::routing::post(take)).with_state(shared.clone());
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { url, shared, server }
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Executors that may call it, and nothing else.
    #[must_use]
    pub fn executors(&self) -> ExecutorsConfig {
        executors_for(&self.url)
    }

    /// What it saw, by idempotency key.
    #[must_use]
    pub fn effects(&self) -> BTreeMap<String, SeenEffect> {
        self.shared.lock().clone().into_iter().collect()
    }

    /// Takes all that comes in this mood from now on; in none, as the paths say.
    pub fn in_mood(&self, mood: Option<Mood>) {
        self.shared.mood.send_replace(mood);
    }

    /// Waits until `arrivals` requests have come.
    ///
    /// # Panics
    ///
    /// When the sink has ended.
    pub async fn arrived(&self, arrivals: u64) {
        let mut seen = self.shared.arrivals.subscribe();
        seen.wait_for(|seen| *seen >= arrivals).await.expect("a running sink");
    }
}

/// Executors that may call the sink at `url`.
#[must_use]
pub fn executors_for(url: &str) -> ExecutorsConfig {
    // Where workers are in networks of their own it has no loopback address.
    let allow_addresses = vec![NETWORKS.to_owned()];
    let target = PluginTarget { url: url.to_owned(), allow_addresses, ..PluginTarget::default() };
    let plugins = [(PLUGIN.to_owned(), target)].into_iter().collect();
    let http = HttpConfig { plugins, ..HttpConfig::default() };
    ExecutorsConfig { http, ..ExecutorsConfig::default() }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, SeenEffect>> {
        self.effects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an arrival and says what is to be done with it.
    fn note(&self, act: &str, headers: &HeaderMap, body: &Bytes) -> (Act, String) {
        let text =
            |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let key = text("idempotency-key").unwrap_or_default();
        let mut effects = self.lock();
        let effect = effects.entry(key.clone()).or_default();
        let earlier = effect.attempts.len();
        if earlier == 0 {
            effect.body = body.clone();
        }
        effect.other_bodies += u32::from(effect.body != *body);
        let attempt = text("fermata-attempt").and_then(|attempt| attempt.parse().ok());
        effect.attempts.push(attempt.unwrap_or(0));
        effect.traceparents.push(text("traceparent"));
        let act = match *self.mood.borrow() {
            Some(Mood::Fails) => Act::Fail,
            Some(Mood::Hangs) => Act::HangForNow,
            Some(Mood::Hides) => Act::CommitAndBreak,
            None => chosen(act, &key, earlier),
        };
        let commits = matches!(
            act,
            Act::Answer | Act::CommitAndBreak | Act::CommitAndHang | Act::CommitAndFail
        );
        if commits && effect.commits == 0 {
            effect.commits = 1;
        }
        (act, key)
    }
}

fn chosen(path: &str, key: &str, earlier: usize) -> Act {
    match (path, earlier) {
        ("fail-once", 0) => Act::Fail,
        ("refuse", _) => Act::Refuse,
        ("hang", _) => Act::Hang,
        ("drop-once", 0) => Act::CommitAndBreak,
        ("unsteady", 0 | 1) => {
            let number = key
                .bytes()
                .fold(earlier, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
            match number % 24 {
                0 => Act::Hang,
                1 => Act::CommitAndHang,
                2..=4 => Act::Fail,
                5..=7 => Act::CommitAndBreak,
                8 | 9 => Act::CommitAndFail,
                _ => Act::Answer,
            }
        }
        _ => Act::Answer,
    }
}

async fn take(
    State(shared): State<Arc<Shared>>,
    Path(act): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (act, key) = shared.note(&act, &headers, &body);
    shared.arrivals.send_modify(|arrivals| *arrivals += 1);
    match act {
        // The same answer for every arrival of a key: what was committed first.
        Act::Answer => axum::Json(json!({ "committed": key })).into_response(),
        Act::Fail | Act::CommitAndFail => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Act::Refuse => StatusCode::UNPROCESSABLE_ENTITY.into_response(),
        Act::Hang | Act::CommitAndHang => never().await,
        Act::HangForNow => {
            let mut mood = shared.mood.subscribe();
            // The sender is in `shared`, so this ends with the mood.
            let _ = mood.wait_for(|mood| *mood != Some(Mood::Hangs)).await;
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
        Act::CommitAndBreak => broken(),
    }
}

async fn never() -> Response {
    let never: Infallible = std::future::pending().await;
    match never {}
}

/// A response that promises a body and breaks the connection instead.
fn broken() -> Response {
    let error = std::io::Error::other("the plugin broke the connection");
    let body = Body::from_stream(futures_util::stream::iter([Err::<Bytes, _>(error)]));
    ([("content-length", "100")], body).into_response()
}
