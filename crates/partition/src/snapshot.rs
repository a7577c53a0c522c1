//! A snapshot: the fold of a journal up to one message, as a file.
//!
//! It stands for the journal up to that message: an owner that begins from it
//! reads the messages behind it and is where one is that has read them all. An
//! auditor that begins there needs the tree over the entries of the records
//! before it: the snapshot holds that tree's frontier, and the signed note that
//! vouches for it. So it is complete only when everything in it is audited.
//! Keys of hours that are over stand in files of their own, see [`crate::key_hours`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use fermata_audit::{Hash, Tree};
use fermata_core::digest::Digest;
use fermata_core::identity::{JournalTime, PartitionId, StreamPosition};
use fermata_core::partition::{ClosedHour, FrozenPartition, Limits, PartitionImage, RestoreError};
use fermata_core::plan::Executable;
use fermata_wire::WireError;
use fermata_wire::envelope::write_named;
use fermata_wire::sealed_file::{FileError, FileKind, open, read_body, seal};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::auditor::AuditMark;
use crate::fold::JournalFold;
use crate::key_hours::{HourFile, HourName, read_hours, write_hours};

/// Kind and version of the file.
pub const SNAPSHOT: FileKind = FileKind { name: "snapshot", version: 1 };

/// When a snapshot is due. It costs a pause of some milliseconds, a copy of
/// each run when it next moves on, and writing the state once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotPolicy {
    /// So many records after the last one. Default 500,000: they are folded
    /// again in about a second.
    pub records_max: u64,
    /// So many bytes of journal after the last one. Default 96 MiB: of the 1 GiB
    /// that a journal holds, what three of them take is needed at the most.
    pub bytes_max: u64,
    /// So long after the last one if there is any record since, milliseconds, and once more
    /// behind the last record: only what two snapshots stand for is purged. Default 10
    /// minutes: what is idle is purged, too.
    pub interval_ms: u64,
    /// Not sooner after the last one, milliseconds, whatever there is. Default
    /// 10 s: a partition under full load does not write snapshots all the time.
    pub rest_ms: u64,
    /// What a snapshot stands for is archived in segments of so many bytes, and
    /// purged. Default 4 MiB. What is less stays in the journal until it is more.
    pub segment_bytes: u64,
    /// How long segments are kept after they were stored, milliseconds. Default:
    /// for ever. What is removed can no longer be shown, and stays proved by the
    /// audit log.
    pub archive_retention_ms: Option<u64>,
}

impl SnapshotPolicy {
    /// The same for a journal that holds `journal_bytes` when it is full: so
    /// often that what three snapshots stand for is less than half of that.
    #[must_use]
    pub fn within(self, journal_bytes: u64) -> Self {
        Self { bytes_max: self.bytes_max.min(journal_bytes / 8), ..self }
    }
}

impl Default for SnapshotPolicy {
    fn default() -> Self {
        Self {
            records_max: 500_000,
            bytes_max: 96 * 1024 * 1024,
            interval_ms: 10 * 60 * 1_000,
            rest_ms: 10_000,
            segment_bytes: 4 * 1024 * 1024,
            archive_retention_ms: None,
        }
    }
}

/// Where a journal stands at the end of one of its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrameMark {
    /// Epoch of the frame's writer.
    pub epoch: u64,
    /// The attempt to own that wrote it.
    pub incarnation: Uuid,
    /// Its number among that writer's frames.
    pub number: u64,
    /// Its time.
    pub time: JournalTime,
}

/// The fold at the end of a committed frame, not written yet: cheap to take.
#[derive(Debug, Clone)]
pub struct FrozenFold {
    pub(crate) partition: FrozenPartition,
    pub(crate) sequence: u64,
    pub(crate) next_index: u64,
    pub(crate) last: Option<FrameMark>,
}

/// A snapshot that was read, with the hours that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub(crate) image: PartitionImage,
    pub(crate) sequence: u64,
    pub(crate) next_index: u64,
    pub(crate) last: Option<FrameMark>,
    pub(crate) hours: Vec<ClosedHour>,
    audit: AuditMark,
    names: Vec<HourName>,
}

