//! Messages of streams as the protocol sees them.

use bytes::Bytes;

/// A message as it stands in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Stream sequence, from 1.
    pub sequence: u64,
    /// The broker's timestamp, nanoseconds since 1970.
    pub broker_time_ns: i64,
    /// Value of the writer header; absent when nobody of ours wrote it.
    pub writer: Option<String>,
    /// The bytes.
    pub payload: Bytes,
}

/// Time as the caller reads it; inputs carry it, the protocol never asks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Milliseconds since 1970 by the own wall clock.
    pub wall_ms: u64,
    /// Milliseconds of a clock that never jumps.
    pub monotonic_ms: u64,
}

/// What became of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendOutcome {
    /// Stored at this sequence.
    Stored {
        /// The sequence.
        sequence: u64,
    },
    /// Refused because the stream does not end where the fence says (broker
    /// codes 10071, 10164, 10158).
    Conflict,
    /// Refused for another reason: the stream is full, not there, not allowed.
    Refused,
    /// No answer: it may be stored or not.
    Unknown,
}
