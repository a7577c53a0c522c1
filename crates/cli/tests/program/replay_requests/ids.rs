//! To which body an id belongs, behind the broker's window for message ids.

use fermata_actors::replay_requests::ReplayEntry;
use fermata_core::digest::Digest;
use fermata_jetstream::core_messages::CoreMessages;
use fermata_wire::replay::{ReplayKeys, replay_id};
use fermata_wire::subjects::replay_entry;

use super::*;
use crate::support::program;

/// Has the broker forget the ids of all messages in EVENTS.
pub async fn forget_message_ids(engine: &RunningEngine) {
    let core = CoreMessages::new(&engine.broker().await);
    let api = async |request: &str, body: String| -> Value {
        let subject = format!("$JS.API.{request}");
        let answer = core.request(&subject, body.into_bytes().into(), SOON).await;
        serde_json::from_slice(&answer.expect("an answer").payload).expect("JSON")
    };
    let mut config = api("STREAM.INFO.EVENTS", String::new()).await["config"].take();
    let window = std::mem::replace(&mut config["duplicate_window"], 100_000_000.into());
    let edited = api("STREAM.UPDATE.EVENTS", config.to_string()).await;
    assert!(edited["error"].is_null(), "{edited}");
    let publisher = Publisher::new(&engine.broker().await, PublisherOptions::default()).await;
    let publisher = publisher.expect("a publisher");
    // A message of its own is forgotten after what was stored before it.
    let forgotten = async {
        let mut first = None;
        loop {
            let mut headers = Headers::new();
            headers.insert("Nats-Msg-Id", "probe");
            let subject = "fermata.events.acme.probe";
            let body = json!({
                "specversion": "1.0", "id": "probe", "source": "/test", "type": "probe",
            });
            let outcome = publisher.publish(subject, Some(headers), body.to_string().into());
            let sequence = outcome.await.await.sequence().expect("stored");
            if *first.get_or_insert(sequence) != sequence {
                return;
            }
        }
    };
    tokio::time::timeout(SOON, forgotten).await.expect("the broker forgets");
    // No engine starts on another one.
    config["duplicate_window"] = window;
    let edited = api("STREAM.UPDATE.EVENTS", config.to_string()).await;
    assert!(edited["error"].is_null(), "{edited}");
}

pub async fn stored(engine: &RunningEngine) -> u64 {
    let reader = StreamReader::new(&engine.broker().await);
    reader.stream_state("EVENTS").await.expect("a stream").last_sequence
}

/// As [`ask`], of a process that is starting.
pub async fn ask_until_ready(up: &Running, id: &str, body: &Value) -> Answer {
    let asked = async {
        loop {
            let answer = ask(up, id, body).await;
            if answer.status != 503 {
                return answer;
            }
        }
    };
    tokio::time::timeout(SOON, asked).await.expect("it is ready")
}

/// Another process that takes requests, and listens.
pub async fn other_process(engine: &RunningEngine, secrets: &NamedTempFile) -> Running {
    process_of(engine, secrets, "listener").await
}

