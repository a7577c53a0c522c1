//! `fermata publish` and `fermata dead`.

use std::process::Stdio;

use fermata_jetstream::topology::{DEAD_STREAM, EVENTS_STREAM};
use fermata_jetstream::{Bytes, StreamReader};
use fermata_wire::dead::DeadLetter;
use tokio::io::AsyncWriteExt as _;

use crate::support::{Stage, program, run};

async fn stored(stage: &Stage) -> u64 {
    StreamReader::new(&stage.broker).stream_state(EVENTS_STREAM).await.unwrap().messages
}

#[tokio::test]
async fn a_published_event_is_stored_as_a_cloudevent() {
    let stage = Stage::new().await;

    let published = stage
        .run(&[
            "publish",
            "--tenant",
            "acme",
            "--type",
            "a.b",
            "--id",
            "e-1",
            "--data",
            "{\"n\":1}",
            "--json",
        ])
        .await;

    assert_eq!(published.code, 0, "{}", published.stderr);
    assert_eq!(published.json()[0]["sequence"], 1);
    let reader = StreamReader::new(&stage.broker);
    let message = reader.read_one(EVENTS_STREAM, 1).await.unwrap().unwrap();
    let event: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
    assert_eq!(message.subject.as_str(), "fermata.events.acme.a.b");
    assert_eq!((&event["specversion"], &event["id"]), (&"1.0".into(), &"e-1".into()));
    assert_eq!(event["data"]["n"], 1);
}

#[tokio::test]
async fn nothing_is_published_when_one_of_the_files_is_unusable() {
    let stage = Stage::new().await;
    let path = |name: &str| stage.folder.path().join(name).display().to_string();
    let sound = r#"{"specversion":"1.0","id":"1","source":"/s","type":"a"}"#;
    std::fs::write(path("sound.json"), sound).unwrap();
    std::fs::write(path("broken.json"), "{").unwrap();

    let refused = stage
        .run(&[
            "publish",
            "--tenant",
            "acme",
            "--type",
            "a",
            &path("sound.json"),
            &path("broken.json"),
        ])
        .await;
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stdout.contains("not_json"), "{}", refused.stdout);
    assert_eq!(stored(&stage).await, 0);

    // A batch without events, and a tenant that is none, would leave nothing but a dead letter.
    std::fs::write(path("empty.json"), "[]").unwrap();
    let empty = ["publish", "--json", "--tenant", "acme", &path("empty.json")];
    let nobody = ["publish", "--json", "--tenant", "_engine", "--type", "a"];
    for (arguments, reason) in [(&empty[..], "bad_batch"), (&nobody[..], "bad_subject")] {
        let refused = stage.run(arguments).await;
        assert_eq!((refused.code, stored(&stage).await), (1, 0), "{}", refused.stderr);
        assert_eq!(refused.json()[0]["reason"], reason, "{}", refused.stdout);
    }

    // On purpose it can be published.
    let garbage = stage
        .run(&["publish", "--tenant", "acme", "--type", "a", "--no-check", &path("broken.json")])
        .await;
    assert_eq!((garbage.code, stored(&stage).await), (0, 1), "{}", garbage.stderr);
}

