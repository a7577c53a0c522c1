//! Commands and reports in: decided ahead of the append, each exactly once.

use fermata_core::digest::Digest;
use fermata_core::identity::{RunId, StreamPosition};
use fermata_core::partition::{Decision, Partition, Report};
use fermata_core::relay::Relayed;
use fermata_wire::WireError;
use fermata_wire::commands::CommandFrame;
use fermata_wire::relay::RelayFrame;

use super::turn::Source;
use super::{FRAME_BYTES_TARGET, Output, Owner, Phase, Undecidable};
use crate::message::{Message, Now};

/// A command message that waits for its turn.
#[derive(Debug)]
pub(super) struct CommandMessage {
    position: StreamPosition,
    frame: Result<Consumed, WireError>,
}

/// What a message of COMMANDS holds.
#[derive(Debug)]
enum Consumed {
    /// Commands from outside, and those that the engine's own workers send.
    Commands(CommandFrame),
    /// Commands of another partition.
    Relays(Vec<Relayed>),
}

impl Consumed {
    fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        match CommandFrame::decode(bytes) {
            Ok(frame) => Ok(Self::Commands(frame)),
            Err(WireError::WrongKind { .. }) => {
                RelayFrame::decode(bytes).map(|frame| Self::Relays(frame.commands()))
            }
            Err(error) => Err(error),
        }
    }
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
        let frame = Consumed::decode(&message.payload);
        let position = StreamPosition { sequence, broker_time_ns };
        self.commands_waiting.push_back(CommandMessage { position, frame });
    }

    /// Decides what waits, in turns, as long as the open frame has room.
    pub(super) fn decide_waiting(&mut self, now: Now, outputs: &mut Vec<Output>) {
        let mut without = 0;
        while without < Source::COUNT && self.has_room() {
            let before = self.decision.records_decided();
            if self.decide_next_of(self.turn.source, now, outputs) {
                without = 0;
                self.turn.spend(self.decision.records_decided().saturating_sub(before));
            } else {
                without += 1;
                self.turn.pass();
            }
        }
    }

    /// Decides the next of `source`; returns whether there was one.
    fn decide_next_of(&mut self, source: Source, now: Now, outputs: &mut Vec<Output>) -> bool {
        match source {
            Source::Reports => {
                let Some(report) = self.reports_waiting.pop_front() else { return false };
                self.reports_ahead = self.reports_ahead.saturating_sub(1);
                self.decide_report(report, now, outputs);
            }
            Source::Timers => {
                let time = self.open.map_or_else(|| self.clock.peek(now), |open| open.time);
                match self.fold.partition().due_run(time) {
                    Some(run) => self.decide_run(run, now, outputs, Partition::fire_timer),
                    None if self.fold.partition().is_signal_due(time) => {
                        self.decide(None, now, outputs, Partition::expire_signal)
                    }
                    None => return false,
                };
            }
            Source::HeldBack => {
                let Some(run) = self.fold.partition().held_back_run() else { return false };
                self.decide_run(run, now, outputs, Partition::resume);
            }
            Source::Lost => return self.decide_lost(now, outputs),
            Source::Commands if self.turn.reports_go_first(self.reports_waiting.len()) => {
                return false;
            }
            Source::Commands => return self.decide_next_message(now, outputs),
        }
        true
    }

    fn decide_report(&mut self, report: Report, now: Now, outputs: &mut Vec<Output>) {
        let run = match &report {
            Report::Attempt(report) => Some(report.run),
            Report::Case { .. }
            | Report::DeadFiled { .. }
            | Report::Relayed { .. }
            | Report::CaseReplayed(_)
            | Report::EventFiled { .. } => None,
        };
        let about = run.map(Undecidable::Run);
        if let Some(run) = run.filter(|_| about.is_some_and(|what| self.is_set_aside(what))) {
            // What could not be decided may be this very outcome.
            self.decide_run(run, now, outputs, |_, _| {});
            return;
        }
        let mark = self.mark(now);
        let decided =
            self.decide_part(about, outputs, |partition, out| partition.report(&report, out));
        self.open_reports.push(report);
        if decided {
            self.fit(about, mark, outputs);
        }
    }

    /// People are told again at once; attempts are ordered again only when every
    /// command is decided that was stored before the takeover, and every report
    /// that had come by then, since among those may be the outcome of an attempt
    /// that looks lost.
    fn decide_lost(&mut self, now: Now, outputs: &mut Vec<Output>) -> bool {
        if let Some(untold) = self.untold.pop_front() {
            return self
                .decide(None, now, outputs, |partition, out| partition.tell_again(untold, out));
        }
        if self.settling {
            return false;
        }
        let consumed = self.fold.partition().position().sequence;
        if self.reports_ahead > 0 || self.commands_end.is_none_or(|end| consumed < end) {
            return false;
        }
        let Some(lost) = self.lost.pop_front() else { return false };
        self.decide_run(lost.run, now, outputs, |partition, out| partition.recover(&lost, out))
    }

    /// Decides about a run, or quarantines it if an earlier owner could not: it may
    /// have begun only since the replay, with the frame that was dropped.
    fn decide_run(
        &mut self,
        run: RunId,
        now: Now,
        outputs: &mut Vec<Output>,
        decide: impl FnOnce(&mut Partition, &mut Decision),
    ) -> bool {
        let what = Undecidable::Run(run);
        match self.config.set_aside.get(&what).map(ToString::to_string) {
            Some(detail) if self.fold.partition().run(run).is_some() => {
                let quarantine = |partition: &mut Partition, out: &mut Decision| {
                    partition.quarantine(run, &detail, out);
                };
                self.decide(None, now, outputs, quarantine)
            }
            Some(_) | None => self.decide(Some(what), now, outputs, decide),
        }
    }

    fn decide_next_message(&mut self, now: Now, outputs: &mut Vec<Output>) -> bool {
        if self.plans.is_awaited() || !self.fold.partition().takes_commands() {
            return false;
        }
        let Some(message) = self.commands_waiting.pop_front() else { return false };
        if let Some(missing) = self.missing_plan(&message, now) {
            self.commands_waiting.push_front(message);
            self.fetch(missing, outputs);
            return false;
        }
        self.decide_message(&message, now, outputs);
        true
    }

    fn missing_plan(&self, message: &CommandMessage, now: Now) -> Option<Digest> {
        let Ok(Consumed::Commands(frame)) = &message.frame else { return None };
        let partition = self.fold.partition();
        let mut missing =
            frame.commands.iter().flat_map(|command| partition.missing_plans(command));
        missing.find(|plan| !self.plans.is_missing(plan, now))
    }

    /// All records of a message's commands go into one frame, together with its
    /// position: so each command is decided once, whatever happens.
    fn decide_message(&mut self, message: &CommandMessage, now: Now, outputs: &mut Vec<Output>) {
        let sequence = message.position.sequence;
        let whole = Undecidable::Message { sequence };
        let mark = self.mark(now);
        let mut floor = self.fold.partition().floor();
        let decided = match (&message.frame, self.config.set_aside.get(&whole).cloned()) {
            (Ok(Consumed::Relays(relays)), Some(cause)) => {
                let reason = (cause.code(), &*cause.to_string());
                self.decide_part(None, outputs, |partition, out| {
                    partition.poison_relays(relays, sequence, reason, out);
                })
            }
            (Ok(Consumed::Commands(_)) | Err(_), Some(cause)) => {
                let detail = cause.to_string();
                self.poison(sequence, None, cause.code(), &detail, outputs)
            }
            (Err(error), None) => {
                self.poison(sequence, None, error.code(), &describe(error), outputs)
            }
            (Ok(Consumed::Relays(relays)), None) => self.decide_relays(sequence, relays, outputs),
            (Ok(Consumed::Commands(frame)), None) => {
                floor = frame.floor;
                self.decide_commands(sequence, frame, outputs)
            }
        };
        if decided && self.fit(Some(whole), mark, outputs) {
            self.fold.partition_mut().advance(message.position, floor);
            if let Some(open) = &mut self.open {
                open.moved = true;
            }
        }
    }

    fn decide_commands(
        &mut self,
        sequence: u64,
        frame: &CommandFrame,
        outputs: &mut Vec<Output>,
    ) -> bool {
        (0..).zip(&frame.commands).all(|(index, command)| {
            let what = Undecidable::Command { sequence, index };
            match self.config.set_aside.get(&what).cloned() {
                Some(cause) => {
                    let detail = cause.to_string();
                    self.poison(sequence, Some(index), cause.code(), &detail, outputs)
                }
                None => self.decide_part(Some(what), outputs, |partition, out| {
                    partition.decide(command, out);
                }),
            }
        })
    }

    fn decide_relays(
        &mut self,
        sequence: u64,
        relays: &[Relayed],
        outputs: &mut Vec<Output>,
    ) -> bool {
        (0..).zip(relays).all(|(index, relayed)| {
            let what = Undecidable::Command { sequence, index };
            let place = (sequence, index);
            match self.config.set_aside.get(&what).cloned() {
                Some(cause) => {
                    let reason = (cause.code(), &*cause.to_string());
                    self.decide_part(None, outputs, |partition, out| {
                        partition.poison_relayed(relayed, place, reason, out);
                    })
                }
                None => self.decide_part(Some(what), outputs, |partition, out| {
                    partition.decide_relayed(relayed, place, out);
                }),
            }
        })
    }

    /// Consumes a message, or the command at `index` of it, unread.
    fn poison(
        &mut self,
        sequence: u64,
        index: Option<u32>,
        code: &str,
        detail: &str,
        outputs: &mut Vec<Output>,
    ) -> bool {
        self.decide_part(None, outputs, |partition, out| {
            partition.poison(sequence, index, code, detail, out);
        })
    }

    fn is_set_aside(&self, what: Undecidable) -> bool {
        self.config.set_aside.contains_key(&what)
    }

    /// Whether the open frame takes anything further.
    pub(super) fn has_room(&self) -> bool {
        self.phase == Phase::Owning
            && self.closed.is_empty()
            && self.builder.bytes() < FRAME_BYTES_TARGET
            && self.decision.effects.len() < self.config.limits.decision_records_max
            && !self.fold.partition().is_frame_full(&self.decision)
    }
}

fn describe(error: &WireError) -> String {
    use std::error::Error as _;
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
