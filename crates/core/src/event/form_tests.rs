use serde_json::{Value, json};

use super::tests::{SUBJECT, limits, valid};
use super::*;

const HEADERS: [(&str, &str); 4] =
    [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "job.done")];

/// What comes of a message: its events as expressions see them, or the reasons.
pub(super) fn read(
    headers: &[(&str, &str)],
    payload: &[u8],
) -> Vec<Result<Value, (RejectReason, String)>> {
    let headers = MessageHeaders::new(headers.iter().copied());
    let view = |outcome: Result<Event<'_>, Rejected<'_>>| {
        outcome
            .map(|event| event.view().unwrap())
            .map_err(|rejected| (rejected.reason, rejected.detail))
    };
    match read_form(&headers, payload, &limits()) {
        Form::Json => decode_message(headers.content_type(), payload, SUBJECT, &limits())
            .into_iter()
            .map(view)
            .collect(),
        Form::Converted(events) => (0..)
            .zip(&events)
            .map(|(index, event)| view(event.decode(index, payload, SUBJECT, &limits())))
            .collect(),
    }
}

fn binary(more: &[(&str, &str)], payload: &[u8]) -> Result<Value, RejectReason> {
    let headers = [&HEADERS, more].concat();
    read(&headers, payload).remove(0).map_err(|(reason, detail)| {
        assert!(!detail.is_empty() && detail.len() < 600, "{detail}");
        reason
    })
}

fn msgpack(value: &Value) -> Vec<u8> {
    msgpack_of_json(&value.to_string()).unwrap()
}

fn structured(payload: &[u8]) -> Result<Value, RejectReason> {
    let headers = [("Content-Type", "application/cloudevents+msgpack")];
    read(&headers, payload).remove(0).map_err(|(reason, _)| reason)
}

