//! Lines of bounded length, read from something of any length.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _};

/// What some programs put before UTF-8; it is no part of the text.
pub(super) const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// A line without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Its bytes.
    Bytes(Vec<u8>),
    /// It has so many bytes, more than is read.
    TooLong(usize),
}

/// Reads line by line and keeps one.
#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: R,
    bytes_max: usize,
    number: u64,
    line: Vec<u8>,
    /// Bytes of the line that were passed over.
    beyond: usize,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    /// From the beginning.
    pub(super) fn new(reader: R, bytes_max: usize) -> Self {
        Self { reader, bytes_max, number: 0, line: Vec::new(), beyond: 0 }
    }

    /// The next line and its number, from 1; nothing at the end.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when dropped: what was read of a line is kept.
    pub(super) async fn next(&mut self) -> io::Result<Option<(u64, Line)>> {
        loop {
            let available = self.reader.fill_buf().await?;
            let end = available.iter().position(|byte| *byte == b'\n');
            let part = available.get(..end.unwrap_or(available.len())).unwrap_or_default();
            let at_end = available.is_empty();
            if self.line.len() + part.len() > self.bytes_max || self.beyond > 0 {
                self.beyond += self.line.len() + part.len();
                self.line = Vec::new();
            } else {
                self.line.extend_from_slice(part);
            }
            let consumed = part.len() + usize::from(end.is_some());
            self.reader.consume(consumed);
            if end.is_none() && !at_end {
                continue;
            }
            if at_end && self.line.is_empty() && self.beyond == 0 {
                return Ok(None);
            }
            self.number += 1;
            if self.number == 1 && self.line.starts_with(BYTE_ORDER_MARK) {
                self.line.drain(..BYTE_ORDER_MARK.len());
            }
            let line = match std::mem::take(&mut self.beyond) {
                0 => Line::Bytes(std::mem::take(&mut self.line)),
                bytes => Line::TooLong(bytes),
            };
            return Ok(Some((self.number, line)));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::BufReader;

    use super::*;

    async fn read(text: &str, capacity: usize) -> Vec<(u64, Line)> {
        let mut lines = Lines::new(BufReader::with_capacity(capacity, text.as_bytes()), 4);
        let mut found = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            found.push(line);
        }
        found
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_passed_over_and_counted() {
        for capacity in [1, 3, 100] {
            let found = read("ab\n\nabcdefg\nabcd\nz", capacity).await;

            let bytes = |text: &str| Line::Bytes(text.as_bytes().to_vec());
            let expected = [bytes("ab"), bytes(""), Line::TooLong(7), bytes("abcd"), bytes("z")];
            assert_eq!(found, (1..).zip(expected).collect::<Vec<_>>(), "{capacity}");
        }
        assert_eq!(read("", 1).await, []);
    }

    #[tokio::test]
    async fn a_byte_order_mark_is_no_part_of_the_first_line() {
        let found = read("\u{feff}a\n\u{feff}b", 100).await;

        let bytes = |text: &str| Line::Bytes(text.as_bytes().to_vec());
        assert_eq!(found, [(1, bytes("a")), (2, bytes("\u{feff}b"))]);
    }
}
