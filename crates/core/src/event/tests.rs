use serde_json::{Map, Value, json};

use super::*;

pub(super) const SUBJECT: Subject<'_> = Subject { tenant: "acme", kind: "job.done" };

pub(super) fn limits() -> EventLimits {
    EventLimits::default()
}

pub(super) fn valid() -> Map<String, Value> {
    let members = [("specversion", "1.0"), ("id", "1"), ("source", "/s"), ("type", "job.done")];
    members.map(|(name, value)| (name.to_owned(), value.into())).into_iter().collect()
}

/// The valid event with `changes` made to it.
fn event_with(changes: Value) -> String {
    let mut members = valid();
    members.extend(changes.as_object().unwrap().clone());
    Value::Object(members).to_string()
}

/// The reason for which a single event is refused.
fn refusal(text: &str) -> Option<RejectReason> {
    refusal_as(None, text.as_bytes())
}

fn refusal_as(content_type: Option<&str>, payload: &[u8]) -> Option<RejectReason> {
    let outcomes = decode_message(content_type, payload, SUBJECT, &limits());
    assert_eq!(outcomes.len(), 1);
    outcomes.into_iter().next()?.err().map(|rejected| {
        assert_eq!(rejected.index, 0);
        assert_eq!(rejected.original, payload);
        assert!(!rejected.detail.is_empty() && rejected.detail.len() < 600, "{}", rejected.detail);
        rejected.reason
    })
}

fn decode_one(text: &str) -> Event<'_> {
    decode_message(None, text.as_bytes(), SUBJECT, &limits()).remove(0).unwrap()
}