/// One with these roles.
pub async fn process_of(engine: &RunningEngine, secrets: &NamedTempFile, roles: &str) -> Running {
    let url = engine.up.said["nats_url"].as_str().expect("an address");
    let path = secrets.path().to_str().expect("text");
    let mut command = program(&["worker", "--json", "--roles", roles, "--nats-url", url]);
    command.args(["--audit-key", &engine.path("audit.key"), "--data-dir", &engine.path("other")]);
    command.args(["--replay-secrets", path]).args(ARGUMENTS);
    Running::of(command).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_belongs_to_its_body_behind_the_window_after_a_restart_and_in_every_process() {
    let secrets = secrets();
    let mut engine = RunningEngine::start(&knowing(&secrets), &[]).await;
    engine.apply("workflow", WORKFLOW).await;
    engine.apply("strategy", STRATEGIES).await;
    let body = json!([event("1"), event("2")]);
    let first = ask(&engine.up, "request-1", &body).await;
    assert_eq!(first.status, 202, "{first:?}");
    forget_message_ids(&engine).await;
    let before = stored(&engine).await;

    let told = async |up: &Running| {
        for other in [event("1"), event("9"), json!([event("1"), event("2"), event("3")])] {
            let differs = ask_until_ready(up, "request-1", &other).await;
            assert_eq!(problem(&differs), (422, "differs".to_owned()), "{other} {differs:?}");
        }
        let again = ask_until_ready(up, "request-1", &body).await;
        assert_eq!((again.status, &again.body), (202, &first.body));
    };
    told(&engine.up).await;
    engine.kill_and_restart(&knowing(&secrets)).await;
    told(&engine.up).await;
    let mut other = other_process(&engine, &secrets).await;
    told(&other).await;
    other.end().await;

    assert_eq!(stored(&engine).await, before, "nothing was stored again");
    // One behind it, by which all before it is known to have been decided.
    assert_eq!(ask(&engine.up, "request-2", &event("4")).await.status, 202);
    let kinds = kinds_with(&engine, Kind::RunSucceeded, 3.0).await;
    assert_eq!(count(&kinds, Kind::RunStarted), 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_entered_and_not_stored_goes_through_when_it_is_sent_again() {
    let secrets = secrets();
    let engine = RunningEngine::start(&knowing(&secrets), &[]).await;
    engine.apply("workflow", WORKFLOW).await;
    engine.apply("strategy", STRATEGIES).await;
    let publisher = Publisher::new(&engine.broker().await, PublisherOptions::default()).await;
    let publisher = publisher.expect("a publisher");
    // As a process leaves it that is killed right behind it.
    let body = event("1");
    let keys = ReplayKeys::parse(SECRET).expect("a secret");
    let digest = Digest::of(body.to_string().as_bytes());
    let entry = ReplayEntry::new(&keys, "request-1", &digest, None).expect("a secret");
    let (subject, entry) = (replay_entry(replay_id("request-1")), entry.encode().expect("JSON"));
    publisher.publish_behind(subject.clone(), 0, entry.into()).await.sequence().expect("stored");

    let differs = ask(&engine.up, "request-1", &event("2")).await;
    assert_eq!(problem(&differs), (422, "differs".to_owned()), "{differs:?}");
    assert_eq!(stored(&engine).await, 0);
    let first = ask(&engine.up, "request-1", &body).await;
    assert_eq!((first.status, stored(&engine).await), (202, 1), "{first:?}");
    let again = ask(&engine.up, "request-1", &body).await;
    assert_eq!((again.status, &again.body), (202, &first.body));
    let kinds = kinds_with(&engine, Kind::RunSucceeded, 1.0).await;
    assert_eq!(count(&kinds, Kind::RunStarted), 1.0);

    // Whoever may publish there and has no secret says neither that a request was answered nor to
    // which body its id belongs.
    let planted = |body: &Value, sequences: &str| {
        let digest = Digest::of(body.to_string().as_bytes());
        format!(r#"{{"version":1,"body":"{digest}"{sequences},"signature":"v1,AAAA"}}"#)
    };
    let swallows = planted(&event("3"), r#","sequences":[1]"#);
    let takes = planted(&event("nobody's"), "");
    for (id, planted) in [("request-3", swallows), ("request-4", takes)] {
        let at = replay_entry(replay_id(id));
        publisher.publish_behind(at, 0, planted.into()).await.sequence().expect("stored");
        let before = stored(&engine).await;
        let asked = ask(&engine.up, id, &event("3")).await;
        assert_eq!((asked.status, stored(&engine).await), (202, before + 1), "{asked:?}");
    }

    // What a newer program wrote is not taken for a body that fits.
    let newer = publisher.publish_behind(subject, 2, br#"{"version":2}"#.as_slice().into()).await;
    newer.sequence().expect("stored");
    let unreadable = ask(&engine.up, "request-1", &body).await;
    assert_eq!(problem(&unreadable), (503, "unavailable".to_owned()), "{unreadable:?}");
}
