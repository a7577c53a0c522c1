//! `fermata worker`: some of the engine's roles on a broker that is there.

use clap::{Args, ValueEnum};

use super::up::EngineArguments;
use crate::arguments::GlobalArguments;
use crate::error::{CliError, ExitCode};
use crate::output::Output;

/// Arguments of `fermata worker`; the address of the broker and the data folder are global ones.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  fermata worker --nats-url nats://broker:4222 --roles listener,matcher,builder
  fermata worker --nats-url nats://broker:4222 --roles coordinator --name worker-2")]
pub struct WorkerArguments {
    /// What this process does; listener, matcher and builder are fused when all three are named
    #[arg(long, value_enum, value_delimiter = ',', required = true, value_name = "ROLE")]
    pub roles: Vec<Role>,
    /// Name of the worker; one that restarts under its name takes its partitions back at once
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// What the engine itself is told
    #[command(flatten)]
    pub engine: EngineArguments,
}

/// What a worker process can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum Role {
    /// Takes events in: decodes them, checks the tenant
    Listener,
    /// Decides which strategies apply
    Matcher,
    /// Makes commands of what was matched
    Builder,
    /// Owns partitions: decides, runs nodes, audits
    Coordinator,
}

/// Starts the roles and stays until it is told to end.
///
/// # Errors
///
/// When the broker cannot be reached or a role cannot be started.
///
/// # Cancel safety
///
/// As a kill: nothing accepted is lost.
pub async fn run(
    _arguments: WorkerArguments,
    _global: &GlobalArguments,
    _output: &mut Output,
) -> Result<ExitCode, CliError> {
    Err(CliError::NotBuilt("worker"))
}
