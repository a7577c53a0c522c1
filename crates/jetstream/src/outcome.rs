//! What became of a publish: stored, refused, or unknown.

use serde::Deserialize;

/// The three things that can be said about a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishOutcome {
    /// The stream holds it.
    Stored {
        /// Its sequence in the stream.
        sequence: u64,
        /// Whether the stream already held it (only with a message id).
        duplicate: bool,
    },
    /// The broker said no: nothing was stored by this publish.
    Refused {
        /// What kind of no.
        refusal: Refusal,
        /// The broker's error code (`err_code`), or its status code when it gave no other; 0 when not sent.
        code: u64,
        /// The broker's words.
        description: String,
    },
    /// No answer: it may be stored, it may not, and it may be stored later.
    Unknown,
}

impl PublishOutcome {
    /// Sequence at which the message is stored, if it is known to be.
    pub fn sequence(&self) -> Option<u64> {
        match self {
            Self::Stored { sequence, .. } => Some(*sequence),
            Self::Refused { .. } | Self::Unknown => None,
        }
    }

    pub(crate) fn not_sent(refusal: Refusal, description: String) -> Self {
        Self::Refused { refusal, code: 0, description }
    }
}

/// Why the broker refused a publish, as far as a writer must tell cases apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The stream does not stand where the fence says (10071, and 10164 on replicas, which names no sequence).
    WrongLastSequence {
        /// Where it stands, if the broker said so.
        last: Option<u64>,
    },
    /// Another copy with the same message id is on its way (10158).
    DuplicateInProcess,
    /// A limit of the stream is reached, and it discards new messages (10077).
    StreamFull,
    /// The server's own storage or memory is used up (10023, 10028, 10047).
    ServerFull,
    /// The server takes no more for now (10167, or status 429).
    TooManyRequests,
    /// The message is larger than the stream or the server takes (10054).
    TooLarge,
    /// No stream takes this subject, or no broker with JetStream is there (status 503).
    NoResponders,
    /// The publish never left this process: wrong subject, or the connection is closed for good.
    NotSent,
    /// Anything else.
    Other,
}

