//! What is kept of a request to replay that came by HTTP: to which body its id
//! belongs, and what was answered. JSON, so that an operator can read it.

use fermata_core::digest::Digest;
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
    /// The entry of a request with this body, whose events stand at `sequences`.
    #[must_use]
    pub fn new(body: &Digest, sequences: Option<Vec<u64>>) -> Self {
        Self { version: VERSION, body: body.to_string(), sequences }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_keeps_its_bytes() {
        let body = Digest([0xd1; 32]);
        let digits = "d1".repeat(32);
        for (sequences, text) in [
            (None, format!(r#"{{"version":1,"body":"{digits}"}}"#)),
            (
                Some(vec![13, 15]),
                format!(r#"{{"version":1,"body":"{digits}","sequences":[13,15]}}"#),
            ),
        ] {
            let entry = ReplayEntry::new(&body, sequences);

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
