//! Janitor: purges from a partition's streams what its snapshots stand for.
//!
//! Nothing hangs on a purge: what is purged late only takes room. So it is tried
//! once after each snapshot, and what failed is purged with the next.
//!
//! A purge is safe whoever asks for it, also an owner that was paused and owns
//! nothing any more: it purges only below the older of two snapshots that it
//! knows to be good and finds whole in the store, and those that replaced them
//! stand for more.

use fermata_core::identity::PartitionId;
use fermata_jetstream::purge::purge_before;
use fermata_jetstream::topology::{commands_stream, journal_stream};

use super::KnownSnapshot;
use super::key_hours::KeyHours;
use super::readers::describe;
use super::snapshots::{folder, name_of};
use crate::clock::wall_ms;
use crate::journal_archive::JournalArchive;
use crate::ports::Ports;

/// Purges one partition's streams.
pub(super) struct Janitor {
    pub(super) ports: Ports,
    pub(super) partition: PartitionId,
}

impl Janitor {
    /// Purges the commands and what is archived of the journal below `older`, if
    /// it and `newest` are in the store.
    pub(super) async fn purge_partition(self, older: KnownSnapshot, newest: KnownSnapshot) {
        let partition = self.partition;
        match self.try_purge(older, newest).await {
            Ok((0, 0)) => {}
            Ok((journal, commands)) => {
                tracing::info!(%partition, journal, commands, "messages that snapshots stand for are purged");
            }
            Err(error) => {
                tracing::warn!(%partition, error, "nothing could be purged; it is tried after the next snapshot");
            }
        }
    }

    async fn try_purge(
        &self,
        older: KnownSnapshot,
        newest: KnownSnapshot,
    ) -> Result<(u64, u64), String> {
        let folder = folder(&self.ports, self.partition).await;
        let folder = folder.map_err(|error| describe(&error))?;
        let key_hours = KeyHours::open(&self.ports, self.partition).await;
        let key_hours = key_hours.map_err(|error| describe(&error))?;
        for snapshot in [&older, &newest] {
            let name = name_of(snapshot.sequence);
            if !folder.is_whole(&name).await.map_err(|error| describe(&error))? {
                return Err(format!("snapshot {name} is not there"));
            }
            let whole = key_hours.whole(&snapshot.hours).await;
            if whole.map_err(|error| describe(&error))?.len() < snapshot.hours.len() {
                return Err(format!("hours that snapshot {name} names are not there"));
            }
        }
        let (journal, commands) = (journal_stream(self.partition), commands_stream(self.partition));
        // The message at the end of the older snapshot stays, and the position of
        // commands: a stream with all messages purged would not tell where it was.
        let commands = self.purge(&commands, older.position).await?;
        let (reader, bytes) = (&self.ports.reader, self.ports.facts.snapshots.segment_bytes);
        let archive = JournalArchive::open(reader, self.partition).await;
        let archive = archive.map_err(|error| describe(&error))?;
        let archived = archive.archive(reader, older.sequence, bytes).await;
        let archived = archived.map_err(|error| describe(&error))?;
        let journal = self.purge(&journal, older.sequence.min(archived + 1)).await?;
        self.forget(&archive).await?;
        Ok((journal, commands))
    }

    /// Removes segments that were kept for as long as they are to be.
    async fn forget(&self, archive: &JournalArchive) -> Result<(), String> {
        let Some(kept_ms) = self.ports.facts.snapshots.archive_retention_ms else { return Ok(()) };
        let (partition, now_ms) = (self.partition, wall_ms());
        let before_ms = now_ms.saturating_sub(kept_ms);
        let removed = archive.remove_before(&self.ports.reader, before_ms, now_ms).await;
        let removed = removed.map_err(|error| describe(&error))?;
        if removed > 0 {
            tracing::info!(%partition, segments = removed, "archived segments were kept long enough, and are removed");
        }
        Ok(())
    }

    async fn purge(&self, stream: &str, first: u64) -> Result<u64, String> {
        purge_before(&self.ports.broker, stream, first).await.map_err(|error| describe(&error))
    }
}
