//! What an owner is told, and what it wants done.

use std::sync::Arc;

use bytes::Bytes;
use fermata_core::digest::Digest;
use fermata_core::effect::Effect;
use fermata_core::identity::{PartitionId, RunId, StreamPosition};
use fermata_core::partition::Report;
use fermata_core::plan::Executable;
use fermata_wire::WireError;

use super::outbox::Relay;
use crate::append::{ReadAnswer, Send};
use crate::fold::FoldError;
use crate::message::{AppendOutcome, Message};
use crate::snapshot::FrozenFold;

/// What an owner is told.
#[derive(Debug)]
pub enum Input {
    /// The next message of the journal, while replaying.
    Journal(Message),
    /// The journal ended here when it was read to its end.
    JournalEnd {
        /// Its last sequence.
        last_sequence: u64,
    },
    /// What became of the append.
    Appended(AppendOutcome),
    /// The answer to [`Output::ReadJournal`].
    Read(ReadAnswer),
    /// The next message of the partition's COMMANDS stream.
    Commands(Message),
    /// COMMANDS ended here when it was asked after the takeover: what was lost
    /// with the last owner is ordered again only once all of that is decided.
    CommandsEnd {
        /// Its last sequence.
        last_sequence: u64,
    },
    /// The answer to [`Output::ReadTime`].
    BrokerTime(i64),
    /// Something came back from inside the process.
    Report(Report),
    /// The answer to [`Output::FetchPlan`]; `None` when there is no such plan,
    /// or when a read says so that is behind: the owner asks again.
    Plan(Digest, Option<Arc<Executable>>),
    /// The lease was confirmed until this time of the monotonic clock, milliseconds.
    LeaseUntil(u64),
    /// Time has passed.
    Tick,
    /// Take a snapshot with the next frame, whether one is due or not.
    Snapshot,
    /// The snapshot of [`Output::Snapshot`] is stored, or came to nothing.
    SnapshotEnded,
    /// The owner is about to leave: from here on it orders no attempt, so that
    /// those under way come to an end. It goes on deciding everything else.
    Settle,
    /// What became of [`Output::Relay`].
    Relayed {
        /// Its target.
        target: PartitionId,
        /// Index of its last command.
        up_to: u64,
        /// Whether the target's COMMANDS holds it.
        outcome: AppendOutcome,
    },
}

/// What an owner wants done, in order. Nothing follows [`Self::StandDown`] or
/// [`Self::Halt`]: what it asked for before is no longer waited for.
#[derive(Debug)]
pub enum Output {
    /// Append to the journal and answer with [`Input::Appended`].
    Append(Send),
    /// The same after a short pause.
    AppendLater(Send),
    /// Read this journal message and answer with [`Input::Read`].
    ReadJournal {
        /// Its sequence.
        sequence: u64,
        /// Whether to pause first.
        later: bool,
    },
    /// Read when the broker stored this journal message, and answer with
    /// [`Input::BrokerTime`]. Until it is answered, or commands come, journal
    /// time lags by how long the partition had no owner.
    ReadTime {
        /// Its sequence.
        sequence: u64,
    },
    /// Replay the journal from this sequence: [`Input::Journal`] for each
    /// message, then [`Input::JournalEnd`].
    Replay {
        /// The first sequence.
        from: u64,
    },
    /// Fetch a plan and answer with [`Input::Plan`].
    FetchPlan(Digest),
    /// The partition is owned: answer with [`Input::CommandsEnd`], and consume
    /// commands behind this position, after checking that the stream holds it.
    Consume {
        /// The recorded position.
        position: StreamPosition,
        /// Epoch of the owner.
        epoch: u64,
    },
    /// The commands are not contiguous: make the consumer again behind this sequence.
    ConsumeAgain {
        /// The last sequence taken.
        after: u64,
    },
    /// Do this; the record that orders it is durable.
    Effect(Effect),
    /// A frame is durable, by this owner or before it.
    Committed {
        /// Its sequence.
        sequence: u64,
        /// The message's bytes; `None` for a foreign message.
        frame: Option<Bytes>,
    },
    /// Write this snapshot when its entries are audited, store it, and answer
    /// with [`Input::SnapshotEnded`], also when it came to nothing.
    Snapshot(Box<FrozenFold>),
    /// Another owner has taken over, or this one cannot go on: drop it, and
    /// take over again if the lease still says so.
    StandDown(StandDown),
    /// The journal or the commands cannot be trusted: stop and tell a person.
    Halt(HaltReason),
    /// Publish commands to another partition and answer with [`Input::Relayed`].
    Relay(Relay),
    /// The same after a short pause: it is not known to be stored.
    RelayLater(Relay),
}

