//! The projection of the active definitions: what every process watches.
//!
//! What does not fit into one message is stored as an object, which the message names. Each crash
//! point leaves something sound:
//!
//! - An object that no message names is seen by nobody, and removed when it is superseded.
//! - A message is written only while the lease holds, and only over the one that was read before
//!   the lease was looked at: an owner that lost its lease meanwhile writes nothing over what the
//!   next one wrote.
//! - Objects are removed once two newer ones are named, and never one of a revision that the owner
//!   has not reached: what a later owner stored stays. A reader that is late finds its object gone
//!   and a newer message.
//! - A new owner projects again, and reads the object to see that it is what it was.

use std::time::Duration;

use bytes::Bytes;
use fermata_core::partition::Definitions;
use fermata_jetstream::definitions_store::{DefinitionsStore, StoreError};
use fermata_jetstream::object_folder::ObjectFolder;
use fermata_wire::WireError;
use fermata_wire::projection::{Projection as Encoded, StoredDefinitions};
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinError;

use super::state::Task;
use super::{Coordinator, CoordinatorState};
use crate::definitions::{
    ACTIVE_KEY, OBJECT_AGAIN_AFTER_MAX, OBJECTS_FOLDER, ProjectionError, read_projection,
};
use crate::doubling::Doubling;
use crate::lease_term::LeaseView;

/// How often the projection is compared with what it must be: whoever may write
/// to the bucket can put something else over it.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// At how many of these checks an object is read and compared, besides being there with all its
/// parts.
pub const OBJECT_CHECK_EVERY: u32 = 15;

/// Pause before it is written again when it could not be; doubled up to [`CHECK_INTERVAL`], and up
/// to [`OBJECT_AGAIN_AFTER_MAX`] where an object is, which is sent whole each time.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// The newest definitions, and the task that keeps them projected.
#[derive(Debug)]
pub(super) struct Projection {
    newest: watch::Sender<Definitions>,
    _task: Task,
}

/// Why definitions could not be projected.
#[derive(Debug, Error)]
enum ProjectError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("they cannot be encoded")]
    Encode(#[from] WireError),
    #[error("encoding them was given up")]
    GivenUp(#[from] JoinError),
}

impl Coordinator {
    /// Publishes what is active. It is derived from the journal, so writing it
    /// again does no harm, and every new owner does. One task writes, always the
    /// newest, and ends with the owner: an older state never overwrites a newer.
    pub(super) fn project(&self, state: &mut CoordinatorState) {
        let Some(owner) = &state.owner else { return };
        // Pointers to what is shared; they are encoded away from here.
        let definitions = owner.partition().definitions().clone();
        if let Some(projection) = &state.projection {
            projection.newest.send_replace(definitions);
            return;
        }
        let (newest, receiver) = watch::channel(definitions);
        let lease = state.lease.view();
        let store = self.ports.store.clone();
        let keep = Keeping::of(store, lease).keep(receiver);
        state.projection = Some(Projection { newest, _task: Task::spawn(keep) });
    }
}

/// Where definitions are projected, and whether that may be done.
struct Keeping {
    store: DefinitionsStore,
    objects: ObjectFolder,
    lease: LeaseView,
    /// Whether an object was stored since a message was written: readers that pause are told by one.
    is_untold: bool,
}

/// How a projection is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// It is new here.
    New,
    /// Whether it is there.
    Brief,
    /// Whether it is what it was, too.
    Close,
}

impl Keeping {
    fn of(store: DefinitionsStore, lease: LeaseView) -> Self {
        Self { objects: store.folder(OBJECTS_FOLDER), store, lease, is_untold: false }
    }

