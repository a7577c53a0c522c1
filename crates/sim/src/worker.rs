//! A worker process: its clocks, what waits for it, and its seat as an owner.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use fermata_audit::{Checkpoint, Signer, Verifier};
use fermata_core::effect::{Outcome, QueuedAttempt};
use fermata_core::identity::{PartitionId, RunId};
use fermata_core::partition::{Limits, Report};
use fermata_core::run::AttemptReport;
use fermata_partition::auditor::{self, AuditMark, Auditor, AuditorConfig};
use fermata_partition::key_hours::{HourFile, HourName};
use fermata_partition::message::{AppendOutcome, Message, Now};
use fermata_partition::owner::{self, Cause, Owner, OwnerConfig, SaltSource, Undecidable};
use fermata_partition::snapshot::{FrozenFold, Snapshot, SnapshotPolicy};
use fermata_wire::journal::Salt;
use uuid::Uuid;

use crate::broker::StoredSnapshot;
use crate::dice::Dice;
use crate::runner::Runner;
use crate::world::{EPOCH_MS, TaskName};

/// Something that waits for its turn in a worker.
#[derive(Debug)]
pub(crate) enum Work {
    OwnerInput(u64, owner::Input),
    OwnerOutput(u64, owner::Output),
    AuditorInput(u64, auditor::Input),
    AuditorOutput(u64, auditor::Output),
    /// Pull commands, and tell everyone that time has passed.
    Poll(u64),
    /// A message of COMMANDS from the consumer of that number.
    Deliver {
        seat: u64,
        consumer: u64,
        message: Message,
    },
    /// The audit log was read.
    Stored {
        auditor: u64,
        messages: Vec<Message>,
        /// Up to where it was read.
        read_to: u64,
    },
    /// Some of the journal is read again.
    ReadJournal {
        auditor: u64,
        from: u64,
        to: u64,
    },
    LeaseTick,
    TakeOver,
    AttemptDone {
        token: u64,
        outcome: Outcome,
    },
    Report(Report),
    OutcomeAnswered(u64, AppendOutcome),
    CheckpointAnswered(u64, AppendOutcome),
    ReplayAgain {
        seat: u64,
        from: u64,
    },
    PublishOutcome(u64),
    PublishCheckpoint(u64),
    /// A snapshot reaches the object store, behind the hours that it names and
    /// that are not there yet.
    StoreSnapshot(u64, StoredSnapshot, Vec<HourFile>),
    /// Hours before this one are removed.
    RemoveHours(u64),
    /// Everything that the snapshots stand for is purged.
    Purge(u64),
    /// An attempt is published for a named queue.
    Enqueue(Box<QueuedAttempt>),
    /// An attempt of a closing run was taken back from its queue.
    Recalled(AttemptReport),
    /// A task of a queue ended here.
    TaskDone {
        task: u64,
        report: AttemptReport,
    },
    /// The node of this task has its outcome, for its run is closing.
    CancelTask(TaskName),
}

impl Work {
    /// Whether the worker may crash or be paused before it.
    pub(crate) fn is_crash_point(&self) -> bool {
        matches!(
            self,
            Self::OwnerOutput(..)
                | Self::AuditorOutput(..)
                | Self::StoreSnapshot(..)
                | Self::RemoveHours(_)
                | Self::Purge(_)
        )
    }
}

/// A worker process.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Counts its starts.
    pub(crate) generation: u64,
    pub(crate) alive: bool,
    pub(crate) paused: bool,
    pub(crate) queue: VecDeque<Work>,
    pub(crate) seat: Option<Seat>,
    pub(crate) runner: Runner,
    /// What its owners could not decide.
    pub(crate) set_aside: HashMap<Undecidable, Cause>,
    /// The lease as last confirmed, by the own monotonic clock.
    pub(crate) lease_until_ms: u64,
    booted_ms: u64,
    pub(crate) skew_ms: i64,
    /// Where in the queue the tasks are that it knows to be stored.
    pub(crate) published: BTreeMap<TaskName, u64>,
    /// Tasks that its owners want no more.
    pub(crate) forgotten: BTreeSet<TaskName>,
    /// Tasks that it must not begin. A real worker remembers the newest only.
    pub(crate) cancelled: BTreeSet<TaskName>,
}