#[tokio::test]
async fn a_key_that_is_there_twice_in_what_a_person_writes_is_refused_and_lines_pass_as_they_are() {
    let stage = Stage::new().await;
    let path = |name: &str| stage.folder.path().join(name).display().to_string();
    let data = "{\"n\":1,\"n\":2}";
    let event = format!(
        "{{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/s\",\"type\":\"a\",\"data\":{data}}}"
    );
    std::fs::write(path("data.json"), data).unwrap();
    std::fs::write(path("event.json"), &event).unwrap();
    std::fs::write(path("event.ndjson"), &event).unwrap();
    let publish = async |more: &[&str]| {
        stage.run(&[&["publish", "--tenant", "acme", "--type", "a"], more].concat()).await
    };

    let typed = publish(&["--data", data]).await;
    let of_file = publish(&["--data-file", &path("data.json")]).await;
    let in_file = publish(&[&path("event.json")]).await;

    let told = "`n` is there twice at line 1 column";
    assert_eq!((typed.code, of_file.code, in_file.code), (2, 2, 1));
    assert!(typed.stderr.contains(&format!("in `--data` {told} 10;")), "{}", typed.stderr);
    assert!(of_file.stderr.contains(told), "{}", of_file.stderr);
    assert!(in_file.stdout.contains(told), "{}", in_file.stdout);
    assert!(in_file.stdout.contains("(duplicate_key)"), "{}", in_file.stdout);
    assert_eq!(stored(&stage).await, 0);

    // On purpose it goes, and in lines as from every other publisher.
    for more in [&["--no-check", &*path("event.json")][..], &[&path("event.ndjson")]] {
        let published = publish(more).await;
        assert_eq!(published.code, 0, "{}{}", published.stdout, published.stderr);
    }
    let reader = StreamReader::new(&stage.broker);
    for sequence in [1, 2] {
        let stored = reader.read_one(EVENTS_STREAM, sequence).await.unwrap().unwrap();
        assert_eq!(stored.payload, event.as_bytes());
    }
}

