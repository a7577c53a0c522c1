//! Reply subjects of publishes: `<inbox>.<slot>-<serial>`, never used twice.
//!
//! The slot finds the publish without a lookup table; the serial makes the subject unique, because a
//! second answer to an old publish (possible when the leader of a replicated stream changes) must
//! never be taken for the answer to a newer one in the same slot.

use async_nats::Subject;
use bytes::BytesMut;

/// How much room for reply subjects is taken from the allocator at a time, in bytes.
const ARENA_BYTES: usize = 16 * 1024;

/// Longest token: two numbers in hexadecimal and a hyphen.
const TOKEN_BYTES_MAX: usize = 8 + 1 + 16;

/// Identifies one publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReplyToken {
    pub(crate) slot: u32,
    pub(crate) serial: u64,
}

/// Writes reply subjects one after the other into shared chunks of memory.
#[derive(Debug)]
pub(crate) struct ReplySubjects {
    prefix: Vec<u8>,
    arena: BytesMut,
}

impl ReplySubjects {
    /// `inbox` comes without a dot at its end.
    pub(crate) fn new(inbox: &str) -> Self {
        Self { prefix: format!("{inbox}.").into_bytes(), arena: BytesMut::new() }
    }

    pub(crate) fn write(&mut self, token: ReplyToken) -> Subject {
        let length = self.prefix.len() + TOKEN_BYTES_MAX;
        if self.arena.capacity() < length {
            self.arena.reserve(ARENA_BYTES.max(length));
        }
        self.arena.extend_from_slice(&self.prefix);
        push_hexadecimal(&mut self.arena, u64::from(token.slot));
        self.arena.extend_from_slice(b"-");
        push_hexadecimal(&mut self.arena, token.serial);
        let bytes = self.arena.split().freeze();
        // The prefix was a `str` and the rest is ASCII, so this cannot fail.
        Subject::from_utf8(bytes).unwrap_or_else(|_| Subject::from_static("_INBOX"))
    }

    /// Reads the token back from the subject of an answer.
    pub(crate) fn read(prefix_bytes: usize, subject: &str) -> Option<ReplyToken> {
        let (slot, serial) = subject.get(prefix_bytes..)?.split_once('-')?;
        Some(ReplyToken {
            slot: u32::from_str_radix(slot, 16).ok()?,
            serial: u64::from_str_radix(serial, 16).ok()?,
        })
    }

    pub(crate) fn prefix_bytes(&self) -> usize {
        self.prefix.len()
    }
}

fn push_hexadecimal(target: &mut BytesMut, number: u64) {
    let digits = (64 - number.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        let nibble = u8::try_from((number >> (digit * 4)) & 0xf).unwrap_or_default();
        let character = if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
        target.extend_from_slice(&[character]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_comes_back_as_it_was_written(slot in any::<u32>(), serial in any::<u64>()) {
            let mut subjects = ReplySubjects::new("_INBOX.abc");
            let token = ReplyToken { slot, serial };

            let subject = subjects.write(token);

            prop_assert_eq!(ReplySubjects::read(subjects.prefix_bytes(), &subject), Some(token));
            prop_assert!(subject.is_valid());
        }
    }
}
