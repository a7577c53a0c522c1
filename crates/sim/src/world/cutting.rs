//! A power cut behind which the broker lacks the end of the journal: messages that it had
//! acknowledged, records of which were signed.
//!
//! Until somebody accepts the loss (ADR 33) nobody decides anything, and nobody appends to the audit
//! log or signs. From then on every invariant holds against what is left of the journal and what
//! follows it, and the life goes on until everything is complete. There is one partition here, so
//! there is no other one that would go on meanwhile.

use std::collections::BTreeSet;

use fermata_audit::{Hash, Subtrees};
use fermata_core::digest::Digest;
use fermata_core::identity::JournalTime;
use fermata_core::record::TruncationAccepted;
use fermata_partition::auditor::{self, AuditHalt};
use fermata_partition::message::AppendOutcome;
use fermata_partition::owner::{HaltReason, Output};
use fermata_partition::truncation::{Acceptance, JournalEnd};
use fermata_wire::journal::JournalFrame;
use uuid::Uuid;

use super::{EPOCH_MS, Happening, Reply, World};
use crate::broker::{Publish, StreamName};
use crate::dice::Dice;
use crate::trace::Broken;

/// How long the partition is looked at before the loss is accepted, milliseconds: several leases.
const LOOKED_AT_MS: u64 = 90_000;

/// Most messages that are lost besides those that must be for a signed record to be gone.
const LOST_FURTHER_MAX: u64 = 6;

/// A journal that lost its end.
#[derive(Debug)]
pub(super) struct Cut {
    /// Where it ends.
    left: u64,
    /// Workers that halted.
    halted: BTreeSet<usize>,
    /// When that was accepted.
    accepted_at_ms: Option<u64>,
}

impl World {
    /// Whether a life comes to a cut, and when: drawn apart, so that the others stay as they are.
    pub(super) fn plan_cut(&mut self, lives: u32) {
        let mut dice = Dice::new(self.seed ^ 0x0C07);
        if dice.chance(lives) {
            let after = dice.between(self.heal_at_ms / 8, self.heal_at_ms);
            self.after(after, Happening::Cut);
        }
    }

    /// Whether the journal lacks its end and nobody has accepted that.
    pub(super) fn is_cut_open(&self) -> bool {
        self.cut.as_ref().is_some_and(|cut| cut.accepted_at_ms.is_none())
    }

    /// How many losses were accepted.
    pub(super) fn losses_accepted(&self) -> u64 {
        u64::from(self.cut.as_ref().is_some_and(|cut| cut.accepted_at_ms.is_some()))
    }

    /// Since when everything can complete: faults have stopped, and no loss waits to be accepted.
    pub(super) fn whole_since_ms(&self) -> u64 {
        let accepted_at_ms = self.cut.as_ref().and_then(|cut| cut.accepted_at_ms);
        self.heal_at_ms.max(accepted_at_ms.unwrap_or(0))
    }

    /// The broker comes back without the end of the journal, and every process has lost what it knew.
    pub(super) fn cut(&mut self) -> Result<(), Broken> {
        let Some(left) = self.draw_end() else {
            self.log.line(self.now_ms, "a power cut, in which no signed record could be lost");
            return Ok(());
        };
        self.log.line(self.now_ms, format_args!("a power cut: the journal ends at {left}"));
        self.lose_what_is_under_way();
        self.broker.cut_journal(left);
        self.cut = Some(Cut { left, halted: BTreeSet::new(), accepted_at_ms: None });
        self.after(LOOKED_AT_MS, Happening::Accept);
        self.start_all_again()
    }

    /// What was under way is gone with the connections; those who put the load in send again what
    /// was not acknowledged.
    fn lose_what_is_under_way(&mut self) {
        let mut unanswered = BTreeSet::new();
        self.agenda.retain(|_, happening| {
            if let Happening::Arrive { reply: Some(Reply::Load(item)), .. }
            | Happening::Answer(Reply::Load(item), _) = happening
            {
                unanswered.insert(*item);
            }
            !matches!(
                happening,
                Happening::Arrive { .. } | Happening::Answer(..) | Happening::Intrude
            )
        });
        self.arrivals_pending = 0;
        for item in unanswered {
            let after = self.dice.between(50, 4_000);
            self.after(after, Happening::Load(item));
        }
    }

