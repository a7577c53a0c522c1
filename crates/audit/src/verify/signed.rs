//! The checkpoints: opened, in order, and compared with both trees as these
//! reach their sizes.

use std::collections::VecDeque;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::hash::Hash;
use crate::key::Verifier;
use crate::loss::{Loss, LossError};
use crate::tree::Tree;
use crate::verify::finding::{Finding, Stream};
use crate::verify::notice::{Notice, Notices};
use crate::verify::report::Findings;

/// Most checkpoints that wait for the trees: about 8 MiB. With more, the check
/// asks for records and entries first.
pub const CHECKPOINTS_PENDING_MAX: usize = 65_536;

/// Most checkpoints that are remembered, to tell a copy of an earlier one from
/// one that contradicts it: about 3 MiB. A copy of an older one is reported as
/// [`Finding::CheckpointShrunk`].
pub const CHECKPOINTS_REMEMBERED_MAX: usize = 65_536;

/// A checkpoint that not both trees have reached.
#[derive(Debug)]
struct Pending {
    number: u64,
    checkpoint: Checkpoint,
    audit_root: Option<Hash>,
    journal: Option<(Hash, u64)>,
}

/// All that is known of the signed states.
#[derive(Debug)]
pub(super) struct Signed {
    origin: String,
    verifiers: Vec<Verifier>,
    pending: VecDeque<Pending>,
    last: Option<Checkpoint>,
    /// Size and digest of the last checkpoints, by size.
    earlier: VecDeque<(u64, Hash)>,
    pub(super) notices: Notices,
    pub(super) ended: bool,
    pub(super) accepted: u64,
    /// Largest signed size at which AUDIT, or the journal, has the signed root.
    pub(super) audit_sound_to: u64,
    pub(super) journal_sound_to: u64,
    mismatch_reported: bool,
    /// Where AUDIT, and the journal, have ended.
    audit_end: Option<u64>,
    journal_end: Option<u64>,
    /// Number and size of the last checkpoint that lies past AUDIT's end.
    ahead: Option<(u64, u64)>,
}

impl Signed {
    pub(super) fn new(origin: &str, verifiers: Vec<Verifier>) -> Self {
        Self {
            origin: origin.to_owned(),
            verifiers,
            pending: VecDeque::new(),
            last: None,
            earlier: VecDeque::new(),
            notices: Notices::default(),
            ended: false,
            accepted: 0,
            audit_sound_to: 0,
            journal_sound_to: 0,
            mismatch_reported: false,
            audit_end: None,
            journal_end: None,
            ahead: None,
        }
    }

    /// Tree size of the last checkpoint.
    pub(super) fn size(&self) -> u64 {
        self.last.as_ref().map_or(0, Checkpoint::size)
    }

    pub(super) fn is_full(&self) -> bool {
        self.pending.len() >= CHECKPOINTS_PENDING_MAX
    }

    /// Whether a tree of `size` may grow: no checkpoint of that size can still come.
    pub(super) fn allows_growth(&self, size: u64) -> bool {
        self.ended || size < self.size()
    }

    /// Takes the next note, of the message `sequence`; returns its size if it is
    /// a checkpoint of this log, not fed before.
    pub(super) fn feed(
        &mut self,
        sequence: u64,
        note: &[u8],
        findings: &mut Findings,
    ) -> Option<u64> {
        let checkpoint = match Checkpoint::open(note, &self.verifiers) {
            Ok(checkpoint) => checkpoint,
            Err(reason @ CheckpointError::Note(_)) => {
                self.notices.add(Notice::NotSigned { sequence, reason });
                return None;
            }
            Err(reason) => {
                findings.add(Finding::BadCheckpoint { checkpoint: sequence, reason });
                return None;
            }
        };
        if checkpoint.origin() != self.origin {
            let origin = checkpoint.origin().to_owned();
            self.notices.add(Notice::OtherLog { sequence, origin });
            return None;
        }
        let (size, previous) = (checkpoint.size(), self.size());
        let digest = digest(&checkpoint);
        if self.earlier.binary_search(&(size, digest)).is_ok() {
            self.notices.add(Notice::Repeated { sequence, size });
            return None;
        }
        self.accepted += 1;
        let rival = self.earlier.binary_search_by_key(&size, |(size, _)| *size);
        if rival.is_ok() {
            findings.add(Finding::CheckpointFork { checkpoint: sequence, size });
        } else if self.last.is_some() && size < previous {
            findings.add(Finding::CheckpointShrunk { checkpoint: sequence, size, previous });
        } else {
            if self.earlier.len() >= CHECKPOINTS_REMEMBERED_MAX {
                self.earlier.pop_front();
            }
            self.earlier.push_back((size, digest));
            self.take(sequence, checkpoint, findings);
        }
        Some(size)
    }

    fn take(&mut self, number: u64, checkpoint: Checkpoint, findings: &mut Findings) {
        self.last = Some(checkpoint.clone());
        // The root of the empty tree was checked when it was opened.
        if checkpoint.size() > 0 {
            self.pending.push_back(Pending { number, checkpoint, audit_root: None, journal: None });
            self.settle(findings);
        }
    }

