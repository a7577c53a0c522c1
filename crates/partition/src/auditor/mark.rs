//! Where the log stands at a record, for a snapshot that ends there.
//!
//! An auditor derives the log from the journal, so without the journal's
//! beginning it needs the tree over the entries before. A snapshot holds it:
//! the owner says at which record it ends, and the auditor answers when exactly
//! those entries are stored and a checkpoint covers them.

use fermata_audit::{Checkpoint, Hash, Tree};

use super::{Anchor, AuditHalt, Auditor, Output, Phase};

/// The log at one record, vouched for by a signed note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditMark {
    /// Over the entries of all records before it.
    pub tree: Tree,
    /// Leaf of the last of them.
    pub last_leaf: Option<Hash>,
    /// The journal message that holds the last one's record.
    pub journal_sequence: u64,
    /// A signed checkpoint that covers them.
    pub note: String,
}

/// A mark that was asked for.
#[derive(Debug)]
pub(super) enum Pending {
    /// Until so many entries are stored.
    Stored(u64),
    /// Until they are signed.
    Signed { tree: Tree, last_leaf: Option<Hash>, journal_sequence: u64 },
}

impl Auditor {
    /// Begins behind the entries that a snapshot vouches for.
    pub(super) fn begin_behind(&mut self, mark: AuditMark) {
        if mark.tree.size() == self.signed_size {
            let (size, leaf) = (self.signed_size, mark.last_leaf);
            self.anchor = leaf.map(|leaf| Anchor { size, leaf: Some(leaf) });
        }
        self.backlog.begin_at(mark.tree.size());
        self.tree = mark.tree;
        self.tree_journal_sequence = mark.journal_sequence;
        self.last_leaf = mark.last_leaf;
    }

    /// Whether the tree that a snapshot brought is the signed one, if it ends
    /// where that does; if it ends before, the entries up to there show it.
    pub(super) fn check_beginning(&self) -> Result<(), AuditHalt> {
        let signed = self.config.checkpoint.as_ref();
        match signed.filter(|signed| signed.size() == self.tree.size()).map(Checkpoint::root) {
            Some(root) if root != self.tree.root() => {
                Err(AuditHalt::RootMismatch { size: self.tree.size() })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Notes that a snapshot ends where there are `size` records.
    ///
    /// All of them may be signed already: behind a partition that is idle nothing more will be,
    /// so the same checkpoint is signed once more, for the snapshot alone.
    pub(super) fn mark(&mut self, size: u64, outputs: &mut Vec<Output>) {
        self.pending_mark = Some(Pending::Stored(size));
        self.look_at_mark();
        if self.phase != Phase::Live || size != self.tree.size() || size != self.signed_size {
            return;
        }
        let (root, journal_sequence) = (self.tree.root(), self.tree_journal_sequence);
        let checkpoint = Checkpoint::new(&self.config.origin, size, root, journal_sequence);
        if let Ok(checkpoint) = checkpoint {
            self.signed_mark(&checkpoint.sign(&self.config.signer), outputs);
        }
    }

    /// Keeps the tree if it is the one that was asked for; one that is larger
    /// never becomes it.
    pub(super) fn look_at_mark(&mut self) {
        if matches!(self.pending_mark, Some(Pending::Stored(size)) if size == self.tree.size()) {
            self.pending_mark = Some(Pending::Signed {
                tree: self.tree.clone(),
                last_leaf: self.last_leaf,
                journal_sequence: self.tree_journal_sequence,
            });
        }
    }

    /// A checkpoint was signed: it may cover what was marked.
    pub(super) fn signed_mark(&mut self, note: &str, outputs: &mut Vec<Output>) {
        match self.pending_mark.take() {
            Some(Pending::Signed { tree, last_leaf, journal_sequence }) => {
                let note = note.to_owned();
                let mark = AuditMark { tree, last_leaf, journal_sequence, note };
                outputs.push(Output::Marked(Box::new(mark)));
            }
            other => self.pending_mark = other,
        }
    }

    /// An entry is stored: the tree and what is marked in it go on.
    pub(super) fn push_leaf(&mut self, leaf: Hash, journal_sequence: u64) {
        self.tree.push(leaf);
        self.tree_journal_sequence = journal_sequence;
        self.last_leaf = Some(leaf);
        self.look_at_mark();
    }
}
