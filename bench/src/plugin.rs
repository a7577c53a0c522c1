//! A plugin that keeps its callers waiting until it is told to let them go, and counts how often
//! each effect was asked for. On other paths it answers at once, or fails.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use miette::IntoDiagnostic as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Header that names an effect, the same for all its attempts.
const KEY_HEADER: &str = "idempotency-key";

/// The plugin's server; ends with the value.
#[derive(Debug)]
pub struct HoldingPlugin {
    url: String,
    asked: Arc<Mutex<HashMap<String, u32>>>,
    waiting: Arc<AtomicUsize>,
    released: watch::Sender<bool>,
    server: JoinHandle<()>,
}

#[derive(Debug, Clone)]
struct Shared {
    asked: Arc<Mutex<HashMap<String, u32>>>,
    waiting: Arc<AtomicUsize>,
    released: watch::Receiver<bool>,
}

/// A caller that waits, until it is answered or gone.
#[derive(Debug)]
struct Waits(Arc<AtomicUsize>);

impl Waits {
    fn begin(waiting: &Arc<AtomicUsize>) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting.clone())
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl HoldingPlugin {
    /// Starts it on a free loopback port; it answers nobody yet.
    pub async fn start() -> miette::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.into_diagnostic()?;
        let url = format!("http://{}", listener.local_addr().into_diagnostic()?);
        let (released, receiver) = watch::channel(false);
        let asked = Arc::<Mutex<HashMap<_, _>>>::default();
        let waiting = Arc::<AtomicUsize>::default();
        let shared = Shared { asked: asked.clone(), waiting: waiting.clone(), released: receiver };
        let router = Router::new()
            .route("/hold", post(hold))
            .route("/answer", post(async || "{}"))
            .route("/fail", post(async || StatusCode::INTERNAL_SERVER_ERROR))
            .with_state(shared);
        let server = tokio::spawn(async move {
            // It serves until it is aborted.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { url, asked, waiting, released, server })
    }

    /// Its address.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Answers from now on.
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    /// Keeps those waiting that come from now on. Nobody may be waiting.
    pub fn hold(&self) {
        self.released.send_replace(false);
    }

    /// How many callers it keeps waiting.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Effects asked for, and how many of them more than once.
    pub fn counted(&self) -> (usize, usize) {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        (asked.len(), asked.values().filter(|times| **times > 1).count())
    }
}

impl Drop for HoldingPlugin {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn hold(State(mut shared): State<Shared>, headers: HeaderMap) -> &'static str {
    let key = headers.get(KEY_HEADER).and_then(|key| key.to_str().ok()).unwrap_or_default();
    *shared
        .asked
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .entry(key.to_owned())
        .or_default() += 1;
    let _waits = Waits::begin(&shared.waiting);
    // An error means that the plugin is going.
    let _ = shared.released.wait_for(|released| *released).await;
    "{}"
}
