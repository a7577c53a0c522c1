//! `fermata workflow`: what is done, and in which order.

pub(crate) mod called;
mod plan_dot;
mod plan_view;

use clap::{Args, Subcommand};
use fermata_core::command::WorkflowEntry;
use fermata_core::plan::Executable;
use fermata_definitions::{
    FoundProblems, Limits, outlasting_timeouts, read_workflow, undeclared_inputs,
};
use std::path::PathBuf;

use super::definitions::{
    ApplyArguments, Asked, CheckArguments, Checked, Holds, NewDefinitions, check_files,
    make_active, print_answer, read_text, told,
};
use crate::arguments::GlobalArguments;
use crate::broker_session::BrokerSession;
use crate::diagnostics::Sources;
use crate::error::{CliError, ExitCode};
use crate::output::{Output, counted};

/// What to do with workflows.
#[derive(Debug, Subcommand)]
pub enum WorkflowCommand {
    /// Report everything that is wrong with workflow files
    #[command(after_help = "Examples:\n  fermata workflow check report.workflow.yaml")]
    Check(CheckArguments),
    /// Check workflow files and make them active: all or none, where one command is enough; else
    /// in parts
    #[command(
        after_help = "Examples:\n  fermata workflow apply report.workflow.yaml request.workflow.yaml"
    )]
    Apply(ApplyArguments),
    /// List the active workflows
    #[command(after_help = "Examples:\n  fermata workflow list --json")]
    List,
    /// Show how a workflow would run: layers, critical path, complexity
    #[command(
        after_help = "Examples:\n  fermata workflow plan report.workflow.yaml\n  fermata workflow plan report.workflow.yaml --dot | dot -Tsvg > report.svg"
    )]
    Plan(PlanArguments),
}

/// Arguments of `fermata workflow plan`.
#[derive(Debug, Clone, Args)]
pub struct PlanArguments {
    /// The file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Write the graph in the language of Graphviz instead, the critical path marked
    #[arg(long)]
    pub dot: bool,
}

/// Does what was typed.
///
/// # Errors
///
/// When a file cannot be read, or broker or engine does not answer.
///
/// # Cancel safety
///
/// When `apply` is dropped, the workflows may become active.
pub async fn run(
    command: WorkflowCommand,
    global: &GlobalArguments,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    match command {
        WorkflowCommand::Check(arguments) => {
            let checked = check(&arguments.files, output)?;
            let code = checked.report("workflow", "workflows", output)?;
            slips(&checked.sound).iter().for_each(|told| output.note(told));
            Ok(code)
        }
        WorkflowCommand::Apply(arguments) => {
            let checked = check(&arguments.files, output)?;
            if !checked.problems.is_empty() {
                return checked.report("workflow", "workflows", output);
            }
            let count = checked.sound.len();
            let new = new_definitions(&checked.sound)?;
            let mut answer = make_active(new, arguments.by, global, output).await?;
            if answer.problems.is_empty() {
                answer.warnings = slips(&checked.sound);
                // What is active is told whether workers answer or not.
                if let Ok(session) = BrokerSession::open(global).await {
                    let unknown = called::unknown(&session, &checked.sound).await;
                    answer.warnings.extend(unknown.unwrap_or_default());
                }
            }
            print_answer(Asked::Apply, &answer, &counted(count, "workflow", "workflows"), output)
        }
        WorkflowCommand::List => list(global, output).await,
        WorkflowCommand::Plan(arguments) => plan(&arguments, output),
    }
}

fn read(text: &str, name: &str) -> Result<Executable, FoundProblems> {
    // Programs write workflows too, and larger ones than people.
    read_workflow(text, Some(name), &Limits::GENERATED)
}

/// What is sound in the workflows and may be a slip.
fn slips(executables: &[Executable]) -> Vec<String> {
    let told = executables.iter().flat_map(|executable| {
        let name = &executable.plan().workflow;
        undeclared_inputs(executable)
            .into_iter()
            .chain(outlasting_timeouts(executable.plan()))
            .map(move |told| format!("workflow `{name}`: {told}"))
    });
    told.collect()
}

fn check(files: &[PathBuf], output: &mut Output) -> Result<Checked<Executable>, CliError> {
    let read = |text: &str, name: &str| read(text, name).map(|executable| vec![executable]);
    check_files(files, Holds::Workflow, output, read)
}

/// Workflows as the control partition keeps them, with their plans' bytes.
///
/// # Errors
///
/// The encoder's; no plan meets one.
pub fn new_definitions(executables: &[Executable]) -> Result<NewDefinitions, CliError> {
    let mut new = NewDefinitions::default();
    for executable in executables {
        let plan = executable.plan();
        let (digest, bytes) = fermata_wire::plan::encode(plan)?;
        let (name, version) = (plan.workflow.clone(), plan.workflow_version.clone());
        new.workflows.push(WorkflowEntry { name, version, plan: digest });
        new.plans.push((digest.to_string(), bytes));
    }
    Ok(new)
}

async fn list(global: &GlobalArguments, output: &mut Output) -> Result<ExitCode, CliError> {
    let definitions = BrokerSession::open(global).await?.active_definitions().await?;
    if output.is_json() {
        for entry in &definitions.workflows {
            output.json_line(entry)?;
        }
        return Ok(ExitCode::Success);
    }
    let row = |entry: &WorkflowEntry| {
        vec![entry.name.to_string(), entry.version.to_string(), entry.plan.to_string()]
    };
    let rows = definitions.workflows.iter().map(row).collect();
    let when_empty = "no workflows are active; apply some with `fermata workflow apply`";
    output.table(&["WORKFLOW", "VERSION", "PLAN"], rows, when_empty)?;
    Ok(ExitCode::Success)
}

fn plan(arguments: &PlanArguments, output: &mut Output) -> Result<ExitCode, CliError> {
    let name = arguments.file.display().to_string();
    let text = read_text(&arguments.file)?;
    match read(&text, &name) {
        Ok(executable) if arguments.dot => {
            output.line(&plan_dot::dot(executable.plan()))?;
            Ok(ExitCode::Success)
        }
        Ok(executable) => {
            plan_view::print(executable.plan(), output)?;
            Ok(ExitCode::Success)
        }
        Err(found) => {
            let FoundProblems { listed, left_out } = told(Holds::Workflow, found, &text, &name);
            let sources = Sources::from([(name, text)]);
            let checked = Checked { sound: Vec::<()>::new(), problems: listed, left_out, sources };
            checked.report("workflow", "workflows", output)
        }
    }
}
