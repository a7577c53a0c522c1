//! `fermata events`: the events that came.

mod comparison;
mod replay;

use clap::Subcommand;

pub use replay::ReplayArguments;

use crate::arguments::GlobalArguments;
use crate::error::{CliError, ExitCode};
use crate::output::Output;

/// What to do with events.
#[derive(Debug, Subcommand)]
pub enum EventsCommand {
    /// Tell which runs would differ, had a draft of strategies been active; starts nothing
    #[command(after_help = "\
The draft stands for what `fermata strategy apply` would make of it: its strategies take the place
of active ones of the same name, the others stay. Events that EVENTS holds no more are not looked
at. The exit code is 0 if no run differs, 1 if one does.

To start the runs that only the draft starts: `fermata strategy apply`, then for events that matched
nothing `fermata review resolve --retry`, or `fermata dead replay <SEQUENCE>.<INDEX>` for single ones.

Examples:
  fermata events replay --since 2h --against draft.yaml
  fermata events replay --since 2026-11-21T10:00:00Z --against draft.yaml --tenant acme --json")]
    Replay(ReplayArguments),
}

/// Does what was typed.
///
/// # Errors
///
/// When a file cannot be read, or the broker does not answer.
///
/// # Cancel safety
///
/// Can be dropped: nothing is changed.
pub async fn run(
    command: EventsCommand,
    global: &GlobalArguments,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    match command {
        EventsCommand::Replay(arguments) => replay::run(&arguments, global, output).await,
    }
}
