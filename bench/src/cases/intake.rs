//! `intake` and `intake_batch`: events in that start nothing, until each is decoded, matched,
//! deduplicated, journaled and audited.

use std::time::SystemTime;

use fermata_core::record::Kind;
use miette::IntoDiagnostic as _;

use super::raw;
use crate::arguments::BenchArguments;
use crate::audit_progress::AuditProgress;
use crate::definitions::ignores;
use crate::events::{Events, publish};
use crate::figures::{Figures, count};
use crate::journals;
use crate::setup::{Setup, progress};

/// Type of the events that are ignored.
pub const IGNORED: &str = "bench.ignored";

/// Events in one message of `intake_batch`.
pub const BATCH_EVENTS: u64 = 100;

/// One event per message; the broker alone is measured before and after, as its speed drifts.
pub async fn run(arguments: &BenchArguments, n: u64) -> miette::Result<Figures> {
    let bar = progress("intake", n);
    let before = raw::measure(arguments, n, &bar).await?;
    let figures = measure(arguments, "intake", n, 1).await?;
    let after = raw::measure(arguments, n, &bar).await?;
    let raws = [before.per_s, after.per_s].into_iter().flatten().collect::<Vec<_>>();
    let mean = raws.iter().sum::<f64>() / count(u64::try_from(raws.len()).into_diagnostic()?);
    let note = format!(
        "raw before {:.0}/s, after {:.0}/s",
        before.per_s.unwrap_or_default(),
        after.per_s.unwrap_or_default()
    );
    Ok(figures.with_raw(mean).note(note))
}

/// [`BATCH_EVENTS`] events per message.
pub async fn run_batch(arguments: &BenchArguments, n: u64) -> miette::Result<Figures> {
    measure(arguments, "intake_batch", n, BATCH_EVENTS).await
}

async fn measure(
    arguments: &BenchArguments,
    case: &'static str,
    n: u64,
    per_message: u64,
) -> miette::Result<Figures> {
    let bar = progress(case, n);
    let setup = Setup::start(arguments, Vec::new(), &ignores(IGNORED), None).await?;
    let client = &setup.broker.client;
    let audit = AuditProgress::from_now(client, setup.partitions).await?;
    let before = setup.usage()?;

    let begun = SystemTime::now();
    publish(&client.publisher, &Events::of(IGNORED), n, per_message, &bar).await?;
    let ended = audit.reached(n, &bar, 1).await?;

    let elapsed = ended.duration_since(begun).into_diagnostic()?;
    let figures = setup.measured(Figures::of(case, n, elapsed), before, n)?;
    journals::expect(client, setup.partitions, Kind::EventIgnored, n).await?;
    Ok(figures.note(setup.messages(n).await?))
}
