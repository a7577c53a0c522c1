//! The list of streams.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    ADMITTED_STREAM, ADMITTED_SUBJECT, ARCHIVE_BUCKET, CHECKPOINTS_STREAM, CHECKPOINTS_SUBJECTS,
    CONFIG_STREAM, CONFIG_SUBJECT, DEAD_STREAM, DEAD_SUBJECTS, DEFINITIONS_BUCKET, EVENTS_STREAM,
    EVENTS_SUBJECTS, LEASE_TTL, LEASES_BUCKET, MATCHED_STREAM, MATCHED_SUBJECT, PAYLOADS_BUCKET,
    PLANS_BUCKET, REPLAYS_STREAM, REPLAYS_SUBJECTS, SNAPSHOTS_BUCKET, TASKS_STREAM, TASKS_SUBJECTS,
    Topology, WAITING_STREAM, WAITING_SUBJECTS, audit_stream, audit_subject, commands_stream,
    commands_subject, journal_stream, journal_subject,
};
use crate::pull::nanoseconds;

/// The least that a stream may hold.
pub(super) const MIB: i64 = 1024 * 1024;

/// How long dead letters are kept: long enough for a month's holiday of whoever looks after them.
const DEAD_AGE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What a letter takes without its original bytes, at the most.
const BARE_LETTER_BYTES: i64 = 2 * 1024;

/// How many stages file letters.
const DEAD_STAGES: i64 = 8;

/// How many letters of one stage a tenant may have in a stream of so many bytes: without their original
/// bytes, which are bounded by whoever files them, those of all stages hold half of it at the most. A
/// further one drops the tenant's own oldest of that stage.
fn letters_per_subject_max(dead_bytes: i64) -> i64 {
    (dead_bytes / 2 / DEAD_STAGES / BARE_LETTER_BYTES).max(1)
}

/// How long payloads are kept: as long as dead letters, since what is replayed needs them.
const PAYLOAD_AGE_MAX: Duration = DEAD_AGE_MAX;

/// How long it is known to which body the id of a request to replay belongs: longer than partitions know the
/// ids of replays, which is 24 hours and up to one more.
const REPLAY_AGE_MAX: Duration = Duration::from_secs(26 * 60 * 60);

/// The broker's default window for message ids, which the hot path does not use.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// How long the marker of an expired lease stays, so that watchers see the expiry; one second is the broker's least.
const EXPIRY_MARKER_TTL: Duration = Duration::from_secs(1);

/// How many versions of a definition the bucket keeps; all of them are in the control partition's journal.
const DEFINITION_HISTORY: i64 = 8;

/// How many tasks of one queue may wait: so that a queue which nobody serves leaves room for the
/// others. What is beyond waits with whoever ordered it.
const TASKS_PER_QUEUE_MAX: i64 = 20_000;

/// Bytes of events in a frame of a lane, roughly: with large events a turn of a lane has fewer.
/// What the frame adds to them, and a frame of one event that is larger, is as much again at most.
pub const LANE_FRAME_BYTES_TARGET: usize = 128 * 1024;

/// So many lanes of full frames WAITING holds at least, and so one and a half where each frame is
/// twice as large: no lane takes all of it, and a tenant above its share leaves room for the others.
const FULL_LANES_MIN: i64 = 3;

/// How many frames of one lane may wait in a stream of so many bytes. What is beyond waits in EVENTS.
fn frames_per_lane_max(waiting_bytes: i64) -> i64 {
    let frame_bytes = i64::try_from(LANE_FRAME_BYTES_TARGET).unwrap_or(MIB);
    (waiting_bytes / FULL_LANES_MIN / frame_bytes).max(1)
}

