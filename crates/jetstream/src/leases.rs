//! Leases: who lives, and who should own which partition. For liveness only, never for safety.
//!
//! A lease is a key that expires after [`crate::topology::LEASE_TTL`] unless it is renewed at the revision
//! that its holder last wrote. What makes ownership safe is the fence of the journal, not this.

use std::collections::BTreeMap;

use async_nats::jetstream::kv::{CreateErrorKind, Entry, Operation, Store, UpdateErrorKind, Watch};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use thiserror::Error;

use crate::{connection::Broker, topology::LEASES_BUCKET};

/// Prefix of the keys by which workers show that they live.
const WORKER_PREFIX: &str = "worker.";

/// Prefix of the keys of partitions' owners.
const PARTITION_PREFIX: &str = "partition.";

/// Prefix of the keys by which workers say that they are about to leave.
const LEAVING_PREFIX: &str = "leaving.";

/// Longest name of a worker, in bytes: it is a token of a subject and a field of records.
pub const WORKER_NAME_BYTES_MAX: usize = 64;

/// Leases that are read at the same time.
const READS_AT_ONCE: usize = 32;

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
    /// `worker.<id>`, `leaving.<id>` or `partition.<p>`.
    pub key: String,
    /// What its holder wrote, such as its id.
    pub holder: Bytes,
    /// Revision to renew or release at.
    pub revision: u64,
}

impl Lease {
    /// The worker that holds it; nothing when what stands there is no worker's name, so nobody's lease.
    pub fn worker(&self) -> Option<&str> {
        std::str::from_utf8(&self.holder).ok().filter(|name| is_worker_name(name))
    }

    /// Whether a worker wrote this about itself, or about a partition.
    fn is_ours(&self) -> bool {
        let about_itself =
            [WORKER_PREFIX, LEAVING_PREFIX].iter().find_map(|own| self.key.strip_prefix(own));
        match about_itself {
            Some(worker) => self.worker() == Some(worker),
            None => self.key.starts_with(PARTITION_PREFIX) && self.worker().is_some(),
        }
    }
}

/// Whether a text can name a worker: letters, digits, `-` and `_`, at most [`WORKER_NAME_BYTES_MAX`].
pub fn is_worker_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !text.is_empty() && text.len() <= WORKER_NAME_BYTES_MAX && text.bytes().all(allowed)
}

/// What the bucket holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// Workers that live, by name, in order; those that are about to leave included.
    pub workers: Vec<String>,
    /// Workers that are about to leave, by name, in order: they keep what they hold until they have given
    /// it back, and take nothing.
    pub leaving: Vec<String>,
    /// Who holds which lease, by key.
    pub leases: BTreeMap<String, Lease>,
    /// What no worker wrote: another program's keys, or a key of ours with bytes that name nobody.
    pub foreign: Vec<Lease>,
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

/// Key by which a worker says that it is about to leave.
pub fn leaving_key(worker: &str) -> String {
    format!("{LEAVING_PREFIX}{worker}")
}

/// Key of the owner of a partition.
pub fn partition_key(partition: &str) -> String {
    format!("{PARTITION_PREFIX}{partition}")
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

    /// The workers that live, by name, in order. A key that its worker did not write itself is no worker.
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    ///
    /// # Cancel safety
    /// Can be dropped.
    pub async fn live_workers(&self) -> Result<Vec<String>, LeaseError> {
        Ok(self.workers().await?.workers)
    }

    /// What the bucket holds below the keys of workers.
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    ///
    /// # Cancel safety
    /// Can be dropped.
    pub async fn workers(&self) -> Result<Held, LeaseError> {
        self.read(|key| [WORKER_PREFIX, LEAVING_PREFIX].iter().any(|own| key.starts_with(own)))
            .await
    }

    /// Everything that the bucket holds.
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    ///
    /// # Cancel safety
    /// Can be dropped.
    pub async fn held(&self) -> Result<Held, LeaseError> {
        self.read(|_| true).await
    }

    async fn read(&self, wanted: impl Fn(&str) -> bool) -> Result<Held, LeaseError> {
        let keys = self.store.keys().await.map_err(LeaseError::new("list", ">"))?;
        let keys: Vec<String> = keys.try_collect().await.map_err(LeaseError::new("list", ">"))?;
        let keys = keys.into_iter().filter(|key| wanted(key));
        let leases: Vec<Option<Lease>> = stream::iter(keys)
            .map(|key| async move {
                if is_readable(&key) {
                    return self.get(&key).await;
                }
                let holder = Bytes::new();
                Ok(Some(Lease { key, holder, revision: 0 }))
            })
            .buffer_unordered(READS_AT_ONCE)
            .try_collect()
            .await?;
        let mut held = Held::default();
        for lease in leases.into_iter().flatten() {
            if !lease.is_ours() {
                held.foreign.push(lease);
                continue;
            }
            if let Some(worker) = lease.key.strip_prefix(WORKER_PREFIX) {
                held.workers.push(worker.to_owned());
            } else if let Some(worker) = lease.key.strip_prefix(LEAVING_PREFIX) {
                held.leaving.push(worker.to_owned());
            }
            held.leases.insert(lease.key.clone(), lease);
        }
        held.workers.sort_unstable();
        held.leaving.sort_unstable();
        Ok(held)
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

/// Whether the library takes a key; a subject can hold what it refuses.
fn is_readable(key: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-/_=.".contains(&byte);
    !key.is_empty() && key.bytes().all(allowed) && !key.starts_with('.') && !key.ends_with('.')
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
