//! Snapshots of the partition: which one a takeover begins from, and how one is
//! written, stored, and followed by a purge of what it stands for.

use std::collections::BTreeSet;

use bytes::Bytes;
use fermata_audit::Checkpoint;
use fermata_core::identity::PartitionId;
use fermata_jetstream::definitions_store::StoreError;
use fermata_jetstream::object_folder::ObjectFolder;
use fermata_jetstream::topology::SNAPSHOTS_BUCKET;
use fermata_partition::auditor::AuditMark;
use fermata_partition::key_hours::HourName;
use fermata_partition::snapshot::{FrozenFold, Snapshot, SnapshotFile};
use ractor::{ActorProcessingErr, ActorRef};

use super::janitor::Janitor;
use super::key_hours::KeyHours;
use super::readers::describe;
use super::state::Task;
use super::{AGAIN_AFTER, Answer, Coordinator, CoordinatorMessage, CoordinatorState};
use crate::auditor::AuditorMessage;
use crate::ports::Ports;

/// A snapshot that is known to be good: what it stands for may be purged when
/// there are two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownSnapshot {
    /// Sequence of the last journal message in it.
    pub sequence: u64,
    /// The position of commands up to which it has consumed.
    pub position: u64,
    /// Closed hours that it names: it is whole with them alone.
    pub hours: Vec<HourName>,
    /// The oldest hour of which it or any later one holds a key.
    pub first_hour: u64,
}

/// Snapshots that are known to be good, the newest last.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    known: Vec<KnownSnapshot>,
    /// Waits for its entries to be audited.
    frozen: Option<Box<FrozenFold>>,
    /// Those that could be read and are no state.
    unusable: BTreeSet<u64>,
}

impl Snapshots {
    /// Begins with the one that the owner begins from.
    pub(super) fn begin(&mut self, from: Option<&Snapshot>) {
        self.frozen = None;
        self.known.clear();
        self.known.extend(from.map(|snapshot| KnownSnapshot {
            sequence: snapshot.sequence(),
            position: snapshot.position().sequence,
            hours: snapshot.hours().to_vec(),
            first_hour: snapshot.first_hour(),
        }));
    }

    /// The two newest, the older first: nothing behind that may be purged.
    fn newest_two(&self) -> Option<(KnownSnapshot, KnownSnapshot)> {
        match self.known.as_slice() {
            [.., older, newest] => Some((older.clone(), newest.clone())),
            [_] | [] => None,
        }
    }

    fn newest(&self) -> Option<KnownSnapshot> {
        self.known.last().cloned()
    }

    /// It is no state: the next takeover begins from another one.
    pub(super) fn set_aside(&mut self, sequence: u64) {
        self.unusable.insert(sequence);
    }

    pub(super) fn unusable(&self) -> BTreeSet<u64> {
        self.unusable.clone()
    }
}

impl Coordinator {
    /// A snapshot is taken: the auditor says when everything in it is audited.
    pub(super) fn take_snapshot(
        frozen: Box<FrozenFold>,
        state: &mut CoordinatorState,
    ) -> Result<(), ActorProcessingErr> {
        let index = frozen.next_index();
        state.snapshots.frozen = Some(frozen);
        state.auditor.cast(AuditorMessage::Mark(index))?;
        Ok(())
    }

    /// Everything in the snapshot is audited: it is written and stored, elsewhere
    /// than where decisions are made.
    pub(super) fn store_snapshot(
        &self,
        myself: &ActorRef<CoordinatorMessage>,
        mark: Box<AuditMark>,
        state: &mut CoordinatorState,
    ) {
        let Some(frozen) = state.snapshots.frozen.take() else { return };
        let (ports, partition) = (self.ports.clone(), self.partition);
        let (newest, lease) = (state.snapshots.newest(), state.lease.view());
        self.ask(myself, state, async move {
            let sequence = frozen.sequence();
            if !lease.holds() {
                return Answer::SnapshotEnded(None);
            }
            match store(&ports, partition, frozen, mark, newest).await {
                Ok(known) => Answer::SnapshotEnded(Some(known)),
                Err(error) => {
                    tracing::warn!(%partition, sequence, error, "a snapshot could not be stored; the next one is tried");
                    Answer::SnapshotEnded(None)
                }
            }
        });
    }

