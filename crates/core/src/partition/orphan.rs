//! Attempts that nobody works on any more and whose owner does not notice: a
//! person gives them up.

use serde_json::json;

use super::{Decision, Partition};
use crate::command::OrphanCommand;
use crate::effect::{Effect, bounded_detail};
use crate::json::Json;
use crate::record::{NodeUnknown, Record};
use crate::run::Node;

/// The attempt's outcome is unknown from here on.
const GIVEN_UP: &str = "given_up";
/// The attempt has an outcome, or was never ordered; nothing is recorded.
const NOT_RUNNING: &str = "not_running";

impl Partition {
    /// Nobody can tell whether the effect happened, so its outcome is unknown, as
    /// with a lost attempt at a target that is not idempotent. An outcome that
    /// comes after all is late.
    pub(super) fn decide_orphan(&mut self, command: &OrphanCommand, out: &mut Decision) {
        let id = command.run;
        let run = self.runs.get(&id).filter(|run| run.tenant == command.tenant);
        let record = run.and_then(|run| {
            let index = run.executable.find(&command.node)?;
            let node = run.executable.node(index)?;
            let runs = matches!(
                run.node(index)?, Node::Running { attempt, .. } if *attempt == command.attempt
            );
            let (by, reason) = (&command.by, &command.reason);
            let detail = bounded_detail(&format!("given up by {by}: {reason}"));
            let body = NodeUnknown { detail }.into();
            let record = Record::of_node(&run.tenant, id, &node.id, body);
            runs.then(|| record.attempt(command.attempt))
        });
        let answer = match record {
            Some(record) => {
                self.emit_run_record(id, record, out);
                self.advance_run(id, out);
                GIVEN_UP
            }
            None => NOT_RUNNING,
        };
        if let Some(to) = command.reply_to.clone() {
            let answer = json!({
                "run": id, "node": &*command.node, "attempt": command.attempt, "answer": answer,
            });
            out.effects.push(Effect::Reply { to, answer: Json::from_value(&answer) });
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
    use crate::plan::Executable;
    use crate::plan::testing::noop_plan;
    use crate::record::{Body, Kind};
    use crate::run::AttemptReport;

    /// A partition with one run of two nodes, the first of which is ordered.
    fn running() -> (Partition, RunId, Arc<str>) {
        let mut partition = Partition::new(PartitionId(0), Limits::default());
        let plan = noop_plan(2);
        let node = plan.nodes[0].id.clone();
        partition.add_plan(Digest::of(b"plan"), Arc::new(Executable::new(plan).unwrap()));
        partition.begin_frame(JournalTime(1_000));
        partition.decide(&event(1, None, start()), &mut Decision::default());
        let id = *partition.runs().next().unwrap().0;
        (partition, id, node)
    }

    fn give_up(partition: &mut Partition, run: RunId, tenant: &str, attempt: u32) -> Vec<Record> {
        let command = OrphanCommand {
            tenant: tenant.parse().unwrap(),
            run,
            node: "n0".into(),
            attempt,
            by: "ada".to_owned(),
            reason: "its worker is gone".to_owned(),
            reply_to: None,
        };
        let node = partition.run(run).map(|run| run.executable.plan().nodes[0].id.clone());
        let command = OrphanCommand { node: node.unwrap_or("n0".into()), ..command };
        let mut out = Decision::default();
        partition.decide(&Command::Orphan(command), &mut out);
        out.records
    }

    #[test]
    fn an_attempt_that_is_given_up_is_unknown_and_says_who_and_why() {
        let (mut partition, run, node) = running();
        assert!(give_up(&mut partition, run, "acme", 2).is_empty(), "another attempt");
        assert!(give_up(&mut partition, run, "other", 1).is_empty(), "another tenant's");

        let records = give_up(&mut partition, run, "acme", 1);

        let Body::NodeUnknown(unknown) = &records[0].body else { panic!("{records:?}") };
        assert_eq!(unknown.detail, "given up by ada: its worker is gone");
        assert!(records.iter().any(|record| record.body.kind() == Kind::CaseOpened));
        assert_eq!((partition.running(), partition.run(run).is_none()), (0, true));
        let report = AttemptReport {
            run,
            node,
            activation: 1,
            attempt: 1,
            tenant: Some("acme".parse().unwrap()),
            outcome: Outcome::Succeeded { output: Json::null() },
        };
        let mut out = Decision::default();
        partition.report(&Report::Attempt(report), &mut out);
        assert_eq!(out.records[0].body.kind(), Kind::EffectLate);
    }
}
