//! Group commit: one frame in flight, the next one filling meanwhile.

use fermata_core::effect::Effect;
use fermata_core::record::{ForeignSkipped, Record};
use fermata_wire::journal::FrameHead;

use super::unit::Mark;
use super::{ClosedFrame, HaltReason, LEASE_MARGIN_MS, OpenFrame, Output, Owner, Phase, StandDown};
use crate::append::Step;
use crate::message::Now;
use crate::snapshot::FrameMark;

impl Owner {
    /// Opens a frame at the time that it will carry, unless one is open.
    pub(super) fn begin_frame(&mut self, now: Now) {
        if self.open.is_none() {
            let time = self.clock.next(now);
            let first_record_index = self.fold.next_index();
            self.fold.partition_mut().begin_frame(time);
            self.decision.begin_frame();
            self.open = Some(OpenFrame { time, first_record_index, moved: false });
        }
    }

    /// Appends what is decided if nothing is in flight, and it says anything or
    /// something waits for an acknowledged append. Returns whether another frame
    /// can be begun now.
    pub(super) fn commit(&mut self, now: Now, outputs: &mut Vec<Output>) -> bool {
        if self.append.is_busy() || self.phase != Phase::Owning {
            return false;
        }
        if let Some(frame) = self.closed.pop_front() {
            self.send(frame, outputs);
            return true;
        }
        let says_something = !self.builder.is_empty() || self.open.is_some_and(|open| open.moved);
        // A takeover orders some effects again that are recorded already.
        let awaited = !self.gated.is_empty() || !self.decision.effects.is_empty();
        let due = self.is_snapshot_due(now);
        if !says_something && !awaited && !due {
            return self.open.take().is_some();
        }
        self.begin_frame(now);
        let epoch = self.fold.partition().epoch();
        let outbox_last = self.fold.partition().outbox().last();
        let Some(mut frame) = self.close(epoch, outbox_last, outputs) else { return true };
        if due {
            let incarnation = self.config.incarnation;
            let (number, time) = (self.frames_written - 1, self.fold.partition().time());
            let mark = FrameMark { epoch, incarnation, number, time };
            frame.frozen = Some(Box::new(self.freeze(mark, now)));
        }
        self.send(frame, outputs);
        true
    }

    /// Closes the open frame and appends it.
    pub(super) fn close_frame(&mut self, epoch: u64, outputs: &mut Vec<Output>) {
        let outbox_last = self.fold.partition().outbox().last();
        if let Some(frame) = self.close(epoch, outbox_last, outputs) {
            self.send(frame, outputs);
        }
    }

    /// Makes a frame of what stood in the open one before `mark`; the decision
    /// behind it stays, at the time at which it was made, and goes into the next.
    pub(super) fn split(&mut self, mark: Mark, outputs: &mut Vec<Output>) {
        let Some(open) = self.open else { return };
        let rest = self.builder.split_off(mark.records);
        let effects = self.decision.effects.split_off(mark.effects);
        let reports = self.open_reports.split_off(mark.reports);
        let epoch = self.fold.partition().epoch();
        let Some(frame) = self.close(epoch, mark.outbox_last, outputs) else { return };
        let first_record_index = open.first_record_index + mark.records as u64;
        self.open = Some(OpenFrame { first_record_index, moved: false, ..open });
        self.builder = rest;
        self.decision.effects = effects;
        self.open_reports = reports;
        match self.append.is_busy() {
            true => self.closed.push_back(frame),
            false => self.send(frame, outputs),
        }
    }

    fn close(
        &mut self,
        epoch: u64,
        outbox_last: u64,
        outputs: &mut Vec<Output>,
    ) -> Option<ClosedFrame> {
        let open = self.open.take()?;
        // The next frame has room again, also before anything opens it.
        self.decision.begin_frame();
        let head = FrameHead {
            epoch,
            incarnation: self.config.incarnation,
            number: self.frames_written,
            time: open.time,
            position: self.fold.partition().position(),
            floor: self.fold.partition().floor(),
        };
        let next_index = open.first_record_index + self.builder.len() as u64;
        let bytes = match self.builder.finish(&head, open.first_record_index) {
            Ok(bytes) => bytes.into(),
            Err(error) => {
                self.halt(HaltReason::Unwritable(error), outputs);
                return None;
            }
        };
        let writer =
            format!("{}.{epoch}.{}", self.config.incarnation.simple(), self.frames_written);
        self.frames_written += 1;
        self.fold.appended(self.fold.last_sequence(), next_index);
        let effects = std::mem::take(&mut self.decision.effects);
        let reports = std::mem::take(&mut self.open_reports);
        Some(ClosedFrame { writer, bytes, effects, reports, frozen: None, outbox_last })
    }

    fn send(&mut self, frame: ClosedFrame, outputs: &mut Vec<Output>) {
        self.in_flight_gated.append(&mut self.gated);
        let send = self.append.begin(frame.writer.clone(), frame.bytes.clone());
        outputs.push(Output::Append(send));
        self.in_flight = Some(frame);
    }

    /// Goes on with the append in flight.
    pub(super) fn follow(&mut self, step: Step, now: Now, outputs: &mut Vec<Output>) {
        match step {
            Step::Send(send) => outputs.push(Output::Append(send)),
            Step::SendLater(send) => outputs.push(Output::AppendLater(send)),
            Step::Read { sequence } => outputs.push(Output::ReadJournal { sequence, later: false }),
            Step::ReadLater { sequence } => {
                outputs.push(Output::ReadJournal { sequence, later: true });
            }
            Step::Committed { sequence } => self.committed(sequence, now, outputs),
            Step::Foreign { sequence, send } => {
                outputs.push(Output::Committed { sequence, frame: None });
                outputs.push(Output::Append(send));
                if self.phase == Phase::Owning {
                    let record = Record::of_partition(ForeignSkipped { sequence }.into());
                    self.decide(None, now, outputs, |_, out| out.records.push(record));
                }
            }
            Step::Lost { by } => self.stand_down(StandDown::Fenced { by }, outputs),
            Step::Truncated { last_sequence } => {
                self.stand_down(StandDown::Truncated { last_sequence }, outputs);
            }
            Step::Ignore => {}
        }
    }

    fn committed(&mut self, sequence: u64, now: Now, outputs: &mut Vec<Output>) {
        let Some(frame) = self.in_flight.take() else { return };
        self.fold.appended(sequence, self.fold.next_index());
        self.count_journal(frame.bytes.len());
        outputs.push(Output::Committed { sequence, frame: Some(frame.bytes) });
        self.sending.durable_to(frame.outbox_last);
        if self.phase == Phase::Claiming {
            return self.own(now, outputs);
        }
        if let Some(mut frozen) = frame.frozen {
            frozen.sequence = sequence;
            outputs.push(Output::Snapshot(frozen));
        }
        // These waited for one more acknowledged append, and here it is.
        outputs.extend(self.in_flight_gated.drain(..).map(Output::Effect));
        let within_lease = now.monotonic_ms.saturating_add(LEASE_MARGIN_MS) < self.lease_until_ms;
        for effect in frame.effects {
            // An abort must not overtake the start of what it stops.
            let waits = matches!(
                effect,
                Effect::Start(_)
                    | Effect::HandleCase(_)
                    | Effect::Abort(_)
                    | Effect::Enqueue(_)
                    | Effect::Recall(_)
            );
            if within_lease || !waits {
                outputs.push(Output::Effect(effect));
            } else {
                self.gated.push(effect);
            }
        }
    }
}