/// A snapshot's file that was read, and of whose hours nothing is known yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile(Snapshot);

/// A snapshot as it is stored: its hours first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenSnapshot {
    /// The snapshot's file.
    pub bytes: Vec<u8>,
    /// Every hour that it names, oldest first.
    pub hours: Vec<HourName>,
    /// Those of them that are not stored yet.
    pub new_hours: Vec<HourFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<State> {
    /// Sequence of the last journal message in it.
    sequence: u64,
    /// Index that the next record has.
    next_record_index: u64,
    /// The last frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    frame: Option<FrameMark>,
    audit: AuditBody,
    state: State,
    /// Closed hours whose keys are not in the state.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hours: Vec<HourName>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditBody {
    /// Roots of the perfect subtrees over the entries, the largest first.
    frontier: Vec<Digest>,
    /// Leaf of the last entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_leaf: Option<Digest>,
    /// The journal message that holds the last entry's record.
    journal_sequence: u64,
    /// A signed checkpoint that covers the entries.
    checkpoint: String,
}

/// Why bytes are no snapshot to begin from.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// They are no file of ours, cut, damaged, or of a newer program.
    #[error("the snapshot cannot be read")]
    File(#[from] FileError),
    /// It is another partition's.
    #[error("the snapshot is one of partition {found}")]
    OtherPartition {
        /// Whose it is.
        found: PartitionId,
    },
    /// The frontier is none of a tree with so many entries.
    #[error("the snapshot's audit frontier is no tree of {size} entries")]
    Frontier {
        /// Entries that there must be.
        size: u64,
    },
    /// An hour that it names is not there.
    #[error("the keys of hour {hour}, which the snapshot names, are not there")]
    HourMissing {
        /// Hours since 1970.
        hour: u64,
    },
    /// The file of an hour that it names cannot be read, or is not the one that it names.
    #[error("the keys of hour {hour}, which the snapshot names, cannot be read")]
    Hour {
        /// Hours since 1970.
        hour: u64,
        /// What is wrong with the file.
        #[source]
        source: FileError,
    },
    /// The file of an hour has what its name does not say.
    #[error("the file of hour {hour} has other keys than the snapshot says")]
    OtherHour {
        /// Hours since 1970.
        hour: u64,
    },
}

impl FrozenFold {
    /// Index that the next record has: everything before it must be audited
    /// before this is written.
    #[must_use]
    pub fn next_index(&self) -> u64 {
        self.next_index
    }

    /// Sequence of the last journal message in it.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The position of commands up to which it has consumed.
    #[must_use]
    pub fn position(&self) -> StreamPosition {
        self.partition.position()
    }

    /// What is written of the state. Takes as long as there is state.
    #[must_use]
    pub fn state(&self) -> PartitionImage {
        self.partition.image()
    }

    /// The oldest hour of which this or any later state holds a key.
    #[must_use]
    pub fn first_hour(&self) -> u64 {
        self.partition.first_hour()
    }

    /// Writes it, with what the auditor says of its entries; hours that are
    /// `stored` are only named. Takes as long as there is state.
    ///
    /// # Errors
    ///
    /// The encoder's; no state meets one.
    pub fn encode(
        &self,
        audit: &AuditMark,
        stored: &[HourName],
    ) -> Result<WrittenSnapshot, WireError> {
        let (hours, new_hours) = write_hours(&self.partition, stored)?;
        let state = &self.partition.open_image();
        let at = (self.sequence, self.next_index, self.last);
        let bytes = encode(state, hours.clone(), at, audit)?;
        Ok(WrittenSnapshot { bytes, hours, new_hours })
    }
}

