//! Frames of records: the journal of a partition.
//!
//! ```text
//! envelope{kind: "journal", version: 1, first_record_index, body}
//! body{epoch, incarnation, number, time, position{sequence, broker_time_ns}, floor,
//!      records: [{header: bin, salt: bin(16), payload: bin}, …]}
//! ```
//!
//! Header and payload are MessagePack maps in `bin`, so that their bytes can be
//! hashed as they stand. A frame may hold no record: then it moves the position.

use fermata_core::identity::{JournalTime, StreamPosition};
use fermata_core::record::{Body, Header, Record};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::envelope::{Envelope, MessageKind, WireError, read, read_with, write_named};

/// Random bytes that hide a payload behind its commitment.
pub type Salt = [u8; 16];

/// What a frame says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    /// Epoch of the owner that wrote it.
    pub epoch: u64,
    /// 128 random bits drawn for each attempt to take the partition over.
    pub incarnation: Uuid,
    /// Counts the frames of an incarnation from 0.
    pub number: u64,
    /// Journal time of all its records.
    pub time: JournalTime,
    /// Command position consumed up to and with this frame.
    pub position: StreamPosition,
    /// Source floor taken over, see [`crate::commands::CommandFrame::floor`].
    pub floor: u64,
}

/// A record as it stands in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedRecord<'a> {
    /// MessagePack of [`Header`].
    #[serde(with = "serde_bytes")]
    pub header: &'a [u8],
    /// Key of the commitment to the payload.
    #[serde(with = "serde_bytes")]
    pub salt: &'a [u8; 16],
    /// MessagePack of the payload.
    #[serde(with = "serde_bytes")]
    pub payload: &'a [u8],
}

impl SealedRecord<'_> {
    /// Decodes the header.
    ///
    /// # Errors
    ///
    /// [`WireError`] if it is none.
    pub fn header(&self) -> Result<Header, WireError> {
        read("record header", self.header)
    }

    /// Decodes header and payload.
    ///
    /// # Errors
    ///
    /// [`WireError`] if either cannot be decoded.
    pub fn open(&self) -> Result<(Header, Record), WireError> {
        let header = self.header()?;
        let body = read_with(header.kind.as_str(), self.payload, |deserializer| {
            Body::deserialize_payload(header.kind, deserializer)
        })?;
        Ok((header.clone(), Record::from_parts(header, body)))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FrameBody<'a> {
    epoch: u64,
    incarnation: Uuid,
    number: u64,
    time: JournalTime,
    position: StreamPosition,
    floor: u64,
    #[serde(borrow)]
    records: Vec<SealedRecord<'a>>,
}

/// A decoded frame; its records are still sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalFrame<'a> {
    /// What it says about itself.
    pub head: FrameHead,
    /// Index of its first record, or of the next one when it holds none.
    pub first_record_index: u64,
    /// In order.
    pub records: Vec<SealedRecord<'a>>,
}

impl<'a> JournalFrame<'a> {
    /// Decodes a frame.
    ///
    /// # Errors
    ///
    /// [`WireError`], naming what is wrong; never panics, on any bytes.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let envelope = Envelope::decode(MessageKind::Journal, bytes)?;
        let body: FrameBody<'a> = read("journal", envelope.body)?;
        let FrameBody { epoch, incarnation, number, time, position, floor, records } = body;
        Ok(Self {
            head: FrameHead { epoch, incarnation, number, time, position, floor },
            first_record_index: envelope.first_record_index.unwrap_or(0),
            records,
        })
    }
}

/// Where a record's parts stand among the bytes of a [`FrameBuilder`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    header: (usize, usize),
    payload: (usize, usize),
    /// Key of the commitment to the payload.
    pub salt: Salt,
}

/// Collects encoded records for the next frame.
#[derive(Debug, Clone, Default)]
pub struct FrameBuilder {
    records: Vec<u8>,
    spans: Vec<Span>,
    scratch: Vec<u8>,
}

