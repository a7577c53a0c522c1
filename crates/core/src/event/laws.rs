use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::tests::{SUBJECT, limits, valid};
use super::{batch, decode_message};

/// Any JSON value that is read back as it was written.
pub(super) fn data() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i32>().prop_map(|number| Value::from(f64::from(number) / 8.0)),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            btree_map(any::<String>(), inner, 0..6).prop_map(|map| json!(map)),
        ]
    })
}

fn text() -> impl Strategy<Value = Value> {
    "[^\\p{Cc}]{1,20}".prop_map(Value::from)
}

/// Members of an event that breaks no rule.
pub(super) fn event() -> impl Strategy<Value = Value> {
    let extension = prop_oneof![
        text(),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from)
    ];
    let optional = (option::of(text()), option::of(text()), option::of(text()), option::of(data()));
    (text(), text(), text(), btree_map("x[a-z0-9]{0,8}", extension, 0..4), optional).prop_map(
        |(id, source, kind, extensions, (subject, key, correlation, data))| {
            let mut members = Map::from_iter(extensions);
            members.extend(valid());
            members.extend([
                ("id".to_owned(), id),
                ("source".to_owned(), source),
                ("type".to_owned(), kind),
            ]);
            let optional = [
                ("subject", subject),
                ("idempotencykey", key),
                ("correlationkey", correlation),
                ("data", data),
            ];
            members.extend(
                optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))),
            );
            Value::Object(members)
        },
    )
}

fn batch_element() -> impl Strategy<Value = (String, bool)> {
    let bad = prop_oneof![
        Just("{}".to_owned()),
        Just("null".to_owned()),
        Just("[[1,2],{\"a\":\"]\"}]".to_owned()),
        Just("tru".to_owned()),
        Just("\"a,\\\"b]\"".to_owned()),
        Just("{\"id\":\"1\" \"type\":[1,2]}".to_owned()),
        Just("{\"specversion\":\"1.0\",\"id\":\"\\x\",\"source\":\"s\"}".to_owned()),
    ];
    prop_oneof![
        event().prop_map(|event| (event.to_string(), true)),
        event().prop_map(|event| (format!(" {event:#}\n"), true)),
        bad.prop_map(|text| (text, false)),
    ]
}

proptest! {
    #[test]
    fn no_bytes_panic(payload in vec(any::<u8>(), 0..200)) {
        prop_assert!(!payload.is_empty() || decode_message(None, &payload, SUBJECT, &limits()).len() == 1);
        let _ = decode_message(None, &payload, SUBJECT, &limits());
    }

    #[test]
    fn no_near_json_panics(payload in "[\\[{]?([\\[\\]{}:,\"\\\\ 1e-]|\"id\":|\"data\":|null|\\\\u){0,60}[\\]}]?") {
        for outcome in decode_message(None, payload.as_bytes(), SUBJECT, &limits()) {
            prop_assert!(outcome.is_err());
        }
    }

    #[test]
    fn a_cut_or_changed_event_never_panics(event in event(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut payload = format!("[{event},{event}]").into_bytes();
        let at = at.index(payload.len());
        let cut = decode_message(None, &payload[..at], SUBJECT, &limits());
        prop_assert_eq!(cut.len(), 1);
        prop_assert!(cut[0].is_err());
        payload[at] = byte;
        let _ = decode_message(None, &payload, SUBJECT, &limits());
    }

    #[test]
    fn an_event_reads_back_as_it_was_written(event in event()) {
        let batch = format!("[{event}]");
        let decoded = decode_message(None, batch.as_bytes(), SUBJECT, &limits()).remove(0).unwrap();
        let written = format!("[{}]", decoded.to_json());
        let again = decode_message(None, written.as_bytes(), SUBJECT, &limits()).remove(0).unwrap();

        let mut expected = event;
        expected["tenant"] = json!("acme");
        expected.as_object_mut().unwrap().remove("specversion");
        prop_assert_eq!(decoded.view().unwrap(), expected.clone());
        prop_assert_eq!(again.view().unwrap(), expected);
        prop_assert_eq!(again.to_json(), decoded.to_json());
        prop_assert_eq!(again.idempotency(), decoded.idempotency());
    }

    #[test]
    fn a_bad_event_spoils_no_other(elements in vec(batch_element(), 1..12)) {
        let texts: Vec<&str> = elements.iter().map(|(text, _)| text.as_str()).collect();
        let batch = format!("[{}]", texts.join(","));

        let outcomes = decode_message(None, batch.as_bytes(), SUBJECT, &limits());

        prop_assert_eq!(outcomes.len(), elements.len());
        for (index, (outcome, (text, good))) in outcomes.iter().zip(&elements).enumerate() {
            prop_assert_eq!(outcome.is_ok(), *good, "{}", text);
            match outcome {
                Ok(event) => prop_assert_eq!(event.raw, text.trim()),
                Err(rejected) => {
                    prop_assert_eq!(usize::try_from(rejected.index).unwrap(), index);
                    prop_assert_eq!(rejected.original, text.trim().as_bytes());
                }
            }
        }
    }

    #[test]
    fn depth_is_what_a_parser_counts(data in data(), depth_max in 1..8_usize) {
        fn depth(value: &Value) -> usize {
            match value {
                Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
                Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
            }
        }
        prop_assert_eq!(batch::is_too_deep(&data.to_string(), depth_max), depth(&data) > depth_max);
    }
}
