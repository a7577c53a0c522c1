//! `fanout`: one run of many parallel nodes and a join.

use std::time::{Duration, Instant};

use super::workflows::fanout;
use crate::arguments::BenchArguments;
use crate::audit_feed::AuditFeed;
use crate::definitions::starts;
use crate::events::{Events, stored};
use crate::figures::{Figures, Times, count};
use crate::setup::{Setup, progress};

const KIND: &str = "bench.fanout";
const WORKFLOW: &str = "fanout";

/// Runs that are measured, one after the other.
const ROUNDS: u64 = 100;

/// Runs before them.
const WARM_UP: u64 = 2;

/// Runs of `n` parallel nodes, from publishing the event until the run is audited as succeeded.
pub async fn run(arguments: &BenchArguments, n: u64) -> miette::Result<Figures> {
    let bar = progress("fanout", ROUNDS);
    let workflows = vec![fanout(WORKFLOW, n)?];
    let setup = Setup::start(arguments, workflows, &starts(KIND, WORKFLOW), None).await?;
    let client = &setup.broker.client;
    let mut feed = AuditFeed::open(client).await?;
    let events = Events::of(KIND);
    let mut times = Vec::new();
    let mut before = setup.usage()?;

    for number in 0..WARM_UP + ROUNDS {
        if number == WARM_UP {
            before = setup.usage()?;
        }
        let published = Instant::now();
        let receipt =
            client.publisher.publish(events.subject().to_owned(), None, events.one(number)).await;
        stored(receipt.await)?;
        let succeeded = feed.next_succeeded().await?;
        if number >= WARM_UP {
            times.push(succeeded.came.duration_since(published));
            bar.inc(1);
        }
    }

    let total = times.iter().sum::<Duration>();
    let median_ms = Times::of(times.clone()).percentile_ms(50).unwrap_or_default();
    let figures = Figures {
        per_s: Some(count(n) * 1e3 / median_ms.max(1e-6)),
        ..Figures::of("fanout", n, total).with_times(times)
    };
    setup.measured(figures, before, ROUNDS)
}
