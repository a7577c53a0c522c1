//! A tenant all of whose input is poison: messages that are no events, events that strategies fail
//! on, runs that fail, and tasks at which workers die.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use fermata_actors::task_worker::DELIVERIES_MAX;
use fermata_actors::{Engine, EngineConfig};
use fermata_jetstream::topology::TASKS_STREAM;
use fermata_jetstream::work_queue::{TASK_WAIT_DEFAULT, WorkQueue};
use indicatif::ProgressBar;
use miette::{IntoDiagnostic as _, WrapErr as _, miette};
use tokio::task::JoinSet;

use crate::audit_progress::AuditProgress;
use crate::client::Client;
use crate::events::{Events, publish_these};
use crate::flood::Flood;
use crate::setup::Setup;

/// The tenant.
pub const TENANT: &str = "poison";

/// The queue of the tasks at which workers die.
pub const QUEUE: &str = "poison";

/// Events a second, the kinds by turns: as one tenant with a broken program sends them, far below
/// what the engine gets done.
const EVENTS_PER_S: u64 = 250;

/// Tasks of each turn at which workers die.
const PARKED: u64 = 20;

/// How long a task that has lost workers enough is left to the one that is to park it.
const LEFT_FOR: Duration = Duration::from_millis(100);

/// How long parking may take.
const PARKED_LIMIT: Duration = Duration::from_secs(60);

/// How often it is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What the events of a flood are, by turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// No event at all: a dead letter of the listener.
    Malformed,
    /// Its strategy cannot say whether it applies: unmatched.
    Guard,
    /// Its strategy cannot say with what: a dead letter of the matcher.
    Variables,
    /// Its run computes what cannot be computed: it fails.
    Uncomputable,
    /// Its run calls a plugin that fails, three times: it fails.
    Refused,
}

impl Kind {
    /// Which one message `number` of a flood is.
    fn of(number: u64) -> Self {
        match number % 5 {
            0 => Self::Malformed,
            1 => Self::Guard,
            2 => Self::Variables,
            3 => Self::Uncomputable,
            _ => Self::Refused,
        }
    }

    /// Type of the events.
    fn name(self) -> &'static str {
        match self {
            Self::Malformed => "poison.malformed",
            Self::Guard => "poison.guard",
            Self::Variables => "poison.variables",
            Self::Uncomputable => "poison.uncomputable",
            Self::Refused => "poison.refused",
        }
    }
}

/// The tenant's publisher.
#[derive(Debug)]
pub struct Poison {
    client: Client,
    parked: Events,
    next: u64,
    making: Option<(Flood, JoinSet<miette::Result<BTreeSet<u64>>>)>,
    /// Where the messages that are no events stand in EVENTS.
    pub malformed: BTreeSet<u64>,
    /// Where the events stand that a strategy says nothing usable about.
    pub unusable: BTreeSet<u64>,
    /// Events that no strategy applies to.
    pub unmatched: u64,
    /// Runs that fail, those with parked tasks included.
    pub failing: u64,
    /// Where the tasks stood in TASKS at which workers died.
    pub tasks: BTreeSet<u64>,
}

impl Poison {
    /// Connects.
    pub async fn open(setup: &Setup) -> miette::Result<Self> {
        Ok(Self {
            client: Client::connect(&setup.broker.url()).await?,
            parked: Events::by(TENANT, "poison.parked"),
            next: 0,
            making: None,
            malformed: BTreeSet::new(),
            unusable: BTreeSet::new(),
            unmatched: 0,
            failing: 0,
            tasks: BTreeSet::new(),
        })
    }

    /// Begins to publish, and to let workers die.
    pub async fn begin(&mut self, setup: &Setup) -> miette::Result<()> {
        let numbers = self.next..self.next + PARKED;
        self.next = numbers.end;
        let publisher = &self.client.publisher;
        publish_these(publisher, &self.parked, numbers, 1, &ProgressBar::hidden()).await?;
        let mut parking = JoinSet::new();
        parking.spawn(park(self.client.clone(), setup.worker_of(QUEUE)?));
        let first = self.next;
        let message = move |number: u64| {
            let kind = Kind::of(number);
            let events = Events::by(TENANT, kind.name());
            let payload = match kind {
                Kind::Malformed => malformed(first + number),
                Kind::Guard | Kind::Variables | Kind::Uncomputable | Kind::Refused => {
                    events.one(first + number)
                }
            };
            (events.subject().into(), payload)
        };
        let flood = Flood::start(publisher.clone(), EVENTS_PER_S, message);
        self.making = Some((flood, parking));
        Ok(())
    }

