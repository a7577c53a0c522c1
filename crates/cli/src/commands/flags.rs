//! `fermata flags`: parts of the engine that can be switched off.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use fermata_core::command::{CancelCommand, Command, DefineCommand, Retirement};
use fermata_core::flags::{Flag, Flags};
use fermata_core::identity::{PartitionId, RunId};
use fermata_jetstream::StreamReader;
use serde_json::json;

use super::definitions::Answer;
use crate::arguments::GlobalArguments;
use crate::broker_session::{ANSWER_LIMIT, BrokerSession, asking_user, random_id};
use crate::error::{CliError, ExitCode};
use crate::journal_view::RunList;
use crate::output::{Output, Tone, counted};

/// How long runs may take to end once all are cancelled. What has not ended then
/// waits for attempts that are under way.
const CANCELLED_LIMIT: Duration = Duration::from_secs(60);

/// Pause before it is looked again for runs that are open.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// What to do with flags.
#[derive(Debug, Subcommand)]
pub enum FlagsCommand {
    /// List the flags and what each switches
    #[command(after_help = "Examples:\n  fermata flags list\n  fermata flags list --json")]
    List,
    /// Switch parts of the engine on or off, all or none
    #[command(after_help = "\
Recorded and audited like definitions; every worker follows within a second.

Examples:
  fermata flags set orchestration=off --by ada
  fermata flags set orchestration=off --cancel-active
  fermata flags set orchestration=on audit_feed=on")]
    Set(SetArguments),
}

/// Arguments of `fermata flags set`.
#[derive(Debug, Clone, Args)]
pub struct SetArguments {
    /// Flags and what they shall be
    #[arg(required = true, value_name = "FLAG=on|off")]
    pub changes: Vec<Change>,
    /// Also cancel every run that is open, without waiting for calls; only when orchestration goes off
    #[arg(long)]
    pub cancel_active: bool,
    /// Who asks, for the audit log; default: the user of the operating system
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
}

/// A flag and what it shall be, typed as `flag=off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub flag: Flag,
    /// On or off.
    pub on: bool,
}

impl FromStr for Change {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (flag, on) = text.split_once('=').ok_or("expected a flag and `on` or `off`")?;
        let flag = flag.parse::<Flag>().map_err(|error| error.to_string())?;
        let on = match on {
            "on" => true,
            "off" => false,
            _ => return Err(format!("`{on}` is neither `on` nor `off`")),
        };
        Ok(Self { flag, on })
    }
}

/// Does what was typed.
///
/// # Errors
///
/// When the broker or the engine does not answer.
///
/// # Cancel safety
///
/// When `set` is dropped, the flags may be set, and some runs cancelled.
pub async fn run(
    command: FlagsCommand,
    global: &GlobalArguments,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let session = BrokerSession::open(global).await?;
    match command {
        FlagsCommand::List => list(&session, output).await,
        FlagsCommand::Set(arguments) => set(arguments, &session, output).await,
    }
}

/// What happens while a part is off.
pub(super) fn off_means(flag: Flag) -> &'static str {
    match flag {
        Flag::Orchestration | Flag::StrategyLibrary => "events are accepted and wait",
        Flag::AuditFeed => "subscribers are sent nothing; the audit log goes on",
    }
}

async fn list(session: &BrokerSession, output: &mut Output) -> Result<ExitCode, CliError> {
    let flags = session.active_definitions().await?.flags;
    if output.is_json() {
        for flag in Flag::ALL {
            output.json_line(&json!({ "flag": flag.as_str(), "on": flags.is_on(flag) }))?;
        }
        return Ok(ExitCode::Success);
    }
    let row = |flag: Flag| {
        let (tone, word) =
            if flags.is_on(flag) { (Tone::Good, "on") } else { (Tone::Warning, "off") };
        vec![flag.to_string(), output.tone(tone, word), off_means(flag).to_owned()]
    };
    let rows = Flag::ALL.into_iter().map(row).collect();
    output.table(&["FLAG", "IS", "WHILE OFF"], rows, "")?;
    Ok(ExitCode::Success)
}

