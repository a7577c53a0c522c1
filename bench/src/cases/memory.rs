//! `memory`: how much an engine holds with many runs open.

use std::time::SystemTime;

use miette::IntoDiagnostic as _;

use super::recovery::RECORDS_PER_OPEN_RUN;
use super::workflows::held;
use crate::arguments::BenchArguments;
use crate::audit_progress::AuditProgress;
use crate::definitions::starts;
use crate::events::{Events, publish};
use crate::figures::{Figures, count};
use crate::plugin::HoldingPlugin;
use crate::setup::{Setup, mebibytes, progress};

const KIND: &str = "bench.hold";
const WORKFLOW: &str = "hold";

/// Opens `n` runs and looks at the engine's resident memory.
pub async fn run(arguments: &BenchArguments, n: u64) -> miette::Result<Figures> {
    let bar = progress("memory", n);
    let plugin = HoldingPlugin::start().await?;
    let workflows = vec![held(WORKFLOW)?];
    let strategies = starts(KIND, WORKFLOW);
    let setup = Setup::start(arguments, workflows, &strategies, Some(plugin.url())).await?;
    let client = &setup.broker.client;
    let audit = AuditProgress::from_now(client, setup.partitions).await?;
    let mut empty_bytes = 0;
    for engine in &setup.engines {
        empty_bytes += engine.memory()?.now_bytes;
    }
    let before = setup.usage()?;

    let begun = SystemTime::now();
    publish(&client.publisher, &Events::of(KIND), n, 1, &bar).await?;
    let ended = audit.reached(n * RECORDS_PER_OPEN_RUN, &bar, RECORDS_PER_OPEN_RUN).await?;

    let mut now_bytes = 0;
    for engine in &setup.engines {
        now_bytes += engine.memory()?.now_bytes;
    }
    let elapsed = ended.duration_since(begun).into_diagnostic()?;
    let figures = setup.measured(Figures::of("memory", n, elapsed), before, n)?;
    Ok(figures.note(format!(
        "resident: {:.1} MiB with all runs open, {:.1} MiB before, {:.2} KiB per open run",
        mebibytes(now_bytes),
        mebibytes(empty_bytes),
        count(now_bytes.saturating_sub(empty_bytes)) / 1024.0 / count(n),
    )))
}
