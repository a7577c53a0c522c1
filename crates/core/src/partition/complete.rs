//! Callbacks: outcomes of calls that were accepted earlier.

use serde_json::json;

use super::{Decision, Partition};
use crate::command::CompleteCommand;
use crate::effect::{Effect, bounded_outcome};
use crate::json::Json;
use crate::record::{EffectLate, Record};

/// What a callback is answered that was the first outcome of its effect.
const COMPLETED: &str = "completed";
/// What a callback is answered whose effect has an outcome, or whose run has
/// ended; also a repeat of the one that completed it.
const LATE: &str = "late";

impl Partition {
    /// The first outcome of the effect counts, whoever brings it; every other one
    /// is recorded as late and changes nothing.
    pub(super) fn decide_complete(&mut self, command: &CompleteCommand, out: &mut Decision) {
        let id = command.run;
        let run = self.runs.get(&id).filter(|run| run.tenant == command.tenant);
        let record = run.filter(|_| command.activation == 1).and_then(|run| {
            let index = run.executable.find(&command.node)?;
            run.complete(id, index, &command.outcome, self.time)
        });
        let answer = if let Some(record) = record {
            self.emit_run_record(id, record, out);
            self.advance_run(id, out);
            COMPLETED
        } else {
            let body = EffectLate { outcome: bounded_outcome(&command.outcome) }.into();
            let late = Record::of_node(&command.tenant, id, &command.node, body);
            self.emit(Record { activation: command.activation, ..late }, out);
            LATE
        };
        if let Some(to) = &command.reply_to {
            let answer = Json::from_value(&json!({ "answer": answer }));
            out.effects.push(Effect::Reply { to: to.clone(), answer });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::command::Command;
    use crate::digest::Digest;
    use crate::effect::Outcome;
    use crate::identity::{JournalTime, PartitionId, RunId};
    use crate::partition::testing::{event, start};
    use crate::partition::{Limits, Report};
    use crate::plan::testing::noop_plan;
    use crate::plan::{Completion, Executable, FailureClass, Plan, RetryPolicy, Work};
    use crate::record::Kind;
    use crate::run::AttemptReport;

    const TIMEOUT_MS: u64 = 3_600_000;

    fn plan(idempotent: bool, retry: RetryPolicy) -> Plan {
        let mut plan = noop_plan(1);
        let node = &mut plan.nodes[0];
        node.timeout_ms = TIMEOUT_MS;
        node.retry = retry;
        node.work = Work::Http {
            plugin: "slow".to_owned(),
            path: "/ask".to_owned(),
            body: "1".to_owned(),
            idempotent,
            completion: Completion::Callback,
        };
        plan
    }

    /// A partition with one run whose call is ordered.
    fn called(plan: Plan) -> (Partition, RunId, Arc<str>) {
        let mut partition = Partition::new(PartitionId(0), Limits::default());
        let node = plan.nodes[0].id.clone();
        partition.add_plan(Digest::of(b"plan"), Arc::new(Executable::new(plan).unwrap()));
        partition.begin_frame(JournalTime(1_000));
        let mut out = Decision::default();
        partition.decide(&event(1, None, start()), &mut out);
        let id = *partition.runs().next().unwrap().0;
        (partition, id, node)
    }

    fn kinds(out: Decision) -> Vec<Kind> {
        out.records.iter().map(|record| record.body.kind()).collect()
    }

    fn accept(partition: &mut Partition, run: RunId, node: &Arc<str>) -> Vec<Kind> {
        let outcome = Outcome::Succeeded { output: Json::null() };
        let report = AttemptReport {
            run,
            node: node.clone(),
            activation: 1,
            attempt: 1,
            tenant: None,
            outcome,
        };
        let mut out = Decision::default();
        partition.report(&Report::Attempt(report), &mut out);
        kinds(out)
    }

    fn complete(
        partition: &mut Partition,
        run: RunId,
        node: &Arc<str>,
        tenant: &str,
        outcome: Outcome,
    ) -> (Vec<Kind>, String) {
        let command = CompleteCommand {
            tenant: tenant.parse().unwrap(),
            run,
            node: node.clone(),
            activation: 1,
            outcome,
            reply_to: Some("reply".into()),
        };
        let mut out = Decision::default();
        partition.decide(&Command::Complete(command), &mut out);
        let answer = out.effects.iter().find_map(|effect| {
            let Effect::Reply { answer, .. } = effect else { return None };
            Some(answer.as_str().to_owned())
        });
        (kinds(out), answer.unwrap())
    }

    fn succeeded() -> Outcome {
        Outcome::Succeeded { output: Json::from_value(&json!({ "ok": true })) }
    }

    #[test]
    fn an_accepted_call_holds_no_attempt_and_its_first_callback_counts() {
        let (mut partition, run, node) = called(plan(true, RetryPolicy::none()));
        assert_eq!(partition.running(), 1);

        assert_eq!(accept(&mut partition, run, &node), [Kind::NodeAccepted]);
        assert_eq!((partition.running(), partition.outstanding()), (0, Vec::new()));
        let (foreign, _) = complete(&mut partition, run, &node, "other", succeeded());
        assert_eq!(foreign, [Kind::EffectLate]);
        let (first, answer) = complete(&mut partition, run, &node, "acme", succeeded());
        let (second, again) = complete(&mut partition, run, &node, "acme", succeeded());

        assert_eq!(first, [Kind::NodeSucceeded, Kind::RunSucceeded]);
        assert_eq!(answer, r#"{"answer":"completed"}"#);
        assert_eq!((second, again.as_str()), (vec![Kind::EffectLate], r#"{"answer":"late"}"#));
    }

    #[test]
    fn a_callback_may_come_before_the_answer_that_accepts_the_call() {
        let (mut partition, run, node) = called(plan(true, RetryPolicy::none()));

        let (first, _) = complete(&mut partition, run, &node, "acme", succeeded());

        assert_eq!(first, [Kind::NodeSucceeded, Kind::RunSucceeded]);
        assert_eq!(accept(&mut partition, run, &node), [Kind::EffectLate]);
    }

    #[test]
    fn a_callback_that_does_not_come_fails_the_attempt_when_its_time_has_come() {
        for (idempotent, expected) in [(true, Kind::NodeFailed), (false, Kind::NodeUnknown)] {
            let (mut partition, run, node) = called(plan(idempotent, RetryPolicy::none()));
            accept(&mut partition, run, &node);
            assert_eq!(partition.next_due(), Some(JournalTime(1_000 + TIMEOUT_MS)));
            partition.begin_frame(JournalTime(1_000 + TIMEOUT_MS));
            let mut out = Decision::default();

            partition.fire_timer(&mut out);

            assert_eq!(out.records[0].body.kind(), expected);
            assert!(partition.run(run).is_none(), "the run has ended");
        }
    }

    #[test]
    fn a_callback_counts_while_the_call_waits_to_be_made_again() {
        let again = RetryPolicy {
            max_attempts: 3,
            initial_ms: 1_000,
            on: vec![FailureClass::Timeout, FailureClass::Reported],
            ..RetryPolicy::exponential_backoff()
        };
        let (mut partition, run, node) = called(plan(true, again));
        accept(&mut partition, run, &node);
        let class = FailureClass::Reported;
        let failed = Outcome::Failed { class, detail: "not today".to_owned() };

        let (first, answer) = complete(&mut partition, run, &node, "acme", failed.clone());
        assert_eq!(first, [Kind::NodeRetrying]);
        assert_eq!(answer, r#"{"answer":"completed"}"#);
        let (late, _) = complete(&mut partition, run, &node, "acme", failed);
        assert_eq!(late, [Kind::EffectLate]);
        let (then, _) = complete(&mut partition, run, &node, "acme", succeeded());

        assert_eq!(then, [Kind::NodeSucceeded, Kind::RunSucceeded]);
        assert_eq!(partition.next_due(), None, "no timer is left");
    }

    #[test]
    fn what_takes_no_callback_is_not_completed_by_one() {
        let mut plan = plan(true, RetryPolicy::none());
        if let Work::Http { completion, .. } = &mut plan.nodes[0].work {
            *completion = Completion::Answer;
        }
        let (mut partition, run, node) = called(plan);

        let (records, _) = complete(&mut partition, run, &node, "acme", succeeded());

        assert_eq!(records, [Kind::EffectLate]);
    }
}
