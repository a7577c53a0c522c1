//! What a partition has decided: the vocabulary of the journal.
//!
//! A record is a public [`Header`] and a private payload ([`Body`]). The audit
//! log holds the header and a keyed commitment to the payload, so a payload can
//! be erased later without touching the log. Kinds are recorded for ever: add
//! kinds and optional fields, never change one.

mod ending;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::command::{
    ContractEntry, ContractMode, EventReference, Retirement, StrategyEntry, WorkflowEntry,
    key_bytes,
};
use crate::digest::Digest;
use crate::effect::Outcome;
use crate::flags::Flags;
use crate::identity::{JournalTime, PartitionId, RunId, SourcePosition, Tenant};
use crate::json::Json;
use crate::plan::FailureClass;
use crate::relay::{RelayCommand, Signal, Waiter};
use crate::review::{Resolution, is_zero};

pub use ending::{CancelAnswer, EndReason};

/// Version of the header and of the leaf computed from it. A record's leaf is
/// computed by the rules of its own version for ever.
pub const RECORD_VERSION: u8 = 1;

/// The public part of a record: what an auditor sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// [`RECORD_VERSION`] of the writer.
    #[serde(rename = "v")]
    pub version: u8,
    /// Place in the journal's records, from 0; also the leaf's index.
    pub index: u64,
    /// Journal time, milliseconds since 1970.
    pub time: JournalTime,
    /// What happened.
    pub kind: Kind,
    /// Whose record it is; absent for the partition's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Tenant>,
    /// The run concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The node concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Arc<str>>,
    /// The node's activation; absent means 1.
    #[serde(default = "first", skip_serializing_if = "is_first")]
    pub activation: u32,
    /// The attempt, from 1; absent where none is concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
}

fn first() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_first(activation: &u32) -> bool {
    *activation == 1
}

/// For whom an attempt is that its owner does not make itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Queued {
    /// The queue.
    pub queue: Arc<str>,
    /// When the attempt counts as failed, journal time.
    pub due: JournalTime,
}

/// A record before the journal gives it an index and a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Whose record it is; absent for the partition's own.
    pub tenant: Option<Tenant>,
    /// The run concerned.
    pub run: Option<RunId>,
    /// The node concerned.
    pub node: Option<Arc<str>>,
    /// The node's activation, from 1.
    pub activation: u32,
    /// The attempt, from 1.
    pub attempt: Option<u32>,
    /// The private part.
    pub body: Body,
}

impl Record {
    /// A record of the partition itself.
    #[must_use]
    pub fn of_partition(body: Body) -> Self {
        Self { tenant: None, run: None, node: None, activation: 1, attempt: None, body }
    }

    /// A record of a tenant.
    #[must_use]
    pub fn of_tenant(tenant: &Tenant, body: Body) -> Self {
        Self { tenant: Some(tenant.clone()), ..Self::of_partition(body) }
    }

    /// A record of a run.
    #[must_use]
    pub fn of_run(tenant: &Tenant, run: RunId, body: Body) -> Self {
        Self { run: Some(run), ..Self::of_tenant(tenant, body) }
    }

    /// A record of a node of a run.
    #[must_use]
    pub fn of_node(tenant: &Tenant, run: RunId, node: &Arc<str>, body: Body) -> Self {
        Self { node: Some(node.clone()), ..Self::of_run(tenant, run, body) }
    }

    /// The same record about attempt number `attempt`.
    #[must_use]
    pub fn attempt(self, attempt: u32) -> Self {
        Self { attempt: Some(attempt), ..self }
    }

    /// The header that the record has at `index` and `time`.
    #[must_use]
    pub fn header(&self, index: u64, time: JournalTime) -> Header {
        Header {
            version: RECORD_VERSION,
            index,
            time,
            kind: self.body.kind(),
            tenant: self.tenant.clone(),
            run: self.run,
            node: self.node.clone(),
            activation: self.activation,
            attempt: self.attempt,
        }
    }

    /// Puts a decoded header and body together again.
    #[must_use]
    pub fn from_parts(header: Header, body: Body) -> Self {
        let Header { tenant, run, node, activation, attempt, .. } = header;
        Self { tenant, run, node, activation, attempt, body }
    }
}