#[tokio::test]
async fn lines_of_standard_input_are_published_and_an_unusable_one_is_passed_over() {
    let stage = Stage::new().await;
    let url = stage.server.url();
    let mut child = program(&["--nats-url", &url, "publish", "--tenant", "acme", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for number in 0..600 {
        let line = format!(
            "{{\"specversion\":\"1.0\",\"id\":\"{number}\",\"source\":\"/s\",\"type\":\"a\"}}\n"
        );
        stdin.write_all(line.as_bytes()).await.unwrap();
    }
    stdin.write_all(b"\n{\"type\":\"a\"}\n").await.unwrap();
    drop(stdin);

    let output = child.wait_with_output().await.unwrap();

    assert_eq!((output.status.code(), stored(&stage).await), (Some(1), 600));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("refused: -:602: "), "the line is named by its number");
}

fn line(id: usize) -> String {
    format!(
        "{{\"specversion\":\"1.0\",\"id\":\"{id}\",\"source\":\"/s\",\"type\":\"a\",\"data\":{{\"n\":{id}}}}}\n"
    )
}

#[tokio::test]
async fn a_file_of_lines_is_checked_through_and_then_published_in_batches_at_a_rate() {
    let stage = Stage::new().await;
    let path = stage.folder.path().join("events.txt").display().to_string();
    let lines: String = (0..25).map(line).collect();
    std::fs::write(&path, format!("{lines}{{\n\n{{\"id\":1}}\n")).unwrap();
    let arguments = ["publish", "--tenant", "acme", "--ndjson", "--batch", "10", &path];

    let refused = stage.run(&arguments).await;
    assert_eq!((refused.code, stored(&stage).await), (1, 0), "{}", refused.stderr);
    assert!(
        refused.stdout.contains(":26: ") && refused.stdout.contains(":28: "),
        "{}",
        refused.stdout
    );
    assert!(refused.stderr.contains("nothing was published; `--keep-going`"), "{}", refused.stderr);

    let begun = std::time::Instant::now();
    let more = ["--keep-going", "--rate", "100/s", "--max-in-flight", "2", "--json"];
    let published = stage.run(&[&arguments[..], &more].concat()).await;
    assert_eq!((published.code, stored(&stage).await), (1, 3), "{}", published.stderr);
    // The third message waits for the turn of its first event, 20 events on.
    assert!(begun.elapsed() >= std::time::Duration::from_millis(200));
    let summary = published.json().pop().unwrap()["summary"].clone();
    let counted =
        ["messages", "events", "refused", "unanswered"].map(|name| summary[name].as_u64());
    assert_eq!(counted, [Some(3), Some(25), Some(2), Some(0)]);
    let message = StreamReader::new(&stage.broker).read_one(EVENTS_STREAM, 3).await.unwrap();
    let events: Vec<serde_json::Value> = serde_json::from_slice(&message.unwrap().payload).unwrap();
    assert_eq!(events.len(), 5);
}

#[tokio::test]
async fn events_are_published_as_messagepack_and_in_binary_mode() {
    let stage = Stage::new().await;
    let path = stage.folder.path().join("events.ndjson").display().to_string();
    std::fs::write(&path, line(1)).unwrap();
    for form in [&["--msgpack"][..], &["--binary"], &["--binary", "--msgpack"]] {
        let published = stage.run(&[&["publish", "--tenant", "acme", &path], form].concat()).await;
        assert_eq!(published.code, 0, "{}", published.stderr);
        assert!(published.stdout.contains("EVENTS/S"), "{}", published.stdout);
    }

    let reader = StreamReader::new(&stage.broker);
    let mut payloads = Vec::new();
    for sequence in 1..=3 {
        payloads.push(reader.read_one(EVENTS_STREAM, sequence).await.unwrap().unwrap().payload);
    }
    assert_eq!(payloads[0].first(), Some(&0x85));
    assert_eq!(payloads[1], "{\"n\":1}");
    assert_eq!(payloads[2], &b"\x81\xa1n\x01"[..]);
}

#[tokio::test]
async fn data_that_has_no_form_in_binary_mode_is_refused_by_its_line_and_nothing_is_sent() {
    let stage = Stage::new().await;
    let path = stage.folder.path().join("events.ndjson").display().to_string();
    let with = |id: u32, members: &str| {
        format!(r#"{{"specversion":"1.0","id":"{id}","source":"/s","type":"a",{members}}}"#)
    };
    let text = with(1, r#""datacontenttype":"text/plain","data":"hello""#);
    let xml = with(2, r#""datacontenttype":"application/xml","data":"<a/>""#);
    std::fs::write(&path, format!("{text}\n{xml}\n")).unwrap();

    let publish = ["publish", "--tenant", "acme", "--binary", &path];
    let refused = stage.run(&publish).await;
    assert_eq!(refused.code, 1, "{}", refused.stdout);
    assert!(refused.stdout.contains("events.ndjson:2: "), "{}", refused.stdout);
    assert!(refused.stdout.contains("(unsupported_content_type)"), "{}", refused.stdout);
    let reader = StreamReader::new(&stage.broker);
    assert!(reader.read_one(EVENTS_STREAM, 1).await.unwrap().is_none());

    std::fs::write(&path, text).unwrap();
    assert_eq!(stage.run(&publish).await.code, 0);
    let stored = reader.read_one(EVENTS_STREAM, 1).await.unwrap().unwrap();
    assert_eq!(stored.payload, "hello");
}

#[tokio::test]
async fn a_repaired_letter_is_requested_again_with_a_signature() {
    let stage = Stage::new().await;
    let subject = fermata_wire::subjects::dead("acme", "listener");
    let stored = stage.publisher.publish(subject, None, letter("7.0", "not_json")).await.await;
    stored.sequence().expect(DEAD_STREAM);
    let path = |name: &str| stage.folder.path().join(name).display().to_string();
    std::fs::write(path("secrets"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
    std::fs::write(path("event.json"), line(1)).unwrap();
    let (secrets, event) = (path("secrets"), path("event.json"));

    let unsigned = stage.run(&["dead", "replay", "7.0"]).await;
    assert_eq!(unsigned.code, 2, "{}", unsigned.stderr);
    let broken = stage.run(&["dead", "replay", "7.0", "--replay-secrets", &secrets]).await;
    assert_eq!(broken.code, 2, "{}", broken.stderr);
    assert!(broken.stderr.contains("--data"), "{}", broken.stderr);
    let arguments = [
        "dead",
        "replay",
        "7.0",
        "--replay-secrets",
        &secrets,
        "--data",
        &event,
        "--reason",
        "typo",
        "--json",
    ];
    let requested = stage.run(&arguments).await;
    assert_eq!(requested.code, 0, "{}", requested.stderr);
    let again = stage.run(&arguments).await;
    assert_eq!(requested.json()[0]["replay"], again.json()[0]["replay"]);

    let message = StreamReader::new(&stage.broker).read_one(EVENTS_STREAM, 1).await.unwrap();
    let message = message.unwrap();
    let event: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
    assert_eq!(message.subject.as_str(), "fermata.events.acme.a");
    assert_eq!((&event["tenant"], &event["replayreason"]), (&"acme".into(), &"typo".into()));
    let missing = stage.run(&["dead", "replay", "8.0", "--replay-secrets", &secrets]).await;
    assert_eq!(missing.code, 4, "{}", missing.stderr);
    let no_letter = stage.run(&["dead", "replay", "1.0", "--replay-secrets", &secrets]).await;
    assert_eq!(no_letter.code, 1, "{}", no_letter.stderr);
    assert!(no_letter.stderr.contains("there is no dead letter `1.0`"), "{}", no_letter.stderr);

    // For another reason it would be another replay.
    let first = requested.json()[0]["request"].as_str().unwrap().to_owned();
    let event = path("event.json");
    let secret = ["--replay-secrets", &secrets];
    let other = ["dead", "replay", "7.0", "--data", &event, "--reason", "a typo"];
    let refused = stage.run(&[&other[..], &secret].concat()).await;
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    for told in ["a replay of `7.0` was asked for already", &first, ": typo", "`--again`"] {
        assert!(refused.stderr.contains(told), "{told}: {}", refused.stderr);
    }
    assert_eq!(stored_events(&stage).await, 2);
    let again =
        ["dead", "replay", "7.0", "--data", &event, "--reason", "b", "--by", "bob", "--again"];
    let meant = stage.run(&[&again[..], &secret, &["--json"]].concat()).await;
    assert_eq!(meant.code, 0, "{}", meant.stderr);
    assert_ne!(meant.json()[0]["replay"], requested.json()[0]["replay"]);
    assert_eq!(stored_events(&stage).await, 3);

    let listed = stage.run(&["dead", "list", "--reason", "not_json", "--json"]).await.json();
    assert_eq!(listed.len(), 1, "{listed:?}");
    let replays = listed[0]["replays"].as_array().unwrap();
    let told = replays.iter().map(|replayed| replayed["detail"].as_str().unwrap());
    let told = told.collect::<Vec<_>>();
    assert!(told.len() == 2 && told[0].ends_with(": typo") && told[1] == "bob: b", "{told:?}");
    let all = stage.run(&["dead", "list"]).await;
    assert_eq!(all.stdout.lines().count(), 2, "{}", all.stdout);
}

async fn stored_events(stage: &Stage) -> u64 {
    StreamReader::new(&stage.broker).stream_state(EVENTS_STREAM).await.unwrap().last_sequence
}

fn letter(id: &str, reason: &str) -> Bytes {
    let letter = DeadLetter {
        id: id.to_owned(),
        tenant: "acme".to_owned(),
        stage: "listener".to_owned(),
        reason: reason.to_owned(),
        detail: "why".to_owned(),
        subject: "fermata.events.acme.a".to_owned(),
        original: Bytes::from_static(b"{half"),
        time_ms: 1_700_000_000_000,
        headers: Vec::new(),
        attempts: None,
        trace: None,
    };
    letter.encode().unwrap().into()
}

#[tokio::test]
async fn an_event_without_a_type_is_replayed_under_the_one_that_the_edit_gives_it() {
    let stage = Stage::new().await;
    let original = br#"{"specversion":"1.0","id":"1","data":{}}"#;
    let letter = DeadLetter {
        original: Bytes::from_static(original),
        ..DeadLetter::decode(&letter("7.0", "missing_attribute")).unwrap()
    };
    let subject = fermata_wire::subjects::dead("acme", "listener");
    let payload = letter.encode().unwrap().into();
    stage.publisher.publish(subject, None, payload).await.await.sequence().expect(DEAD_STREAM);
    let secrets = stage.folder.path().join("secrets").display().to_string();
    std::fs::write(&secrets, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
    let replay = async |edit: &str| {
        let replay = ["dead", "replay", "7.0", "--replay-secrets", &secrets, "--edit", edit];
        stage.run(&replay).await
    };

    let lacking = replay(r#"{"source":"/s"}"#).await;
    assert_eq!(lacking.code, 2, "{}", lacking.stderr);
    let told = r#"edited like that, would be refused again: `type` is missing"#;
    assert!(lacking.stderr.contains(told), "{}", lacking.stderr);
    assert!(lacking.stderr.contains(r#"`--edit '{"type":"a"}'`"#), "{}", lacking.stderr);
    let whole = replay(r#"{"source":"/s","type":"c.d"}"#).await;
    assert_eq!(whole.code, 0, "{}", whole.stderr);
    assert!(whole.stdout.contains("on fermata.events.acme.c.d, stored at 1;"), "{}", whole.stdout);
}

#[tokio::test]
async fn dead_letters_are_listed_once_and_shown_with_their_bytes() {
    let stage = Stage::new().await;
    let subject = fermata_wire::subjects::dead("acme", "listener");
    for payload in
        [letter("7.0", "not_json"), letter("7.0", "not_json"), letter("9.1", "too_large")]
    {
        let stored = stage.publisher.publish(subject.clone(), None, payload).await.await;
        stored.sequence().expect(DEAD_STREAM);
    }

    let listed = stage.run(&["dead", "list", "--json"]).await;
    let ids: Vec<_> = listed.json().iter().map(|letter| letter["id"].clone()).collect();
    assert_eq!((listed.code, ids), (0, vec!["9.1".into(), "7.0".into()]), "{}", listed.stderr);

    let shown = stage.run(&["dead", "show", "7.0"]).await;
    assert!(shown.code == 0 && shown.stdout.ends_with("{half\n"), "{}", shown.stdout);

    let missing = stage.run(&["dead", "show", "8.0"]).await;
    assert_eq!(missing.code, 4, "{}", missing.stderr);
}

#[tokio::test]
async fn secrets_of_a_letter_are_shown_to_who_asks_for_them_only() {
    let stage = Stage::new().await;
    let letter = DeadLetter {
        original: Bytes::from_static(br#"{"user":"ann","apiKey":"hunter2"}"#),
        headers: vec![("Cookie".to_owned(), "hunter2".to_owned())],
        ..DeadLetter::decode(&letter("7.0", "bad_attribute")).unwrap()
    };
    let subject = fermata_wire::subjects::dead("acme", "listener");
    let payload = letter.encode().unwrap().into();
    let stored = stage.publisher.publish(subject, None, payload).await.await;
    stored.sequence().expect(DEAD_STREAM);

    for command in [
        &["dead", "show", "7.0"][..],
        &["dead", "show", "7.0", "--json"],
        &["dead", "list", "--json"],
    ] {
        let shown = stage.run(command).await;
        assert!(shown.code == 0 && !shown.stdout.contains("hunter2"), "{}", shown.stdout);
        assert!(shown.stdout.contains("ann"), "{}", shown.stdout);
    }
    let whole = stage.run(&["dead", "show", "7.0", "--unmasked"]).await;
    assert_eq!(whole.stdout.matches("hunter2").count(), 2, "{}", whole.stdout);
}

#[tokio::test]
async fn without_a_broker_the_way_to_one_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().display().to_string();

    let listed = run(&["dead", "list", "--data-dir", &data_dir]).await;
    assert_eq!(listed.code, 3);
    assert!(listed.stderr.contains("fermata up"), "{}", listed.stderr);

    // Port 9 is not a broker.
    let listed = run(&["dead", "list", "--nats-url", "nats://127.0.0.1:9"]).await;
    assert_eq!(listed.code, 3, "{}", listed.stderr);
}

#[tokio::test]
async fn a_broker_without_an_engine_is_told_apart_from_no_broker() {
    let stage = Stage::bare().await;

    for command in [["runs", "list"], ["dead", "list"], ["strategy", "list"], ["audit", "verify"]] {
        let ended = stage.run(&command).await;
        assert_eq!(ended.code, 3, "{command:?}: {}", ended.stderr);
        assert!(ended.stderr.contains("no engine was ever started"), "{}", ended.stderr);
    }
}
