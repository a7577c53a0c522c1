//! `fermata runs`: what was started, what became of it, and stopping it.

mod explain;
mod list;
mod moment;
mod run_view;

use clap::{Args, Subcommand};
use fermata_core::command::{CancelCommand, Command};
use fermata_core::identity::{PartitionId, RunId};
use fermata_jetstream::StreamReader;
use fermata_jetstream::reader::Holes;
use fermata_jetstream::topology::journal_stream;
use serde_json::{Value, json};

use crate::arguments::GlobalArguments;
use crate::broker_session::{ANSWER_LIMIT, BrokerSession, asking_user, random_id};
use crate::error::{CliError, ExitCode};
use crate::journal_view::{ReadRun, RunHistory, RunStatus, did_you_mean, read_message, read_run};
use crate::output::{Output, RECORDS_READ};

pub use list::ListArguments;
pub use moment::moment;
pub use run_view::{print_history, print_runs};

/// How many messages are taken from a followed journal at a time.
const BATCH_MESSAGES: usize = 128;

/// What to do with runs.
#[derive(Debug, Subcommand)]
pub enum RunsCommand {
    /// List runs, the newest first
    #[command(
        after_help = "Examples:\n  fermata runs list\n  fermata runs list --tenant acme --status failed --since 2h --limit 10"
    )]
    List(ListArguments),
    /// Show a run: its nodes and its timeline
    #[command(after_help = "Examples:\n  fermata runs show 0003c0de-0000-8000-8000-000000000000")]
    Show(RunArguments),
    /// Tell in sentences why a run is where it is, and what comes next
    #[command(
        after_help = "Examples:\n  fermata runs explain 0003c0de-0000-8000-8000-000000000000"
    )]
    Explain(RunArguments),
    /// Follow a run until it ends; ends with 0 if it succeeded, else with 1
    #[command(after_help = "Examples:\n  fermata runs watch 0003c0de-0000-8000-8000-000000000000")]
    Watch(RunArguments),
    /// Stop a run: nothing new is started, and calls under way are given up; who was called may act all the same
    #[command(
        after_help = "Examples:\n  fermata runs cancel 0003c0de-0000-8000-8000-000000000000 --reason 'sent twice'"
    )]
    Cancel(CancelArguments),
}

pub(crate) fn run_id(text: &str) -> Result<RunId, &'static str> {
    text.parse().map_err(|_| "expected the id of a run, as `fermata runs list` shows it")
}

/// Names one run.
#[derive(Debug, Clone, Args)]
pub struct RunArguments {
    /// Id of the run
    #[arg(value_name = "ID", value_parser = run_id)]
    pub id: RunId,
}

/// Arguments of `fermata runs cancel`.
#[derive(Debug, Clone, Args)]
pub struct CancelArguments {
    /// Id of the run
    #[arg(value_name = "ID", value_parser = run_id)]
    pub id: RunId,
    /// Why, for people and the audit log
    #[arg(long, value_name = "TEXT", default_value = "cancelled from the command line")]
    pub reason: String,
    /// Who asks, for the audit log; default: the user of the operating system
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
}

/// Does what was typed.
///
/// # Errors
///
/// When the broker or the engine does not answer, or there is no such run.
///
/// # Cancel safety
///
/// When `cancel` is dropped, the run may be cancelled.
pub async fn run(
    command: RunsCommand,
    global: &GlobalArguments,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let session = BrokerSession::open(global).await?;
    match command {
        RunsCommand::List(arguments) => list::run(&arguments, &session, output).await,
        RunsCommand::Show(arguments) => show(arguments.id, &session, output).await,
        RunsCommand::Explain(arguments) => {
            let (history, _) = find(arguments.id, &session, output).await?;
            explain::run(&history, &session, output).await
        }
        RunsCommand::Watch(arguments) => watch(arguments.id, &session, output).await,
        RunsCommand::Cancel(arguments) => cancel(arguments, &session, output).await,
    }
}