    /// Ends publishing, and waits until everything is refused, failed and parked.
    pub async fn end(&mut self, setup: &Setup) -> miette::Result<()> {
        let Some((flood, mut parking)) = self.making.take() else { return Ok(()) };
        let audit = AuditProgress::from_now(&self.client, setup.partitions).await?;
        let flooded = flood.end().await?;
        for (number, sequence) in (0..).zip(flooded.sequences) {
            match Kind::of(number) {
                Kind::Malformed => self.malformed.extend([sequence]),
                Kind::Variables => self.unusable.extend([sequence]),
                Kind::Guard => self.unmatched += 1,
                Kind::Uncomputable | Kind::Refused => self.failing += 1,
            }
            self.next += 1;
        }
        let parked = parking.join_next().await;
        let parked = parked.ok_or_else(|| miette!("nothing was parked"))?.into_diagnostic()??;
        self.tasks.extend(parked);
        self.failing += PARKED;
        audit.at_rest().await?;
        Ok(())
    }

    /// What it did, for people.
    pub fn told(&self) -> String {
        format!(
            "beside it {EVENTS_PER_S} poisonous events/s: {} malformed and {} with variables that \
             fail, each with one dead letter, {} with a guard that fails, {} runs that fail, of \
             them {} at a task that was parked, each with one dead letter",
            self.malformed.len(),
            self.unusable.len(),
            self.unmatched,
            self.failing,
            self.tasks.len(),
        )
    }
}

/// What is no event, in one way or another.
fn malformed(number: u64) -> Bytes {
    let text = match number % 3 {
        0 => format!(r#"{{"specversion":"1.0","id":"{number}","source":"#),
        1 => format!(r#"{{"specversion":"1.0","id":"{number}","type":"poison.malformed"}}"#),
        _ => format!(
            r#"{{"specversion":"0.3","id":"{number}","source":"/bench","type":"poison.malformed"}}"#
        ),
    };
    text.into()
}

/// Takes the tasks of the queue and never ends them, as workers that die at them, until another one
/// must park them; then is that worker. Returns where the tasks stood.
async fn park(client: Client, worker: EngineConfig) -> miette::Result<BTreeSet<u64>> {
    let limited = async {
        let tasks = lose_workers(&client).await?;
        let worker = Engine::start(worker).await.into_diagnostic()?;
        while client.reader.stream_state(TASKS_STREAM).await.into_diagnostic()?.messages > 0 {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        worker.shut_down().await;
        Ok(tasks)
    };
    tokio::time::timeout(PARKED_LIMIT, limited)
        .await
        .into_diagnostic()
        .wrap_err("the tasks at which workers die are not parked")?
}

async fn lose_workers(client: &Client) -> miette::Result<BTreeSet<u64>> {
    let room = usize::try_from(PARKED).into_diagnostic()?;
    let mut queue =
        WorkQueue::open(&client.broker, QUEUE, TASK_WAIT_DEFAULT).await.into_diagnostic()?;
    let mut deliveries = BTreeMap::new();
    while deliveries.len() < room || deliveries.values().any(|count| *count < DELIVERIES_MAX) {
        for delivery in queue.take(room).await.into_diagnostic()? {
            deliveries.insert(delivery.stream_sequence, delivery.delivered_count);
            let is_enough = delivery.delivered_count >= DELIVERIES_MAX;
            delivery.acker.nak(if is_enough { LEFT_FOR } else { Duration::ZERO }).await;
        }
    }
    for delivery in queue.end().await {
        delivery.acker.nak(Duration::ZERO).await;
    }
    Ok(deliveries.into_keys().collect())
}

#[cfg(test)]
mod tests {
    use fermata_core::event::{EventLimits, decode_message, parse_subject};

    use super::*;

    #[test]
    fn nothing_malformed_is_an_event() {
        let events = Events::by(TENANT, Kind::Malformed.name());
        let subject = || parse_subject(events.subject()).unwrap();

        for number in 0..3 {
            let payload = malformed(number);
            let decoded = decode_message(None, &payload, subject(), &EventLimits::default());
            assert!(decoded.iter().all(Result::is_err) && decoded.len() == 1, "{number}");
        }
    }
}
