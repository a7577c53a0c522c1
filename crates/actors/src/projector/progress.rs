//! How far the journals were applied, and how far they go.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fermata_core::identity::PartitionId;
use fermata_jetstream::StreamReader;
use fermata_jetstream::topology::journal_stream;
use fermata_store::question::AtLeast;
use opentelemetry::metrics::ObservableGauge;
use tokio::sync::watch;

use super::ProjectorError;

/// How often the ends of the journals are looked at.
pub const ENDS_INTERVAL: Duration = Duration::from_secs(5);

const NS_PER_MS: u64 = 1_000_000;

/// The last message of a journal that was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    sequence: u64,
    /// When the broker stored it; 0 while this is not known.
    stored_ms: u64,
}

type Places = BTreeMap<PartitionId, Place>;
type Ends = BTreeMap<PartitionId, u64>;

/// Where a projector stands. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    applied: Arc<watch::Sender<Places>>,
    ends: Arc<Mutex<Ends>>,
    /// Questions that wait for messages to be applied.
    awaited: Arc<AtomicUsize>,
    _gauges: [ObservableGauge<u64>; 2],
}

/// A question that waits.
struct Awaited<'a>(&'a AtomicUsize);

impl<'a> Awaited<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Progress {
    pub fn new(applied: impl IntoIterator<Item = (PartitionId, u64)>) -> Self {
        let place = |(partition, sequence)| (partition, Place { sequence, stored_ms: 0 });
        let applied = Arc::new(watch::Sender::new(applied.into_iter().map(place).collect()));
        let ends = Arc::<Mutex<Ends>>::default();
        let meter = opentelemetry::global::meter("fermata");
        let gauge = |name, text, value: fn(&Places, &Ends) -> u64| {
            let (applied, ends) = (applied.clone(), ends.clone());
            meter
                .u64_observable_gauge(name)
                .with_description(text)
                .with_callback(move |observer| {
                    let applied: &watch::Sender<Places> = &applied;
                    observer.observe(value(&applied.borrow(), &lock(&ends)), &[]);
                })
                .build()
        };
        let gauges = [
            gauge(
                "fermata.projector.lag",
                "Journal messages that the read model has not applied",
                behind,
            ),
            gauge(
                "fermata.projector.stale_seconds",
                "How old the answers of the read model are",
                |applied, ends| {
                    // Of a model that has applied nothing yet the lag tells more.
                    let as_of = as_of_ms(applied, ends).filter(|as_of| *as_of > 0);
                    as_of.map_or(0, |as_of| now_ms().saturating_sub(as_of) / 1_000)
                },
            ),
        ];
        Self { applied, ends, awaited: Arc::default(), _gauges: gauges }
    }

    pub fn applied(&self, partition: PartitionId, sequence: u64, broker_time_ns: i64) {
        let place = Place { sequence, stored_ms: milliseconds(broker_time_ns) };
        self.applied.send_modify(|applied| {
            applied.insert(partition, place);
        });
    }

    /// Journal messages that are known of and not applied.
    pub fn behind(&self) -> u64 {
        behind(&self.applied.borrow(), &lock(&self.ends))
    }

    /// Up to when everything is applied, in milliseconds since 1970 as the broker counts;
    /// nothing while nothing is known that is not. 0 where no message was applied since the
    /// projector began.
    pub fn as_of_ms(&self) -> Option<u64> {
        as_of_ms(&self.applied.borrow(), &lock(&self.ends))
    }

    /// Whether a question waits for messages to be applied.
    pub fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::Relaxed) > 0
    }

    /// Waits until all of these are applied; a partition that is not there never is.
    pub async fn reached(&self, wanted: &[AtLeast]) {
        {
            let mut ends = lock(&self.ends);
            for place in wanted {
                // Who asks has seen that it is there.
                if let Some(end) = ends.get_mut(&place.partition) {
                    *end = place.sequence.max(*end);
                }
            }
        }
        let _awaited = Awaited::new(&self.awaited);
        let there = |applied: &Places| {
            let reached = |at: &AtLeast| {
                applied.get(&at.partition).is_some_and(|place| place.sequence >= at.sequence)
            };
            wanted.iter().all(reached)
        };
        // The sender is held here.
        let _ = self.applied.subscribe().wait_for(there).await;
    }

    /// Looks at the ends of the journals, for ever.
    pub async fn look_at_ends(self, reader: StreamReader) -> Result<(), ProjectorError> {
        let partitions = self.applied.borrow().keys().copied().collect::<Vec<_>>();
        loop {
            for partition in &partitions {
                // Unknown for a while is no fault.
                if let Ok(state) = reader.stream_state(&journal_stream(*partition)).await {
                    lock(&self.ends).insert(*partition, state.last_sequence);
                }
            }
            tokio::time::sleep(ENDS_INTERVAL).await;
        }
    }
}

fn behind(applied: &Places, ends: &Ends) -> u64 {
    let of = |(partition, end): (&PartitionId, &u64)| {
        end.saturating_sub(applied.get(partition).map_or(0, |place| place.sequence))
    };
    ends.iter().map(of).sum()
}

fn as_of_ms(applied: &Places, ends: &Ends) -> Option<u64> {
    let is_behind = |(partition, place): &(&PartitionId, &Place)| {
        ends.get(partition).is_some_and(|end| *end > place.sequence)
    };
    applied.iter().filter(is_behind).map(|(_, place)| place.stored_ms).min()
}

/// How old a state is whose last message was stored then.
pub(super) fn stale_at(broker_time_ns: i64) -> Duration {
    Duration::from_millis(now_ms().saturating_sub(milliseconds(broker_time_ns)))
}

fn milliseconds(broker_time_ns: i64) -> u64 {
    u64::try_from(broker_time_ns).unwrap_or(0) / NS_PER_MS
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(partition: u16, sequence: u64) -> AtLeast {
        AtLeast { partition: PartitionId(partition), sequence }
    }

    #[tokio::test]
    async fn a_place_is_reached_once_every_partition_has_come_that_far() {
        let progress = Progress::new([(PartitionId(0), 3), (PartitionId(1), 0)]);
        progress.reached(&[at(0, 3), at(1, 0)]).await;
        let wanted = [at(0, 4), at(1, 1)];
        let waiting = progress.reached(&wanted);
        tokio::pin!(waiting);

        progress.applied(PartitionId(0), 4, 0);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert!(progress.is_awaited());
        progress.applied(PartitionId(1), 1, 0);

        waiting.await;
        assert!(!progress.is_awaited());
    }

    #[test]
    fn a_lag_is_what_is_known_of_and_not_applied() {
        let progress = Progress::new([(PartitionId(0), 3), (PartitionId(1), 9)]);
        lock(&progress.ends).extend([(PartitionId(0), 10), (PartitionId(1), 8)]);

        assert_eq!(progress.behind(), 7);
    }

    #[test]
    fn answers_are_as_of_the_oldest_journal_that_is_not_applied_to_its_end() {
        let progress = Progress::new([(PartitionId(0), 0), (PartitionId(1), 0)]);
        progress.applied(PartitionId(0), 3, 5_000_000);
        progress.applied(PartitionId(1), 9, 2_000_000);
        assert_eq!(progress.as_of_ms(), None);

        lock(&progress.ends).extend([(PartitionId(0), 10), (PartitionId(1), 9)]);
        assert_eq!(progress.as_of_ms(), Some(5));
        lock(&progress.ends).insert(PartitionId(1), 10);
        assert_eq!(progress.as_of_ms(), Some(2));
    }
}
