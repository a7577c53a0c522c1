//! Engine: one process's part of Fermata, from a broker's address to running actors.

mod replaced;
mod set_up;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fermata_audit::Signer;
use fermata_core::plan::{QUEUE_BYTES_MAX, is_queue_name};
use fermata_executors::{Executors, ExecutorsConfig};
use fermata_jetstream::core_messages::CoreMessages;
use fermata_jetstream::engine_config::EngineConfigError;
use fermata_jetstream::leases::{WORKER_NAME_BYTES_MAX, is_worker_name};
use fermata_jetstream::topology::{Drift, TopologyError};
use fermata_jetstream::{
    Broker, ConnectOptions, Publisher, PublisherOptions, StreamReader, Topology,
};
use fermata_partition::snapshot::SnapshotPolicy;
use fermata_wire::replay::ReplayKeys;
use ractor::{Actor, ActorRef};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use self::replaced::EngineReplaced;
use self::set_up::{SetUp, set_up_in_time};
use crate::callbacks;
use crate::checkpoint_folder::CheckpointFolder;
use crate::clock::Clock;
use crate::command_room::CommandRoom;
use crate::coordinator::PartitionStatus;
use crate::dead_room::DeadRoom;
use crate::definitions::{Plans, watch_definitions};
use crate::figures::Gauges;
use crate::lanes::Lanes;
use crate::metrics::Metrics;
use crate::ports::{EngineFacts, Ports};
use crate::standstill::Standstills;
use crate::started_with::StartedWith;
use crate::supervisor::{DRAIN_LIMIT, Drained, Supervisor, SupervisorMessage};
use crate::task_worker::ServedQueues;
use crate::webhooks::Webhooks;

/// Publishes that may be unanswered at once in this process.
const PUBLISH_WINDOW: usize = 2_048;

/// How long a status may take.
const STATUS_LIMIT: Duration = Duration::from_secs(5);

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Events in.
    Listener,
    /// Strategies.
    Matcher,
    /// Plans and commands.
    Builder,
    /// Partitions: decisions, effects, audit.
    Coordinator,
    /// The read model of runs.
    Projector,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 5] =
        [Self::Listener, Self::Matcher, Self::Builder, Self::Coordinator, Self::Projector];

    /// Its name, as it is typed and told.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::Matcher => "matcher",
            Self::Builder => "builder",
            Self::Coordinator => "coordinator",
            Self::Projector => "projector",
        }
    }
}

/// Text that is no role.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not a role; the roles are listener, matcher, builder, coordinator, projector")]
pub struct NotARole(String);

impl FromStr for Role {
    type Err = NotARole;

    fn from_str(text: &str) -> Result<Self, NotARole> {
        let meant = Self::ALL.into_iter().find(|role| role.as_str() == text);
        meant.ok_or_else(|| NotARole(text.chars().take(40).collect()))
    }
}

/// What a process is started with.
#[derive(Debug)]
pub struct EngineConfig {
    /// Address of the broker.
    pub nats_url: String,
    /// Where the broker's server tells how much room its streams may take (`http://127.0.0.1:8222`), if it does.
    pub monitor_url: Option<String>,
    /// This worker's name: letters, digits, `-` and `_`, unique among the workers of an engine,
    /// the same after a restart so that it takes its leases back at once.
    pub worker: String,
    /// What it does.
    pub roles: BTreeSet<Role>,
    /// Streams to create where there are none.
    pub topology: Topology,
    /// Plugins that may be called.
    pub executors: ExecutorsConfig,
    /// Signs checkpoints.
    pub signer: Signer,
    /// Name of the engine, where it is created now; 16 random bytes as text.
    pub engine: String,
    /// Name of the engine that this process belonged to before, if it is known: it starts for no other one.
    pub belongs_to: Option<String>,
    /// Folder for synced checkpoint files.
    pub checkpoint_dir: PathBuf,
    /// Folder for the read model; one process at a time uses it.
    pub read_model_dir: PathBuf,
    /// When partitions take snapshots.
    pub snapshots: SnapshotPolicy,
    /// Secrets that requests to replay are verified with; none refuses them all.
    pub replay_keys: ReplayKeys,
    /// Named queues that this process serves.
    pub queues: ServedQueues,
    /// Most keys of events, and ids of commands, that a partition keeps.
    pub keys_max: usize,
}

/// What all workers of an engine agree on, as it stands in CONFIG.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineAgreement {
    /// Layout of this message.
    pub version: u16,
    /// Name of the engine.
    pub engine: String,
    /// Data partitions.
    pub partitions: u16,
    /// Key that checkpoints are verified with.
    pub audit_vkey: String,
}

