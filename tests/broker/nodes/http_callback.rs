//! A plugin that accepts a call over HTTP and completes it later, by its token.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use fermata_core::record::Kind;
use fermata_executors::PluginTarget;
use fermata_tests::events;
use fermata_tests::journal::kinds_of;
use serde_json::json;
use tokio::sync::watch;

use super::callback::complete;
use super::scene::{LIMIT, Scene, output_of};

const WORKFLOW: &str = "
workflow:
  name: under-test
  version: '1'
  tasks:
    - id: ask
      timeout: 1h
      http: { plugin: approvals, path: /ask, body: \"{'n': input.n}\", completion: callback }
    - { id: after, depends_on: [ask], transform: tasks.ask.output }
";

/// What the plugin was sent: token and body of each call.
type Calls = watch::Receiver<Vec<(String, String)>>;

/// Answers 202 and a body that is nothing to anybody; returns its address, too.
async fn plugin() -> (String, Calls) {
    let (sender, calls) = watch::channel(Vec::new());
    let ask = move |headers: HeaderMap, body: String| async move {
        let token = headers.get("fermata-callback-token").expect("a token");
        let token = token.to_str().expect("text").to_owned();
        sender.send_modify(|calls| calls.push((token, body)));
        (StatusCode::ACCEPTED, "accepted, this is no JSON")
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(
        async move { axum::serve(listener, Router::new().route("/ask", post(ask))).await },
    );
    (url, calls)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_over_http_stays_open_until_whoever_has_its_token_completes_it() {
    let (url, mut calls) = plugin().await;
    let target = PluginTarget { url, ..PluginTarget::default() };
    let scene = Scene::with_executors(WORKFLOW, |executors| {
        executors.http.plugins.insert("approvals".to_owned(), target);
    })
    .await;
    scene.publish(7).await;
    let arrived = tokio::time::timeout(LIMIT, calls.wait_for(|calls| !calls.is_empty())).await;
    let (token, body) = arrived.expect("in time").expect("a plugin")[0].clone();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&body).ok(), Some(json!({ "n": 7 })));
    let (records, run) = scene.until_kind(Kind::NodeAccepted).await;
    let open = [Kind::RunStarted, Kind::NodeDispatched, Kind::NodeAccepted];
    assert_eq!(kinds_of(&records, run), open, "the answer is not the outcome");

    // It may take its time, and another engine may be there by then.
    let scene = scene.restarted().await;
    let core = Arc::new(scene.engine.ports().core.clone());
    let output = json!({ "approved": true });
    let message = json!({ "token": token, "output": output });
    assert_eq!(complete(&core, events::TENANT, message.clone()).await, "completed");
    let (records, run) = scene.until_kind(Kind::RunSucceeded).await;
    assert_eq!(output_of(&records, run, "after"), Some(output));
    assert_eq!(complete(&core, events::TENANT, message).await, "late");
    let again = calls.wait_for(|calls| calls.len() > 1);
    let again = tokio::time::timeout(Duration::ZERO, again).await;
    assert!(again.is_err(), "the call was not made again");
    scene.engine.shut_down().await;
}