    fn start_all_again(&mut self) -> Result<(), Broken> {
        for worker in 0..self.workers.len() {
            self.crash(worker);
        }
        self.heal()
    }

    /// An end of the journal before which a signed record stands no more; nothing where there is
    /// none that could be gone on behind.
    fn draw_end(&mut self) -> Option<u64> {
        let (signed, journal) = (self.invariants.signed(), self.broker.stream(StreamName::Journal));
        let lacks = |left: u64| self.invariants.reference.records_up_to(left) < signed;
        let mut ends = (journal.purged_to() + 1..journal.last()).rev();
        let most = ends.find(|left| lacks(*left) && self.may_end_at(*left))?;
        let further = self.dice.below(LOST_FURTHER_MAX);
        let least = most.saturating_sub(further);
        Some(if self.may_end_at(least) { least } else { most })
    }

    /// Whether it holds a frame behind which somebody could begin.
    fn may_end_at(&self, left: u64) -> bool {
        let purged_to = self.broker.stream(StreamName::Journal).purged_to();
        let mut snapshots = self.broker.snapshots();
        let begins = snapshots
            .any(|stored| !stored.damaged && (purged_to..=left).contains(&stored.sequence));
        (purged_to == 0 || begins) && self.end_at(left).is_some()
    }

    /// The last frame up to there.
    fn end_at(&self, left: u64) -> Option<JournalEnd> {
        let journal = self.broker.stream(StreamName::Journal);
        let frames = (1..=left).rev().map_while(|sequence| journal.get(sequence));
        let mut frames = frames.filter(|message| message.writer.is_some());
        let frame = frames.find_map(|message| JournalFrame::decode(&message.payload).ok())?;
        Some(JournalEnd::of(&frame))
    }

    /// Before the loss is accepted an owner reads, and halts; it appends nothing and starts nothing.
    pub(super) fn invariant_a_cut_journal_decides_nothing(
        &self,
        output: &Output,
    ) -> Result<(), Broken> {
        let reads = matches!(
            output,
            Output::ReadJournal { .. }
                | Output::ReadTime { .. }
                | Output::Replay { .. }
                | Output::FetchPlan(_)
                | Output::Committed { .. }
                | Output::Halt(HaltReason::RecordsGone { .. } | HaltReason::JournalCut { .. })
        );
        if reads || !self.is_cut_open() {
            return Ok(());
        }
        let detail = format!("an owner says {output:?}");
        Err(Broken::new("invariant_a_cut_journal_decides_nothing", detail))
    }

    /// Nor does an auditor: it reads, and halts. It appends no entry, tells nobody of one, and signs
    /// nothing.
    pub(super) fn invariant_a_cut_journal_is_not_audited(
        &self,
        output: &auditor::Output,
    ) -> Result<(), Broken> {
        use auditor::Output as O;
        let reads = matches!(
            output,
            O::ReadAudit { .. } | O::ReadStored { .. } | O::ReadJournal { .. } | O::Halt(_)
        );
        if reads || !self.is_cut_open() {
            return Ok(());
        }
        let detail = format!("an auditor says {output:?}");
        Err(Broken::new("invariant_a_cut_journal_is_not_audited", detail))
    }

    /// Whoever sends it, nothing of the partition is stored, but commands for later.
    pub(super) fn invariant_a_cut_partition_stores_nothing(
        &self,
        stream: StreamName,
    ) -> Result<(), Broken> {
        if stream == StreamName::Commands || !self.is_cut_open() {
            return Ok(());
        }
        let detail = format!("{stream:?} gets a message");
        Err(Broken::new("invariant_a_cut_partition_stores_nothing", detail))
    }

