//! Frames of commands from one partition to another.
//!
//! ```text
//! envelope{kind: "relay", version: 1, body}
//! body{source, entries: [{index, previous, command: bin}, …]}
//! ```
//!
//! The command is a MessagePack map in `bin`, so that a program that does not
//! know its kind reads its place all the same: what cannot be read is set aside
//! and what follows it goes on.

use fermata_core::identity::PartitionId;
use fermata_core::relay::{RelayCommand, Relayed};
use serde::{Deserialize, Serialize};

use crate::envelope::{Envelope, MessageKind, WireError, encode_message, read, write_named};

/// Commands of one partition to another, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayFrame {
    source: PartitionId,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    index: u64,
    previous: u64,
    command: serde_bytes::ByteBuf,
}

impl RelayFrame {
    /// A frame from `source` that holds nothing yet.
    #[must_use]
    pub fn new(source: PartitionId) -> Self {
        Self { source, entries: Vec::new() }
    }

    /// Adds a command; returns the bytes that it takes.
    ///
    /// # Errors
    ///
    /// The encoder's; no value of ours meets one.
    pub fn push(
        &mut self,
        index: u64,
        previous: u64,
        command: &RelayCommand,
    ) -> Result<usize, WireError> {
        let mut bytes = Vec::new();
        write_named(&mut bytes, command)?;
        let length = bytes.len();
        self.entries.push(Entry { index, previous, command: bytes.into() });
        Ok(length)
    }

    /// Commands added.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Index of the command added last.
    #[must_use]
    pub fn up_to(&self) -> Option<u64> {
        self.entries.last().map(|entry| entry.index)
    }

    /// Encodes the frame.
    ///
    /// # Errors
    ///
    /// [`WireError::TooLarge`] over the size cap.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        encode_message(MessageKind::Relay, self)
    }

    /// Decodes a frame.
    ///
    /// # Errors
    ///
    /// [`WireError`], naming what is wrong; never panics, on any bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        read("relay", Envelope::decode(MessageKind::Relay, bytes)?.body)
    }

    /// The commands with their places in the channel; one that cannot be read
    /// has none.
    #[must_use]
    pub fn commands(&self) -> Vec<Relayed> {
        let relayed = |entry: &Entry| Relayed {
            source: self.source,
            index: entry.index,
            previous: entry.previous,
            command: read("relayed command", &entry.command).ok(),
        };
        self.entries.iter().map(relayed).collect()
    }
}
