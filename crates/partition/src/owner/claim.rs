//! Replay and takeover.

use std::sync::Arc;

use fermata_core::digest::Digest;
use fermata_core::plan::Executable;
use fermata_core::record::{PartitionOwned, Record};

use super::{HaltReason, OpenFrame, Output, Owner, Phase};
use crate::fold::{Decoded, decode};
use crate::message::Now;

impl Owner {
    /// Folds what was read of the journal, and claims the partition at its end.
    pub(super) fn replay(&mut self, now: Now, outputs: &mut Vec<Output>) {
        if self.phase != Phase::Replaying || self.plan_awaited.is_some() {
            return;
        }
        while let Some(message) = self.journal_waiting.pop_front() {
            if message.sequence <= self.fold.last_sequence() {
                continue;
            }
            let decoded = match decode(&message) {
                Ok(decoded) => decoded,
                Err(error) => return self.halt(error.into(), outputs),
            };
            if let Decoded::Frame(_, records) = &decoded
                && let Some(missing) = self.fold.missing_plans(records).first().copied()
            {
                drop(decoded);
                self.journal_waiting.push_front(message);
                return self.fetch(missing, outputs);
            }
            if let Err(error) = self.fold.fold(message.sequence, &decoded) {
                return self.halt(error.into(), outputs);
            }
            let is_frame = matches!(decoded, Decoded::Frame(..));
            self.clock.see(message.broker_time_ns, now);
            let (sequence, frame) = (message.sequence, is_frame.then_some(message.payload));
            outputs.push(Output::Committed { sequence, frame });
        }
        let Some(end) = self.journal_end.take() else { return };
        let read = self.fold.last_sequence();
        if end > read {
            outputs.push(Output::Replay { from: read + 1 });
        } else if end < read {
            self.halt(HaltReason::JournalCut { expected: read, found: end }, outputs);
        } else if self.fold.next_index() < self.config.signed_records {
            let (signed, found) = (self.config.signed_records, self.fold.next_index());
            self.halt(HaltReason::RecordsGone { signed, found }, outputs);
        } else {
            self.claim(now, outputs);
        }
    }

    /// Appends `Owned` behind everything that was replayed.
    fn claim(&mut self, now: Now, outputs: &mut Vec<Output>) {
        self.append.advance(self.fold.last_sequence());
        self.clock.replayed(self.fold.time());
        self.phase = Phase::Claiming;
        let owned = PartitionOwned {
            epoch: self.fold.partition().epoch() + 1,
            worker: self.config.worker.clone(),
            incarnation: self.config.incarnation,
        };
        // Folded only when it is stored: until then nothing is owned.
        let record = Record::of_partition(owned.into());
        let time = self.clock.next(now);
        let first_record_index = self.fold.next_index();
        let salt = self.config.salts.salt();
        if self.builder.push(&record, first_record_index, time, salt).is_ok() {
            self.open = Some(OpenFrame { time, first_record_index, moved: false });
            self.close_frame(self.fold.partition().epoch() + 1, outputs);
        }
    }

    /// `Owned` is stored: from here on this owner decides.
    pub(super) fn own(&mut self, now: Now, outputs: &mut Vec<Output>) {
        let epoch = self.fold.partition().epoch() + 1;
        let time = self.clock.next(now);
        let owned = PartitionOwned {
            epoch,
            worker: self.config.worker.clone(),
            incarnation: self.config.incarnation,
        };
        self.fold.partition_mut().begin_frame(time);
        if self.fold.partition_mut().evolve(&Record::of_partition(owned.into())).is_err() {
            return;
        }
        self.phase = Phase::Owning;
        let position = self.fold.partition().position();
        self.commands_last = position.sequence;
        outputs.push(Output::Consume { position, epoch });
        self.begin_frame(now);
        self.lost = self.fold.partition().outstanding().into();
        let live = std::mem::take(&mut self.config.live);
        self.lost.retain(|lost| !live.contains(&(lost.key.clone(), lost.attempt)));
        self.fold.partition_mut().recover_partition(&mut self.decision);
        self.seal_decided(outputs);
        // A publish acknowledgement carries no time: read it back, so that the
        // journal's time follows the broker's from here on.
        outputs.push(Output::ReadTime { sequence: self.fold.last_sequence() });
    }

    pub(super) fn fetch(&mut self, digest: Digest, outputs: &mut Vec<Output>) {
        if self.plan_awaited != Some(digest) {
            self.plan_awaited = Some(digest);
            outputs.push(Output::FetchPlan(digest));
        }
    }

    pub(super) fn take_plan(
        &mut self,
        digest: Digest,
        plan: Option<Arc<Executable>>,
        now: Now,
        outputs: &mut Vec<Output>,
    ) {
        let found = plan.is_some();
        if let Some(plan) = plan {
            self.fold.add_plan(digest, plan);
        } else {
            self.plans_missing.insert(digest);
        }
        if self.plan_awaited != Some(digest) {
            return;
        }
        self.plan_awaited = None;
        if self.phase == Phase::Replaying {
            if !found {
                return self.halt(HaltReason::PlanMissing(digest), outputs);
            }
            self.replay(now, outputs);
        }
    }
}
