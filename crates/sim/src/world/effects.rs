//! The shell around effects: the runner, case handlers, dead letters.

use bytes::Bytes;
use fermata_core::command::{Command, CompleteCommand, OutcomeCommand};
use fermata_core::effect::{Attempt, Effect, Outcome};
use fermata_core::json::Json;
use fermata_core::partition::Report;
use fermata_core::plan::{Completion, FailureClass};
use fermata_core::review::{CaseReplay, CaseReplayed};
use fermata_core::run::AttemptReport;
use fermata_partition::message::AppendOutcome;
use fermata_partition::owner::Input;
use fermata_wire::commands::CommandFrame;

use super::{Happening, Reply, World};
use crate::runner::{Course, report_of};
use crate::trace::Broken;
use crate::worker::Work;

impl World {
    pub(super) fn do_effect(&mut self, worker: usize, effect: Effect) -> Result<(), Broken> {
        match effect {
            Effect::Start(attempt) => return self.start(worker, attempt),
            Effect::Abort(run) => {
                let tokens = self
                    .workers
                    .get(worker)
                    .map(|known| known.runner.of_run(run))
                    .unwrap_or_default();
                for token in tokens {
                    // One in three does not listen.
                    if self.dice.below(3) > 0 {
                        let class = FailureClass::Cancelled;
                        let outcome = Outcome::Failed { class, detail: "told to stop".to_owned() };
                        self.reach_worker(worker, 20, Work::AttemptDone { token, outcome });
                    }
                }
            }
            Effect::HandleCase(notice) => {
                let slow = !self.healed && self.dice.below(4) == 0;
                let after = if slow {
                    self.dice.between(1_000, 150_000)
                } else {
                    self.dice.between(5, 900)
                };
                let outcome = Outcome::Succeeded { output: Json::null() };
                let (case, attempt) = (notice.case, notice.attempt);
                let report = Report::Case { case, attempt, outcome };
                self.reach_worker(worker, after, Work::Report(report));
            }
            Effect::FileDead(dead) => {
                let report = Report::DeadFiled { sequence: dead.sequence, index: dead.index };
                let after = self.dice.between(5, 2_000);
                self.reach_worker(worker, after, Work::Report(report));
            }
            Effect::FileEvent(dead) => {
                let after = self.dice.between(5, 2_000);
                let report = Report::EventFiled { source: dead.source };
                self.reach_worker(worker, after, Work::Report(report));
            }
            Effect::ReplayCase(replay) => self.replay_case(worker, &replay),
            Effect::Project | Effect::Reply { .. } | Effect::Ended(_) | Effect::Matched(_) => {}
            Effect::Enqueue(queued) => {
                let after = self.dice.between(1, 600);
                self.reach_worker(worker, after, Work::Enqueue(queued));
            }
            Effect::Recall(recall) => self.recall(worker, *recall),
        }
        Ok(())
    }

    /// The events of a resolved case are asked for once more; how that ends is as
    /// with replays from elsewhere.
    fn replay_case(&mut self, worker: usize, replay: &CaseReplay) {
        let asked = u32::try_from(replay.events.len()).unwrap_or(u32::MAX);
        let report = Report::CaseReplayed(CaseReplayed { case: replay.case, asked, missing: 0 });
        let after = self.dice.between(5, 2_000);
        self.reach_worker(worker, after, Work::Report(report));
    }

    fn start(&mut self, worker: usize, attempt: Attempt) -> Result<(), Broken> {
        self.invariants.invariant_intent_is_durable(&attempt)?;
        let course = Course::draw(&attempt, &self.faults, &mut self.dice);
        self.say(
            worker,
            format_args!(
                "starts attempt {} of {}: commits after {:?} ms, ends after {} ms",
                attempt.attempt,
                attempt.key(),
                course.commits_after_ms,
                course.ends_after_ms
            ),
        );
        if let Some(after) = course.commits_after_ms {
            self.after(after, Happening::Commit(attempt.clone()));
        }
        let token = self.id();
        if let Some(known) = self.workers.get_mut(worker) {
            known.runner.running.insert(token, attempt);
        }
        let work = Work::AttemptDone { token, outcome: course.outcome };
        self.reach_worker(worker, course.ends_after_ms, work);
        Ok(())
    }

