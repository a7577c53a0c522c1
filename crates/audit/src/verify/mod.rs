//! The whole check of one partition: that every journal record has its one entry
//! in AUDIT, and that the entries are those whose root was signed.
//!
//! Journal, AUDIT and checkpoints are read once, from their beginnings, in
//! bounded memory. [`PartitionVerifier::wants`] says what to feed next:
//!
//! ```text
//! loop { match verifier.wants() {
//!     Want::Journal    => the next record,     or end_of_journal
//!     Want::Audit      => the next entry,      or end_of_audit
//!     Want::Checkpoint => the next checkpoint, or end_of_checkpoints
//!     Want::Nothing    => break, finish
//! } }
//! ```
//!
//! On a live system read the end of CHECKPOINTS first, then that of AUDIT, then
//! that of the journal, and check up to these: each may run ahead of the one
//! read before it, never behind.

mod alignment;
mod finding;
mod loose;
mod notice;
mod report;
mod side;
mod signed;
#[cfg(test)]
mod tests;

use thiserror::Error;

pub use alignment::LOOK_AHEAD;
pub use finding::{FINDINGS_MAX, Finding, Part, Stream};
pub use loose::LOOSE_MAX;
pub use notice::{NOTICES_MAX, Notice};
pub use report::Report;
pub use signed::{CHECKPOINTS_PENDING_MAX, CHECKPOINTS_REMEMBERED_MAX};

use crate::hash::Hash;
use crate::key::Verifier;
use crate::leaf::{SALT_BYTES, commitment, leaf_hash};
use crate::loss::Loss;
use crate::verify::alignment::{Loose, pair_up, resynchronise};
use crate::verify::report::Findings;
use crate::verify::side::{Entry, Side};
use crate::verify::signed::Signed;

/// Most records, and most entries, that wait for their counterparts: about
/// 10 MiB each. With more, the check takes no more of that stream
/// ([`BufferFull`]) before the other one.
pub const PENDING_MAX: usize = 65_536;

/// A journal record, as far as its leaf depends on it.
#[derive(Debug, Clone, Copy)]
pub struct JournalLeaf<'bytes> {
    /// Index of the record, from its frame's first record index.
    pub index: u64,
    /// Public header, as stored.
    pub header: &'bytes [u8],
    /// Salt stored beside the payload.
    pub salt: &'bytes [u8; SALT_BYTES],
    /// Payload, as stored.
    pub payload: &'bytes [u8],
    /// Stream sequence of the journal message.
    pub journal_sequence: u64,
}

/// An entry of the AUDIT stream.
#[derive(Debug, Clone, Copy)]
pub struct AuditEntry<'bytes> {
    /// Index of the entry, from its frame's first record index.
    pub index: u64,
    /// Public header, as stored.
    pub header: &'bytes [u8],
    /// Commitment, as stored.
    pub commitment: &'bytes [u8; 32],
    /// Leaf hash, as stored.
    pub leaf: &'bytes Hash,
}

/// What a [`PartitionVerifier`] needs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// A journal record, or its end.
    Journal,
    /// An AUDIT entry, or its end.
    Audit,
    /// A checkpoint, or their end.
    Checkpoint,
    /// Nothing: all have ended.
    Nothing,
}

/// The item was not taken: something else must come before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the check cannot take this yet; feed what it wants first: {want:?}")]
pub struct BufferFull {
    /// What to feed first.
    pub want: Want,
}

/// The check of one partition, fed step by step.
#[derive(Debug)]
pub struct PartitionVerifier {
    allow_tail: bool,
    journal: Side,
    audit: Side,
    signed: Signed,
    loose: Vec<Loose>,
    findings: Findings,
    journal_sequence: u64,
    unaudited: u64,
    /// Up to where entries stand for records that are not there.
    removed: u64,
    /// The root that must come out there, where the records are lost.
    lost: Option<(u64, Hash)>,
}

impl PartitionVerifier {
    /// Starts the check of the log named `origin`, whose checkpoints are signed by
    /// any of `verifiers`.
    ///
    /// With `allow_tail`, records that AUDIT does not have yet and entries that no
    /// checkpoint covers yet are no findings; the report counts them.
    #[must_use]
    pub fn new(origin: &str, verifiers: Vec<Verifier>, allow_tail: bool) -> Self {
        Self {
            allow_tail,
            journal: Side::new(Stream::Journal),
            audit: Side::new(Stream::Audit),
            signed: Signed::new(origin, verifiers),
            loose: Vec::new(),
            findings: Findings::default(),
            journal_sequence: 0,
            unaudited: 0,
            removed: 0,
            lost: None,
        }
    }

