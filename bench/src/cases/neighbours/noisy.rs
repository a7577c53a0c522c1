//! A tenant that takes what it can get: thousands of runs that hang in calls of the plugin that
//! everybody calls, and thousands of events a second.

use std::time::{Duration, Instant};

use fermata_executors::HttpConfig;
use indicatif::ProgressBar;
use miette::miette;

use crate::arguments::DurabilityChoice;
use crate::audit_progress::AuditProgress;
use crate::cases::intake::BATCH_EVENTS;
use crate::cases::recovery::RECORDS_PER_OPEN_RUN;
use crate::client::Client;
use crate::events::{Events, publish_these};
use crate::flood::Flood;
use crate::plugin::HoldingPlugin;
use crate::setup::Setup;

/// The tenant.
pub const TENANT: &str = "noisy";

/// Runs that hang at a time: many times the attempts (1,024) and connections to one plugin (256) that
/// a process has. In one queue for all tenants, everybody else's calls would be behind them until
/// they are let go.
const HANGING: u64 = 4_000;

/// Events a second, each of which starts a run of three `noop`s: a sixteenth of what the engine gets
/// done on two cores when frames are full (`runs`), and as they are far from full at this rate, about
/// half of what these cores have. So nothing waits for want of capacity, on a slower machine either.
/// Above capacity every tenant's events would wait: they are taken in the order in which they were
/// stored.
const EVENTS_PER_S: u64 = 2_000;

/// Of all connections to a plugin, the part that one tenant does not get.
const SHARE_OF_OTHERS: usize = 8;

/// How often the plugin's callers are counted until no more come.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How often they must be as many, one look after the other, to be all: a connection whose first
/// packet was lost is made a second later.
const LOOKS_ALIKE: u32 = 30;

/// How long that may take.
const LOOK_LIMIT: Duration = Duration::from_secs(20);

/// Events that were published at once.
#[derive(Debug)]
pub struct Heap {
    audit: AuditProgress,
    begun: Instant,
}

/// The tenant's publisher.
#[derive(Debug)]
pub struct Noisy {
    client: Client,
    plugin: HoldingPlugin,
    held: Events,
    flood: Events,
    per_message: u64,
    next: u64,
    /// While it makes noise: the events, and how many calls the plugin holds.
    making: Option<(Flood, usize)>,
    flooded: u64,
    flooding: Duration,
    callers_min: usize,
    turns: u64,
    heaped: u64,
    /// From the first event of a heap until its last run was audited.
    heaps_took: Vec<Duration>,
    heaps_too_small: u64,
}

impl Noisy {
    /// Connects. Where each message is synced to disk, events come in batches as they do in `runs`.
    pub async fn open(
        setup: &Setup,
        plugin: HoldingPlugin,
        durability: DurabilityChoice,
    ) -> miette::Result<Self> {
        let per_message = match durability {
            DurabilityChoice::Process => 1,
            DurabilityChoice::Power => BATCH_EVENTS,
        };
        Ok(Self {
            client: Client::connect(&setup.broker.url()).await?,
            plugin,
            held: Events::by(TENANT, "noisy.held"),
            flood: Events::by(TENANT, "noisy.flood"),
            per_message,
            next: 0,
            making: None,
            flooded: 0,
            flooding: Duration::ZERO,
            callers_min: usize::MAX,
            turns: 0,
            heaped: 0,
            heaps_took: Vec::new(),
            heaps_too_small: 0,
        })
    }

    /// Opens the runs that hang, waits until all are under way, and begins with the events.
    pub async fn begin(&mut self, setup: &Setup) -> miette::Result<()> {
        let audit = AuditProgress::from_now(&self.client, setup.partitions).await?;
        self.plugin.hold();
        let (first, hidden) = (self.next, ProgressBar::hidden());
        let (publisher, numbers) = (&self.client.publisher, first..first + HANGING);
        publish_these(publisher, &self.held, numbers, self.per_message, &hidden).await?;
        audit.reached(HANGING * RECORDS_PER_OPEN_RUN, &hidden, RECORDS_PER_OPEN_RUN).await?;
        let callers = self.callers(setup.engines.len()).await?;
        let (flood, per_message, first) =
            (self.flood.clone(), self.per_message, self.next + HANGING);
        let message = move |number: u64| {
            let first = first + number * per_message;
            let payload =
                if per_message == 1 { flood.one(first) } else { flood.batch(first, per_message) };
            (flood.subject().into(), payload)
        };
        let per_s = EVENTS_PER_S / per_message;
        let flood = Flood::start(self.client.publisher.clone(), per_s, message);
        self.making = Some((flood, callers));
        Ok(())
    }

