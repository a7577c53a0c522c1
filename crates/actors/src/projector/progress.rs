//! How far the journals were applied, and how far they go.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fermata_core::identity::PartitionId;
use fermata_jetstream::StreamReader;
use fermata_jetstream::topology::journal_stream;
use fermata_store::question::AtLeast;
use opentelemetry::metrics::ObservableGauge;
use tokio::sync::watch;

use super::ProjectorError;

/// How often the ends of the journals are looked at.
pub const ENDS_INTERVAL: Duration = Duration::from_secs(5);

/// Where a projector stands. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    applied: Arc<watch::Sender<BTreeMap<PartitionId, u64>>>,
    ends: Arc<Mutex<BTreeMap<PartitionId, u64>>>,
    _lag: ObservableGauge<u64>,
}

impl Progress {
    pub fn new(applied: impl IntoIterator<Item = (PartitionId, u64)>) -> Self {
        let applied = Arc::new(watch::Sender::new(applied.into_iter().collect::<BTreeMap<_, _>>()));
        let ends = Arc::new(Mutex::new(BTreeMap::new()));
        let (seen_applied, seen_ends) = (applied.clone(), ends.clone());
        let lag = opentelemetry::global::meter("fermata")
            .u64_observable_gauge("fermata.projector.lag")
            .with_description("Journal messages that the read model has not applied")
            .with_callback(move |observer| {
                observer.observe(behind(&seen_applied.borrow(), &lock(&seen_ends)), &[]);
            })
            .build();
        Self { applied, ends, _lag: lag }
    }

    pub fn applied(&self, partition: PartitionId, sequence: u64) {
        self.applied.send_modify(|applied| {
            applied.insert(partition, sequence);
        });
    }

    /// Journal messages that are known of and not applied.
    pub fn behind(&self) -> u64 {
        behind(&self.applied.borrow(), &lock(&self.ends))
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
        let there = |applied: &BTreeMap<PartitionId, u64>| {
            let reached = |at: &AtLeast| {
                applied.get(&at.partition).is_some_and(|applied| *applied >= at.sequence)
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

fn behind(applied: &BTreeMap<PartitionId, u64>, ends: &BTreeMap<PartitionId, u64>) -> u64 {
    let of = |(partition, end): (&PartitionId, &u64)| {
        end.saturating_sub(applied.get(partition).copied().unwrap_or(0))
    };
    ends.iter().map(of).sum()
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

        progress.applied(PartitionId(0), 4);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        progress.applied(PartitionId(1), 1);

        waiting.await;
    }

    #[test]
    fn a_lag_is_what_is_known_of_and_not_applied() {
        let progress = Progress::new([(PartitionId(0), 3), (PartitionId(1), 9)]);
        lock(&progress.ends).extend([(PartitionId(0), 10), (PartitionId(1), 8)]);

        assert_eq!(progress.behind(), 7);
    }
}
