//! Definitions by key, and bytes by digest.
//!
//! The bucket of definitions is a projection that everyone watches; the truth is the control partition's
//! journal. The object store holds what never changes: a blob is stored once under its digest, which the
//! caller computes and checks.

use async_nats::jetstream::{
    ErrorCode,
    kv::{Entry, Operation, Store, Watch},
    object_store::{InfoErrorKind, ObjectStore},
};
use bytes::Bytes;
use futures_util::StreamExt;
use thiserror::Error;

use crate::{
    connection::Broker,
    object_folder::ObjectFolder,
    stored_object::{self, Chunks},
    topology::{DEFINITIONS_BUCKET, PLANS_BUCKET},
};

/// Largest blob, in bytes: a snapshot is cut into several before it grows larger.
pub const BLOB_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Why a definition or blob could not be stored or read.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The broker refused or did not answer.
    #[error("could not {action} `{key}`")]
    Broker {
        /// What was tried.
        action: &'static str,
        /// On what.
        key: String,
        /// Why not.
        #[source]
        source: async_nats::Error,
    },
    /// The blob was found and is not what was stored.
    #[error("blob `{digest_hex}` is damaged")]
    Damaged {
        /// Its digest.
        digest_hex: String,
        /// In what way.
        #[source]
        source: async_nats::Error,
    },
    /// The blob is larger than [`BLOB_BYTES_MAX`].
    #[error(
        "blob `{digest_hex}` has {bytes} bytes, more than the {} MiB that are stored; cut it into several",
        BLOB_BYTES_MAX >> 20
    )]
    TooLarge {
        /// Its digest.
        digest_hex: String,
        /// Its size.
        bytes: usize,
    },
}

impl StoreError {
    /// Whether there is no room for what was to be stored.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let Self::Broker { source, .. } = self else { return false };
        let mut reason: Option<&(dyn std::error::Error + 'static)> = Some(source.as_ref());
        while let Some(error) = reason {
            if let Some(refused) = error.downcast_ref::<async_nats::jetstream::Error>() {
                return refused.error_code() == ErrorCode::STREAM_STORE_FAILED;
            }
            reason = error.source();
        }
        false
    }

    /// Of reading a blob: what was answered and makes no sense is damage.
    pub(crate) fn blob<E>(action: &'static str, digest_hex: &str) -> impl FnOnce(E) -> Self
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let digest_hex = digest_hex.to_owned();
        move |source| match is_damage(&source) {
            true => Self::Damaged { digest_hex, source: Box::new(source) },
            false => Self::Broker { action, key: digest_hex, source: Box::new(source) },
        }
    }

    pub(crate) fn broker<E>(action: &'static str, key: &str) -> impl FnOnce(E) -> Self
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let key = key.to_owned();
        move |source| Self::Broker { action, key, source: Box::new(source) }
    }
}

/// Whether an error says that bytes were read and are not what they must be.
fn is_damage(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        if kind == Some(std::io::ErrorKind::InvalidData) || error.is::<serde_json::Error>() {
            return true;
        }
        next = error.source();
    }
    false
}

/// A definition as the bucket holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDefinition {
    /// Its key.
    pub key: String,
    /// Its bytes.
    pub value: Bytes,
    /// Its revision in the bucket.
    pub revision: u64,
}

/// A change that a watcher sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DefinitionChange {
    /// Written, or there from before.
    Put(StoredDefinition),
    /// Removed.
    Removed {
        /// Its key.
        key: String,
    },
}

/// Access to definitions and blobs.
#[derive(Clone)]
pub struct DefinitionsStore {
    broker: Broker,
    definitions: Store,
    blobs: ObjectStore,
}

impl std::fmt::Debug for DefinitionsStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("DefinitionsStore").finish_non_exhaustive()
    }
}

impl DefinitionsStore {
    /// Opens the buckets that the topology made.
    ///
    /// # Errors
    /// When they are not there or the broker does not answer.
    ///
    /// # Cancel safety
    /// Can be dropped.
    pub async fn open(broker: &Broker) -> Result<Self, StoreError> {
        let context = broker.context();
        let definitions = context
            .get_key_value(DEFINITIONS_BUCKET)
            .await
            .map_err(StoreError::broker("open the bucket", DEFINITIONS_BUCKET))?;
        let blobs = context
            .get_object_store(PLANS_BUCKET)
            .await
            .map_err(StoreError::broker("open the object store", PLANS_BUCKET))?;
        Ok(Self { broker: broker.clone(), definitions, blobs })
    }

    /// Writes a definition and returns its revision.
    ///
    /// # Errors
    /// When the key has other characters than letters, digits and `-/_=.`, or the broker refuses or does not answer.
    ///
    /// # Cancel safety
    /// It may be written.
    pub async fn put(&self, key: &str, value: Bytes) -> Result<u64, StoreError> {
        self.definitions
            .put(key, value)
            .await
            .map_err(StoreError::broker("write the definition", key))
    }

