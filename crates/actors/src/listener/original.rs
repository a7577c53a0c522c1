//! The bytes of one event of a message, as later stages file them.

use bytes::Bytes;
use fermata_core::event::{
    EventLimits, Form, MessageHeaders, decode_message, parse_subject, read_form,
};

use super::Arrived;
use super::admission::{kept_headers, pairs};

/// The bytes of an event, and the headers that they are read with; none for
/// structured JSON.
pub(crate) type Original = (Bytes, Vec<(String, String)>);

/// The event at `index` of a message that was admitted once; all of the message
/// where it can no longer be taken apart.
pub(super) fn original_at(message: &Arrived, index: u32) -> Original {
    let raw = usize::try_from(index).ok().and_then(|index| event_at(message, index));
    match raw {
        Some(raw) => (raw, Vec::new()),
        None => (message.payload.clone(), kept_headers(message.headers.as_ref())),
    }
}

fn event_at(message: &Arrived, index: usize) -> Option<Bytes> {
    let (payload, limits) = (&message.payload, EventLimits::default());
    let subject = parse_subject(&message.subject).ok()?;
    let headers = MessageHeaders::new(pairs(message.headers.as_ref()));
    match read_form(&headers, payload, &limits) {
        Form::Json => {
            let events = decode_message(headers.content_type(), payload, subject, &limits);
            let event = events.into_iter().nth(index)?.ok()?;
            Some(payload.slice_ref(event.raw.as_bytes()))
        }
        Form::Converted(events) => {
            let place = u32::try_from(index).ok()?;
            let event = events.get(index)?.decode(place, payload, subject, &limits).ok()?;
            Some(Bytes::copy_from_slice(event.raw.as_bytes()))
        }
    }
}

#[cfg(test)]
mod tests {
    use fermata_jetstream::Headers;
    use serde_json::json;

    use super::*;

    fn arrived(headers: Option<Headers>, payload: Bytes) -> Arrived {
        let subject = "fermata.events.acme.a.b".into();
        Arrived { subject, headers, fault: None, payload, sequence: 7, time_ms: 0 }
    }

    fn event(id: u32) -> serde_json::Value {
        json!({"specversion": "1.0", "id": id.to_string(), "source": "/s", "type": "a.b"})
    }

    #[test]
    fn an_event_of_a_batch_is_filed_without_the_others() {
        let batch = Bytes::from(json!([event(1), event(2)]).to_string());

        let (raw, headers) = original_at(&arrived(None, batch), 1);

        assert_eq!((&raw[..], headers.len()), (event(2).to_string().as_bytes(), 0));
    }

    #[test]
    fn an_event_in_another_form_is_filed_as_json_and_what_is_none_as_it_came() {
        let mut headers = Headers::new();
        for (name, value) in
            [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "a.b")]
        {
            headers.insert(name, value);
        }
        headers.insert("Content-Type", "application/json");
        let message = arrived(Some(headers), Bytes::from_static(b"{\"x\":1}"));

        let (raw, none) = original_at(&message, 0);
        let json: serde_json::Value = serde_json::from_slice(&raw).unwrap();
        assert_eq!((json["data"]["x"].as_i64(), none.len()), (Some(1), 0));

        let (raw, kept) = original_at(&message, 1);
        assert_eq!((raw, kept.len()), (message.payload.clone(), 5));
    }
}
