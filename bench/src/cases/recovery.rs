//! `recovery`: the engine is killed with many runs open, and started again.

use std::time::{Duration, Instant};

use fermata_core::record::Kind;

use super::workflows::held;
use crate::arguments::BenchArguments;
use crate::audit_feed::{AuditFeed, Succeeded};
use crate::audit_progress::AuditProgress;
use crate::definitions::starts;
use crate::events::{Events, publish};
use crate::figures::{Figures, count};
use crate::journals;
use crate::plugin::HoldingPlugin;
use crate::setup::{Setup, progress};

const KIND: &str = "bench.hold";
const WORKFLOW: &str = "hold";

/// How often the journals are folded: once takes too short a time to tell a rate.
const FOLDS: u32 = 5;

/// Records of an open run: the event's, the run's start, and the node's order.
pub(super) const RECORDS_PER_OPEN_RUN: u64 = 3;

/// Opens `n` runs, kills the engine, and waits until the next one has completed all.
pub async fn run(arguments: &BenchArguments, n: u64) -> miette::Result<Figures> {
    let bar = progress("recovery", n);
    let plugin = HoldingPlugin::start().await?;
    let workflows = vec![held(WORKFLOW)?];
    let strategies = starts(KIND, WORKFLOW);
    let mut setup = Setup::start(arguments, workflows, &strategies, Some(plugin.url())).await?;
    let client = setup.broker.client.clone();
    let audit = AuditProgress::from_now(&client, setup.partitions).await?;
    publish(&client.publisher, &Events::of(KIND), n, 1, &bar).await?;
    audit.reached(n * RECORDS_PER_OPEN_RUN, &bar, RECORDS_PER_OPEN_RUN).await?;
    let (under_way, _) = plugin.counted();

    let mut feed = AuditFeed::open(&client).await?;
    setup.kill_engines().await?;
    plugin.release();
    bar.set_position(0);
    let begun = Instant::now();
    setup.start_engines_again()?;
    let mut completed = 0;
    let mut last = begun;
    let mut first = None;
    while completed < n {
        let Succeeded { came, runs, .. } = feed.next_succeeded().await?;
        completed += u64::try_from(runs.len()).unwrap_or(u64::MAX);
        last = came;
        first.get_or_insert(came);
        bar.set_position(completed);
    }

    let elapsed = last.duration_since(begun);
    let (_, twice) = plugin.counted();
    let tally = journals::expect(&client, setup.partitions, Kind::RunSucceeded, n).await?;
    let (mut records, mut fold_time) = (0, Duration::ZERO);
    for _ in 0..FOLDS {
        let folded = journals::fold(&client, setup.partitions, &setup.applied).await?;
        records += folded.0;
        fold_time += folded.1;
    }
    let mut peak_bytes = 0;
    for engine in &setup.engines {
        peak_bytes += engine.memory()?.peak_bytes;
    }
    let first = first.map_or(elapsed, |first| first.duration_since(begun));
    Ok(Figures {
        per_s: Some(count(records) / fold_time.as_secs_f64()),
        rss_mib: Some(crate::setup::mebibytes(peak_bytes)),
        ..Figures::of("recovery", n, elapsed)
    }
    .note(format!(
        "effects under way when killed {under_way}, attempted twice {twice}; first run complete \
         after {:.2} s; {records} records replayed in {:.2} s on one core; {} dispatches",
        first.as_secs_f64(),
        fold_time.as_secs_f64(),
        tally.get(Kind::NodeDispatched.as_str()).copied().unwrap_or_default(),
    )))
}
