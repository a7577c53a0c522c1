//! Commands and reports in: decided ahead of the append, each exactly once.

use std::panic::{AssertUnwindSafe, catch_unwind};

use fermata_core::command::Command;
use fermata_core::identity::StreamPosition;
use fermata_core::partition::Report;
use fermata_wire::WireError;
use fermata_wire::commands::CommandFrame;

use super::{FRAME_BYTES_TARGET, Output, Owner, Phase, StandDown, WHOLE_MESSAGE};
use crate::message::{Message, Now};

/// A command message that waits for its turn.
#[derive(Debug)]
pub(super) struct CommandMessage {
    position: StreamPosition,
    frame: Result<CommandFrame, WireError>,
}

impl Owner {
    pub(super) fn take_commands(&mut self, message: Message, now: Now, outputs: &mut Vec<Output>) {
        if self.phase != Phase::Owning || message.sequence <= self.commands_last {
            return;
        }
        if message.sequence != self.commands_last + 1 {
            return outputs.push(Output::ConsumeAgain { after: self.commands_last });
        }
        self.commands_last = message.sequence;
        self.clock.see(message.broker_time_ns, now);
        let (sequence, broker_time_ns) = (message.sequence, message.broker_time_ns);
        let frame = CommandFrame::decode(&message.payload);
        let position = StreamPosition { sequence, broker_time_ns };
        self.commands_waiting.push_back(CommandMessage { position, frame });
    }

    fn take_report(&mut self, report: Report, now: Now, outputs: &mut Vec<Output>) {
        self.begin_frame(now);
        self.fold.partition_mut().report(&report, &mut self.decision);
        self.seal_decided(outputs);
        self.open_reports.push(report);
    }

    /// Decides what waits, as long as the open frame has room.
    pub(super) fn decide_waiting(&mut self, now: Now, outputs: &mut Vec<Output>) {
        while self.has_room() {
            let Some(report) = self.reports_waiting.pop_front() else { break };
            self.take_report(report, now, outputs);
        }
        if self.plan_awaited.is_none() {
            while self.has_room() {
                let Some(message) = self.commands_waiting.pop_front() else { break };
                if let Some(missing) = self.missing_plan(&message) {
                    self.commands_waiting.push_front(message);
                    self.fetch(missing, outputs);
                    break;
                }
                self.decide_message(&message, now, outputs);
                if self.phase != Phase::Owning {
                    return;
                }
            }
        }
        while self.has_room() && self.has_read_old_commands() {
            let Some(lost) = self.lost.pop_front() else { break };
            self.begin_frame(now);
            self.fold.partition_mut().recover(&lost, &mut self.decision);
            self.seal_decided(outputs);
        }
        if self.has_room() && self.fold.partition().is_held_back() {
            self.begin_frame(now);
            self.fold.partition_mut().resume(&mut self.decision);
            self.seal_decided(outputs);
        }
        let due = self.fold.partition().next_due();
        if self.has_room() && due.is_some_and(|due| due <= self.clock.clone().next(now)) {
            self.begin_frame(now);
            self.fold.partition_mut().fire_timers(&mut self.decision);
            self.seal_decided(outputs);
        }
    }

    /// Whether every command that was stored before the takeover is decided:
    /// among them may be the outcome of an attempt that looks lost.
    fn has_read_old_commands(&self) -> bool {
        let consumed = self.fold.partition().position().sequence;
        self.commands_end.is_some_and(|end| consumed >= end)
    }

    fn missing_plan(&self, message: &CommandMessage) -> Option<fermata_core::digest::Digest> {
        let frame = message.frame.as_ref().ok()?;
        let partition = self.fold.partition();
        let mut missing =
            frame.commands.iter().flat_map(|command| partition.missing_plans(command));
        missing.find(|plan| !self.plans_missing.contains(plan))
    }

    /// All records of a message's commands go into one frame, together with its
    /// position: so each command is decided once, whatever happens.
    fn decide_message(&mut self, message: &CommandMessage, now: Now, outputs: &mut Vec<Output>) {
        self.begin_frame(now);
        let sequence = message.position.sequence;
        match &message.frame {
            Ok(frame) => {
                for (index, command) in (0..).zip(&frame.commands) {
                    if let Err(panicked) = self.decide_guarded(sequence, index, command) {
                        return self.stand_down(panicked, outputs);
                    }
                    self.seal_decided(outputs);
                }
                self.move_to(message.position, frame.floor);
            }
            Err(error) => {
                let detail = describe(error);
                let partition = self.fold.partition_mut();
                partition.poison(sequence, None, error.code(), &detail, &mut self.decision);
                self.seal_decided(outputs);
                let floor = self.fold.partition().floor();
                self.move_to(message.position, floor);
            }
        }
    }

    fn decide_guarded(
        &mut self,
        sequence: u64,
        index: u32,
        command: &Command,
    ) -> Result<(), StandDown> {
        let Self { fold, decision, config, .. } = self;
        let partition = fold.partition_mut();
        if config.poison.contains(&(sequence, WHOLE_MESSAGE)) {
            let detail = "the decisions of its frame did not fit a journal message before";
            partition.poison(sequence, Some(index), "decision_too_large", detail, decision);
            return Ok(());
        }
        if config.poison.contains(&(sequence, index)) {
            let detail = "deciding this command panicked before";
            partition.poison(sequence, Some(index), "decision_panicked", detail, decision);
            return Ok(());
        }
        // After a panic the half-changed state is dropped with this owner, so
        // nobody sees it.
        let decided = catch_unwind(AssertUnwindSafe(|| partition.decide(command, decision)));
        decided.map_err(|panic| {
            let detail = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "no message".to_owned());
            StandDown::Panicked { sequence, index, detail }
        })
    }

    fn move_to(&mut self, position: StreamPosition, floor: u64) {
        self.fold.partition_mut().advance(position, floor);
        if let Some(open) = &mut self.open {
            open.moved = true;
        }
    }

    fn has_room(&self) -> bool {
        self.phase == Phase::Owning
            && self.builder.bytes() < FRAME_BYTES_TARGET
            && self.decision.records_decided() < self.config.limits.decision_records_max
    }
}

fn describe(error: &WireError) -> String {
    use std::error::Error as _;
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