/// Why an owner gives up what it has not committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StandDown {
    /// Another writer appended first.
    Fenced {
        /// Its tag.
        by: String,
    },
    /// Something cannot be decided. The next owner must be told by
    /// [`OwnerConfig::set_aside`](super::OwnerConfig), or it will try again.
    Undecidable {
        /// What.
        what: Undecidable,
        /// Why.
        cause: Cause,
    },
    /// The journal ends before what was acknowledged.
    Truncated {
        /// Where it ends.
        last_sequence: u64,
    },
    /// The snapshot is no state: begin from another one.
    SnapshotUnusable {
        /// Sequence of the last journal message in it.
        sequence: u64,
        /// Why.
        detail: String,
    },
}

/// What could not be decided, as narrow as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Undecidable {
    /// A command; the next owner consumes it unread, as `command.poisoned`.
    Command {
        /// Sequence in COMMANDS.
        sequence: u64,
        /// Place in the message.
        index: u32,
    },
    /// A message of commands, whose decisions stand in one journal message
    /// together; the next owner consumes it unread, by one record.
    Message {
        /// Sequence in COMMANDS.
        sequence: u64,
    },
    /// An outcome, a timer or the going on of a run; the next owner quarantines
    /// the run when it comes to decide about it.
    Run(RunId),
}

/// Why something could not be decided.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The decision panicked, or what it decided cannot be encoded.
    #[error("deciding it panicked: {0}")]
    Panicked(String),
    /// The records of this decision alone exceed a frame.
    #[error("its records take {bytes} bytes, more than a journal message holds")]
    TooLarge {
        /// What they take.
        bytes: usize,
    },
}

impl Cause {
    /// Stable reason code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Panicked(_) => "decision_panicked",
            Self::TooLarge { .. } => "decision_too_large",
        }
    }
}

/// Why a partition stops until a person looks.
#[derive(Debug, thiserror::Error)]
pub enum HaltReason {
    /// The journal cannot be folded.
    #[error("the journal cannot be folded")]
    Journal(#[from] FoldError),
    /// The journal holds fewer records than were signed.
    #[error("the journal holds {found} records, {signed} were signed; records are gone")]
    RecordsGone {
        /// Records that the newest checkpoint covers.
        signed: u64,
        /// Records that are there.
        found: u64,
    },
    /// A plan that the journal needs was not found, however often it was asked for.
    #[error("plan {0}, which the journal needs, cannot be found")]
    PlanMissing(Digest),
    /// The journal ends before what this process read from it.
    #[error("the journal ends at {found}, {expected} messages were read from it")]
    JournalCut {
        /// What was read.
        expected: u64,
        /// Where it ends.
        found: u64,
    },
    /// A decision failed that is about no command and no run: trying again
    /// would fail again, and there is nothing to set aside.
    #[error("{during} failed")]
    Failed {
        /// What was under way.
        during: &'static str,
        /// Why.
        #[source]
        cause: Cause,
    },
    /// A frame within the bounds cannot be written.
    #[error("a frame cannot be written")]
    Unwritable(#[source] WireError),
}
