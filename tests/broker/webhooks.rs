//! Escalations over HTTP: signed, tried again, known by their id, and no target
//! in another one's way.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use fermata_actors::Engine;
use fermata_core::effect::Outcome;
use fermata_core::record::{Body, Kind};
use fermata_executors::{
    ExecutorsConfig, HttpConfig, PluginTarget, SecretSource, SigningConfig, WebhookConfig,
};
use fermata_jetstream::Durability;
use fermata_tests::journal::{count, records_until};
use fermata_tests::{TestBroker, TestEngine, audit, events};
use fermata_wire::dead::DeadLetter;
use fermata_wire::replay::ReplayKeys;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

const LIMIT: Duration = Duration::from_secs(60);
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What a receiver was sent, signature verified.
#[derive(Debug, Clone)]
struct Arrival {
    path: String,
    id: String,
    body: Value,
}

/// A receiver of webhooks that answers as its path says.
#[derive(Debug)]
struct Receiver {
    url: String,
    seen: Seen,
    server: JoinHandle<()>,
}

type Seen = Arc<(Mutex<Vec<Arrival>>, watch::Sender<usize>)>;

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Receiver {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let seen: Seen = Arc::new((Mutex::default(), watch::channel(0).0));
        let router =
            Router::new().route("/{act}", axum::routing::post(take)).with_state(seen.clone());
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { url, seen, server }
    }

    /// What came to `path`, once it is `wanted` messages.
    async fn arrived(&self, path: &str, wanted: usize) -> Vec<Arrival> {
        let of_path = || {
            let seen = self.seen.0.lock().expect("no panic");
            seen.iter().filter(|arrival| arrival.path == path).cloned().collect::<Vec<_>>()
        };
        let mut arrivals = self.seen.1.subscribe();
        let enough = arrivals.wait_for(|_| of_path().len() >= wanted);
        let waited = tokio::time::timeout(LIMIT, enough).await;
        drop(waited.expect("in time").expect("a receiver"));
        of_path()
    }
}

async fn take(
    State(seen): State<Seen>,
    Path(path): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, &'static str) {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (id, timestamp) = (text("webhook-id"), text("webhook-timestamp"));
    let keys = ReplayKeys::parse(SECRET).expect("a secret");
    let expected = keys.sign(id, timestamp.parse().expect("a time"), &body);
    assert_eq!(Some(text("webhook-signature")), expected.as_deref());
    let earlier = {
        let mut arrivals = seen.0.lock().expect("no panic");
        let earlier = arrivals.iter().filter(|arrival| arrival.path == path).count();
        let body = serde_json::from_slice(&body).expect("JSON");
        arrivals.push(Arrival { path: path.clone(), id: id.to_owned(), body });
        earlier
    };
    seen.1.send_modify(|arrivals| *arrivals += 1);
    match (path.as_str(), earlier) {
        ("fail-twice", 0 | 1) | ("down", _) => (StatusCode::SERVICE_UNAVAILABLE, "later"),
        // It has the message, and its answer never comes.
        ("hold-once", 0) => std::future::pending().await,
        _ => (StatusCode::OK, "ok"),
    }
}

fn webhook(path: &str) -> WebhookConfig {
    let config = json!({ "plugin": "pager", "path": path, "tenant": "acme", "tiers": [3] });
    serde_json::from_value(config).expect("a webhook")
}

fn executors(
    broker: &TestBroker,
    receiver: &Receiver,
    webhooks: Vec<WebhookConfig>,
) -> ExecutorsConfig {
    let file = broker.folder().join("webhook.secret");
    std::fs::write(&file, SECRET).expect("a file");
    let signing = Some(SigningConfig { secrets: vec![SecretSource::File(file)] });
    let target = PluginTarget { url: receiver.url.clone(), signing, ..PluginTarget::default() };
    let plugins = [("pager".to_owned(), target)].into_iter().collect();
    let http = HttpConfig { plugins, ..HttpConfig::default() };
    ExecutorsConfig { http, webhooks, ..ExecutorsConfig::default() }
}

async fn start(broker: &TestBroker, executors: &ExecutorsConfig) -> Engine {
    let engine = TestEngine::at(broker.url()).with_executors(executors.clone());
    let engine = engine.start(broker.folder()).await;
    engine.ready().await;
    engine
}

