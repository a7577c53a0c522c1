//! Leases: who lives, and who should own which partition. For liveness only, never for safety.
//!
//! A lease is a key that expires after [`crate::topology::LEASE_TTL`] unless it is renewed at the revision
//! that its holder last wrote. What makes ownership safe is the fence of the journal, not this.

use async_nats::jetstream::kv::{CreateErrorKind, Entry, Operation, Store, UpdateErrorKind, Watch};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use thiserror::Error;

use crate::{connection::Broker, topology::LEASES_BUCKET};

/// Prefix of the keys by which workers show that they live.
const WORKER_PREFIX: &str = "worker.";

/// Why a lease operation has no result. A change may have been made all the same.
#[derive(Debug, Error)]
#[error("could not {action} lease `{key}`")]
pub struct LeaseError {
    action: &'static str,
    key: String,
    #[source]
    source: async_nats::Error,
}

impl LeaseError {
    fn new<E>(action: &'static str, key: &str) -> impl FnOnce(E) -> Self
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let key = key.to_owned();
        move |source| Self { action, key, source: Box::new(source) }
    }
}

/// A lease as the bucket holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// `worker.<id>` or `partition.<p>`.
    pub key: String,
    /// What its holder wrote, such as its id.
    pub holder: Bytes,
    /// Revision to renew or release at.
    pub revision: u64,
}

/// What became of the wish for a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acquired {
    /// It is ours until it expires.
    Granted(Lease),
    /// Another holds it, or we do from an earlier life; then renew this one.
    HeldBy(Lease),
}

/// What became of a renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewed {
    /// It is ours for another term.
    Renewed(Lease),
    /// It expired or another holds it.
    Lost,
}

/// A change that a watcher sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseChange {
    /// Taken or renewed.
    Held(Lease),
    /// Released or expired.
    Gone {
        /// The key.
        key: String,
    },
}

/// The bucket of leases.
#[derive(Debug, Clone)]
pub struct Leases {
    store: Store,
}

/// Key by which a worker shows that it lives.
pub fn worker_key(worker: &str) -> String {
    format!("{WORKER_PREFIX}{worker}")
}

/// Key of the owner of a partition.
pub fn partition_key(partition: &str) -> String {
    format!("partition.{partition}")
}

impl Leases {
    /// Opens the bucket that the topology made.
    ///
    /// # Errors
    /// When it is not there or the broker does not answer.
    ///
    /// # Cancel safety
    /// Can be dropped.
    pub async fn open(broker: &Broker) -> Result<Self, LeaseError> {
        let store = broker
            .context()
            .get_key_value(LEASES_BUCKET)
            .await
            .map_err(LeaseError::new("open the bucket of", LEASES_BUCKET))?;
        Ok(Self { store })
    }

    /// Takes a lease if nobody holds it.
    ///
    /// # Errors
    /// When the broker refuses or does not answer; the lease may be taken all the same.
    ///
    /// # Cancel safety
    /// The lease may be taken; it expires by itself.
    pub async fn acquire(&self, key: &str, holder: Bytes) -> Result<Acquired, LeaseError> {
        match self.store.create(key, holder.clone()).await {
            Ok(revision) => Ok(Acquired::Granted(Lease { key: key.to_owned(), holder, revision })),
            Err(error) if error.kind() == CreateErrorKind::AlreadyExists => {
                match self.get(key).await? {
                    Some(lease) => Ok(Acquired::HeldBy(lease)),
                    None => Err(LeaseError::new("acquire", key)(error)),
                }
            }
            Err(error) => Err(LeaseError::new("acquire", key)(error)),
        }
    }

    /// Extends a lease by a term if nobody else has written it since.
    ///
    /// # Errors
    /// When the broker refuses or does not answer; the lease may be renewed all the same, at an unknown revision.
    ///
    /// # Cancel safety
    /// The lease may be renewed at an unknown revision.
    pub async fn renew(&self, lease: &Lease) -> Result<Renewed, LeaseError> {
        match self.store.update(&lease.key, lease.holder.clone(), lease.revision).await {
            Ok(revision) => Ok(Renewed::Renewed(Lease { revision, ..lease.clone() })),
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(Renewed::Lost),
            Err(error) => Err(LeaseError::new("renew", &lease.key)(error)),
        }
    }

    /// Gives a lease back; does nothing when another holds it by now.
    ///
    /// # Errors
    /// When the broker does not answer, or another holds it by now; it expires by itself.
    ///
    /// # Cancel safety
    /// The lease may be given back; it expires by itself.
    pub async fn release(&self, lease: &Lease) -> Result<(), LeaseError> {
        self.store
            .delete_expect_revision(&lease.key, Some(lease.revision))
            .await
            .map_err(LeaseError::new("release", &lease.key))
    }

    /// Who holds a lease.
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    ///
    /// # Cancel safety
    /// Can be dropped.
    pub async fn get(&self, key: &str) -> Result<Option<Lease>, LeaseError> {
        let entry = self.store.entry(key).await.map_err(LeaseError::new("read", key))?;
        Ok(entry.and_then(|entry| match change(entry) {
            LeaseChange::Held(lease) => Some(lease),
            LeaseChange::Gone { .. } => None,
        }))
    }

    /// The workers that live, by id, in order.
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    ///
    /// # Cancel safety
    /// Can be dropped.
    pub async fn live_workers(&self) -> Result<Vec<String>, LeaseError> {
        let keys = self.store.keys().await.map_err(LeaseError::new("list", "worker.*"))?;
        let keys: Vec<String> =
            keys.try_collect().await.map_err(LeaseError::new("list", "worker.*"))?;
        let mut workers: Vec<String> = keys
            .iter()
            .filter_map(|key| key.strip_prefix(WORKER_PREFIX))
            .map(str::to_owned)
            .collect();
        workers.sort_unstable();
        Ok(workers)
    }

    /// Watches all leases: first what holds now, then every change, expiry included.
    ///
    /// A change that is overtaken by the next one of the same lease may be left out.
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    ///
    /// # Cancel safety
    /// Can be dropped.
    pub async fn watch(&self) -> Result<LeaseWatch, LeaseError> {
        let watch =
            self.store.watch_with_history(">").await.map_err(LeaseError::new("watch", ">"))?;
        Ok(LeaseWatch { watch })
    }
}

/// Changes of leases.
pub struct LeaseWatch {
    watch: Watch,
}

impl LeaseWatch {
    /// The next change; nothing when the watch has ended and must be made again.
    ///
    /// # Errors
    /// When the watch broke; make it again.
    ///
    /// # Cancel safety
    /// Nothing is lost when dropped.
    pub async fn next(&mut self) -> Result<Option<LeaseChange>, LeaseError> {
        self.watch
            .next()
            .await
            .transpose()
            .map(|entry| entry.map(change))
            .map_err(LeaseError::new("watch", ">"))
    }
}

fn change(entry: Entry) -> LeaseChange {
    match entry.operation {
        Operation::Put => LeaseChange::Held(Lease {
            key: entry.key,
            holder: entry.value,
            revision: entry.revision,
        }),
        Operation::Delete | Operation::Purge => LeaseChange::Gone { key: entry.key },
    }
}