async fn set(
    arguments: SetArguments,
    session: &BrokerSession,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let mut flags = Flags::default();
    arguments.changes.iter().for_each(|change| flags.set(change.flag, change.on));
    if arguments.cancel_active && flags.is_on(Flag::Orchestration) {
        let refused = "`--cancel-active` goes with `orchestration=off`: others would start again";
        return Err(CliError::Usage(refused.to_owned()));
    }
    session.engine_config().await?;
    let by = arguments.by.unwrap_or_else(asking_user);
    let define = |reply_to| {
        Command::Define(DefineCommand {
            id: random_id(),
            by: by.clone(),
            strategies: Vec::new(),
            workflows: Vec::new(),
            reply_to: Some(reply_to),
            flags,
            contracts: Vec::new(),
            contract_modes: BTreeMap::new(),
            retire: Retirement::default(),
        })
    };
    let answer = session.ask_partition(PartitionId::CONTROL, ANSWER_LIMIT, define).await?;
    let answer: Answer = serde_json::from_value(answer)
        .map_err(|source| CliError::Json { what: "the engine's answer".to_owned(), source })?;
    for problem in &answer.problems {
        output.line(problem)?;
    }
    if !answer.problems.is_empty() {
        return Ok(ExitCode::Findings);
    }
    let cancelled = match arguments.cancel_active {
        true => Some(cancel_active(session, &by).await?),
        false => None,
    };
    if output.is_json() {
        let (cancelled, open) = cancelled.unzip();
        output.json_line(
            &json!({ "revision": answer.revision, "cancelled": cancelled, "open": open }),
        )?;
    } else {
        if let Some((cancelled, open)) = cancelled {
            output.line(&format!(
                "{}; {open} have not ended yet. Calls that were under way are not waited for: who was called may act \
                 all the same",
                counted(cancelled, "run was cancelled", "runs were cancelled")
            ))?;
        }
        output.line(&format!("definitions are at revision {}", answer.revision))?;
    }
    Ok(ExitCode::Success)
}

/// Cancels every open run, until none is left that was not asked to close: how
/// many were, and how many have not ended. Events that were taken in before may
/// still start some meanwhile.
async fn cancel_active(session: &BrokerSession, by: &str) -> Result<(usize, usize), CliError> {
    let begun = Instant::now();
    let mut asked = std::collections::BTreeSet::new();
    loop {
        let open = open_runs(session).await?;
        let new = open.iter().filter(|run| !asked.contains(*run)).copied().collect::<Vec<_>>();
        for run in &new {
            cancel(session, *run, by).await?;
            asked.insert(*run);
        }
        if open.is_empty() || (new.is_empty() && begun.elapsed() >= CANCELLED_LIMIT) {
            return Ok((asked.len(), open.len()));
        }
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
}

async fn open_runs(session: &BrokerSession) -> Result<Vec<RunId>, CliError> {
    let partitions = (0..session.engine_config().await?.partitions).map(PartitionId);
    let reader = StreamReader::new(session.broker());
    let runs = RunList::read(&reader, partitions, |_| ()).await?;
    let open = runs.into_newest_first().into_iter().filter(|run| !run.status.has_ended());
    Ok(open.map(|run| run.id).collect())
}

async fn cancel(session: &BrokerSession, run: RunId, by: &str) -> Result<(), CliError> {
    let command = |reply_to| {
        Command::Cancel(CancelCommand {
            id: random_id(),
            run,
            by: by.to_owned(),
            reason: "orchestration was switched off".to_owned(),
            reply_to: Some(reply_to),
        })
    };
    session.ask_partition(run.partition(), ANSWER_LIMIT, command).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_a_flag_and_on_or_off() {
        let change = "orchestration=off".parse::<Change>();

        assert_eq!(change, Ok(Change { flag: Flag::Orchestration, on: false }));
        for refused in ["orchestration", "orchestration=false", "orchestra=on", "=on"] {
            assert!(refused.parse::<Change>().is_err(), "{refused}");
        }
    }
}