    /// Notes that AUDIT has grown to `size`.
    pub(super) fn audit_grew(
        &mut self,
        size: u64,
        root: impl Fn() -> Hash,
        findings: &mut Findings,
    ) {
        if let Some(pending) = self.at_size(size) {
            pending.audit_root = Some(root());
            self.settle(findings);
        }
    }

    /// Notes that the journal has grown to `size`, by a record in message `sequence`.
    pub(super) fn journal_grew(
        &mut self,
        size: u64,
        sequence: u64,
        root: impl Fn() -> Hash,
        findings: &mut Findings,
    ) {
        if let Some(pending) = self.at_size(size) {
            pending.journal = Some((root(), sequence));
            self.settle(findings);
        }
    }

    /// Notes that the journal would have grown to `size`, by a record that was removed: its message
    /// is taken to be the one that was signed.
    pub(super) fn removed_grew(
        &mut self,
        size: u64,
        root: impl Fn() -> Hash,
        findings: &mut Findings,
    ) {
        if let Some(pending) = self.at_size(size) {
            pending.journal = Some((root(), pending.checkpoint.journal_sequence()));
            self.settle(findings);
        }
    }

    /// The tree behind records that are lost, as far as this log's key vouches for it.
    pub(super) fn pass(&self, tree: &Tree, loss: &Loss<'_>) -> Result<Tree, LossError> {
        loss.extend(tree, &self.origin, &self.verifiers)
    }

    fn at_size(&mut self, size: u64) -> Option<&mut Pending> {
        let found = self.pending.binary_search_by_key(&size, |pending| pending.checkpoint.size());
        found.ok().and_then(|place| self.pending.get_mut(place))
    }

    /// Notes that AUDIT ends with `size` entries.
    pub(super) fn audit_ended(&mut self, size: u64, findings: &mut Findings) {
        self.audit_end = Some(size);
        self.settle(findings);
    }

    /// Notes that the journal ends with `size` records.
    pub(super) fn journal_ended(&mut self, size: u64, findings: &mut Findings) {
        self.journal_end = Some(size);
        self.settle(findings);
    }

    /// Judges the checkpoints that both trees have reached or will not reach.
    fn settle(&mut self, findings: &mut Findings) {
        let (audit_end, journal_end) = (self.audit_end, self.journal_end);
        let settled = |pending: &mut Pending| {
            let beyond = |end: Option<u64>| end.is_some_and(|end| end < pending.checkpoint.size());
            (pending.audit_root.is_some() || beyond(audit_end))
                && (pending.journal.is_some() || beyond(journal_end))
        };
        while let Some(pending) = self.pending.pop_front_if(settled) {
            self.judge(&pending, findings);
        }
    }

    fn judge(&mut self, pending: &Pending, findings: &mut Findings) {
        let (size, signed) = (pending.checkpoint.size(), pending.checkpoint.root());
        if pending.audit_root == Some(signed) {
            self.audit_sound_to = size;
        }
        if let Some((_, sequence)) = pending.journal.filter(|(root, _)| *root == signed) {
            self.journal_sound_to = size;
            if sequence != pending.checkpoint.journal_sequence() {
                findings.add(Finding::SequenceMismatch {
                    checkpoint: pending.number,
                    size,
                    signed: pending.checkpoint.journal_sequence(),
                    found: sequence,
                });
            }
        }
        if pending.audit_root.is_none() {
            self.ahead = Some((pending.number, size));
        }
        // Where AUDIT ends early, the journal is what is left to compare.
        let computed = pending.audit_root.or(pending.journal.map(|(root, _)| root));
        if let Some(computed) = computed.filter(|root| *root != signed && !self.mismatch_reported) {
            self.mismatch_reported = true;
            findings.add(Finding::RootMismatch {
                checkpoint: pending.number,
                size,
                sound_to: self.audit_sound_to,
                signed,
                computed,
            });
        }
    }

    /// Names the last checkpoint that AUDIT does not reach, and a log without any.
    pub(super) fn finish(&self, leaves: u64, findings: &mut Findings) {
        let notes = self.notices.count();
        if self.accepted == 0 && notes > 0 && leaves > 0 {
            findings.add(Finding::NothingSigned { notes, leaves });
        }
        if let Some((checkpoint, size)) = self.ahead {
            findings.add(Finding::CheckpointAhead { checkpoint, size, leaves });
        }
    }

    /// Which stream differs from what was signed, at these places in each.
    pub(super) fn culprit(&self, journal_position: u64, audit_position: u64) -> Stream {
        let journal_sound = self.journal_sound_to > journal_position;
        let audit_sound = self.audit_sound_to > audit_position;
        match (journal_sound, audit_sound) {
            (false, true) => Stream::Journal,
            (true, false) => Stream::Audit,
            (true, true) | (false, false) => Stream::Unknown,
        }
    }
}

/// What tells two checkpoints of one size apart.
fn digest(checkpoint: &Checkpoint) -> Hash {
    let sequence = checkpoint.journal_sequence().to_be_bytes();
    Hash::of(&[checkpoint.root().as_bytes(), &sequence])
}
