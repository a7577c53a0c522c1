//! The shell around owners.

use std::collections::HashSet;

use fermata_core::effect::{Effect, Outcome};
use fermata_core::identity::PartitionId;
use fermata_core::json::Json;
use fermata_core::partition::Report;
use fermata_core::review::CaseReplayed;
use fermata_core::run::AttemptReport;
use fermata_partition::append::{ReadAnswer, Send};
use fermata_partition::message::Now;
use fermata_partition::owner::{Input, Output, Owner, OwnerConfig, Relay, StandDown};
use fermata_partition::snapshot::{FrozenFold, Snapshot, SnapshotFile, SnapshotPolicy};
use uuid::Uuid;

use super::world::{EPOCH_MS, Happening, Publish, Reply, Side, World};
use crate::dice::Dice;
use crate::trace::Broken;
use crate::twin::some_mark;
use crate::worker::SeededSalts;

/// How long a lease is said to hold: leases are another simulation's business.
const LEASE_UNTIL_MS: u64 = u64::MAX / 2;

/// One attempt to own a partition.
pub(super) struct Seat {
    id: u64,
    owner: Owner,
    /// Where the journal ends as far as this owner was told.
    committed: u64,
    compared: u64,
    /// The next command to deliver; none before the takeover.
    next: Option<u64>,
}

impl Side {
    fn seat(&mut self, id: u64) -> Option<&mut Seat> {
        self.seats.iter_mut().find(|seat| seat.id == id)
    }
}

impl World {
    fn now(&self) -> Now {
        Now { wall_ms: EPOCH_MS + self.now_ms, monotonic_ms: 7_000 + self.now_ms }
    }

    fn side(&mut self, partition: PartitionId) -> Option<&mut Side> {
        self.sides.get_mut(usize::from(partition.0))
    }

    /// Whoever owned it before is gone, or goes on until it is fenced out.
    pub(super) fn take_over(&mut self, partition: PartitionId) -> Result<(), Broken> {
        let goes_on = self.dice.chance(self.faults.lease_doubled);
        let id = self.id();
        let dice = Dice::new(self.dice.next());
        let config = OwnerConfig {
            partition,
            limits: self.limits,
            worker: format!("worker-{id}").into(),
            incarnation: Uuid::from_bytes(self.dice.bytes16()),
            salts: Box::new(SeededSalts { dice, panics: self.panics.clone() }),
            live: HashSet::new(),
            set_aside: self.side(partition).map(|side| side.set_aside.clone()).unwrap_or_default(),
            signed_records: 0,
            snapshot: self.snapshot_to_begin_from(partition)?,
            snapshots: SnapshotPolicy {
                records_max: self.dice.between(5, 60),
                interval_ms: 2_000,
                rest_ms: 100,
                ..SnapshotPolicy::default()
            },
        };
        self.line(format_args!("{id} takes {partition} over"));
        let mut outputs = Vec::new();
        let owner = Owner::new(config, &mut outputs);
        let seat = Seat { id, owner, committed: 0, compared: 0, next: None };
        let Some(side) = self.side(partition) else { return Ok(()) };
        if !goes_on {
            side.seats.clear();
        }
        side.seats.push(seat);
        self.after(20, Happening::Poll(partition, id));
        self.perform_all(partition, id, outputs)?;
        self.tell(partition, id, [Input::LeaseUntil(LEASE_UNTIL_MS)])
    }

    pub(super) fn tell(
        &mut self,
        partition: PartitionId,
        seat: u64,
        inputs: impl IntoIterator<Item = Input>,
    ) -> Result<(), Broken> {
        let now = self.now();
        let Some(known) = self.side(partition).and_then(|side| side.seat(seat)) else {
            return Ok(());
        };
        let mut outputs = Vec::new();
        for input in inputs {
            known.owner.handle(input, now, &mut outputs);
        }
        self.perform_all(partition, seat, outputs)
    }

    fn perform_all(
        &mut self,
        partition: PartitionId,
        seat: u64,
        outputs: Vec<Output>,
    ) -> Result<(), Broken> {
        for output in outputs {
            if self.side(partition).and_then(|side| side.seat(seat)).is_none() {
                return Ok(());
            }
            if self.dice.chance(self.faults.crash) {
                self.end(partition, seat, "is killed");
                return Ok(());
            }
            self.perform(partition, seat, output)?;
        }
        Ok(())
    }

