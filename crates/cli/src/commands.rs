//! One file per command: its arguments, what it does, what it prints.

pub mod audit;
pub mod complete;
pub mod completion;
pub mod contract;
pub mod dead;
pub mod definitions;
pub mod demo;
pub mod doctor;
pub mod events;
pub mod flags;
mod known_codes;
mod known_tenants;
pub mod publish;
pub mod review;
pub mod runs;
pub mod schema;
pub mod strategy;
#[cfg(test)]
pub(crate) mod testing;
pub mod up;
pub mod worker;
pub mod workflow;

use crate::arguments::{Arguments, Command};
use crate::error::{CliError, ExitCode};
use crate::output::Output;

/// Does what was typed.
///
/// # Errors
///
/// Whatever kept the command from its work.
///
/// # Cancel safety
///
/// As the command; each is ended by ending the process.
pub async fn run(arguments: Arguments, output: &mut Output) -> Result<ExitCode, CliError> {
    let global = &arguments.global;
    match arguments.command {
        Command::Up(arguments) => up::run(arguments, global, output).await,
        Command::Worker(arguments) => worker::run(arguments, global, output).await,
        Command::Demo(arguments) => demo::run(arguments, global, output).await,
        Command::Publish(arguments) => publish::run(arguments, global, output).await,
        Command::Strategy(command) => strategy::run(command, global, output).await,
        Command::Workflow(command) => workflow::run(command, global, output).await,
        Command::Runs(command) => runs::run(command, global, output).await,
        Command::Dead(command) => dead::run(command, global, output).await,
        Command::Contract(command) => contract::run(command, global, output).await,
        Command::Audit(command) => audit::run(command, global, output).await,
        Command::Doctor(arguments) => doctor::run(arguments, global, output).await,
        Command::Schema(arguments) => schema::run(&arguments, output),
        Command::Events(command) => events::run(command, global, output).await,
        Command::Completion(arguments) => completion::run(&arguments, output),
        Command::Complete(arguments) => complete::run(arguments, global, output).await,
        Command::Flags(command) => flags::run(command, global, output).await,
        Command::Review(command) => review::run(command, global, output).await,
    }
}