    /// A snapshot is stored, or came to nothing.
    pub(super) fn snapshot_ended(
        &self,
        stored: Option<KnownSnapshot>,
        state: &mut CoordinatorState,
    ) {
        state.snapshots.known.extend(stored);
        if let Some((older, newest)) = state.snapshots.newest_two() {
            let janitor = Janitor { ports: self.ports.clone(), partition: self.partition };
            state.janitor = Some(Task::spawn(janitor.purge_partition(older, newest)));
        }
    }
}

/// Writes and stores a snapshot; `newest` is the newest one before it, and those
/// before that one go, with the hours that only they named.
async fn store(
    ports: &Ports,
    partition: PartitionId,
    frozen: Box<FrozenFold>,
    mark: Box<AuditMark>,
    newest: Option<KnownSnapshot>,
) -> Result<KnownSnapshot, String> {
    let (sequence, position) = (frozen.sequence(), frozen.position().sequence);
    let (name, first_hour) = (name_of(sequence), frozen.first_hour());
    let folder = folder(ports, partition).await.map_err(|error| describe(&error))?;
    let key_hours = KeyHours::open(ports, partition).await.map_err(|error| describe(&error))?;
    // Only hours that this owner has read or stored count as stored, and while they are there:
    // what somebody left that is damaged must not be named for a day.
    let stored = newest.as_ref().map_or(&[][..], |newest| &newest.hours);
    let stored = key_hours.whole(stored).await.map_err(|error| describe(&error))?;
    // The copy is dropped there as well: it may be the last that holds a run.
    let written = tokio::task::spawn_blocking(move || frozen.encode(&mark, &stored)).await;
    let written = written.map_err(|error| error.to_string())?;
    let written = written.map_err(|error| describe(&error))?;
    let (hours, new_hours, bytes) =
        (written.hours, written.new_hours.len(), Bytes::from(written.bytes));
    let hour_bytes = key_hours.store(written.new_hours).await;
    let hour_bytes = hour_bytes.map_err(|error| describe(&error))?;
    folder.put(&name, &bytes).await.map_err(|error| describe(&error))?;
    let bytes = bytes.len();
    tracing::info!(%partition, sequence, bytes, new_hours, hour_bytes, "a snapshot is stored");
    // Never what is newer than one's own: an owner that was paused may be about
    // to store a snapshot when others have gone on.
    let (kept_from, hours_from) = match newest {
        Some(newest) => (name_of(newest.sequence), newest.first_hour),
        None => (name, first_hour),
    };
    let cleaned = async {
        for old in folder.list().await?.into_iter().filter(|old| *old < kept_from) {
            folder.remove(&old).await?;
        }
        // Behind the snapshots that name them.
        Ok::<_, StoreError>(key_hours.remove_before(hours_from).await? + folder.sweep().await?)
    };
    match cleaned.await {
        Ok(0) => {}
        Ok(parts) => tracing::info!(%partition, parts, "what unfinished snapshots left is removed"),
        // The next one removes it.
        Err(error) => {
            tracing::warn!(%partition, error = describe(&error), "old snapshots could not be removed")
        }
    }
    Ok(KnownSnapshot { sequence, position, hours, first_hour })
}