/// Why an engine did not start.
#[derive(Debug, Error)]
pub enum EngineError {
    /// No connection to the broker.
    #[error(transparent)]
    Connect(#[from] fermata_jetstream::connection::ConnectError),
    /// The streams could not be set up.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// Streams are not as they must be.
    #[error("{}; `fermata doctor` explains", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Drift(Vec<Drift>),
    /// No agreement on the engine.
    #[error(transparent)]
    Agree(#[from] EngineConfigError),
    /// The agreement cannot be read.
    #[error("the engine's configuration cannot be read; was it written by a newer version?")]
    Agreement(#[source] serde_json::Error),
    /// This process would sign with another key than the engine's.
    #[error("the audit key is `{own}`, the engine's is `{agreed}`; start with the engine's key")]
    OtherKey {
        /// This process's.
        own: String,
        /// The engine's.
        agreed: String,
    },
    /// The plugins cannot be used as configured.
    #[error(transparent)]
    Executors(#[from] fermata_executors::ConfigError),
    /// The broker has another engine than the one that this process belongs to, or none.
    #[error(transparent)]
    Replaced(EngineReplaced),
    /// A part of the broker could not be opened.
    #[error("could not open {what}")]
    Open {
        /// Which part.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The checkpoint folder cannot be made.
    #[error("could not make the folder `{}`", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The worker's name cannot be a token of a key.
    #[error(
        "`{name}` cannot name a worker; use letters, digits, `-` and `_`, {WORKER_NAME_BYTES_MAX} at most"
    )]
    WorkerName {
        /// The name.
        name: String,
    },
    /// A queue cannot have this name.
    #[error(
        "`{name}` cannot name a queue; use 1 to {QUEUE_BYTES_MAX} lower-case letters, digits and `-`, starting with a letter or digit"
    )]
    QueueName {
        /// The name.
        name: String,
    },
    /// The supervisor did not start.
    #[error("the actors did not start")]
    Start(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl EngineError {
    /// Whether starting again may go well without anybody changing anything.
    fn is_transient(&self) -> bool {
        match self {
            Self::Topology(TopologyError::Api { source, .. }) => source.is_transient(),
            Self::Agree(error) => error.is_transient(),
            // The streams behind it were there a moment ago.
            Self::Open { .. } => true,
            // Servers that start together may not know all of their streams at once.
            Self::Replaced(replaced) => replaced.found.is_none(),
            Self::Topology(TopologyError::NoRoom { .. } | TopologyError::NotAllFit(_))
            | Self::Connect(_)
            | Self::Drift(_)
            | Self::Agreement(_)
            | Self::OtherKey { .. }
            | Self::Executors(_)
            | Self::Folder { .. }
            | Self::WorkerName { .. }
            | Self::QueueName { .. }
            | Self::Start(_) => false,
        }
    }

    fn open<E: std::error::Error + Send + Sync + 'static>(
        what: &'static str,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Open { what, source: Box::new(source) }
    }
}

/// A running part of Fermata. Clones are handles of the same one.
#[derive(Debug, Clone)]
pub struct Engine {
    supervisor: ActorRef<SupervisorMessage>,
    ended: watch::Receiver<bool>,
    ports: Ports,
    /// Takes completions of calls, and looks whose the broker is; ends with the last handle of the engine.
    _beside: Arc<JoinSet<()>>,
    gauges: Arc<Gauges>,
    is_draining: Arc<AtomicBool>,
    started_with: Arc<StartedWith>,
}

impl Engine {
    /// Connects, sets up what is missing, and starts the actors.
    ///
    /// # Errors
    ///
    /// [`EngineError`], naming what stands in the way.
    ///
    /// # Cancel safety
    ///
    /// Streams may have been created; start again.
    pub async fn start(config: EngineConfig) -> Result<Self, EngineError> {
        if !is_worker_name(&config.worker) {
            return Err(EngineError::WorkerName { name: config.worker });
        }
        if let Some(name) = config.queues.names.iter().find(|name| !is_queue_name(name)) {
            return Err(EngineError::QueueName { name: name.clone() });
        }
        let started_with = StartedWith::of(&config);
        let name = format!("fermata {}", config.worker);
        let options = ConnectOptions { name, ..ConnectOptions::default() };
        let broker = Broker::connect(&config.nats_url, options).await?;
        let publisher_options =
            PublisherOptions { window: PUBLISH_WINDOW, ..PublisherOptions::default() };
        let publisher = Publisher::new(&broker, publisher_options)
            .await
            .map_err(EngineError::open("the publisher"))?;
        let SetUp { agreement, store, leases, journal_bytes, .. } =
            set_up_in_time(&broker, &publisher, &config).await?;
        let checkpoints = CheckpointFolder::open(config.checkpoint_dir.clone())
            .map_err(|source| EngineError::Folder { path: config.checkpoint_dir, source })?;
        let executors =
            Executors::beside(&config.executors, std::slice::from_ref(&config.nats_url))?;
        let executors = Arc::new(executors);
        let facts = EngineFacts {
            engine: agreement.engine,
            partitions: agreement.partitions,
            worker: config.worker.into(),
            signer: config.signer,
            checkpoints,
            snapshots: config.snapshots.within(journal_bytes),
            replay_keys: config.replay_keys,
            keys_max: config.keys_max,
        };
        let plans = Plans::new(store.clone());
        let ports = Ports {
            reader: StreamReader::new(&broker),
            core: CoreMessages::new(&broker),
            definitions: watch_definitions(store.clone(), plans.clone()),
            room: CommandRoom::new(&broker),
            broker,
            publisher,
            store,
            leases,
            plans,
            clock: Clock::start(),
            facts: Arc::new(facts),
            webhooks: Webhooks::new(executors.clone(), &config.executors.webhooks),
            standstills: Standstills::default(),
            lanes: Lanes::default(),
            dead_room: DeadRoom::default(),
        };
        let folder = config.read_model_dir;
        Self::spawn(ports, config.roles, executors, folder, config.queues, started_with).await
    }

    async fn spawn(
        ports: Ports,
        roles: BTreeSet<Role>,
        executors: Arc<Executors>,
        read_model_dir: PathBuf,
        queues: ServedQueues,
        started_with: StartedWith,
    ) -> Result<Self, EngineError> {
        let supervisor = Supervisor {
            ports: ports.clone(),
            roles,
            executors,
            metrics: Metrics::new(),
            read_model_dir,
            queues,
        };
        let mut beside = JoinSet::new();
        let broker = ports.broker.clone();
        beside.spawn(async move { broker.watch_engine().await });
        if supervisor.roles.contains(&Role::Coordinator) {
            beside.spawn(callbacks::listen(ports.clone()));
        }
        let (supervisor, ended) = Actor::spawn(None, supervisor, ())
            .await
            .map_err(|error| EngineError::Start(Box::new(error)))?;
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            let _ = ended.await;
            // Nobody may be waiting for it.
            let _ = sender.send(true);
        });
        let (gauges, is_draining) = (Arc::default(), Arc::default());
        let engine = Self {
            supervisor,
            ended: receiver,
            ports,
            _beside: Arc::new(beside),
            gauges,
            is_draining,
            started_with: Arc::new(started_with),
        };
        tokio::spawn(engine.clone().answer_status());
        Ok(engine)
    }

