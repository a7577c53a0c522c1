//! One partition: many runs, their keys, cases, timers and time.
//!
//! [`Partition::evolve`] folds one record and is the only thing that changes
//! the state; the `decide_*` functions ask "what is to be recorded now" and
//! fold each record as they go, so that a later step of the same decision sees
//! the earlier ones. Folding what a decision recorded onto the state before it
//! gives the state after it: replay and live state agree by construction, and
//! a property test holds the construction to it.
//!
//! The owner of a partition decides ahead of its append: everything here is
//! speculative until the frame with the records is acknowledged, and is dropped
//! as a whole when it is not.

mod cases;
mod closed_hours;
mod complete;
mod contracts;
mod correlation;
#[cfg(test)]
mod dead_event_tests;
mod dead_events;
mod decide;
mod define;
mod define_in_parts;
mod evolve;
mod held_back;
mod keys;
mod limits;
mod orphan;
mod outbox;
mod progress;
mod queue_room;
#[cfg(test)]
mod queue_room_tests;
#[cfg(test)]
mod queue_tests;
mod recover;
mod resolve;
#[cfg(test)]
mod resolve_tests;
mod retire;
mod runs;
mod seen;
mod snapshot;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod timers;
mod unchanged;
#[cfg(test)]
mod wait_tests;
mod waits;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use uuid::Uuid;

use crate::digest::Digest;
use crate::effect::{DeadCommand, Effect, Outcome};
use crate::identity::{JournalTime, PartitionId, RunId, SourcePosition, StreamPosition};
use crate::plan::Executable;
use crate::record::{Body, EffectLate, Record};
use crate::review::CaseReplayed;
use crate::run::{AttemptReport, Run};

pub use cases::{CASE_REASONS, CASE_TIERS, Case};
pub use closed_hours::ClosedHour;
pub use correlation::{Correlations, SIGNALS_OF_KEY_MAX, WAITS_OF_KEY_MAX};
pub use dead_events::UNFILED_EVENTS_MAX;
pub use define::{DEFINITIONS_BYTES_MAX, Definitions, WORKFLOWS_MAX};
pub use keys::KeyWindow;
pub use limits::{KEYS_MAX_DEFAULT, KEYS_MAX_MOST, Limits};
pub use outbox::{HighWaters, Outbox, Queued};
pub use recover::{Outstanding, Untold};
pub use resolve::Resolutions;
pub use seen::SeenPositions;
pub use snapshot::{FrozenPartition, PartitionImage, RestoreError};

use dead_events::DeadEvents;
use held_back::HeldBack;
use queue_room::{QueueCounts, QueueHeld};
use runs::Runs;
use timers::Timers;

/// The state of one partition: a fold of its journal, and the plans it needs.
#[derive(Debug, Clone)]
pub struct Partition {
    id: PartitionId,
    limits: Limits,
    time: JournalTime,
    epoch: u64,
    position: StreamPosition,
    floor: u64,
    seen: SeenPositions,
    keys: KeyWindow<SourcePosition>,
    commands: KeyWindow<()>,
    runs: Runs,
    timers: Timers,
    cases: BTreeMap<Uuid, Case>,
    case_expiry: BTreeSet<(JournalTime, Uuid)>,
    unfiled: BTreeMap<(u64, Option<u32>), DeadCommand>,
    definitions: Definitions,
    running: u32,
    /// Looked up while folding, filled from outside: not part of the fold.
    plans: HashMap<Digest, Arc<Executable>>,
    /// Runs with ready nodes that a bound held back; found again by
    /// [`Partition::resume`] after a replay.
    held_back: HeldBack,
    /// Whether this owner orders no further attempt.
    settling: bool,
    /// Commands to other partitions.
    outbox: Outbox,
    /// Up to where other partitions' commands are taken.
    high_waters: HighWaters,
    /// What waits under correlation keys here.
    correlations: Correlations,
    /// Runs with a ready node that waits for room in the outbox, by target; like
    /// `held_back`.
    outbox_held: BTreeMap<PartitionId, HeldBack>,
    /// What people decided about cases.
    resolutions: Resolutions,
    /// Attempts in named queues, part of `running`.
    queued_in: QueueCounts,
    /// Runs with a ready node whose queue can be given no further attempt; like
    /// `held_back`.
    queue_held: QueueHeld,
    /// Events that were rejected here and whose bytes are not filed.
    dead_events: DeadEvents,
}

