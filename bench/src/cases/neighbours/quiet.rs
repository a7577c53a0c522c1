//! The tenant that is measured: few events at a steady pace, one run each.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use fermata_core::identity::RunId;
use miette::miette;
use tokio::time::interval;

use crate::audit_feed::AuditFeed;
use crate::client::Client;
use crate::events::{Events, stored};
use crate::journals;
use crate::setup::Setup;

/// The tenant.
pub const TENANT: &str = "quiet";

/// Types of its events, and the strategies that answer them: three `noop`s, and one call of the
/// plugin that everybody calls.
const KINDS: [(&str, &str); 2] = [("quiet.noops", "three-noops"), ("quiet.call", "answered")];

/// Time from one event to the next, the kinds by turns: 50 of each a second, some percent of what
/// one core does.
const PAUSE: Duration = Duration::from_millis(10);

/// Publishes events, and listens for the ends of their runs.
#[derive(Debug)]
pub struct Quiet {
    client: Client,
    feed: AuditFeed,
    events: [Events; 2],
    partitions: u16,
    next: u64,
    /// Every run that succeeded.
    pub runs: BTreeSet<RunId>,
}

/// What was measured in one turn.
#[derive(Debug, Default)]
pub struct Measured {
    /// How long the runs of each kind took, from publishing the event until the run was audited.
    pub times: [Vec<Duration>; 2],
    /// The same until the journal had the end of the run.
    pub journaled: [Vec<Duration>; 2],
    /// How long the turn took.
    pub elapsed: Duration,
}

impl Quiet {
    /// Connects, as other tenants do on their own.
    pub async fn open(setup: &Setup) -> miette::Result<Self> {
        let client = Client::connect(&setup.broker.url()).await?;
        let feed = AuditFeed::of(TENANT, &client).await?;
        let events = KINDS.map(|(kind, _)| Events::by(TENANT, kind));
        let (partitions, runs) = (setup.partitions, BTreeSet::new());
        Ok(Self { client, feed, events, partitions, next: 0, runs })
    }

    /// Publishes `n` events of each kind at the pace, however long their runs take, and waits for
    /// the end of all; fails unless each succeeds once, as far as the feed tells.
    pub async fn measure(&mut self, n: u64) -> miette::Result<Measured> {
        let Self { client, feed, events, partitions, next, runs } = self;
        let numbers = *next..*next + 2 * n;
        *next = numbers.end;
        let runs_wanted = usize::try_from(2 * n).unwrap_or(usize::MAX);
        let begun = Instant::now();
        let publishing = async {
            let mut ticks = interval(PAUSE);
            let (mut receipts, mut sent) = (Vec::new(), BTreeMap::new());
            for (number, (kind, (events, (_, strategy)))) in
                numbers.zip(events.iter().zip(KINDS).enumerate().cycle())
            {
                ticks.tick().await;
                let (subject, payload) = (events.subject().to_owned(), events.one(number));
                let published = (Instant::now(), SystemTime::now());
                let receipt = client.publisher.publish(subject, None, payload).await;
                receipts.push((number, kind, events, strategy, published, receipt));
            }
            for (number, kind, events, strategy, published, receipt) in receipts {
                let sequence = stored(receipt.await)?;
                let run = events.run_of(number, sequence, strategy, *partitions)?;
                sent.insert(run, (kind, published));
            }
            Ok(sent)
        };
        let watching = async {
            let mut came = BTreeMap::new();
            while came.len() < runs_wanted {
                let succeeded = feed.next_succeeded().await?;
                for run in succeeded.runs {
                    let end = (succeeded.came, succeeded.journal_sequence);
                    if came.insert(run, end).is_some() || !runs.insert(run) {
                        return Err(miette!("run {run} of the quiet tenant succeeded twice"));
                    }
                }
            }
            Ok(came)
        };
        let (sent, came) = tokio::try_join!(publishing, watching)?;
        let mut measured = Measured { elapsed: begun.elapsed(), ..Measured::default() };
        for (run, (kind, (published, published_at))) in sent {
            let end = came.get(&run).ok_or_else(|| miette!("run {run} did not succeed"))?;
            let journaled_at = journals::stored_at(client, run.partition(), end.1).await?;
            if let Some(times) = measured.times.get_mut(kind) {
                times.push(end.0.duration_since(published));
            }
            if let Some(times) = measured.journaled.get_mut(kind) {
                // One clock, but it may be set between the two readings.
                times.push(journaled_at.duration_since(published_at).unwrap_or_default());
            }
        }
        Ok(measured)
    }
}
