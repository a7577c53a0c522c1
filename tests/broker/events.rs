//! Events in every form that a publisher may choose: all become the same runs,
//! and what cannot be used is filed so that it can be sent again.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use fermata_actors::Engine;
use fermata_actors::listener::LISTENER_CONSUMER;
use fermata_core::event::msgpack_of_json;
use fermata_core::record::{Body, Kind};
use fermata_jetstream::progress::shared_progress;
use fermata_jetstream::topology::EVENTS_STREAM;
use fermata_jetstream::{Durability, Headers, PublishOutcome};
use fermata_tests::journal::{Entry, count, records_until};
use fermata_tests::{TestBroker, TestEngine, audit, definitions};
use fermata_wire::dead::DeadLetter;
use fermata_wire::replay::{ReplayKeys, replay_id};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
const SUBJECT: &str = "fermata.events.acme.demo.start";

const WORKFLOW: &str = "
workflow: { name: one, version: '1', tasks: [{ id: a, noop: {} }] }
";
const STRATEGIES: &str = "
strategies:
  - name: start
    version: 1
    tenant: '*'
    on: demo.start
    workflow: { name: one, version: '1' }
    variables: { data: event.data, key: event.partitionkey }
";
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn engine() -> (TestBroker, Engine) {
    let broker = TestBroker::start(Durability::Process).await;
    let engine = TestEngine::at(broker.url()).start(broker.folder()).await;
    engine.ready().await;
    definitions::apply_yaml(&engine, &[WORKFLOW], STRATEGIES).await;
    (broker, engine)
}

async fn publish(engine: &Engine, subject: &str, headers: &[(&str, &str)], payload: &[u8]) {
    let mut map = Headers::new();
    for (name, value) in headers {
        map.append(*name, *value);
    }
    let payload = Bytes::copy_from_slice(payload);
    let outcome =
        engine.ports().publisher.publish(subject.to_owned(), Some(map), payload).await.await;
    assert!(matches!(outcome, PublishOutcome::Stored { .. }), "{outcome:?}");
}

fn attributes(id: &str) -> Vec<(&str, &str)> {
    vec![
        ("Ce-Specversion", "1.0"),
        ("ce-id", id),
        ("ce-source", "/t"),
        ("CE-TYPE", "demo.start"),
        ("ce-partitionkey", "%F0%9F%98%80%20%22%25"),
    ]
}

fn structured(id: &str, data: &Value) -> String {
    let event = json!({
        "specversion": "1.0", "id": id, "source": "/t", "type": "demo.start",
        "partitionkey": "😀 \"%", "data": data,
    });
    event.to_string()
}

fn inputs(records: &[Entry]) -> BTreeMap<String, (Value, Option<String>)> {
    records
        .iter()
        .filter_map(|(_, record)| match &record.body {
            Body::RunStarted(started) => {
                let event = &started.event;
                let trace = event.traceparent.as_deref().map(str::to_owned);
                Some((event.id.to_string(), (started.input.parse(), trace)))
            }
            _ => None,
        })
        .collect()
}

