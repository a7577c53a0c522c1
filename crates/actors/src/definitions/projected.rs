//! Reading what is projected, in a message or in the object that it names.

use std::time::Duration;

use fermata_core::partition::Definitions;
use fermata_jetstream::Bytes;
use fermata_jetstream::definitions_store::{DefinitionsStore, StoreError};
use fermata_wire::WireError;
use fermata_wire::projection::{DEFINITIONS_OBJECT_BYTES_MAX, Projected, StoredDefinitions};
use thiserror::Error;

use super::ACTIVE_KEY;

/// Owner of the objects of definitions, in the store of plans.
pub const OBJECTS_FOLDER: &str = "definitions";

/// How long reading an object of definitions may take.
pub(crate) const OBJECT_READ_LIMIT: Duration = Duration::from_secs(60);

/// Reads of the message in a row that name an object which is gone, before that is told: each
/// time a newer one may have replaced it.
const READS_MAX: u32 = 4;

/// Pause before the message is read again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Why projected definitions cannot be used.
#[derive(Debug, Error)]
pub enum ProjectionError {
    /// The message is none.
    #[error("the projected message cannot be read")]
    Message(#[source] WireError),
    /// There is no such object: it was removed, or replaced by a newer one.
    #[error("the object `{name}` of definitions is not stored")]
    Missing {
        /// Its name.
        name: String,
    },
    /// It is there and did not come.
    #[error("the object `{name}` of definitions did not come within {} s", OBJECT_READ_LIMIT.as_secs())]
    Silent {
        /// Its name.
        name: String,
    },
    /// The object is not what was stored.
    #[error("the object `{name}` of definitions is damaged")]
    Damaged {
        /// Its name.
        name: String,
        /// In what way.
        #[source]
        source: WireError,
    },
    /// The store could not be read.
    #[error("the definitions could not be read")]
    Store(#[from] StoreError),
    /// They do not compile.
    #[error("they do not compile: {0}")]
    Unsound(String),
}

impl ProjectionError {
    /// Whether the message is written again when it can be read.
    #[must_use]
    pub(super) fn is_told_when_it_passes(&self) -> bool {
        match self {
            Self::Missing { .. } | Self::Damaged { .. } => true,
            Self::Message(_) | Self::Unsound(_) | Self::Silent { .. } | Self::Store(_) => false,
        }
    }

    /// Whether the same message may be read with more luck later.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Message(_) | Self::Unsound(_) => false,
            Self::Missing { .. } | Self::Silent { .. } | Self::Damaged { .. } | Self::Store(_) => {
                true
            }
        }
    }
}

/// The definitions of a projected message.
///
/// # Errors
///
/// [`ProjectionError`] if they cannot be had.
///
/// # Cancel safety
///
/// Can be dropped.
pub async fn read_projection(
    store: &DefinitionsStore,
    message: &[u8],
) -> Result<Definitions, ProjectionError> {
    match Projected::decode(message).map_err(ProjectionError::Message)? {
        Projected::Whole(definitions) => Ok(definitions),
        Projected::Stored(stored) => {
            let bytes = read_object(store, &stored).await?;
            let opened = tokio::task::spawn_blocking(move || {
                let name = stored.name();
                stored.open(&bytes).map_err(|source| ProjectionError::Damaged { name, source })
            });
            opened.await.map_err(|error| ProjectionError::Unsound(error.to_string()))?
        }
    }
}

/// Bytes of an object; whoever opens them compares the digest.
pub(crate) async fn read_object(
    store: &DefinitionsStore,
    stored: &StoredDefinitions,
) -> Result<Bytes, ProjectionError> {
    let name = stored.name();
    let folder = store.folder(OBJECTS_FOLDER);
    let read = folder.get_within(&name, DEFINITIONS_OBJECT_BYTES_MAX);
    match tokio::time::timeout(OBJECT_READ_LIMIT, read).await {
        Ok(read) => read?.ok_or(ProjectionError::Missing { name }),
        Err(_) => Err(ProjectionError::Silent { name }),
    }
}

/// What is active; none before the first definitions.
///
/// # Errors
///
/// [`ProjectionError`] if it cannot be had, though it was read several times.
///
/// # Cancel safety
///
/// Can be dropped.
pub async fn active_definitions(store: &DefinitionsStore) -> Result<Definitions, ProjectionError> {
    let mut reads = 1;
    loop {
        let Some(projected) = store.get(ACTIVE_KEY).await? else {
            return Ok(Definitions::default());
        };
        match read_projection(store, &projected.value).await {
            Err(error) if error.may_pass() && reads < READS_MAX => {
                tokio::time::sleep(AGAIN_AFTER).await;
                reads += 1;
            }
            answer => return answer,
        }
    }
}