#[test]
fn every_attribute_of_an_event_is_read() {
    let text = event_with(json!({
        "time": "2026-11-21T02:02:11.512Z", "subject": "job 1", "tenant": "acme",
        "datacontenttype": "application/json", "dataschema": "https://acme.example/job",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "idempotencykey": "k", "correlationkey": "c", "retries": 3, "urgent": true,
        "nothing": null, "data": {"n": 1},
    }));

    let event = decode_one(&text);

    assert_eq!(
        (event.tenant, &*event.id, &*event.source, &*event.kind),
        ("acme", "1", "/s", "job.done")
    );
    assert_eq!(event.time.as_deref(), Some("2026-11-21T02:02:11.512Z"));
    assert_eq!(event.subject.as_deref(), Some("job 1"));
    assert_eq!(event.datacontenttype.as_deref(), Some("application/json"));
    assert_eq!(event.dataschema.as_deref(), Some("https://acme.example/job"));
    assert!(event.traceparent.is_some());
    assert_eq!(event.idempotency_key.as_deref(), Some("k"));
    assert_eq!(event.correlation_key.as_deref(), Some("c"));
    assert_eq!(event.extensions.len(), 2);
    assert_eq!(event.data.unwrap().get(), r#"{"n":1}"#);
    assert_eq!(event.raw, text);
    assert_eq!(event.view().unwrap()["urgent"], true);
    assert_eq!(event.view().unwrap()["data"]["n"], 1);
    assert!(event.attributes_view().unwrap().get("data").is_none());
}

#[test]
fn an_event_without_escapes_is_borrowed_whole() {
    let text = event_with(json!({"time": "2026-11-21T02:02:11Z", "idempotencykey": "k"}));

    let event = decode_one(&text);

    for value in [&event.id, &event.source, &event.kind, event.time.as_ref().unwrap()] {
        assert!(matches!(value, Cow::Borrowed(_)));
    }
}

#[test]
fn an_event_without_one_of_its_attributes_or_of_another_version_is_refused_by_name() {
    let refused = |text: &str| {
        let outcome = decode_message(None, text.as_bytes(), SUBJECT, &limits()).remove(0);
        outcome.map(|_| ()).map_err(|rejected| (rejected.reason, rejected.detail))
    };
    for name in ["specversion", "id", "source", "type"] {
        let mut members = valid();
        members.remove(name);
        for null in [false, true] {
            if null {
                members.insert(name.to_owned(), Value::Null);
            }
            let (reason, detail) =
                refused(&Value::Object(members.clone()).to_string()).unwrap_err();
            assert_eq!(reason, RejectReason::MissingAttribute, "{name}");
            assert!(detail.contains(&format!("`{name}`")), "{detail}");
        }
    }
    let all = "`specversion`, `id`, `source` and `type` are missing; every event has them";
    for (text, told) in [
        ("{}", all),
        (
            r#"{"specversion":"1.0","id":"1"}"#,
            "`source` and `type` are missing; every event has them",
        ),
        (
            r#"{"specversion":"1.0","id":"1","source":"/s"}"#,
            "`type` is missing; every event has it",
        ),
    ] {
        assert_eq!(refused(text), Err((RejectReason::MissingAttribute, told.to_owned())));
    }
    for version in ["0.3", "2.0", "1.0.2", "1", "1.1"] {
        let (reason, _) = refused(&event_with(json!({"specversion": version}))).unwrap_err();
        assert_eq!(reason, RejectReason::UnsupportedSpecversion, "{version}");
    }
    for name in ["Upper", "ID", "dataRef"] {
        let (reason, detail) = refused(&event_with(json!({name: "x"}))).unwrap_err();
        assert_eq!(reason, RejectReason::BadAttribute, "{name}");
        assert!(detail.contains(&format!("`{name}`")), "{detail}");
    }
    assert_eq!(refused(&event_with(json!({"upper": "x"}))), Ok(()));
}

#[test]
fn each_broken_rule_has_its_reason() {
    use RejectReason as Reason;
    let deep = |levels: usize| {
        format!(
            "{}{}",
            event_with(json!({})).replace('}', ",\"data\":"),
            "[".repeat(levels) + &"]".repeat(levels) + "}"
        )
    };
    let cases = [
        ("", Reason::NotJson),
        ("hello", Reason::NotJson),
        ("{\"id\":1", Reason::NotJson),
        ("{} {}", Reason::NotJson),
        (r#"{"id":"\ud800"}"#, Reason::NotJson),
        ("42", Reason::NotAnObject),
        ("null", Reason::NotAnObject),
        ("\"text\"", Reason::NotAnObject),
        ("{}", Reason::MissingAttribute),
        (&event_with(json!({"id": null})), Reason::MissingAttribute),
        (&event_with(json!({"id": ""})), Reason::BadAttribute),
        (&event_with(json!({"id": 7})), Reason::BadAttribute),
        (&event_with(json!({"id": {"a": [1, {"b": 2}]}})), Reason::BadAttribute),
        (&event_with(json!({"id": "x".repeat(2049)})), Reason::BadAttribute),
        (&event_with(json!({"id": "a\nb"})), Reason::BadAttribute),
        (&event_with(json!({"source": ""})), Reason::BadAttribute),
        (&event_with(json!({"type": ""})), Reason::BadAttribute),
        (&event_with(json!({"type": "x".repeat(257)})), Reason::BadAttribute),
        (&event_with(json!({"Upper": "x"})), Reason::BadAttribute),
        (&event_with(json!({"with-dash": "x"})), Reason::BadAttribute),
        (&event_with(json!({"": "x"})), Reason::BadAttribute),
        (&event_with(json!({"extension": {"a": 1}})), Reason::BadAttribute),
        (&event_with(json!({"extension": 1.5})), Reason::BadAttribute),
        (&event_with(json!({"extension": 2_147_483_648_u32})), Reason::BadAttribute),
        (&event_with(json!({"extension": "\u{1}"})), Reason::BadAttribute),
        (&event_with(json!({"time": "yesterday"})), Reason::BadAttribute),
        (&event_with(json!({"idempotencykey": ""})), Reason::BadAttribute),
        (&event_with(json!({"data": 1, "data_base64": "AA=="})), Reason::BadAttribute),
        (&event_with(json!({"data_base64": "A"})), Reason::BadAttribute),
        (&event_with(json!({"data_base64": "A==="})), Reason::BadAttribute),
        (&event_with(json!({"specversion": "0.3"})), Reason::UnsupportedSpecversion),
        (&event_with(json!({"specversion": "1.0.2"})), Reason::UnsupportedSpecversion),
        (&event_with(json!({"tenant": "other"})), Reason::TenantMismatch),
        (&event_with(json!({"type": "job.other"})), Reason::TypeMismatch),
        (&event_with(json!({"a": 1})).replace('}', ",\"a\":2}"), Reason::DuplicateAttribute),
        (&event_with(json!({})).replace('}', ",\"id\":\"1\"}"), Reason::DuplicateAttribute),
        (&event_with(json!({})).replace('}', ",\"\\u0069d\":\"1\"}"), Reason::DuplicateAttribute),
        (
            &event_with(json!({"data": 1})).replace('}', ",\"data\":null}"),
            Reason::DuplicateAttribute,
        ),
        (&deep(64), Reason::TooDeep),
        (&deep(100_000), Reason::TooDeep),
        (&event_with(json!({"data": "x".repeat(EVENT_BYTES_MAX)})), Reason::TooLarge),
    ];
    for (text, reason) in cases {
        let shown: String = text.chars().take(200).collect();
        assert_eq!(refusal(text), Some(reason), "{shown}");
    }
    assert_eq!(refusal(&deep(63)), None);
    assert_eq!(refusal(&event_with(json!({"data": "[".repeat(100)}))), None);
    assert_eq!(refusal_as(None, b"\xff{}"), Some(Reason::NotUtf8));
    assert_eq!(refusal_as(None, &vec![b' '; MESSAGE_BYTES_MAX + 1]), Some(Reason::TooLarge));
    assert_eq!(refusal_as(None, "[{},".as_bytes()), Some(Reason::NotJson));
    let many = format!("[{}{{}}]", "{},".repeat(BATCH_EVENTS_MAX));
    assert_eq!(refusal_as(None, many.as_bytes()), Some(Reason::TooManyInBatch));
}

#[test]
fn a_body_that_breaks_off_is_refused_whole_whatever_came_before() {
    let good = event_with(json!({}));
    for broken in [
        format!("[{good},{good}"),
        format!("[{good}]]"),
        format!("[{good},]"),
        format!("[{good} {good}]"),
    ] {
        assert_eq!(refusal(&broken), Some(RejectReason::NotJson), "{broken}");
    }
}

#[test]
fn the_content_type_chooses_the_mode() {
    let good = event_with(json!({}));
    let batch = format!(" [{good}]");
    for content_type in [
        "application/cloudevents+json; charset=UTF-8",
        "Application/CloudEvents",
        "application/json",
        "application/cloudevents-batch+json",
    ] {
        assert_eq!(refusal_as(Some(content_type), batch.as_bytes()).map(|_| ()), None);
    }
    let as_batch = Some("application/cloudevents-batch+json");
    assert_eq!(refusal_as(as_batch, good.as_bytes()), Some(RejectReason::BadBatch));
    assert_eq!(refusal_as(as_batch, b"junk"), Some(RejectReason::NotJson));
    for content_type in ["text/plain", "application/msgpack", "application/json; charset=utf-16"] {
        let reason = refusal_as(Some(content_type), good.as_bytes());
        assert_eq!(reason, Some(RejectReason::UnsupportedContentType), "{content_type}");
    }
}

#[test]
fn a_batch_without_events_is_refused_as_a_whole() {
    let limits = limits();
    let [Err(refused)] = &decode_message(None, b" [ ] ", SUBJECT, &limits)[..] else {
        panic!("an empty batch was taken")
    };

    assert_eq!((refused.reason, refused.index), (RejectReason::BadBatch, 0));
    assert_eq!(refused.detail, "the batch holds no event");
}

#[test]
fn an_event_of_a_batch_has_its_own_type_but_the_subjects_tenant() {
    let batch = format!(
        "[{},{}]",
        event_with(json!({"type": "other"})),
        event_with(json!({"tenant": "other"}))
    );

    let outcomes = decode_message(None, batch.as_bytes(), SUBJECT, &limits());

    assert_eq!(outcomes[0].as_ref().unwrap().kind, "other");
    assert_eq!(outcomes[1].as_ref().unwrap_err().reason, RejectReason::TenantMismatch);
}

#[test]
fn escapes_are_undone_in_names_and_values() {
    let text = r#"{"specversion":"1.0","\u0069d":"\u00e9\ud83d\ude00","source":"/s","type":"job\u002edone","x":"\u0041"}"#;

    let event = decode_one(text);

    assert_eq!(event.id, "é😀");
    assert_eq!(event.view().unwrap()["x"], "A");
}

#[test]
fn data_that_no_value_can_hold_is_kept_and_named_when_it_is_looked_at() {
    for data in ["1e999", r#""\ud800""#] {
        let text = event_with(json!({})).replace('}', &format!(",\"data\":{data}}}"));

        let event = decode_one(&text);

        assert_eq!(event.data.unwrap().get(), data);
        assert!(event.view().is_err());
        assert!(event.attributes_view().is_ok());
    }
}

#[test]
fn a_traceparent_of_another_form_is_dropped_and_the_event_kept() {
    let trace =
        |text: &str| decode_one(&event_with(json!({ "traceparent": text }))).traceparent.is_some();
    let ids = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";

    assert!(trace(&format!("00-{ids}-01")) && trace(&format!("01-{ids}-01-more")));
    let (zero_trace, zero_parent) = ("0".repeat(32), "0".repeat(16));
    for dropped in [
        String::new(),
        "x".to_owned(),
        format!("ff-{ids}-01"),
        format!("00-{ids}-01-more"),
        format!("00-{ids}"),
        format!("00-{}-01", ids.to_uppercase()),
        format!("00-{zero_trace}-00f067aa0ba902b7-01"),
        format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{zero_parent}-01"),
    ] {
        assert!(!trace(&dropped), "{dropped}");
    }
}

#[test]
fn times_are_those_of_rfc_3339() {
    let refused = |time: &str| refusal(&event_with(json!({ "time": time }))).is_some();
    for time in [
        "1985-04-12T23:20:50.52Z",
        "1996-12-19T16:39:57-08:00",
        "1990-12-31T23:59:60Z",
        "2024-02-29t00:00:00.123456789z",
        "2026-01-01T00:00:00+23:59",
    ] {
        assert!(!refused(time), "{time}");
    }
    for time in [
        "2023-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:60:00Z",
        "2026-01-01 00:00:00Z",
        "2026-01-01T00:00:00",
        "2026-01-01T00:00:00.Z",
        "2026-01-01T00:00:00+24:00",
        "2026-01-01T00:00:00+1:00",
        "2026-01-01T00:00:00Zz",
        "+026-01-01T00:00:00Z",
        "２026-01-01T00:00:00Z",
    ] {
        assert!(refused(time), "{time}");
    }
}

#[test]
fn the_key_is_the_idempotency_key_or_else_source_and_id_within_a_tenant() {
    let key = |changes: Value| decode_one(&event_with(changes)).idempotency();
    let plain = key(json!({}));

    assert_eq!(plain, key(json!({"data": 1, "time": "2026-11-21T02:02:11Z"})));
    assert_ne!(plain, key(json!({"id": "2"})));
    assert_ne!(plain, key(json!({"source": "/t"})));
    assert_ne!(key(json!({"source": "ab", "id": "c"})), key(json!({"source": "a", "id": "bc"})));
    assert_eq!(key(json!({"idempotencykey": "k"})), key(json!({"idempotencykey": "k", "id": "2"})));
    assert_ne!(plain, key(json!({"idempotencykey": "1"})));
    let text = event_with(json!({}));
    let other = Subject { tenant: "other", ..SUBJECT };
    let other = decode_message(None, text.as_bytes(), other, &limits()).remove(0).unwrap();
    assert_ne!(plain, other.idempotency());
}

#[test]
fn the_key_never_changes_as_it_is_stored() {
    let by_id = decode_one(r#"{"specversion":"1.0","id":"1","source":"/s","type":"job.done"}"#)
        .idempotency();
    let text = event_with(json!({"idempotencykey": "k"}));

    assert_eq!(format!("{by_id:032x}"), "2db5bc96e7a3286f9e4b3daed74cd86f");
    assert_eq!(
        format!("{:032x}", decode_one(&text).idempotency()),
        "bd755cf1aff096fa6bc96a5248cebb78"
    );
}

#[test]
fn a_subject_names_a_tenant_and_a_type_of_one_or_more_tokens() {
    let subject = parse_subject("fermata.events.acme.plugin.job.completed").unwrap();
    assert_eq!(subject, Subject { tenant: "acme", kind: "plugin.job.completed" });
    for refused in [
        "",
        "fermata.events.acme",
        "fermata.events.acme.",
        "fermata.events..type",
        "fermata.events.acme.a..b",
        "fermata.events.acme.*",
        "fermata.events.acme.a.>",
        "fermata.events.ac me.a",
        "fermata.events._engine.a",
        "fermata.events.-x.a",
        "fermata.events.acme.a b",
        "other.events.acme.a",
    ] {
        assert!(parse_subject(refused).is_err(), "{refused}");
    }
}

#[test]
fn reason_codes_are_distinct() {
    let codes: std::collections::BTreeSet<_> = RejectReason::ALL.map(RejectReason::as_str).into();
    assert_eq!(codes.len(), RejectReason::ALL.len());
}
