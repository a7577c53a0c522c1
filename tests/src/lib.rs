//! What end-to-end tests and benchmarks share: a real broker, a real engine,
//! a plugin, and the acts of a user.

pub mod audit;
pub mod bit_flips;
pub mod broker;
pub mod clocks;
pub mod cluster;
pub mod definitions;
pub mod disks;
pub mod engine;
pub mod events;
pub mod footprint;
pub mod garbage;
pub mod invariants;
pub mod journal;
pub mod matching;
pub mod networks;
pub mod rights;
pub mod sink;
pub mod snapshots;
pub mod wire;

pub use broker::TestBroker;
pub use engine::TestEngine;
pub use sink::Sink;
pub use wire::Wire;