impl FrameBuilder {
    /// Adds a record under `index` and `time`.
    ///
    /// # Errors
    ///
    /// The encoder's; no record of ours meets one.
    pub fn push(
        &mut self,
        record: &Record,
        index: u64,
        time: JournalTime,
        salt: Salt,
    ) -> Result<(), WireError> {
        let before = self.records.len();
        match self.write(record, index, time, salt) {
            Ok(span) => {
                self.spans.push(span);
                Ok(())
            }
            Err(error) => {
                self.records.truncate(before);
                Err(error.into())
            }
        }
    }

    fn write(
        &mut self,
        record: &Record,
        index: u64,
        time: JournalTime,
        salt: Salt,
    ) -> Result<Span, rmp_serde::encode::Error> {
        rmp::encode::write_map_len(&mut self.records, 3)?;
        self.scratch.clear();
        write_named(&mut self.scratch, &record.header(index, time))?;
        let header = write_part(&mut self.records, "header", &self.scratch)?;
        write_part(&mut self.records, "salt", &salt)?;
        self.scratch.clear();
        let mut serializer = rmp_serde::Serializer::new(&mut self.scratch).with_struct_map();
        record.body.serialize_payload(&mut serializer)?;
        let payload = write_part(&mut self.records, "payload", &self.scratch)?;
        Ok(Span { header, payload, salt })
    }

    /// Records collected.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether no record was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Bytes collected.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.records.len()
    }

    /// Takes the records behind the first `records` out, into a builder of
    /// their own; each keeps the index and time it was pushed with.
    #[must_use]
    pub fn split_off(&mut self, records: usize) -> Self {
        let mut spans = self.spans.split_off(records.min(self.spans.len()));
        let end = self.spans.last().map_or(0, |span| span.payload.1);
        for span in &mut spans {
            for place in [&mut span.header, &mut span.payload] {
                *place = (place.0 - end, place.1 - end);
            }
        }
        Self { records: self.records.split_off(end), spans, scratch: Vec::new() }
    }

    /// Header bytes, salt and payload bytes of each record collected.
    pub fn parts(&self) -> impl Iterator<Item = (&[u8], &Salt, &[u8])> {
        self.spans.iter().map(|span| {
            let part = |(from, to): (usize, usize)| self.records.get(from..to).unwrap_or_default();
            (part(span.header), &span.salt, part(span.payload))
        })
    }

    /// The frame of what was collected; the builder is empty afterwards.
    ///
    /// # Errors
    ///
    /// [`WireError::TooLarge`] over the size cap.
    pub fn finish(
        &mut self,
        head: &FrameHead,
        first_record_index: u64,
    ) -> Result<Vec<u8>, WireError> {
        let mut body = Vec::with_capacity(self.records.len() + 192);
        self.write_body(head, &mut body)?;
        self.records.clear();
        self.spans.clear();
        Envelope::new(MessageKind::Journal, Some(first_record_index), &body).encode()
    }

    fn write_body(
        &self,
        head: &FrameHead,
        body: &mut Vec<u8>,
    ) -> Result<(), rmp_serde::encode::Error> {
        rmp::encode::write_map_len(body, 7)?;
        rmp::encode::write_str(body, "epoch")?;
        rmp::encode::write_uint(body, head.epoch)?;
        write_part(body, "incarnation", head.incarnation.as_bytes())?;
        rmp::encode::write_str(body, "number")?;
        rmp::encode::write_uint(body, head.number)?;
        rmp::encode::write_str(body, "time")?;
        rmp::encode::write_uint(body, head.time.0)?;
        rmp::encode::write_str(body, "position")?;
        write_named(body, &head.position)?;
        rmp::encode::write_str(body, "floor")?;
        rmp::encode::write_uint(body, head.floor)?;
        rmp::encode::write_str(body, "records")?;
        let count = u32::try_from(self.spans.len()).unwrap_or(u32::MAX);
        rmp::encode::write_array_len(body, count)?;
        body.extend_from_slice(&self.records);
        Ok(())
    }
}

/// Writes a named `bin` and says where its bytes stand.
fn write_part(
    bytes: &mut Vec<u8>,
    name: &str,
    part: &[u8],
) -> Result<(usize, usize), rmp_serde::encode::Error> {
    rmp::encode::write_str(bytes, name)?;
    rmp::encode::write_bin(bytes, part)?;
    Ok((bytes.len() - part.len(), bytes.len()))
}
