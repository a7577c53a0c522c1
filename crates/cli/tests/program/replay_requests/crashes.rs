//! What a process leaves that is killed between two steps of a request, and how the same request goes on
//! from there. That it was entered and nothing stored is in `ids`.

use fermata_actors::replay_requests::ReplayEntry;
use fermata_core::digest::Digest;
use fermata_core::event::REPLAY_HEADER;
use fermata_jetstream::topology::REPLAYS_STREAM;
use fermata_wire::replay::{BODY_HEADER, replay_id};
use fermata_wire::subjects::replay_entry;
use rustix::process::Signal;

use super::ids::{ask_until_ready, forget_message_ids, process_of, stored};
use super::*;

/// Events of the request during which the engine is killed: some are stored before, if it is early, and some not.
const EVENTS: usize = 400;

fn keys() -> ReplayKeys {
    ReplayKeys::parse(SECRET).expect("a secret")
}

async fn publisher(engine: &RunningEngine) -> Publisher {
    Publisher::new(&engine.broker().await, PublisherOptions::default()).await.expect("a publisher")
}

/// The entry of an id: where it stands, and what it says.
async fn entry_of(engine: &RunningEngine, id: &str) -> (u64, ReplayEntry) {
    let reader = StreamReader::new(&engine.broker().await);
    let entry = reader.last_of_subject(REPLAYS_STREAM, &replay_entry(replay_id(id))).await;
    let entry = entry.expect("a stream").expect("an entry");
    (entry.sequence, ReplayEntry::decode(&entry.payload).expect("an entry"))
}

/// Puts an entry without an answer behind what stands there: as before the answer was kept.
async fn leave_open(engine: &RunningEngine, id: &str, body: &Value, last: u64) {
    let digest = Digest::of(body.to_string().as_bytes());
    let open = ReplayEntry::new(&keys(), id, &digest, None).expect("a secret");
    let (subject, open) = (replay_entry(replay_id(id)), open.encode().expect("JSON"));
    let stored = publisher(engine).await.publish_behind(subject, last, open.into()).await;
    stored.sequence().expect("stored");
}

/// Stores the first event of a request as a process does, under the id by which the broker knows it.
async fn store_first(engine: &RunningEngine, id: &str, body: &Value) -> u64 {
    const MESSAGE_ID_PREFIX: &str = "fermata-replay-";
    let (first, seconds) = (body[0].to_string(), now_seconds());
    let name = keys().sign(id, 0, MESSAGE_ID_PREFIX.as_bytes()).expect("a signature");
    let name = Digest::of(name.as_bytes());
    let mut headers = Headers::new();
    headers.insert("Content-Type", "application/cloudevents+json");
    headers.insert(REPLAY_HEADER, "http");
    for line in signed(SECRET, id, seconds, &first).lines() {
        let (name, value) = line.split_once(": ").expect("a header");
        headers.insert(name, value);
    }
    headers.insert(BODY_HEADER, Digest::of(body.to_string().as_bytes()).to_string());
    headers.insert("Nats-Msg-Id", format!("{MESSAGE_ID_PREFIX}{}-{name}", replay_id(id)));
    let subject = "fermata.events.acme.asked.start";
    let publisher = publisher(engine).await;
    let outcome = publisher.publish(subject, Some(headers), first.into()).await.await;
    outcome.sequence().expect("stored")
}

