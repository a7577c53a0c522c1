//! What an owner has done besides attempts and notices, and waits for: dead
//! letters to file, rejected events among them, events of resolved cases to have decided once more.
//!
//! Each runs as long as it takes and brings a report. They end with their
//! owner, and the next one orders again what nobody reported.

use std::sync::Arc;

use fermata_core::partition::Report;
use ractor::ActorRef;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::CoordinatorMessage;

/// Errands that run at the same time; the others wait. Default 16: each holds
/// some events or one message, and waits for the broker most of the time.
pub const ERRANDS_MAX: usize = 16;

/// The errands of the owner of the moment; they end when it is dropped.
#[derive(Debug)]
pub(super) struct Errands {
    tasks: JoinSet<()>,
    turns: Arc<Semaphore>,
}

impl Default for Errands {
    fn default() -> Self {
        Self { tasks: JoinSet::new(), turns: Arc::new(Semaphore::new(ERRANDS_MAX)) }
    }
}

impl Errands {
    /// Does `work` when it is its turn, and hands its report to `coordinator`.
    pub(super) fn send(
        &mut self,
        coordinator: ActorRef<CoordinatorMessage>,
        work: impl Future<Output = Report> + Send + 'static,
    ) {
        self.reap();
        let turns = self.turns.clone();
        self.tasks.spawn(async move {
            // The semaphore is never closed.
            let Ok(_turn) = turns.acquire_owned().await else { return };
            let report = work.await;
            // A coordinator that is gone needs no report.
            let _ = coordinator.cast(CoordinatorMessage::Handled(report));
        });
    }

    /// Ends all of them.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }

    fn reap(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            if let Err(error) = ended {
                tracing::error!(%error, "an errand of a partition failed; its next owner orders it again");
            }
        }
    }
}
