//! Messages at a steady pace, whatever becomes of them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fermata_jetstream::{Publisher, Subject};
use miette::{IntoDiagnostic as _, miette};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::events::{WINDOW, stored};

/// How often those that are due are published.
const TICK: Duration = Duration::from_millis(5);

/// A publisher that goes on until it is ended; aborted with the value.
#[derive(Debug)]
pub struct Flood {
    ends: watch::Sender<bool>,
    publishing: JoinSet<miette::Result<Flooded>>,
}

/// What was published.
#[derive(Debug)]
pub struct Flooded {
    /// Where the messages stand in EVENTS, in their order.
    pub sequences: Vec<u64>,
    /// How long it went on.
    pub elapsed: Duration,
}

impl Flood {
    /// Publishes message 0, 1, 2, … so many times a second. One that is late is made up for, unless
    /// the broker leaves [`WINDOW`] of them unanswered.
    pub fn start(
        publisher: Publisher,
        per_s: u64,
        message: impl Fn(u64) -> (Subject, Bytes) + Send + 'static,
    ) -> Self {
        let (ends, ended) = watch::channel(false);
        let mut publishing = JoinSet::new();
        publishing.spawn(async move {
            let mut ticks = interval(TICK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let (mut receipts, mut sequences) = (VecDeque::new(), Vec::new());
            let (begun, mut number) = (Instant::now(), 0);
            while !*ended.borrow() {
                ticks.tick().await;
                let elapsed_ms = u64::try_from(begun.elapsed().as_millis()).into_diagnostic()?;
                let due = elapsed_ms * per_s / 1_000;
                while number < due {
                    if receipts.len() == WINDOW
                        && let Some(receipt) = receipts.pop_front()
                    {
                        sequences.push(stored(receipt.await)?);
                    }
                    let (subject, payload) = message(number);
                    receipts.push_back(publisher.publish(subject, None, payload).await);
                    number += 1;
                }
            }
            let elapsed = begun.elapsed();
            for receipt in receipts {
                sequences.push(stored(receipt.await)?);
            }
            Ok(Flooded { sequences, elapsed })
        });
        Self { ends, publishing }
    }

    /// Ends it, and waits until everything is stored.
    pub async fn end(mut self) -> miette::Result<Flooded> {
        self.ends.send_replace(true);
        let flooded = self.publishing.join_next().await;
        flooded.ok_or_else(|| miette!("nothing was published"))?.into_diagnostic()?
    }
}
