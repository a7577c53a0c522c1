//! The actors: thin shells around the pure rules.
//!
//! | actor | one per | does |
//! |---|---|---|
//! | [`listener`] | process | events in: decodes, admits or dead-letters |
//! | [`matcher`] | process | asks the strategies |
//! | [`builder`] | process | names the plan, makes commands, publishes them |
//! | [`coordinator`] | owned partition | drives [`fermata_partition::owner::Owner`] |
//! | [`auditor`] | owned partition | drives [`fermata_partition::auditor::Auditor`] |
//! | [`node_runner`] | process | runs attempts and keeps their results until they are taken |
//! | [`escalator`] | review case | tells people, then ends |
//! | [`lease_keeper`] | process | says which partitions this worker should own |
//! | [`projector`] | process | keeps the read model of runs and answers questions about it |
//! | [`supervisor`] | process | starts the others, restarts what fails, with backoff and a limit |
//!
//! Mailboxes are unbounded, so nothing travels through them without a permit:
//! whoever sends holds one, or waits for an answer before it sends again.

pub mod auditor;
pub mod builder;
mod callbacks;
pub mod checkpoint_folder;
pub mod checkpoint_log;
pub mod clock;
pub mod contracts;
pub mod coordinator;
pub mod definitions;
pub mod engine;
pub mod escalator;
pub mod figures;
pub mod floor;
pub mod hand_over;
pub mod hop;
pub mod intake;
pub mod journal_archive;
pub mod lease_keeper;
pub mod lease_term;
pub mod listener;
pub mod matcher;
pub mod metrics;
pub mod node_runner;
pub mod partitions;
pub mod ports;
pub mod projector;
pub mod readiness;
pub mod replay_requests;
pub mod source;
pub mod stage;
pub mod status_service;
pub mod supervisor;
pub mod switch;
pub mod trace;
pub mod uncommitted_reports;

pub use engine::{Engine, EngineConfig, EngineError, Role};