/// The newest snapshot that is good and whose tail is in the journal; none where
/// the whole journal is there. Waits for as long as the broker does not answer.
///
/// # Errors
///
/// Why the partition must halt: the journal does not begin at its beginning, and
/// nothing stands for what is missing.
pub(super) async fn newest_snapshot(
    ports: &Ports,
    partition: PartitionId,
    journal_stream: &str,
    unusable: &BTreeSet<u64>,
) -> Result<Option<Box<Snapshot>>, String> {
    loop {
        match look_for(ports, partition, journal_stream, unusable).await {
            Ok(found) => return found,
            Err(error) => {
                tracing::warn!(%partition, error, "the snapshots cannot be read yet");
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
    }
}

/// The outer error is one that passes; the inner one is what is there.
async fn look_for(
    ports: &Ports,
    partition: PartitionId,
    journal_stream: &str,
    unusable: &BTreeSet<u64>,
) -> Result<Result<Option<Box<Snapshot>>, String>, String> {
    let passing = |error: &dyn std::error::Error| describe(error);
    let folder = folder(ports, partition).await.map_err(|error| passing(&error))?;
    let key_hours = KeyHours::open(ports, partition).await.map_err(|error| passing(&error))?;
    let names = folder.list().await.map_err(|error| passing(&error))?;
    let mut refused = Vec::new();
    for name in names.iter().rev() {
        let bytes = match folder.get(name).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => continue,
            Err(error @ StoreError::Broker { .. }) => return Err(describe(&error)),
            Err(error) => {
                refused.push(format!("snapshot {name}: {}", describe(&error)));
                continue;
            }
        };
        let read = tokio::task::spawn_blocking(move || SnapshotFile::decode(partition, &bytes));
        let read = match read.await.map_err(|error| error.to_string())? {
            Ok(read) => read,
            Err(error) => {
                refused.push(format!("snapshot {name}: {}", describe(&error)));
                continue;
            }
        };
        let files = match key_hours.read(read.hours()).await.map_err(|error| passing(&error))? {
            Ok(files) => files,
            Err(error) => {
                refused.push(format!("snapshot {name}: {}", describe(&error)));
                continue;
            }
        };
        let facts = ports.facts.clone();
        let read = tokio::task::spawn_blocking(move || {
            let snapshot = read.with_hours(&files).map_err(|error| describe(&error))?;
            let verifier = [facts.signer.verifier()];
            let signed = Checkpoint::open(snapshot.audit().note.as_bytes(), &verifier);
            let signed = signed.map_err(|error| describe(&error))?;
            let covers = signed.origin() == facts.origin(partition)
                && signed.size() >= snapshot.next_index();
            match covers {
                true => Ok(Box::new(snapshot)),
                false => Err("its checkpoint does not cover it".to_owned()),
            }
        });
        let read = read.await.map_err(|error| error.to_string())?;
        // Asked for last: what was purged before is missing, what is purged later
        // is noticed by the replay.
        let first = ports.reader.stream_state(journal_stream).await;
        let first = first.map_err(|error| passing(&error))?.first_sequence;
        match read {
            Ok(snapshot) if unusable.contains(&snapshot.sequence()) => {
                refused.push(format!("snapshot {name}: it is no state of its plans"));
            }
            Ok(snapshot) if snapshot.sequence() + 1 < first => {
                refused.push(format!("snapshot {name}: the journal goes on only at {first}"));
            }
            Ok(snapshot) => return Ok(Ok(Some(snapshot))),
            Err(reason) => refused.push(format!("snapshot {name}: {reason}")),
        }
    }
    // Whoever owns the partition meanwhile stores newer ones, and removes what was to be read.
    if folder.list().await.map_err(|error| passing(&error))? != names {
        return Err("other snapshots are there now".to_owned());
    }
    for reason in &refused {
        tracing::error!(%partition, reason, "a snapshot cannot be used");
    }
    let first = ports.reader.stream_state(journal_stream).await;
    let first = first.map_err(|error| passing(&error))?.first_sequence;
    if first <= 1 {
        return Ok(Ok(None));
    }
    if refused.is_empty() {
        refused.push("there is no snapshot".to_owned());
    }
    let refused = refused.join("; ");
    Ok(Err(format!(
        "the journal begins at {first}, and nothing stands for what is missing: {refused}"
    )))
}

pub(super) async fn folder(
    ports: &Ports,
    partition: PartitionId,
) -> Result<ObjectFolder, StoreError> {
    ObjectFolder::open(&ports.broker, SNAPSHOTS_BUCKET, &partition.to_string()).await
}

/// Names in the order of sequences.
pub(super) fn name_of(sequence: u64) -> String {
    format!("{sequence:020}")
}
