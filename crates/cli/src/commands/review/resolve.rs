//! `fermata review resolve`: what a person decides about like cases.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{ArgGroup, Args};
use fermata_core::command::Command;
use fermata_core::identity::PartitionId;
use fermata_core::review::{Resolution, ResolveCommand};
use fermata_core::strategy::{Action, StrategyDefinition, TENANT_ANY};
use fermata_definitions::did_you_mean;
use fermata_jetstream::core_messages::CoreMessages;
use fermata_jetstream::topology::EVENTS_STREAM;
use fermata_jetstream::{Bytes, StreamReader};
use fermata_wire::commands::CommandFrameBuilder;
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use crate::broker_session::{ANSWER_LIMIT, BrokerSession, asking_user, random_id, stored_by};
use crate::error::{CliError, ExitCode};
use crate::journal_view::{CaseEvents, Done, EventsOfCase, Review, ReviewList, partition_of};
use crate::output::{Output, RECORDS_READ, Tone, counted, time_text};

/// Bytes of commands that are sent to a partition in one message: what it
/// records for one message must fit one of its journal.
const COMMANDS_BYTES_MAX: usize = 64 * 1024;

/// Cases of one review that are resolved at once. Default 1,000: with their events
/// some megabytes. The others stay open, and whoever resolves them is told.
const CASES_RESOLVED_MAX: usize = 1_000;

/// Arguments of `fermata review resolve`.
#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("what").args(["retry", "route", "close"]).required(true))]
pub struct ResolveArguments {
    /// Id of a case; all that are like it are resolved with it
    #[arg(value_name = "CASE", value_parser = super::case_id)]
    pub case: Uuid,
    /// Match the events of the cases again, with the definitions that are active now
    #[arg(long)]
    pub retry: bool,
    /// Have the events start what this strategy starts, whatever it asks of them
    #[arg(long, value_name = "STRATEGY")]
    pub route: Option<String>,
    /// Do nothing about them: somebody has looked
    #[arg(long)]
    pub close: bool,
    /// Why, for people and the audit log
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Who asks, for the audit log; default: the user of the operating system
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

impl ResolveArguments {
    fn resolution(&self) -> Resolution {
        match (&self.route, self.retry) {
            (Some(strategy), _) => Resolution::Route { strategy: strategy.as_str().into() },
            (None, true) => Resolution::Retry,
            (None, false) => Resolution::Close,
        }
    }
}

/// Resolves what is open of a review.
pub(super) async fn resolve(
    arguments: ResolveArguments,
    session: &BrokerSession,
    partitions: &[PartitionId],
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let reader = StreamReader::new(session.broker());
    let progress = output.counter(RECORDS_READ);
    let partitions_read = partitions.iter().copied();
    let found = ReviewList::read_one(&reader, partitions_read, arguments.case, &progress).await;
    progress.finish_and_clear();
    let mut review = found?.ok_or_else(|| super::not_there(arguments.case))?;
    if let Some(beyond) = review.members.keys().nth(CASES_RESOLVED_MAX).copied() {
        review.members.split_off(&beyond);
    }
    let resolution = arguments.resolution();
    if !review.is_open() {
        return tell_resolved(&review, &resolution, output);
    }
    if let Resolution::Route { strategy } = &resolution {
        check_strategy(session, strategy, &review).await?;
    }
    let mut events = match resolution {
        Resolution::Close => BTreeMap::new(),
        Resolution::Retry | Resolution::Route { .. } => {
            CaseEvents::read(&reader, partitions, &review).await?
        }
    };
    let first_kept = reader.stream_state(EVENTS_STREAM).await?.first_sequence;
    for events in events.values_mut() {
        let before = events.places.len();
        events.places.retain(|place| place.sequence >= first_kept);
        events.left_out += (before - events.places.len()) as u64;
    }
    let plan = Plan::of(&review, resolution, events);
    if plan.resolution != Resolution::Close && plan.events() == 0 {
        if plan.left_out() == 0 && plan.repeated() > 0 {
            return Err(CliError::Refused(
                "all of these events started work since, published again or by a replay; `--close` the cases"
                    .to_owned(),
            ));
        }
        return Err(CliError::NotFound(format!(
            "none of the {} of these cases is kept any longer; publish them again, and \
             `--close` the cases",
            counted(plan.left_out(), "event", "events")
        )));
    }
    plan.tell(arguments.dry_run, output)?;
    if arguments.dry_run {
        return Ok(ExitCode::Success);
    }
    let by = arguments.by.unwrap_or_else(asking_user);
    let answers = ask(session, plan.commands(&review, &by, &arguments.reason)).await?;
    tell_answers(&answers, output)
}

/// What is to be asked for.
struct Plan {
    resolution: Resolution,
    cases: Vec<(Uuid, Option<fermata_core::identity::RunId>, EventsOfCase)>,
    /// Open cases that are too many for one go.
    beyond: u64,
}

impl Plan {
    fn of(
        review: &Review,
        resolution: Resolution,
        mut events: BTreeMap<Uuid, EventsOfCase>,
    ) -> Self {
        let cases = review.members.iter();
        let cases = cases
            .map(|(case, run)| (*case, *run, events.remove(case).unwrap_or_default()))
            .collect::<Vec<_>>();
        let open = review.case_count.saturating_sub(review.resolved_count);
        let beyond = open.saturating_sub(cases.len() as u64);
        Self { resolution, cases, beyond }
    }