impl Worker {
    pub(crate) fn new(now_ms: u64, generation: u64) -> Self {
        Self {
            generation,
            alive: true,
            paused: false,
            queue: VecDeque::new(),
            seat: None,
            runner: Runner::default(),
            set_aside: HashMap::new(),
            lease_until_ms: 0,
            booted_ms: now_ms,
            skew_ms: 0,
            published: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            cancelled: BTreeSet::new(),
        }
    }

    /// The worker's clocks when the true time is `now_ms`.
    pub(crate) fn now(&self, now_ms: u64) -> Now {
        Now {
            wall_ms: (EPOCH_MS + now_ms).saturating_add_signed(self.skew_ms),
            // A process may start at any reading of the machine's clock.
            monotonic_ms: 7_000 + now_ms.saturating_sub(self.booted_ms),
        }
    }

    /// Whether the lease, as last confirmed, still allows effects.
    pub(crate) fn is_within_lease(&self, now_ms: u64) -> bool {
        self.now(now_ms).monotonic_ms + owner::LEASE_MARGIN_MS < self.lease_until_ms
    }

    pub(crate) fn seat_of(&mut self, id: u64) -> Option<&mut Seat> {
        self.seat.as_mut().filter(|seat| seat.id == id)
    }

    pub(crate) fn audit_of(&mut self, id: u64) -> Option<&mut Seat> {
        self.seat.as_mut().filter(|seat| seat.auditor_id == id)
    }
}

/// One attempt to own the partition, with its auditor.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) id: u64,
    pub(crate) owner: Owner,
    pub(crate) auditor: Auditor,
    pub(crate) auditor_id: u64,
    /// Where the journal ends as far as this owner was told.
    pub(crate) committed: u64,
    pub(crate) consumer: Option<Consumer>,
    /// The last journal sequence at which states were compared.
    pub(crate) compared: u64,
    pub(crate) checkpoints: CheckpointWriter,
    /// Runs that this owner told to stop.
    pub(crate) aborted: BTreeSet<RunId>,
    /// How often in a row a plan was not found although it is there.
    pub(crate) plan_not_found: u32,
    /// A snapshot that waits for its entries to be audited.
    pub(crate) frozen: Option<Box<FrozenFold>>,
    /// Snapshots that are known to be good, the newest last.
    pub(crate) snapshots: Vec<KnownSnapshot>,
}

/// What an owner remembers of a snapshot that it has read or stored.
#[derive(Debug, Clone)]
pub(crate) struct KnownSnapshot {
    /// Sequence in the journal.
    pub(crate) sequence: u64,
    /// Position in the commands.
    pub(crate) position: u64,
    pub(crate) hours: Vec<HourName>,
    pub(crate) first_hour: u64,
}

/// The consumer of COMMANDS that belongs to an epoch.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) number: u64,
    pub(crate) next: u64,
}

/// Publishes checkpoints fenced, one at a time, the newest first: a writer that
/// was paused must not put an older checkpoint behind a newer one.
#[derive(Debug, Default)]
pub(crate) struct CheckpointWriter {
    pub(crate) expected: u64,
    /// Entries that the stream's last checkpoint covers, as far as known.
    covered: u64,
    pub(crate) in_flight: Option<Note>,
    pub(crate) waiting: Option<Note>,
}

/// A signed checkpoint.
#[derive(Debug, Clone)]
pub(crate) struct Note {
    pub(crate) text: Bytes,
    pub(crate) size: u64,
}

impl CheckpointWriter {
    /// Notes that the stream ends at `last` with a checkpoint over `size` entries.
    pub(crate) fn learn(&mut self, last: u64, size: u64) {
        self.expected = last;
        self.covered = self.covered.max(size);
    }

    /// Takes the next one up, if nothing is in flight; what covers no more than
    /// the stream's last is dropped.
    pub(crate) fn next(&mut self) -> Option<(u64, Bytes)> {
        let covered = self.covered;
        let next = self.in_flight.take().filter(|note| note.size > covered);
        self.in_flight = next.or_else(|| self.waiting.take().filter(|note| note.size > covered));
        self.in_flight.as_ref().map(|note| (self.expected, note.text.clone()))
    }
}

/// Salts of a simulation: as unpredictable as its seed. One is drawn for each
/// record, so here is also where a decision fails by a fault of the program.
pub(crate) struct SeededSalts {
    pub(crate) dice: Dice,
    /// In thousandths of the records.
    pub(crate) panics: Arc<AtomicU32>,
}

