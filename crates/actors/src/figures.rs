//! Figures of how things stand: what the partitions of this process and the
//! broker say, gathered when somebody asks, and shown as gauges.
//!
//! Gathering asks the broker eight questions and one per queue that has tasks, so nobody does it without need:
//! whoever exports or is scraped calls [`Engine::observe`]. What could not be
//! learnt is not shown; an old value would look like a new one.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fermata_core::identity::PartitionId;
use fermata_jetstream::Topology;
use fermata_jetstream::progress::{SharedProgress, shared_progress, work_progress};
use fermata_jetstream::topology::{
    ADMITTED_STREAM, CONTROL_PARTITION, EVENTS_STREAM, MATCHED_STREAM, WAITING_STREAM,
    commands_stream,
};
use fermata_jetstream::usage::{StreamUsage, stream_usages};
use fermata_jetstream::work_queue::{QueueStanding, queue_standings};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Meter, ObservableCounter, ObservableGauge};

use crate::builder::BUILDER_CONSUMER;
use crate::coordinator::PartitionStatus;
use crate::engine::Engine;
use crate::listener::LISTENER_CONSUMER;
use crate::matcher::MATCHER_CONSUMER;
use crate::ports::Ports;
use crate::readiness::ownerless;
use crate::standstill::Standstill;

/// How old figures may be and still do for whoever asks.
pub const OBSERVED_FOR: Duration = Duration::from_secs(1);

/// How long the broker may take to answer one question.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Named queues that are shown at most, the first by name: each is a label of two gauges, and
/// who writes workflows chooses the names.
const QUEUES_SHOWN_MAX: usize = 100;

/// The states of a partition in a process.
pub const PARTITION_STATES: [&str; 4] = ["taking", "owning", "draining", "halted"];

/// Each stage's stream and the consumer that its workers share.
pub const STAGES: [(&str, &str, &str); 3] = [
    ("listener", EVENTS_STREAM, LISTENER_CONSUMER),
    ("matcher", ADMITTED_STREAM, MATCHER_CONSUMER),
    ("builder", MATCHED_STREAM, BUILDER_CONSUMER),
];

/// Under this name the frames that wait in lanes are shown beside the stages: they are matched by
/// turns, and how many a worker holds nobody needs to know.
pub const LANES_STAGE: &str = "lanes";

/// How things stood when it was looked.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// The partitions that this process has the leases of.
    pub partitions: Vec<PartitionStatus>,
    /// What takes nothing that this process wants stored.
    pub standstills: Vec<Standstill>,
    /// How far the workers of each intake stage have come; one that nobody ever
    /// ran is missing.
    pub stages: Vec<(&'static str, SharedProgress)>,
    /// How many frames of events wait in lanes or are held there.
    pub lanes: Option<u64>,
    /// The engine's streams.
    pub streams: Vec<StreamUsage>,
    /// Named queues that have tasks; 100 at most.
    pub queues: Vec<QueueStanding>,
    /// Partitions whose lease no live worker holds.
    pub ownerless: Option<u64>,
    /// Whether both connections to the broker are up.
    pub is_connected: bool,
    /// How often a connection was lost.
    pub interruptions: u64,
}

impl Figures {
    fn stands_still(&self, partition: &PartitionStatus) -> bool {
        let mut named = self.standstills.iter().map(|standstill| standstill.partition.as_ref());
        named.any(|named| named.is_none_or(|named| *named == partition.partition))
    }

    /// Commands that are stored for `partition`, which this process owns, and not
    /// taken into its journal.
    fn backlog(&self, partition: &PartitionStatus) -> Option<u64> {
        let stream = commands_stream(&partition.partition);
        let usage = self.streams.iter().find(|usage| usage.name == stream)?;
        (partition.state == "owning")
            .then(|| usage.state.last_sequence.saturating_sub(partition.position))
    }
}

/// The newest figures and the instruments that show them.
#[derive(Debug)]
pub struct Gauges {
    newest: Arc<Mutex<Arc<Figures>>>,
    /// When they were gathered; held while somebody gathers.
    gathered: tokio::sync::Mutex<Option<Instant>>,
    _gauges: Vec<ObservableGauge<u64>>,
    _counters: Vec<ObservableCounter<u64>>,
}

