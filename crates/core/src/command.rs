//! What a partition is asked to decide.

mod define_parts;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::digest::Digest;
use crate::effect::Outcome;
use crate::flags::Flags;
use crate::identity::{RunId, SourcePosition, Tenant};
use crate::json::Json;
use crate::relay::SignalData;
use crate::review::ResolveCommand;

pub use define_parts::DEFINE_BYTES_MAX;
pub(crate) use define_parts::MODE_BYTES;

/// One thing to decide; the first one journaled under its id wins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// A business event with everything that matching decided about it.
    Event(EventCommand),
    /// Stop a run.
    Cancel(CancelCommand),
    /// An outcome from a runner that outlived its owner.
    Outcome(OutcomeCommand),
    /// What came of a review case.
    Case(CaseCommand),
    /// New definitions (control partition only).
    Define(DefineCommand),
    /// The outcome of a call that was accepted earlier.
    Complete(CompleteCommand),
    /// What a person decided about a review case.
    Resolve(ResolveCommand),
    /// An attempt that nobody works on any more is given up.
    Orphan(OrphanCommand),
}

/// The complete outcome of matching one event: matching may change between two
/// deliveries, so the unit that is decided once is the event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventCommand {
    /// The event, without its data.
    pub event: EventReference,
    /// Hash of (tenant, idempotency key).
    #[serde(with = "key_bytes")]
    pub key: u128,
    /// Where the event stood; the same position again is a redelivery.
    pub source: SourcePosition,
    /// Tells an authorised replay from a repeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<Uuid>,
    /// What matching decided.
    pub verdict: Verdict,
    /// For those who wait for it; absent where it has no correlation key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation: Option<Box<Correlation>>,
}

/// What those who wait for an event are told besides what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Correlation {
    /// The event's correlation key.
    pub key: Arc<str>,
    /// The event's data.
    pub data: SignalData,
}

/// What is kept of an event wherever it is mentioned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventReference {
    /// Whose event it is.
    pub tenant: Tenant,
    /// CloudEvents `id`.
    pub id: Arc<str>,
    /// CloudEvents `source`.
    pub source: Arc<str>,
    /// CloudEvents `type`.
    #[serde(rename = "type")]
    pub kind: Arc<str>,
    /// W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<Arc<str>>,
    /// Events of runs that led to this one, each started by the one before it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub hops: u32,
    /// What its contract says against it, where that does not refuse it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breach: Option<Arc<str>>,
    /// Who had it decided once more, and why, where a signed request says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replayed: Option<Arc<Replayed>>,
}

/// Who had an event decided once more, and why, as the signed request says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replayed {
    /// Who asked, as they call themselves: who signed only vouches for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Arc<str>>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Arc<str>>,
    /// That the event is a repeat, as one that is published is, where its key is claimed: who asks looked
    /// before, and what is started in between is not started twice.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unless_started: bool,
}

impl EventReference {
    /// Bytes of its texts.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let Self { tenant, id, source, kind, traceparent, hops: _, breach, replayed } = self;
        let (by, reason) = match replayed.as_deref() {
            Some(Replayed { by, reason, unless_started: _ }) => (by.as_ref(), reason.as_ref()),
            None => (None, None),
        };
        let optional = [traceparent.as_ref(), breach.as_ref(), by, reason];
        let optional = optional.into_iter().flatten().map(|text| text.len()).sum::<usize>();
        tenant.as_str().len() + id.len() + source.len() + kind.len() + optional
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(hops: &u32) -> bool {
    *hops == 0
}

/// What matching decided about an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Verdict {
    /// Start these runs, at least one.
    Start {
        /// One per chosen strategy.
        runs: Vec<StartRun>,
    },
    /// A strategy says that nothing is to happen.
    Ignored {
        /// The strategy.
        strategy: Arc<str>,
    },
    /// No strategy applies.
    Unmatched {
        /// Strategies whose type matched and why they did not apply; for people.
        near: Vec<String>,
    },
    /// The event cannot be used; its bytes are in the dead-letter stream.
    Rejected {
        /// Stable reason code.
        reason: Arc<str>,
        /// For people.
        detail: String,
        /// Digest of the original bytes.
        original: Digest,
    },
}

/// One run to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartRun {
    /// The strategy that chose it.
    pub strategy: Arc<str>,
    /// Version of the strategy.
    pub strategy_version: u32,
    /// Digest of the compiled plan.
    pub plan: Digest,
    /// What the workflow sees as `input`.
    pub input: Json,
}

/// Stops a run; accepted in every state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelCommand {
    /// Deduplicated like an event key.
    pub id: Uuid,
    /// The run.
    pub run: RunId,
    /// Who asks.
    pub by: String,
    /// Why, for people.
    pub reason: String,
    /// NATS subject for the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<Arc<str>>,
}

