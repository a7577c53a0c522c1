//! What is to be recorded now.

use std::sync::Arc;

use serde_json::json;

use super::{Decision, Partition, Report};
use crate::command::{CancelCommand, Command, EventCommand, StartRun, Verdict};
use crate::effect::{Effect, EventMatch, bounded_detail, bounded_outcome};
use crate::identity::{RunId, SourcePosition};
use crate::json::Json;
use crate::record::{
    CancelAnswer, CancelAnswered, CommandPoisoned, DeadFiled, EffectLate, EndReason, EventIgnored,
    EventRejected, EventRepeated, EventStarted, EventUnmatched, Record, RunStarted,
};
use crate::run::{AttemptReport, Phase};

/// Reason code where no further key or id can be kept.
pub(super) const WINDOW_FULL: &str = "window_full";

/// Reason code where the partition of the event's correlation key takes nothing.
pub(super) const OUTBOX_FULL: &str = "outbox_full";

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
                    tenant: outcome.tenant.clone(),
                    outcome: outcome.outcome.clone(),
                };
                self.decide_attempt(&report, out);
            }
            Command::Case(case) => {
                self.conclude_case(case.case, case.attempt, &case.outcome, out);
            }
            Command::Define(define) => self.decide_define(define, out),
            Command::Complete(complete) => self.decide_complete(complete, out),
            Command::Resolve(resolve) => self.decide_resolve(resolve, out),
            Command::Orphan(orphan) => self.decide_orphan(orphan, out),
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
            Report::Relayed { target, up_to } => self.conclude_relay(*target, *up_to, out),
            Report::CaseReplayed(replayed) => self.conclude_case_replay(replayed, out),
            Report::EventFiled { source } => self.conclude_filing(*source, out),
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

    /// The plans that `command` needs and that are not at hand.
    pub fn missing_plans<'a>(
        &'a self,
        command: &'a Command,
    ) -> impl Iterator<Item = crate::digest::Digest> + 'a {
        let runs: &[StartRun] = match command {
            Command::Event(EventCommand { verdict: Verdict::Start { runs }, .. }) => runs,
            Command::Event(_)
            | Command::Cancel(_)
            | Command::Outcome(_)
            | Command::Case(_)
            | Command::Define(_)
            | Command::Complete(_)
            | Command::Resolve(_)
            | Command::Orphan(_) => &[],
        };
        runs.iter().map(|run| run.plan).filter(|plan| !self.has_plan(plan))
    }

    fn decide_event(&mut self, command: &EventCommand, out: &mut Decision) {
        let (event, source) = (&command.event, command.source);
        match command.replay {
            None if self.seen.contains(source) => return,
            Some(replay) if self.commands.get(replay.as_u128()).is_some() => return,
            Some(_) if self.commands.len() >= self.limits.replays_max() => {
                return self.refuse_replay(command, out);
            }
            None | Some(_) => {}
        }
        let replay = command.replay;
        let rejected = matches!(command.verdict, Verdict::Rejected { .. });
        // A replay is decided whatever was decided about its key, unless it says that it is not.
        let is_unless_started = event.replayed.as_ref().is_some_and(|said| said.unless_started);
        let heeds_key = (replay.is_none() || is_unless_started) && !rejected;
        let first = self.keys.get(command.key).filter(|_| heeds_key);
        let body = match (&command.verdict, first) {
            (
                Verdict::Start { .. } | Verdict::Ignored { .. } | Verdict::Unmatched { .. },
                Some(first),
            ) => {
                let event = event.clone();
                EventRepeated { event, key: command.key, source, first, replay }.into()
            }
            (Verdict::Start { runs }, None) => return self.start_runs(command, runs, out),
            (Verdict::Ignored { .. } | Verdict::Unmatched { .. }, None)
                if command.correlation.is_some() =>
            {
                return self.decide_signalled(command, out);
            }
            (Verdict::Ignored { strategy }, None) => {
                tell(command, EventMatch::Ignored { strategy: strategy.clone() }, out);
                let (event, strategy) = (event.clone(), strategy.clone());
                EventIgnored { event, key: command.key, source, strategy, replay }.into()
            }
            (Verdict::Unmatched { near }, None) => {
                let case = self.unmatched_case(&event.tenant, &event.kind);
                let (event, near, key) = (event.clone(), near.clone(), command.key);
                let body = EventUnmatched { event, key, source, near: near.clone(), case, replay };
                self.emit(Record::of_tenant(&command.event.tenant, body.into()), out);
                tell(command, EventMatch::Missed { near }, out);
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
                replay,
            }
            .into(),
        };
        self.emit(Record::of_tenant(&event.tenant, body), out);
    }

    /// No further id of a replay can be kept: it is refused, and a copy of it is
    /// refused again, as its id is not remembered.
    fn refuse_replay(&mut self, command: &EventCommand, out: &mut Decision) {
        let event = &command.event;
        let kept = self.commands.len();
        let body = EventRejected {
            event: event.clone(),
            source: command.source,
            reason: WINDOW_FULL.into(),
            detail: format!("{kept} ids of commands are kept, the most that replays may add to"),
            original: None,
            replay: command.replay,
        };
        self.reject(body, out);
    }

    fn start_runs(&mut self, command: &EventCommand, runs: &[StartRun], out: &mut Decision) {
        let refused = self.has_no_room(command).or_else(|| {
            runs.iter()
                .find(|run| !self.has_plan(&run.plan))
                .map(|run| ("definition_missing", format!("plan {} cannot be found", run.plan)))
        });
        let event = &command.event;
        if let Some(refused) = refused {
            return self.refuse_event(command, refused, out);
        }
        let named = runs.iter().map(|run| (self.run_id(command, run), run)).collect::<Vec<_>>();
        // The same start decided again would be no other run.
        if named.iter().any(|(id, _)| self.runs.contains_key(id)) {
            let (key, source) = (command.key, command.source);
            let first = SourcePosition { sequence: 0, index: 0 };
            let replay = command.replay;
            let body = EventRepeated { event: event.clone(), key, source, first, replay };
            self.emit(Record::of_tenant(&event.tenant, body.into()), out);
            return;
        }
        let body = EventStarted {
            event: event.clone(),
            key: command.key,
            source: command.source,
            replay: command.replay,
            runs: named.iter().map(|(id, _)| *id).collect(),
        };
        self.emit(Record::of_tenant(&event.tenant, body.into()), out);
        self.signal(command, out);
        for (place, (id, run)) in named.into_iter().enumerate() {
            let (strategy, is_further) = (run.strategy.clone(), place > 0);
            tell(command, EventMatch::Started { strategy, is_further }, out);
            self.start_run_of(id, command, run, out);
        }
    }

    /// Why an event that would be kept or passed on cannot be.
    pub(super) fn has_no_room(&self, command: &EventCommand) -> Option<(&'static str, String)> {
        // A replay has the room of its id: what was refused here is to be decided after all.
        if self.keys.is_full() && command.replay.is_none() {
            let kept = self.keys.len();
            return Some((WINDOW_FULL, format!("{kept} keys are kept, the most that are allowed")));
        }
        let correlation = command.correlation.as_ref()?;
        let target = self.correlation_partition(&command.event.tenant, &correlation.key);
        self.is_outbox_full(target).then(|| {
            (OUTBOX_FULL, format!("partition {target}, which its correlation key names, is behind"))
        })
    }

    pub(super) fn refuse_event(
        &mut self,
        command: &EventCommand,
        (reason, detail): (&str, String),
        out: &mut Decision,
    ) {
        let event = &command.event;
        let body = EventRejected {
            event: event.clone(),
            source: command.source,
            reason: reason.into(),
            detail,
            original: None,
            replay: command.replay,
        };
        self.reject(body, out);
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
            let tenant = tenant.or_else(|| report.tenant.clone());
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
        let is_new = self.commands.get(command.id.as_u128()).is_none();
        if is_new && self.commands.is_full() {
            return Self::refuse(command.reply_to.as_ref(), out);
        }
        if is_new {
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

    /// No further id can be kept: nothing is recorded, and whoever asked is told
    /// to ask again later.
    fn refuse(reply_to: Option<&Arc<str>>, out: &mut Decision) {
        if let Some(to) = reply_to.cloned() {
            let answer = Json::from_value(&json!({ "answer": WINDOW_FULL }));
            out.effects.push(Effect::Reply { to, answer });
        }
    }
}

/// Has the instruments told, unless a person asked: what they ask for once more was
/// told when it came.
fn tell(command: &EventCommand, matched: EventMatch, out: &mut Decision) {
    if command.replay.is_none() {
        out.effects.push(Effect::Matched(matched));
    }
}