impl Gauges {
    /// Registers the instruments with the process's meter provider.
    #[must_use]
    pub fn new() -> Self {
        let newest = Arc::<Mutex<Arc<Figures>>>::default();
        let meter = Reading { meter: opentelemetry::global::meter("fermata"), newest: &newest };
        let gauges = register(&meter);
        let counters = vec![meter.counter(
            "fermata.broker.interruptions_total",
            "Times that a connection to the broker was lost",
            |figures, tell| tell(figures.interruptions, &[]),
        )];
        Self {
            newest,
            gathered: tokio::sync::Mutex::default(),
            _gauges: gauges,
            _counters: counters,
        }
    }
}

impl Default for Gauges {
    fn default() -> Self {
        Self::new()
    }
}

type Tell<'a> = &'a mut dyn FnMut(u64, &[KeyValue]);

/// Makes instruments that read the newest figures.
struct Reading<'a> {
    meter: Meter,
    newest: &'a Arc<Mutex<Arc<Figures>>>,
}

impl Reading<'_> {
    fn gauge(
        &self,
        name: &'static str,
        unit: &'static str,
        description: &'static str,
        read: fn(&Figures, Tell<'_>),
    ) -> ObservableGauge<u64> {
        let newest = self.newest.clone();
        self.meter
            .u64_observable_gauge(name)
            .with_unit(unit)
            .with_description(description)
            .with_callback(move |observer| {
                read(&lock(&newest), &mut |value, labels| observer.observe(value, labels));
            })
            .build()
    }

    fn counter(
        &self,
        name: &'static str,
        description: &'static str,
        read: fn(&Figures, Tell<'_>),
    ) -> ObservableCounter<u64> {
        let newest = self.newest.clone();
        self.meter
            .u64_observable_counter(name)
            .with_description(description)
            .with_callback(move |observer| {
                read(&lock(&newest), &mut |value, labels| observer.observe(value, labels));
            })
            .build()
    }

    /// A gauge with one value per partition of this process.
    fn of_partitions(
        &self,
        name: &'static str,
        description: &'static str,
        read: fn(&Figures, &PartitionStatus) -> Option<u64>,
    ) -> ObservableGauge<u64> {
        let newest = self.newest.clone();
        self.meter
            .u64_observable_gauge(name)
            .with_description(description)
            .with_callback(move |observer| {
                let figures = lock(&newest);
                for partition in &figures.partitions {
                    if let Some(value) = read(&figures, partition) {
                        observer.observe(value, &[label("partition", &partition.partition)]);
                    }
                }
            })
            .build()
    }
}

fn register(reading: &Reading<'_>) -> Vec<ObservableGauge<u64>> {
    let mut gauges = of_partitions(reading);
    gauges.extend(of_broker(reading));
    gauges
}

fn of_partitions(reading: &Reading<'_>) -> Vec<ObservableGauge<u64>> {
    vec![
        reading.gauge(
            "fermata.partition.state",
            "",
            "Partitions of this worker: 1 for the state that each is in, 0 for the others",
            |figures, tell| {
                for status in &figures.partitions {
                    for state in PARTITION_STATES {
                        let labels = [label("partition", &status.partition), label("state", state)];
                        tell(u64::from(status.state == state), &labels);
                    }
                }
            },
        ),
        reading.of_partitions(
            "fermata.partition.epoch",
            "Epoch of the owner: rises with each takeover",
            |_, partition| Some(partition.epoch),
        ),
        reading.of_partitions(
            "fermata.partition.open_runs",
            "Runs that have not ended",
            |_, partition| u64::try_from(partition.runs).ok(),
        ),
        reading.of_partitions(
            "fermata.partition.open_attempts",
            "Attempts that are ordered and have no outcome",
            |_, partition| Some(u64::from(partition.attempts)),
        ),
        reading.of_partitions(
            "fermata.partition.backlog_messages",
            "Messages of commands that are stored and not decided",
            Figures::backlog,
        ),
        reading.of_partitions(
            "fermata.partition.records",
            "Records in the journal since it began",
            |_, partition| Some(partition.records),
        ),
        reading.of_partitions(
            "fermata.partition.signed_records",
            "Records that the newest signed checkpoint covers: the high-water mark",
            |_, partition| Some(partition.signed_records),
        ),
        reading.of_partitions(
            "fermata.partition.auditor_lag_records",
            "Records that no signed checkpoint covers yet",
            |_, partition| {
                (partition.state == "owning")
                    .then(|| partition.records.saturating_sub(partition.signed_records))
            },
        ),
        reading.of_partitions(
            "fermata.partition.standstill",
            "1 while its journal or its audit log takes nothing, or the leases of this worker do not",
            |figures, partition| Some(u64::from(figures.stands_still(partition))),
        ),
        reading.of_partitions(
            "fermata.events.held",
            "1 while EVENTS holds too much and is not purged, since nobody knows what is needed",
            |_, partition| {
                let tells = partition.partition == CONTROL_PARTITION && partition.state == "owning";
                tells.then(|| u64::from(partition.events_held.is_some()))
            },
        ),
    ]
}

fn of_broker(reading: &Reading<'_>) -> Vec<ObservableGauge<u64>> {
    vec![
        reading.gauge(
            "fermata.partitions_without_owner",
            "",
            "Partitions of the engine, control included, whose lease no live worker holds",
            |figures, tell| figures.ownerless.into_iter().for_each(|count| tell(count, &[])),
        ),
        reading.gauge(
            "fermata.stage.lag_messages",
            "",
            "Messages that no worker of the intake stage has been given; of lanes, those that are left",
            |figures, tell| {
                for (stage, progress) in &figures.stages {
                    tell(progress.waiting, &[label("stage", stage)]);
                }
                if let Some(left) = figures.lanes {
                    tell(left, &[label("stage", LANES_STAGE)]);
                }
            },
        ),
        reading.gauge(
            "fermata.stage.unacknowledged_messages",
            "",
            "Messages that workers of the intake stage hold",
            |figures, tell| {
                for (stage, progress) in &figures.stages {
                    tell(progress.unacknowledged, &[label("stage", stage)]);
                }
            },
        ),
        reading.gauge(
            "fermata.queue.waiting_tasks",
            "",
            "Tasks of the named queue that no worker has been given",
            |figures, tell| {
                for queue in &figures.queues {
                    tell(queue.waiting, &[label("queue", &queue.queue)]);
                }
            },
        ),
        reading.gauge(
            "fermata.queue.unacknowledged_tasks",
            "",
            "Tasks of the named queue that workers hold",
            |figures, tell| {
                for queue in &figures.queues {
                    tell(queue.under_way, &[label("queue", &queue.queue)]);
                }
            },
        ),
        reading.gauge("fermata.stream.size", "By", "Bytes in the stream", |figures, tell| {
            for stream in &figures.streams {
                tell(stream.state.bytes, &[label("stream", &stream.name)]);
            }
        }),
        reading.gauge(
            "fermata.stream.limit",
            "By",
            "Bytes that the stream may hold; at the limit it refuses more",
            |figures, tell| {
                for stream in &figures.streams {
                    if let Some(bytes_max) = stream.bytes_max {
                        tell(bytes_max, &[label("stream", &stream.name)]);
                    }
                }
            },
        ),
        reading.gauge("fermata.stream.messages", "", "Messages in the stream", |figures, tell| {
            for stream in &figures.streams {
                tell(stream.state.messages, &[label("stream", &stream.name)]);
            }
        }),
        reading.gauge(
            "fermata.leases.standstill",
            "",
            "1 while the broker takes no lease of this worker",
            |figures, tell| {
                let leases = figures.standstills.iter().any(|one| one.partition.is_none());
                tell(u64::from(leases), &[]);
            },
        ),
        reading.gauge(
            "fermata.broker.connected",
            "",
            "1 while both connections to the broker are up",
            |figures, tell| tell(u64::from(figures.is_connected), &[]),
        ),
    ]
}

fn label(name: &'static str, value: &str) -> KeyValue {
    KeyValue::new(name, value.to_owned())
}

fn lock(newest: &Mutex<Arc<Figures>>) -> Arc<Figures> {
    // Nobody panics while holding it.
    newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

impl Engine {
    /// Gathers the figures that the gauges show, unless they were gathered within
    /// [`OBSERVED_FOR`]; returns them.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped; the older figures stay.
    pub async fn observe(&self) -> Arc<Figures> {
        let gauges = self.gauges();
        let mut gathered = gauges.gathered.lock().await;
        if gathered.is_none_or(|gathered| gathered.elapsed() >= OBSERVED_FOR) {
            let figures = Arc::new(self.gather().await);
            *gauges.newest.lock().unwrap_or_else(PoisonError::into_inner) = figures;
            *gathered = Some(Instant::now());
        }
        lock(&gauges.newest)
    }

    async fn gather(&self) -> Figures {
        let ports = self.ports();
        let figures = Figures {
            partitions: self.status().await,
            standstills: self.standstills(),
            is_connected: ports.broker.is_connected(),
            interruptions: ports.broker.interruptions(),
            ..Figures::default()
        };
        if !figures.is_connected {
            return figures;
        }
        let (stages, lanes, streams, queues, ownerless) = tokio::join!(
            stages(ports),
            lanes(ports),
            streams(ports),
            queues(ports),
            count_ownerless(ports)
        );
        Figures { stages, lanes, streams, queues, ownerless, ..figures }
    }
}

async fn queues(ports: &Ports) -> Vec<QueueStanding> {
    let mut queues = answered(queue_standings(&ports.broker)).await.unwrap_or_default();
    queues.truncate(QUEUES_SHOWN_MAX);
    queues
}

async fn stages(ports: &Ports) -> Vec<(&'static str, SharedProgress)> {
    let asked = STAGES.map(|(stage, stream, consumer)| async move {
        let progress = shared_progress(&ports.broker, stream, consumer);
        Some((stage, answered(progress).await?))
    });
    futures_util::future::join_all(asked).await.into_iter().flatten().collect()
}

async fn lanes(ports: &Ports) -> Option<u64> {
    answered(work_progress(&ports.broker, WAITING_STREAM)).await.map(|progress| progress.left)
}

/// Those that the engine made: what else is on the broker is not ours to show.
async fn streams(ports: &Ports) -> Vec<StreamUsage> {
    let topology = Topology { partitions: ports.facts.partitions, ..Topology::default() };
    let ours = topology.streams().into_iter().map(|spec| spec.name).collect::<BTreeSet<_>>();
    let mut usages = answered(stream_usages(&ports.broker)).await.unwrap_or_default();
    usages.retain(|usage| ours.contains(&usage.name));
    usages
}

async fn count_ownerless(ports: &Ports) -> Option<u64> {
    let held = answered(ports.leases.held()).await?;
    let partitions = (0..ports.facts.partitions).map(PartitionId);
    let partitions = std::iter::once(PartitionId::CONTROL).chain(partitions);
    u64::try_from(ownerless(partitions, &held).len()).ok()
}

async fn answered<T, E: std::fmt::Display>(
    question: impl Future<Output = Result<T, E>>,
) -> Option<T> {
    match tokio::time::timeout(ANSWER_LIMIT, question).await {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a figure is not known");
            None
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use fermata_jetstream::StreamState;

    use super::*;
    use crate::coordinator::status_of;

    #[test]
    fn the_backlog_is_what_is_stored_and_not_decided_by_an_owner() {
        let usage = |name: &str, last_sequence| StreamUsage {
            name: name.to_owned(),
            state: StreamState { last_sequence, ..StreamState::default() },
            bytes_max: None,
            replicas: 1,
        };
        let streams = vec![usage("COMMANDS_3", 40), usage("COMMANDS_30", 99)];
        let figures = Figures { streams, ..Figures::default() };
        let at = |position, state| PartitionStatus { position, ..status_of("3", state) };

        assert_eq!(figures.backlog(&at(33, "owning")), Some(7));
        assert_eq!(figures.backlog(&at(40, "owning")), Some(0));
        assert_eq!(figures.backlog(&at(33, "taking")), None);
        assert_eq!(figures.backlog(&status_of("4", "owning")), None, "its stream is not known");
    }
}