    /// Writes the newest definitions when they change, and when something else
    /// stands there; only while the lease says that nobody else projects.
    async fn keep(mut self, mut newest: watch::Receiver<Definitions>) {
        let (mut encoded, mut look, mut checks) = (None, Look::New, 0_u32);
        let mut pauses = Doubling::new(AGAIN_AFTER, OBJECT_AGAIN_AFTER_MAX);
        while self.lease.until_held().await {
            let projected = match encoded.take() {
                Some(projection) => Ok(projection),
                None => {
                    let definitions = newest.borrow_and_update().clone();
                    encode(definitions).await
                }
            };
            let put = match projected {
                Ok(projection) => {
                    let put = self.put_if_other(&projection, look).await;
                    encoded = Some(projection);
                    put
                }
                Err(error) => Err(error),
            };
            let changed = match put {
                Ok(()) => {
                    pauses.reset();
                    tokio::time::timeout(CHECK_INTERVAL, newest.changed()).await
                }
                Err(error) => {
                    tracing::warn!(%error, "the definitions could not be projected; it is tried again");
                    let pause = match &error {
                        // Until somebody makes room, the object would be sent in vain.
                        ProjectError::Store(error) if error.is_full() => pauses.pause(),
                        ProjectError::Store(_)
                        | ProjectError::Encode(_)
                        | ProjectError::GivenUp(_) => CHECK_INTERVAL.min(pauses.pause()),
                    };
                    match tokio::time::timeout(pause, newest.changed()).await {
                        Err(_) => continue,
                        changed => changed,
                    }
                }
            };
            match changed {
                Ok(Ok(())) => {
                    pauses.reset();
                    (encoded, look, checks) = (None, Look::New, 0);
                }
                Ok(Err(_)) => return,
                Err(_) => {
                    checks = checks.wrapping_add(1);
                    let close = checks.is_multiple_of(OBJECT_CHECK_EVERY);
                    look = if close { Look::Close } else { Look::Brief };
                }
            }
        }
    }

    /// Writes a projection where something else is there.
    async fn put_if_other(&mut self, projection: &Encoded, look: Look) -> Result<(), ProjectError> {
        if let Some((stored, bytes)) = &projection.object
            && !self.is_stored(stored, &projection.message, look).await?
        {
            if look != Look::New {
                tracing::warn!("the object of definitions is gone or damaged; it is stored again");
            }
            self.objects.put(&stored.name(), &Bytes::from(bytes.clone())).await?;
            self.is_untold = true;
        }
        let (revision, found) = self.store.newest(ACTIVE_KEY).await?;
        let is_there = found.is_some_and(|found| found == projection.message);
        if is_there && !self.is_untold {
            return Ok(());
        }
        // Written again, it tells readers that pause that the object is there.
        if look != Look::New && !is_there {
            tracing::warn!("the projected definitions were overwritten; they are projected again");
        }
        // Looked at after the message was read: see above.
        if !self.lease.holds() {
            return Ok(());
        }
        let message = Bytes::from(projection.message.clone());
        self.store.replace(ACTIVE_KEY, message, revision).await?;
        self.is_untold = false;
        if let Err(error) = self.remove_superseded(projection.revision).await {
            tracing::warn!(%error, "objects of older definitions could not be removed; the next definitions try it again");
        }
        Ok(())
    }

    /// Whether the object is there.
    async fn is_stored(
        &self,
        stored: &StoredDefinitions,
        message: &[u8],
        look: Look,
    ) -> Result<bool, StoreError> {
        if look == Look::Brief {
            return self.objects.is_whole(&stored.name()).await;
        }
        match read_projection(&self.store, message).await {
            Ok(_) => Ok(true),
            Err(ProjectionError::Store(error @ StoreError::Broker { .. })) => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// Removes objects of revisions before `revision` but the newest of them.
    async fn remove_superseded(&self, revision: u64) -> Result<(), StoreError> {
        let names = self.objects.list().await?;
        for name in superseded(&names, revision) {
            self.objects.remove(name).await?;
        }
        if !names.is_empty() {
            self.objects.sweep().await?;
        }
        Ok(())
    }
}

/// Names of objects that nobody needs at `revision`; they are given in their order.
fn superseded(names: &[String], revision: u64) -> &[String] {
    let before = |name: &String| {
        let of = name.split('.').next().and_then(|of| of.parse::<u64>().ok());
        of.is_none_or(|of| of < revision)
    };
    let older = names.partition_point(before);
    names.get(..older.saturating_sub(1)).unwrap_or_default()
}

/// Encodes definitions, away from the threads that everything else runs on.
async fn encode(definitions: Definitions) -> Result<Encoded, ProjectError> {
    Ok(tokio::task::spawn_blocking(move || Encoded::of(&definitions)).await??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_objects_the_newest_and_the_one_before_it_stay_and_those_of_later_owners() {
        let names = [1, 2, 5, 8, 9].map(|revision: u64| format!("{revision:020}.digest"));
        let gone = |revision| superseded(&names, revision).len();

        assert_eq!([gone(1), gone(2), gone(5), gone(8), gone(9), gone(20)], [0, 0, 1, 2, 3, 4]);
    }
}
