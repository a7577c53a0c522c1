//! `latency`: how long an event takes from being published until its run is complete and audited,
//! with little else to do.

use std::time::{Duration, Instant, SystemTime};

use tokio::time::{MissedTickBehavior, interval};

use super::workflows::three_noops;
use crate::arguments::BenchArguments;
use crate::audit_feed::AuditFeed;
use crate::definitions::starts;
use crate::events::{Events, stored};
use crate::figures::{Figures, Times};
use crate::journals;
use crate::setup::{Setup, progress};

const KIND: &str = "bench.run";
const WORKFLOW: &str = "three-noops";

/// Time from one event to the next.
const PAUSE: Duration = Duration::from_millis(100);

/// Events before the measured ones, until caches and consumers are warm.
const WARM_UP: u64 = 5;

/// Publishes `n` events, 10 a second.
pub async fn run(arguments: &BenchArguments, n: u64) -> miette::Result<Figures> {
    let bar = progress("latency", n);
    let workflows = vec![three_noops(WORKFLOW)?];
    let setup = Setup::start(arguments, workflows, &starts(KIND, WORKFLOW), None).await?;
    let client = &setup.broker.client;
    let mut feed = AuditFeed::open(client).await?;
    let events = Events::of(KIND);
    let mut ticks = interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut times, mut journaled_times) = (Vec::new(), Vec::new());
    let mut before = setup.usage()?;
    let mut begun = Instant::now();

    for number in 0..WARM_UP + n {
        ticks.tick().await;
        if number == WARM_UP {
            (before, begun) = (setup.usage()?, Instant::now());
        }
        let (published, published_at) = (Instant::now(), SystemTime::now());
        let receipt =
            client.publisher.publish(events.subject().to_owned(), None, events.one(number)).await;
        let sequence = stored(receipt.await)?;
        let run = events.run_of(number, sequence, WORKFLOW, arguments.partitions)?;
        let succeeded = loop {
            let succeeded = feed.next_succeeded().await?;
            if succeeded.runs.contains(&run) {
                break succeeded;
            }
        };
        if number >= WARM_UP {
            times.push(succeeded.came.duration_since(published));
            let sequence = succeeded.journal_sequence;
            let journaled = journals::stored_at(client, run.partition(), sequence).await?;
            // One clock, but it may be set between the two readings.
            journaled_times.push(journaled.duration_since(published_at).unwrap_or_default());
            bar.inc(1);
        }
    }

    let journaled = Times::of(journaled_times);
    let figures = Figures::of("latency", n, begun.elapsed()).with_times(times).note(format!(
        "until the journal holds `run.succeeded`: p50 {:.2} ms, p99 {:.2} ms; the rest is the audit log and its feed",
        journaled.percentile_ms(50).unwrap_or_default(),
        journaled.percentile_ms(99).unwrap_or_default(),
    ));
    setup.measured(figures, before, n)
}