/// What a decision comes to; the buffers are reused from decision to decision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// To append, in order; folded already.
    pub records: Vec<Record>,
    /// To do once the records are durable, in order.
    pub effects: Vec<Effect>,
    /// Bytes of bodies and outputs in the records: what makes frames large.
    payload_bytes: usize,
    /// Records decided for the frame, whether or not they were taken out since.
    records_decided: usize,
}

impl Decision {
    /// Begins another frame: its bounds start from nothing.
    pub fn begin_frame(&mut self) {
        self.payload_bytes = 0;
        self.records_decided = 0;
    }

    /// Records decided for the frame so far.
    #[must_use]
    pub fn records_decided(&self) -> usize {
        self.records_decided
    }

    /// Bytes of bodies and outputs in the records.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    fn push(&mut self, record: Record) {
        self.payload_bytes += large_part(&record.body);
        self.records_decided += 1;
        self.records.push(record);
    }
}

/// Bytes of the part of a payload that can be large.
fn large_part(body: &Body) -> usize {
    let json = if let Body::NodeDispatched(dispatched) = body {
        Some(&dispatched.input)
    } else if let Body::NodeSucceeded(succeeded) = body {
        Some(&succeeded.output)
    } else if let Body::RunStarted(started) = body {
        Some(&started.input)
    } else if let Body::EffectLate(EffectLate { outcome: Outcome::Succeeded { output } }) = body {
        Some(output)
    } else if let Body::OutboxQueued(queued) = body {
        return queued.command.bytes();
    } else {
        None
    };
    json.map_or(0, |json| json.as_str().len())
}

/// What comes back from inside the process: results carry no stream position,
/// and are made again by dispatching again when they are lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Of an attempt.
    Attempt(AttemptReport),
    /// Of a case's handler.
    Case {
        /// The case.
        case: Uuid,
        /// Attempt number of the notice.
        attempt: u32,
        /// What came of it.
        outcome: Outcome,
    },
    /// The bytes of a poisoned command are stored.
    DeadFiled {
        /// Sequence in COMMANDS.
        sequence: u64,
        /// Place in the frame.
        index: Option<u32>,
    },
    /// A target's COMMANDS holds every command for it up to an index.
    Relayed {
        /// The target.
        target: PartitionId,
        /// Index in the outbox.
        up_to: u64,
    },
    /// Partitions hold the order to decide the events of a case once more.
    CaseReplayed(CaseReplayed),
    /// The bytes of a rejected event are stored.
    EventFiled {
        /// Where the event stands in EVENTS.
        source: SourcePosition,
    },
}

impl Partition {
    /// The state before the first record.
    #[must_use]
    pub fn new(id: PartitionId, limits: Limits) -> Self {
        Self {
            id,
            time: JournalTime::default(),
            epoch: 0,
            position: StreamPosition::default(),
            floor: 0,
            seen: SeenPositions::default(),
            keys: KeyWindow::new(limits.key_window_ms, limits.keys_max),
            commands: KeyWindow::new(limits.key_window_ms, limits.keys_max),
            runs: Runs::default(),
            timers: Timers::default(),
            cases: BTreeMap::new(),
            case_expiry: BTreeSet::new(),
            unfiled: BTreeMap::new(),
            definitions: Definitions::default(),
            running: 0,
            plans: HashMap::new(),
            held_back: HeldBack::default(),
            outbox: Outbox::default(),
            high_waters: HighWaters::default(),
            correlations: Correlations::default(),
            outbox_held: BTreeMap::new(),
            resolutions: Resolutions::default(),
            queued_in: QueueCounts::default(),
            queue_held: QueueHeld::default(),
            dead_events: DeadEvents::new(),
            limits,
            settling: false,
        }
    }