    /// Waits until as many callers have come to the plugin as one tenant may have at `engines`, or
    /// no more come: an engine may own too few runs.
    async fn callers(&self, engines: usize) -> miette::Result<usize> {
        let begun = Instant::now();
        let connections = HttpConfig::default().connections_per_plugin_max;
        let most = engines * (connections - connections / SHARE_OF_OTHERS);
        let (mut seen, mut looks) = (0, 0);
        while seen == 0 || (seen < most && looks < LOOKS_ALIKE) {
            if begun.elapsed() > LOOK_LIMIT {
                return Err(miette!("the noisy tenant's runs do not hang: {seen} callers"));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
            let callers = self.plugin.waiting();
            looks = if callers == seen { looks + 1 } else { 0 };
            seen = callers;
        }
        Ok(seen)
    }

    /// Ends the events and lets the runs go, and waits until everything is done. Fails unless the
    /// runs hung and the events came all the time.
    pub async fn end(&mut self, setup: &Setup) -> miette::Result<()> {
        let Some((flood, callers)) = self.making.take() else { return Ok(()) };
        let audit = AuditProgress::from_now(&self.client, setup.partitions).await?;
        let flooded = flood.end().await?;
        let callers_now = self.plugin.waiting();
        if callers_now < callers {
            return Err(miette!("of {callers} calls that hung, {callers_now} still do"));
        }
        let messages = u64::try_from(flooded.sequences.len()).unwrap_or(u64::MAX);
        let events = messages * self.per_message;
        let elapsed_ms = u64::try_from(flooded.elapsed.as_millis()).unwrap_or(u64::MAX);
        let wanted = EVENTS_PER_S.saturating_mul(elapsed_ms) / 1_000;
        if 2 * events < wanted {
            return Err(miette!("of {wanted} events of the noisy tenant, {events} were stored"));
        }
        self.plugin.release();
        audit.at_rest().await?;
        self.next += HANGING + events;
        self.flooded += events;
        self.flooding += flooded.elapsed;
        self.callers_min = self.callers_min.min(callers);
        self.turns += 1;
        Ok(())
    }

    /// Publishes so many events as fast as the broker takes them, far faster than they are decided.
    pub async fn heap_up(&mut self, setup: &Setup, events: u64) -> miette::Result<Heap> {
        let audit = AuditProgress::from_now(&self.client, setup.partitions).await?;
        let begun = Instant::now();
        let (first, hidden) = (self.next, ProgressBar::hidden());
        let (publisher, numbers) = (&self.client.publisher, first..first + events);
        publish_these(publisher, &self.flood, numbers, BATCH_EVENTS, &hidden).await?;
        self.next += events;
        self.heaped += events;
        Ok(Heap { audit, begun })
    }

    /// Waits until everything that came of a heap is audited.
    pub async fn heap_is_done(&mut self, heap: Heap) -> miette::Result<()> {
        let measured = Instant::now();
        let done = heap.audit.at_rest().await?;
        // Nothing was added any more when the measurement was over.
        self.heaps_too_small += u64::from(done.saturating_duration_since(measured).is_zero());
        self.heaps_took.push(done.saturating_duration_since(heap.begun));
        Ok(())
    }

    /// How many runs it started; each must succeed.
    pub fn runs(&self) -> u64 {
        self.turns * HANGING + self.flooded + self.heaped
    }

    /// What heaps it made, for people.
    pub fn heaps_told(&self) -> String {
        let heaps = u64::try_from(self.heaps_took.len()).unwrap_or(u64::MAX).max(1);
        let took = self.heaps_took.iter().map(|took| format!("{:.1}", took.as_secs_f64()));
        format!(
            "beside it {} events at once, each a run, decided and audited after {} s; {} of them were done before \
             the quiet tenant was",
            self.heaped / heaps,
            took.collect::<Vec<_>>().join(", "),
            self.heaps_too_small,
        )
    }

    /// What it did, for people.
    pub fn told(&self) -> String {
        let per_s = crate::figures::count(self.flooded) / self.flooding.as_secs_f64().max(1e-9);
        format!(
            "beside it {per_s:.0} events/s, and {HANGING} runs that hang, {} of them in the plugin",
            self.callers_min
        )
    }
}