macro_rules! kinds {
    ($( $(#[$doc:meta])* $variant:ident $name:literal { $( $(#[$attr:meta])* $field:ident : $type:ty ),* $(,)? } )*) => {
        /// What happened, as one word in the public header.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Kind { $( $(#[$doc])* #[serde(rename = $name)] $variant, )* }

        impl Kind {
            /// Every kind there is.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )* ];

            /// The kind as written in headers.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $name, )* }
            }
        }

        $(
            $(#[$doc])*
            #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
            #[serde(deny_unknown_fields)]
            pub struct $variant {
                $(
                    #[doc = concat!("`", stringify!($field), "` of `", $name, "`; `docs/records.md` describes it.")]
                    $(#[$attr])*
                    pub $field: $type,
                )*
            }

            impl From<$variant> for Body {
                fn from(payload: $variant) -> Self {
                    Self::$variant(payload)
                }
            }
        )*

        /// The private part of a record.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Body { $( $(#[$doc])* $variant($variant), )* }

        impl Body {
            /// The kind that goes with this payload.
            #[must_use]
            pub fn kind(&self) -> Kind {
                match self { $( Self::$variant(_) => Kind::$variant, )* }
            }

            /// Serialises the payload alone.
            ///
            /// # Errors
            ///
            /// The serializer's.
            pub fn serialize_payload<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self { $( Self::$variant(payload) => payload.serialize(serializer), )* }
            }

            /// Deserialises the payload of a record of `kind`.
            ///
            /// # Errors
            ///
            /// The deserializer's, or that the payload is not of that kind.
            pub fn deserialize_payload<'de, D: Deserializer<'de>>(
                kind: Kind,
                deserializer: D,
            ) -> Result<Self, D::Error> {
                match kind { $( Kind::$variant => $variant::deserialize(deserializer).map(Self::$variant), )* }
            }
        }
    };
}

kinds! {
    /// A worker took the partition over; everything after is decided by it.
    PartitionOwned "partition.owned" { epoch: u64, worker: Arc<str>, incarnation: Uuid }
    /// A message that no owner wrote stands in the journal; every reader skips it.
    ForeignSkipped "partition.foreign_skipped" { sequence: u64 }
    /// A command was consumed without a decision; its bytes go to the dead letters.
    CommandPoisoned "command.poisoned" {
        sequence: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        index: Option<u32>,
        reason: Arc<str>,
        detail: String,
    }
    /// The bytes of a poisoned command are in the dead-letter stream.
    DeadFiled "command.dead_filed" {
        sequence: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        index: Option<u32>,
    }
    /// An event was accepted and starts runs.
    EventStarted "event.started" {
        event: EventReference,
        #[serde(with = "key_bytes")]
        key: u128,
        source: SourcePosition,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replay: Option<Uuid>,
        runs: Vec<RunId>,
    }
    /// An event was accepted and a strategy says that nothing is to happen.
    EventIgnored "event.ignored" {
        event: EventReference,
        #[serde(with = "key_bytes")]
        key: u128,
        source: SourcePosition,
        strategy: Arc<str>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replay: Option<Uuid>,
    }
    /// An event was accepted and no strategy applies; a person looks at its case.
    EventUnmatched "event.unmatched" {
        event: EventReference,
        #[serde(with = "key_bytes")]
        key: u128,
        source: SourcePosition,
        near: Vec<String>,
        case: Uuid,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replay: Option<Uuid>,
    }
    /// An event cannot be used; its bytes are in the dead-letter stream.
    EventRejected "event.rejected" {
        event: EventReference,
        source: SourcePosition,
        reason: Arc<str>,
        detail: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        original: Option<Digest>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replay: Option<Uuid>,
    }
    /// An event repeats one that started work; nothing happens.
    EventRepeated "event.repeated" {
        event: EventReference,
        #[serde(with = "key_bytes")]
        key: u128,
        source: SourcePosition,
        first: SourcePosition,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replay: Option<Uuid>,
    }
    /// A run began.
    RunStarted "run.started" {
        event: EventReference,
        strategy: Arc<str>,
        strategy_version: u32,
        workflow: Arc<str>,
        workflow_version: Arc<str>,
        plan: Digest,
        input: Json,
        deadline: JournalTime,
    }
    /// An attempt is ordered; it may start once this record is durable.
    NodeDispatched "node.dispatched" {
        input: Json,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        queued: Option<Queued>,
    }
    /// A node ended well.
    NodeSucceeded "node.succeeded" { output: Json }
    /// An attempt failed and another is due.
    NodeRetrying "node.retrying" { class: FailureClass, detail: String, due: JournalTime }
    /// A node failed for good.
    NodeFailed "node.failed" { class: FailureClass, detail: String }
    /// A node is not taken.
    NodeSkipped "node.skipped" {}
    /// Nobody can tell whether the node's effect happened; a person decides.
    NodeUnknown "node.unknown" { detail: String }
    /// A run takes nothing new on and waits for what is under way.
    RunClosing "run.closing" { reason: EndReason }
    /// A run ended well.
    RunSucceeded "run.succeeded" {}
    /// A run ended because a node failed.
    RunFailed "run.failed" { reason: EndReason }
    /// A run ended because someone asked.
    RunCancelled "run.cancelled" { reason: EndReason }
    /// A run ended because it took too long.
    RunTimedOut "run.timed_out" { reason: EndReason }
    /// A run ended because a record decided for it would not fold.
    RunQuarantined "run.quarantined" { detail: String }
    /// An outcome came after its effect already had one, or for no run; changes nothing.
    EffectLate "effect.late" { outcome: Outcome }
    /// A review case was opened; its handler is spawned once this record is durable.
    CaseOpened "case.opened" {
        case: Uuid,
        tier: u8,
        reason: Arc<str>,
        detail: Json,
    }
    /// A case's handler is spawned again; the attempt is in the header.
    CaseNotifying "case.notifying" { case: Uuid }
    /// A case's handler has told whom it had to tell, or could not.
    CaseNotified "case.notified" { case: Uuid, outcome: Outcome }
    /// A cancel command was answered.
    CancelAnswered "cancel.answered" {
        id: Uuid,
        run: RunId,
        by: String,
        reason: String,
        answer: CancelAnswer,
    }
    /// Definitions became active, all of the command.
    DefinitionsApplied "definitions.applied" {
        id: Uuid,
        by: String,
        revision: u64,
        strategies: Vec<StrategyEntry>,
        workflows: Vec<WorkflowEntry>,
        #[serde(default, skip_serializing_if = "Flags::is_empty")]
        flags: Flags,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        contracts: Vec<ContractEntry>,
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        contract_modes: BTreeMap<Arc<str>, ContractMode>,
        #[serde(default, skip_serializing_if = "Retirement::is_empty")]
        retire: Retirement,
    }
    /// Definitions were refused, all of the command; the old ones stay active.
    DefinitionsRefused "definitions.refused" { id: Uuid, by: String, problems: Vec<String> }
    /// A delay began; it ends well once this time has come.
    NodeDelayed "node.delayed" { due: JournalTime }
    /// A call was accepted; its outcome comes by callback, or the attempt fails when this time has come.
    NodeAccepted "node.accepted" { due: JournalTime }
    /// A command to another partition; it is sent once this record is durable.
    OutboxQueued "outbox.queued" {
        target: PartitionId,
        index: u64,
        previous: u64,
        command: RelayCommand,
    }
    /// A target's COMMANDS holds every command for it up to an index.
    OutboxDelivered "outbox.delivered" { target: PartitionId, up_to: u64 }
    /// Commands of another partition were taken, up to and with an index.
    RelayTaken "relay.taken" { source: PartitionId, index: u64, previous: u64 }
    /// An event was accepted that starts no run and has a correlation key:
    /// whoever waits under that key is told.
    EventSignalled "event.signalled" {
        event: EventReference,
        #[serde(with = "key_bytes")]
        key: u128,
        source: SourcePosition,
        correlation: Arc<str>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        strategy: Option<Arc<str>>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        near: Vec<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replay: Option<Uuid>,
    }
    /// A node waits for an event, until it is due.
    NodeWaiting "node.waiting" { event: Arc<str>, correlation: Arc<str>, due: JournalTime }
    /// A node of a run waits under a correlation key of this partition.
    WaitSubscribed "wait.subscribed" { key: Arc<str>, event: Arc<str>, waiter: Waiter }
    /// A node waits no longer under a correlation key.
    WaitClosed "wait.closed" { key: Arc<str>, waiter: Waiter }
    /// A node's wait ended by an event; one that was kept is nobody else's.
    WaitMatched "wait.matched" {
        key: Arc<str>,
        waiter: Waiter,
        id: Arc<str>,
        source: Arc<str>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kept: Option<u64>,
    }
    /// Nobody waits for an event with a correlation key; it is kept for a while.
    SignalKept "signal.kept" { number: u64, signal: Signal, expires: JournalTime }
    /// Nobody took an event with a correlation key.
    SignalExpired "signal.expired" {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        number: Option<u64>,
        key: Arc<str>,
        event: EventReference,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        case: Option<Uuid>,
    }
    /// A person decided about a case; orders that its events are decided once more.
    CaseResolved "case.resolved" {
        case: Uuid,
        resolution: Resolution,
        by: Arc<str>,
        reason: String,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        events: Vec<SourcePosition>,
        #[serde(default, skip_serializing_if = "is_zero")]
        left_out: u64,
    }
    /// Partitions hold the order to decide the events of a case once more.
    CaseReplayed "case.replayed" { case: Uuid, asked: u32, missing: u32 }
    /// Somebody accepted that the journal lost records: it goes on with this one.
    TruncationAccepted "partition.truncation_accepted" {
        from: u64,
        signed: u64,
        next: u64,
        checkpoint: String,
        subtrees: Vec<Digest>,
        by: String,
        reason: String,
    }
    /// The bytes of an event that the partition rejected are in the dead-letter stream.
    EventFiled "event.dead_filed" { source: SourcePosition }
}

impl Kind {
    /// Whether nothing may follow about the run.
    #[must_use]
    pub fn ends_run(self) -> bool {
        matches!(
            self,
            Self::RunSucceeded
                | Self::RunFailed
                | Self::RunCancelled
                | Self::RunTimedOut
                | Self::RunQuarantined
        )
    }

    /// Whether the record says what became of an accepted event.
    #[must_use]
    pub fn is_event_outcome(self) -> bool {
        matches!(
            self,
            Self::EventStarted
                | Self::EventIgnored
                | Self::EventUnmatched
                | Self::EventRejected
                | Self::EventRepeated
                | Self::EventSignalled
        )
    }
}
