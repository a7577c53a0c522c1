use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::form_tests::read;
use super::laws::{data, event};
use super::msgpack::push_base64;
use super::tests::{SUBJECT, limits};
use super::{DataForm, Event, RejectReason, decode_message, msgpack_of_json};

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

/// What an event says of its data.
#[derive(Debug, Clone)]
struct Declared {
    media_type: Option<&'static str>,
    data: Data,
}

#[derive(Debug, Clone)]
enum Data {
    None,
    Json(Value),
    Bytes(Vec<u8>),
}

/// With or without a media type; data that fits it, and data that does not.
fn declared() -> impl Strategy<Value = Declared> {
    let media_types = prop::sample::select(vec![
        None,
        Some("application/json"),
        Some("application/vnd.acme+json; charset=utf-8"),
        Some("application/json; charset=latin1"),
        Some("application/msgpack"),
        Some("application/x-msgpack"),
        Some("text/plain"),
        Some("Text/Csv; charset=\"utf-8\""),
        Some("text/plain; charset=iso-8859-1"),
        Some("application/xml"),
        Some("image/png"),
    ]);
    let data = prop_oneof![
        Just(Data::None),
        data().prop_map(Data::Json),
        any::<String>().prop_map(|text| Data::Json(text.into())),
        vec(any::<u8>(), 0..20).prop_map(Data::Bytes),
        any::<String>().prop_map(|text| Data::Bytes(text.into_bytes())),
        data().prop_map(|data| Data::Bytes(data.to_string().into_bytes())),
        data().prop_map(|data| Data::Bytes(msgpack_of_json(&data.to_string()).unwrap())),
    ];
    (media_types, data).prop_map(|(media_type, data)| Declared { media_type, data })
}

impl Declared {
    fn put_into(&self, event: &mut Value) {
        let members = event.as_object_mut().unwrap();
        members.remove("data");
        if let Some(media_type) = self.media_type {
            members.insert("datacontenttype".to_owned(), media_type.into());
        }
        match &self.data {
            Data::None => None,
            Data::Json(data) => members.insert("data".to_owned(), data.clone()),
            Data::Bytes(bytes) => {
                let mut text = String::new();
                push_base64(&mut text, bytes);
                members.insert("data_base64".to_owned(), text.into())
            }
        };
    }

    /// What is read of the event when it was written in binary mode, or why it is not:
    /// said of each pair of media type and data, without the code that writes.
    fn expected(&self, mut view: Value) -> Result<Value, RejectReason> {
        use RejectReason as Reason;
        let media_type = self.media_type.unwrap_or("application/json").to_ascii_lowercase();
        let json = media_type.contains("json");
        let msgpack = media_type.contains("msgpack");
        let text = media_type.starts_with("text/") && !media_type.contains("8859");
        if media_type.contains("latin1") {
            return Err(Reason::UnsupportedContentType);
        }
        if msgpack && !matches!(self.data, Data::None) {
            view["datacontenttype"] = "application/json".into();
        }
        match &self.data {
            Data::None if msgpack => view["datacontenttype"] = "application/json".into(),
            Data::None => {}
            Data::Json(Value::String(data)) if text && !data.is_empty() => {}
            Data::Json(_) if json || msgpack => {}
            Data::Json(_) => return Err(Reason::UnsupportedContentType),
            Data::Bytes(bytes) if bytes.is_empty() => return Err(Reason::UnsupportedContentType),
            Data::Bytes(bytes) if text => {
                if let Ok(data) = std::str::from_utf8(bytes) {
                    view.as_object_mut().unwrap().remove("data_base64");
                    view["data"] = data.into();
                }
            }
            Data::Bytes(_) if self.media_type.is_none() => {
                view["datacontenttype"] = "application/octet-stream".into();
            }
            Data::Bytes(bytes) if json => {
                let text = std::str::from_utf8(bytes).map_err(|_| Reason::NotUtf8)?;
                let data: Value = serde_json::from_str(text).map_err(|_| Reason::NotJson)?;
                view.as_object_mut().unwrap().remove("data_base64");
                view["data"] = data;
            }
            // What MessagePack means is another law's; here, that it is read or refused.
            Data::Bytes(bytes) if msgpack => {
                let headers = [
                    ("ce-specversion", "1.0"),
                    ("ce-id", "1"),
                    ("ce-source", "/s"),
                    ("ce-type", "job.done"),
                    ("ce-datacontenttype", "application/msgpack"),
                ];
                let read = read(&headers, bytes).remove(0).map_err(|(reason, _)| reason)?;
                view.as_object_mut().unwrap().remove("data_base64");
                for name in ["data", "data_base64"] {
                    if let Some(data) = read.get(name) {
                        view[name] = data.clone();
                    }
                }
            }
            Data::Bytes(_) => {}
        }
        Ok(view)
    }
}

proptest! {
    #[test]
    fn an_event_is_the_same_in_binary_and_structured_mode(event in event(), declared in declared()) {
        let mut event = typed(event);
        declared.put_into(&mut event);
        let (view, written) =
            decoded(&event, |event| (event.view().unwrap(), event.to_binary(DataForm::AsDeclared)));

        match declared.expected(as_texts(view)) {
            Err(reason) => prop_assert_eq!(written.map_err(|(reason, _)| reason), Err(reason)),
            Ok(expected) => {
                let message = written.unwrap();
                for (_, value) in &message.headers {
                    prop_assert!(value.bytes().all(|byte| byte.is_ascii_graphic()), "{}", value);
                }
                prop_assert_eq!(read_binary(&message.headers, &message.payload), expected);
            }
        }
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
        let message = decoded(&event, |event| event.to_binary(DataForm::Msgpack)).unwrap();

        prop_assert_eq!(&message.payload, &msgpack_of_json(&data.to_string()).unwrap());
        let read = read_binary(&message.headers, &message.payload);
        prop_assert_eq!((&read["data"], &read["datacontenttype"]), (&data, &"application/json".into()));
    }

    #[test]
    fn binary_data_arrives_byte_by_byte(bytes in vec(any::<u8>(), 1..40)) {
        let headers = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"),
            ("ce-type", "job.done"), ("ce-datacontenttype", "application/octet-stream")];
        let view = read(&headers, &bytes).remove(0).unwrap();
        let event = json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "job.done",
            "datacontenttype": "application/octet-stream", "data_base64": view["data_base64"]});

        let written = decoded(&event, |event| event.to_binary(DataForm::AsDeclared));
        prop_assert_eq!(written.unwrap().payload, bytes);
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