/// How large each stream may grow, in bytes. The broker reserves the sum, about 28 GiB with 8 partitions;
/// [`Topology::fitted_to`] says what an engine with another room has.
///
/// A full stream refuses new messages, DEAD alone drops its oldest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// EVENTS: a burst of about eight million events of 256 bytes.
    pub events_bytes: i64,
    /// ADMITTED and MATCHED each: they are drained at once.
    pub hop_bytes: i64,
    /// COMMANDS of one partition.
    pub commands_bytes: i64,
    /// JOURNAL of one partition: what lies between two snapshots and the archive.
    pub journal_bytes: i64,
    /// AUDIT of one partition: about 196 bytes per record, some 1.8 KB for a run of three tasks. Never purged.
    pub audit_bytes: i64,
    /// CHECKPOINTS of all partitions: about 350 bytes each, one a second of each partition at the most. Never purged.
    pub checkpoints_bytes: i64,
    /// DEAD.
    pub dead_bytes: i64,
    /// The bucket of definitions.
    pub definitions_bytes: i64,
    /// The object store of plans.
    pub plans_bytes: i64,
    /// The object store of snapshots: up to three of each partition for a moment.
    pub snapshots_bytes: i64,
    /// The object store of archived journals: some 1.8 KB for a run of three tasks. When it is full journals are not
    /// purged, and fill.
    pub archive_bytes: i64,
    /// TASKS: some 100,000 attempts with 4 KiB of input each. When it is full, those who order
    /// attempts for named queues wait.
    pub tasks_bytes: i64,
    /// The object store of payloads. When it is full no further ones are taken.
    pub payloads_bytes: i64,
    /// REPLAYS: about 400,000 requests of single events. When it is full no request by HTTP is taken.
    pub replays_bytes: i64,
    /// WAITING: about a million events of 256 bytes. When it is full events wait in EVENTS.
    pub waiting_bytes: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            events_bytes: 2048 * MIB,
            hop_bytes: 512 * MIB,
            commands_bytes: 512 * MIB,
            journal_bytes: 1024 * MIB,
            audit_bytes: 512 * MIB,
            checkpoints_bytes: 128 * MIB,
            dead_bytes: 512 * MIB,
            definitions_bytes: 128 * MIB,
            plans_bytes: 1024 * MIB,
            snapshots_bytes: 1024 * MIB,
            archive_bytes: 2 * 1024 * MIB,
            tasks_bytes: 512 * MIB,
            payloads_bytes: 1024 * MIB,
            replays_bytes: 128 * MIB,
            waiting_bytes: 512 * MIB,
        }
    }
}

impl Limits {
    /// Every limit times `part / whole`, and a mebibyte at least.
    pub(super) fn scaled(&self, part: i64, whole: i64) -> Self {
        let scaled = |bytes: i64| {
            let scaled = i128::from(bytes) * i128::from(part) / i128::from(whole.max(1));
            i64::try_from(scaled).unwrap_or(bytes).max(MIB)
        };
        Self {
            events_bytes: scaled(self.events_bytes),
            hop_bytes: scaled(self.hop_bytes),
            commands_bytes: scaled(self.commands_bytes),
            journal_bytes: scaled(self.journal_bytes),
            audit_bytes: scaled(self.audit_bytes),
            checkpoints_bytes: scaled(self.checkpoints_bytes),
            dead_bytes: scaled(self.dead_bytes),
            definitions_bytes: scaled(self.definitions_bytes),
            plans_bytes: scaled(self.plans_bytes),
            snapshots_bytes: scaled(self.snapshots_bytes),
            archive_bytes: scaled(self.archive_bytes),
            tasks_bytes: scaled(self.tasks_bytes),
            payloads_bytes: scaled(self.payloads_bytes),
            replays_bytes: scaled(self.replays_bytes),
            waiting_bytes: scaled(self.waiting_bytes),
        }
    }
}

/// One stream, in the words of the broker's API; durations in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamSpec {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// What it takes.
    pub subjects: Vec<String>,
    /// When messages go: `limits` means by limits and purges only, `workqueue` when one is acknowledged.
    pub retention: String,
    /// Where messages are: `file`.
    pub storage: String,
    /// How many servers hold it.
    pub num_replicas: usize,
    /// What happens when it is full: `new` refuses, `old` drops the oldest.
    pub discard: String,
    /// How large it may grow, in bytes.
    pub max_bytes: i64,
    /// How old a message may grow, in nanoseconds; 0 is for ever.
    pub max_age: u64,
    /// How many messages a subject may have; -1 is any number.
    pub max_msgs_per_subject: i64,
    /// How long message ids are remembered, in nanoseconds.
    pub duplicate_window: u64,
    /// Whether single messages can not be deleted.
    pub deny_delete: bool,
    /// Whether the stream can not be purged.
    pub deny_purge: bool,
    /// Whether a message may replace all before it (buckets need it).
    pub allow_rollup_hdrs: bool,
    /// Whether replicas answer reads (never where a decision hangs on one).
    pub allow_direct: bool,
    /// Whether single messages may expire (buckets with expiry markers need it).
    pub allow_msg_ttl: bool,
    /// How long the marker of an expired message stays, in nanoseconds; 0 is no marker.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub subject_delete_marker_ttl: u64,
    /// Whether a subject that has as many messages as it may takes no further one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub discard_new_per_subject: bool,
}

