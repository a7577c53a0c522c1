//! `fermata-bench`: measures the engine against the broker that it runs on.
//!
//! Each case starts a nats-server of its own on an empty folder and the engine as a process of its
//! own, so that CPU time and memory can be told apart and the engine can be killed.

mod arguments;
mod audit_feed;
mod audit_progress;
mod cases;
mod client;
mod definitions;
mod driven_owner;
mod engine_process;
mod events;
mod figures;
mod flood;
mod floors;
mod journals;
mod plugin;
mod process_usage;
mod report;
mod setup;

use std::process::ExitCode;

use clap::Parser as _;
use miette::{IntoDiagnostic as _, WrapErr as _};

use arguments::{Arguments, Command};

/// The allocator of the program that is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How a program ends that could not measure all that it was to measure; with 1 it missed a floor.
const NOT_MEASURED: u8 = 2;

fn main() -> ExitCode {
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .into_diagnostic()
        .wrap_err("could not start the runtime")
        .and_then(|runtime| runtime.block_on(run(Arguments::parse())));
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(report) => {
            eprintln!("{report:?}");
            ExitCode::from(NOT_MEASURED)
        }
    }
}

/// Whether no floor was missed.
async fn run(arguments: Arguments) -> miette::Result<bool> {
    match arguments.command {
        Some(Command::Engine(engine)) => engine_process::run(engine).await.map(|()| true),
        None => {
            let mut report = report::Report::new(arguments.bench.json);
            for case in arguments.bench.chosen() {
                for bench in arguments.bench.for_each_number_of_workers(case) {
                    let measured = cases::run(case, &bench)
                        .await
                        .wrap_err_with(|| format!("case `{}` failed", case.name()))?;
                    for figures in measured {
                        let missed = floors::missed(&figures, &bench);
                        report.add(figures, missed);
                    }
                }
            }
            Ok(report.finish())
        }
    }
}
