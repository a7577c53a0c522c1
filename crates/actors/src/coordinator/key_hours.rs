//! Keys of closed hours in the object store: stored once, before the first
//! snapshot that names them, and removed when no snapshot can name them any more.
//!
//! All of it is safe whoever does it, also an owner that was paused and owns
//! nothing any more. What an hour holds follows from the journal, and its object
//! is named by its digest: storing it again stores the same. And hours go from
//! the oldest on: what is older than everything that a good snapshot still holds
//! is held by none that came after it.

use std::collections::BTreeMap;

use bytes::Bytes;
use fermata_core::identity::PartitionId;
use fermata_jetstream::definitions_store::StoreError;
use fermata_jetstream::object_folder::ObjectFolder;
use fermata_jetstream::topology::SNAPSHOTS_BUCKET;
use fermata_partition::key_hours::{HourFile, HourName};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::ports::Ports;

/// Hours that are looked for or read at the same time.
const HOURS_AT_ONCE: usize = 4;

/// The closed hours of a partition.
pub(super) struct KeyHours(ObjectFolder);

impl KeyHours {
    /// Opens them. They have a folder of their own beside that of the snapshots,
    /// whose name begins otherwise: a folder is swept by the beginning of its name.
    pub(super) async fn open(ports: &Ports, partition: PartitionId) -> Result<Self, StoreError> {
        let folder = format!("hours-{partition}");
        ObjectFolder::open(&ports.broker, SNAPSHOTS_BUCKET, &folder).await.map(Self)
    }

    /// Those of `names` that are whole in the store, in their order.
    pub(super) async fn whole(&self, names: &[HourName]) -> Result<Vec<HourName>, StoreError> {
        let looked = stream::iter(names.to_vec()).map(|name| {
            let folder = self.0.clone();
            async move { Ok(folder.is_whole(&name.object()).await?.then_some(name)) }
        });
        let found: Vec<Option<HourName>> = looked.buffered(HOURS_AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Stores hours, one after the other; tells their bytes.
    pub(super) async fn store(&self, files: Vec<HourFile>) -> Result<usize, StoreError> {
        let mut stored = 0;
        for HourFile { name, bytes } in files {
            stored += bytes.len();
            self.0.put(&name.object(), &Bytes::from(bytes)).await?;
        }
        Ok(stored)
    }

    /// The files of `names`, those that are there. An error passes; the text is
    /// one that does not: a file is damaged.
    pub(super) async fn read(
        &self,
        names: &[HourName],
    ) -> Result<Result<BTreeMap<HourName, Bytes>, StoreError>, StoreError> {
        let read = stream::iter(names.to_vec()).map(|name| {
            let folder = self.0.clone();
            async move { Ok(folder.get(&name.object()).await?.map(|file| (name, file))) }
        });
        let read: Result<Vec<_>, StoreError> = read.buffered(HOURS_AT_ONCE).try_collect().await;
        match read {
            Ok(files) => Ok(Ok(files.into_iter().flatten().collect())),
            Err(error @ StoreError::Broker { .. }) => Err(error),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Removes the hours before `first`, and what was left by uploads that never
    /// ended; tells how many of these.
    pub(super) async fn remove_before(&self, first: u64) -> Result<usize, StoreError> {
        for object in self.0.list().await? {
            if HourName::hour_of(&object).is_some_and(|hour| hour < first) {
                self.0.remove(&object).await?;
            }
        }
        self.0.sweep().await
    }
}
