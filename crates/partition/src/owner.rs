//! The owner of a partition: takeover, decisions ahead of the append, group
//! commit, effects after commit (DESIGN decisions 4 to 10).
//!
//! ```text
//! Replaying ─end reached─► Claiming ─Owned stored─► Owning ─► (stood down | halted)
//!     ▲                        │
//!     └──── another was first ─┘
//! ```
//!
//! While one append is in flight the owner goes on deciding on speculative
//! state; what it decides meanwhile becomes the next frame. Replies, effects
//! and acknowledgements wait for the append of the frame that orders them. When
//! an append is lost to another writer, the owner is dropped as a whole.

mod claim;
mod commit;
mod intake;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use fermata_core::digest::Digest;
use fermata_core::effect::{Effect, EffectKey};
use fermata_core::identity::{PartitionId, StreamPosition};
use fermata_core::partition::{Decision, Limits, Outstanding, Partition, Report};
use fermata_core::plan::Executable;
use fermata_wire::journal::Salt;
use uuid::Uuid;

use crate::append::{FencedAppend, ReadAnswer, Send};
use crate::clock::JournalClock;
use crate::fold::{FoldError, JournalFold};
use crate::message::{AppendOutcome, Message, Now};

/// Bytes of records in the open frame above which no further command message
/// is taken: one message of commands and its decisions still fit the broker's
/// 1 MiB.
pub const FRAME_BYTES_TARGET: usize = 128 * 1024;

/// Command messages held while the frame is full or a plan is fetched. Above
/// it [`Owner::wants_commands`] is false and the shell stops pulling.
pub const COMMANDS_HELD_MAX: usize = 64;

/// How long before the end of its lease an owner stops starting effects without
/// another acknowledged append, milliseconds.
pub const LEASE_MARGIN_MS: u64 = 5_000;

/// Draws the salts that hide payloads behind their commitments.
pub trait SaltSource: std::marker::Send + Sync {
    /// 16 bytes that nobody can predict.
    fn salt(&mut self) -> Salt;
}

/// What an owner is made of.
pub struct OwnerConfig {
    /// The partition.
    pub partition: PartitionId,
    /// Its bounds.
    pub limits: Limits,
    /// The worker's name, for the record.
    pub worker: Arc<str>,
    /// 128 random bits, new for each attempt to take over.
    pub incarnation: Uuid,
    /// Where salts come from.
    pub salts: Box<dyn SaltSource>,
    /// Attempts that this process still works on, or holds results of: they
    /// are adopted instead of ordered again.
    pub live: HashSet<(EffectKey, u32)>,
    /// Commands that made a decision panic before: consumed unread. With
    /// [`WHOLE_MESSAGE`] as their place, all commands of a message.
    pub poison: HashSet<(u64, u32)>,
    /// Records that are signed: a journal with fewer has lost some.
    pub signed_records: u64,
}

/// Stands for every place in a message of commands.
pub const WHOLE_MESSAGE: u32 = u32::MAX;

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
    /// The answer to [`Output::FetchPlan`]; `None` when there is no such plan.
    Plan(Digest, Option<Arc<Executable>>),
    /// The lease was confirmed until this time of the monotonic clock, milliseconds.
    LeaseUntil(u64),
    /// Time has passed.
    Tick,
}

/// What an owner wants done.
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
    /// [`Input::BrokerTime`]; no answer does no harm.
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
    /// Another owner has taken over, or this one cannot go on: drop it, and
    /// take over again if the lease still says so.
    StandDown(StandDown),
    /// The journal or the commands cannot be trusted: stop and tell a person.
    Halt(HaltReason),
}

/// Why an owner gives up what it has not committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StandDown {
    /// Another writer appended first.
    Fenced {
        /// Its tag.
        by: String,
    },
    /// A decision panicked; after the replay this command is consumed unread.
    Panicked {
        /// Sequence in COMMANDS.
        sequence: u64,
        /// Place in the frame.
        index: u32,
        /// What the panic said.
        detail: String,
    },
    /// A frame could not be encoded within the size cap.
    FrameTooLarge {
        /// Sequence in COMMANDS of the last message in it.
        sequence: u64,
    },
    /// The journal ends before what was acknowledged.
    Truncated {
        /// Where it ends.
        last_sequence: u64,
    },
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
    /// A plan that the journal needs does not exist.
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
}

/// One attempt to own a partition.
pub struct Owner {
    config: OwnerConfig,
    phase: Phase,
    fold: JournalFold,
    clock: JournalClock,
    append: FencedAppend,
    frames_written: u64,
    open: Option<OpenFrame>,
    builder: fermata_wire::journal::FrameBuilder,
    decision: Decision,
    in_flight_effects: Vec<Effect>,
    gated: Vec<Effect>,
    in_flight_gated: Vec<Effect>,
    in_flight_frame: Option<Bytes>,
    in_flight_reports: Vec<Report>,
    open_reports: Vec<Report>,
    /// Came before the takeover was stored, or found no room in the frame.
    reports_waiting: VecDeque<Report>,
    /// Where COMMANDS ended at the takeover.
    commands_end: Option<u64>,
    lease_until_ms: u64,
    journal_waiting: VecDeque<Message>,
    journal_end: Option<u64>,
    commands_waiting: VecDeque<intake::CommandMessage>,
    commands_last: u64,
    plan_awaited: Option<Digest>,
    plans_missing: HashSet<Digest>,
    lost: VecDeque<Outstanding>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Replaying,
    Claiming,
    Owning,
    Ended,
}

