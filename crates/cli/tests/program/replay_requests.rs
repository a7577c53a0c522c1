//! `POST /internal/agent/events` of a running engine.

mod at_once;
mod crashes;
mod ids;

use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use fermata_core::record::Kind;
use fermata_jetstream::{Headers, Publisher, PublisherOptions, StreamReader};
use fermata_wire::replay::ReplayKeys;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::engine::RunningEngine;
use crate::operations::{count, kinds};
use crate::process::{Answer, LOOK_INTERVAL, Running, post};
use crate::support::SOON;

const PATH: &str = "/internal/agent/events";
/// The example of the Standard Webhooks libraries.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

const WORKFLOW: &str = "
workflow: { name: one, version: '1', tasks: [{ id: a, noop: {} }] }
";
const STRATEGIES: &str = "
strategies:
  - { name: start, version: 1, tenant: '*', on: asked.start, workflow: { name: one, version: '1' } }
";

fn event(id: &str) -> Value {
    json!({
        "specversion": "1.0", "id": id, "source": "/test", "type": "asked.start",
        "tenant": "acme", "data": {"n": 1},
    })
}

fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// The headers that sign a request, each with its line end.
fn signed(secret: &str, id: &str, seconds: u64, body: &str) -> String {
    let keys = ReplayKeys::parse(secret).expect("a secret");
    let signature = keys.sign(id, seconds, body.as_bytes()).expect("a signature");
    format!(
        "webhook-id: {id}\r\nwebhook-timestamp: {seconds}\r\nwebhook-signature: {signature}\r\n"
    )
}

async fn ask(up: &Running, id: &str, body: &Value) -> Answer {
    let body = body.to_string();
    let url = up.said["http_url"].as_str().expect("endpoints");
    post(url, PATH, &signed(SECRET, id, now_seconds(), &body), &body).await
}

