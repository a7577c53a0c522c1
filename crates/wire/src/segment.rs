//! Segments of an archived journal: consecutive messages as they stood in the
//! stream, before they were purged from it.
//!
//! ```text
//! file{kind: "segment", version: 1, body, digest}
//! body{partition, first_record_index, next_record_index,
//!      messages: [{sequence, broker_time_ns, writer?, payload: bin}, …]}
//! ```

use fermata_core::identity::PartitionId;
use serde::{Deserialize, Serialize};
use serde_bytes::Bytes;

use crate::envelope::{WireError, write_named};
use crate::sealed_file::{FileError, FileKind, open, read_body, seal};

/// Kind and version of the file.
pub const SEGMENT: FileKind = FileKind { name: "segment", version: 1 };

/// A message of a journal as it stood in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchivedMessage<'a> {
    /// Its sequence.
    pub sequence: u64,
    /// When the broker stored it, nanoseconds since 1970.
    pub broker_time_ns: i64,
    /// Value of its writer header; absent when nobody of ours wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    pub writer: Option<&'a str>,
    /// Its bytes.
    #[serde(borrow)]
    pub payload: &'a Bytes,
}

/// Consecutive messages of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segment<'a> {
    /// Whose journal it is.
    pub partition: PartitionId,
    /// Index of its first record.
    pub first_record_index: u64,
    /// Index of the record that follows its last.
    pub next_record_index: u64,
    /// In order, without a hole between their sequences.
    #[serde(borrow)]
    pub messages: Vec<ArchivedMessage<'a>>,
}

impl<'a> Segment<'a> {
    /// Writes the segment.
    ///
    /// # Errors
    ///
    /// The encoder's; no segment of ours meets one.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        seal(SEGMENT, |bytes| write_named(bytes, self))
    }

    /// Reads a segment.
    ///
    /// # Errors
    ///
    /// [`FileError`], telling apart what is wrong; never panics, on any bytes.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FileError> {
        read_body(SEGMENT, open(SEGMENT, bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_reads_back_and_a_changed_one_does_not() {
        let message = |sequence, writer, payload| ArchivedMessage {
            sequence,
            broker_time_ns: -7,
            writer,
            payload: Bytes::new(payload),
        };
        let segment = Segment {
            partition: PartitionId(3),
            first_record_index: 5,
            next_record_index: 9,
            messages: vec![message(8, Some("w.1.0"), b"frame"), message(9, None, b"")],
        };

        let bytes = segment.encode().unwrap();

        assert_eq!(Segment::decode(&bytes).unwrap(), segment);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(Segment::decode(&changed).is_err(), "byte {at}");
            assert!(Segment::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }
}