    /// How the partitions of this process stand.
    pub async fn status(&self) -> Vec<PartitionStatus> {
        match self.supervisor.call(SupervisorMessage::Status, Some(STATUS_LIMIT)).await {
            Ok(ractor::rpc::CallResult::Success(status)) => status,
            Ok(_) | Err(_) => Vec::new(),
        }
    }

    /// What this process was started with, as far as others are told.
    #[must_use]
    pub fn started_with(&self) -> &Arc<StartedWith> {
        &self.started_with
    }

    pub(crate) fn gauges(&self) -> &Gauges {
        &self.gauges
    }

    /// What this process reaches the world through.
    #[must_use]
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// Waits until another engine, or none, is found where this one's broker was. From then on it does nothing any
    /// more, for it is not connected again.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn replaced(&self) -> EngineReplaced {
        EngineReplaced::of(&self.ports.facts.engine, self.ports.broker.replaced().await)
    }

    /// Waits until the engine has given up: an actor kept failing.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn ended(&self) {
        // An error means that the waiting task is gone, and so is the engine.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }

    /// Whether it was asked to end.
    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// Finishes what is in flight, gives partitions and leases back, and ends.
    /// Attempts under way are not waited for: they are ordered again.
    pub async fn shut_down(self) {
        self.drain(Duration::ZERO).await;
    }

    /// Takes nothing more, lets attempts that are under way end for as long as
    /// `limit`, gives partitions and leases back, and ends; says what had not ended.
    ///
    /// # Cancel safety
    ///
    /// The engine goes on ending.
    pub async fn drain(&self, limit: Duration) -> Drained {
        self.is_draining.store(true, Ordering::Relaxed);
        // Each step has its own limit; all of them together have this.
        let whole = limit + DRAIN_LIMIT * 6;
        let drain = |reply| SupervisorMessage::Drain(limit, reply);
        let drained = match self.supervisor.call(drain, Some(whole)).await {
            Ok(ractor::rpc::CallResult::Success(drained)) => drained,
            Ok(_) | Err(_) => Drained::default(),
        };
        let _ = tokio::time::timeout(DRAIN_LIMIT, self.ended()).await;
        // The last checkpoints of the auditors that have just ended.
        let stored = self.ports.facts.checkpoints.stored();
        let _ = tokio::time::timeout(DRAIN_LIMIT, stored).await;
        drained
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_has_one_name() {
        for role in Role::ALL {
            assert_eq!(serde_json::to_value(role).ok(), Some(role.as_str().into()));
            assert_eq!(role.as_str().parse(), Ok(role));
        }
    }
}
