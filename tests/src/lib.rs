//! What end-to-end tests and benchmarks share: a real broker, a real engine,
//! and the acts of a user.

pub mod broker;
pub mod definitions;
pub mod engine;
pub mod journal;

pub use broker::TestBroker;
pub use engine::TestEngine;