    fn perform(&mut self, partition: PartitionId, seat: u64, output: Output) -> Result<(), Broken> {
        match output {
            Output::Append(send) => self.append(partition, seat, send, 0),
            Output::AppendLater(send) => self.append(partition, seat, send, 300),
            Output::Relay(relay) => self.relay(partition, seat, relay, 0),
            Output::RelayLater(relay) => self.relay(partition, seat, relay, 300),
            Output::ReadJournal { sequence, .. } => {
                let Some(side) = self.side(partition) else { return Ok(()) };
                let last_sequence = side.journal.len() as u64;
                let found = side.journal.iter().find(|message| message.sequence == sequence);
                let answer = found.cloned().map(ReadAnswer::Found);
                let answer = answer.unwrap_or(ReadAnswer::Absent { last_sequence });
                self.after(15, Happening::Tell(partition, seat, Input::Read(answer)));
            }
            Output::ReadTime { sequence } => {
                let Some(side) = self.side(partition) else { return Ok(()) };
                let found = side.journal.iter().find(|message| message.sequence == sequence);
                if let Some(at) = found.map(|message| message.broker_time_ns) {
                    self.after(5, Happening::Tell(partition, seat, Input::BrokerTime(at)));
                }
            }
            Output::Replay { from } => {
                let Some(side) = self.side(partition) else { return Ok(()) };
                let last_sequence = side.journal.len() as u64;
                let messages = side.journal.iter().filter(|message| message.sequence >= from);
                let inputs = messages.cloned().map(Input::Journal).collect::<Vec<_>>();
                for input in inputs.into_iter().chain([Input::JournalEnd { last_sequence }]) {
                    self.after(10, Happening::Tell(partition, seat, input));
                }
            }
            Output::FetchPlan(digest) => {
                let plan = (digest == self.plan.0).then(|| self.plan.1.clone());
                self.after(3, Happening::Tell(partition, seat, Input::Plan(digest, plan)));
            }
            Output::Consume { position, epoch } => {
                self.line(format_args!("{seat} owns {partition} in epoch {epoch}"));
                let Some(side) = self.side(partition) else { return Ok(()) };
                let last_sequence = side.commands.len() as u64;
                if let Some(known) = side.seat(seat) {
                    known.next = Some(position.sequence + 1);
                }
                let input = Input::CommandsEnd { last_sequence };
                self.after(5, Happening::Tell(partition, seat, input));
            }
            Output::ConsumeAgain { after } => {
                if let Some(known) = self.side(partition).and_then(|side| side.seat(seat)) {
                    known.next = Some(after + 1);
                }
            }
            Output::Effect(effect) => self.effect(partition, seat, effect),
            Output::Snapshot(frozen) => self.store_snapshot(partition, seat, &frozen)?,
            Output::Committed { sequence, .. } => {
                if let Some(known) = self.side(partition).and_then(|side| side.seat(seat)) {
                    known.committed = sequence;
                }
            }
            Output::StandDown(reason) => {
                if let (StandDown::Undecidable { what, cause }, Some(side)) =
                    (&reason, self.side(partition))
                {
                    side.set_aside.insert(*what, cause.clone());
                }
                self.end(partition, seat, format_args!("stands down: {reason:?}"));
            }
            // A panic that is about nothing stops its process.
            Output::Halt(reason) if self.faults.panic > 0 => {
                self.end(partition, seat, format_args!("halts: {reason:?}"));
            }
            Output::Halt(reason) => {
                return Err(Broken::new("law_nothing_halts", format!("{reason:?}")));
            }
        }
        Ok(())
    }

    /// Writes a snapshot and stores it, unless its owner is gone by then.
    fn store_snapshot(
        &mut self,
        partition: PartitionId,
        seat: u64,
        frozen: &FrozenFold,
    ) -> Result<(), Broken> {
        let stored = self.side(partition).map(|side| side.hours.keys().cloned().collect());
        let stored: Vec<_> = stored.unwrap_or_default();
        let written = frozen.encode(&some_mark(frozen.next_index()), &stored);
        let written = written
            .map_err(|error| Broken::new("invariant_a_snapshot_is_written", error.to_string()))?;
        self.line(format_args!("{seat} stores snapshot {} of {partition}", frozen.sequence()));
        self.laws.trace.snapshots += 1;
        if let Some(side) = self.side(partition) {
            side.hours.extend(written.new_hours.into_iter().map(|file| (file.name, file.bytes)));
            side.snapshots.push(written.bytes);
        }
        let after = self.dice.between(5, 500);
        self.after(after, Happening::Tell(partition, seat, Input::SnapshotEnded));
        Ok(())
    }

    /// What a takeover begins from: one of the snapshots there are, or nothing.
    fn snapshot_to_begin_from(
        &mut self,
        partition: PartitionId,
    ) -> Result<Option<Box<Snapshot>>, Broken> {
        let count = self.side(partition).map_or(0, |side| side.snapshots.len());
        let chosen = self.dice.below(count as u64 + 1);
        let place = usize::try_from(chosen).unwrap_or_default();
        let stored = self.side(partition).and_then(|side| side.snapshots.get(place).cloned());
        let Some(bytes) = stored else { return Ok(None) };
        self.laws.trace.begun_from_snapshots += 1;
        let Some(side) = self.side(partition) else { return Ok(None) };
        let read = SnapshotFile::decode(partition, &bytes);
        match read.and_then(|file| file.with_hours(&side.hours)) {
            Ok(snapshot) => Ok(Some(Box::new(snapshot))),
            Err(error) => Err(Broken::new("invariant_a_snapshot_is_read", format!("{error:?}"))),
        }
    }

