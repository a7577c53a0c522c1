//! Frames of commands to a partition.

use fermata_core::command::Command;
use serde::{Deserialize, Serialize};

use crate::envelope::{Envelope, MessageKind, WireError, read, write_named};

/// Commands that are ready at the same time, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandFrame {
    /// The commands of every event at or below this sequence of EVENTS were
    /// stored before this frame; 0 where the sender cannot tell yet.
    pub floor: u64,
    /// At least one.
    pub commands: Vec<Command>,
}

impl CommandFrame {
    /// Decodes a frame.
    ///
    /// # Errors
    ///
    /// [`WireError`], naming what is wrong; never panics, on any bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let envelope = Envelope::decode(MessageKind::Commands, bytes)?;
        read("commands", envelope.body)
    }

    /// Encodes the frame.
    ///
    /// # Errors
    ///
    /// [`WireError::TooLarge`] over the size cap.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        let mut body = Vec::with_capacity(256 * self.commands.len() + 32);
        write_named(&mut body, self)?;
        Envelope::new(MessageKind::Commands, None, &body).encode()
    }
}

/// Collects encoded commands until a frame is full or nothing more is ready.
#[derive(Debug, Clone, Default)]
pub struct CommandFrameBuilder {
    commands: Vec<u8>,
    count: u32,
}

impl CommandFrameBuilder {
    /// Adds a command.
    ///
    /// # Errors
    ///
    /// The encoder's; no value of ours meets one.
    pub fn push(&mut self, command: &Command) -> Result<(), WireError> {
        let before = self.commands.len();
        if let Err(error) = write_named(&mut self.commands, command) {
            self.commands.truncate(before);
            return Err(error.into());
        }
        self.count += 1;
        Ok(())
    }

    /// Bytes collected.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.commands.len()
    }

    /// Commands collected.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.count
    }

    /// Whether no command was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The frame of what was collected; the builder is empty afterwards.
    ///
    /// # Errors
    ///
    /// [`WireError::TooLarge`] over the size cap.
    pub fn finish(&mut self, floor: u64) -> Result<Vec<u8>, WireError> {
        let mut body = Vec::with_capacity(self.commands.len() + 32);
        let written = rmp::encode::write_map_len(&mut body, 2)
            .and_then(|_| rmp::encode::write_str(&mut body, "floor"))
            .and_then(|()| rmp::encode::write_uint(&mut body, floor))
            .and_then(|_| rmp::encode::write_str(&mut body, "commands"))
            .and_then(|()| rmp::encode::write_array_len(&mut body, self.count));
        written.map_err(rmp_serde::encode::Error::from)?;
        body.append(&mut self.commands);
        self.count = 0;
        Envelope::new(MessageKind::Commands, None, &body).encode()
    }
}