impl SaltSource for SeededSalts {
    fn salt(&mut self) -> Salt {
        if self.dice.chance(self.panics.load(Ordering::Relaxed)) {
            // A panic that tells nobody on the terminal.
            std::panic::resume_unwind(Box::new("a fault of the program"));
        }
        self.dice.bytes16()
    }
}

/// What every seat of a simulation shares.
pub(crate) struct SeatConfig<'a> {
    pub(crate) partition: PartitionId,
    pub(crate) limits: Limits,
    pub(crate) signer: Signer,
    pub(crate) verifier: &'a Verifier,
    pub(crate) checkpoints: &'a [Message],
    pub(crate) panics: Arc<AtomicU32>,
    pub(crate) snapshots: SnapshotPolicy,
}

impl Seat {
    /// A new attempt by `worker`; its first outputs are added to `outputs`.
    pub(crate) fn new(
        ids: (u64, u64),
        worker: usize,
        process: &Worker,
        config: SeatConfig<'_>,
        snapshot: Option<Box<Snapshot>>,
        dice: &mut Dice,
        outputs: &mut Vec<owner::Output>,
    ) -> Self {
        let incarnation = Uuid::from_bytes(dice.bytes16());
        let behind = snapshot.as_ref().map(|snapshot| snapshot.audit().clone());
        let checkpoint = newest_checkpoint(&config, behind.as_ref());
        let known = snapshot.iter().map(|snapshot| KnownSnapshot {
            sequence: snapshot.sequence(),
            position: snapshot.position().sequence,
            hours: snapshot.hours().to_vec(),
            first_hour: snapshot.first_hour(),
        });
        let known = known.collect();
        let begins_behind = snapshot.as_ref().map_or(0, |snapshot| snapshot.sequence());
        let owner = OwnerConfig {
            partition: config.partition,
            limits: config.limits,
            worker: format!("worker-{worker}").into(),
            incarnation,
            salts: Box::new(SeededSalts {
                dice: Dice::new(dice.next()),
                panics: config.panics.clone(),
            }),
            live: process.runner.live(),
            set_aside: process.set_aside.clone(),
            signed_records: checkpoint.as_ref().map_or(0, Checkpoint::size),
            snapshot,
            snapshots: config.snapshots,
        };
        let (id, auditor_id) = ids;
        let expected = config.checkpoints.len() as u64;
        Self {
            id,
            owner: Owner::new(owner, outputs),
            auditor: auditor_of(auditor_id, config, behind, dice),
            auditor_id,
            committed: begins_behind,
            consumer: None,
            compared: 0,
            checkpoints: CheckpointWriter { expected, ..CheckpointWriter::default() },
            aborted: BTreeSet::new(),
            plan_not_found: 0,
            frozen: None,
            snapshots: known,
        }
    }

    /// The older of the two newest snapshots that are known to be good.
    pub(crate) fn older_snapshot(&self) -> Option<&KnownSnapshot> {
        self.snapshots.iter().rev().nth(1)
    }
}

/// An auditor that begins from the newest stored checkpoint, with room for a
/// few entries, for some more, or for all that there can be.
fn auditor_of(
    id: u64,
    config: SeatConfig<'_>,
    behind: Option<AuditMark>,
    dice: &mut Dice,
) -> Auditor {
    let backlog_bytes_max = match dice.below(3) {
        0 => 500,
        1 => 4_000,
        _ => auditor::BACKLOG_BYTES_MAX,
    };
    let checkpoint = newest_checkpoint(&config, behind.as_ref());
    Auditor::new(AuditorConfig {
        origin: crate::world::ORIGIN.to_owned(),
        signer: config.signer,
        writer: format!("auditor-{id}"),
        checkpoint,
        backlog_bytes_max,
        behind,
    })
}

/// The larger one of what the stream holds and what the snapshot brought.
fn newest_checkpoint(config: &SeatConfig<'_>, behind: Option<&AuditMark>) -> Option<Checkpoint> {
    let stored = config.checkpoints.last().map(|message| &*message.payload);
    let brought = behind.map(|mark| mark.note.as_bytes());
    let verifiers = std::slice::from_ref(config.verifier);
    let notes = stored.into_iter().chain(brought);
    let read = notes.filter_map(|note| Checkpoint::open(note, verifiers).ok());
    read.max_by_key(Checkpoint::size)
}
