//! Dead letters whose events have started work, and letters without bytes.

use fermata_core::command::EventReference;
use fermata_core::event::idempotency_of;
use fermata_core::identity::{RunId, SourcePosition, Tenant};
use fermata_core::record::{EventIgnored, EventRejected, EventStarted, Record};
use fermata_jetstream::StreamReader;
use fermata_jetstream::topology::EVENTS_STREAM;
use fermata_wire::dead::DeadLetter;
use serde_json::json;

use crate::support::{Ended, PARTITION, Stage};

fn tenant() -> Tenant {
    "acme".parse().expect("a tenant")
}

fn at(sequence: u64) -> SourcePosition {
    SourcePosition { sequence, index: 0 }
}

fn reference(id: &str) -> EventReference {
    EventReference {
        tenant: tenant(),
        id: id.into(),
        source: "/t".into(),
        kind: "a".into(),
        traceparent: None,
        hops: 0,
        breach: None,
        replayed: None,
    }
}

/// That the event started a run, by what stands there in EVENTS.
fn started(id: &str, source: SourcePosition) -> (Record, RunId) {
    let key = idempotency_of("acme", None, "/t", id);
    let run = RunId::new(PARTITION, &tenant(), key, source, "pay", None);
    let (event, runs) = (reference(id), vec![run]);
    let body = EventStarted { event, key, source, replay: None, runs };
    (Record::of_tenant(&tenant(), body.into()), run)
}

fn event(id: &str) -> String {
    json!({ "specversion": "1.0", "id": id, "source": "/t", "type": "a", "data": {} }).to_string()
}

async fn file(stage: &Stage, id: &str, reason: &str, original: String) {
    let letter = DeadLetter {
        id: id.to_owned(),
        tenant: "acme".to_owned(),
        stage: "listener".to_owned(),
        reason: reason.to_owned(),
        detail: "why".to_owned(),
        subject: "fermata.events.acme.a".to_owned(),
        original: original.into(),
        time_ms: 1_700_000_000_000,
        headers: Vec::new(),
        attempts: None,
        trace: None,
    };
    let subject = fermata_wire::subjects::dead("acme", "listener");
    let payload = letter.encode().expect("a letter").into();
    let stored = stage.publisher.publish(subject, None, payload).await.await;
    stored.sequence().expect("stored");
}