async fn letters(engine: &Engine) -> BTreeMap<String, DeadLetter> {
    let messages = audit::messages(&engine.ports().reader, "DEAD").await;
    let letters = messages.iter().map(|message| DeadLetter::decode(&message.payload));
    letters.map(|letter| letter.expect("a dead letter")).map(|one| (one.id.clone(), one)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_in_whatever_form_starts_the_same_run_once() {
    let (_broker, engine) = engine().await;
    // Beyond 2^53, so that a detour over doubles would show.
    let data =
        json!({ "n": 9_007_199_254_740_993_u64, "text": "é😀\"\\\u{1}", "list": [null, -1, 0.1] });
    let text = data.to_string();
    let msgpack = msgpack_of_json(&text).expect("MessagePack");
    let with = |id, content_type| [attributes(id), vec![("Content-Type", content_type)]].concat();

    publish(&engine, SUBJECT, &[], structured("structured", &data).as_bytes()).await;
    publish(&engine, SUBJECT, &with("json", "application/json"), text.as_bytes()).await;
    publish(&engine, SUBJECT, &with("msgpack", "application/msgpack"), &msgpack).await;
    let traced = [attributes("traced"), vec![("traceparent", TRACE)]].concat();
    publish(&engine, SUBJECT, &traced, text.as_bytes()).await;
    let event = msgpack_of_json(&structured("msgpack event", &data)).expect("MessagePack");
    let one = [("content-type", "application/cloudevents+msgpack")];
    publish(&engine, SUBJECT, &one, &event).await;
    let batch = format!("[{},{}]", structured("b1", &data), structured("b2", &data));
    let batch = msgpack_of_json(&batch).expect("MessagePack");
    let several = [("Content-Type", "application/cloudevents-batch+msgpack")];
    publish(&engine, "fermata.events.acme.batch", &several, &batch).await;
    // The same events in other forms.
    publish(&engine, SUBJECT, &with("structured", "application/msgpack"), &msgpack).await;
    publish(&engine, SUBJECT, &[], structured("json", &data).as_bytes()).await;

    let records = records_until(&engine.ports().reader, 2, LIMIT, |records| {
        count(records, Kind::RunSucceeded) == 7 && count(records, Kind::EventRepeated) == 2
    })
    .await;
    let inputs = inputs(&records);
    let ids: Vec<_> = inputs.keys().map(String::as_str).collect();
    assert_eq!(ids, ["b1", "b2", "json", "msgpack", "msgpack event", "structured", "traced"]);
    for (id, (input, trace)) in &inputs {
        assert_eq!(*input, json!({ "data": data, "key": "😀 \"%" }), "{id}");
        assert_eq!(trace.as_deref(), (id == "traced").then_some(TRACE), "{id}");
    }
    engine.shut_down().await;
}

/// Reason, headers and bytes of a message that cannot be used.
type Case<'a> = (&'a str, Vec<(&'a str, &'a str)>, &'a [u8]);

#[tokio::test(flavor = "multi_thread")]
async fn an_unusable_message_is_filed_with_the_headers_that_it_is_read_with() {
    let (_broker, engine) = engine().await;
    let msgpack = [("Content-Type", "application/cloudevents-batch+msgpack")];
    let cases: Vec<Case<'_>> = vec![
        ("bad_header", [attributes("1"), vec![("ce-subject", "%C0%A0")]].concat(), b""),
        ("bad_attribute", [attributes("2"), vec![("ce-subject", "a%0D%0Ace-id: 3")]].concat(), b""),
        ("duplicate_attribute", [attributes("4"), vec![("CE-ID", "5")]].concat(), b""),
        (
            "ambiguous_headers",
            [
                attributes("6"),
                vec![("Content-Type", "text/plain"), ("ce-datacontenttype", "application/json")],
            ]
            .concat(),
            b"{}",
        ),
        (
            "not_msgpack",
            [attributes("7"), vec![("Content-Type", "application/msgpack")]].concat(),
            b"\xd6\xff\x00\x00\x00\x00",
        ),
        (
            "duplicate_key",
            [attributes("8"), vec![("Content-Type", "application/msgpack")]].concat(),
            b"\x82\xa1a\x01\xa1a\x02",
        ),
        ("not_an_object", msgpack.to_vec(), b"\x91\xc0"),
    ];
    for (_, headers, payload) in &cases {
        publish(&engine, SUBJECT, headers, payload).await;
    }

    let reader = &engine.ports().reader;
    records_until(reader, 2, LIMIT, |records| count(records, Kind::EventRejected) == cases.len())
        .await;
    let letters = letters(&engine).await;
    for (sequence, (reason, headers, payload)) in (1..).zip(&cases) {
        let letter = &letters[&format!("{sequence}.0")];
        assert_eq!(letter.reason, *reason, "{letter:?}");
        if *reason == "not_an_object" {
            // One event of a batch stands alone.
            let alone = ("Content-Type".to_owned(), "application/cloudevents+msgpack".to_owned());
            assert_eq!((&letter.headers, &letter.original[..]), (&vec![alone], &b"\xc0"[..]));
        } else {
            assert_eq!(letter.original, *payload);
            let mut sent: Vec<_> = headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            sent.sort();
            assert_eq!(letter.headers, sent, "{reason}");
        }
    }
    engine.shut_down().await;
}

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OLD_SECRET: &str = "whsec_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH";

fn now_seconds() -> u64 {
    std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs()
}

/// Publishes a request to replay, signed with `secret` at `seconds`.
async fn request_replay(engine: &Engine, secret: &str, id: &str, seconds: u64, event: &str) {
    let signature = ReplayKeys::parse(secret).unwrap().sign(id, seconds, event.as_bytes());
    let seconds = seconds.to_string();
    let headers = [
        ("Fermata-Replay", "1.0"),
        ("webhook-id", id),
        ("webhook-timestamp", &seconds),
        ("Webhook-Signature", signature.as_deref().unwrap()),
    ];
    publish(engine, SUBJECT, &headers, event.as_bytes()).await;
}

fn with_tenant(event: &str) -> String {
    event.replacen('{', "{\"tenant\":\"acme\",", 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_replay_runs_an_event_once_more_and_once_per_request() {
    let broker = TestBroker::start(Durability::Process).await;
    let keys = ReplayKeys::parse(&format!("{SECRET} {OLD_SECRET}")).unwrap();
    let engine = TestEngine::at(broker.url()).with_replay_keys(keys).start(broker.folder()).await;
    engine.ready().await;
    definitions::apply_yaml(&engine, &[WORKFLOW], STRATEGIES).await;
    let event = with_tenant(&structured("e", &json!({"n": 1})));
    let now = now_seconds();

    publish(&engine, SUBJECT, &[], event.as_bytes()).await;
    request_replay(&engine, SECRET, "first", now, &event).await;
    // The same request, signed with the secret that is being replaced.
    request_replay(&engine, OLD_SECRET, "first", now - 10, &event).await;
    request_replay(&engine, SECRET, "second", now, &event).await;
    // Without a request it is a repeat, and comes last.
    publish(&engine, SUBJECT, &[], event.as_bytes()).await;

    let records = records_until(&engine.ports().reader, 2, LIMIT, |records| {
        count(records, Kind::RunSucceeded) == 3 && count(records, Kind::EventRepeated) == 1
    })
    .await;
    let replays: Vec<_> = records
        .iter()
        .filter_map(|(_, record)| match &record.body {
            Body::EventStarted(started) => Some(started.replay),
            _ => None,
        })
        .collect();
    assert_eq!(replays, [None, Some(replay_id("first")), Some(replay_id("second"))]);
    engine.shut_down().await;
}

/// What docs/events.md says of an id that is used for several bodies: the partitions of the
/// events know the id, each by itself.
#[tokio::test(flavor = "multi_thread")]
async fn an_id_of_a_replay_that_comes_with_other_events_starts_one_run_per_partition_at_most() {
    const EVENTS: u64 = 8;
    let broker = TestBroker::start(Durability::Process).await;
    let keys = ReplayKeys::parse(SECRET).unwrap();
    let engine = TestEngine::at(broker.url()).with_replay_keys(keys).start(broker.folder()).await;
    engine.ready().await;
    definitions::apply_yaml(&engine, &[WORKFLOW], STRATEGIES).await;
    let event = |id: String| with_tenant(&structured(&id, &json!({"n": 1})));

    // As requests over HTTP are when the broker's window of two minutes is over.
    for at in 0..EVENTS {
        let event = event(format!("replayed-{at}"));
        request_replay(&engine, SECRET, "one-id", now_seconds(), &event).await;
    }
    // Behind them, so that all of them are decided.
    for at in 0..EVENTS {
        publish(&engine, SUBJECT, &[], event(format!("new-{at}")).as_bytes()).await;
    }
    let all = usize::try_from(EVENTS).unwrap() + 2;
    let records = records_until(&engine.ports().reader, 2, LIMIT, |records| {
        count(records, Kind::RunSucceeded) >= all
    })
    .await;
    let replayed: Vec<_> = records
        .iter()
        .filter_map(|(_, record)| match &record.body {
            Body::EventStarted(started) => started.replay,
            _ => None,
        })
        .collect();
    assert_eq!(replayed, [replay_id("one-id"); 2], "one in each of the two partitions");
    assert_eq!(count(&records, Kind::RunStarted), all);
    engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_nobody_authorised_is_filed_and_audited_and_starts_nothing() {
    let broker = TestBroker::start(Durability::Process).await;
    let keys = ReplayKeys::parse(SECRET).unwrap();
    let engine = TestEngine::at(broker.url()).with_replay_keys(keys).start(broker.folder()).await;
    engine.ready().await;
    definitions::apply_yaml(&engine, &[WORKFLOW], STRATEGIES).await;
    let event = with_tenant(&structured("e", &json!({"n": 1})));
    let now = now_seconds();

    publish(&engine, SUBJECT, &[("fermata-replay", "1.0")], event.as_bytes()).await;
    request_replay(&engine, OLD_SECRET, "forged", now, &event).await;
    request_replay(&engine, SECRET, "old", now - 1_000, &event).await;
    request_replay(&engine, SECRET, "future", now + 1_000, &event).await;
    request_replay(&engine, SECRET, "no-tenant", now, &structured("e", &json!({}))).await;
    request_replay(&engine, SECRET, "batch", now, &format!("[{event}]")).await;

    let reader = &engine.ports().reader;
    let records =
        records_until(reader, 2, LIMIT, |records| count(records, Kind::EventRejected) == 6).await;
    assert_eq!(count(&records, Kind::EventStarted), 0);
    let letters = letters(&engine).await;
    let reasons: Vec<_> =
        (1..=6).map(|sequence| letters[&format!("{sequence}.0")].reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "replay_unsigned",
            "replay_forged",
            "replay_expired",
            "replay_expired",
            "bad_replay",
            "bad_replay"
        ]
    );
    engine.shut_down().await;

    let without = TestEngine::at(broker.url()).start(broker.folder()).await;
    without.ready().await;
    request_replay(&without, SECRET, "unknown", now_seconds(), &event).await;
    let reader = &without.ports().reader;
    records_until(reader, 2, LIMIT, |records| count(records, Kind::EventRejected) == 7).await;
    assert_eq!(self::letters(&without).await["7.0"].reason, "replay_not_configured");
    without.shut_down().await;
}

/// Publishes as a client that checks nothing: each is a subject and a header block.
pub(crate) async fn publish_raw(url: &str, messages: &[(&[u8], &[u8])]) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let address = url.trim_start_matches("nats://");
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
    let mut sent = b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true}\r\n".to_vec();
    for (subject, block) in messages {
        let block = [*block, b"\r\n\r\n"].concat();
        let sizes = format!("{} {}", block.len(), block.len() + 4);
        sent.extend([b"HPUB ", *subject, b" ", sizes.as_bytes(), b"\r\n"].concat());
        sent.extend([&*block, b"body\r\n"].concat());
    }
    stream.write_all(&[&*sent, b"PING\r\n"].concat()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"PONG\r\n") {
        let mut chunk = [0; 4096];
        let bytes = stream.read(&mut chunk).await.expect("an answer");
        assert!(bytes > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&chunk[..bytes]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_client_can_be_given_is_filed_and_stops_nothing() {
    let (broker, engine) = engine().await;
    let subject = SUBJECT.as_bytes();
    let odd_subject = [subject, b".\xff"].concat();

    let url = broker.url();
    let messages: [(&[u8], &[u8]); 3] = [
        (subject, b"NATS/1.0\r\nce-id: \xff\xfe\r\nkept: yes"),
        (subject, b"NATS/1.0\r\nno colon"),
        (&odd_subject, b"NATS/1.0\r\na: b"),
    ];
    publish_raw(&url, &messages).await;
    let reader = &engine.ports().reader;
    records_until(reader, 2, LIMIT, |records| count(records, Kind::EventRejected) >= 3).await;
    // This one is delivered, and looks like the broker's word that the consumer is gone.
    publish_raw(&url, &[(subject, b"NATS/1.0 503 gone\r\na: b")]).await;
    publish(&engine, SUBJECT, &[], structured("good", &json!({"n": 1})).as_bytes()).await;
    // Two partitions may decide them: either comes first.
    let both = |records: &[Entry]| {
        count(records, Kind::RunSucceeded) == 1 && count(records, Kind::EventRejected) >= 4
    };
    let records = records_until(reader, 2, LIMIT, both).await;

    assert_eq!(count(&records, Kind::EventRejected), 4);
    let letters = letters(&engine).await.into_values().collect::<Vec<_>>();
    assert_eq!(letters.len(), 4, "{letters:#?}");
    for fault in ["no UTF-8", "no colon", "its subject"] {
        assert!(
            letters.iter().any(|letter| letter.detail.contains(fault)),
            "{fault}: {letters:#?}"
        );
    }
    assert!(letters.iter().all(|letter| &letter.original[..] == b"body"));
    let kept = ("kept".to_owned(), "yes".to_owned());
    assert!(letters.iter().any(|letter| letter.headers.contains(&kept)), "{letters:#?}");
    // The acknowledgement of the last follows its record.
    let acknowledged = async {
        loop {
            let broker = &engine.ports().broker;
            let progress = shared_progress(broker, EVENTS_STREAM, LISTENER_CONSUMER).await;
            let progress = progress.expect("the listener's consumer");
            if (progress.unacknowledged, progress.acknowledged_up_to) == (0, 5) {
                return;
            }
        }
    };
    tokio::time::timeout(LIMIT, acknowledged).await.expect("all five are acknowledged");
    engine.shut_down().await;
}
