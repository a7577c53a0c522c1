//! The owner of a partition: takeover, decisions ahead of the append, group
//! commit, effects after commit (ADRs 4 to 9).
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
mod io;
mod outbox;
mod plans;
mod snapshots;
mod turn;
mod unit;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use fermata_core::effect::{Effect, EffectKey};
use fermata_core::identity::{JournalTime, PartitionId};
use fermata_core::partition::{Decision, Limits, Outstanding, Partition, Report, Untold};
use fermata_wire::journal::{FrameBuilder, Salt};
use uuid::Uuid;

use crate::append::{FencedAppend, ReadAnswer};
use crate::clock::JournalClock;
use crate::fold::JournalFold;
use crate::message::{Message, Now};
use crate::snapshot::{FrozenFold, Snapshot, SnapshotPolicy};

pub use io::{Cause, HaltReason, Input, Output, StandDown, Undecidable};
pub use outbox::{RELAY_BYTES_TARGET, RELAY_COMMANDS_MAX, Relay};
pub use plans::{PLAN_AGAIN_MS, PLAN_ASKED_MAX, PLAN_MISSING_MS};
pub use turn::{RECORDS_WITHOUT_COMMANDS_MAX, REPORTS_WAITING_MAX, TURN_RECORDS};

/// Bytes of records in the open frame above which nothing further is decided
/// into it. What goes beyond `Limits::frame_bytes_max` all the same is put into
/// a frame of its own.
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
    /// What earlier owners could not decide ([`StandDown::Undecidable`]):
    /// commands are consumed unread, runs quarantined.
    pub set_aside: HashMap<Undecidable, Cause>,
    /// Records that are signed: a journal with fewer has lost some.
    pub signed_records: u64,
    /// Where to begin instead of at the journal's beginning.
    pub snapshot: Option<Box<Snapshot>>,
    /// When snapshots are due.
    pub snapshots: SnapshotPolicy,
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
    builder: FrameBuilder,
    decision: Decision,
    open_reports: Vec<Report>,
    /// Frames that are complete and wait for the append before them: what a
    /// decision that found no room in the open frame has pushed out of it.
    closed: VecDeque<ClosedFrame>,
    in_flight: Option<ClosedFrame>,
    /// Wait for one more acknowledged append, in order.
    gated: Vec<Effect>,
    /// Wait for the append that is in flight.
    in_flight_gated: Vec<Effect>,
    turn: turn::Turn,
    /// Came before the takeover was stored, or found no room in the frame.
    reports_waiting: VecDeque<Report>,
    /// Where COMMANDS ended at the takeover.
    commands_end: Option<u64>,
    /// Reports that waited when that was known, and still do.
    reports_ahead: usize,
    lease_until_ms: u64,
    /// When the takeover was sent to the journal, by the monotonic clock.
    claimed_at_ms: u64,
    journal_waiting: VecDeque<Message>,
    journal_end: Option<u64>,
    commands_waiting: VecDeque<intake::CommandMessage>,
    commands_last: u64,
    plans: plans::WantedPlans,
    /// Attempts that nobody works on any more.
    lost: VecDeque<Outstanding>,
    /// What people were not told of.
    untold: VecDeque<Untold>,
    snapshots: snapshots::Snapshots,
    /// Whether no further attempt is ordered.
    settling: bool,
    sending: outbox::Sending,
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
    time: JournalTime,
    first_record_index: u64,
    moved: bool,
}

