//! When a checkpoint is due, and what it says.

use fermata_audit::Checkpoint;

use super::{Auditor, CHECKPOINT_INTERVAL_MS_MAX, CHECKPOINT_INTERVAL_MS_MIN, Output};
use crate::message::Now;

impl Auditor {
    /// Signs what is stored: at once when idle and not signed a moment ago, at the longest interval otherwise.
    pub(super) fn sign_if_due(&mut self, now: Now, outputs: &mut Vec<Output>) {
        let Some(since) = self.stored_since_ms else { return };
        if self.tree.size() <= self.signed_size {
            self.stored_since_ms = None;
            return;
        }
        let idle = self.backlog.is_empty() && !self.append.is_busy();
        let rested = now.monotonic_ms >= self.signed_at_ms + CHECKPOINT_INTERVAL_MS_MIN
            || self.signed_at_ms == 0;
        let overdue = now.monotonic_ms >= since + CHECKPOINT_INTERVAL_MS_MAX;
        if !((idle && rested) || overdue) {
            return;
        }
        let (size, journal_sequence) = (self.tree.size(), self.tree_journal_sequence);
        let Ok(checkpoint) =
            Checkpoint::new(&self.config.origin, size, self.tree.root(), journal_sequence)
        else {
            return;
        };
        let note = checkpoint.sign(&self.config.signer);
        self.signed_size = size;
        self.signed_at_ms = now.monotonic_ms.max(1);
        self.stored_since_ms = None;
        self.signed_mark(&note, outputs);
        outputs.push(Output::Checkpoint { note, size, journal_sequence });
    }
}
