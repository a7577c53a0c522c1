//! Several partitions that send each other commands, over a broker that loses,
//! delays and doubles frames and acknowledgements; owners are killed and taken
//! over from on all sides, and some go on for a while without knowing it.
//!
//! The owners are the real ones. What they exchange is what tasks that wait for
//! an event and events with correlation keys bring about.

mod laws;
mod load;
mod owning;
mod world;

use crate::scenario::Faults;
use crate::trace::Violation;

/// A simulation of several partitions, to be run from a seed.
#[derive(Debug, Clone)]
pub struct RelayScenario {
    /// Data partitions, at least one.
    pub partitions: u16,
    /// Events that start runs, each of which waits, and events that they wait for.
    pub events: u64,
    /// Faults, until they stop; of those only what concerns publishes, crashes,
    /// deliveries, panics and doubled leases.
    pub faults: Faults,
    /// When faults stop, milliseconds of simulated time.
    pub heal_at_ms: u64,
    /// Most commands to one partition that are not delivered.
    pub outbox_max: usize,
    /// Whether every line of the trace goes to standard error.
    pub verbose: bool,
}

impl RelayScenario {
    /// Every fault there is.
    #[must_use]
    pub fn chaos() -> Self {
        Self {
            partitions: 3,
            events: 40,
            faults: Faults {
                request_lost: 120,
                ack_lost: 120,
                request_delayed: 120,
                request_duplicated: 120,
                stream_full: 10,
                delivery_lost: 40,
                delivery_duplicated: 60,
                crash: 15,
                lease_doubled: 500,
                panic: 2,
                ..Faults::default()
            },
            heal_at_ms: 60_000,
            outbox_max: 6,
            verbose: false,
        }
    }
}

/// What one simulation came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RelayTrace {
    /// FNV-1a over every line.
    pub hash: u64,
    /// Commands that one partition queued for another, or for itself.
    pub queued: u64,
    /// Copies of commands that their target had taken before.
    pub repeated: u64,
    /// Takeovers.
    pub epochs: u64,
    /// Commands that were poisoned.
    pub poisoned: u64,
    /// Waits that ended with their event.
    pub resumed: u64,
    /// Waits that took too long.
    pub timed_out: u64,
    /// Signals that waited for somebody.
    pub kept: u64,
    /// Runs or events that found an outbox full.
    pub refused: u64,
    /// Comparisons of a live state with the fold of its journal.
    pub folds_compared: u64,
    /// Snapshots that were stored.
    pub snapshots: u64,
    /// Takeovers that began from one.
    pub begun_from_snapshots: u64,
}

/// Runs `scenario` from `seed` until faults have stopped and everything is done.
///
/// # Errors
///
/// [`Violation`] of the first law that does not hold.
pub fn run_relays(seed: u64, scenario: &RelayScenario) -> Result<RelayTrace, Box<Violation>> {
    let world = world::World::new(seed, scenario).map_err(|broken| {
        let (invariant, detail) = (broken.invariant, broken.detail);
        Box::new(Violation { seed, step: 0, invariant, detail, lines: Vec::new() })
    })?;
    world.run().map_err(Box::new)
}
