//! Names of subjects.

use fermata_core::identity::{PartitionId, Tenant};
use uuid::Uuid;

/// Where users publish events: `fermata.events.<tenant>.<type…>`.
pub const EVENTS: &str = "fermata.events";
/// Frames of admitted events, where listener and matcher run apart.
pub const ADMITTED: &str = "fermata.admitted";
/// Frames of matched events, where matcher and builder run apart.
pub const MATCHED: &str = "fermata.matched";

/// Where frames of admitted events wait by lanes: `fermata.waiting.<lane>`.
pub const WAITING: &str = "fermata.waiting";

/// Where every worker is asked how it stands; what is sent there names an inbox.
pub const STATUS: &str = "fermata.status";

/// Frames of admitted events that wait in `lane`.
#[must_use]
pub fn waiting(lane: u16) -> String {
    format!("{WAITING}.{lane}")
}

/// Commands to `partition`.
#[must_use]
pub fn commands(partition: PartitionId) -> String {
    format!("fermata.commands.{partition}")
}

/// The journal of `partition`.
#[must_use]
pub fn journal(partition: PartitionId) -> String {
    format!("fermata.journal.{partition}")
}

/// The stored audit log of `partition`.
#[must_use]
pub fn audit_log(partition: PartitionId) -> String {
    format!("fermata.auditlog.{partition}")
}

/// The signed checkpoints of `partition`.
#[must_use]
pub fn checkpoints(partition: PartitionId) -> String {
    format!("fermata.checkpoints.{partition}")
}

/// What is known of the request by HTTP whose replay is `replay`.
#[must_use]
pub fn replay_entry(replay: Uuid) -> String {
    format!("fermata.replays.{}", replay.simple())
}

/// The audit feed of `tenant`; `None` for the engine's own records.
#[must_use]
pub fn audit_feed(tenant: Option<&Tenant>) -> String {
    format!("fermata.audit.{}", tenant.map_or("_engine", Tenant::as_str))
}

/// Escalations of `tenant` at rung `tier` of the ladder, 1 to 4.
#[must_use]
pub fn escalation(tenant: &Tenant, tier: u8) -> String {
    format!("fermata.escalation.{tenant}.{tier}")
}

/// Where calls of `tenant` are completed by their tokens; `*` for every tenant.
#[must_use]
pub fn callbacks(tenant: &str) -> String {
    format!("fermata.callbacks.{tenant}")
}

/// Attempts for whoever serves `queue`.
#[must_use]
pub fn tasks(queue: &str) -> String {
    format!("fermata.tasks.{queue}")
}

/// Where whoever serves `queue` is told to stop an attempt. Nobody stores it.
#[must_use]
pub fn tasks_cancel(queue: &str) -> String {
    format!("fermata.tasks-cancel.{queue}")
}

/// The dead letter of the task at `sequence` of its stream: a subject of its own,
/// so that the broker can refuse a second one.
#[must_use]
pub fn dead_task(tenant: &str, sequence: u64) -> String {
    format!("fermata.dead.{tenant}.tasks.{sequence}")
}

/// Dead letters of `tenant` from `stage`.
#[must_use]
pub fn dead(tenant: &str, stage: &str) -> String {
    format!("fermata.dead.{tenant}.{stage}")
}
