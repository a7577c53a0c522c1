//! The pure rules of Fermata.
//!
//! Nothing in this crate does I/O, reads a clock, draws a random number or is
//! async: what a rule needs arrives in its arguments, so a recorded stream
//! folds to the same state on any machine and a simulation can drive the same
//! code that runs in production.
//!
//! | room | holds |
//! |---|---|
//! | [`event`] | CloudEvents in: decoding, limits, the idempotency key |
//! | [`expression`] | CEL under static limits |
//! | [`strategy`] | which event starts which workflow |
//! | [`plan`] | the compiled workflow graph |
//! | [`command`] | what a partition is asked to decide |
//! | [`record`] | what a partition has decided: the journal's vocabulary |
//! | [`relay`] | what one partition asks another to decide |
//! | [`review`] | what people decide about review cases |
//! | [`run`] | one run as a fold of its records |
//! | [`partition`] | many runs, keys, cases and time: `decide` and `evolve` |

pub mod command;
pub mod contract;
pub mod digest;
pub mod effect;
pub mod event;
pub mod expression;
pub mod flags;
pub mod identity;
pub mod json;
pub mod partition;
pub mod plan;
pub mod record;
pub mod relay;
pub mod review;
pub mod run;
pub mod strategy;
