//! What is to be recorded now.

use serde_json::json;

use super::cases::{run_case, unmatched_case};
use super::{Decision, Partition, Report, Timer};
use crate::command::{CancelCommand, Command, EventCommand, StartRun, Verdict};
use crate::effect::{Effect, bounded_detail, bounded_outcome};
use crate::identity::{RunId, SourcePosition};
use crate::json::Json;
use crate::plan::FailureClass;
use crate::record::{
    Body, CancelAnswer, CancelAnswered, CommandPoisoned, DeadFiled, EffectLate, EndReason,
    EventIgnored, EventRejected, EventRepeated, EventStarted, EventUnmatched, Kind, Record,
    RunClosing, RunQuarantined, RunStarted,
};
use crate::run::{AttemptReport, Phase};

impl Partition {
    /// Decides `command`.
    ///
    /// Plans that it names must be at hand ([`Self::missing_plans`]); a start
    /// whose plan is not is rejected as `definition_missing`.
    pub fn decide(&mut self, command: &Command, out: &mut Decision) {
        match command {
            Command::Event(event) => self.decide_event(event, out),
            Command::Cancel(cancel) => self.decide_cancel(cancel, out),
            Command::Outcome(outcome) => {
                let report = AttemptReport {
                    run: outcome.run,
                    node: outcome.node.clone(),
                    activation: outcome.activation,
                    attempt: outcome.attempt,
                    outcome: outcome.outcome.clone(),
                };
                self.decide_attempt(&report, out);
            }
            Command::Define(define) => self.decide_define(define, out),
        }
    }

    /// Decides what came back from inside the process.
    pub fn report(&mut self, report: &Report, out: &mut Decision) {
        match report {
            Report::Attempt(report) => self.decide_attempt(report, out),
            Report::Case { case, attempt, outcome } => {
                self.conclude_case(*case, *attempt, outcome, out);
            }
            Report::DeadFiled { sequence, index } => {
                if self.unfiled.contains_key(&(*sequence, *index)) {
                    let body = DeadFiled { sequence: *sequence, index: *index };
                    self.emit(Record::of_partition(body.into()), out);
                }
            }
        }
    }

    /// Consumes a command without deciding it: `index` is its place in the
    /// frame at `sequence`, none when the frame is unreadable.
    pub fn poison(
        &mut self,
        sequence: u64,
        index: Option<u32>,
        reason: &str,
        detail: &str,
        out: &mut Decision,
    ) {
        let detail = bounded_detail(detail);
        let body = CommandPoisoned { sequence, index, reason: reason.into(), detail };
        self.emit(Record::of_partition(body.into()), out);
        if let Some(dead) = self.unfiled.get(&(sequence, index)) {
            out.effects.push(Effect::FileDead(dead.clone()));
        }
    }

    /// Acts on every timer that is due at the frame's time.
    pub fn fire_timers(&mut self, out: &mut Decision) {
        while let Some((due, timer)) = self.timers.first().copied() {
            if due > self.time || self.is_exhausted(out) {
                return;
            }
            match timer {
                Timer::Deadline(id) => self.close(id, EndReason::TimedOut, out),
                Timer::Retry(id, index) => {
                    let Some(step) = self.runs.get(&id).and_then(|run| run.step(id, index)) else {
                        self.timers.remove(&(due, timer));
                        continue;
                    };
                    self.emit_step(step, out);
                }
            }
        }
    }

    /// Goes on with runs that a bound held back.
    pub fn resume(&mut self, out: &mut Decision) {
        while let Some(id) = self.held_back.front().copied() {
            if self.is_exhausted(out) {
                return;
            }
            self.held_back.pop_front();
            self.advance_run(id, out);
        }
    }

    /// Whether [`Self::resume`] has something to do.
    #[must_use]
    pub fn is_held_back(&self) -> bool {
        !self.held_back.is_empty() && self.running < self.limits.attempts_open_max
    }