impl Refusal {
    /// Whether the same publish may be stored later without anybody changing anything.
    pub fn is_transient(self) -> bool {
        match self {
            // A stream has no leader while its servers elect one.
            Self::NoResponders | Self::TooManyRequests | Self::DuplicateInProcess => true,
            Self::WrongLastSequence { .. }
            | Self::StreamFull
            | Self::ServerFull
            | Self::TooLarge
            | Self::NotSent
            | Self::Other => false,
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<AnswerError>,
}

#[derive(Deserialize)]
struct AnswerError {
    #[serde(default)]
    code: u64,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// Reads a publish acknowledgement. `status` is the status code of a message that carries no acknowledgement.
pub(crate) fn read_answer(status: Option<u16>, payload: &[u8]) -> PublishOutcome {
    if let Some(sequence) = plain_sequence(payload) {
        return PublishOutcome::Stored { sequence, duplicate: false };
    }
    if let Some(status) = status {
        return refused(u64::from(status), u64::from(status), String::new());
    }
    match serde_json::from_slice::<Answer>(payload) {
        Ok(Answer { error: Some(error), .. }) => {
            refused(error.code, error.err_code, error.description)
        }
        Ok(Answer { seq, duplicate, error: None }) if seq > 0 => {
            PublishOutcome::Stored { sequence: seq, duplicate }
        }
        // An empty or unreadable answer proves nothing.
        Ok(_) | Err(_) => PublishOutcome::Unknown,
    }
}

/// The sequence in `{"stream":"<name>","seq":<digits>}`, which nearly every answer looks like; nothing for any other shape.
fn plain_sequence(payload: &[u8]) -> Option<u64> {
    let rest = payload.strip_prefix(b"{\"stream\":\"")?;
    let quote = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    let digits =
        rest.get(quote..)?.strip_prefix(b"\",\"seq\":")?.trim_ascii_start().strip_suffix(b"}")?;
    if digits.is_empty() {
        return None;
    }
    let sequence = digits.iter().try_fold(0_u64, |sequence, byte| {
        byte.is_ascii_digit()
            .then(|| sequence.checked_mul(10)?.checked_add(u64::from(byte - b'0')))
            .flatten()
    })?;
    (sequence > 0).then_some(sequence)
}

fn refused(status: u64, code: u64, description: String) -> PublishOutcome {
    let refusal = match (code, status) {
        (10071 | 10164, _) => Refusal::WrongLastSequence { last: last_number(&description) },
        (10158, _) => Refusal::DuplicateInProcess,
        (10077, _) if description.contains("maximum") => Refusal::StreamFull,
        (10023 | 10028 | 10047, _) => Refusal::ServerFull,
        (10167, _) | (_, 429) => Refusal::TooManyRequests,
        (10054, _) => Refusal::TooLarge,
        (503, 503) => Refusal::NoResponders,
        _ => Refusal::Other,
    };
    PublishOutcome::Refused { refusal, code, description }
}

/// The number that ends `wrong last sequence: 17`.
fn last_number(description: &str) -> Option<u64> {
    description.rsplit_once(": ")?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stream_without_leader_may_get_one_and_a_full_one_does_not_empty_itself() {
        let refusal = |status, answer: &[u8]| {
            let PublishOutcome::Refused { refusal, .. } = read_answer(status, answer) else {
                panic!("refused")
            };
            refusal
        };

        assert!(refusal(Some(503), b"").is_transient());
        assert!(!refusal(None, br#"{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"},"seq":0}"#).is_transient());
    }

    #[test]
    fn a_lost_fence_names_where_the_stream_stands() {
        let answer = br#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 17"},"stream":"J","seq":0}"#;

        let PublishOutcome::Refused { refusal, code, .. } = read_answer(None, answer) else {
            panic!("refused")
        };

        assert_eq!((refusal, code), (Refusal::WrongLastSequence { last: Some(17) }, 10071));
    }

    #[test]
    fn a_full_stream_is_told_apart_from_another_storage_failure() {
        let full = br#"{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"},"seq":0}"#;
        let broken = br#"{"error":{"code":503,"err_code":10077,"description":"no space left on device"},"seq":0}"#;

        assert!(matches!(
            read_answer(None, full),
            PublishOutcome::Refused { refusal: Refusal::StreamFull, .. }
        ));
        assert!(matches!(
            read_answer(None, broken),
            PublishOutcome::Refused { refusal: Refusal::Other, .. }
        ));
    }

    #[test]
    fn an_answer_that_says_nothing_leaves_the_outcome_unknown() {
        for answer in [
            &b""[..],
            b"{}",
            b"{\"stream\":\"S\",\"seq\":0}",
            b"{\"stream\":\"S\",\"seq\":}",
            b"\xff",
        ] {
            assert_eq!(read_answer(None, answer), PublishOutcome::Unknown);
        }
    }

    #[test]
    fn a_duplicate_is_stored_and_said_to_be_one() {
        let answer = br#"{"stream":"S","seq":4,"duplicate":true}"#;

        assert_eq!(
            read_answer(None, answer),
            PublishOutcome::Stored { sequence: 4, duplicate: true }
        );
    }

    proptest! {
        #[test]
        fn the_short_way_never_says_anything_else_than_the_long_way(stream in "[A-Za-z0-9_\"\\\\,:-]{0,20}", sequence in any::<u64>(), more in "[,}a-z\":0-9]{0,12}") {
            let plain = format!("{{\"stream\":\"{stream}\",\"seq\":{sequence}}}");
            let noisy = format!("{{\"stream\":\"{stream}\",\"seq\":{sequence}{more}}}");

            for text in [plain, noisy] {
                if let Some(found) = plain_sequence(text.as_bytes()) {
                    let long: Answer = serde_json::from_str(&text).expect("what the short way takes is an answer");
                    prop_assert_eq!(found, long.seq);
                }
            }
        }

        #[test]
        fn every_plain_answer_goes_the_short_way(stream in "[A-Z_0-9]{1,20}", sequence in 1_u64..) {
            let text = format!("{{\"stream\":\"{stream}\",\"seq\":{sequence}}}");

            prop_assert_eq!(plain_sequence(text.as_bytes()), Some(sequence));
        }
    }
}