    /// Whether the worker halts because of the cut: it stays so until it is started again.
    pub(super) fn halts_for_cut(&mut self, worker: usize) -> bool {
        let open = self.is_cut_open();
        if let Some(cut) = self.cut.as_mut().filter(|_| open) {
            cut.halted.insert(worker);
            self.say(worker, "halts: the journal lost its end");
        }
        open
    }

    /// Whether an auditor may halt for this: it may look before the owner does.
    pub(super) fn may_audit_halt(&self, reason: &AuditHalt) -> bool {
        let of_the_end = matches!(
            reason,
            AuditHalt::RecordsGone { .. } | AuditHalt::JournalBehindCheckpoint { .. }
        );
        of_the_end && self.is_cut_open()
    }

    /// Somebody accepts the loss, and starts everything again.
    pub(super) fn accept_loss(&mut self) -> Result<(), Broken> {
        let Some(Cut { left, halted, .. }) = &self.cut else { return Ok(()) };
        let (left, halted) = (*left, halted.len());
        let broken = |detail: String| Broken::new("invariant_a_cut_journal_halts", detail);
        if halted == 0 {
            return Err(broken("no worker has halted".to_owned()));
        }
        let last = self.broker.stream(StreamName::Journal).last();
        let Some(end) = self.end_at(left).filter(|_| last == left) else {
            return Err(broken(format!("the journal went on from {left} to {last}")));
        };
        let unacceptable = |detail: String| Broken::new("a_loss_can_be_accepted", detail);
        let accepted =
            self.loss_behind(&end).ok_or_else(|| unacceptable("no leaves".to_owned()))?;
        let acceptance = Acceptance {
            accepted: accepted.clone(),
            time: JournalTime(EPOCH_MS + self.now_ms),
            incarnation: Uuid::from_bytes(self.dice.bytes16()),
            salt: self.dice.bytes16(),
        };
        let frame = acceptance.frame(&end).map_err(|error| unacceptable(error.to_string()))?;
        let publish = Publish {
            stream: StreamName::Journal,
            expected_last_sequence: Some(left),
            writer: Some(frame.writer),
            payload: frame.payload,
        };
        let now_ms = EPOCH_MS + self.now_ms;
        let outcome = self.broker.arrive(&publish, now_ms, &self.faults, &mut self.dice);
        let AppendOutcome::Stored { sequence } = outcome else {
            return Err(unacceptable(format!("{outcome:?}")));
        };
        self.broker.remove_snapshots_behind(left);
        self.log.line(self.now_ms, format_args!("the loss is accepted at {sequence}"));
        if let Some(cut) = &mut self.cut {
            cut.accepted_at_ms = Some(self.now_ms);
        }
        let journal = self.broker.stream(StreamName::Journal);
        let commands = self.broker.stream(StreamName::Commands);
        self.invariants.accept_loss(accepted, journal, commands)?;
        self.start_all_again()
    }

    /// What is accepted: everything behind `end` that the audit log holds.
    fn loss_behind(&self, end: &JournalEnd) -> Option<TruncationAccepted> {
        let (from, signed) = (end.records, self.invariants.signed());
        let next = self.invariants.audited();
        let over = |from: u64, to: u64| -> Option<Vec<Hash>> {
            let leaves = self.invariants.reference.leaves();
            let range = usize::try_from(from).ok()?..usize::try_from(to).ok()?;
            let mut subtrees = Subtrees::over(from, to);
            leaves.get(range)?.iter().for_each(|leaf| subtrees.push(leaf.hash));
            subtrees.finish()
        };
        let subtrees = [over(from, signed)?, over(signed, next)?].concat();
        let checkpoint = self.broker.stream(StreamName::Checkpoints).messages().last()?;
        Some(TruncationAccepted {
            from,
            signed,
            next,
            checkpoint: String::from_utf8(checkpoint.payload.to_vec()).ok()?,
            subtrees: subtrees.into_iter().map(|hash| Digest(hash.0)).collect(),
            by: "ada".to_owned(),
            reason: "a power cut".to_owned(),
        })
    }
}
