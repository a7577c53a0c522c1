//! Names of streams and subjects. A partition is a number or `control`.

use std::fmt::Display;

/// Stream of the events from outside.
pub const EVENTS_STREAM: &str = "EVENTS";
/// Subjects of the events from outside: `fermata.events.<tenant>.<type…>`.
pub const EVENTS_SUBJECTS: &str = "fermata.events.>";
/// Stream between listener and matcher.
pub const ADMITTED_STREAM: &str = "ADMITTED";
/// Subject between listener and matcher.
pub const ADMITTED_SUBJECT: &str = "fermata.admitted";
/// Stream between matcher and builder.
pub const MATCHED_STREAM: &str = "MATCHED";
/// Subject between matcher and builder.
pub const MATCHED_SUBJECT: &str = "fermata.matched";
/// Stream of admitted events of tenants that are above their share.
pub const WAITING_STREAM: &str = "WAITING";
/// Subjects of WAITING: `fermata.waiting.<lane>`.
pub const WAITING_SUBJECTS: &str = "fermata.waiting.*";
/// Stream of signed checkpoints of all partitions.
pub const CHECKPOINTS_STREAM: &str = "CHECKPOINTS";
/// Subjects of signed checkpoints.
pub const CHECKPOINTS_SUBJECTS: &str = "fermata.checkpoints.*";
/// Stream of dead letters.
pub const DEAD_STREAM: &str = "DEAD";
/// Subjects of dead letters: `fermata.dead.<tenant>.<stage>`.
pub const DEAD_SUBJECTS: &str = "fermata.dead.>";
/// Stream of what is known of requests to replay that came by HTTP.
pub const REPLAYS_STREAM: &str = "REPLAYS";
/// Subjects of REPLAYS: `fermata.replays.<replay>`, one message each.
pub const REPLAYS_SUBJECTS: &str = "fermata.replays.*";
/// Stream of the attempts for named queues; a message goes when it is acknowledged.
pub const TASKS_STREAM: &str = "TASKS";
/// Subjects of the attempts for named queues: `fermata.tasks.<queue>`.
pub const TASKS_SUBJECTS: &str = "fermata.tasks.*";
/// Stream of the one configuration message.
pub const CONFIG_STREAM: &str = "CONFIG";
/// Subject of the one configuration message.
pub const CONFIG_SUBJECT: &str = "fermata.config";
/// Bucket of leases.
pub const LEASES_BUCKET: &str = "fermata-leases";
/// Bucket of definitions, a projection of the control partition's journal.
pub const DEFINITIONS_BUCKET: &str = "fermata-definitions";
/// Object store of compiled plans, by digest.
pub const PLANS_BUCKET: &str = "fermata-plans";
/// Object store of snapshots, by partition and journal sequence.
pub const SNAPSHOTS_BUCKET: &str = "fermata-snapshots";
/// Object store of archived journals, by partition and first journal sequence.
pub const ARCHIVE_BUCKET: &str = "fermata-archive";
/// Object store of data that is too large for an event, by tenant and digest.
pub const PAYLOADS_BUCKET: &str = "fermata-payloads";

/// Stream of the commands of a partition.
pub fn commands_stream(partition: impl Display) -> String {
    format!("COMMANDS_{partition}")
}

/// Subject of the commands of a partition.
pub fn commands_subject(partition: impl Display) -> String {
    format!("fermata.commands.{partition}")
}

/// Stream of the journal of a partition.
pub fn journal_stream(partition: impl Display) -> String {
    format!("JOURNAL_{partition}")
}

/// Subject of the journal of a partition.
pub fn journal_subject(partition: impl Display) -> String {
    format!("fermata.journal.{partition}")
}

/// Stream of the audit leaves of a partition.
pub fn audit_stream(partition: impl Display) -> String {
    format!("AUDIT_{partition}")
}

/// Subject of the audit leaves of a partition. The live feed for subscribers is `fermata.audit.<tenant>` and has no stream.
pub fn audit_subject(partition: impl Display) -> String {
    format!("fermata.auditlog.{partition}")
}

/// Subject of the signed checkpoints of a partition.
pub fn checkpoints_subject(partition: impl Display) -> String {
    format!("fermata.checkpoints.{partition}")
}