async fn replay(stage: &Stage, arguments: &[&str]) -> Ended {
    // One for each: several are run at once.
    let secrets = stage.folder.path().join(format!("secrets-{}", arguments[0]));
    let secrets = secrets.display().to_string();
    std::fs::write(&secrets, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").expect("a file");
    stage.run(&[&["dead", "replay", "--replay-secrets", &secrets], arguments].concat()).await
}

async fn events_stored(stage: &Stage) -> u64 {
    let reader = StreamReader::new(&stage.broker);
    reader.stream_state(EVENTS_STREAM).await.expect("a stream").last_sequence
}

#[tokio::test]
async fn a_letter_whose_event_has_started_work_is_told_and_not_replayed_unasked() {
    let stage = Stage::new().await;
    let (start, run) = started("1", at(5));
    stage.journal(0, 0, &[start]).await;
    for (id, of) in [("7.0", "1"), ("8.0", "2"), ("9.0", "2")] {
        file(&stage, id, "contract_violation", event(of)).await;
    }

    let shown = stage.run(&["dead", "show", "7.0"]).await;
    let told = format!("\nstarted   run {run} at 2023-11-14T22:13:20.000Z, for 5.0 of EVENTS; ");
    assert!(shown.code == 0 && shown.stdout.contains(&told), "{shown:?}");
    let shown = stage.run(&["dead", "show", "7.0", "--json"]).await.json();
    assert_eq!(shown[0]["started"][0]["runs"], json!([run]), "{shown:?}");
    let shown = stage.run(&["dead", "show", "8.0", "--json"]).await.json();
    assert_eq!((&shown[0]["started"], &shown[0]["original_from"]), (&json!([]), &json!("letter")));

    let refused = replay(&stage, &["7.0", "--reason", "mended"]).await;
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    for told in ["the event of `7.0` has started work already", &run.to_string(), "`--again`"] {
        assert!(refused.stderr.contains(told), "{told}: {}", refused.stderr);
    }
    assert_eq!(events_stored(&stage).await, 0);

    // Of several those that are left are replayed, and of the same event one.
    let several = replay(&stage, &["7.0", "8.0", "9.0", "--json"]).await;
    assert_eq!(several.code, 1, "{}", several.stderr);
    let told = several.json();
    let told = told.iter().map(|line| (line["id"].as_str(), line["left_out"].as_str()));
    let expected =
        [(Some("8.0"), None), (Some("7.0"), Some("started")), (Some("9.0"), Some("same_event"))];
    assert_eq!(told.collect::<Vec<_>>(), expected, "{}", several.stdout);
    assert_eq!(events_stored(&stage).await, 1);

    // Typed alone the other one waits for what is asked for, and follows what started nothing.
    let waits = replay(&stage, &["9.0"]).await;
    assert_eq!((waits.code, events_stored(&stage).await), (1, 1), "{}", waits.stderr);
    let told =
        "the event of `9.0` is asked for already: 9.0: the same event as 8.0, a replay of which";
    assert!(waits.stderr.contains(told) && waits.stderr.contains("`--again`"), "{}", waits.stderr);
    let key = idempotency_of("acme", None, "/t", "2");
    let (event, strategy) = (reference("2"), "quiet".into());
    let replay_id = several.json()[0]["replay"].as_str().and_then(|id| id.parse().ok());
    assert!(replay_id.is_some(), "{}", several.stdout);
    let ignored = EventIgnored { event, key, source: at(1), strategy, replay: replay_id };
    stage.journal(1, 1, &[Record::of_tenant(&tenant(), ignored.into())]).await;
    let follows = replay(&stage, &["9.0"]).await;
    assert_eq!((follows.code, events_stored(&stage).await), (0, 2), "{}", follows.stderr);

    // Repaired into another event it is none that has started anything; and whoever means it may.
    let other = replay(&stage, &["7.0", "--edit", r#"{"id":"other"}"#]).await;
    assert_eq!(other.code, 0, "{}", other.stderr);
    let meant = replay(&stage, &["7.0", "--again"]).await;
    assert_eq!((meant.code, events_stored(&stage).await), (0, 4), "{}", meant.stderr);
}

#[tokio::test]
async fn of_letters_of_one_event_that_are_replayed_at_once_one_is_sent() {
    const LETTERS: usize = 6;
    let stage = Stage::new().await;
    let ids = (0..LETTERS).map(|index| format!("{}.0", 7 + index)).collect::<Vec<_>>();
    for id in &ids {
        file(&stage, id, "contract_violation", event("1")).await;
    }

    let asked = ids.iter().map(|id| async { replay(&stage, &[id]).await.code });
    let mut codes = futures_util::future::join_all(asked).await;

    codes.sort_unstable();
    assert_eq!(codes, [&[0][..], &[1; LETTERS - 1]].concat());
    assert_eq!(events_stored(&stage).await, 1);
    // Nor is one that was not sent told as asked for.
    let listed = stage.run(&["dead", "list", "--json"]).await.json();
    let has_replays = |letter: &&serde_json::Value| {
        letter["replays"].as_array().is_some_and(|all| !all.is_empty())
    };
    assert_eq!(listed.iter().filter(has_replays).count(), 1, "{listed:?}");
}

#[tokio::test]
async fn bytes_that_a_letter_lacks_are_taken_from_events_and_missed_with_what_to_do() {
    let stage = Stage::new().await;
    let large = json!({
        "specversion": "1.0", "id": "1", "source": "/t", "type": "a", "data": "x".repeat(300_000),
    });
    let payload = large.to_string().into_bytes();
    let bytes = payload.len();
    let stored = stage.publisher.publish("fermata.events.acme.a", None, payload.into()).await.await;
    assert_eq!(stored.sequence(), Some(1));
    file(&stage, "1.0", "too_large", String::new()).await;
    file(&stage, "99.0", "too_large", String::new()).await;

    let shown = stage.run(&["dead", "show", "1.0"]).await;
    let told = format!("\noriginal  in EVENTS only, {bytes} bytes of text\n{{");
    assert!(shown.code == 0 && shown.stdout.contains(&told), "{}", shown.stderr);
    let too_large = replay(&stage, &["1.0"]).await;
    assert_eq!(too_large.code, 2, "{}", too_large.stderr);
    let told = "the event of `1.0` would be refused again: the event has";
    assert!(too_large.stderr.contains(told), "{}", too_large.stderr);
    let mended = replay(&stage, &["1.0", "--edit", r#"{"data":"x"}"#]).await;
    assert_eq!(mended.code, 0, "{}", mended.stderr);

    let gone = stage.run(&["dead", "show", "99.0"]).await;
    assert!(gone.code == 0 && gone.stdout.contains("\noriginal  none: "), "{gone:?}");
    let gone = replay(&stage, &["99.0"]).await;
    assert_eq!(gone.code, 4, "{}", gone.stderr);
    for told in ["`99.0` was filed without its bytes (why)", "`--data FILE`"] {
        assert!(gone.stderr.contains(told), "{}", gone.stderr);
    }
}

#[tokio::test]
async fn a_request_that_another_listener_took_after_all_is_listed_as_replayed() {
    let stage = Stage::new().await;
    file(&stage, "7.0", "contract_violation", event("1")).await;
    let asked = replay(&stage, &["7.0"]).await;
    assert_eq!(asked.code, 0, "{}", asked.stderr);
    // The listener without the secret files this, and ends.
    let refusal = DeadLetter {
        id: "1.0".to_owned(),
        tenant: "acme".to_owned(),
        stage: "listener".to_owned(),
        reason: "replay_not_configured".to_owned(),
        detail: "why".to_owned(),
        subject: "fermata.events.acme.a".to_owned(),
        original: event("1").into(),
        time_ms: 1_700_000_000_000,
        headers: vec![("Fermata-Replay".to_owned(), "7.0".to_owned())],
        attempts: None,
        trace: None,
    };
    let subject = fermata_wire::subjects::dead("acme", "listener");
    let payload = refusal.encode().expect("a letter").into();
    stage.publisher.publish(subject, None, payload).await.await.sequence().expect("stored");
    let listed = async || stage.run(&["dead", "list", "--reason", "contract_violation"]).await;
    assert!(listed().await.stdout.contains(" refused: 1.0 "));
    // As long as no journal has the refusal, nobody asks otherwise unasked.
    let otherwise = replay(&stage, &["7.0", "--reason", "mended"]).await;
    let told = otherwise.stderr.contains("a replay of `7.0` was asked for already");
    assert!(otherwise.code == 1 && told, "{otherwise:?}");

    let rejected = EventRejected {
        event: reference(""),
        source: at(1),
        reason: "replay_not_configured".into(),
        detail: "why".to_owned(),
        original: None,
        replay: None,
    };
    stage.journal(0, 0, &[Record::of_tenant(&tenant(), rejected.into())]).await;
    assert!(listed().await.stdout.contains(" refused: 1.0 "));
    let (start, run) = started("1", at(1));
    stage.journal(1, 1, &[start]).await;
    let taken = listed().await;
    assert!(taken.code == 0 && !taken.stdout.contains("refused"), "{}", taken.stdout);
    let shown = stage.run(&["dead", "show", "7.0"]).await;
    assert!(shown.stdout.contains("\nreplayed  "), "{}", shown.stdout);
    assert!(shown.stdout.contains(&format!("\nstarted   run {run} ")), "{}", shown.stdout);
}
