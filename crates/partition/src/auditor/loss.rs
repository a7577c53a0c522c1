//! Going on behind entries whose records are lost, where somebody accepted that.
//!
//! The record that accepts it holds all that is needed: the subtrees over the
//! lost entries, and the signed note that vouches for them. So nothing is read,
//! and what does not give the signed root is refused.

use fermata_audit::Checkpoint;
use fermata_core::record::TruncationAccepted;

use super::{Anchor, AuditHalt, Auditor, Phase};
use crate::truncation::{audit_loss, subtrees_of};

impl Auditor {
    /// Takes the tree behind the lost entries.
    pub(super) fn pass_loss(
        &mut self,
        accepted: &TruncationAccepted,
        journal_sequence: u64,
    ) -> Result<(), AuditHalt> {
        // Records up to there are derived, all of them, before anything is appended.
        debug_assert_eq!(
            self.phase,
            Phase::Replaying,
            "nobody accepts a loss while there is an owner"
        );
        let subtrees = subtrees_of(accepted);
        let verifier = [self.config.signer.verifier()];
        let tree = audit_loss(accepted, &subtrees)
            .extend(&self.tree, &self.config.origin, &verifier)
            .map_err(|reason| AuditHalt::LossUnproved { reason })?;
        // One between what was accepted on and what was published covers entries that
        // only the log holds: nothing here can tell whether they are those.
        if (accepted.signed + 1..accepted.next).contains(&self.signed_size) {
            let (signed, accepted) = (self.signed_size, accepted.signed);
            return Err(AuditHalt::LossBehindCheckpoint { signed, accepted });
        }
        let signed = self.config.checkpoint.as_ref();
        let signed = signed.filter(|signed| signed.size() == accepted.next).map(Checkpoint::root);
        if signed.is_some_and(|root| root != tree.root()) {
            return Err(AuditHalt::RootMismatch { size: accepted.next });
        }
        self.tree = tree;
        self.tree_journal_sequence = journal_sequence;
        self.last_leaf = None;
        if self.signed_size <= accepted.next {
            // That this entry is stored was seen when the loss was accepted; it must still be.
            self.signed_size = self.signed_size.max(accepted.signed);
            self.anchor = Some(Anchor { size: accepted.next, leaf: None });
        }
        Ok(())
    }
}