/// The frame that decisions go into now.
#[derive(Debug, Clone, Copy)]
struct OpenFrame {
    time: fermata_core::identity::JournalTime,
    first_record_index: u64,
    moved: bool,
}

impl std::fmt::Debug for Owner {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Owner")
            .field("partition", &self.config.partition)
            .field("incarnation", &self.config.incarnation)
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

impl Owner {
    /// An owner that has read nothing yet; its first output asks for a replay.
    #[must_use]
    pub fn new(config: OwnerConfig, outputs: &mut Vec<Output>) -> Self {
        outputs.push(Output::Replay { from: 1 });
        Self {
            fold: JournalFold::new(config.partition, config.limits),
            config,
            phase: Phase::Replaying,
            clock: JournalClock::default(),
            append: FencedAppend::new(0),
            frames_written: 0,
            open: None,
            builder: fermata_wire::journal::FrameBuilder::default(),
            decision: Decision::default(),
            in_flight_effects: Vec::new(),
            gated: Vec::new(),
            in_flight_gated: Vec::new(),
            in_flight_frame: None,
            in_flight_reports: Vec::new(),
            open_reports: Vec::new(),
            reports_waiting: VecDeque::new(),
            commands_end: None,
            lease_until_ms: 0,
            journal_waiting: VecDeque::new(),
            journal_end: None,
            commands_waiting: VecDeque::new(),
            commands_last: 0,
            plan_awaited: None,
            plans_missing: HashSet::new(),
            lost: VecDeque::new(),
        }
    }

    /// The state, speculative while an append is in flight.
    #[must_use]
    pub fn partition(&self) -> &Partition {
        self.fold.partition()
    }

    /// Whether this owner has taken the partition over and still holds it.
    #[must_use]
    pub fn is_owning(&self) -> bool {
        self.phase == Phase::Owning
    }

    /// Whether another command message can be taken now.
    #[must_use]
    pub fn wants_commands(&self) -> bool {
        self.phase == Phase::Owning && self.commands_waiting.len() < COMMANDS_HELD_MAX
    }

    /// Whether everything decided is committed and nothing waits.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        !self.append.is_busy() && self.open.is_none() && self.commands_waiting.is_empty()
    }

    /// How far the own wall clock is from the broker's, milliseconds.
    #[must_use]
    pub fn skew_ms(&self, now: Now) -> Option<i64> {
        self.clock.skew_ms(now)
    }

    /// Takes one input; what is to be done is added to `outputs`, in order.
    pub fn handle(&mut self, input: Input, now: Now, outputs: &mut Vec<Output>) {
        if self.phase == Phase::Ended {
            return;
        }
        match input {
            Input::Journal(message) => {
                self.journal_waiting.push_back(message);
                self.replay(now, outputs);
            }
            Input::JournalEnd { last_sequence } => {
                self.journal_end = Some(last_sequence);
                self.replay(now, outputs);
            }
            Input::Appended(outcome) => {
                let step = self.append.on_outcome(outcome);
                self.follow(step, now, outputs);
            }
            Input::Read(answer) => {
                if let ReadAnswer::Found(message) = &answer {
                    self.clock.see(message.broker_time_ns, now);
                }
                let step = self.append.on_read(answer);
                self.follow(step, now, outputs);
            }
            Input::Commands(message) => self.take_commands(message, now, outputs),
            Input::Report(report) => self.reports_waiting.push_back(report),
            Input::CommandsEnd { last_sequence } => {
                self.commands_end.get_or_insert(last_sequence);
            }
            Input::Plan(digest, plan) => self.take_plan(digest, plan, now, outputs),
            Input::LeaseUntil(until_ms) => self.lease_until_ms = self.lease_until_ms.max(until_ms),
            Input::BrokerTime(broker_time_ns) => self.clock.see(broker_time_ns, now),
            Input::Tick => {}
        }
        self.work(now, outputs);
    }

    /// Reports that were taken and are not committed: when this owner ends,
    /// they are the next one's to take.
    pub fn take_uncommitted_reports(&mut self) -> Vec<Report> {
        let mut reports = std::mem::take(&mut self.in_flight_reports);
        reports.append(&mut self.open_reports);
        reports.extend(self.reports_waiting.drain(..));
        reports
    }

    /// Takes several reports at once: they share a frame.
    pub fn handle_reports(
        &mut self,
        reports: impl IntoIterator<Item = Report>,
        now: Now,
        outputs: &mut Vec<Output>,
    ) {
        self.reports_waiting.extend(reports);
        self.work(now, outputs);
    }

    /// Does what can be done now: decides what waits, commits what is decided.
    fn work(&mut self, now: Now, outputs: &mut Vec<Output>) {
        if self.phase != Phase::Owning {
            return;
        }
        self.decide_waiting(now, outputs);
        self.commit(now, outputs);
    }

    fn stand_down(&mut self, reason: StandDown, outputs: &mut Vec<Output>) {
        self.phase = Phase::Ended;
        outputs.push(Output::StandDown(reason));
    }

    fn halt(&mut self, reason: HaltReason, outputs: &mut Vec<Output>) {
        self.phase = Phase::Ended;
        outputs.push(Output::Halt(reason));
    }
}
