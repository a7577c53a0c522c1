//! `fermata review resolve`: what a person decides about like cases.

mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::{ArgGroup, Args};
use fermata_core::command::Command;
use fermata_core::identity::{PartitionId, RunId};
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

use self::plan::Plan;
use crate::broker_session::{ANSWER_LIMIT, BrokerSession, asking_user, random_id, stored_by};
use crate::commands::runs::run_id;
use crate::error::{CliError, ExitCode};
use crate::journal_view::{CaseEvents, Resolved, Review, ReviewList, partition_of};
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
    /// Of cases of runs, only that of this run, may be given several times; other runs of its event start again, too
    #[arg(long = "run", value_name = "RUN", value_parser = run_id)]
    pub runs: Vec<RunId>,
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
    let resolution = arguments.resolution();
    let mut answers = Vec::new();
    let mut wanted = review.case_count.saturating_sub(review.resolved_count);
    if !arguments.runs.is_empty() {
        answers = keep_runs(&mut review, &arguments.runs, &resolution)?;
        wanted = review.members.len() as u64;
    } else if !review.is_open() {
        let earlier = review.resolved.as_ref().map(|earlier| (review.case, earlier));
        answers =
            earlier.map(|(case, how)| answer_of(case, how, &resolution)).into_iter().collect();
    }
    if wanted == 0 {
        return tell_answers(&answers, output);
    }
    if let Some(beyond) = review.members.keys().nth(CASES_RESOLVED_MAX).copied() {
        review.members.split_off(&beyond);
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
    let plan = Plan::of(&review, resolution, events, wanted);
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
    answers.extend(ask(session, plan.commands(&review, &by, &arguments.reason)).await?);
    tell_answers(&answers, output)
}

/// Leaves in the review the open cases of these runs alone, and answers for those that are resolved.
fn keep_runs(
    review: &mut Review,
    runs: &[RunId],
    resolution: &Resolution,
) -> Result<Vec<Value>, CliError> {
    review.members.retain(|_, run| run.is_some_and(|run| runs.contains(&run)));
    let open: BTreeSet<RunId> = review.members.values().copied().flatten().collect();
    let (mut answers, mut unknown) = (Vec::new(), Vec::new());
    for run in runs.iter().collect::<BTreeSet<_>>() {
        match review.resolved_runs.get(run) {
            _ if open.contains(run) => {}
            Some((case, how)) => answers.push(answer_of(*case, how, resolution)),
            None => unknown.push(run.to_string()),
        }
    }
    if !unknown.is_empty() {
        return Err(CliError::NotFound(format!(
            "no case that is like `{}` is of run {}; `fermata runs explain` tells what became of a \
             run, and `fermata review list --all` the cases",
            review.case,
            unknown.join(" or of run ")
        )));
    }
    Ok(answers)
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

/// What the journal says of a case that is resolved, as its partition would answer.
fn answer_of(case: Uuid, earlier: &Resolved, resolution: &Resolution) -> Value {
    let same = earlier.resolution == *resolution;
    json!({
        "case": case,
        "answer": if same { "already_resolved" } else { "conflict" },
        "resolution": earlier.resolution,
        "by": earlier.by,
        "time_ms": earlier.time_ms,
    })
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
    use super::*;
    use crate::commands::testing::printed;

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
