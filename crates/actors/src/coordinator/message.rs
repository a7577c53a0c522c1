//! What a coordinator is told, and what comes back of what it asked for.

use std::sync::Arc;

use fermata_core::digest::Digest;
use fermata_core::identity::PartitionId;
use fermata_core::partition::Report;
use fermata_core::plan::Executable;
use fermata_jetstream::StoredMessage;
use fermata_partition::append::ReadAnswer;
use fermata_partition::auditor::AuditMark;
use fermata_partition::message::AppendOutcome;
use fermata_partition::snapshot::Snapshot;
use ractor::{ActorId, RpcReplyPort};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{KnownSnapshot, PartitionStatus, PendingCase};
use crate::uncommitted_reports::UncommittedReports;

/// What a coordinator is told.
#[derive(Debug)]
pub enum CoordinatorMessage {
    /// Try to own the partition; sent by the coordinator to itself.
    Take,
    /// Messages of the journal while replaying, and who waits to send more.
    Journal(u64, Vec<StoredMessage>, oneshot::Sender<()>),
    /// Messages of COMMANDS, and who waits to send more.
    Commands(u64, Vec<StoredMessage>, oneshot::Sender<()>),
    /// Something asked for came back; the number tells old answers from new.
    Answer(u64, Answer),
    /// Outcomes from this process.
    Reports(UncommittedReports),
    /// A case's handler or the filing of a dead letter came to its end. When
    /// this is lost, the next owner orders it again.
    Handled(Report),
    /// The handler of a case failed a while ago: spawn it again, unless the
    /// owner of this number has gone.
    TellAgain(u64, PendingCase),
    /// The lease holds until this time of the monotonic clock, milliseconds.
    LeaseUntil(u64),
    /// The audit log cannot be trusted: the partition stops. The number is that
    /// of the attempt to own that the auditor worked for.
    AuditHalted(u64, String),
    /// Another auditor goes on with the log: so does another owner. The number
    /// is that of the attempt to own that the auditor worked for.
    AuditLost(u64),
    /// The entries before a snapshot's end are stored and signed. The number is
    /// that of the attempt to own that the auditor worked for.
    Marked(u64, Box<AuditMark>),
    /// The auditor takes another frame; the number is that of the attempt to own.
    AuditorTakes(u64, OwnedSemaphorePermit),
    /// Time has passed, or something is due.
    Tick,
    /// Give the partition back: answers when nothing is in flight any more.
    Drain(RpcReplyPort<()>),
    /// Says how it stands.
    Status(RpcReplyPort<PartitionStatus>),
    /// The partition will be given away: order no further attempt, and answer
    /// when every one that was ordered is with the runner.
    Settle(RpcReplyPort<()>),
    /// The handler of a case has told of it on its subject, and goes on with
    /// targets that may take long: another one may begin.
    Told(ActorId),
}

/// What a coordinator asked for.
#[derive(Debug)]
pub enum Answer {
    /// The auditor has begun anew: how many records are signed and what the owner
    /// begins from, or why nothing can be trusted.
    AuditBegun(Result<(u64, Option<Box<Snapshot>>), String>),
    /// The journal was read to its end.
    JournalEnd(u64),
    /// What became of the append.
    Appended(AppendOutcome),
    /// What stands behind the fence.
    Read(ReadAnswer),
    /// A plan, or why it cannot be used.
    Plan(Digest, Result<Arc<Executable>, String>),
    /// Where the commands ended after the takeover.
    CommandsEnd(u64),
    /// When the broker stored the takeover, if it could be read.
    BrokerTime(Option<i64>),
    /// The commands cannot be trusted: the partition stops.
    CommandsHalted(String),
    /// A snapshot is stored, or came to nothing.
    SnapshotEnded(Option<KnownSnapshot>),
    /// The journal lacks what is to be replayed: it is lost, or was purged by an
    /// owner that came later.
    JournalMissing(String),
    /// The same of the commands.
    CommandsMissing(String),
    /// Whether a partition's COMMANDS holds what was sent to it, up to an index.
    Relayed(PartitionId, u64, AppendOutcome),
}
