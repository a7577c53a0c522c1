//! A deterministic simulation of the real core and the real protocol of a
//! partition over a modelled broker.
//!
//! Everything comes from a seed: what comes in, which faults happen when, how
//! long everything takes. The same seed gives the same trace. What must hold is
//! in named functions `invariant_*`, checked after every step on what the
//! streams hold; the first that does not ends the run with a [`Violation`].
//!
//! | room | holds |
//! |---|---|
//! | `broker` | streams, and what may happen to a publish or a read |
//! | `world` | time, workers, and the shell around owner, auditor and effects |
//! | `worker` | one process: clocks, what waits for it, its attempt to own |
//! | `runner` | how attempts go, and the receiver that counts commits |
//! | `lease` | who should own |
//! | `load` | what comes in |
//! | `plans` | the workflows |
//! | `relay` | several partitions that send each other commands |
//! | `invariants` | what must hold |
//!
//! ```
//! let trace = fermata_sim::run(7, &fermata_sim::Scenario::chaos())?;
//! assert_eq!(trace, fermata_sim::run(7, &fermata_sim::Scenario::chaos())?);
//! # Ok::<(), Box<fermata_sim::Violation>>(())
//! ```

mod broker;
mod dice;
mod invariants;
mod lease;
mod load;
mod plans;
mod relay;
mod runner;
mod scenario;
mod trace;
mod twin;
mod worker;
mod world;

pub use relay::{RelayScenario, RelayTrace, run_relays};
pub use scenario::{Faults, Scenario};
pub use trace::{Trace, Violation};

/// Runs `scenario` from `seed` until faults have stopped and everything that
/// was accepted is complete.
///
/// # Errors
///
/// [`Violation`] of the first invariant that does not hold.
pub fn run(seed: u64, scenario: &Scenario) -> Result<Trace, Box<Violation>> {
    let world = world::World::new(seed, scenario).map_err(|broken| {
        let (invariant, detail) = (broken.invariant, broken.detail);
        Box::new(Violation { seed, step: 0, invariant, detail, lines: Vec::new() })
    })?;
    world.run().map_err(Box::new)
}
