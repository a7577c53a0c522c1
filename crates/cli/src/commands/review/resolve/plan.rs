//! What is asked for when like cases are resolved, and how it is told before.

use std::collections::BTreeMap;

use fermata_core::identity::RunId;
use fermata_core::review::{Resolution, ResolveCommand};
use serde_json::json;
use uuid::Uuid;

use crate::error::CliError;
use crate::journal_view::{Done, EventsOfCase, Review};
use crate::output::{Output, Tone, counted};

/// What is to be asked for.
pub(super) struct Plan {
    pub(super) resolution: Resolution,
    cases: Vec<(Uuid, Option<RunId>, EventsOfCase)>,
    /// Open cases that are too many for one go.
    beyond: u64,
}

impl Plan {
    /// Of `wanted` open cases those that the review has at hand.
    pub(super) fn of(
        review: &Review,
        resolution: Resolution,
        mut events: BTreeMap<Uuid, EventsOfCase>,
        wanted: u64,
    ) -> Self {
        let cases = review.members.iter();
        let cases = cases
            .map(|(case, run)| (*case, *run, events.remove(case).unwrap_or_default()))
            .collect::<Vec<_>>();
        let beyond = wanted.saturating_sub(cases.len() as u64);
        Self { resolution, cases, beyond }
    }

    pub(super) fn events(&self) -> usize {
        self.cases.iter().map(|(.., events)| events.places.len()).sum()
    }

    pub(super) fn left_out(&self) -> u64 {
        self.cases.iter().map(|(.., events)| events.left_out).sum()
    }

    pub(super) fn repeated(&self) -> u64 {
        self.cases.iter().map(|(.., events)| events.repeated).sum()
    }

    /// Runs of the same events that are not resolved and may start again with them.
    fn others(&self) -> u64 {
        self.cases.iter().map(|(.., events)| events.others).sum()
    }

    /// What failed runs did that new ones will do again.
    fn done_again(&self) -> Done {
        let done = self.cases.iter().map(|(.., events)| events.done);
        done.fold(Done::default(), |sum, done| Done {
            succeeded: sum.succeeded + done.succeeded,
            unknown: sum.unknown + done.unknown,
        })
    }

    /// The warning that goes with events of failed runs.
    fn starts_over(&self) -> Option<String> {
        let runs = self.cases.iter().filter(|(_, run, _)| run.is_some()).count();
        let run = self.cases.iter().find_map(|(_, run, _)| *run)?;
        let Done { succeeded, unknown } = self.done_again();
        let again = match succeeded {
            0 => "no node of the failed ones succeeded".to_owned(),
            _ => format!(
                "what {} of the failed ones did is done again",
                counted(succeeded, "node", "nodes")
            ),
        };
        let mut text = format!(
            "{} as new ones from the beginning, under new idempotency keys: {again}",
            counted(runs, "failed run starts", "failed runs start"),
        );
        if unknown > 0 {
            let nodes = counted(unknown, "node", "nodes");
            text += &format!(
                ", and what {nodes} may have done is PERHAPS done twice: nobody knows whether it was done, as after a \
                 time-out"
            );
        }
        if self.others() > 0 {
            let others = counted(self.others(), "other run", "other runs");
            text += &format!(
                "; their events are decided once more as a whole, and {others} of them may start again, whatever \
                 became of it"
            );
        }
        Some(
            text + &format!(
                "; `fermata runs explain {run}` tells what a run did, and `--close` lets it be"
            ),
        )
    }

    pub(super) fn tell(&self, dry_run: bool, output: &mut Output) -> Result<(), CliError> {
        let (cases, events, left_out) = (self.cases.len(), self.events(), self.left_out());
        if output.is_json() {
            if !dry_run {
                return Ok(());
            }
            return output.json_line(&json!({
                "dry_run": true, "resolution": self.resolution, "cases": cases,
                "events": events, "left_out": left_out, "repeated": self.repeated(),
                "cases_beyond": self.beyond,
                "other_runs_again": self.others(),
                "nodes_done_again": self.done_again().succeeded,
                "nodes_of_unknown_outcome_again": self.done_again().unknown,
            }));
        }
        let verb = if dry_run { "would resolve" } else { "resolving" };
        let cases = counted(cases, "case", "cases");
        output.line(&format!("{verb} {cases}: {}", self.resolution.as_str()))?;
        if self.resolution != Resolution::Close {
            let events = counted(events, "event", "events");
            output.line(&format!("{events} to decide once more"))?;
            if let Some(warning) = self.starts_over() {
                output.line(&format!("{} {warning}", output.tone(Tone::Warning, "careful:")))?;
            }
        }
        if self.repeated() > 0 {
            output.line(&format!(
                "{} left out: published again under the same key, or started work since",
                counted(self.repeated(), "event", "events")
            ))?;
        }
        if left_out > 0 {
            output.line(&format!(
                "{} left out: not kept any longer, or more than are taken of a case",
                counted(left_out, "event", "events")
            ))?;
        }
        if self.beyond > 0 {
            let beyond = counted(self.beyond, "more case stays open", "more cases stay open");
            output.line(&format!("{beyond}; run this again"))?;
        }
        Ok(())
    }

    /// The command of each case, by its partition.
    pub(super) fn commands(self, review: &Review, by: &str, reason: &str) -> Vec<ResolveCommand> {
        let Self { resolution, cases, .. } = self;
        let command = |(case, run, events): (Uuid, _, EventsOfCase)| ResolveCommand {
            case,
            tenant: review.tenant.clone(),
            run,
            resolution: resolution.clone(),
            by: by.to_owned(),
            reason: reason.to_owned(),
            events: events.places,
            left_out: events.left_out,
            reply_to: None,
        };
        cases.into_iter().map(command).collect()
    }
}

#[cfg(test)]
mod tests {
    use fermata_core::identity::SourcePosition;

    use super::*;
    use crate::commands::testing::printed;
    use crate::journal_view::testing::run_of;

    #[test]
    fn what_failed_runs_did_is_told_before_it_is_done_again() {
        let of_run = |run, succeeded, unknown| {
            let events = EventsOfCase {
                places: vec![SourcePosition { sequence: 7, index: 0 }],
                done: Done { succeeded, unknown },
                ..EventsOfCase::default()
            };
            (Uuid::nil(), run, events)
        };
        let told = |cases| {
            let plan = Plan { resolution: Resolution::Retry, cases, beyond: 0 };
            printed(|output| plan.tell(true, output))
        };
        let (a, b) = (run_of("a"), run_of("b"));

        let unmatched = told(vec![of_run(None, 0, 0)]);
        assert!(unmatched.ends_with("1 event to decide once more\n"), "{unmatched}");
        let failed = told(vec![of_run(Some(a), 2, 0), of_run(Some(b), 1, 0)]);
        assert!(failed.contains("what 3 nodes of the failed ones did is done again;"), "{failed}");
        assert!(failed.contains(&format!("`fermata runs explain {a}`")), "{failed}");
        let unknown = told(vec![of_run(Some(a), 0, 1)]);
        assert!(unknown.contains("what 1 node may have done is PERHAPS done twice"), "{unknown}");
        assert!(unknown.contains("no node of the failed ones succeeded"), "{unknown}");
        assert!(!unknown.contains("other run"), "{unknown}");
        let (case, run, events) = of_run(Some(a), 0, 0);
        let fanned_out = told(vec![(case, run, EventsOfCase { others: 2, ..events })]);
        assert!(fanned_out.contains("2 other runs of them may start again"), "{fanned_out}");
    }
}