/// Reads the run, or says that there is none and which may be meant. Also tells where to follow
/// its journal from.
pub(crate) async fn find(
    run: RunId,
    session: &BrokerSession,
    output: &Output,
) -> Result<(RunHistory, u64), CliError> {
    let partition = partition_of(run, session.engine_config().await?.partitions)?;
    let reader = StreamReader::new(session.broker());
    let progress = output.counter(RECORDS_READ);
    let read = read_run(&reader, run, &progress).await;
    progress.finish_and_clear();
    let ReadRun { history, near, next_sequence } = read?;
    let not_found = || {
        let hint =
            did_you_mean(&near).unwrap_or_else(|| "`fermata runs list` lists the runs".to_owned());
        CliError::NotFound(format!(
            "there is no run `{run}` in the journal of its partition {partition}; {hint}"
        ))
    };
    Ok((history.ok_or_else(not_found)?, next_sequence))
}

/// The partition of a run, of so many that an engine has.
pub(crate) fn partition_of(run: RunId, partitions: u16) -> Result<PartitionId, CliError> {
    let partition = run.partition();
    if partition.0 < partitions {
        return Ok(partition);
    }
    Err(CliError::NotFound(format!(
        "there is no run `{run}`: the first four digits of an id name its partition, here \
         {partition}, and this engine has {partitions}; `fermata runs list` lists the runs"
    )))
}

async fn show(
    run: RunId,
    session: &BrokerSession,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let (history, _) = find(run, session, output).await?;
    print_history(&history, output)?;
    Ok(ExitCode::Success)
}

async fn watch(
    run: RunId,
    session: &BrokerSession,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let (mut history, from) = find(run, session, output).await?;
    if !output.is_json() {
        run_view::print_head(&history, output)?;
    }
    run_view::print_timeline(&history.timeline, output)?;
    let stream = journal_stream(run.partition());
    let reader = StreamReader::new(session.broker());
    let mut tail = reader.tail(&stream, from, Holes::Allowed).await?;
    while !history.summary.status.has_ended() {
        for message in tail.next_batch(BATCH_MESSAGES).await? {
            let told = history.timeline.len();
            for (header, record) in read_message(&stream, &message)? {
                if header.run == Some(run) {
                    history.fold(&header, &record);
                }
            }
            run_view::print_timeline(history.timeline.get(told..).unwrap_or_default(), output)?;
        }
    }
    let succeeded = history.summary.status == RunStatus::Succeeded;
    Ok(if succeeded { ExitCode::Success } else { ExitCode::Findings })
}

async fn cancel(
    arguments: CancelArguments,
    session: &BrokerSession,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let run = arguments.id;
    find(run, session, output).await?;
    let by = arguments.by.unwrap_or_else(asking_user);
    let reason = arguments.reason;
    let command = |reply_to| {
        Command::Cancel(CancelCommand {
            id: random_id(),
            run,
            by,
            reason,
            reply_to: Some(reply_to),
        })
    };
    let answer = session.ask_partition(run.partition(), ANSWER_LIMIT, command).await?;
    let word = answer.get("answer").and_then(Value::as_str).unwrap_or("unreadable").to_owned();
    if output.is_json() {
        output.json_line(&json!({ "run": run, "answer": word }))?;
    } else {
        output.line(told(&word))?;
    }
    let accepted = matches!(word.as_str(), "closing" | "already_closing");
    Ok(if accepted { ExitCode::Success } else { ExitCode::Findings })
}

/// The answer to a cancel, for people.
fn told(word: &str) -> &str {
    match word {
        "closing" => {
            "the run is closing: it starts nothing more, and does not wait for calls that are under way. Who was \
             called may act all the same; `fermata runs explain` names those"
        }
        "already_closing" => "the run was closing already",
        "not_running" => "the run has ended; there is nothing to cancel",
        "window_full" => {
            "too many commands came within a day to tell repeats from new ones; try again later"
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancel_does_not_promise_that_what_was_called_stops() {
        let text = told("closing");

        assert!(text.contains("does not wait for calls") && text.contains("may act all the same"));
        assert_eq!(told("unheard_of"), "unheard_of");
    }
}
