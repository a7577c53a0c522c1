//! The shell around an owner: what the actor does with a real broker.

use std::sync::Arc;

use fermata_core::digest::Digest;
use fermata_core::effect::Effect;
use fermata_core::partition::Report;
use fermata_core::plan::Executable;
use fermata_partition::owner::{
    Cause, HaltReason, Input, Output, PLAN_AGAIN_MS, PLAN_ASKED_MAX, StandDown,
};

use super::{Reply, World};
use crate::broker::StreamName;
use crate::invariants::Invariants;
use crate::lease::LEASE_MS;
use crate::trace::Broken;
use crate::worker::{Consumer, Seat, Work};

impl World {
    pub(super) fn perform(&mut self, worker: usize, work: Work) -> Result<(), Broken> {
        match work {
            Work::OwnerInput(seat, input) => return self.tell_owner(worker, seat, [input]),
            Work::OwnerOutput(seat, output) => return self.do_owner(worker, seat, output),
            Work::AuditorInput(auditor, input) => self.tell_auditor(worker, auditor, [input]),
            Work::AuditorOutput(auditor, output) => {
                return self.do_auditor(worker, auditor, output);
            }
            Work::Poll(seat) => return self.poll(worker, seat),
            Work::Deliver { seat, consumer, message } => {
                let known = self.workers.get_mut(worker).and_then(|known| known.seat_of(seat));
                let current = known.and_then(|seat| seat.consumer.as_ref());
                if current.is_some_and(|current| current.number == consumer) {
                    return self.tell_owner(worker, seat, [Input::Commands(message)]);
                }
            }
            Work::Stored { auditor, messages, read_to } => {
                self.stored_read(worker, auditor, messages, read_to);
            }
            Work::ReadJournal { auditor, from, to } => {
                self.read_journal_again(worker, auditor, from, to);
            }
            Work::LeaseTick => return self.lease_tick(worker),
            Work::TakeOver => return self.take_over(worker),
            Work::AttemptDone { token, outcome } => {
                return self.attempt_done(worker, token, outcome);
            }
            Work::Report(report) => return self.report(worker, report),
            Work::Enqueue(queued) => return self.publish_task(worker, queued),
            Work::Recalled(report) => return self.attempt_report(worker, report),
            Work::TaskDone { task, report } => self.task_done(worker, task, report),
            Work::CancelTask(name) => self.cancel_task(worker, name),
            Work::OutcomeAnswered(id, outcome) => self.outcome_answered(worker, id, outcome),
            Work::PublishOutcome(id) => self.publish_outcome_again(worker, id),
            Work::CheckpointAnswered(seat, outcome) => {
                self.checkpoint_answered(worker, seat, outcome);
            }
            Work::PublishCheckpoint(seat) => self.publish_checkpoint(worker, seat),
            Work::ReplayAgain { seat, from } => self.replay(worker, seat, from),
            Work::StoreSnapshot(seat, stored, hours) => {
                return self.store_snapshot(worker, seat, stored, hours);
            }
            Work::RemoveHours(first) => self.broker.remove_hours_before(first),
            Work::Purge(seat) => self.purge(worker, seat),
        }
        Ok(())
    }

