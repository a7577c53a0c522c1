//! The frame around everything: `{kind, version, first_record_index?, traceparent?, body}`.

use std::fmt;

use fermata_core::digest::Digest;
use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

/// Largest message of ours in bytes: the broker's default `max_payload`.
/// Larger ones are refused before they are decoded or published.
pub const ENVELOPE_BYTES_MAX: usize = 1024 * 1024;

/// Deepest nesting accepted when decoding. Our own messages nest less than
/// ten levels; a bomb of nested arrays ends here instead of on the stack.
pub const DEPTH_MAX: usize = 32;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageKind {
    /// Admitted events on their way to the matcher.
    Admitted,
    /// Matched events on their way to the builder.
    Matched,
    /// Commands to a partition.
    Commands,
    /// Records of a partition.
    Journal,
    /// Audit entries, stored or for subscribers.
    Audit,
    /// A compiled plan.
    Plan,
    /// The active definitions.
    Definitions,
    /// A dead letter.
    Dead,
    /// Commands of one partition to another.
    Relay,
    /// An attempt for whoever serves a named queue.
    Task,
}

impl MessageKind {
    /// The newest version of this kind that this program reads and writes; definitions that are
    /// stored elsewhere have one of their own, see [`crate::projection`].
    #[must_use]
    pub fn version(self) -> u16 {
        match self {
            Self::Admitted
            | Self::Matched
            | Self::Commands
            | Self::Journal
            | Self::Audit
            | Self::Plan
            | Self::Definitions
            | Self::Dead
            | Self::Relay
            | Self::Task => 1,
        }
    }

    /// The kind as written in envelopes.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Matched => "matched",
            Self::Commands => "commands",
            Self::Journal => "journal",
            Self::Audit => "audit",
            Self::Plan => "plan",
            Self::Definitions => "definitions",
            Self::Dead => "dead",
            Self::Relay => "relay",
            Self::Task => "task",
        }
    }
}

/// Why bytes are no message of ours.
#[derive(Debug, Error)]
pub enum WireError {
    /// Larger than anything that we write.
    #[error("message has {bytes} bytes, at most {ENVELOPE_BYTES_MAX} are accepted")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Not MessagePack of the expected shape; covers duplicate and unknown keys and depth.
    #[error("message cannot be decoded as `{expected}`")]
    Malformed {
        /// What was expected.
        expected: &'static str,
        /// What the decoder met.
        #[source]
        source: rmp_serde::decode::Error,
    },
    /// The bytes go on after the message.
    #[error("bytes follow the end of `{expected}`")]
    TrailingBytes {
        /// What was expected.
        expected: &'static str,
    },
    /// Another kind of message than the subject carries.
    #[error("message is `{found}`, expected `{expected}`")]
    WrongKind {
        /// What was expected.
        expected: &'static str,
        /// What it says it is.
        found: &'static str,
    },
    /// Written by a newer program; this one must be upgraded to read it.
    #[error("`{kind}` has version {version}, this program reads up to {known}; upgrade it")]
    NewerVersion {
        /// What it is.
        kind: &'static str,
        /// Its version.
        version: u16,
        /// The newest that we read.
        known: u16,
    },
    /// The bytes are not those that were stored.
    #[error("the bytes have digest {found}, not {expected}; they were changed or cut")]
    Changed {
        /// Of what was stored.
        expected: Digest,
        /// Of what is there.
        found: Digest,
    },
    /// A value that cannot be encoded; no value of ours is such.
    #[error("message cannot be encoded")]
    Encode(#[from] rmp_serde::encode::Error),
}

impl WireError {
    /// Stable reason code, as used for dead letters.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::Malformed { .. } => "malformed",
            Self::TrailingBytes { .. } => "trailing_bytes",
            Self::WrongKind { .. } => "wrong_kind",
            Self::NewerVersion { .. } => "newer_version",
            Self::Changed { .. } => "changed",
            Self::Encode(_) => "encode",
        }
    }
}

