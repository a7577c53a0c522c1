//! What the actors reach the world through, shared by all of a process.

use std::sync::Arc;

use fermata_audit::Signer;
use fermata_core::identity::PartitionId;
use fermata_executors::CallbackTokens;
use fermata_jetstream::core_messages::CoreMessages;
use fermata_jetstream::definitions_store::DefinitionsStore;
use fermata_jetstream::leases::Leases;
use fermata_jetstream::{Broker, PublishOutcome, Publisher, Refusal, StreamReader};
use fermata_partition::message::AppendOutcome;
use fermata_partition::snapshot::SnapshotPolicy;
use fermata_wire::replay::ReplayKeys;

use tokio::sync::watch;

use crate::checkpoint_folder::CheckpointFolder;
use crate::clock::Clock;
use crate::command_room::CommandRoom;
use crate::dead_room::DeadRoom;
use crate::definitions::{Plans, Snapshot};
use crate::lanes::Lanes;
use crate::standstill::Standstills;
use crate::webhooks::Webhooks;

/// Connections and facts that every actor of the process shares.
#[derive(Debug, Clone)]
pub struct Ports {
    /// The broker.
    pub broker: Broker,
    /// Publishes with acknowledgement.
    pub publisher: Publisher,
    /// Reads streams.
    pub reader: StreamReader,
    /// Messages that nobody stores.
    pub core: CoreMessages,
    /// Definitions and blobs.
    pub store: DefinitionsStore,
    /// Leases.
    pub leases: Leases,
    /// Compiled plans by digest.
    pub plans: Plans,
    /// Active definitions.
    pub definitions: watch::Receiver<Arc<Snapshot>>,
    /// The clocks.
    pub clock: Clock,
    /// What all workers agreed on.
    pub facts: Arc<EngineFacts>,
    /// Where escalations go over HTTP.
    pub webhooks: Webhooks,
    /// How much more of what came of events COMMANDS may hold.
    pub room: CommandRoom,
    /// What takes nothing.
    pub standstills: Standstills,
    /// Marks of events that wait in lanes.
    pub lanes: Lanes,
    /// How much of DEAD each tenant takes.
    pub dead_room: DeadRoom,
}

/// What all workers of an engine agree on.
#[derive(Debug)]
pub struct EngineFacts {
    /// Name of the engine; first part of every checkpoint's origin.
    pub engine: String,
    /// Data partitions.
    pub partitions: u16,
    /// This worker's name.
    pub worker: Arc<str>,
    /// Signs checkpoints.
    pub signer: Signer,
    /// This worker's synced checkpoint files.
    pub checkpoints: CheckpointFolder,
    /// When partitions take snapshots.
    pub snapshots: SnapshotPolicy,
    /// Secrets that requests to replay are verified with.
    pub replay_keys: ReplayKeys,
    /// Most keys of events, and ids of commands, that a partition keeps.
    pub keys_max: usize,
}

impl EngineFacts {
    /// First line of a partition's checkpoints.
    #[must_use]
    pub fn origin(&self, partition: PartitionId) -> String {
        format!("{}/{partition}", self.engine)
    }

    /// Tokens by which calls are completed: the same at every worker.
    #[must_use]
    pub fn callback_tokens(&self) -> CallbackTokens {
        CallbackTokens::new(self.signer.derive("fermata callback token 1"))
    }

    /// The partition that owns an event key of a tenant.
    #[must_use]
    pub fn partition_of(&self, tenant: &str, key: &[u8]) -> PartitionId {
        PartitionId::of(&[tenant.as_bytes(), key], self.partitions)
    }
}

/// What the protocol needs to know of a publish's outcome.
#[must_use]
pub fn append_outcome(outcome: &PublishOutcome) -> AppendOutcome {
    match outcome {
        PublishOutcome::Stored { sequence, .. } => AppendOutcome::Stored { sequence: *sequence },
        PublishOutcome::Refused {
            refusal: Refusal::WrongLastSequence { .. } | Refusal::DuplicateInProcess,
            ..
        } => AppendOutcome::Conflict,
        PublishOutcome::Refused { .. } => AppendOutcome::Refused,
        PublishOutcome::Unknown => AppendOutcome::Unknown,
    }
}
