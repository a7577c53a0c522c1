//! What `fermata strategy` and `fermata workflow` have in common: reading
//! files, telling problems, and making definitions active.

mod applying;
mod suspected;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use fermata_core::command::{
    ContractEntry, ContractMode, Retirement, StrategyEntry, WorkflowEntry,
};
use fermata_definitions::{FoundProblems, Problem};

use crate::diagnostics::{self, Sources};
use crate::error::{CliError, ExitCode};
use crate::output::{Output, Tone, counted};

pub use applying::{Answer, Asked, active_at, make_active, print_answer};
pub use suspected::{Holds, told};

/// Files to check.
#[derive(Debug, Clone, Args)]
pub struct CheckArguments {
    /// Files to check
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// Files to make active.
#[derive(Debug, Clone, Args)]
pub struct ApplyArguments {
    /// Files to apply: all or none, where one command is enough; else in parts
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Who asks, for the audit log; default: the user of the operating system
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
}

/// What was read from files.
#[derive(Debug)]
pub struct Checked<T> {
    /// What is sound.
    pub sound: Vec<T>,
    /// What is not.
    pub problems: Vec<Problem>,
    /// How many more problems there are.
    pub left_out: usize,
    /// The texts.
    pub sources: Sources,
}

/// Reads every file, which should hold `wanted`, with `read`, which returns what the file holds or all that
/// is wrong with it. One that is named twice is told once and read once.
///
/// # Errors
///
/// When a file cannot be read at all.
pub fn check_files<T>(
    files: &[PathBuf],
    wanted: Holds,
    output: &mut Output,
    read: impl Fn(&str, &str) -> Result<Vec<T>, FoundProblems>,
) -> Result<Checked<T>, CliError> {
    let mut checked =
        Checked { sound: Vec::new(), problems: Vec::new(), left_out: 0, sources: Sources::new() };
    let mut seen = BTreeMap::new();
    for path in files {
        let name = path.display().to_string();
        // What cannot be found is told by the reading of it.
        let place = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
        if let Some(first) = seen.insert(place, name.clone()) {
            let other = if first == name { String::new() } else { format!(", also as `{first}`") };
            output.note(&format!("the file `{name}` is named twice{other}; it is read once"));
            continue;
        }
        let text = read_text(path)?;
        match read(&text, &name) {
            Ok(sound) => checked.sound.extend(sound),
            Err(found) => checked.add(told(wanted, found, &text, &name)),
        }
        checked.sources.insert(name, text);
    }
    Ok(checked)
}

/// Reads a file as text.
///
/// # Errors
///
/// When it cannot be read or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, CliError> {
    fs::read_to_string(path).map_err(CliError::io(format!("read `{}`", path.display())))
}

impl<T> Checked<T> {
    /// Adds problems that were found.
    pub fn add(&mut self, found: impl Into<FoundProblems>) {
        let FoundProblems { listed, left_out } = found.into();
        self.problems.extend(listed);
        self.left_out += left_out;
    }

    /// Tells what was found: the problems, or that there are none, and how many things `one` or
    /// `many` of which are called.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn report(&self, one: &str, many: &str, output: &mut Output) -> Result<ExitCode, CliError> {
        diagnostics::print(output, &self.problems, &self.sources)?;
        let files = self.sources.len();
        if !self.problems.is_empty() {
            self.report_count(output)?;
            return Ok(ExitCode::Findings);
        }
        let count = self.sound.len();
        if output.is_json() {
            output.json_line(&serde_json::json!({ "sound": count, "files": files }))?;
        } else {
            let title = output.tone(Tone::Good, "sound");
            let (what, files) = (counted(count, one, many), counted(files, "file", "files"));
            output.line(&format!("{title}: {what} in {files}"))?;
        }
        Ok(ExitCode::Success)
    }

    /// Tells how many problems there are, and how many of them are listed where these are not all.
    fn report_count(&self, output: &mut Output) -> Result<(), CliError> {
        let (listed, all) = (self.problems.len(), self.problems.len() + self.left_out);
        let text = match (self.left_out, self.sources.len()) {
            (0, _) => counted(all, "problem", "problems"),
            (_, 0 | 1) => format!("the first {listed} of {all} problems"),
            (_, files) => {
                format!("{listed} of {all} problems in {files} files, the first ones of each")
            }
        };
        if !output.is_json() {
            return output.line(&text);
        }
        if self.left_out > 0 {
            output.note(&text);
        }
        Ok(())
    }
}

/// What is to become active.
#[derive(Debug, Default)]
pub struct NewDefinitions {
    /// Strategies.
    pub strategies: Vec<StrategyEntry>,
    /// Workflows, whose plans are among `plans`.
    pub workflows: Vec<WorkflowEntry>,
    /// Compiled plans: digest and bytes.
    pub plans: Vec<(String, Vec<u8>)>,
    /// Contracts.
    pub contracts: Vec<ContractEntry>,
    /// What is done about breaches, by tenant.
    pub contract_modes: BTreeMap<Arc<str>, ContractMode>,
    /// Strategies that are taken out of use.
    pub retire: Retirement,
}