    pub(super) fn attempt_done(
        &mut self,
        worker: usize,
        token: u64,
        outcome: Outcome,
    ) -> Result<(), Broken> {
        let Some(known) = self.workers.get_mut(worker) else { return Ok(()) };
        let Some(attempt) = known.runner.running.remove(&token) else { return Ok(()) };
        let accepted = matches!(outcome, Outcome::Succeeded { .. });
        if accepted && attempt.completion == Completion::Callback {
            self.call_back(worker, &attempt);
        }
        self.attempt_report(worker, report_of(&attempt, outcome))
    }

    /// Whoever owns the partition in this process takes it, or the commands do.
    pub(super) fn attempt_report(
        &mut self,
        worker: usize,
        report: AttemptReport,
    ) -> Result<(), Broken> {
        let Some(known) = self.workers.get_mut(worker) else { return Ok(()) };
        match known.seat.as_ref().map(|seat| seat.id) {
            Some(seat) => self.tell_owner(worker, seat, [Input::Report(Report::Attempt(report))]),
            None => {
                known.runner.results.push(report);
                Ok(())
            }
        }
    }

    /// Whoever accepted the call completes it now and then, at once or too late.
    fn call_back(&mut self, worker: usize, attempt: &Attempt) {
        if self.dice.below(4) == 0 {
            return;
        }
        let failed = self.dice.below(4) == 0;
        let (id, after) = (self.id(), self.dice.between(1, 15_000));
        let class = FailureClass::Reported;
        let outcome = match failed {
            true => Outcome::Failed { class, detail: "declined".to_owned() },
            false => Outcome::Succeeded { output: Json::null() },
        };
        let command = Command::Complete(CompleteCommand {
            tenant: attempt.tenant.clone(),
            run: attempt.run,
            node: attempt.node.clone(),
            activation: attempt.activation,
            outcome,
            reply_to: Some("reply".into()),
        });
        let Ok(frame) = CommandFrame { floor: 0, commands: vec![command] }.encode() else { return };
        if let Some(known) = self.workers.get_mut(worker) {
            known.runner.outbox.insert(id, frame.into());
        }
        self.reach_worker(worker, after, Work::PublishOutcome(id));
    }

    pub(super) fn report(&mut self, worker: usize, report: Report) -> Result<(), Broken> {
        let seat = self.workers.get(worker).and_then(|known| known.seat.as_ref());
        match seat.map(|seat| seat.id) {
            Some(seat) => self.tell_owner(worker, seat, [Input::Report(report)]),
            None => Ok(()),
        }
    }

    /// Sends the results that no owner in this process takes to COMMANDS.
    pub(super) fn publish_results(&mut self, worker: usize) {
        let Some(known) = self.workers.get_mut(worker) else { return };
        for report in std::mem::take(&mut known.runner.results) {
            let id = self.id();
            let Some(frame) = outcome_frame(report) else { continue };
            if let Some(known) = self.workers.get_mut(worker) {
                known.runner.outbox.insert(id, frame);
            }
            self.publish_outcome_again(worker, id);
        }
    }

    pub(super) fn publish_outcome_again(&mut self, worker: usize, id: u64) {
        let frame =
            self.workers.get(worker).and_then(|known| known.runner.outbox.get(&id).cloned());
        if let Some(frame) = frame {
            let generation = self.generation(worker);
            self.publish_command(frame, Reply::Outcome { worker, generation, id });
        }
    }

    pub(super) fn outcome_answered(&mut self, worker: usize, id: u64, outcome: AppendOutcome) {
        if matches!(outcome, AppendOutcome::Stored { .. }) {
            if let Some(known) = self.workers.get_mut(worker) {
                known.runner.outbox.remove(&id);
            }
            self.tasks.result_stored(id);
        } else {
            self.reach_worker(worker, 300, Work::PublishOutcome(id));
        }
    }
}

pub(super) fn outcome_frame(report: AttemptReport) -> Option<Bytes> {
    let AttemptReport { run, node, activation, attempt, tenant, outcome } = report;
    let command = OutcomeCommand { run, node, activation, attempt, tenant, outcome };
    let frame = CommandFrame { floor: 0, commands: vec![Command::Outcome(command)] };
    Some(frame.encode().ok()?.into())
}
