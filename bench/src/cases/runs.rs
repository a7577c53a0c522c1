//! `runs`: events in until a run of three sequential `noop`s each is complete and audited.

use std::time::SystemTime;

use fermata_core::record::Kind;
use miette::IntoDiagnostic as _;

use super::intake::BATCH_EVENTS;
use super::workflows::three_noops;
use crate::arguments::{BenchArguments, DurabilityChoice};
use crate::audit_progress::AuditProgress;
use crate::definitions::starts;
use crate::events::{Events, publish};
use crate::figures::Figures;
use crate::journals;
use crate::setup::{Setup, progress};

/// Type of the events and name of the workflow.
const KIND: &str = "bench.run";
const WORKFLOW: &str = "three-noops";

/// Records of one run: the event's, the run's two, and two of each node.
const RECORDS_PER_RUN: u64 = 9;

/// Starts `n` runs.
pub async fn run(arguments: &BenchArguments, n: u64) -> miette::Result<Figures> {
    let bar = progress("runs", n);
    // A synced disk takes a few hundred messages a second, so publishers that want more use batches.
    let per_message = match arguments.durability {
        DurabilityChoice::Process => 1,
        DurabilityChoice::Power => BATCH_EVENTS,
    };
    let workflows = vec![three_noops(WORKFLOW)?];
    let setup = Setup::start(arguments, workflows, &starts(KIND, WORKFLOW), None).await?;
    let client = &setup.broker.client;
    let audit = AuditProgress::from_now(client, setup.partitions).await?;
    let before = setup.usage()?;

    let begun = SystemTime::now();
    publish(&client.publisher, &Events::of(KIND), n, per_message, &bar).await?;
    let published = begun.elapsed().into_diagnostic()?;
    let ended = audit.reached(n * RECORDS_PER_RUN, &bar, RECORDS_PER_RUN).await?;

    let elapsed = ended.duration_since(begun).into_diagnostic()?;
    let figures = setup.measured(Figures::of("runs", n, elapsed), before, n)?;
    journals::expect(client, setup.partitions, Kind::RunSucceeded, n).await?;
    let figures = figures.note(setup.messages(n).await?);
    Ok(figures.note(format!("published within {:.2} s", published.as_secs_f64())))
}