#[test]
fn attributes_are_read_from_headers_of_any_case_and_data_from_the_message() {
    let headers = [
        ("CE-SpecVersion", "1.0"),
        ("Ce-Id", "1"),
        ("cE-SOURCE", "/s"),
        ("ce-type", "job.done"),
        ("CONTENT-TYPE", "application/json"),
        ("ce-partitionkey", "p"),
        ("Nats-Msg-Id", "whatever"),
    ];

    let event = read(&headers, br#"{"n":1}"#).remove(0).unwrap();

    let expected = json!({
        "tenant": "acme", "id": "1", "source": "/s", "type": "job.done", "partitionkey": "p",
        "datacontenttype": "application/json", "data": {"n": 1},
    });
    assert_eq!(event, expected);
}

#[test]
fn values_of_headers_are_percent_decoded_once() {
    let subject =
        |value: &str| binary(&[("ce-subject", value)], b"").map(|event| event["subject"].clone());

    assert_eq!(subject("Euro%20%E2%82%AC%20%F0%9F%98%80"), Ok(json!("Euro € 😀")));
    assert_eq!(subject("100%25"), Ok(json!("100%")));
    assert_eq!(subject("%2541"), Ok(json!("%41")));
    assert_eq!(subject("%22quoted%22"), Ok(json!("\"quoted\"")));
    assert_eq!(subject(r#""an \"old\" \\ sender %41""#), Ok(json!(r#"an "old" \ sender A"#)));
    assert_eq!(subject("naïve"), Ok(json!("naïve")));
    for bad in ["100%", "%4", "%zz", "%C0%A0", "%ED%A0%80", "%FF", "\"open", "\"a\" b"] {
        assert_eq!(subject(bad), Err(RejectReason::BadHeader), "{bad}");
    }
    for bad in ["a%0D%0Ace-id: 2", "%00", "%7F", "a\tb", "%C2%85"] {
        assert_eq!(subject(bad), Err(RejectReason::BadAttribute), "{bad}");
    }
}

#[test]
fn a_header_that_is_there_twice_in_whatever_case_is_refused() {
    let twice = binary(&[("Ce-Id", "1")], b"");
    assert_eq!(twice, Err(RejectReason::DuplicateAttribute));
    let same_case = binary(&[("ce-id", "2")], b"");
    assert_eq!(same_case, Err(RejectReason::DuplicateAttribute));
    let types = [("Content-Type", "application/json"), ("content-type", "text/plain")];
    assert_eq!(binary(&types, b"1"), Err(RejectReason::AmbiguousHeaders));
    let types = [("Content-Type", "application/json"), ("content-type", "application/json")];
    assert!(binary(&types, b"1").is_ok());
    let types = [("Content-Type", "text/plain"), ("ce-datacontenttype", "application/json")];
    assert_eq!(binary(&types, b"1"), Err(RejectReason::AmbiguousHeaders));
}

#[test]
fn headers_break_the_same_rules_as_members() {
    use RejectReason as Reason;
    let without = |name: &str| {
        let headers: Vec<_> = HEADERS.into_iter().filter(|(other, _)| *other != name).collect();
        read(&headers, b"").remove(0).unwrap_err().0
    };
    for (name, _) in HEADERS {
        assert_eq!(without(name), Reason::MissingAttribute, "{name}");
    }
    assert_eq!(binary(&[("ce-subject", "")], b""), Err(Reason::BadAttribute));
    assert_eq!(binary(&[("ce-time", "now")], b""), Err(Reason::BadAttribute));
    assert_eq!(binary(&[("ce-my_name", "x")], b""), Err(Reason::BadAttribute));
    assert_eq!(binary(&[("ce-", "x")], b""), Err(Reason::BadAttribute));
    assert_eq!(binary(&[("ce-data", "1")], b""), Err(Reason::BadAttribute));
    assert_eq!(binary(&[("ce-data_base64", "AA==")], b""), Err(Reason::BadAttribute));
    assert_eq!(binary(&[("ce-tenant", "other")], b""), Err(Reason::TenantMismatch));
    let other = [HEADERS[0], HEADERS[1], HEADERS[2], ("ce-type", "job.other")];
    assert_eq!(read(&other, b"").remove(0).unwrap_err().0, Reason::TypeMismatch);
    let old = [("ce-specversion", "0.3"), HEADERS[1], HEADERS[2], HEADERS[3]];
    assert_eq!(read(&old, b"").remove(0).unwrap_err().0, Reason::UnsupportedSpecversion);
}

#[test]
fn the_content_type_says_what_the_data_is() {
    let data = |content_type: &str, payload: &[u8]| {
        binary(&[("Content-Type", content_type)], payload).map(|event| {
            (
                event.get("data").cloned(),
                event.get("data_base64").cloned(),
                event["datacontenttype"].clone(),
            )
        })
    };
    for content_type in
        ["application/json; charset=utf-8", "text/json", "application/vnd.acme+JSON"]
    {
        let expected = (Some(json!([1, {"a": null}])), None, json!(content_type));
        assert_eq!(data(content_type, br#" [1,{"a":null}] "#), Ok(expected));
    }
    for content_type in ["application/msgpack", "Application/Vnd.MsgPack", "application/x-msgpack"]
    {
        let expected = (Some(json!({"a": [1]})), None, json!("application/json"));
        assert_eq!(data(content_type, b"\x81\xa1a\x91\x01"), Ok(expected));
    }
    for content_type in ["text/plain", "Text/CSV; charset=\"UTF-8\""] {
        let text = (Some(json!("hi \"\u{1}")), None, json!(content_type));
        assert_eq!(data(content_type, b"hi \"\x01"), Ok(text));
    }
    for (content_type, bytes, base64) in [
        ("text/plain", &b"\xff"[..], "/w=="),
        ("text/plain; charset=iso-8859-1", b"hi", "aGk="),
        ("application/xml", b"hi", "aGk="),
    ] {
        let kept = (None, Some(json!(base64)), json!(content_type));
        assert_eq!(data(content_type, bytes), Ok(kept));
    }
    let kept = (None, Some(json!("/wA=")), json!("image/png"));
    assert_eq!(data("image/png", b"\xff\x00"), Ok(kept));
    assert_eq!(binary(&[], b"{}").unwrap()["data"], json!({}));
    assert!(binary(&[], b"").unwrap().get("data").is_none());
    assert_eq!(binary(&[], b"hi"), Err(RejectReason::NotJson));
    assert_eq!(binary(&[], b"\xff"), Err(RejectReason::NotUtf8));
    assert_eq!(
        data("application/json; charset=latin1", b"1"),
        Err(RejectReason::UnsupportedContentType)
    );
}

#[test]
fn data_cannot_break_out_of_its_member() {
    for payload in [&br#"1,"id":"2""#[..], b"1}", b"{}{}", b"1 2", b"}"] {
        assert_eq!(binary(&[], payload), Err(RejectReason::NotJson));
    }
    let quoted = binary(&[("ce-x", "a%22,%22id%22:%222")], b"").unwrap();
    assert_eq!((&quoted["x"], &quoted["id"]), (&json!(r#"a","id":"2"#), &json!("1")));
}

#[test]
fn a_structured_content_type_goes_before_headers_of_attributes() {
    let mut event = valid();
    event.insert("id".to_owned(), "in the body".into());
    let payload = Value::from(event).to_string();
    for content_type in ["application/cloudevents", "Application/CloudEvents+JSON; charset=utf-8"] {
        let headers = [&HEADERS[..], &[("Content-Type", content_type)]].concat();
        assert_eq!(read(&headers, payload.as_bytes()).remove(0).unwrap()["id"], "in the body");
    }
    let headers = [&HEADERS[..], &[("Content-Type", "application/cloudevents+avro")]].concat();
    let refused = read(&headers, payload.as_bytes()).remove(0).unwrap_err();
    assert_eq!(refused.0, RejectReason::UnsupportedContentType);
}

#[test]
fn the_context_of_a_message_is_read_where_it_is_valid_and_said_once() {
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let trace = |value| MessageHeaders::new([("TraceParent", value)]).traceparent().is_some();

    assert!(trace(parent));
    assert!(!trace("00-nonsense"));
    let twice = [&HEADERS[..], &[("traceparent", parent), ("Traceparent", "00-other")]].concat();
    assert!(read(&twice, b"").remove(0).is_ok(), "a trace never decides about an event");
}

#[test]
fn messagepack_becomes_json_digit_by_digit() {
    let data = |bytes: &[u8]| {
        let headers = MessageHeaders::new(
            HEADERS.into_iter().chain([("Content-Type", "application/msgpack")]),
        );
        let Form::Converted(events) = read_form(&headers, bytes, &limits()) else { panic!() };
        let event =
            events[0].decode(0, bytes, SUBJECT, &limits()).map_err(|rejected| rejected.reason)?;
        Ok(match (event.data, event.data_base64) {
            (Some(data), None) => data.get().to_owned(),
            (None, Some(data)) => format!("base64 {data}"),
            _ => panic!("one of them"),
        })
    };
    let cases: [(&[u8], &str); 22] = [
        (b"\xc0", "null"),
        (b"\xc3", "true"),
        (b"\x7f", "127"),
        (b"\xe0", "-32"),
        (b"\xcc\xff", "255"),
        (b"\xcd\xff\xff", "65535"),
        (b"\xce\xff\xff\xff\xff", "4294967295"),
        (b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", "18446744073709551615"),
        (b"\xcf\x00\x20\x00\x00\x00\x00\x00\x01", "9007199254740993"),
        (b"\xd0\x80", "-128"),
        (b"\xd1\x80\x00", "-32768"),
        (b"\xd2\x80\x00\x00\x00", "-2147483648"),
        (b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00", "-9223372036854775808"),
        (b"\xca\x3f\x00\x00\x00", "0.5"),
        (b"\xcb\x3f\xb9\x99\x99\x99\x99\x99\x9a", "0.1"),
        (b"\xa3\xe2\x82\xac", "\"€\""),
        (b"\xd9\x04\"\\\n\x01", "\"\\\"\\\\\\n\\u0001\""),
        (b"\xc4\x02\xff\x00", "base64 /wA="),
        (b"\x91\xc4\x02\xff\x00", "[\"/wA=\"]"),
        (b"\xdc\x00\x01\xc4\x00", "[\"\"]"),
        (b"\xdd\x00\x00\x00\x01\x80", "[{}]"),
        (b"\xdf\x00\x00\x00\x01\xda\x00\x01a\xdb\x00\x00\x00\x01b", "{\"a\":\"b\"}"),
    ];
    for (bytes, text) in cases {
        assert_eq!(data(bytes).as_deref(), Ok(text), "{bytes:x?}");
    }
    let refused: [(&[u8], RejectReason); 14] = [
        (b"\xc1", RejectReason::NotMsgpack),
        (b"\xd4\x01\x00", RejectReason::NotMsgpack),
        (b"\xd6\xff\x00\x00\x00\x00", RejectReason::NotMsgpack),
        (b"\xc7\x01\x05\x00", RejectReason::NotMsgpack),
        (b"\x81\x01\x01", RejectReason::NotMsgpack),
        (b"\x01\x01", RejectReason::NotMsgpack),
        (b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00", RejectReason::NotMsgpack),
        (b"\xca\x7f\x80\x00\x00", RejectReason::NotMsgpack),
        (b"\xdd\xff\xff\xff\xff", RejectReason::NotMsgpack),
        (b"\xdf\x80\x00\x00\x01", RejectReason::NotMsgpack),
        (b"\xdb\xff\xff\xff\xff", RejectReason::NotMsgpack),
        (b"\xa1\xff", RejectReason::NotUtf8),
        (b"\x82\xa1a\x01\xa1a\x02", RejectReason::DuplicateKey),
        (b"\x91\x82\xa1a\x01\xd9\x01a\x02", RejectReason::DuplicateKey),
    ];
    for (bytes, reason) in refused {
        assert_eq!(data(bytes), Err(reason), "{bytes:x?}");
    }
    let nested = |levels| [vec![0x91; levels], vec![0xc0]].concat();
    assert!(data(&nested(63)).is_ok());
    assert_eq!(data(&nested(64)), Err(RejectReason::TooDeep));
    assert_eq!(data(&nested(900_000)), Err(RejectReason::TooDeep));
    let long = [&b"\xda\xff\xff"[..], &[1; 0xffff]].concat();
    assert_eq!(data(&long), Err(RejectReason::TooLarge), "each byte becomes six of JSON");
}

#[test]
fn a_structured_event_in_messagepack_is_the_event_of_the_same_shape_in_json() {
    let mut event = valid();
    event.extend(
        json!({"retries": 3, "urgent": true, "data": {"n": 9_007_199_254_740_993_u64}})
            .as_object()
            .unwrap()
            .clone(),
    );
    let expected = read(&[], Value::from(event.clone()).to_string().as_bytes()).remove(0).unwrap();

    assert_eq!(structured(&msgpack(&event.clone().into())), Ok(expected));

    // Binary data as a whole is `data_base64`.
    let with_bin =
        [&[0x85][..], &msgpack(&valid().into())[1..], b"\xa4data\xc4\x02\xff\x00"].concat();
    assert_eq!(structured(&with_bin).unwrap()["data_base64"], "/wA=");
    let both = [&[0x86][..], &with_bin[1..], b"\xabdata_base64\xa4AA=="].concat();
    assert_eq!(structured(&both), Err(RejectReason::DuplicateAttribute));
    assert_eq!(structured(b"\x01"), Err(RejectReason::NotAnObject));
    assert_eq!(structured(b""), Err(RejectReason::NotMsgpack));
    assert_eq!(structured(b"\x80"), Err(RejectReason::MissingAttribute));
    let twice = [&[0x85][..], &msgpack(&valid().into())[1..], b"\xa2id\xa11"].concat();
    assert_eq!(structured(&twice), Err(RejectReason::DuplicateAttribute));
    event.insert("extension".to_owned(), json!({"a": 1}));
    assert_eq!(structured(&msgpack(&event.into())), Err(RejectReason::BadAttribute));
}

#[test]
fn a_batch_in_messagepack_is_refused_event_by_event() {
    let headers = [("Content-Type", "application/cloudevents-batch+msgpack")];
    let good = msgpack(&valid().into());
    let other_type =
        msgpack(&json!({"specversion": "1.0", "id": "2", "source": "/s", "type": "x"}));
    let batch = [&[0x94][..], &good, b"\xd4\x01\x00", &[0x91; 1], b"\xc0", &other_type].concat();

    let outcomes = read(&headers, &batch);

    let reasons: Vec<_> =
        outcomes.iter().map(|outcome| outcome.as_ref().err().map(|(reason, _)| *reason)).collect();
    assert_eq!(
        reasons,
        [None, Some(RejectReason::NotAnObject), Some(RejectReason::NotAnObject), None]
    );
    let single = |payload: &[u8]| read(&headers, payload).remove(0).map_err(|(reason, _)| reason);
    assert_eq!(single(&good), Err(RejectReason::BadBatch));
    assert_eq!(single(&batch[..batch.len() - 1]), Err(RejectReason::NotMsgpack));
    assert_eq!(single(&[&batch[..], b"\xc0"].concat()), Err(RejectReason::NotMsgpack));
    let many = [&b"\xdd\x00\x00\x27\x11"[..], &[0xc0; 10_001]].concat();
    assert_eq!(single(&many), Err(RejectReason::TooManyInBatch));
    assert_eq!(single(b"\x90"), Err(RejectReason::BadBatch));
    assert_eq!(single(&vec![0; MESSAGE_BYTES_MAX + 1]), Err(RejectReason::TooLarge));
}

#[test]
fn a_structured_json_message_is_left_where_it_lies() {
    let plain = MessageHeaders::new([("Content-Type", "application/cloudevents+json")]);
    assert_eq!(read_form(&plain, b"garbage", &limits()), Form::Json);
    assert_eq!(read_form(&MessageHeaders::default(), b"garbage", &limits()), Form::Json);
}

#[test]
fn integers_that_messagepack_has_no_form_for_are_refused() {
    assert!(msgpack_of_json("18446744073709551615").is_ok());
    assert!(
        msgpack_of_json(
            "[-9223372036854775808, 1e30, \"18446744073709551616 \\\" 99999999999999999999\"]"
        )
        .is_ok()
    );
    assert!(msgpack_of_json("{\"a\":18446744073709551616}").is_err());
    assert!(msgpack_of_json("{").is_err());
}

#[test]
fn why_an_event_is_refused_quotes_no_secret() {
    let mut object = valid();
    object.insert("credentials".to_owned(), json!({ "user": "ann", "password": "hunter2" }));
    let object = Value::Object(object).to_string();
    let header = [&HEADERS[..], &[("ce-authtoken", "hunter2%")]].concat();

    for (refused, name) in [
        (read(&[], object.as_bytes()).remove(0), "`credentials`"),
        (read(&header, b"").remove(0), "`ce-authtoken`"),
    ] {
        let (_, detail) = refused.unwrap_err();
        assert!(detail.contains(name) && detail.contains("`***`"), "{detail}");
        assert!(!detail.contains("hunter2"), "{detail}");
    }
}
