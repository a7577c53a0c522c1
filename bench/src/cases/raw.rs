//! `raw`: what the broker does without the engine.

use std::time::{Duration, Instant};

use fermata_jetstream::progress::shared_progress;
use fermata_jetstream::topology::EVENTS_STREAM;
use fermata_jetstream::{SharedConsumer, SharedConsumerOptions};
use indicatif::ProgressBar;
use miette::IntoDiagnostic as _;

use super::intake::IGNORED;
use crate::arguments::BenchArguments;
use crate::client::Client;
use crate::events::{Events, publish};
use crate::figures::{Figures, count};
use crate::setup::{BrokerSetup, progress};

/// Messages taken from the stream at once, as the engine does.
const BATCH: usize = 1_000;

/// Name of the consumer.
const CONSUMER: &str = "raw";

/// How often the broker is asked whether it has taken the last acknowledgements.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// Publishes `n` events, one per message, and acknowledges each.
pub async fn run(arguments: &BenchArguments, n: u64) -> miette::Result<Figures> {
    measure(arguments, n, &progress("raw", n)).await
}

/// As [`run`], below another case's bar.
pub async fn measure(
    arguments: &BenchArguments,
    n: u64,
    bar: &ProgressBar,
) -> miette::Result<Figures> {
    let broker = BrokerSetup::start(arguments).await?;
    broker.make_streams(arguments).await?;
    // Connections of its own, as the engine has.
    let consuming = Client::connect(&broker.url()).await?;
    let options = SharedConsumerOptions::new(EVENTS_STREAM, CONSUMER);
    let consumer = SharedConsumer::open(&consuming.broker, options).await.into_diagnostic()?;
    let events = Events::of(IGNORED);
    let before = broker.cpu_time()?;

    let begun = Instant::now();
    let consumed = tokio::spawn(acknowledge(consumer, n));
    publish(&broker.client.publisher, &events, n, 1, bar).await?;
    consumed.await.into_diagnostic()??;
    while shared_progress(&consuming.broker, EVENTS_STREAM, CONSUMER)
        .await
        .into_diagnostic()?
        .acknowledged_up_to
        < n
    {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    let elapsed = begun.elapsed();

    let broker_time = broker.cpu_time()?.saturating_sub(before);
    let figures = Figures::of("raw", n, elapsed);
    Ok(Figures {
        raw_per_s: figures.per_s,
        cpu_us_broker: Some(broker_time.as_secs_f64() * 1e6 / count(n)),
        ..figures
    })
}

async fn acknowledge(mut consumer: SharedConsumer, n: u64) -> miette::Result<()> {
    let mut left = n;
    while left > 0 {
        for delivery in consumer.next_batch(BATCH).await.into_diagnostic()? {
            delivery.acker.ack().await;
            left = left.saturating_sub(1);
        }
    }
    Ok(())
}
