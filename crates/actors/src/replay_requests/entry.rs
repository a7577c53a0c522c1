//! What is kept of a request to replay that came by HTTP: to which body its id
//! belongs, and what was answered. JSON, so that an operator can read it.

use fermata_core::digest::Digest;
use fermata_wire::replay::ReplayKeys;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Version of the layout.
const VERSION: u32 = 1;

/// The entry of one `webhook-id`. The body never changes once it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayEntry {
    version: u32,
    /// Digest of the whole body, in hexadecimal digits.
    body: String,
    /// Where its events stand in EVENTS, in their order; absent until all are stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequences: Option<Vec<u64>>,
    /// By a secret of those that sign requests, over the id and all of the above: who may only
    /// publish cannot say what became of a request.
    signature: String,
}

/// An entry that cannot be read.
#[derive(Debug, Error)]
pub enum ReplayEntryError {
    /// It is no entry.
    #[error("it is no entry of a request: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A newer program wrote it.
    #[error("it is of version {0}, {VERSION} is read here")]
    Newer(u32),
}

impl ReplayEntry {
    /// The entry of the request `webhook_id` with this body, whose events stand at `sequences`;
    /// nothing without a secret.
    #[must_use]
    pub fn new(
        keys: &ReplayKeys,
        webhook_id: &str,
        body: &Digest,
        sequences: Option<Vec<u64>>,
    ) -> Option<Self> {
        let body = body.to_string();
        let signature = keys.sign(webhook_id, 0, &signed_text(&body, sequences.as_deref()))?;
        Some(Self { version: VERSION, body, sequences, signature })
    }

    /// Whether somebody wrote it of `webhook_id` who has one of the secrets.
    #[must_use]
    pub fn is_authentic(&self, keys: &ReplayKeys, webhook_id: &str) -> bool {
        let signed = signed_text(&self.body, self.sequences.as_deref());
        keys.verifies(webhook_id, "0", &signed, &self.signature)
    }

    /// Whether the request came with this body.
    #[must_use]
    pub fn came_with(&self, body: &Digest) -> bool {
        self.body == body.to_string()
    }

    /// Writes it.
    ///
    /// # Errors
    ///
    /// The serializer's.
    pub fn encode(&self) -> Result<Vec<u8>, ReplayEntryError> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Reads it.
    ///
    /// # Errors
    ///
    /// [`ReplayEntryError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ReplayEntryError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        match serde_json::from_slice::<Versioned>(bytes)?.version {
            VERSION => Ok(serde_json::from_slice(bytes)?),
            newer => Err(ReplayEntryError::Newer(newer)),
        }
    }
}

/// What is signed of an entry. A request is never signed for second 0, nor is its message's id
/// made of a text with this beginning, so none of these stands for another one.
fn signed_text(body: &str, sequences: Option<&[u64]>) -> Vec<u8> {
    let mut text = format!("entry\n{body}\n").into_bytes();
    match sequences {
        None => text.extend_from_slice(b"open"),
        Some(sequences) => {
            let digits = sequences.iter().map(u64::to_string).collect::<Vec<_>>();
            text.extend_from_slice(digits.join(",").as_bytes());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys of a secret in base64, which is this letter again and again.
    fn keys(letter: char) -> ReplayKeys {
        ReplayKeys::parse(&format!("whsec_{}", letter.to_string().repeat(32))).unwrap()
    }

    #[test]
    fn an_entry_that_was_changed_or_is_of_another_id_or_secret_is_nobodys() {
        let (body, other) = (Digest([0xd1; 32]), Digest([0xd2; 32]));
        let entry = ReplayEntry::new(&keys('a'), "msg_1", &body, Some(vec![13, 15])).unwrap();
        assert!(entry.is_authentic(&keys('a'), "msg_1"));

        assert!(!entry.is_authentic(&keys('a'), "msg_2"));
        assert!(!entry.is_authentic(&keys('b'), "msg_1"));
        let changed = |change: fn(&mut ReplayEntry)| {
            let mut entry = entry.clone();
            change(&mut entry);
            entry.is_authentic(&keys('a'), "msg_1")
        };
        assert!(!changed(|entry| entry.sequences = None));
        assert!(!changed(|entry| entry.sequences = Some(vec![1, 315])));
        let of_other = ReplayEntry { body: other.to_string(), ..entry.clone() };
        assert!(!of_other.is_authentic(&keys('a'), "msg_1"));
    }

    #[test]
    fn an_entry_keeps_its_bytes() {
        let body = Digest([0xd1; 32]);
        let digits = "d1".repeat(32);
        let of = |sequences| ReplayEntry::new(&keys('a'), "msg_1", &body, sequences).unwrap();
        for (sequences, text) in [
            (None, format!(r#"{{"version":1,"body":"{digits}","#)),
            (
                Some(vec![13, 15]),
                format!(r#"{{"version":1,"body":"{digits}","sequences":[13,15],"#),
            ),
        ] {
            let entry = of(sequences);
            let text = format!(r#"{text}"signature":"{}"}}"#, entry.signature);

            assert_eq!(String::from_utf8(entry.encode().unwrap()).unwrap(), text);
            let read = ReplayEntry::decode(text.as_bytes()).unwrap();
            assert_eq!(read, entry);
            assert!(read.came_with(&body) && !read.came_with(&Digest([0xd2; 32])));
        }
    }

    #[test]
    fn what_a_newer_program_or_nobody_of_ours_wrote_is_told_apart() {
        let newer = ReplayEntry::decode(br#"{"version":2,"more":1}"#);
        assert!(matches!(newer, Err(ReplayEntryError::Newer(2))), "{newer:?}");
        for text in ["", "{}", r#"{"version":1}"#, r#"{"version":1,"body":"","x":1}"#] {
            let read = ReplayEntry::decode(text.as_bytes());
            assert!(matches!(read, Err(ReplayEntryError::Malformed(_))), "{text}: {read:?}");
        }
    }
}