    /// Tells what to feed next. Anything else may be fed too, up to the bounds.
    #[must_use]
    pub fn wants(&self) -> Want {
        // What was removed comes from AUDIT.
        let journal_first =
            self.journal.pending.len() <= self.audit.pending.len() && !self.awaits_removed();
        let order = if journal_first {
            [(&self.journal, Want::Journal), (&self.audit, Want::Audit)]
        } else {
            [(&self.audit, Want::Audit), (&self.journal, Want::Journal)]
        };
        let mut blocked = !self.signed.ended;
        for (side, want) in order {
            if side.ended {
                continue;
            }
            if self.signed.allows_growth(side.tree.size()) {
                return want;
            }
            if !self.signed.is_full() {
                return Want::Checkpoint;
            }
            blocked = true;
        }
        if blocked { Want::Checkpoint } else { Want::Nothing }
    }

    /// Takes the next journal record.
    ///
    /// # Errors
    ///
    /// [`BufferFull`] if something else must be fed before it.
    pub fn journal(&mut self, record: JournalLeaf<'_>) -> Result<(), BufferFull> {
        self.check_room(&self.journal)?;
        if self.awaits_removed() {
            return Err(BufferFull { want: self.wants() });
        }
        let position = self.journal.tree.size();
        if record.journal_sequence < self.journal_sequence {
            self.findings.add(Finding::SequenceDecreased { index: position });
        }
        self.journal_sequence = record.journal_sequence;
        let commitment = commitment(record.salt, record.payload);
        let leaf = leaf_hash(record.header, &commitment);
        let header = Hash::of(&[record.header]);
        let declared = record.index;
        self.journal.push(Entry { position, declared, header, commitment, leaf, stored: leaf });
        let tree = &self.journal.tree;
        let sequence = record.journal_sequence;
        self.signed.journal_grew(tree.size(), sequence, || tree.root(), &mut self.findings);
        self.advance();
        Ok(())
    }

    /// Says that the next records of the journal, up to index `next`, were removed on purpose: their
    /// entries in AUDIT stand for them. That these are the ones that were signed is checked as ever;
    /// what the records said is not.
    ///
    /// # Errors
    ///
    /// [`BufferFull`] while entries stand for records before these: feed what is wanted first.
    pub fn journal_removed(&mut self, next: u64) -> Result<(), BufferFull> {
        if self.journal.ended || self.awaits_removed() {
            return Err(BufferFull { want: self.wants() });
        }
        self.let_entries_stand(next);
        Ok(())
    }

    /// Says that the next records of the journal are lost, and that somebody accepted that:
    /// their entries in AUDIT stand for them. That these are the ones that were published and
    /// signed is checked; what the records said is not. A loss that does not fit is a
    /// [`Finding::LossUnproved`], and then nothing stands for what is missing.
    ///
    /// # Errors
    ///
    /// [`BufferFull`] while entries stand for records before these: feed what is wanted first.
    pub fn journal_lost(&mut self, loss: Loss<'_>) -> Result<(), BufferFull> {
        if self.journal.ended || self.awaits_removed() {
            return Err(BufferFull { want: self.wants() });
        }
        match self.signed.pass(&self.journal.tree, &loss) {
            Ok(tree) => {
                self.lost = Some((loss.next, tree.root()));
                self.let_entries_stand(loss.next);
            }
            Err(reason) => {
                self.findings.add(Finding::LossUnproved { index: loss.from, reason });
                self.journal.renumber();
            }
        }
        Ok(())
    }

    /// From here on up to index `next`, entries stand for records that are not there.
    fn let_entries_stand(&mut self, next: u64) {
        let missing = self.journal.tree.size()..next;
        self.removed = next;
        // Those that came first as well.
        let before = |entry: &&Entry| missing.contains(&entry.position);
        let entries: Vec<_> = self.audit.pending.iter().filter(before).copied().collect();
        entries.into_iter().for_each(|entry| self.stand_in(entry));
        self.advance();
    }

