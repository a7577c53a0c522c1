//! What is kept of the audit logs of all partitions, and whose turn it is to read one.
//!
//! One log of each partition, as many as the engine has and the control partition, for as long as
//! the process runs: were one dropped for another, requests for all partitions in turn would read
//! each log from its beginning, and one that takes long would never be read to its end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fermata_core::identity::PartitionId;
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, timeout};

use super::log::Log;
use super::{READING_LIMIT, ReceiptsError};

/// How long a request waits for others of its partition.
pub const TURN_LIMIT: Duration = Duration::from_secs(2);

type SharedLog = Arc<tokio::sync::Mutex<Log>>;

#[derive(Debug, Default)]
pub(super) struct Logs {
    /// Only of partitions that there are.
    kept: Mutex<HashMap<PartitionId, SharedLog>>,
}

impl Logs {
    /// Waits for the turn of a request for `partition`; with the time until when it may read, which
    /// begins then.
    ///
    /// # Errors
    ///
    /// [`ReceiptsError::Busy`] after [`TURN_LIMIT`].
    pub(super) async fn turn(
        &self,
        partition: PartitionId,
    ) -> Result<(OwnedMutexGuard<Log>, Instant), ReceiptsError> {
        let turn = timeout(TURN_LIMIT, self.of(partition).lock_owned()).await;
        let log = turn.map_err(|_| ReceiptsError::Busy(partition))?;
        Ok((log, Instant::now() + READING_LIMIT))
    }

    fn of(&self, partition: PartitionId) -> SharedLog {
        // Nobody panics while holding it.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.entry(partition).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_of_a_log_stays_while_all_others_are_asked_for() {
        let logs = Logs::default();
        let partitions = || (0..64).map(PartitionId).chain([PartitionId::CONTROL]);
        let read: Vec<_> = partitions().map(|partition| logs.of(partition)).collect();

        for (partition, read) in partitions().zip(read) {
            assert!(Arc::ptr_eq(&read, &logs.of(partition)), "{partition}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_reads_for_as_long_after_it_has_waited_for_another_one() {
        let logs = Logs::default();
        let (other, _) = logs.turn(PartitionId(1)).await.expect("nobody is before it");
        let before = Instant::now();
        let ends = async {
            tokio::time::sleep(TURN_LIMIT / 2).await;
            drop(other);
        };

        let (turn, ()) = tokio::join!(logs.turn(PartitionId(1)), ends);

        let (_, until) = turn.expect("its turn");
        assert_eq!(until, before + TURN_LIMIT / 2 + READING_LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_waits_for_long_is_told_so_before_http_gives_up() {
        let logs = Logs::default();
        let _other = logs.turn(PartitionId(1)).await.expect("nobody is before it");
        let before = Instant::now();

        let turn = logs.turn(PartitionId(1)).await;

        assert!(matches!(turn, Err(ReceiptsError::Busy(PartitionId(1)))));
        assert_eq!(before.elapsed(), TURN_LIMIT);
        let http = Duration::from_secs(8);
        assert!(TURN_LIMIT + READING_LIMIT < http, "with what follows after reading");
    }
}
