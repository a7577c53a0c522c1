use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::form_tests::read;
use super::laws::{data, event};
use super::tests::{SUBJECT, limits};
use super::{Event, decode_message, msgpack_of_json};

const MSGPACK: [(&str, &str); 1] = [("Content-Type", "application/cloudevents+msgpack")];

/// The event that every law starts from, of the type that the subject names.
fn typed(mut event: Value) -> Value {
    event["type"] = "job.done".into();
    event
}

fn decoded<R>(event: &Value, then: impl FnOnce(&Event<'_>) -> R) -> R {
    let text = event.to_string();
    then(&decode_message(None, text.as_bytes(), SUBJECT, &limits()).remove(0).unwrap())
}

/// The same with extensions as headers can carry them: as text.
fn as_texts(view: Value) -> Value {
    let text = |(name, value): (String, Value)| {
        let is_text = value.is_string() || name == "data";
        let value = if is_text { value } else { value.to_string().into() };
        (name, value)
    };
    let Value::Object(members) = view else { return view };
    Value::Object(members.into_iter().map(text).collect::<Map<_, _>>())
}

fn read_binary(headers: &[(String, String)], payload: &[u8]) -> Value {
    let headers: Vec<_> =
        headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    read(&headers, payload).remove(0).unwrap()
}

proptest! {
    #[test]
    fn an_event_is_the_same_in_binary_and_structured_mode(event in event()) {
        let event = typed(event);
        let (view, message) = decoded(&event, |event| (event.view().unwrap(), event.to_binary()));

        for (_, value) in &message.headers {
            prop_assert!(value.bytes().all(|byte| byte.is_ascii_graphic()), "{}", value);
        }
        prop_assert_eq!(read_binary(&message.headers, &message.payload), as_texts(view));
    }

    #[test]
    fn an_event_is_the_same_in_messagepack_and_json(event in event()) {
        let event = typed(event);
        let bytes = msgpack_of_json(&event.to_string()).unwrap();

        let read = read(&MSGPACK, &bytes).remove(0).unwrap();

        prop_assert_eq!(read, decoded(&event, |event| event.view().unwrap()));
    }

    #[test]
    fn data_is_the_same_as_json_and_as_messagepack_in_a_binary_message(event in event(), data in data()) {
        let mut event = typed(event);
        event["data"] = data.clone();
        let mut message = decoded(&event, |event| event.to_binary());
        message.headers.push(("content-type".to_owned(), "application/msgpack".to_owned()));
        let bytes = msgpack_of_json(&data.to_string()).unwrap();

        prop_assert_eq!(&read_binary(&message.headers, &bytes)["data"], &data);
    }

    #[test]
    fn binary_data_arrives_byte_by_byte(bytes in vec(any::<u8>(), 1..40)) {
        let headers = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"),
            ("ce-type", "job.done"), ("ce-datacontenttype", "application/octet-stream")];
        let view = read(&headers, &bytes).remove(0).unwrap();
        let event = json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "job.done",
            "datacontenttype": "application/octet-stream", "data_base64": view["data_base64"]});

        prop_assert_eq!(decoded(&event, |event| event.to_binary()).payload, bytes);
    }

    #[test]
    fn no_bytes_panic_in_any_form(
        payload in vec(any::<u8>(), 0..200),
        value in "\\PC{0,40}",
        name in "ce-[a-zA-Z0-9_%\"-]{0,10}",
        content_type in prop::sample::select(vec![
            "application/cloudevents+msgpack", "application/cloudevents-batch+msgpack",
            "application/msgpack", "application/json", "", "text/plain; charset=\"",
        ]),
    ) {
        let headers = [("Content-Type", content_type), (name.as_str(), value.as_str())];
        let _ = read(&headers, &payload);
        let _ = read(&headers[..1], &payload);
    }

    #[test]
    fn a_cut_or_changed_event_in_messagepack_never_panics(event in event(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut payload = msgpack_of_json(&typed(event).to_string()).unwrap();
        let at = at.index(payload.len());
        prop_assert!(read(&MSGPACK, &payload[..at]).remove(0).is_err());
        payload[at] = byte;
        let _ = read(&MSGPACK, &payload);
    }
}