/// What came of an attempt whose owner has gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutcomeCommand {
    /// The run.
    pub run: RunId,
    /// The node.
    pub node: Arc<str>,
    /// Activation of the node.
    pub activation: u32,
    /// The attempt.
    pub attempt: u32,
    /// Whose run it is; absent in frames of older programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Tenant>,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a review case, from a handler that outlived its owner or that
/// runs elsewhere. Only the first one for a case is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseCommand {
    /// The case; its first two bytes are the partition, big-endian.
    pub case: Uuid,
    /// Attempt number of the notice.
    pub attempt: u32,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a call that ends by callback. Only the first outcome of the
/// effect counts, so it needs no id: a repeat is answered as late.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompleteCommand {
    /// Whose run it is.
    pub tenant: Tenant,
    /// The run.
    pub run: RunId,
    /// The node.
    pub node: Arc<str>,
    /// Activation of the node.
    pub activation: u32,
    /// What came of it.
    pub outcome: Outcome,
    /// NATS subject for the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<Arc<str>>,
}

/// Gives up an attempt that nobody works on any more: its outcome is unknown. An
/// attempt that has an outcome, or another one, is left as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrphanCommand {
    /// Whose run it is.
    pub tenant: Tenant,
    /// The run.
    pub run: RunId,
    /// The node.
    pub node: Arc<str>,
    /// The attempt.
    pub attempt: u32,
    /// Who asks.
    pub by: String,
    /// Why, for people.
    pub reason: String,
    /// NATS subject for the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<Arc<str>>,
}

/// Makes definitions active, all or none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefineCommand {
    /// Deduplicated like an event key.
    pub id: Uuid,
    /// Who asks.
    pub by: String,
    /// Strategies to add or replace by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strategies: Vec<StrategyEntry>,
    /// Workflows to add; their plans are stored under their digests already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workflows: Vec<WorkflowEntry>,
    /// NATS subject for the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<Arc<str>>,
    /// Parts of the engine to switch on or off.
    #[serde(default, skip_serializing_if = "Flags::is_empty")]
    pub flags: Flags,
    /// Contracts to add; a version never changes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contracts: Vec<ContractEntry>,
    /// What is to be done about breaches, by tenant.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub contract_modes: BTreeMap<Arc<str>, ContractMode>,
    /// Strategies to take out of use.
    #[serde(default, skip_serializing_if = "Retirement::is_empty")]
    pub retire: Retirement,
}

impl DefineCommand {
    /// How many strategies, workflows, contracts, modes and retirements are asked for.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.strategies.len()
            + self.workflows.len()
            + self.contracts.len()
            + self.contract_modes.len()
            + self.retire.strategies.len()
    }
}

/// Strategies that are taken out of use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retirement {
    /// Their names.
    pub strategies: BTreeSet<Arc<str>>,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Retirement {
    /// Whether nothing is taken out of use.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.strategies.is_empty()
    }
}

/// A contract as the control partition keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContractEntry {
    /// Whose events.
    pub tenant: Tenant,
    /// Type of the events.
    #[serde(rename = "type")]
    pub kind: Arc<str>,
    /// Name of the version; with tenant and type it means one schema for ever.
    pub version: Arc<str>,
    /// JSON Schema 2020-12 of the events' data.
    pub schema: Json,
}

/// What is done about an event that breaks its contract.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContractMode {
    /// Nothing is checked.
    Off,
    /// It goes on, and its records say what was wrong.
    #[default]
    Warn,
    /// It is rejected.
    Enforce,
}

/// A strategy as the control partition keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StrategyEntry {
    /// Unique name.
    pub name: Arc<str>,
    /// Rises with every change.
    pub version: u32,
    /// The whole definition ([`crate::strategy::StrategyDefinition`]) as JSON.
    pub definition: Json,
}

/// A workflow as the control partition keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkflowEntry {
    /// Name.
    pub name: Arc<str>,
    /// Version; a name and version mean one digest for ever.
    pub version: Arc<str>,
    /// Digest of the compiled plan's bytes.
    pub plan: Digest,
}

/// A 128-bit key as 16 bytes.
pub(crate) mod key_bytes {
    use serde::{Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(key: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&key.to_be_bytes())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<u128, D::Error> {
        struct Key;
        impl serde::de::Visitor<'_> for Key {
            type Value = u128;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("16 bytes")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<u128, E> {
                let bytes = bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))?;
                Ok(u128::from_be_bytes(bytes))
            }
        }
        deserializer.deserialize_bytes(Key)
    }
}
