//! `fermata completion`: a script by which a shell completes this program's commands.

use clap::{Args, CommandFactory as _, ValueEnum};
use clap_complete::Shell;

use crate::arguments::Arguments;
use crate::error::{CliError, ExitCode};
use crate::output::Output;

/// Arguments of `fermata completion`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  source <(fermata completion bash)
  fermata completion zsh > ~/.zfunc/_fermata
  fermata completion fish > ~/.config/fish/completions/fermata.fish
  fermata completion powershell | Out-String | Invoke-Expression")]
pub struct CompletionArguments {
    /// For which shell
    #[arg(value_enum)]
    pub shell: ShellName,
}

/// Shells that scripts are written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lowercase")]
pub enum ShellName {
    /// GNU Bash
    Bash,
    /// Z shell
    Zsh,
    /// fish
    Fish,
    /// `PowerShell`
    PowerShell,
}

impl From<ShellName> for Shell {
    fn from(name: ShellName) -> Self {
        match name {
            ShellName::Bash => Self::Bash,
            ShellName::Zsh => Self::Zsh,
            ShellName::Fish => Self::Fish,
            ShellName::PowerShell => Self::PowerShell,
        }
    }
}

/// Writes the script.
///
/// # Errors
///
/// When it cannot be written.
pub fn run(arguments: &CompletionArguments, output: &mut Output) -> Result<ExitCode, CliError> {
    let mut script = Vec::new();
    let shell = Shell::from(arguments.shell);
    clap_complete::generate(shell, &mut Arguments::command(), "fermata", &mut script);
    output.line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(ExitCode::Success)
}