    /// Puts an entry in the place of its record, which is not there.
    fn stand_in(&mut self, entry: Entry) {
        self.journal.push(Entry { stored: entry.leaf, ..entry });
        let tree = &self.journal.tree;
        self.signed.removed_grew(tree.size(), || tree.root(), &mut self.findings);
        if let Some((_, root)) = self.lost.take_if(|(size, _)| *size == tree.size())
            && root != tree.root()
        {
            self.findings.add(Finding::LossDiffers { index: entry.position });
        }
    }

    /// Takes the next AUDIT entry.
    ///
    /// # Errors
    ///
    /// [`BufferFull`] if something else must be fed before it.
    pub fn audit(&mut self, entry: AuditEntry<'_>) -> Result<(), BufferFull> {
        self.check_room(&self.audit)?;
        let position = self.audit.tree.size();
        let entry = Entry {
            position,
            declared: entry.index,
            header: Hash::of(&[entry.header]),
            commitment: *entry.commitment,
            leaf: leaf_hash(entry.header, entry.commitment),
            stored: *entry.leaf,
        };
        self.audit.push(entry);
        if position < self.removed && position == self.journal.tree.size() {
            self.stand_in(entry);
        }
        let tree = &self.audit.tree;
        self.signed.audit_grew(tree.size(), || tree.root(), &mut self.findings);
        self.advance();
        Ok(())
    }

    /// Takes the next checkpoint: a signed note, and the stream sequence of its
    /// message. Returns the size if it is a checkpoint of this log by a known key
    /// that was not fed before, whether or not it agrees with the log. What no
    /// known key signed, and what is a copy, is a [`Notice`].
    ///
    /// # Errors
    ///
    /// [`BufferFull`] if something else must be fed before it.
    pub fn checkpoint(&mut self, sequence: u64, note: &[u8]) -> Result<Option<u64>, BufferFull> {
        if self.signed.ended || self.signed.is_full() {
            return Err(BufferFull { want: self.wants() });
        }
        Ok(self.signed.feed(sequence, note, &mut self.findings))
    }

    /// Says that the journal has no more records.
    pub fn end_of_journal(&mut self) {
        self.journal.ended = true;
        self.signed.journal_ended(self.journal.tree.size(), &mut self.findings);
        self.advance();
    }

    /// Says that AUDIT has no more entries.
    pub fn end_of_audit(&mut self) {
        self.audit.ended = true;
        self.signed.audit_ended(self.audit.tree.size(), &mut self.findings);
        self.advance();
    }

    /// Says that there are no more checkpoints.
    pub fn end_of_checkpoints(&mut self) {
        self.signed.ended = true;
    }

    /// Ends all streams and reports.
    #[must_use]
    pub fn finish(mut self) -> Report {
        self.end_of_checkpoints();
        self.end_of_journal();
        self.end_of_audit();
        let (records, leaves) = (self.journal.tree.size(), self.audit.tree.size());
        let checkpoint_size = self.signed.size();
        self.signed.finish(leaves, &mut self.findings);
        loose::judge(&mut self.loose, &self.signed, &mut self.findings);
        self.judge_tail(records, leaves);
        let (findings, findings_omitted) = self.findings.into_parts();
        Report {
            leaves,
            records,
            checkpoints: self.signed.accepted,
            checkpoint_size,
            sound_to: self.signed.audit_sound_to,
            root: self.audit.tree.root(),
            unaudited: self.unaudited,
            unsigned: leaves.saturating_sub(checkpoint_size),
            findings,
            findings_omitted,
            notices_omitted: self.signed.notices.omitted,
            notices: self.signed.notices.list,
        }
    }

    /// Judges what the journal has past AUDIT, and AUDIT past the checkpoints.
    fn judge_tail(&mut self, records: u64, leaves: u64) {
        let size = self.signed.size();
        // What was signed was in AUDIT, so it is no tail.
        let lost = size.saturating_sub(leaves).min(self.unaudited);
        let count = if self.allow_tail { lost } else { self.unaudited };
        let audited = records - self.unaudited;
        if count > 0 {
            self.findings.add(Finding::Missing { index: audited, count, stream: Stream::Audit });
        }
        if size < leaves && !self.allow_tail {
            self.findings.add(Finding::CheckpointBehind { size, leaves });
        }
        if audited != leaves {
            self.findings.add(Finding::SizeMismatch { records: audited, leaves });
        }
    }

