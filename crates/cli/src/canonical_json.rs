//! JSON Canonicalization Scheme (RFC 8785): one text for one value.
//!
//! Members are ordered by the UTF-16 code units of their names, nothing stands
//! between tokens, and strings use the shortest escapes. Numbers are integers
//! within ±(2^53 − 1) here; nothing that an audit entry holds is larger.

use fermata_core::record::Header;
use fermata_wire::audit::Entry;
use fermata_wire::envelope::read;
use serde_json::{Map, Value};

use crate::output::hex;

/// Writes `value` in its canonical form.
#[must_use]
pub fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

fn write(value: &Value, text: &mut String) {
    match value {
        Value::Object(members) => {
            let mut names: Vec<&String> = members.keys().collect();
            names.sort_by(|one, two| one.encode_utf16().cmp(two.encode_utf16()));
            text.push('{');
            for (at, name) in names.into_iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(name.as_str()).to_string());
                text.push(':');
                write(members.get(name).unwrap_or(&Value::Null), text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                write(item, text);
            }
            text.push(']');
        }
        // The library's escapes are those of RFC 8785, section 3.2.2.2.
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            text.push_str(&value.to_string());
        }
    }
}

/// An audit entry as people see it: the header's fields, commitment and leaf in
/// hexadecimal digits, the journal message, and the partition where it is known.
///
/// A header that cannot be read (of a newer version) is shown as its bytes.
#[must_use]
pub fn entry_text(entry: &Entry<'_>, journal_sequence: u64, partition: Option<&str>) -> String {
    let mut members = match read::<Header>("record header", entry.header) {
        Ok(header) => match serde_json::to_value(&header) {
            Ok(Value::Object(members)) => members,
            Ok(_) | Err(_) => Map::new(),
        },
        Err(_) => Map::from_iter([
            ("header".to_owned(), hex(entry.header).into()),
            ("index".to_owned(), entry.index.into()),
        ]),
    };
    members.insert("commitment".to_owned(), hex(entry.commitment).into());
    members.insert("leaf".to_owned(), hex(entry.leaf).into());
    members.insert("journal_sequence".to_owned(), journal_sequence.into());
    if let Some(partition) = partition {
        members.insert("partition".to_owned(), partition.into());
    }
    canonical(&Value::Object(members))
}

#[cfg(test)]
mod tests {
    use fermata_core::identity::JournalTime;
    use fermata_core::record::{Body, Record, RunSucceeded};
    use fermata_wire::envelope::write_named;
    use serde_json::json;

    use super::*;

    #[test]
    fn members_are_ordered_by_utf_16_as_in_the_rfc() {
        // RFC 8785, section 3.2.3.
        let value = json!({
            "\u{20ac}": 1, "\r": 2, "\u{fb33}": 3, "1": 4, "\u{1f600}": 5, "\u{80}": 6, "\u{f6}": 7
        });

        assert_eq!(
            canonical(&value),
            "{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"\u{f6}\":7,\"\u{20ac}\":1,\"\u{1f600}\":5,\"\u{fb33}\":3}"
        );
    }

    #[test]
    fn strings_use_the_shortest_escapes() {
        let value = json!(["\u{20ac}$\u{f}\nA'B\"\\\\\"/"]);

        assert_eq!(canonical(&value), "[\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"]");
    }

    #[test]
    fn an_entry_is_shown_with_its_header_and_no_payload() {
        let record = Record {
            tenant: Some("acme".parse().unwrap()),
            ..Record::of_partition(Body::from(RunSucceeded {}))
        };
        let mut header = Vec::new();
        write_named(&mut header, &record.header(7, JournalTime(1_000))).unwrap();
        let entry = Entry { index: 7, header: &header, commitment: &[1; 32], leaf: &[2; 32] };

        let expected = format!(
            "{{\"commitment\":\"{}\",\"index\":7,\"journal_sequence\":3,\"kind\":\"run.succeeded\",\
             \"leaf\":\"{}\",\"partition\":\"0\",\"tenant\":\"acme\",\"time\":1000,\"v\":1}}",
            "01".repeat(32),
            "02".repeat(32)
        );
        assert_eq!(entry_text(&entry, 3, Some("0")), expected);
    }

    #[test]
    fn a_header_that_cannot_be_read_is_shown_as_bytes() {
        let entry = Entry { index: 7, header: b"\xc1", commitment: &[1; 32], leaf: &[2; 32] };

        let text = entry_text(&entry, 3, None);

        assert!(text.contains("\"header\":\"c1\"") && text.contains("\"index\":7"), "{text}");
    }
}
