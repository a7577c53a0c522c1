//! Holding what is stored against what is derived, before anything is appended.

use fermata_wire::audit::{AuditFrame, Entry};

use super::{Anchor, AuditHalt, Auditor, Output, Phase, StoredFrom};
use crate::message::{Message, Now};

/// How a stored message stands to what was derived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Adopted {
    /// Its entries are those derived, or nobody's.
    Known,
    /// Its next entry is derived from a message that must be read again first.
    Waits,
    /// It goes on where the derived entries end. These end with the record by
    /// which the partition was taken over, and it is stored: so another owner
    /// has gone on from there. (A journal that was cut is no such case: there
    /// the takeover stands where the log has another entry.)
    Ahead,
}

impl Auditor {
    /// The journal is replayed: asks for what is stored, from the last signed
    /// entry on. A log that was cut behind it holds it.
    pub(super) fn compare(&mut self, outputs: &mut Vec<Output>) {
        if self.phase != Phase::Replaying {
            return;
        }
        if self.tree.size() < self.signed_size {
            let (signed, found) = (self.signed_size, self.tree.size());
            return self.halt(AuditHalt::JournalBehindCheckpoint { signed, found }, outputs);
        }
        if let Err(halt) = self.check_beginning() {
            return self.halt(halt, outputs);
        }
        self.phase = Phase::Comparing;
        self.stored_end = None;
        let from = StoredFrom::Entry(self.tree.size().saturating_sub(1));
        outputs.push(Output::ReadStored { from });
    }

    /// Takes over entries that are stored already, each held against the one derived.
    pub(super) fn hold_against_stored(&mut self, now: Now, outputs: &mut Vec<Output>) {
        while let Some(message) = self.stored.pop_front() {
            match self.adopt(&message, now, outputs) {
                Ok(Adopted::Known) => {}
                Ok(Adopted::Waits) => return self.stored.push_front(message),
                Ok(Adopted::Ahead) => {
                    self.phase = Phase::Ended;
                    let by = message.writer.unwrap_or_default();
                    return outputs.push(Output::StandDown { by });
                }
                Err(halt) => return self.halt(halt, outputs),
            }
            self.append.advance(message.sequence);
        }
        let Some((read_to, last_sequence)) = self.stored_end.take() else { return };
        self.append.advance(read_to);
        let end = self.append.last();
        if last_sequence > end {
            let from = StoredFrom::Sequence(end + 1);
            return outputs.push(Output::ReadStored { from });
        }
        if let Some(Anchor { size: signed, .. }) = self.anchor {
            return self.halt(AuditHalt::BehindCheckpoint { signed }, outputs);
        }
        self.phase = Phase::Live;
    }

    fn adopt(
        &mut self,
        message: &Message,
        now: Now,
        outputs: &mut Vec<Output>,
    ) -> Result<Adopted, AuditHalt> {
        if message.writer.is_none() {
            return Ok(Adopted::Known);
        }
        let frame = AuditFrame::decode(&message.payload).map_err(|error| {
            let (stream, sequence, detail) = ("audit log", message.sequence, error.to_string());
            AuditHalt::Unreadable { stream, sequence, detail }
        })?;
        let mut entries = frame.entries.iter().peekable();
        while let Some(entry) = entries.next_if(|entry| entry.index < self.tree.size()) {
            if self.anchor.is_some_and(|anchor| anchor.size == entry.index + 1) {
                let leaf = self.anchor.take().and_then(|anchor| anchor.leaf);
                if leaf.is_some_and(|leaf| leaf.as_bytes() != entry.leaf) {
                    return Err(AuditHalt::EntryMismatch { index: entry.index });
                }
            }
        }
        while let Some(entry) = entries.peek() {
            if entry.index != self.tree.size() {
                return Err(AuditHalt::EntryMissing { index: self.tree.size() });
            }
            let Some(front) = self.backlog.front() else {
                let unread = self.backlog.has_unread();
                return Ok(if unread { Adopted::Waits } else { Adopted::Ahead });
            };
            let mut count = 0;
            while let Some(derived) = front.entries.get(front.taken + count) {
                let Some(entry) = entries.next_if(|entry| entry.index >= derived.index) else {
                    break;
                };
                is_same(&derived, entry)?;
                count += 1;
            }
            self.stored_now(count, now, outputs);
        }
        Ok(Adopted::Known)
    }
}

fn is_same(derived: &Entry<'_>, entry: &Entry<'_>) -> Result<(), AuditHalt> {
    let index = derived.index;
    if entry.index != index {
        return Err(AuditHalt::EntryMissing { index });
    }
    match derived == entry {
        true => Ok(()),
        false => Err(AuditHalt::EntryMismatch { index }),
    }
}
