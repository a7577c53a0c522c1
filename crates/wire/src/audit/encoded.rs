//! Entries that are encoded once: the stored frame and those of subscribers
//! are put together from the same bytes.

use std::ops::Range;

use super::Entry;
use crate::envelope::{Envelope, MessageKind, WireError};

/// What stands between an entry's values: names, and lengths that never differ.
const BEFORE_INDEX: &[u8] = b"\x84\xa5index";
const BEFORE_HEADER: &[u8] = b"\xa6header";
const BEFORE_COMMITMENT: &[u8] = b"\xaacommitment\xc4\x20";
const BEFORE_LEAF: &[u8] = b"\xa4leaf\xc4\x20";

/// Bytes of an encoded entry besides its header, at most.
const ENTRY_BYTES: usize = 112;

/// Consecutive entries, encoded one behind the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entries {
    first_index: u64,
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

/// Where an entry's parts stand among the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    header: Range<usize>,
    end: usize,
}

impl Entries {
    /// No entries yet; the first one will have `first_index`. There is room for
    /// `count` entries with `header_bytes` of headers together.
    #[must_use]
    pub fn with_capacity(first_index: u64, count: usize, header_bytes: usize) -> Self {
        let bytes = Vec::with_capacity(header_bytes + count * ENTRY_BYTES);
        Self { first_index, bytes, spans: Vec::with_capacity(count) }
    }

    /// Adds the next entry.
    ///
    /// # Errors
    ///
    /// The encoder's; a header of ours meets none.
    pub fn push(
        &mut self,
        header: &[u8],
        commitment: &[u8; 32],
        leaf: &[u8; 32],
    ) -> Result<(), WireError> {
        let before = self.bytes.len();
        match self.write(header, commitment, leaf) {
            Ok(header) => {
                self.spans.push(Span { header, end: self.bytes.len() });
                Ok(())
            }
            Err(error) => {
                self.bytes.truncate(before);
                Err(rmp_serde::encode::Error::from(error).into())
            }
        }
    }

    fn write(
        &mut self,
        header: &[u8],
        commitment: &[u8; 32],
        leaf: &[u8; 32],
    ) -> Result<Range<usize>, rmp::encode::ValueWriteError> {
        let index = self.next_index();
        let bytes = &mut self.bytes;
        bytes.extend_from_slice(BEFORE_INDEX);
        rmp::encode::write_uint(bytes, index)?;
        bytes.extend_from_slice(BEFORE_HEADER);
        rmp::encode::write_bin(bytes, header)?;
        let header = bytes.len() - header.len()..bytes.len();
        bytes.extend_from_slice(BEFORE_COMMITMENT);
        bytes.extend_from_slice(commitment);
        bytes.extend_from_slice(BEFORE_LEAF);
        bytes.extend_from_slice(leaf);
        Ok(header)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Index that the next entry will have.
    #[must_use]
    pub fn next_index(&self) -> u64 {
        self.first_index + self.spans.len() as u64
    }

    /// Bytes of the entries at `places`, counted from 0; places beyond the end have none.
    #[must_use]
    pub fn bytes(&self, places: Range<usize>) -> usize {
        self.end_of(places.end).saturating_sub(self.end_of(places.start))
    }

    /// The entry at `place`, counted from 0.
    #[must_use]
    pub fn get(&self, place: usize) -> Option<Entry<'_>> {
        let Span { header, end } = self.spans.get(place)?;
        let commitment = self.bytes.get(header.end + BEFORE_COMMITMENT.len()..)?.first_chunk()?;
        let leaf = self.bytes.get(..*end)?.last_chunk()?;
        let index = self.first_index + place as u64;
        Some(Entry { index, header: self.bytes.get(header.clone())?, commitment, leaf })
    }

    /// The place behind as many entries from `place` on as have at most
    /// `bytes_max` together; behind one of them, if even that has more.
    #[must_use]
    pub fn fitting(&self, place: usize, bytes_max: usize) -> usize {
        let limit = self.end_of(place).saturating_add(bytes_max);
        let end = self.spans.partition_point(|span| span.end <= limit);
        end.max(place + 1).min(self.spans.len())
    }

    /// Where the bytes of the entries before `place` end.
    fn end_of(&self, place: usize) -> usize {
        let before = place.min(self.spans.len()).checked_sub(1);
        before.and_then(|before| self.spans.get(before)).map_or(0, |span| span.end)
    }
}

/// Puts a frame together from encoded entries: the bytes are those of
/// [`super::AuditFrame::encode`].
#[derive(Debug, Clone, Default)]
pub struct AuditFrameBuilder {
    entries: Vec<u8>,
    count: u32,
    first_index: Option<u64>,
}

impl AuditFrameBuilder {
    /// Adds the entries at `places`, counted from 0.
    pub fn push(&mut self, entries: &Entries, places: Range<usize>) {
        let end = places.end.min(entries.len());
        let count = end.saturating_sub(places.start);
        let bytes = entries.end_of(places.start)..entries.end_of(end);
        if count == 0 {
            return;
        }
        self.first_index.get_or_insert(entries.first_index + places.start as u64);
        self.entries.extend_from_slice(entries.bytes.get(bytes).unwrap_or_default());
        self.count = self.count.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// Bytes collected.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.entries.len()
    }

    /// The frame of what was collected, of journal messages up to `journal_sequence`.
    ///
    /// # Errors
    ///
    /// [`WireError::TooLarge`] over the size cap.
    pub fn finish(self, journal_sequence: u64) -> Result<Vec<u8>, WireError> {
        let mut body = Vec::with_capacity(self.entries.len() + 48);
        self.write_body(journal_sequence, &mut body).map_err(rmp_serde::encode::Error::from)?;
        Envelope::new(MessageKind::Audit, self.first_index, &body).encode()
    }

    fn write_body(
        &self,
        journal_sequence: u64,
        body: &mut Vec<u8>,
    ) -> Result<(), rmp::encode::ValueWriteError> {
        rmp::encode::write_map_len(body, 2)?;
        rmp::encode::write_str(body, "journal_sequence")?;
        rmp::encode::write_uint(body, journal_sequence)?;
        rmp::encode::write_str(body, "entries")?;
        rmp::encode::write_array_len(body, self.count)?;
        body.extend_from_slice(&self.entries);
        Ok(())
    }
}