    /// Orders no further attempt: what becomes ready waits, as if every attempt
    /// were taken. For an owner that is about to leave; no part of the fold.
    pub fn settle(&mut self) {
        self.settling = true;
    }

    /// Which partition it is.
    #[must_use]
    pub fn id(&self) -> PartitionId {
        self.id
    }

    /// Journal time of the frame that was begun last.
    #[must_use]
    pub fn time(&self) -> JournalTime {
        self.time
    }

    /// The epoch of the present owner; 0 before the first.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The command position consumed so far.
    #[must_use]
    pub fn position(&self) -> StreamPosition {
        self.position
    }

    /// The source floor taken over so far.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// The bounds it works under.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The open run `id`.
    #[must_use]
    pub fn run(&self, id: RunId) -> Option<&Run> {
        self.runs.get(&id)
    }

    /// How many runs are open.
    #[must_use]
    pub fn open_runs(&self) -> usize {
        self.runs.len()
    }

    /// Every open run, in no particular order.
    pub fn runs(&self) -> impl Iterator<Item = (&RunId, &Run)> {
        self.runs.iter()
    }

    /// The active definitions (control partition).
    #[must_use]
    pub fn definitions(&self) -> &Definitions {
        &self.definitions
    }

    /// Attempts that are ordered and have no outcome, those in queues included.
    #[must_use]
    pub fn running(&self) -> u32 {
        self.running
    }

    /// Attempts in named queues that have no outcome.
    #[must_use]
    pub fn queued(&self) -> u32 {
        self.queued_in.total()
    }

    /// Those of them in `queue`.
    #[must_use]
    pub fn queued_in(&self, queue: &str) -> u32 {
        self.queued_in.of(queue)
    }

    /// Whether a plan is at hand.
    #[must_use]
    pub fn has_plan(&self, digest: &Digest) -> bool {
        self.plans.contains_key(digest)
    }

    /// Makes a plan available for folding and deciding.
    pub fn add_plan(&mut self, digest: Digest, plan: Arc<Executable>) {
        self.plans.insert(digest, plan);
    }

    /// Begins a frame: time moves on, what has passed its window is forgotten.
    pub fn begin_frame(&mut self, time: JournalTime) {
        self.time = self.time.max(time);
        self.keys.expire(self.time);
        self.commands.expire(self.time);
        self.expire_cases();
    }

    /// Notes that commands are consumed up to `position`, and the source floor
    /// that came with them.
    pub fn advance(&mut self, position: StreamPosition, floor: u64) {
        self.position = position;
        if floor > self.floor {
            self.floor = floor;
            self.seen.forget_to(floor);
        }
    }

    /// Whether both folds are the same: as [`Self::summary`], without the text.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let running = |(id, run): (&RunId, &Run)| {
            other.runs.get(id).is_some_and(|other| {
                (other.running(), other.awaiting(), other.queued())
                    == (run.running(), run.awaiting(), run.queued())
            })
        };
        self.freeze().image() == other.freeze().image()
            && (&self.seen, &self.timers, &self.correlations, self.running, &self.queued_in)
                == (
                    &other.seen,
                    &other.timers,
                    &other.correlations,
                    other.running,
                    &other.queued_in,
                )
            && self.runs.iter().all(running)
    }

    /// The fold as text, for comparisons in tests and simulation: equal folds
    /// give equal text. It is all that a snapshot holds, and what follows from
    /// it in a restored state.
    #[must_use]
    pub fn summary(&self) -> String {
        let image = self.freeze().image();
        let seen = &self.seen;
        let (timers, correlations, running) = (&self.timers, &self.correlations, self.running);
        let counts = |(id, run): (&RunId, &Run)| (*id, run.running(), run.awaiting(), run.queued());
        let mut runs = self.runs.iter().map(counts).collect::<Vec<_>>();
        runs.sort_unstable();
        format!(
            "{image:?}\nseen {seen:?} timers {timers:?} correlations {correlations:?} \
             running {running} queued {:?} of {runs:?}",
            self.queued_in
        )
    }
}
