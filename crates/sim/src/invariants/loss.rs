//! A journal that lost its end, once somebody accepted that (ADR 33): what is left is read anew,
//! and everything holds against that, but for what the lost records had set off.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use fermata_core::effect::Attempt;
use fermata_core::identity::RunId;
use fermata_core::record::TruncationAccepted;
use fermata_partition::fold::JournalFold;

use super::{Invariants, Reference};
use crate::broker::Stream;
use crate::trace::Broken;

/// What a journal goes on without.
pub(super) struct Lost {
    pub(super) accepted: TruncationAccepted,
    /// Attempts that lost records ordered, and that no record does that is left. They may wait in
    /// a queue, they may have been made, and the partition may order them once more.
    ordered: BTreeSet<(RunId, Arc<str>, u32)>,
}

impl Invariants {
    /// Reads what is left of the journal; its last message accepts the loss.
    ///
    /// The audit log is the one that it was. So what is signed from here on must extend what was
    /// signed before, and what is appended must be the new records, behind all that was published.
    pub(crate) fn accept_loss(
        &mut self,
        accepted: TruncationAccepted,
        journal: &Stream,
        commands: &Stream,
    ) -> Result<(), Broken> {
        let partition = self.reference.fold().partition();
        let plans = partition.plans().iter();
        let plans: Vec<_> = plans.map(|(digest, plan)| (*digest, plan.clone())).collect();
        let fold = JournalFold::new(partition.id(), *partition.limits());
        let before = std::mem::replace(&mut self.reference, Reference::new(fold, &plans));
        let Some((acceptance, left)) = journal.messages().split_last() else { return Ok(()) };
        for message in left {
            self.on_journal(message, commands)?;
        }
        let ordered = before.attempts_ordered().filter(|attempt| {
            let is_left = self.reference.dispatched(attempt).is_some();
            !is_left
        });
        let ordered = ordered.cloned().collect();
        self.reference.push_lost(before, &accepted, acceptance.sequence);
        self.on_journal(acceptance, commands)?;
        self.started.retain(|attempt| self.reference.dispatched(attempt).is_some());
        self.audited_sequence = acceptance.sequence;
        self.lost = Some(Lost { accepted, ordered });
        Ok(())
    }

    /// Whether a lost record ordered the attempt.
    pub(crate) fn was_lost(&self, attempt: &Attempt) -> bool {
        let name = (attempt.run, attempt.node.clone(), attempt.attempt);
        self.lost.as_ref().is_some_and(|lost| lost.ordered.contains(&name))
    }

    /// Whether a lost record ordered an attempt of the effect: then it may be committed again, also
    /// where the target is not idempotent.
    pub(super) fn may_be_repeated(&self, run: RunId, node: &Arc<str>) -> bool {
        self.lost.as_ref().is_some_and(|lost| {
            let mut ordered = lost.ordered.iter();
            ordered.any(|(of, at, _)| *of == run && at == node)
        })
    }

    /// Entries that nobody can send again: their records are lost, and the checkpoint that told
    /// what was sent does not cover them.
    pub(super) fn never_sent(&self) -> Range<u64> {
        self.lost.as_ref().map_or(0..0, |lost| lost.accepted.signed..lost.accepted.next)
    }
}
