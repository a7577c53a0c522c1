//! The program `fermata`: one command-line door to everything, and the place
//! where the parts are put together.
//!
//! | room | holds |
//! |---|---|
//! | [`arguments`] | what can be typed |
//! | [`commands`] | one file per command |
//! | [`error`] | what can go wrong, and every exit code |
//! | [`usage_error`] | what is wrong with a command line |
//! | [`broker_session`] | the way to the broker and to the engine on it |
//! | [`journal_view`] | runs as the journals tell them |
//! | [`local_engine`] | an engine in this process, with a broker of its own |
//! | [`canonical_json`] | audit entries as people see them |
//! | [`diagnostics`] | problems of documents, as a compiler shows them |
//! | [`operations`] | how this process answers whoever operates it |
//! | [`stream_room`] | how much larger the streams can become |
//! | `output` | tables, lines, times |
//! | [`telemetry`] | logs, traces, metrics |
//! | [`demo`] | the parts of the demonstration that are not the engine |

pub mod arguments;
pub mod arrived;
pub mod broker_session;
pub mod canonical_json;
pub mod commands;
pub mod demo;
pub mod diagnostics;
pub mod error;
pub mod journal_view;
pub mod local_engine;
pub mod operations;
mod output;
pub mod stream_room;
pub mod telemetry;
pub mod usage_error;

use clap::Parser as _;

use crate::arguments::Arguments;
use crate::error::{CliError, ExitCode};
use crate::output::Output;

/// Reads the command line, does what it says, and tells how it ended.
#[must_use]
pub fn main() -> std::process::ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version come this way too.
            return usage_error::tell(&error, std::env::args_os()).into();
        }
    };
    let mut output = Output::of_terminal(arguments.global.json);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => {
            let error = CliError::Io { action: "start the runtime".to_owned(), source };
            return report(&mut output, &error).into();
        }
    };
    let code = runtime.block_on(async {
        let _telemetry = match telemetry::init(&arguments.telemetry()) {
            Ok(guard) => guard,
            Err(error) => return report(&mut output, &error.into()),
        };
        match commands::run(arguments, &mut output).await {
            Ok(code) => code,
            Err(error) => report(&mut output, &error),
        }
    });
    // What still runs in the background (a reader's timer, a connection) is of no use any more.
    runtime.shutdown_background();
    code.into()
}

/// Tells what went wrong; a reader that went away (`fermata … | head`) is no failure.
fn report(output: &mut Output, error: &CliError) -> ExitCode {
    if error.is_broken_pipe() {
        return ExitCode::Success;
    }
    output.error(error);
    error.exit_code()
}