/// A decoded envelope; its body is still bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope<'a> {
    /// What the body is.
    pub kind: MessageKind,
    /// Version of the body's layout.
    pub version: u16,
    /// Index of the first record that the body holds, where it holds records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_record_index: Option<u64>,
    /// W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<&'a str>,
    /// The body, MessagePack.
    #[serde(with = "serde_bytes")]
    pub body: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Wraps `body`, which has the present version's layout.
    #[must_use]
    pub fn new(kind: MessageKind, first_record_index: Option<u64>, body: &'a [u8]) -> Self {
        Self { kind, version: kind.version(), first_record_index, traceparent: None, body }
    }

    /// Encodes the envelope.
    ///
    /// # Errors
    ///
    /// [`WireError::TooLarge`] over [`ENVELOPE_BYTES_MAX`].
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        let mut bytes = Vec::with_capacity(self.body.len() + 96);
        write_named(&mut bytes, self)?;
        match bytes.len() {
            0..=ENVELOPE_BYTES_MAX => Ok(bytes),
            bytes => Err(WireError::TooLarge { bytes }),
        }
    }

    /// Decodes the envelope of an `expected` message.
    ///
    /// # Errors
    ///
    /// [`WireError`], naming what is wrong; never panics, on any bytes.
    pub fn decode(expected: MessageKind, bytes: &'a [u8]) -> Result<Self, WireError> {
        Self::decode_to(expected, expected.version(), bytes)
    }

    /// As [`Self::decode`], where versions up to `known` are read.
    pub(crate) fn decode_to(
        expected: MessageKind,
        known: u16,
        bytes: &'a [u8],
    ) -> Result<Self, WireError> {
        if bytes.len() > ENVELOPE_BYTES_MAX {
            return Err(WireError::TooLarge { bytes: bytes.len() });
        }
        let envelope: Self = read(expected.as_str(), bytes)?;
        if envelope.kind != expected {
            let (expected, found) = (expected.as_str(), envelope.kind.as_str());
            return Err(WireError::WrongKind { expected, found });
        }
        if envelope.version > known || envelope.version == 0 {
            let (kind, version) = (expected.as_str(), envelope.version);
            return Err(WireError::NewerVersion { kind, version, known });
        }
        Ok(envelope)
    }
}

/// Appends `value` to `bytes` as MessagePack with named fields.
///
/// # Errors
///
/// The encoder's; no value of ours meets one.
pub fn write_named<T: Serialize + ?Sized>(
    bytes: &mut Vec<u8>,
    value: &T,
) -> Result<(), rmp_serde::encode::Error> {
    value.serialize(&mut rmp_serde::Serializer::new(bytes).with_struct_map())
}

/// Decodes the whole of `bytes` as one `T`, which may borrow from them.
///
/// # Errors
///
/// [`WireError::Malformed`] or [`WireError::TrailingBytes`].
pub fn read<'a, T: Deserialize<'a>>(
    expected: &'static str,
    bytes: &'a [u8],
) -> Result<T, WireError> {
    read_with(expected, bytes, |deserializer| T::deserialize(deserializer))
}

/// Decodes the whole of `bytes` with `deserialize`.
///
/// # Errors
///
/// [`WireError::Malformed`] or [`WireError::TrailingBytes`].
pub fn read_with<'a, T>(
    expected: &'static str,
    bytes: &'a [u8],
    deserialize: impl FnOnce(
        &mut rmp_serde::Deserializer<rmp_serde::decode::ReadRefReader<'a, [u8]>>,
    ) -> Result<T, rmp_serde::decode::Error>,
) -> Result<T, WireError> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
    deserializer.set_max_depth(DEPTH_MAX);
    let value = deserialize(&mut deserializer)
        .map_err(|source| WireError::Malformed { expected, source })?;
    // The decoder does not say where it stands, but at the end of the bytes,
    // and only there, it finds no marker of a next value.
    match Next::deserialize(&mut deserializer) {
        Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(value),
        Ok(Next) | Err(_) => Err(WireError::TrailingBytes { expected }),
    }
}

/// Meets the next value and reads nothing of what is in it: inside of a map
/// that was cut, a marker can be missing too.
struct Next;

impl<'de> Deserialize<'de> for Next {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl Visitor<'_> for Next {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the end")
    }
}

/// Encodes `value` as a whole message of `kind`.
///
/// # Errors
///
/// [`WireError::TooLarge`] over [`ENVELOPE_BYTES_MAX`].
pub fn encode_message<T: Serialize>(kind: MessageKind, value: &T) -> Result<Vec<u8>, WireError> {
    let mut body = Vec::new();
    write_named(&mut body, value)?;
    Envelope::new(kind, None, &body).encode()
}

/// Decodes a whole message of `kind`.
///
/// # Errors
///
/// [`WireError`], naming what is wrong.
pub fn decode_message<T: DeserializeOwned>(
    kind: MessageKind,
    bytes: &[u8],
) -> Result<T, WireError> {
    read(kind.as_str(), Envelope::decode(kind, bytes)?.body)
}
