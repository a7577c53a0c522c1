//! What is derived and not stored: a queue with a bound.
//!
//! The journal is the durable queue behind it. A message that finds no room is
//! not kept; it is read again when there is room. So the bound needs nobody to
//! wait: not the owner's replay, which could never end if it waited for an
//! auditor that may append only when the replay has ended.

use std::collections::VecDeque;

use bytes::Bytes;
use fermata_core::record::TruncationAccepted;

use super::derive::{DerivedFrame, derive};
use super::{AuditHalt, Output};
use crate::message::Message;

/// Bytes of encoded entries that are kept until they are stored; one message's
/// more at most. What comes above it is read again from the journal. Some 100,000
/// entries: with the lag that an owner may have before it waits for its auditor,
/// few takeovers reach it.
pub const BACKLOG_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Journal messages that are asked for at once when reading again: at most 16 MiB.
pub const READ_AGAIN_MESSAGES_MAX: u64 = 16;

/// Derived and not stored, in order.
#[derive(Debug)]
pub(super) struct Backlog {
    frames: VecDeque<DerivedFrame>,
    bytes: usize,
    bytes_max: usize,
    /// Index of the next record to be derived.
    next_index: u64,
    /// The first and last journal message that was told and not kept.
    unread: Option<(u64, u64)>,
    reading: bool,
}

impl Backlog {
    pub(super) fn new(bytes_max: usize) -> Self {
        let frames = VecDeque::new();
        Self { frames, bytes: 0, bytes_max, next_index: 0, unread: None, reading: false }
    }

    /// The first record to be derived has this index: those before are stored.
    pub(super) fn begin_at(&mut self, index: u64) {
        self.next_index = index;
    }

    /// Derives the next message of the journal, or leaves it to be read again
    /// when there is no room. `None` is a message that holds no record.
    pub(super) fn take(&mut self, sequence: u64, frame: Option<&Bytes>) -> Result<(), AuditHalt> {
        if self.unread.is_some() || self.bytes >= self.bytes_max {
            let first = self.unread.map_or(sequence, |(first, _)| first);
            self.unread = Some((first, sequence));
            return Ok(());
        }
        self.derive(sequence, frame)
    }

    fn derive(&mut self, sequence: u64, frame: Option<&Bytes>) -> Result<(), AuditHalt> {
        let Some(frame) = frame else { return Ok(()) };
        let derived = derive(sequence, frame, self.next_index)?;
        self.next_index = derived.entries.next_index();
        if !derived.entries.is_empty() {
            self.bytes += derived.bytes();
            self.frames.push_back(derived);
        }
        Ok(())
    }

    /// Asks for messages that were not kept, once half of the room is free.
    pub(super) fn read_again(&mut self, outputs: &mut Vec<Output>) {
        let Some((from, last)) = self.unread else { return };
        if !self.reading && self.bytes <= self.bytes_max / 2 {
            self.reading = true;
            let to = last.min(from + READ_AGAIN_MESSAGES_MAX - 1);
            outputs.push(Output::ReadJournal { from, to });
        }
    }

    /// Derives messages that were read again. Fewer than were asked for, or
    /// others, change nothing: what is missing is asked for once more.
    pub(super) fn take_again(&mut self, messages: Vec<Message>) -> Result<(), AuditHalt> {
        self.reading = false;
        for message in messages {
            if self.bytes >= self.bytes_max {
                return Ok(());
            }
            let Some((from, last)) = self.unread.filter(|(from, _)| *from == message.sequence)
            else {
                continue;
            };
            let next = self.next_index;
            self.derive(from, message.writer.is_some().then_some(&message.payload))?;
            // The tree can go on behind lost entries only before anything is appended.
            if let Some(loss) = self.frames.back().and_then(|frame| frame.loss.as_ref()) {
                let (sequence, found) = (from, loss.next);
                return Err(AuditHalt::RecordsGone { sequence, found, next });
            }
            self.unread = (from < last).then_some((from + 1, last));
        }
        Ok(())
    }

    /// Whether nothing waits to be stored.
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.unread.is_none()
    }

    /// Whether a message was not kept and not read again yet.
    pub(super) fn has_unread(&self) -> bool {
        self.unread.is_some()
    }

    /// Bytes of what waits to be stored, without what was not kept.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The first journal message that is not stored as entries.
    pub(super) fn first_sequence(&self) -> Option<u64> {
        let unread = self.unread.map(|(first, _)| first);
        self.frames.front().map(|frame| frame.journal_sequence).or(unread)
    }

    /// Whether a frame that is kept stands behind entries whose records are lost.
    pub(super) fn has_loss(&self) -> bool {
        self.frames.back().is_some_and(|frame| frame.loss.is_some())
    }

    /// The tree has gone on behind the lost entries before the first frame.
    pub(super) fn take_loss(&mut self) -> Option<Box<TruncationAccepted>> {
        self.frames.front_mut().and_then(|front| front.loss.take())
    }

    /// What waits to be stored, in order.
    pub(super) fn frames(&self) -> impl Iterator<Item = &DerivedFrame> {
        self.frames.iter()
    }

    /// The first that is not stored.
    pub(super) fn front(&self) -> Option<&DerivedFrame> {
        self.frames.front()
    }

    /// Notes that the next `count` entries, of the first frame, are stored.
    pub(super) fn store(&mut self, count: usize) {
        let Some(front) = self.frames.front_mut() else { return };
        front.taken = (front.taken + count).min(front.entries.len());
        if front.taken == front.entries.len() {
            self.bytes -= front.bytes();
            self.frames.pop_front();
        }
    }
}