fn encode(
    state: &PartitionImage,
    hours: Vec<HourName>,
    (sequence, next_record_index, frame): (u64, u64, Option<FrameMark>),
    audit: &AuditMark,
) -> Result<Vec<u8>, WireError> {
    let audit = AuditBody {
        frontier: audit.tree.frontier().iter().map(|hash| Digest(hash.0)).collect(),
        last_leaf: audit.last_leaf.map(|hash| Digest(hash.0)),
        journal_sequence: audit.journal_sequence,
        checkpoint: audit.note.clone(),
    };
    let body = Body { sequence, next_record_index, frame, audit, state, hours };
    seal(SNAPSHOT, |bytes| write_named(bytes, &body))
}

impl SnapshotFile {
    /// Reads the file of a snapshot of `partition`.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`], telling apart what is wrong; never panics, on any bytes.
    pub fn decode(partition: PartitionId, bytes: &[u8]) -> Result<Self, SnapshotError> {
        let body: Body<PartitionImage> = read_body(SNAPSHOT, open(SNAPSHOT, bytes)?)?;
        let found = body.state.partition;
        if found != partition {
            return Err(SnapshotError::OtherPartition { found });
        }
        let size = body.next_record_index;
        let frontier = body.audit.frontier.iter().map(|digest| Hash(digest.0)).collect();
        let tree =
            Tree::from_frontier(size, frontier).map_err(|_| SnapshotError::Frontier { size })?;
        let audit = AuditMark {
            tree,
            last_leaf: body.audit.last_leaf.map(|digest| Hash(digest.0)),
            journal_sequence: body.audit.journal_sequence,
            note: body.audit.checkpoint,
        };
        let (sequence, last) = (body.sequence, body.frame);
        let (image, names, hours) = (body.state, body.hours, Vec::new());
        let next_index = size;
        Ok(Self(Snapshot { image, sequence, next_index, last, hours, audit, names }))
    }

    /// The hours that it names, oldest first.
    #[must_use]
    pub fn hours(&self) -> &[HourName] {
        &self.0.names
    }

    /// Sequence of the last journal message in it.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.0.sequence
    }

    /// The position of commands up to which it has consumed.
    #[must_use]
    pub fn position(&self) -> StreamPosition {
        self.0.position()
    }

    /// The snapshot, with the files of the hours that it names.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`] if one is missing, damaged or another one.
    pub fn with_hours(
        self,
        files: &BTreeMap<HourName, impl AsRef<[u8]>>,
    ) -> Result<Snapshot, SnapshotError> {
        let Self(snapshot) = self;
        let hours = read_hours(snapshot.image.partition, &snapshot.names, files)?;
        Ok(Snapshot { hours, ..snapshot })
    }
}

impl Snapshot {
    /// Writes its file again; its hours are stored.
    ///
    /// # Errors
    ///
    /// The encoder's; no state meets one.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        let at = (self.sequence, self.next_index, self.last);
        encode(&self.image, self.names.clone(), at, &self.audit)
    }

    /// Sequence of the last journal message in it.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Index that the next record has.
    #[must_use]
    pub fn next_index(&self) -> u64 {
        self.next_index
    }

    /// The position of commands up to which it has consumed.
    #[must_use]
    pub fn position(&self) -> StreamPosition {
        self.image.position()
    }

    /// The hours that it names, oldest first.
    #[must_use]
    pub fn hours(&self) -> &[HourName] {
        &self.names
    }

    /// The oldest hour of which this or any later state holds a key.
    #[must_use]
    pub fn first_hour(&self) -> u64 {
        let named = self.names.iter().map(|name| name.hour);
        named.chain([self.image.first_hour()]).min().unwrap_or_default()
    }

    /// How its entries are audited.
    #[must_use]
    pub fn audit(&self) -> &AuditMark {
        &self.audit
    }

    /// The plans that its runs need.
    #[must_use]
    pub fn plans(&self) -> BTreeSet<Digest> {
        self.image.plans()
    }

    /// The fold that goes on from it, with the `plans` that it needs.
    ///
    /// # Errors
    ///
    /// [`RestoreError`] if a plan is not at hand, or not that of its run.
    pub fn restore(
        self,
        limits: Limits,
        plans: HashMap<Digest, Arc<Executable>>,
    ) -> Result<JournalFold, RestoreError> {
        JournalFold::restore(self, limits, plans)
    }
}
