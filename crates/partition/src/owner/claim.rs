//! Replay and takeover.

use std::convert::Infallible;

use fermata_core::record::{PartitionOwned, Record};

use super::unit::guarded;
use super::{Cause, HaltReason, OpenFrame, Output, Owner, Phase};
use crate::fold::{Decoded, decode};
use crate::message::Now;

impl Owner {
    /// Folds what was read of the journal, and claims the partition at its end.
    pub(super) fn replay(&mut self, now: Now, outputs: &mut Vec<Output>) {
        if self.phase != Phase::Replaying || self.plans.is_awaited() {
            return;
        }
        if !self.restore(outputs) {
            return;
        }
        while let Some(message) = self.journal_waiting.pop_front() {
            if message.sequence <= self.fold.last_sequence() {
                continue;
            }
            let decoded = match guarded(|| Ok::<_, Infallible>(decode(&message))) {
                Ok(Ok(decoded)) => decoded,
                Ok(Err(error)) => return self.halt(error.into(), outputs),
                Err(cause) => return self.fail_replay(cause, outputs),
            };
            if let Decoded::Frame(_, records) = &decoded
                && let Some(missing) = self.fold.missing_plans(records).first().copied()
            {
                drop(decoded);
                self.journal_waiting.push_front(message);
                return self.fetch(missing, outputs);
            }
            let fold = || Ok::<_, Infallible>(self.fold.fold(message.sequence, &decoded));
            match guarded(fold) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return self.halt(error.into(), outputs),
                Err(cause) => return self.fail_replay(cause, outputs),
            }
            let is_frame = matches!(decoded, Decoded::Frame(..));
            self.count_journal(message.payload.len());
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
        self.claimed_at_ms = now.monotonic_ms;
        let owned = PartitionOwned {
            epoch: self.fold.partition().epoch() + 1,
            worker: self.config.worker.clone(),
            incarnation: self.config.incarnation,
        };
        // Folded only when it is stored: until then nothing is owned.
        let record = Record::of_partition(owned.into());
        let time = self.clock.next(now);
        let first_record_index = self.fold.next_index();
        let Self { builder, config, .. } = self;
        let pushed =
            guarded(|| builder.push(&record, first_record_index, time, config.salts.salt()));
        if let Err(cause) = pushed {
            return self.halt(HaltReason::Failed { during: "the takeover", cause }, outputs);
        }
        self.open = Some(OpenFrame { time, first_record_index, moved: false });
        self.close_frame(self.fold.partition().epoch() + 1, outputs);
    }

    /// A journal that makes the fold panic makes the next one panic as well.
    fn fail_replay(&mut self, cause: Cause, outputs: &mut Vec<Output>) {
        self.halt(HaltReason::Failed { during: "the replay", cause }, outputs);
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
        let record = Record::of_partition(owned.into());
        let partition = self.fold.partition_mut();
        let folded = guarded(|| {
            partition.begin_frame(time);
            partition.evolve(&record)
        });
        if let Err(cause) = folded {
            return self.halt(HaltReason::Failed { during: "the takeover", cause }, outputs);
        }
        self.phase = Phase::Owning;
        self.begin_snapshots(now);
        let position = self.fold.partition().position();
        self.commands_last = position.sequence;
        outputs.push(Output::Consume { position, epoch });
        // A publish acknowledgement carries no time: read it back, so that the
        // journal's time follows the broker's from here on.
        outputs.push(Output::ReadTime { sequence: self.fold.last_sequence() });
        self.find_unfinished(now, outputs);
    }

    /// Notes what earlier owners left unfinished: it is taken up as frames have
    /// room for it.
    fn find_unfinished(&mut self, now: Now, outputs: &mut Vec<Output>) {
        let partition = self.fold.partition();
        self.untold = partition.untold().into();
        self.lost = partition.outstanding().into();
        let live = std::mem::take(&mut self.config.live);
        self.lost.retain(|lost| !live.contains(&(lost.key.clone(), lost.attempt)));
        self.decide(None, now, outputs, |partition, out| partition.recover_partition(out));
    }
}