/// What the journal says came of the notices, once there are so many and no case waits for its own.
async fn notified(engine: &Engine, wanted: usize) -> Vec<(Option<u32>, Value)> {
    let records = records_until(&engine.ports().reader, 2, LIMIT, |records| {
        let notified = count(records, Kind::CaseNotified);
        notified >= wanted && notified == count(records, Kind::CaseOpened)
    })
    .await;
    let notified = records.iter().filter_map(|(header, record)| match &record.body {
        Body::CaseNotified(notified) => match &notified.outcome {
            Outcome::Succeeded { output } => Some((header.attempt, output.parse())),
            Outcome::Failed { .. } => None,
        },
        _ => None,
    });
    notified.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_escalation_is_signed_and_tried_again_under_one_id_until_it_is_taken() {
    let (broker, receiver) =
        (TestBroker::start(Durability::Process).await, Receiver::start().await);
    let config = executors(&broker, &receiver, vec![webhook("/fail-twice")]);
    let engine = start(&broker, &config).await;

    events::publish(&engine.ports().publisher, "nobody.wants", 1).await;
    let arrivals = receiver.arrived("fail-twice", 3).await;

    assert!(arrivals.iter().all(|arrival| arrival.id == arrivals[0].id), "{arrivals:?}");
    assert_eq!(arrivals[0].body["key"], arrivals[0].id.as_str());
    assert_eq!(arrivals[0].body["reason"], "unmatched");
    let outcomes = notified(&engine, 1).await;
    let told = json!({ "webhooks": { (webhook("/fail-twice").name()): "delivered at attempt 3" } });
    assert_eq!(outcomes, [(Some(1), told)]);
    engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_down_holds_no_other_one_and_is_given_up_in_time() {
    let (broker, receiver) =
        (TestBroker::start(Durability::Process).await, Receiver::start().await);
    let down = WebhookConfig { give_up_after_ms: 1_500, ..webhook("/down") };
    let elsewhere = WebhookConfig { tenant: "other".to_owned(), ..webhook("/elsewhere") };
    let config = executors(&broker, &receiver, vec![down, webhook("/up"), elsewhere]);
    let engine = start(&broker, &config).await;

    events::publish(&engine.ports().publisher, "nobody.wants", 1).await;
    let up = receiver.arrived("up", 1).await;

    let outcomes = notified(&engine, 1).await;
    let told = &outcomes[0].1["webhooks"];
    assert_eq!(told[&webhook("/up").name()], "delivered at attempt 1");
    let given_up = told[&webhook("/down").name()].as_str().expect("a text");
    assert!(given_up.starts_with("webhook_given_up: after "), "{given_up}");
    assert_eq!(told.as_object().map(serde_json::Map::len), Some(2), "{told}");
    let letters = audit::messages(&engine.ports().reader, "DEAD").await;
    let letters = letters.iter().map(|message| DeadLetter::decode(&message.payload).expect("one"));
    let letters = letters.collect::<Vec<_>>();
    let [letter] = letters.as_slice() else { panic!("{letters:?}") };
    assert!(!letter.id.contains("/down") && !told.to_string().contains("/down"), "{letter:?}");
    assert_eq!((letter.stage.as_str(), letter.reason.as_str()), ("escalator", "webhook_given_up"));
    let attempts = letter.attempts.expect("attempts");
    assert!(attempts > 1 && given_up.contains(&format!(" {attempts} attempt(s)")), "{given_up}");
    let original = serde_json::from_slice::<Value>(&letter.original).expect("JSON");
    assert_eq!(original, up[0].body);
    engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_like_escalations_one_is_sent_and_the_others_say_with_which_they_were_told() {
    let (broker, receiver) =
        (TestBroker::start(Durability::Process).await, Receiver::start().await);
    let config = executors(&broker, &receiver, vec![webhook("/up")]);
    let engine = start(&broker, &config).await;
    // One partition opens one case for all of a type, so that they have to come to both.
    for id in 0..20 {
        events::publish(&engine.ports().publisher, "nobody.wants", id).await;
    }

    let outcomes = notified(&engine, 2).await;

    let arrivals = receiver.arrived("up", 1).await;
    assert_eq!(arrivals.len(), 1, "{arrivals:?}");
    let told_with = outcomes.iter().filter_map(|(_, told)| told["told_with"].as_str());
    let told_with = told_with.collect::<Vec<_>>();
    let sent = arrivals[0].body["case"].as_str().expect("a case");
    // Two, or more where a minute ends among the events: the next one has cases of its own.
    assert_eq!(told_with, vec![sent; outcomes.len() - 1]);
    engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_outcome_was_lost_comes_again_under_its_id() {
    let (broker, receiver) =
        (TestBroker::start(Durability::Process).await, Receiver::start().await);
    let config = executors(&broker, &receiver, vec![webhook("/hold-once")]);
    let first = start(&broker, &config).await;
    events::publish(&first.ports().publisher, "nobody.wants", 1).await;
    receiver.arrived("hold-once", 1).await;

    first.shut_down().await;
    let second = start(&broker, &config).await;
    let arrivals = receiver.arrived("hold-once", 2).await;

    assert_eq!(arrivals[0].id, arrivals[1].id);
    let outcomes = notified(&second, 1).await;
    assert_eq!(outcomes[0].0, Some(2), "by the second owner: {outcomes:?}");
    second.shut_down().await;
}