/// A complete frame, and what waits for its append.
#[derive(Debug)]
struct ClosedFrame {
    writer: String,
    bytes: bytes::Bytes,
    effects: Vec<Effect>,
    reports: Vec<Report>,
    /// The state at its end, if a snapshot is due there.
    frozen: Option<Box<FrozenFold>>,
    /// Index of the last command to another partition in it or before it.
    outbox_last: u64,
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
    /// An owner that has read nothing yet; its first output asks for a replay,
    /// or for a plan that its snapshot needs.
    #[must_use]
    pub fn new(mut config: OwnerConfig, outputs: &mut Vec<Output>) -> Self {
        let restoring = config.snapshot.take();
        let mut owner = Self {
            fold: JournalFold::new(config.partition, config.limits),
            config,
            phase: Phase::Replaying,
            clock: JournalClock::default(),
            append: FencedAppend::new(0),
            frames_written: 0,
            open: None,
            builder: FrameBuilder::default(),
            decision: Decision::default(),
            open_reports: Vec::new(),
            closed: VecDeque::new(),
            in_flight: None,
            gated: Vec::new(),
            in_flight_gated: Vec::new(),
            turn: turn::Turn::default(),
            reports_waiting: VecDeque::new(),
            commands_end: None,
            reports_ahead: 0,
            lease_until_ms: 0,
            claimed_at_ms: 0,
            journal_waiting: VecDeque::new(),
            journal_end: None,
            commands_waiting: VecDeque::new(),
            commands_last: 0,
            plans: plans::WantedPlans::default(),
            lost: VecDeque::new(),
            untold: VecDeque::new(),
            settling: false,
            snapshots: snapshots::Snapshots::begin_from(restoring),
            sending: outbox::Sending::default(),
        };
        if owner.restore(outputs) {
            outputs.push(Output::Replay { from: 1 });
        }
        owner
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

    /// How many records were folded, those decided and not committed included.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.fold.next_index()
    }

    /// Whether another command message can be taken now.
    #[must_use]
    pub fn wants_commands(&self) -> bool {
        self.phase == Phase::Owning && self.commands_waiting.len() < COMMANDS_HELD_MAX
    }

    /// Whether further messages of the journal can be taken now: while a plan is
    /// fetched, those that come are only kept.
    #[must_use]
    pub fn wants_journal(&self) -> bool {
        self.phase == Phase::Replaying && !self.plans.is_awaited()
    }

    /// Whether everything decided is committed and no command waits. Reports may:
    /// they are carried over.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        !self.append.is_busy()
            && self.open.is_none()
            && self.closed.is_empty()
            && self.commands_waiting.is_empty()
    }

    /// Whether every attempt that was ordered has been handed out.
    #[must_use]
    pub fn has_handed_out(&self) -> bool {
        !self.append.is_busy()
            && self.open.is_none()
            && self.closed.is_empty()
            && !self.holds_gated()
    }

    /// Whether something waits for one more acknowledged append.
    #[must_use]
    pub fn holds_gated(&self) -> bool {
        !self.gated.is_empty() || !self.in_flight_gated.is_empty()
    }

    /// In how many milliseconds this owner should be told [`Input::Tick`],
    /// because a timer can fire then; `None` when an answer that it waits for
    /// comes first, or nothing is due.
    #[must_use]
    pub fn wakes_in_ms(&self, now: Now) -> Option<u64> {
        if !self.has_room() {
            return None;
        }
        let due = self.fold.partition().next_due()?;
        // Into a frame that is open already only what was due at its time goes;
        // it is open because the append before it has no answer yet.
        match self.open {
            Some(open) if due > open.time => None,
            Some(_) | None => Some(self.clock.reaches_in_ms(due, now)),
        }
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
                if self.commands_end.is_none() {
                    self.commands_end = Some(last_sequence);
                    self.reports_ahead = self.reports_waiting.len();
                }
            }
            Input::Plan(digest, plan) => self.take_plan(digest, plan, now, outputs),
            Input::LeaseUntil(until_ms) => self.lease_until_ms = self.lease_until_ms.max(until_ms),
            Input::BrokerTime(broker_time_ns) => {
                self.clock.see_answer(broker_time_ns, self.claimed_at_ms, now);
            }
            Input::Relayed { target, up_to, outcome } => {
                self.relayed(target, up_to, outcome, outputs);
            }
            Input::Tick => {}
            Input::Snapshot => self.ask_for_snapshot(),
            Input::SnapshotEnded => self.snapshot_ended(),
            Input::Settle => {
                self.settling = true;
                self.fold.partition_mut().settle();
            }
        }
        self.ask_for_plan_again(now, outputs);
        self.work(now, outputs);
    }

    /// Reports that were taken and are not committed: when this owner ends,
    /// they are the next one's to take.
    pub fn take_uncommitted_reports(&mut self) -> Vec<Report> {
        let frames = self.in_flight.iter_mut().chain(&mut self.closed);
        let mut reports =
            frames.flat_map(|frame| std::mem::take(&mut frame.reports)).collect::<Vec<_>>();
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
        // What found no room before, or is due only now, goes into the next frame.
        while self.commit(now, outputs) {
            self.decide_waiting(now, outputs);
        }
        self.send_relays(outputs);
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