    /// Whether entries that stand for removed records are still to come.
    fn awaits_removed(&self) -> bool {
        self.journal.tree.size() < self.removed && !self.audit.ended
    }

    fn check_room(&self, side: &Side) -> Result<(), BufferFull> {
        let grows = self.signed.allows_growth(side.tree.size());
        if side.ended || !grows || side.pending.len() >= PENDING_MAX {
            return Err(BufferFull { want: self.wants() });
        }
        Ok(())
    }

    /// Pairs what can be paired.
    fn advance(&mut self) {
        loop {
            match (self.journal.pending.front(), self.audit.pending.front()) {
                (Some(record), Some(entry)) if record.is_counterpart(entry) => self.pair(),
                (Some(_), Some(_)) if self.sees_far_enough() => self.pass_over(),
                (Some(_), None) if self.audit.ended => self.pass_tail(),
                (None, Some(_)) if self.journal.ended => self.loosen(0, usize::MAX),
                (Some(_) | None, Some(_) | None) => return,
            }
        }
    }

    /// Takes what the journal has past the last entry: not audited yet, unless its
    /// entry stands elsewhere.
    fn pass_tail(&mut self) {
        for record in self.journal.take(usize::MAX) {
            let is_own = |entry: Entry| record.is_counterpart(&entry);
            if !self.loose.iter().any(|one| one.audit.is_some_and(is_own)) {
                self.unaudited += 1;
                continue;
            }
            self.loose.push(Loose {
                journal: Some(record),
                audit: None,
                journal_position: record.position,
                audit_position: self.audit.tree.size(),
                skipped: true,
            });
        }
    }

    fn pair(&mut self) {
        let (Some(record), Some(entry)) =
            (self.journal.pending.pop_front(), self.audit.pending.pop_front())
        else {
            return;
        };
        if record.leaf != entry.leaf || record.leaf != entry.stored {
            loose::changed(&record, &entry, Stream::Audit, &mut self.findings);
        }
        let misnumbered = [self.journal.check_number(&record), self.audit.check_number(&entry)];
        misnumbered.into_iter().flatten().for_each(|finding| self.findings.add(finding));
    }

    /// Whether both heads are long enough to seek the next pair.
    fn sees_far_enough(&self) -> bool {
        [&self.journal, &self.audit]
            .iter()
            .all(|side| side.ended || side.pending.len() >= LOOK_AHEAD)
    }

    /// Passes over the heads up to where the streams agree again.
    fn pass_over(&mut self) {
        let (records, entries) = resynchronise(&self.journal.pending, &self.audit.pending)
            .unwrap_or_else(|| {
                let journal = self.journal.pending.len().min(LOOK_AHEAD);
                let audit = self.audit.pending.len().min(LOOK_AHEAD);
                // Behind the last entry, records are only not audited yet.
                if audit == self.audit.pending.len() && self.audit.ended {
                    (journal.min(audit), audit)
                } else {
                    (journal, audit)
                }
            });
        self.loosen(records, entries);
    }

    /// Takes so many records and entries off the heads, as without counterpart.
    fn loosen(&mut self, records: usize, entries: usize) {
        let skipped_in_audit = self.audit.skips_numbers_after(entries);
        let skipped_in_journal = self.journal.skips_numbers_after(records);
        let journal = self.journal.take(records);
        let audit = self.audit.take(entries);
        if journal.len() != audit.len() {
            self.journal.renumber();
            self.audit.renumber();
        }
        let start = |taken: &[Entry], side: &Side| {
            let next = taken.first().or(side.pending.front());
            next.map_or(side.tree.size(), |entry| entry.position)
        };
        let mut journal_position = start(&journal, &self.journal);
        let mut audit_position = start(&audit, &self.audit);
        for (journal, audit) in pair_up(journal, audit) {
            let skipped = if journal.is_some() { skipped_in_audit } else { skipped_in_journal };
            self.loose.push(Loose { journal, audit, journal_position, audit_position, skipped });
            journal_position += u64::from(journal.is_some());
            audit_position += u64::from(audit.is_some());
            if self.loose.len() >= LOOSE_MAX {
                loose::judge(&mut self.loose, &self.signed, &mut self.findings);
            }
        }
    }
}