    /// The plans that `command` needs and that are not at hand.
    pub fn missing_plans<'a>(
        &'a self,
        command: &'a Command,
    ) -> impl Iterator<Item = crate::digest::Digest> + 'a {
        let runs: &[StartRun] = match command {
            Command::Event(EventCommand { verdict: Verdict::Start { runs }, .. }) => runs,
            Command::Event(_) | Command::Cancel(_) | Command::Outcome(_) | Command::Define(_) => {
                &[]
            }
        };
        runs.iter().map(|run| run.plan).filter(|plan| !self.has_plan(plan))
    }

    /// Folds `record` and puts it into the decision. A record that would not
    /// fold is refused; if it is a run's, that run is quarantined.
    pub(super) fn emit(&mut self, record: Record, out: &mut Decision) {
        let Err(corrupt) = self.evolve(&record) else {
            out.push(record);
            return;
        };
        let Some((id, tenant)) = record.run.zip(record.tenant) else { return };
        let is_new = matches!(record.body, Body::RunStarted(_));
        if is_new || !self.runs.contains_key(&id) {
            return;
        }
        let detail = bounded_detail(&corrupt.to_string());
        let quarantined = RunQuarantined { detail: detail.clone() }.into();
        let quarantined = Record::of_run(&tenant, id, quarantined);
        if self.evolve(&quarantined).is_ok() {
            out.push(quarantined);
            out.effects.push(Effect::Abort(id));
            self.open_run_case(id, &tenant, "run_quarantined", &json!({ "detail": detail }), out);
        }
    }

    fn is_exhausted(&self, out: &Decision) -> bool {
        out.records_decided >= self.limits.decision_records_max
            || out.payload_bytes >= self.limits.decision_bytes_max
            || self.running >= self.limits.attempts_open_max
    }

    fn decide_event(&mut self, command: &EventCommand, out: &mut Decision) {
        let (event, source) = (&command.event, command.source);
        match command.replay {
            None if self.seen.contains(source) => return,
            Some(replay) if self.commands.get(replay.as_u128()).is_some() => return,
            None | Some(_) => {}
        }
        let rejected = matches!(command.verdict, Verdict::Rejected { .. });
        let first = self.keys.get(command.key).filter(|_| command.replay.is_none() && !rejected);
        let body = match (&command.verdict, first) {
            (
                Verdict::Start { .. } | Verdict::Ignored { .. } | Verdict::Unmatched { .. },
                Some(first),
            ) => EventRepeated { event: event.clone(), key: command.key, source, first }.into(),
            (Verdict::Start { runs }, None) => return self.start_runs(command, runs, out),
            (Verdict::Ignored { strategy }, None) => EventIgnored {
                event: event.clone(),
                key: command.key,
                source,
                strategy: strategy.clone(),
            }
            .into(),
            (Verdict::Unmatched { near }, None) => {
                let case = unmatched_case(self.id, &event.tenant, &event.kind, self.time);
                let (event, near) = (event.clone(), near.clone());
                let body = EventUnmatched { event, key: command.key, source, near, case }.into();
                self.emit(Record::of_tenant(&command.event.tenant, body), out);
                let event = &command.event;
                self.open_unmatched_case(case, &event.tenant, &event.kind, &event.id, out);
                return;
            }
            (Verdict::Rejected { reason, detail, original }, _) => EventRejected {
                event: event.clone(),
                source,
                reason: reason.clone(),
                detail: bounded_detail(detail),
                original: Some(*original),
            }
            .into(),
        };
        self.emit(Record::of_tenant(&event.tenant, body), out);
    }

    fn start_runs(&mut self, command: &EventCommand, runs: &[StartRun], out: &mut Decision) {
        let refused = if self.keys.is_full() && command.replay.is_none() {
            let kept = self.keys.len();
            Some(("window_full", format!("{kept} keys are kept, the most that are allowed")))
        } else {
            runs.iter()
                .find(|run| !self.has_plan(&run.plan))
                .map(|run| ("definition_missing", format!("plan {} cannot be found", run.plan)))
        };
        let event = &command.event;
        if let Some((reason, detail)) = refused {
            let body = EventRejected {
                event: event.clone(),
                source: command.source,
                reason: reason.into(),
                detail,
                original: None,
            };
            self.emit(Record::of_tenant(&event.tenant, body.into()), out);
            return;
        }
        let named = runs.iter().map(|run| (self.run_id(command, run), run)).collect::<Vec<_>>();
        // The same start decided again would be no other run.
        if named.iter().any(|(id, _)| self.runs.contains_key(id)) {
            let (key, source) = (command.key, command.source);
            let first = SourcePosition { sequence: 0, index: 0 };
            let body = EventRepeated { event: event.clone(), key, source, first };
            return self.emit(Record::of_tenant(&event.tenant, body.into()), out);
        }
        let body = EventStarted {
            event: event.clone(),
            key: command.key,
            source: command.source,
            replay: command.replay,
            runs: named.iter().map(|(id, _)| *id).collect(),
        };
        self.emit(Record::of_tenant(&event.tenant, body.into()), out);
        for (id, run) in named {
            self.start_run_of(id, command, run, out);
        }
    }

    fn run_id(&self, command: &EventCommand, run: &StartRun) -> RunId {
        let (tenant, source) = (&command.event.tenant, command.source);
        RunId::new(self.id, tenant, command.key, source, &run.strategy, command.replay)
    }

    fn start_run_of(
        &mut self,
        id: RunId,
        command: &EventCommand,
        run: &StartRun,
        out: &mut Decision,
    ) {
        let Some(executable) = self.plans.get(&run.plan).cloned() else { return };
        let plan = executable.plan();
        let body = RunStarted {
            event: command.event.clone(),
            strategy: run.strategy.clone(),
            strategy_version: run.strategy_version,
            workflow: plan.workflow.clone(),
            workflow_version: plan.workflow_version.clone(),
            plan: run.plan,
            input: run.input.clone(),
            deadline: self.time.plus_ms(plan.run_timeout_ms),
        };
        self.emit(Record::of_run(&command.event.tenant, id, body.into()), out);
        self.advance_run(id, out);
    }

    fn decide_attempt(&mut self, report: &AttemptReport, out: &mut Decision) {
        let id = report.run;
        let record = self.runs.get(&id).and_then(|run| {
            let index = run.executable.find(&report.node)?;
            run.conclude(id, index, report.attempt, &report.outcome, self.time)
        });
        let Some(record) = record else {
            let tenant = self.runs.get(&id).map(|run| run.tenant.clone());
            let body = EffectLate { outcome: bounded_outcome(&report.outcome) }.into();
            let late = Record {
                tenant,
                run: Some(id),
                node: Some(report.node.clone()),
                ..Record::of_partition(body)
            };
            self.emit(late.attempt(report.attempt), out);
            return;
        };
        self.emit_run_record(id, record, out);
        self.advance_run(id, out);
    }

    fn decide_cancel(&mut self, command: &CancelCommand, out: &mut Decision) {
        let phase =
            self.runs.get(&command.run).map(|run| (run.phase().clone(), run.tenant.clone()));
        let answer = match &phase {
            Some((Phase::Open, _)) => CancelAnswer::Closing,
            Some((Phase::Closing(_), _)) => CancelAnswer::AlreadyClosing,
            None => CancelAnswer::NotRunning,
        };
        if self.commands.get(command.id.as_u128()).is_none() {
            let body = CancelAnswered {
                id: command.id,
                run: command.run,
                by: bounded_detail(&command.by),
                reason: bounded_detail(&command.reason),
                answer,
            };
            let tenant = phase.map(|(_, tenant)| tenant);
            let record =
                Record { tenant, run: Some(command.run), ..Record::of_partition(body.into()) };
            self.emit(record, out);
            if answer == CancelAnswer::Closing {
                let (by, reason) = (bounded_detail(&command.by), bounded_detail(&command.reason));
                self.close(command.run, EndReason::Cancelled { by, reason }, out);
            }
        }
        if let Some(to) = &command.reply_to {
            let answer = Json::from_value(&json!({ "answer": answer.as_str() }));
            out.effects.push(Effect::Reply { to: to.clone(), answer });
        }
    }

    /// Moves ready nodes on until none is left or a bound is met, and ends the
    /// run if that was the last of it.
    pub(super) fn advance_run(&mut self, id: RunId, out: &mut Decision) {
        loop {
            let Some(run) = self.runs.get(&id) else { return };
            if let Some(body) = run.ending() {
                return self.end(id, body, out);
            }
            let Some(index) = run.next_ready() else { return };
            if self.is_exhausted(out) {
                self.held_back.push_back(id);
                return;
            }
            let Some(step) = run.step(id, index) else { return };
            self.emit_step(step, out);
        }
    }

    pub(super) fn emit_step(&mut self, step: crate::run::Step, out: &mut Decision) {
        let Some(id) = step.record.run else { return };
        let before = out.records.len();
        self.emit_run_record(id, step.record, out);
        if let (Some(attempt), true) = (step.attempt, out.records.len() > before) {
            out.effects.push(Effect::Start(attempt));
        }
    }

    /// Emits a node's record; a node that failed for good closes its run.
    pub(super) fn emit_run_record(&mut self, id: RunId, record: Record, out: &mut Decision) {
        let failure = if let Body::NodeFailed(failed) = &record.body {
            Some((failed.class, failed.detail.clone()))
        } else if let Body::NodeUnknown(unknown) = &record.body {
            Some((FailureClass::Unknown, unknown.detail.clone()))
        } else {
            None
        };
        let node = record.node.clone();
        self.emit(record, out);
        if let (Some((class, detail)), Some(node)) = (failure, node) {
            let open = self.runs.get(&id).is_some_and(|run| *run.phase() == Phase::Open);
            if open {
                self.close(id, EndReason::Failed { node, class, detail }, out);
            }
        }
    }

    /// Closes the run: nothing new is dispatched, what runs is told to stop.
    pub(super) fn close(&mut self, id: RunId, reason: EndReason, out: &mut Decision) {
        let Some(run) = self.runs.get(&id) else { return };
        let (tenant, running) = (run.tenant.clone(), run.running());
        self.emit(Record::of_run(&tenant, id, RunClosing { reason }.into()), out);
        if running > 0 {
            out.effects.push(Effect::Abort(id));
        }
        self.advance_run(id, out);
    }

    fn end(&mut self, id: RunId, body: Body, out: &mut Decision) {
        let Some(run) = self.runs.get(&id) else { return };
        let tenant = run.tenant.clone();
        let failed = body.kind() != Kind::RunSucceeded;
        out.effects.push(Effect::Ended(run.ended(id, self.time, failed)));
        let reason = if let Body::RunFailed(failed) = &body {
            run_case(&failed.reason)
        } else if let Body::RunTimedOut(timed_out) = &body {
            run_case(&timed_out.reason)
        } else {
            None
        };
        self.emit(Record::of_run(&tenant, id, body), out);
        if let Some((reason, detail)) = reason {
            self.open_run_case(id, &tenant, reason, &detail, out);
        }
    }
}
