//! A real HTTP server on loopback that plays the plugins and counts what they did.
//!
//! It behaves as a good plugin does: an effect with a key that it has seen
//! succeed is not done again, the first answer is given again.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Json, Response};
use axum::routing::get;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Header with the key of an effect, shared by all its attempts.
pub const IDEMPOTENCY_KEY_HEADER: &str = "idempotency-key";

/// What the server does with the calls of one path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// Every call succeeds.
    #[default]
    Succeed,
    /// The first so many attempts of each key get status 500, the next succeeds.
    FailFirst(u32),
}

/// What happened under one idempotency key, or in sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Calls that arrived.
    pub attempts: u32,
    /// Calls that were answered by a failure.
    pub failures: u32,
    /// Effects that were done.
    pub commits: u32,
    /// Calls that asked again for an effect that was done.
    pub repeats: u32,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.attempts += other.attempts;
        self.failures += other.failures;
        self.commits += other.commits;
        self.repeats += other.repeats;
    }
}

#[derive(Debug, Default)]
struct Ledger {
    effects: BTreeMap<(String, String), Effect>,
    without_key: u32,
}

#[derive(Debug, Default)]
struct Effect {
    counts: Counts,
    answer: Option<Value>,
}

/// Everything that was counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// By path, over all keys.
    pub paths: BTreeMap<String, Counts>,
    /// Over all paths.
    pub total: Counts,
    /// How many keys there were.
    pub keys: usize,
    /// Most commits of one key; more than 1 would be an effect done twice.
    pub commits_of_a_key_max: u32,
    /// Calls without a key, which are refused.
    pub without_key: u32,
}

#[derive(Debug, Clone)]
struct Shared {
    behaviours: Arc<BTreeMap<String, Behaviour>>,
    ledger: Arc<Mutex<Ledger>>,
}

/// The server; it ends when this is dropped.
#[derive(Debug)]
pub struct PluginServer {
    address: SocketAddr,
    shared: Shared,
    task: JoinHandle<()>,
}

impl Drop for PluginServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl PluginServer {
    /// Listens on a free loopback port. Paths that `behaviours` does not name succeed.
    ///
    /// # Errors
    ///
    /// When no port can be had.
    ///
    /// # Cancel safety
    ///
    /// Nothing stays open when dropped.
    pub async fn start(
        behaviours: impl IntoIterator<Item = (String, Behaviour)>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let behaviours = Arc::new(behaviours.into_iter().collect());
        let shared = Shared { behaviours, ledger: Arc::default() };
        let router = Router::new()
            .route("/counts", get(counts))
            .fallback(execute)
            .with_state(shared.clone());
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the plugin server has ended");
            }
        });
        Ok(Self { address, shared, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was counted so far.
    #[must_use]
    pub fn report(&self) -> Report {
        self.shared.report()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        // Nothing panics while it holds the lock.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self) -> Report {
        let ledger = self.lock();
        let mut report = Report {
            keys: ledger.effects.len(),
            without_key: ledger.without_key,
            ..Report::default()
        };
        for ((path, _), effect) in &ledger.effects {
            report.paths.entry(path.clone()).or_default().add(effect.counts);
            report.total.add(effect.counts);
            report.commits_of_a_key_max = report.commits_of_a_key_max.max(effect.counts.commits);
        }
        report
    }

    fn execute(&self, path: &str, key: &str, body: &Value) -> (StatusCode, Value) {
        let behaviour = self.behaviours.get(path).copied().unwrap_or_default();
        let mut ledger = self.lock();
        let effect = ledger.effects.entry((path.to_owned(), key.to_owned())).or_default();
        effect.counts.attempts += 1;
        if let Some(answer) = &effect.answer {
            effect.counts.repeats += 1;
            return (StatusCode::OK, answer.clone());
        }
        if let Behaviour::FailFirst(failing) = behaviour
            && effect.counts.attempts <= failing
        {
            effect.counts.failures += 1;
            let answer = json!({ "error": "not this time", "attempt": effect.counts.attempts });
            return (StatusCode::INTERNAL_SERVER_ERROR, answer);
        }
        effect.counts.commits += 1;
        let answer =
            json!({ "done": true, "path": path, "attempt": effect.counts.attempts, "got": body });
        effect.answer = Some(answer.clone());
        (StatusCode::OK, answer)
    }
}

async fn counts(State(shared): State<Shared>) -> Json<Report> {
    Json(shared.report())
}

async fn execute(
    State(shared): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if method != Method::POST {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let Some(key) = headers.get(IDEMPOTENCY_KEY_HEADER).and_then(|key| key.to_str().ok()) else {
        shared.lock().without_key += 1;
        let answer = json!({ "error": "the header `idempotency-key` is missing" });
        return (StatusCode::BAD_REQUEST, Json(answer)).into_response();
    };
    match serde_json::from_slice(&body) {
        Ok(body) => {
            let (status, answer) = shared.execute(uri.path(), key, &body);
            (status, Json(answer)).into_response()
        }
        Err(error) => {
            let answer = json!({ "error": format!("the body is not JSON: {error}") });
            (StatusCode::BAD_REQUEST, Json(answer)).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    /// Sends a request and returns status and body.
    async fn ask(server: &PluginServer, head: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let request = format!(
            "{head}host: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    async fn call(server: &PluginServer, path: &str, key: &str) -> u16 {
        let head = format!("POST {path} HTTP/1.1\r\nidempotency-key: {key}\r\n");
        ask(server, &head, "{}").await.0
    }

    #[tokio::test]
    async fn an_effect_is_done_once_however_often_it_is_asked_for() {
        let server = PluginServer::start([]).await.unwrap();

        assert_eq!(call(&server, "/a", "k").await, 200);
        assert_eq!(call(&server, "/a", "k").await, 200);

        let expected = Counts { attempts: 2, failures: 0, commits: 1, repeats: 1 };
        assert_eq!(server.report().paths["/a"], expected);
        assert_eq!(server.report().commits_of_a_key_max, 1);
    }

    #[tokio::test]
    async fn a_path_that_is_to_fail_first_does_so_for_each_key() {
        let behaviour = ("/a".to_owned(), Behaviour::FailFirst(1));
        let server = PluginServer::start([behaviour]).await.unwrap();

        for key in ["k", "l"] {
            assert_eq!(call(&server, "/a", key).await, 500);
            assert_eq!(call(&server, "/a", key).await, 200);
        }

        let expected = Counts { attempts: 4, failures: 2, commits: 2, repeats: 0 };
        assert_eq!(server.report().total, expected);
    }

    #[tokio::test]
    async fn a_call_without_a_key_is_refused() {
        let server = PluginServer::start([]).await.unwrap();

        let (status, _) = ask(&server, "POST /a HTTP/1.1\r\n", "{}").await;

        assert_eq!((status, server.report().without_key), (400, 1));
        assert_eq!(server.report().total.attempts, 0);
    }

    #[tokio::test]
    async fn the_counts_are_told_over_http_too() {
        let server = PluginServer::start([]).await.unwrap();
        call(&server, "/a", "k").await;

        let (status, body) = ask(&server, "GET /counts HTTP/1.1\r\n", "").await;

        assert_eq!(status, 200);
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["total"]["commits"], 1);
    }
}
