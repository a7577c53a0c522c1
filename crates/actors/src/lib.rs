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
//! | [`webhooks`] | process | tells them over HTTP as well |
//! | [`lease_keeper`] | process | says which partitions this worker should own |
//! | [`projector`] | process | keeps the read model of runs and answers questions about it |
//! | [`task_worker`] | queue served | runs tasks of a named queue, whoever owns their runs |
//! | [`supervisor`] | process | starts the others, restarts what fails, with backoff and a limit |
//!
//! Mailboxes are unbounded, so nothing travels through them without a permit:
//! whoever sends holds one, or waits for an answer before it sends again.

pub mod auditor;
pub mod builder;
mod callbacks;
mod case_replay;
pub mod checkpoint_folder;
pub mod checkpoint_log;
pub mod clock;
pub mod command_room;
pub mod contracts;
pub mod coordinator;
pub mod dead_room;
pub mod definitions;
mod doubling;
pub mod engine;
pub mod escalator;
pub mod figures;
pub mod floor;
pub mod hand_over;
pub mod hop;
pub mod intake;
pub mod journal_archive;
pub mod lanes;
pub mod lease_keeper;
pub mod lease_term;
pub mod like_notices;
pub mod listener;
pub mod log_pace;
pub mod matcher;
pub mod metrics;
pub mod node_runner;
pub mod partitions;
pub mod ports;
pub mod projector;
pub mod readiness;
pub mod receipts;
pub mod replay_requests;
pub mod source;
pub mod stage;
pub mod standstill;
pub mod started_with;
pub mod status_service;
pub mod strategy_figures;
pub mod supervisor;
pub mod switch;
pub mod task_worker;
pub mod trace;
pub mod uncommitted_reports;
pub mod webhooks;

pub use engine::{Engine, EngineConfig, EngineError, Role};
