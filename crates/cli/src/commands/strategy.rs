//! `fermata strategy`: which event starts which workflow.

mod cases;
mod explain;
mod pattern;
mod retired;

use std::collections::BTreeSet;
use std::sync::Arc;

use clap::{Args, Subcommand};
use fermata_core::command::{Retirement, StrategyEntry};
use fermata_core::json::Json;
use fermata_core::strategy::{Action, StrategyDefinition, StrategySet};
use fermata_definitions::{Limits, Problem, read_strategies};
use serde_json::{Value, json};

pub use explain::ExplainArguments;

use super::definitions::{
    ApplyArguments, Asked, CheckArguments, Checked, Holds, NewDefinitions, check_files,
    make_active, print_answer,
};
use super::known_tenants::{KnownTenants, tell_nothing};
use crate::arguments::GlobalArguments;
use crate::broker_session::BrokerSession;
use crate::error::{CliError, ExitCode};
use crate::output::{Output, counted};

/// What to do with strategies.
#[derive(Debug, Subcommand)]
pub enum StrategyCommand {
    /// Report everything that is wrong with strategies files
    #[command(after_help = "Examples:\n  fermata strategy check strategies.yaml")]
    Check(CheckArguments),
    /// Check strategies files and make them active: all or none, where one command is enough; else
    /// in parts
    #[command(after_help = "\
What is more than one command may have, 768 KiB, is checked as a whole and part by part, and sent
in several: those before one that is refused all the same stay active, and to apply the files again
changes nothing in them.

Examples:
  fermata strategy apply strategies.yaml --by alice")]
    Apply(ApplyArguments),
    /// Run the tests that stand beside strategies, without a broker
    #[command(after_help = "\
All strategies of the files decide on the event of each test. The exit code is 1 if a test fails.

Examples:
  fermata strategy test strategies.yaml
  fermata strategy test strategies.yaml more.tests.yaml --json")]
    Test(CheckArguments),
    /// Tell what each strategy says about an event, which one wins, and why
    #[command(after_help = "\
Examples:
  fermata strategy explain event.json --strategies strategies.yaml --tenant acme
  fermata strategy explain event.json --json
  generate-event | fermata strategy explain - --tenant acme")]
    Explain(ExplainArguments),
    /// Take strategies out of use: the next events are decided without them, runs go on
    #[command(after_help = "\
All of them, or none where one was never there. A higher version, applied, brings a strategy back.
A pattern such as 'old-*' is answered with the names that fit it, and retires nothing.

Examples:
  fermata strategy retire note-placed-orders --reason 'the shop is closed'
  fermata strategy retire old-1 old-2 --by alice")]
    Retire(RetireArguments),
    /// List the active strategies, or those that were retired
    #[command(
        after_help = "Examples:\n  fermata strategy list --json\n  fermata strategy list --retired"
    )]
    List(ListArguments),
}

/// Arguments of `fermata strategy retire`.
#[derive(Debug, Clone, Args)]
pub struct RetireArguments {
    /// Names of strategies
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// Why, for people and the audit log
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Who asks, for the audit log; default: the user of the operating system
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
}

/// Arguments of `fermata strategy list`.
#[derive(Debug, Clone, Args)]
pub struct ListArguments {
    /// Only what sees the events of this tenant
    #[arg(long)]
    pub tenant: Option<String>,
    /// What was taken out of use and not brought back: when, by whom and why, as the journal has it
    #[arg(long, conflicts_with = "tenant")]
    pub retired: bool,
}

/// Does what was typed.
///
/// # Errors
///
/// When a file cannot be read, or broker or engine does not answer.
///
/// # Cancel safety
///
/// When `apply` is dropped, the strategies may become active.
pub async fn run(
    command: StrategyCommand,
    global: &GlobalArguments,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    match command {
        StrategyCommand::Check(arguments) => {
            check(&arguments, output)?.report("strategy", "strategies", output)
        }
        StrategyCommand::Apply(arguments) => {
            let checked = check(&CheckArguments { files: arguments.files.clone() }, output)?;
            if !checked.problems.is_empty() {
                return checked.report("strategy", "strategies", output);
            }
            let count = checked.sound.len();
            let strategies = entries(checked.sound)?;
            let new = NewDefinitions { strategies, ..NewDefinitions::default() };
            let answer = make_active(new, arguments.by, global, output).await?;
            print_answer(Asked::Apply, &answer, &counted(count, "strategy", "strategies"), output)
        }
        StrategyCommand::Test(arguments) => cases::run(&arguments, output),
        StrategyCommand::Explain(arguments) => explain::run(arguments, global, output).await,
        StrategyCommand::Retire(RetireArguments { names, reason, by }) => {
            if let Some(name) = names.iter().find(|name| pattern::is_pattern(name)) {
                let active = BrokerSession::open(global).await?.active_definitions().await?;
                return Err(pattern::refused(name, &active));
            }
            let strategies: BTreeSet<Arc<str>> = names.into_iter().map(Arc::from).collect();
            let names: Vec<_> = strategies.iter().cloned().collect();
            let what = counted(strategies.len(), "strategy", "strategies");
            let retire = Retirement { strategies, reason };
            let new = NewDefinitions { retire, ..NewDefinitions::default() };
            let mut answer = make_active(new, by, global, output).await?;
            if !answer.problems.is_empty() {
                // What the engine said is told also where no hint can be given.
                let session = BrokerSession::open(global).await?;
                if let Ok(active) = session.active_definitions().await {
                    retired::suggest(&mut answer, &names, &active);
                }
            }
            print_answer(Asked::Retire, &answer, &what, output)
        }
        StrategyCommand::List(arguments) => list(&arguments, global, output).await,
    }
}

