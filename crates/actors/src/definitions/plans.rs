//! Compiled plans by digest.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fermata_core::digest::Digest;
use fermata_core::plan::Executable;
use fermata_jetstream::definitions_store::{DefinitionsStore, StoreError};
use fermata_wire::WireError;
use thiserror::Error;

/// Reads in a row that must find a plan missing or broken before that counts: a
/// read may be answered by a server that is behind.
pub const PLAN_READS_MAX: u32 = 4;

/// How long one read of a plan may take; one whose parts are gone never ends.
pub const PLAN_READ_LIMIT: Duration = Duration::from_secs(10);

/// Pause before a plan is read again.
const PLAN_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Why a plan cannot be had.
#[derive(Debug, Error)]
pub enum PlanError {
    /// There is none.
    #[error("plan {digest} is not stored")]
    Missing {
        /// What was asked for.
        digest: Digest,
    },
    /// The blob was found and its bytes did not come.
    #[error("the blob under {digest} did not come within {} s", PLAN_READ_LIMIT.as_secs())]
    Silent {
        /// What was asked for.
        digest: Digest,
    },
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The blob's bytes are not those of its digest.
    #[error("the blob under {digest} has digest {found}; it was changed or cut")]
    Changed {
        /// What was asked for.
        digest: Digest,
        /// What is there.
        found: Digest,
    },
    /// The blob is no plan.
    #[error("the blob under {digest} is no plan")]
    NoPlan {
        /// What was asked for.
        digest: Digest,
        /// Why.
        #[source]
        source: WireError,
    },
    /// The plan is not sound.
    #[error("plan {digest} is not sound: {problem}")]
    Unsound {
        /// What was asked for.
        digest: Digest,
        /// The first problem.
        problem: String,
    },
}

impl PlanError {
    /// Whether nothing is known: the store did not answer. Anything else says
    /// something about the plan.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Store(error) => matches!(error, StoreError::Broker { .. }),
            Self::Missing { .. }
            | Self::Silent { .. }
            | Self::Changed { .. }
            | Self::NoPlan { .. }
            | Self::Unsound { .. } => false,
        }
    }
}

/// Compiled plans by digest, fetched once. Plans are immutable and are kept for
/// the life of the process: a few kilobytes per workflow version.
#[derive(Debug, Clone)]
pub struct Plans {
    store: DefinitionsStore,
    cache: Arc<Mutex<HashMap<Digest, Arc<Executable>>>>,
}

impl Plans {
    /// Nothing fetched yet.
    #[must_use]
    pub fn new(store: DefinitionsStore) -> Self {
        Self { store, cache: Arc::default() }
    }

    /// The plan of a digest, by one read that was answered: it waits for a store
    /// that does not answer.
    ///
    /// # Errors
    ///
    /// [`PlanError`] if the store holds no such plan, or something else. One
    /// answer may come from a server that is behind: ask again before it counts.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn find(&self, digest: Digest) -> Result<Arc<Executable>, PlanError> {
        loop {
            match self.read(digest).await {
                Err(error) if error.is_unreachable() => {
                    tracing::warn!(%digest, %error, "the store of plans does not answer; it is tried again");
                    tokio::time::sleep(PLAN_AGAIN_AFTER).await;
                }
                answer => return answer,
            }
        }
    }

    /// The plan of a digest, by [`PLAN_READS_MAX`] reads if they do not find it:
    /// the answer is definite.
    ///
    /// # Errors
    ///
    /// [`PlanError`] if the store holds no such plan, or something else.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn fetch(&self, digest: Digest) -> Result<Arc<Executable>, PlanError> {
        let mut reads = 1;
        loop {
            match self.find(digest).await {
                Err(error) if reads < PLAN_READS_MAX => {
                    tracing::warn!(%digest, %error, reads, "a plan cannot be used; it is read again");
                    tokio::time::sleep(PLAN_AGAIN_AFTER).await;
                    reads += 1;
                }
                answer => return answer,
            }
        }
    }

    async fn read(&self, digest: Digest) -> Result<Arc<Executable>, PlanError> {
        if let Some(plan) = self.cached(&digest) {
            return Ok(plan);
        }
        let name = digest.to_string();
        let blob = tokio::time::timeout(PLAN_READ_LIMIT, self.store.get_blob(&name)).await;
        let blob = blob.map_err(|_| PlanError::Silent { digest })??;
        let bytes = blob.ok_or(PlanError::Missing { digest })?;
        let found = Digest::of(&bytes);
        if found != digest {
            return Err(PlanError::Changed { digest, found });
        }
        let plan = fermata_wire::plan::decode(&bytes)
            .map_err(|source| PlanError::NoPlan { digest, source })?;
        let executable = Executable::new(plan).map_err(|problems| PlanError::Unsound {
            digest,
            problem: problems.first().map_or_else(String::new, ToString::to_string),
        })?;
        let executable = Arc::new(executable);
        self.lock().insert(digest, executable.clone());
        Ok(executable)
    }

    fn cached(&self, digest: &Digest) -> Option<Arc<Executable>> {
        self.lock().get(digest).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Arc<Executable>>> {
        // A map of finished values is sound whatever panicked while holding it.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
