//! The projection of the active definitions: what every process watches.

use std::time::Duration;

use bytes::Bytes;
use fermata_jetstream::definitions_store::{DefinitionsStore, StoreError};
use ractor::ActorProcessingErr;
use tokio::sync::watch;

use super::state::Task;
use super::{Coordinator, CoordinatorState};
use crate::definitions::ACTIVE_KEY;
use crate::lease_term::LeaseView;

/// How often the projection is compared with what it must be: whoever may write
/// to the bucket can put something else over it.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Pause before it is written again when it could not be.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// The newest definitions, and the task that keeps them projected.
#[derive(Debug)]
pub(super) struct Projection {
    newest: watch::Sender<Bytes>,
    _task: Task,
}

impl Coordinator {
    /// Publishes what is active. It is derived from the journal, so writing it
    /// again does no harm, and every new owner does. One task writes, always the
    /// newest, and ends with the owner: an older state never overwrites a newer.
    pub(super) fn project(&self, state: &mut CoordinatorState) -> Result<(), ActorProcessingErr> {
        let Some(owner) = &state.owner else { return Ok(()) };
        let encoded = fermata_wire::plan::encode_definitions(owner.partition().definitions())?;
        let bytes = Bytes::from(encoded);
        if let Some(projection) = &state.projection {
            projection.newest.send_replace(bytes);
            return Ok(());
        }
        let (newest, receiver) = watch::channel(bytes);
        let keep = keep_projected(self.ports.store.clone(), receiver, state.lease.view());
        state.projection = Some(Projection { newest, _task: Task::spawn(keep) });
        Ok(())
    }
}

/// Writes the newest definitions when they change, and when something else
/// stands there; only while the lease says that nobody else projects.
async fn keep_projected(
    store: DefinitionsStore,
    mut newest: watch::Receiver<Bytes>,
    mut lease: LeaseView,
) {
    let mut repair = false;
    while lease.until_held().await {
        let bytes = newest.borrow_and_update().clone();
        match put_if_other(&store, bytes, repair).await {
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(%error, "the definitions could not be projected; it is tried again");
                tokio::time::sleep(AGAIN_AFTER).await;
                continue;
            }
        }
        repair = match tokio::time::timeout(CHECK_INTERVAL, newest.changed()).await {
            Ok(Ok(())) => false,
            Ok(Err(_)) => return,
            Err(_) => true,
        };
    }
}

/// Writes `bytes`; one that is a `repair` only when something else is there.
async fn put_if_other(
    store: &DefinitionsStore,
    bytes: Bytes,
    repair: bool,
) -> Result<(), StoreError> {
    if repair {
        let found = store.get(ACTIVE_KEY).await?;
        if found.is_some_and(|found| found.value == bytes) {
            return Ok(());
        }
        tracing::warn!("the projected definitions were overwritten; they are projected again");
    }
    store.put(ACTIVE_KEY, bytes).await.map(|_| ())
}
