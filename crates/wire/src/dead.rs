//! Dead letters: input that could not be used, with its bytes, for people to
//! look at, repair and send again.
//!
//! ```text
//! envelope{kind: "dead", version: 1, body}
//! body{id, tenant, stage, reason, detail, subject, original: bin, time_ms, headers?,
//!      attempts?, trace?}
//! ```
//!
//! A redelivery of the same input is filed again under the same id; readers
//! list an id once.

use bytes::Bytes;
use fermata_core::event::{MASK, Masked, is_secret_name, masked};
use serde::{Deserialize, Serialize};

use crate::envelope::{MessageKind, WireError, decode_message, encode_message};

/// Input that could not be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadLetter {
    /// Where the input stood, `<sequence>.<index>` for an event; whatever else
    /// is filed names its stream before that, so that ids never meet.
    pub id: String,
    /// Whose input it is, as far as its subject tells; `_engine` where it does not.
    pub tenant: String,
    /// The stage that refused it.
    pub stage: String,
    /// Stable reason code.
    pub reason: String,
    /// For people.
    pub detail: String,
    /// The subject that the input came on.
    pub subject: String,
    /// The refused bytes.
    pub original: Bytes,
    /// When it was refused, milliseconds since 1970 by the refusing program's clock.
    pub time_ms: u64,
    /// Headers that the bytes are read with, names and values: those of the
    /// message, or for an event of a batch the `Content-Type` of one event.
    /// Absent for structured JSON without headers, and from older programs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// How often it was tried until it was given up, from 1: a message was delivered,
    /// a webhook called. Absent where one look is enough, and from older programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// W3C `traceparent` of the event or attempt concerned. Absent where it has none
    /// that can be read, and from older programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

impl DeadLetter {
    /// Decodes a dead letter.
    ///
    /// # Errors
    ///
    /// [`WireError`], naming what is wrong; never panics, on any bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        decode_message(MessageKind::Dead, bytes)
    }

    /// The letter for people to look at, and how many values in it are masked: those of its
    /// headers and original bytes whose names say that they are secrets, see
    /// [`fermata_core::event::masked`]. It is not to be stored or replayed.
    #[must_use]
    pub fn masked(&self) -> (Self, usize) {
        let Masked { bytes, values } = masked(&self.original);
        let mut count = values;
        let headers = self.headers.iter().map(|(name, value)| {
            if !is_secret_name(name) {
                return (name.clone(), value.clone());
            }
            count += 1;
            (name.clone(), MASK.to_owned())
        });
        let headers = headers.collect();
        (Self { original: bytes.into(), headers, ..self.clone() }, count)
    }

    /// Encodes the dead letter.
    ///
    /// # Errors
    ///
    /// [`WireError::TooLarge`] when it does not fit a message with its original
    /// bytes; file it without them then, and say so in `detail`.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        encode_message(MessageKind::Dead, self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::ENVELOPE_BYTES_MAX;

    fn letter() -> DeadLetter {
        DeadLetter {
            id: "17.0".to_owned(),
            tenant: "acme".to_owned(),
            stage: "listener".to_owned(),
            reason: "not_json".to_owned(),
            detail: "the text is not JSON".to_owned(),
            subject: "fermata.events.acme.a".to_owned(),
            original: Bytes::from_static(b"{\xff"),
            time_ms: 1,
            headers: Vec::new(),
            attempts: None,
            trace: None,
        }
    }

    #[test]
    fn a_dead_letter_reads_back_with_its_original_bytes() {
        let bytes = letter().encode().unwrap();

        assert_eq!(DeadLetter::decode(&bytes).unwrap(), letter());
    }

    #[test]
    fn what_a_letter_does_not_have_is_written_as_before_it_could_have_it() {
        let without = letter().encode().unwrap();
        let headers = vec![("ce-id".to_owned(), "1".to_owned())];
        let trace = Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned());
        let with = DeadLetter { headers, attempts: Some(5), trace, ..letter() };

        for name in ["headers", "attempts", "trace"] {
            let name = name.as_bytes();
            assert!(!without.windows(name.len()).any(|window| window == name));
        }
        assert_eq!(DeadLetter::decode(&with.encode().unwrap()).unwrap(), with);
    }

    #[test]
    fn secrets_of_a_letter_are_masked_in_headers_and_bytes_and_the_rest_is_the_same() {
        let headers = [("Authorization", "Basic eDp5"), ("ce-apikey", "k"), ("ce-id", "1")];
        let letter = DeadLetter {
            original: Bytes::from_static(br#"{"user":"ann","password":"hunter2"}"#),
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            ..letter()
        };

        let (shown, count) = letter.masked();

        let headers = [("Authorization", "***"), ("ce-apikey", "***"), ("ce-id", "1")];
        let expected = DeadLetter {
            original: Bytes::from_static(br#"{"user":"ann","password":"***"}"#),
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            ..letter.clone()
        };
        assert_eq!((shown, count), (expected, 3));
    }

    #[test]
    fn original_bytes_are_written_as_bin_for_readers_in_other_languages() {
        let bytes = letter().encode().unwrap();

        // MessagePack `bin 8` of two bytes.
        assert!(bytes.windows(4).any(|window| window == [0xc4, 2, b'{', 0xff]));
    }

    #[test]
    fn a_letter_that_fits_no_message_is_refused() {
        let original = Bytes::from(vec![0; ENVELOPE_BYTES_MAX]);

        let refused = DeadLetter { original, ..letter() }.encode();

        assert!(matches!(refused, Err(WireError::TooLarge { .. })));
    }
}