    pub(super) fn tell_owner(
        &mut self,
        worker: usize,
        seat: u64,
        inputs: impl IntoIterator<Item = Input>,
    ) -> Result<(), Broken> {
        let now_ms = self.now_ms;
        let Some(known) = self.workers.get_mut(worker) else { return Ok(()) };
        let now = known.now(now_ms);
        let Some(seat) = known.seat_of(seat) else { return Ok(()) };
        let (id, seat_committed, mut outputs) = (seat.id, seat.committed, Vec::new());
        for input in inputs {
            seat.owner.handle(input, now, &mut outputs);
        }
        Invariants::invariant_nothing_follows_the_end_of_an_owner(&outputs)?;
        Invariants::invariant_an_owner_does_not_spin(&seat.owner, now)?;
        Invariants::invariant_nothing_starts_after_its_abort(&outputs, &mut seat.aborted)?;
        let within_lease = known.is_within_lease(now_ms);
        let mut committed = seat_committed;
        for output in &outputs {
            if let Output::Committed { sequence, .. } = output {
                committed = *sequence;
            }
            let started = if let Output::Effect(Effect::Start(attempt)) = output {
                Some(attempt)
            } else if let Output::Effect(Effect::Enqueue(queued)) = output {
                Some(&queued.attempt)
            } else {
                None
            };
            if let Some(attempt) = started {
                self.invariants.invariant_effects_are_released_within_the_lease(
                    attempt,
                    within_lease,
                    committed,
                )?;
            }
        }
        for output in outputs.into_iter().rev() {
            known.queue.push_front(Work::OwnerOutput(id, output));
        }
        Ok(())
    }

    fn do_owner(&mut self, worker: usize, seat: u64, output: Output) -> Result<(), Broken> {
        let generation = self.generation(worker);
        if self.workers.get_mut(worker).is_none_or(|known| known.seat_of(seat).is_none()) {
            return Ok(());
        }
        self.invariant_a_cut_journal_decides_nothing(&output)?;
        match output {
            Output::Append(send) => {
                let reply = Reply::Owner { worker, generation, seat };
                return self.publish_fenced(StreamName::Journal, send, false, reply);
            }
            Output::AppendLater(send) => {
                let reply = Reply::Owner { worker, generation, seat };
                return self.publish_fenced(StreamName::Journal, send, true, reply);
            }
            Output::ReadJournal { sequence, later } => {
                let journal = self.broker.stream(StreamName::Journal);
                let answer = journal.read(sequence, &self.faults, &mut self.dice);
                self.say(worker, format_args!("reads journal {sequence}: {}", short(&answer)));
                let after = self.dice.between(1, 30) + if later { 300 } else { 0 };
                self.reach_worker(worker, after, Work::OwnerInput(seat, Input::Read(answer)));
            }
            Output::ReadTime { sequence } => {
                let journal = self.broker.stream(StreamName::Journal);
                if let Some(message) = journal.get(sequence) {
                    let input = Input::BrokerTime(message.broker_time_ns);
                    self.reach_worker(worker, 7, Work::OwnerInput(seat, input));
                }
            }
            Output::Replay { from } => self.replay(worker, seat, from),
            Output::FetchPlan(digest) => {
                let plan = self.find_plan(worker, seat, digest);
                let after = self.dice.between(1, 200);
                if plan.is_none() {
                    // A shell lets time pass also where nothing else happens.
                    let tick = Work::OwnerInput(seat, Input::Tick);
                    self.reach_worker(worker, after + PLAN_AGAIN_MS, tick);
                }
                self.reach_worker(worker, after, Work::OwnerInput(seat, Input::Plan(digest, plan)));
            }
            Output::Consume { position, epoch } => {
                self.say(worker, format_args!("owns epoch {epoch} from {position:?}"));
                self.consume(worker, seat, position.sequence);
                self.go_live(worker, seat);
                let last_sequence = self.broker.stream(StreamName::Commands).last();
                let input = Input::CommandsEnd { last_sequence };
                self.reach_worker(worker, 5, Work::OwnerInput(seat, input));
                self.reach_worker(worker, 10, Work::Poll(seat));
            }
            Output::ConsumeAgain { after } => {
                self.say(worker, format_args!("consumes again behind {after}"));
                self.consume(worker, seat, after);
            }
            Output::Effect(effect) => return self.do_effect(worker, effect),
            Output::Committed { sequence, frame } => {
                let journal = self.broker.stream(StreamName::Journal);
                Invariants::invariant_committed_is_stored(sequence, frame.as_ref(), journal)?;
                self.committed(worker, seat, sequence, frame);
            }
            Output::Snapshot(frozen) => return self.frozen(worker, seat, frozen),
            Output::StandDown(reason) => return self.stand_down(worker, reason),
            Output::Halt(HaltReason::RecordsGone { .. } | HaltReason::JournalCut { .. })
                if self.halts_for_cut(worker) => {}
            // A read that was too old, not records that are gone: the shell
            // must read again before it believes this.
            Output::Halt(HaltReason::RecordsGone { signed, .. })
                if self.invariants.reference.leaves().len() as u64 >= signed =>
            {
                self.say(worker, "read the journal too early");
                self.give_up(worker);
            }
            // It stays so until the process is started again.
            Output::Halt(HaltReason::Failed { during, cause: Cause::Panicked(_) })
                if self.panics_drawn > 0 =>
            {
                self.say(worker, format_args!("halts: {during} panicked"));
                self.crash(worker);
            }
            Output::Relay(relay) => self.publish_relay(worker, seat, relay, 0),
            Output::RelayLater(relay) => {
                let pause_ms = self.dice.between(100, 1_000);
                self.publish_relay(worker, seat, relay, pause_ms);
            }
            Output::Halt(reason) => {
                return Err(Broken::new("invariant_nothing_halts", format!("{reason:?}")));
            }
        }
        Ok(())
    }