/// Waits until the only partition has recorded so many starts, and returns what it has.
async fn kinds_with(engine: &RunningEngine, kind: Kind, expected: f64) -> Vec<Kind> {
    let reader = StreamReader::new(&engine.broker().await);
    let mut read_to = 0;
    let enough = async {
        loop {
            let last = reader.stream_state("JOURNAL_0").await.expect("a journal").last_sequence;
            if last != read_to {
                read_to = last;
                let kinds = kinds(&reader, "0").await;
                if count(&kinds, kind) >= expected {
                    return kinds;
                }
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    };
    let found = tokio::time::timeout(SOON, enough).await;
    found.unwrap_or_else(|_| panic!("no {expected} {kind:?}\n{}", engine.up.logs.all()))
}

/// Status and kind of a problem.
fn problem(answer: &Answer) -> (u16, String) {
    let kind = answer.json()["type"].as_str().expect("a problem").to_owned();
    (answer.status, kind.trim_start_matches("urn:fermata:problem:replay-").to_owned())
}

const ARGUMENTS: [&str; 4] = ["--http", "127.0.0.1:0", "--partitions", "1"];

/// The arguments of an engine that knows the secrets in a file.
fn knowing(secrets: &NamedTempFile) -> Vec<&str> {
    let path = secrets.path().to_str().expect("text");
    [&ARGUMENTS[..], &["--replay-secrets", path]].concat()
}

fn secrets() -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a file");
    writeln!(file, "{SECRET}").expect("a file");
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_request_is_stored_and_decided_once_even_after_a_restart() {
    let secrets = secrets();
    let mut engine = RunningEngine::start(&knowing(&secrets), &[]).await;
    engine.apply("workflow", WORKFLOW).await;
    engine.apply("strategy", STRATEGIES).await;
    let up = &engine.up;

    let first = ask(up, "request-1", &event("1")).await;
    let again = ask(up, "request-1", &event("1")).await;
    let differs = ask(up, "request-1", &event("2")).await;
    let batch = ask(up, "request-2", &json!([event("1"), event("3")])).await;
    assert_eq!((first.status, batch.status), (202, 202), "{first:?}");
    assert_eq!(problem(&differs), (422, "differs".to_owned()), "{differs:?}");
    assert_eq!((again.status, &again.body), (202, &first.body));
    let told = &first.json()["events"][0];
    assert_eq!((&told["event"], &told["tenant"]), (&json!("1"), &json!("acme")), "{told}");
    assert_eq!(batch.json()["events"].as_array().map(Vec::len), Some(2), "{batch:?}");
    // The body as a whole belongs to the id, and nothing of another one is stored.
    let events = StreamReader::new(&engine.broker().await);
    let stored = async || events.stream_state("EVENTS").await.expect("a stream").last_sequence;
    let before = stored().await;
    for (id, body) in [
        ("request-1", json!([event("1")])),
        ("request-1", json!([event("1"), event("5")])),
        ("request-2", event("1")),
        ("request-2", json!([event("1")])),
        ("request-2", json!([event("1"), event("3"), event("5")])),
        ("request-2", json!([event("3"), event("1")])),
    ] {
        let differs = ask(up, id, &body).await;
        assert_eq!(problem(&differs), (422, "differs".to_owned()), "{id} {body} {differs:?}");
    }
    assert_eq!(stored().await, before);
    // One run for each event that was asked for: `1` twice, under two ids.
    let before = kinds_with(&engine, Kind::RunSucceeded, 3.0).await;
    assert_eq!(count(&before, Kind::EventRepeated), 0.0);

    engine.kill_and_restart(&knowing(&secrets)).await;
    let up = &engine.up;
    let restarted = ask(up, "request-1", &event("1")).await;
    assert_eq!((restarted.status, &restarted.body), (202, &first.body));
    // As it is stored when the broker's window has forgotten the id.
    let publisher = Publisher::new(&engine.broker().await, PublisherOptions::default()).await;
    let publisher = publisher.expect("a publisher");
    let mut headers = Headers::new();
    let body = event("1").to_string();
    for line in signed(SECRET, "request-1", now_seconds(), &body).lines() {
        let (name, value) = line.split_once(": ").expect("a header");
        headers.insert(name, value);
    }
    headers.insert("fermata-replay", "again");
    let subject = "fermata.events.acme.asked.start";
    publisher.publish(subject, Some(headers), body.into()).await.await.sequence().expect("stored");
    // One behind it, by which the copy is known to have been decided.
    assert_eq!(ask(up, "request-3", &event("4")).await.status, 202);
    let after = kinds_with(&engine, Kind::RunSucceeded, 4.0).await;
    assert_eq!(count(&after, Kind::RunStarted), 4.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_signed_or_not_usable_is_refused_and_nothing_is_stored() {
    let secrets = secrets();
    let engine = RunningEngine::start(&knowing(&secrets), &[]).await;
    let up = &engine.up;
    let url = up.said["http_url"].as_str().expect("endpoints");
    let body = event("1").to_string();
    let now = now_seconds();

    let kind = problem;
    for headers in [
        signed(OTHER_SECRET, "r", now, &body),
        signed(SECRET, "r", now, "another body"),
        signed(SECRET, "r", now - 301, &body),
        // The clock goes on towards this one; the bound itself is a test of the rule.
        signed(SECRET, "r", now + 360, &body),
        signed(SECRET, "a.b", now, &body),
    ] {
        let refused = post(url, PATH, &headers, &body).await;
        assert_eq!(kind(&refused), (401, "not-signed".to_owned()), "{headers}");
    }
    let unnamed = post(url, PATH, "", &body).await;
    assert_eq!(kind(&unnamed), (400, "unnamed".to_owned()), "{unnamed:?}");
    let post_signed = |body: String| async move {
        post(url, PATH, &signed(SECRET, "r", now, &body), &body).await
    };
    let malformed = post_signed("{".to_owned()).await;
    assert_eq!(kind(&malformed), (400, "malformed".to_owned()), "{malformed:?}");
    let mut without = event("1");
    without.as_object_mut().expect("an event").remove("tenant");
    let unusable = post_signed(json!([event("1"), without]).to_string()).await;
    assert_eq!(kind(&unusable), (422, "unusable".to_owned()), "{unusable:?}");
    let large = post_signed(format!("{body}{}", " ".repeat(1024 * 1024))).await;
    assert_eq!(kind(&large), (413, "too-large".to_owned()), "{large:?}");
    let state =
        StreamReader::new(&engine.broker().await).stream_state("EVENTS").await.expect("a stream");
    assert_eq!(state.last_sequence, 0);

    let bare = RunningEngine::start(&ARGUMENTS, &[]).await;
    let url = bare.up.said["http_url"].as_str().expect("endpoints");
    let refused = post(url, PATH, &signed(SECRET, "r", now, &body), &body).await;
    assert_eq!(kind(&refused), (403, "not-configured".to_owned()), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_come_at_once_are_stored_once_and_answered_alike_or_asked_to_wait() {
    let secrets = secrets();
    let engine = RunningEngine::start(&knowing(&secrets), &[]).await;
    engine.apply("workflow", WORKFLOW).await;
    engine.apply("strategy", STRATEGIES).await;
    let up = &engine.up;

    let body = event("1");
    let copies = (0..6).map(|_| ask(up, "request-1", &body));
    let answers = futures_util::future::join_all(copies).await;
    let settled = ask(up, "request-1", &body).await;
    assert_eq!(settled.status, 202, "{settled:?}");
    for answer in &answers {
        match answer.status {
            202 => assert_eq!(answer.body, settled.body),
            _ => assert_eq!(problem(answer), (409, "in-flight".to_owned()), "{answer:?}"),
        }
    }
    assert!(answers.iter().any(|answer| answer.status == 202), "{answers:?}");
    // One behind it, by which it is known to have been decided.
    assert_eq!(ask(up, "request-2", &event("2")).await.status, 202);
    let kinds = kinds_with(&engine, Kind::RunSucceeded, 2.0).await;
    assert_eq!(count(&kinds, Kind::RunStarted), 2.0);
}
