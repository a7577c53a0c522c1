//! The protocol of one partition, without I/O.
//!
//! [`owner::Owner`] takes a partition over, decides commands, commits records
//! in groups and releases effects; [`auditor::Auditor`] turns committed records
//! into a signed log. Both are state machines: an input goes in, outputs come
//! out, and nothing else happens. The actors feed them from a real broker, the
//! simulation from a modelled one with the real one's faults.
//!
//! | room | holds |
//! |---|---|
//! | [`append`] | one fenced append in flight, and what to do when its outcome is unknown |
//! | [`clock`] | journal time |
//! | [`fold`] | replay: frames of a journal into the state of a partition |
//! | [`owner`] | takeover, decisions, group commit, effects after commit |
//! | [`auditor`] | leaves, the stored audit log, checkpoints |
//! | [`key_hours`] | keys of hours that are over, each as a file of its own |
//! | [`snapshot`] | the fold, and how far its records are audited, as a file |
//! | [`truncation`] | going on behind a journal that lost its end, when somebody accepts that |

pub mod append;
pub mod auditor;
pub mod clock;
pub mod fold;
pub mod key_hours;
pub mod message;
pub mod owner;
pub mod snapshot;
pub mod truncation;