    /// Looks a plan up, and does not always find what is there: but not as often
    /// in a row as an owner asks.
    fn find_plan(&mut self, worker: usize, seat: u64, digest: Digest) -> Option<Arc<Executable>> {
        let plan = self.plans.get(&digest).cloned()?;
        let stale = self.throws(self.faults.plan_not_found);
        let seat = self.workers.get_mut(worker)?.seat_of(seat)?;
        let hidden = stale && seat.plan_not_found + 1 < PLAN_ASKED_MAX;
        seat.plan_not_found = if hidden { seat.plan_not_found + 1 } else { 0 };
        (!hidden).then_some(plan)
    }

    /// Reads the journal to where the read sees it end, perhaps some of it twice.
    fn replay(&mut self, worker: usize, seat: u64, from: u64) {
        if self.throws(self.faults.read_failed) {
            return self.reach_worker(worker, 500, Work::ReplayAgain { seat, from });
        }
        let journal = self.broker.stream(StreamName::Journal);
        if from <= journal.purged_to() {
            // Another owner has taken snapshots since this one began.
            self.say(worker, "finds the journal purged");
            return self.give_up(worker);
        }
        if from > journal.last() + 1 && self.halts_for_cut(worker) {
            // The next one wanted is behind the end, says a reader.
            return;
        }
        let journal = self.broker.stream(StreamName::Journal);
        // One reader never reads less than it has read before.
        let last_sequence = journal.seen_by_read(&self.faults, &mut self.dice).max(from - 1);
        let twice = self.dice.chance(self.faults.delivery_duplicated);
        let messages =
            journal.from(from).iter().filter(|message| message.sequence <= last_sequence);
        let mut inputs = Vec::new();
        for message in messages {
            inputs.push(Input::Journal(message.clone()));
            if twice {
                inputs.push(Input::Journal(message.clone()));
            }
        }
        inputs.push(Input::JournalEnd { last_sequence });
        self.say(worker, format_args!("replays {from} to {last_sequence}"));
        let after = self.dice.between(1, 50);
        for input in inputs {
            self.reach_worker(worker, after, Work::OwnerInput(seat, input));
        }
    }

    fn consume(&mut self, worker: usize, seat: u64, after: u64) {
        let number = self.id();
        if let Some(seat) = self.workers.get_mut(worker).and_then(|known| known.seat_of(seat)) {
            seat.consumer = Some(Consumer { number, next: after + 1 });
        }
    }