impl StreamSpec {
    /// The same, with what follows from the size as at this one, in bytes, which the operator has
    /// chosen, or the stream was fitted to.
    pub(super) fn sized_for(mut self, max_bytes: i64) -> Self {
        match self.name.as_str() {
            WAITING_STREAM if max_bytes > 0 => {
                self.max_msgs_per_subject = frames_per_lane_max(max_bytes);
            }
            DEAD_STREAM if max_bytes > 0 => {
                self.max_msgs_per_subject = letters_per_subject_max(max_bytes);
            }
            _ => {}
        }
        self
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

pub(super) fn streams(topology: &Topology) -> Vec<StreamSpec> {
    let limits = &topology.limits;
    let base = |name: &str, subject: &str, bytes: i64, description: &str| StreamSpec {
        name: name.to_owned(),
        description: description.to_owned(),
        subjects: vec![subject.to_owned()],
        retention: "limits".to_owned(),
        storage: "file".to_owned(),
        num_replicas: topology.replicas,
        discard: "new".to_owned(),
        max_bytes: bytes,
        max_age: 0,
        max_msgs_per_subject: -1,
        duplicate_window: nanoseconds(DUPLICATE_WINDOW),
        deny_delete: true,
        deny_purge: false,
        allow_rollup_hdrs: false,
        allow_direct: false,
        allow_msg_ttl: false,
        subject_delete_marker_ttl: 0,
        discard_new_per_subject: false,
    };
    let kept = |spec: StreamSpec| StreamSpec { deny_purge: true, ..spec };

    let mut specs = vec![
        kept(base(
            CONFIG_STREAM,
            CONFIG_SUBJECT,
            MIB,
            "engine id and number of partitions, written once",
        )),
        base(EVENTS_STREAM, EVENTS_SUBJECTS, limits.events_bytes, "events from outside"),
        base(
            ADMITTED_STREAM,
            ADMITTED_SUBJECT,
            limits.hop_bytes,
            "admitted events on their way to the matcher",
        ),
        base(
            MATCHED_STREAM,
            MATCHED_SUBJECT,
            limits.hop_bytes,
            "matched events on their way to the builder",
        ),
    ];
    for partition in topology.partition_names() {
        let p = partition.as_str();
        specs.extend([
            base(
                &commands_stream(p),
                &commands_subject(p),
                limits.commands_bytes,
                "commands to one partition, consumed by position",
            ),
            base(
                &journal_stream(p),
                &journal_subject(p),
                limits.journal_bytes,
                "records of one partition, one fenced writer",
            ),
            kept(base(
                &audit_stream(p),
                &audit_subject(p),
                limits.audit_bytes,
                "audit leaves of one partition",
            )),
        ]);
    }
    specs.extend([
        kept(base(
            CHECKPOINTS_STREAM,
            CHECKPOINTS_SUBJECTS,
            limits.checkpoints_bytes,
            "signed checkpoints of all partitions",
        )),
        StreamSpec {
            discard: "old".to_owned(),
            max_age: nanoseconds(DEAD_AGE_MAX),
            max_msgs_per_subject: letters_per_subject_max(limits.dead_bytes),
            deny_delete: false,
            ..base(DEAD_STREAM, DEAD_SUBJECTS, limits.dead_bytes, "dead letters")
        },
        leases(base(
            &format!("KV_{LEASES_BUCKET}"),
            &format!("$KV.{LEASES_BUCKET}.>"),
            16 * MIB,
            "who should own what, and who lives",
        )),
        StreamSpec {
            max_msgs_per_subject: DEFINITION_HISTORY,
            allow_rollup_hdrs: true,
            allow_direct: true,
            ..base(
                &format!("KV_{DEFINITIONS_BUCKET}"),
                &format!("$KV.{DEFINITIONS_BUCKET}.>"),
                limits.definitions_bytes,
                "definitions, a projection of the control partition",
            )
        },
        StreamSpec {
            subjects: vec![format!("$O.{PLANS_BUCKET}.C.>"), format!("$O.{PLANS_BUCKET}.M.>")],
            allow_rollup_hdrs: true,
            allow_direct: true,
            deny_delete: false,
            ..base(
                &format!("OBJ_{PLANS_BUCKET}"),
                "",
                limits.plans_bytes,
                "compiled plans and snapshots, by digest",
            )
        },
        // The leader alone answers: a takeover must not begin from what a replica still has.
        objects(
            SNAPSHOTS_BUCKET,
            base("", "", limits.snapshots_bytes, "snapshots of partitions, two of each"),
        ),
        objects(
            ARCHIVE_BUCKET,
            base("", "", limits.archive_bytes, "journals that were purged, in segments"),
        ),
        // A task that nobody takes goes with its own time, so that a queue which nobody serves
        // does not fill up with what has failed long since. One whose run closes is taken back.
        StreamSpec {
            retention: "workqueue".to_owned(),
            deny_delete: false,
            max_msgs_per_subject: TASKS_PER_QUEUE_MAX,
            discard_new_per_subject: true,
            allow_msg_ttl: true,
            ..base(
                TASKS_STREAM,
                TASKS_SUBJECTS,
                limits.tasks_bytes,
                "attempts for named queues, until a worker has done them",
            )
        },
        objects(
            PAYLOADS_BUCKET,
            StreamSpec {
                max_age: nanoseconds(PAYLOAD_AGE_MAX),
                ..base("", "", limits.payloads_bytes, "data that is too large for an event")
            },
        ),
        // The leader alone answers, and takes a first message for a subject once.
        StreamSpec {
            max_msgs_per_subject: 1,
            max_age: nanoseconds(REPLAY_AGE_MAX),
            ..base(
                REPLAYS_STREAM,
                REPLAYS_SUBJECTS,
                limits.replays_bytes,
                "to which body the id of a request to replay belongs",
            )
        },
        // What is acknowledged is gone, so the first sequence tells up to where everything is.
        StreamSpec {
            retention: "workqueue".to_owned(),
            max_msgs_per_subject: frames_per_lane_max(limits.waiting_bytes),
            discard_new_per_subject: true,
            // Whatever left it without an acknowledgement would be lost, and nobody would know.
            deny_purge: true,
            ..base(
                WAITING_STREAM,
                WAITING_SUBJECTS,
                limits.waiting_bytes,
                "admitted events of tenants above their share, by lanes",
            )
        },
    ]);
    specs
}

/// An object store below a bucket.
fn objects(bucket: &str, base: StreamSpec) -> StreamSpec {
    StreamSpec {
        name: format!("OBJ_{bucket}"),
        subjects: vec![format!("$O.{bucket}.C.>"), format!("$O.{bucket}.M.>")],
        allow_rollup_hdrs: true,
        deny_delete: false,
        ..base
    }
}

/// A bucket whose keys expire and tell it: the marker lets a watcher see that a worker is gone.
fn leases(base: StreamSpec) -> StreamSpec {
    StreamSpec {
        max_age: nanoseconds(LEASE_TTL),
        max_msgs_per_subject: 1,
        duplicate_window: nanoseconds(LEASE_TTL),
        allow_rollup_hdrs: true,
        allow_direct: true,
        allow_msg_ttl: true,
        subject_delete_marker_ttl: nanoseconds(EXPIRY_MARKER_TTL),
        ..base
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether two subject patterns can match one subject (`*` is one token, `>` the rest).
    fn overlap(one: &str, other: &str) -> bool {
        let mut pairs = one.split('.').zip(other.split('.'));
        let differ = pairs.any(|(left, right)| {
            left != right && ![left, right].iter().any(|token| matches!(*token, "*" | ">"))
        });
        let open = one.ends_with('>') || other.ends_with('>');
        !differ && (open || one.split('.').count() == other.split('.').count())
    }

    #[test]
    fn no_subject_belongs_to_two_streams() {
        let specs = Topology { partitions: 3, ..Topology::default() }.streams();
        let subjects: Vec<&str> =
            specs.iter().flat_map(|spec| spec.subjects.iter().map(String::as_str)).collect();

        for (index, one) in subjects.iter().enumerate() {
            for other in &subjects[index + 1..] {
                assert!(!overlap(one, other), "`{one}` and `{other}` overlap");
            }
        }
    }

    #[test]
    fn live_feeds_have_no_stream() {
        let specs = Topology::default().streams();

        for feed in ["fermata.audit.acme", "fermata.escalation.acme.3"] {
            assert!(
                specs.iter().flat_map(|spec| &spec.subjects).all(|subject| !overlap(subject, feed)),
                "`{feed}` is stored"
            );
        }
    }

    #[test]
    fn no_lane_takes_all_of_the_stream_however_small_and_whatever_its_frames() {
        let target = i64::try_from(LANE_FRAME_BYTES_TARGET).expect("few bytes");
        let whole = Topology::default();
        for room in [i64::MAX, 8 << 30, 4 << 30, 1 << 30, 256 << 20, 1] {
            let fitted = whole.clone().fitted_to(room).streams();
            let waiting = fitted.iter().find(|spec| spec.name == WAITING_STREAM);
            let waiting = waiting.expect("WAITING is a stream");
            let frames = waiting.max_msgs_per_subject;

            assert!(frames >= 1 && waiting.max_bytes >= MIB);
            assert!(frames * target * FULL_LANES_MIN <= waiting.max_bytes, "{frames} full frames");
            assert!(frames * target * 2 < waiting.max_bytes, "{frames} of twice the size");
        }
        assert_eq!(frames_per_lane_max(whole.limits.waiting_bytes), 1_365);
    }

    #[test]
    fn every_stream_has_a_bound() {
        for spec in Topology::default().streams() {
            assert!(spec.max_bytes > 0, "`{}` may grow without bound", spec.name);
        }
    }

    #[test]
    fn nothing_that_must_be_kept_can_be_purged() {
        for spec in Topology::default().streams() {
            let must_keep = ["AUDIT_", "CHECKPOINTS", "CONFIG", "WAITING"]
                .iter()
                .any(|prefix| spec.name.starts_with(prefix));
            assert_eq!(spec.deny_purge, must_keep, "`{}`", spec.name);
        }
    }
}