    fn append(&mut self, partition: PartitionId, seat: u64, send: Send, pause_ms: u64) {
        let publish = Publish {
            partition,
            expected: Some(send.expected_last_sequence),
            writer: Some(send.writer),
            payload: send.payload,
        };
        self.publish(publish, pause_ms, Reply::Journal { partition, seat });
    }

    fn relay(&mut self, partition: PartitionId, seat: u64, relay: Relay, pause_ms: u64) {
        let Relay { target, up_to, frame } = relay;
        self.line(format_args!("{seat} sends up to {up_to} from {partition} to {target}"));
        let publish = Publish { partition: target, expected: None, writer: None, payload: frame };
        self.publish(publish, pause_ms, Reply::Relay { partition, seat, target, up_to });
    }

    fn effect(&mut self, partition: PartitionId, seat: u64, effect: Effect) {
        let report = match effect {
            Effect::Start(attempt) => Report::Attempt(AttemptReport {
                run: attempt.run,
                node: attempt.node,
                activation: attempt.activation,
                attempt: attempt.attempt,
                tenant: Some(attempt.tenant),
                outcome: Outcome::Succeeded { output: Json::null() },
            }),
            Effect::HandleCase(notice) => {
                let outcome = Outcome::Succeeded { output: Json::null() };
                Report::Case { case: notice.case, attempt: notice.attempt, outcome }
            }
            Effect::FileDead(dead) => {
                Report::DeadFiled { sequence: dead.sequence, index: dead.index }
            }
            Effect::FileEvent(dead) => Report::EventFiled { source: dead.source },
            Effect::ReplayCase(replay) => {
                Report::CaseReplayed(CaseReplayed { case: replay.case, asked: 0, missing: 0 })
            }
            // No plan of this simulation names a queue.
            Effect::Abort(_)
            | Effect::Ended(_)
            | Effect::Project
            | Effect::Reply { .. }
            | Effect::Enqueue(_)
            | Effect::Recall(_)
            | Effect::Matched(_) => return,
        };
        let after = self.dice.between(5, 800);
        self.after(after, Happening::Tell(partition, seat, Input::Report(report)));
    }

    /// An owner is gone; another one comes unless there is one.
    fn end(&mut self, partition: PartitionId, seat: u64, how: impl std::fmt::Display) {
        self.line(format_args!("{seat} of {partition} {how}"));
        let Some(side) = self.side(partition) else { return };
        side.seats.retain(|known| known.id != seat);
        if side.seats.is_empty() {
            let after = self.dice.between(20, 3_000);
            self.after(after, Happening::TakeOver(partition));
        }
    }

    pub(super) fn poll(&mut self, partition: PartitionId, seat: u64) -> Result<(), Broken> {
        let (lost, doubled) = (self.faults.delivery_lost, self.faults.delivery_duplicated);
        let mut dice = Dice::new(self.dice.next());
        let Some(side) = self.side(partition) else { return Ok(()) };
        let Some(known) = side.seats.iter_mut().find(|known| known.id == seat) else {
            return Ok(());
        };
        let mut inputs = vec![Input::Tick];
        if let Some(next) = known.next.as_mut().filter(|_| known.owner.wants_commands()) {
            // What a delivery left out at the end is found by looking again.
            if *next > side.commands.len() as u64 && dice.chance(200) {
                *next = known.owner.partition().position().sequence + 1;
            }
            let messages = side.commands.iter().filter(|message| message.sequence >= *next);
            for message in messages.take(4).cloned().collect::<Vec<_>>() {
                *next = message.sequence + 1;
                if dice.chance(doubled) {
                    inputs.push(Input::Commands(message.clone()));
                }
                if !dice.chance(lost) {
                    inputs.push(Input::Commands(message));
                }
            }
        }
        self.tell(partition, seat, inputs)?;
        let somebody_else = self.dice.chance(self.faults.lease_doubled / 50);
        if somebody_else {
            self.take_over(partition)?;
        }
        self.compare(partition, seat)?;
        let pause = self.dice.between(20, 80);
        self.after(pause, Happening::Poll(partition, seat));
        Ok(())
    }

    /// Holds the live state of a quiet owner against the journal's fold.
    fn compare(&mut self, partition: PartitionId, seat: u64) -> Result<(), Broken> {
        let Self { sides, laws, .. } = self;
        let Some(side) = sides.get_mut(usize::from(partition.0)) else { return Ok(()) };
        let last = side.journal.len() as u64;
        let Some(known) = side.seat(seat) else { return Ok(()) };
        let comparable = known.committed == last
            && known.compared != last
            && known.owner.is_owning()
            && known.owner.is_quiet();
        if !comparable {
            return Ok(());
        }
        known.compared = last;
        laws.law_live_state_is_the_fold(known.owner.partition())
    }
}