    fn events(&self) -> usize {
        self.cases.iter().map(|(.., events)| events.places.len()).sum()
    }

    fn left_out(&self) -> u64 {
        self.cases.iter().map(|(.., events)| events.left_out).sum()
    }

    fn repeated(&self) -> u64 {
        self.cases.iter().map(|(.., events)| events.repeated).sum()
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
        Some(
            text + &format!(
                "; `fermata runs explain {run}` tells what a run did, and `--close` lets it be"
            ),
        )
    }

    fn tell(&self, dry_run: bool, output: &mut Output) -> Result<(), CliError> {
        let (cases, events, left_out) = (self.cases.len(), self.events(), self.left_out());
        if output.is_json() {
            if !dry_run {
                return Ok(());
            }
            return output.json_line(&json!({
                "dry_run": true, "resolution": self.resolution, "cases": cases,
                "events": events, "left_out": left_out, "repeated": self.repeated(),
                "cases_beyond": self.beyond,
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
    fn commands(self, review: &Review, by: &str, reason: &str) -> Vec<ResolveCommand> {
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

/// A strategy that would refuse every event is refused here, before anything is
/// recorded.
async fn check_strategy(
    session: &BrokerSession,
    strategy: &str,
    review: &Review,
) -> Result<(), CliError> {
    let active = session.active_definitions().await?;
    let unknown = || {
        let known = active.strategies.keys().map(|known| &**known);
        let question = did_you_mean(strategy, known);
        // One of that name that is for another tenant was named as it was meant.
        let question = question.filter(|_| !active.strategies.contains_key(strategy));
        let hint = question.unwrap_or_else(|| "`fermata strategy list` lists them".to_owned());
        let tenant = &review.tenant;
        CliError::NotFound(format!(
            "there is no strategy `{strategy}` for tenant `{tenant}`; {hint}"
        ))
    };
    let entry = active.strategies.get(strategy).ok_or_else(unknown)?;
    let definition = serde_json::from_str::<StrategyDefinition>(entry.definition.as_str())
        .map_err(|source| CliError::Json { what: format!("strategy `{strategy}`"), source })?;
    let tenant = definition.tenant.as_str();
    if tenant != TENANT_ANY && tenant != review.tenant.as_str() {
        return Err(unknown());
    }
    match definition.action {
        Action::Run { .. } => Ok(()),
        Action::Ignore => Err(CliError::Usage(format!(
            "strategy `{strategy}` ignores events; `--close` closes a case"
        ))),
    }
}

/// Says what the journal says of cases that are all resolved.
fn tell_resolved(
    review: &Review,
    resolution: &Resolution,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let Some(earlier) = &review.resolved else { return Ok(ExitCode::Success) };
    let same = earlier.resolution == *resolution;
    let answer = json!({
        "case": review.case,
        "answer": if same { "already_resolved" } else { "conflict" },
        "resolution": earlier.resolution,
        "by": earlier.by,
        "time_ms": earlier.time_ms,
    });
    tell_answers(&[answer], output)
}

/// Sends the commands and waits for the answer to each.
async fn ask(
    session: &BrokerSession,
    commands: Vec<ResolveCommand>,
) -> Result<Vec<Value>, CliError> {
    let inbox = format!("_INBOX.{}", random_id().simple());
    let mut incoming = CoreMessages::new(session.broker()).subscribe(&inbox).await?;
    let publisher = session.publisher().await?;
    let mut frames: BTreeMap<PartitionId, CommandFrameBuilder> = BTreeMap::new();
    let mut full = Vec::new();
    let count = commands.len();
    for command in commands {
        let partition = partition_of(command.case);
        let reply_to = Some(inbox.as_str().into());
        let frame = frames.entry(partition).or_default();
        frame.push(&Command::Resolve(ResolveCommand { reply_to, ..command }))?;
        if frame.bytes() > COMMANDS_BYTES_MAX {
            full.push((partition, frame.finish(0)?));
        }
    }
    for (partition, mut frame) in frames {
        if !frame.is_empty() {
            full.push((partition, frame.finish(0)?));
        }
    }
    for (partition, frame) in full {
        let subject = fermata_wire::subjects::commands(partition);
        let frame = Bytes::from(frame);
        let publish = async || publisher.publish(subject.clone(), None, frame.clone()).await.await;
        stored_by(session.broker(), &subject, publish).await?;
    }
    let mut answers = Vec::new();
    let until = Instant::now() + ANSWER_LIMIT;
    while answers.len() < count {
        let Ok(Some(answer)) = tokio::time::timeout_at(until, incoming.next()).await else {
            return Err(no_answer(count - answers.len(), ANSWER_LIMIT));
        };
        let what = "the engine's answer".to_owned();
        answers.push(
            serde_json::from_slice::<Value>(&answer.payload)
                .map_err(|source| CliError::Json { what, source })?,
        );
    }
    Ok(answers)
}

fn no_answer(missing: usize, limit: Duration) -> CliError {
    CliError::NoAnswer {
        seconds: limit.as_secs(),
        what_now: format!(
            "{}; the commands are stored and will be decided when an \
             engine runs; `fermata review show` tells",
            counted(missing, "case has no answer", "cases have no answer")
        ),
    }
}

/// HTTP's number for what stands against what somebody else did first.
const CONFLICT: u16 = 409;

fn tell_answers(answers: &[Value], output: &mut Output) -> Result<ExitCode, CliError> {
    let word = |answer: &Value| answer["answer"].as_str().unwrap_or("unreadable").to_owned();
    let settled = ["resolved", "already_resolved"];
    let all = answers.iter().all(|answer| settled.contains(&word(answer).as_str()));
    let code = if all { ExitCode::Success } else { ExitCode::Findings };
    if output.is_json() {
        for answer in answers {
            let mut answer = answer.clone();
            let is_conflict = word(&answer) == "conflict";
            if let Some(members) = answer.as_object_mut().filter(|_| is_conflict) {
                members.insert("status".to_owned(), CONFLICT.into());
            }
            output.json_line(&answer)?;
        }
        return Ok(code);
    }
    let resolved = answers.iter().filter(|answer| word(answer) == "resolved").count();
    if resolved > 0 {
        let title = output.tone(Tone::Good, "resolved");
        output.line(&format!("{title}: {}", counted(resolved, "case", "cases")))?;
    }
    for answer in answers.iter().filter(|answer| word(answer) != "resolved") {
        output.line(&sentence(answer))?;
    }
    Ok(code)
}

fn sentence(answer: &Value) -> String {
    let case = answer["case"].as_str().unwrap_or_default();
    let by = answer["by"].as_str().unwrap_or_default();
    let time = time_text(answer["time_ms"].as_u64().unwrap_or(0));
    let resolution = serde_json::from_value::<Resolution>(answer["resolution"].clone());
    let how = resolution.as_ref().map_or("", Resolution::as_str);
    match answer["answer"].as_str().unwrap_or_default() {
        "already_resolved" => {
            format!("already resolved: {case} by {by} at {time} ({how}); nothing was done")
        }
        "conflict" => format!(
            "conflict: {case} was resolved otherwise by {by} at {time} ({how}); nothing was done"
        ),
        "busy" => format!(
            "busy: {case} is left open, too many cases are being replayed; resolve it later"
        ),
        "unknown_case" => format!("unknown: {case} is no case of that partition"),
        other => format!("{other}: {case}"),
    }
}

#[cfg(test)]
mod tests {
    use fermata_core::identity::SourcePosition;

    use super::*;
    use crate::commands::testing::printed;
    use crate::journal_view::testing::run_of;

    fn answer(word: &str) -> Value {
        json!({
            "case": "00000000-0000-8000-8000-000000000000", "answer": word,
            "resolution": { "route": { "strategy": "report" } }, "by": "ada", "time_ms": 0,
        })
    }

    #[test]
    fn a_conflict_says_who_resolved_the_case_how_and_when_and_ends_with_a_finding() {
        let mut code = None;
        let shown = printed(|output| {
            code = Some(tell_answers(&[answer("resolved"), answer("conflict")], output)?);
            Ok(())
        });

        assert!(shown.contains("resolved: 1 case\n"), "{shown}");
        assert!(shown.contains("by ada at 1970-01-01T00:00:00"), "{shown}");
        assert!(shown.contains("(route)"), "{shown}");
        assert_eq!(code, Some(ExitCode::Findings));
    }

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
    }

    #[test]
    fn the_same_again_is_told_and_is_no_finding() {
        let mut code = None;
        let shown = printed(|output| {
            code = Some(tell_answers(&[answer("already_resolved")], output)?);
            Ok(())
        });

        assert!(shown.starts_with("already resolved: ") && shown.contains("nothing was done"));
        assert_eq!(code, Some(ExitCode::Success));
    }
}
