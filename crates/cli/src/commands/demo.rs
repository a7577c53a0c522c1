//! `fermata demo`: everything at work, and checked.

use clap::Args;

use crate::arguments::GlobalArguments;
use crate::demo::scenario::EVENTS_DEFAULT;
use crate::error::{CliError, ExitCode};
use crate::output::Output;

/// Arguments of `fermata demo`; the data folder is a global one.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  fermata demo
  fermata demo --keep --data-dir /tmp/fermata-demo
  fermata demo --events 1000")]
pub struct DemoArguments {
    /// Keep broker and engine running at the end, to look around
    #[arg(long)]
    pub keep: bool,
    /// How many events to publish, the broken and the repeated ones included
    #[arg(long, default_value_t = EVENTS_DEFAULT, value_parser = clap::value_parser!(u32).range(40..=100_000), value_name = "N")]
    pub events: u32,
}

/// Shows everything at work.
///
/// # Errors
///
/// When a part cannot be started.
///
/// # Cancel safety
///
/// Broker and engine end with the process.
pub async fn run(
    _arguments: DemoArguments,
    _global: &GlobalArguments,
    _output: &mut Output,
) -> Result<ExitCode, CliError> {
    Err(CliError::NotBuilt("demo"))
}
