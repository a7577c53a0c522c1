//! Group commit: one frame in flight, the next one filling meanwhile.

use bytes::Bytes;
use fermata_core::effect::Effect;
use fermata_core::record::{ForeignSkipped, Record};
use fermata_wire::journal::FrameHead;

use super::{LEASE_MARGIN_MS, OpenFrame, Output, Owner, Phase, StandDown};
use crate::append::Step;
use crate::message::Now;

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

    /// Encodes what was decided into the open frame.
    pub(super) fn seal_decided(&mut self, outputs: &mut Vec<Output>) {
        let Some(open) = self.open else { return };
        for record in self.decision.records.drain(..) {
            let index = open.first_record_index + self.builder.len() as u64;
            let salt = self.config.salts.salt();
            if self.builder.push(&record, index, open.time, salt).is_err() {
                let sequence = self.commands_last;
                self.phase = Phase::Ended;
                outputs.push(Output::StandDown(StandDown::FrameTooLarge { sequence }));
                return;
            }
        }
    }

    /// Appends the open frame if none is in flight and it says anything, or if
    /// something waits for an acknowledged append.
    pub(super) fn commit(&mut self, now: Now, outputs: &mut Vec<Output>) {
        if self.append.is_busy() || self.phase != Phase::Owning {
            return;
        }
        let says_something = !self.builder.is_empty() || self.open.is_some_and(|open| open.moved);
        // A takeover orders some effects again that are recorded already.
        let awaited = !self.gated.is_empty() || !self.decision.effects.is_empty();
        if !says_something && !awaited {
            self.open = None;
            return;
        }
        self.begin_frame(now);
        self.close_frame(self.fold.partition().epoch(), outputs);
    }

    pub(super) fn close_frame(&mut self, epoch: u64, outputs: &mut Vec<Output>) {
        let Some(open) = self.open.take() else { return };
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
        let frame = match self.builder.finish(&head, open.first_record_index) {
            Ok(frame) => Bytes::from(frame),
            Err(_) => {
                let sequence = self.commands_last;
                return self.stand_down(StandDown::FrameTooLarge { sequence }, outputs);
            }
        };
        let writer =
            format!("{}.{epoch}.{}", self.config.incarnation.simple(), self.frames_written);
        self.frames_written += 1;
        self.fold.appended(self.fold.last_sequence(), next_index);
        self.in_flight_effects.append(&mut self.decision.effects);
        self.in_flight_gated.append(&mut self.gated);
        self.in_flight_frame = Some(frame.clone());
        if self.phase == Phase::Owning {
            self.in_flight_reports.append(&mut self.open_reports);
        }
        outputs.push(Output::Append(self.append.begin(writer, frame)));
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
                if self.phase == Phase::Owning {
                    self.begin_frame(now);
                    let record = Record::of_partition(ForeignSkipped { sequence }.into());
                    self.decision.records.push(record);
                    self.seal_decided(outputs);
                }
                outputs.push(Output::Append(send));
            }
            Step::Lost { by } => self.stand_down(StandDown::Fenced { by }, outputs),
            Step::Truncated { last_sequence } => {
                self.stand_down(StandDown::Truncated { last_sequence }, outputs);
            }
            Step::Ignore => {}
        }
    }

    fn committed(&mut self, sequence: u64, now: Now, outputs: &mut Vec<Output>) {
        let Some(frame) = self.in_flight_frame.take() else { return };
        self.in_flight_reports.clear();
        self.fold.appended(sequence, self.fold.next_index());
        outputs.push(Output::Committed { sequence, frame: Some(frame) });
        if self.phase == Phase::Claiming {
            return self.own(now, outputs);
        }
        // These waited for one more acknowledged append, and here it is.
        outputs.extend(self.in_flight_gated.drain(..).map(Output::Effect));
        let within_lease = now.monotonic_ms.saturating_add(LEASE_MARGIN_MS) < self.lease_until_ms;
        for effect in self.in_flight_effects.drain(..) {
            let touches_world = matches!(effect, Effect::Start(_) | Effect::HandleCase(_));
            if within_lease || !touches_world {
                outputs.push(Output::Effect(effect));
            } else {
                self.gated.push(effect);
            }
        }
    }
}