    /// Pulls commands while they are wanted, and lets time pass for everyone.
    fn poll(&mut self, worker: usize, id: u64) -> Result<(), Broken> {
        let Some(seat) = self.workers.get_mut(worker).and_then(|known| known.seat_of(id)) else {
            return Ok(());
        };
        let idle = seat.owner.is_quiet();
        let auditor = seat.auditor_id;
        let delivered = self.pull(worker, id);
        let pause = if delivered { 40 } else { self.dice.between(100, 400) };
        if !delivered && idle && self.dice.chance(100) && self.look_around(worker, id) {
            return Ok(());
        }
        self.tell_owner(worker, id, [Input::Tick])?;
        self.tell_auditor(worker, auditor, [fermata_partition::auditor::Input::Tick]);
        self.reach_worker(worker, pause, Work::Poll(id));
        Ok(())
    }

    /// Delivers the next commands, some of them late, twice or not at all.
    fn pull(&mut self, worker: usize, id: u64) -> bool {
        let Some(seat) = self.workers.get_mut(worker).and_then(|known| known.seat_of(id)) else {
            return false;
        };
        let mut delivered = Vec::new();
        let commands = self.broker.stream(StreamName::Commands);
        if seat.consumer.as_ref().is_some_and(|consumer| consumer.next <= commands.purged_to()) {
            self.say(worker, "finds commands purged");
            self.give_up(worker);
            return true;
        }
        if let Some(consumer) = seat.consumer.as_mut().filter(|_| seat.owner.wants_commands()) {
            for message in commands.from(consumer.next).iter().take(4) {
                consumer.next = message.sequence + 1;
                if self.dice.chance(self.faults.delivery_lost) {
                    continue;
                }
                let late = self.dice.chance(self.faults.delivery_delayed);
                let after = if late { self.dice.between(1, 500) } else { 1 };
                delivered.push((after, consumer.number, message.clone()));
                if self.dice.chance(self.faults.delivery_duplicated) {
                    delivered.push((self.dice.between(1, 300), consumer.number, message.clone()));
                }
            }
        }
        let any = !delivered.is_empty();
        for (after, consumer, message) in delivered {
            self.reach_worker(worker, after, Work::Deliver { seat: id, consumer, message });
        }
        any
    }

    /// An idle owner looks whether its consumer left something out at the end,
    /// and whether somebody has taken the partition over behind its back: a
    /// takeover whose request was delayed may be stored long after its sender
    /// has died, and then nobody else goes on. Returns whether it gave up.
    fn look_around(&mut self, worker: usize, id: u64) -> bool {
        let Some(seat) = self.workers.get_mut(worker).and_then(|known| known.seat_of(id)) else {
            return false;
        };
        if let Some(consumer) = &mut seat.consumer {
            consumer.next = seat.owner.partition().position().sequence + 1;
        }
        let mut behind = self.broker.stream(StreamName::Journal).from(seat.committed + 1).iter();
        let taken = seat.owner.is_owning() && behind.any(|message| message.writer.is_some());
        if taken {
            self.say(worker, "finds the partition taken over");
            self.give_up(worker);
        }
        taken
    }

    fn lease_tick(&mut self, worker: usize) -> Result<(), Broken> {
        let after = self.dice.between(1_000, 5_000);
        self.reach_worker(worker, after, Work::LeaseTick);
        let granted = self.lease.ask(worker, self.now_ms, &self.faults, &mut self.dice);
        let jump = self.throws(self.faults.clock_jump);
        let skew = i64::try_from(self.dice.below(120_000)).unwrap_or(0) - 60_000;
        let now_ms = self.now_ms;
        let Some(known) = self.workers.get_mut(worker) else { return Ok(()) };
        if jump {
            known.skew_ms = skew;
        }
        let seat = known.seat.as_ref().map(|seat| seat.id);
        if granted {
            known.lease_until_ms = known.now(now_ms).monotonic_ms + LEASE_MS;
            let until = known.lease_until_ms;
            match seat {
                Some(seat) => return self.tell_owner(worker, seat, [Input::LeaseUntil(until)]),
                None => self.reach_worker(worker, 1, Work::TakeOver),
            }
        } else if seat.is_some() && (self.healed || self.dice.chance(500)) {
            // The other half goes on as long as nobody fences it out.
            self.vacate(worker, false);
        } else if seat.is_none() {
            self.publish_results(worker);
        }
        Ok(())
    }