async fn with_strategies(secrets: &NamedTempFile) -> RunningEngine {
    let engine = RunningEngine::start(&knowing(secrets), &[]).await;
    engine.apply("workflow", WORKFLOW).await;
    engine.apply("strategy", STRATEGIES).await;
    engine
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_which_some_events_were_stored_goes_on_behind_them() {
    let secrets = secrets();
    let engine = with_strategies(&secrets).await;
    let body = json!([event("1"), event("2"), event("3")]);
    leave_open(&engine, "request-1", &body, 0).await;
    let first = store_first(&engine, "request-1", &body).await;

    for other in [event("1"), json!([event("1"), event("2")])] {
        let differs = ask(&engine.up, "request-1", &other).await;
        assert_eq!(problem(&differs), (422, "differs".to_owned()), "{differs:?}");
    }
    let answer = ask(&engine.up, "request-1", &body).await;

    assert_eq!((answer.status, stored(&engine).await), (202, first + 2), "{answer:?}");
    assert_eq!(answer.json()["events"][0]["sequence"], first);
    let kept = entry_of(&engine, "request-1").await.1.sequences;
    assert_eq!(kept, Some(vec![first, first + 1, first + 2]));
    let kinds = kinds_with(&engine, Kind::RunSucceeded, 3.0).await;
    assert_eq!(count(&kinds, Kind::RunStarted), 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_answer_was_not_kept_is_answered_again_and_starts_nothing_again() {
    let secrets = secrets();
    let engine = with_strategies(&secrets).await;
    let body = json!([event("1"), event("2")]);
    let first = ask(&engine.up, "request-1", &body).await;
    assert_eq!(first.status, 202, "{first:?}");
    let (last, answered) = entry_of(&engine, "request-1").await;
    assert_eq!(answered.sequences, Some(vec![1, 2]));

    // Within the broker's window the events are recognised, and the answer is the same.
    leave_open(&engine, "request-1", &body, last).await;
    let again = ask(&engine.up, "request-1", &body).await;
    assert_eq!((again.status, &again.body), (202, &first.body));
    assert_eq!(stored(&engine).await, 2);
    let (last, answered) = entry_of(&engine, "request-1").await;
    assert_eq!(answered.sequences, Some(vec![1, 2]));

    // Behind it they are stored again, and their partition passes over them.
    leave_open(&engine, "request-1", &body, last).await;
    forget_message_ids(&engine).await;
    let before = stored(&engine).await;
    let differs = ask(&engine.up, "request-1", &event("1")).await;
    assert_eq!(problem(&differs), (422, "differs".to_owned()), "{differs:?}");
    let again = ask(&engine.up, "request-1", &body).await;
    assert_eq!((again.status, stored(&engine).await), (202, before + 2), "{again:?}");
    // One behind it, by which the copies are known to have been decided.
    assert_eq!(ask(&engine.up, "request-2", &event("4")).await.status, 202);
    let kinds = kinds_with(&engine, Kind::RunSucceeded, 3.0).await;
    assert_eq!(count(&kinds, Kind::RunStarted), 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_during_which_the_process_is_killed_is_whole_when_it_was_sent_again() {
    let secrets = secrets();
    let engine = with_strategies(&secrets).await;
    // It does not listen: what a listener had taken would come again half a minute later only.
    let mut other = process_of(&engine, &secrets, "projector").await;
    assert_eq!(ask_until_ready(&other, "request-0", &event("first")).await.status, 202);
    let before = stored(&engine).await;
    let body = json!((0..EVENTS).map(|id| event(&id.to_string())).collect::<Vec<_>>());
    let text = body.to_string();
    let url = other.said["http_url"].as_str().expect("endpoints").to_owned();
    let headers = signed(SECRET, "request-1", now_seconds(), &text);
    let asked = tokio::spawn({
        let text = text.clone();
        // What it says, if it says anything, nobody hears.
        async move { post(&url, PATH, &headers, &text).await }
    });
    let begun = async {
        while stored(&engine).await == before {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, begun).await.expect("something is stored");

    other.signal(Signal::KILL);
    other.ended().await;
    asked.abort();
    let differs = ask(&engine.up, "request-1", &event("0")).await;
    assert_eq!(problem(&differs), (422, "differs".to_owned()), "{differs:?}");
    let answer = ask(&engine.up, "request-1", &body).await;

    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(answer.json()["events"].as_array().map(Vec::len), Some(EVENTS));
    assert_eq!(ask(&engine.up, "request-2", &event("last")).await.status, 202);
    let all = EVENTS as f64 + 2.0;
    let kinds = kinds_with(&engine, Kind::RunSucceeded, all).await;
    assert_eq!(count(&kinds, Kind::RunStarted), all);
}