    /// Reads a definition.
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    ///
    /// # Cancel safety
    /// Can be dropped.
    pub async fn get(&self, key: &str) -> Result<Option<StoredDefinition>, StoreError> {
        let entry = self
            .definitions
            .entry(key)
            .await
            .map_err(StoreError::broker("read the definition", key))?;
        Ok(entry.and_then(|entry| match change(entry) {
            DefinitionChange::Put(definition) => Some(definition),
            DefinitionChange::Removed { .. } => None,
        }))
    }

    /// The revision of a key in the bucket, whatever was done to it last, for [`Self::replace`];
    /// with what it holds, if it holds anything.
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    ///
    /// # Cancel safety
    /// Can be dropped.
    pub async fn newest(&self, key: &str) -> Result<(u64, Option<Bytes>), StoreError> {
        let entry = self.definitions.entry(key).await;
        let entry = entry.map_err(StoreError::broker("read the definition", key))?;
        Ok(entry.map_or((0, None), |entry| match (entry.revision, change(entry)) {
            (revision, DefinitionChange::Put(definition)) => (revision, Some(definition.value)),
            (revision, DefinitionChange::Removed { .. }) => (revision, None),
        }))
    }

    /// Writes a definition where the key still has this revision: whoever read it before another
    /// wrote writes nothing.
    ///
    /// # Errors
    /// When the key has another revision by now, or the broker refuses or does not answer.
    ///
    /// # Cancel safety
    /// It may be written.
    pub async fn replace(&self, key: &str, value: Bytes, revision: u64) -> Result<(), StoreError> {
        let replaced = self.definitions.update(key, value, revision).await;
        replaced.map(drop).map_err(StoreError::broker("replace the definition", key))
    }

    /// Objects beside the blobs that are named by their owner and removed again.
    #[must_use]
    pub fn folder(&self, owner: &str) -> ObjectFolder {
        ObjectFolder::of(&self.broker, PLANS_BUCKET, owner)
    }

    /// Watches keys (`*` and `>` as in subjects): first what is there, then every change.
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    ///
    /// # Cancel safety
    /// Can be dropped.
    pub async fn watch(&self, keys: &str) -> Result<DefinitionWatch, StoreError> {
        let watch = self
            .definitions
            .watch_with_history(keys)
            .await
            .map_err(StoreError::broker("watch the definitions", keys))?;
        Ok(DefinitionWatch { watch, keys: keys.to_owned() })
    }

    /// Stores bytes under their digest unless they are there. Never changes a blob.
    ///
    /// # Errors
    /// When the blob is too large, or the broker refuses or does not answer.
    ///
    /// # Cancel safety
    /// A part may be stored; it is seen by nobody and the next try starts anew.
    pub async fn put_blob(&self, digest_hex: &str, bytes: &[u8]) -> Result<(), StoreError> {
        if bytes.len() > BLOB_BYTES_MAX {
            return Err(StoreError::TooLarge {
                digest_hex: digest_hex.to_owned(),
                bytes: bytes.len(),
            });
        }
        match self.blobs.info(digest_hex).await {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == InfoErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::broker("look for the blob", digest_hex)(error)),
        }
        let mut source = bytes;
        self.blobs
            .put(digest_hex, &mut source)
            .await
            .map_err(StoreError::broker("store the blob", digest_hex))?;
        Ok(())
    }

    /// Reads the bytes under a digest. The caller compares the digest.
    ///
    /// # Errors
    /// When the blob is too large, or the broker refuses or does not answer.
    ///
    /// # Cancel safety
    /// Can be dropped.
    pub async fn get_blob(&self, digest_hex: &str) -> Result<Option<Bytes>, StoreError> {
        let object = stored_object::find(&self.broker, PLANS_BUCKET, digest_hex).await?;
        let Some(object) = object else { return Ok(None) };
        match stored_object::read(&self.broker, PLANS_BUCKET, digest_hex, &object, BLOB_BYTES_MAX)
            .await?
        {
            Chunks::Whole(bytes) => Ok(Some(bytes)),
            Chunks::Missing { found } => {
                let detail = format!("it has {found} of {} chunks", object.chunks);
                Err(StoreError::Damaged {
                    digest_hex: digest_hex.to_owned(),
                    source: detail.into(),
                })
            }
        }
    }
}

/// Changes of definitions.
pub struct DefinitionWatch {
    watch: Watch,
    keys: String,
}

impl DefinitionWatch {
    /// The next change; nothing when the watch has ended and must be made again.
    ///
    /// # Errors
    /// When the watch broke; make it again.
    ///
    /// # Cancel safety
    /// Nothing is lost when dropped.
    pub async fn next(&mut self) -> Result<Option<DefinitionChange>, StoreError> {
        let entry = self.watch.next().await.transpose();
        entry
            .map(|entry| entry.map(change))
            .map_err(StoreError::broker("watch the definitions", &self.keys))
    }
}

fn change(entry: Entry) -> DefinitionChange {
    match entry.operation {
        Operation::Put => DefinitionChange::Put(StoredDefinition {
            key: entry.key,
            value: entry.value,
            revision: entry.revision,
        }),
        Operation::Delete | Operation::Purge => DefinitionChange::Removed { key: entry.key },
    }
}