    fn take_over(&mut self, worker: usize) -> Result<(), Broken> {
        if self.workers.get(worker).is_none_or(|known| known.seat.is_some()) {
            return Ok(());
        }
        let snapshot = self.newest_snapshot()?;
        let ids = (self.id(), self.id());
        let mut dice = crate::dice::Dice::new(self.dice.next());
        let mut outputs = Vec::new();
        let Some(process) = self.workers.get(worker) else { return Ok(()) };
        let seat =
            Seat::new(ids, worker, process, self.seat_config()?, snapshot, &mut dice, &mut outputs);
        self.say(worker, "takes over");
        let now_ms = self.now_ms;
        let Some(known) = self.workers.get_mut(worker) else { return Ok(()) };
        let until = known.lease_until_ms;
        known.seat = Some(seat);
        let reports = std::mem::take(&mut known.runner.results);
        for output in outputs {
            known.queue.push_back(Work::OwnerOutput(ids.0, output));
        }
        let now = known.now(now_ms);
        if let Some(seat) = known.seat.as_mut() {
            let mut none = Vec::new();
            seat.owner.handle_reports(reports.into_iter().map(Report::Attempt), now, &mut none);
        }
        self.tell_owner(worker, ids.0, [Input::LeaseUntil(until)])
    }

    fn stand_down(&mut self, worker: usize, reason: StandDown) -> Result<(), Broken> {
        self.say(worker, format_args!("stands down: {reason:?}"));
        match reason {
            StandDown::Fenced { .. } | StandDown::Truncated { .. } => {}
            StandDown::SnapshotUnusable { detail, .. } => {
                return Err(Broken::new("invariant_a_snapshot_is_written", detail));
            }
            StandDown::Undecidable { what, cause } => {
                let known = self.workers.get_mut(worker);
                let seat = known.as_ref().and_then(|known| known.seat.as_ref());
                if let Some(seat) = seat {
                    let consumed = seat.owner.partition().position().sequence;
                    let (limits, panics) = (&self.limits, self.panics_drawn > 0);
                    self.invariants
                        .invariant_what_fails_is_blamed(what, &cause, consumed, limits, panics)?;
                }
                if let Some(known) = known {
                    known.set_aside.insert(what, cause);
                }
            }
        }
        self.give_up(worker);
        Ok(())
    }

    /// Ends the attempt to own, and begins another while the lease says so.
    pub(super) fn give_up(&mut self, worker: usize) {
        let now_ms = self.now_ms;
        let believes = self
            .workers
            .get(worker)
            .is_some_and(|known| known.lease_until_ms > known.now(now_ms).monotonic_ms);
        self.vacate(worker, believes);
    }

    /// Gives the seat up; what is not committed goes to the next owner in this
    /// process, or to COMMANDS.
    fn vacate(&mut self, worker: usize, stays: bool) {
        let Some(known) = self.workers.get_mut(worker) else { return };
        let Some(mut seat) = known.seat.take() else { return };
        let reports = seat.owner.take_uncommitted_reports().into_iter();
        known.runner.results.extend(reports.filter_map(|report| match report {
            Report::Attempt(report) => Some(report),
            // The next owner orders these again.
            Report::Case { .. }
            | Report::DeadFiled { .. }
            | Report::Relayed { .. }
            | Report::CaseReplayed(_)
            | Report::EventFiled { .. } => None,
        }));
        if stays {
            let after = self.dice.between(1, 500);
            self.reach_worker(worker, after, Work::TakeOver);
        } else {
            self.publish_results(worker);
        }
    }
}

fn short(answer: &fermata_partition::append::ReadAnswer) -> String {
    use fermata_partition::append::ReadAnswer as Answer;
    match answer {
        Answer::Found(message) => format!("found {:?}", message.writer),
        Answer::Absent { last_sequence } => format!("absent, ends at {last_sequence}"),
        Answer::Failed => "failed".to_owned(),
        Answer::Purged => "purged".to_owned(),
    }
}