/// Reads the files, each by itself and then all together.
fn check(
    arguments: &CheckArguments,
    output: &mut Output,
) -> Result<Checked<StrategyDefinition>, CliError> {
    let mut checked = check_files(&arguments.files, Holds::Strategies, output, |text, name| {
        // Programs write strategies too, and more of them than people.
        read_strategies(text, Some(name), &Limits::GENERATED)
    })?;
    if checked.problems.is_empty()
        && let Err(found) = StrategySet::compile(checked.sound.clone())
    {
        checked.add(found.iter().map(across_files).collect::<Vec<_>>());
    }
    Ok(checked)
}

/// A problem of files that are sound one by one.
fn across_files(found: &fermata_core::strategy::StrategyProblem) -> Problem {
    Problem {
        file: None,
        line: 0,
        column: 0,
        path: format!("{}.{}", found.strategy, found.field),
        message: found.kind.to_string(),
        hint: found.kind.hint().map_or_else(
            || Some("each file is sound by itself; together they are not".to_owned()),
            |hint| Some(hint.to_owned()),
        ),
    }
}

/// Strategies as the control partition keeps them.
///
/// # Errors
///
/// The encoder's; no strategy meets one.
pub fn entries(definitions: Vec<StrategyDefinition>) -> Result<Vec<StrategyEntry>, CliError> {
    let entry = |definition: StrategyDefinition| {
        let value = serde_json::to_value(&definition)
            .map_err(|source| CliError::Json { what: "a strategy".to_owned(), source })?;
        let (name, version) = (definition.name.into(), definition.version);
        Ok(StrategyEntry { name, version, definition: Json::from_value(&value) })
    };
    definitions.into_iter().map(entry).collect()
}

async fn list(
    arguments: &ListArguments,
    global: &GlobalArguments,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let session = BrokerSession::open(global).await?;
    let definitions = session.active_definitions().await?;
    if arguments.retired {
        return retired::list(&definitions, &session, output).await;
    }
    let mut rows = Vec::new();
    for entry in definitions.strategies.values() {
        let definition: StrategyDefinition = serde_json::from_str(entry.definition.as_str())
            .map_err(|source| CliError::Json {
                what: format!("strategy `{}`", entry.name),
                source,
            })?;
        let seen = |tenant: &String| definition.tenant == *tenant || definition.tenant == "*";
        if !arguments.tenant.as_ref().is_none_or(seen) {
            continue;
        }
        if output.is_json() {
            let value: Value = entry.definition.parse();
            output.json_line(&json!({ "revision": definitions.revision, "strategy": value }))?;
        }
        rows.push(row(&definition));
    }
    let (known, tenant) = (KnownTenants::of(&definitions), arguments.tenant.as_deref());
    if rows.is_empty() {
        if let Some(text) = known.nothing_of(tenant, "strategies") {
            tell_nothing(&text, output)?;
            return Ok(ExitCode::Success);
        }
    } else if let Some(text) = known.only_of_all(tenant, "strategy") {
        output.note(&text);
    }
    if !output.is_json() {
        let columns =
            ["STRATEGY", "VERSION", "TENANT", "ON", "MATCH", "PRIORITY", "WEIGHT", "ACTION"];
        output.table(
            &columns,
            rows,
            "no strategies are active; apply some with `fermata strategy apply`",
        )?;
    }
    Ok(ExitCode::Success)
}

/// What besides the type an event must fit.
fn matched(definition: &StrategyDefinition) -> &'static str {
    match (&definition.pattern, &definition.when) {
        (Some(_), Some(_)) => "pattern, when",
        (Some(_), None) => "pattern",
        (None, Some(_)) => "when",
        (None, None) => "all",
    }
}

fn row(definition: &StrategyDefinition) -> Vec<String> {
    let action = match &definition.action {
        Action::Run { workflow, .. } => format!("run {} {}", workflow.name, workflow.version),
        Action::Ignore => "ignore".to_owned(),
    };
    vec![
        definition.name.clone(),
        definition.version.to_string(),
        definition.tenant.clone(),
        definition.on.clone(),
        matched(definition).to_owned(),
        definition.priority.to_string(),
        if definition.fan_out { "fan out".to_owned() } else { definition.weight.to_string() },
        action,
    ]
}
