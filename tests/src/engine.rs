//! An engine in this process.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fermata_actors::task_worker::ServedQueues;
use fermata_actors::{Engine, EngineConfig, Role};
use fermata_audit::Signer;
use fermata_core::partition::KEYS_MAX_DEFAULT;
use fermata_executors::ExecutorsConfig;
use fermata_jetstream::Topology;
use fermata_partition::snapshot::SnapshotPolicy;
use fermata_wire::replay::ReplayKeys;

use crate::TestBroker;

/// Name of every engine under test: what checkpoints begin with.
pub const ENGINE_NAME: &str = "engine-under-test";

/// How long partitions may take to find their owners.
const OWNED_LIMIT: Duration = Duration::from_secs(60);

/// What the streams of a test reserve at the most: several tests run at once, on
/// machines with little disk.
const ROOM_BYTES: i64 = 6 * 1024 * 1024 * 1024;

/// How to start an engine for a test.
#[derive(Debug)]
pub struct TestEngine {
    /// Address of the broker.
    pub url: String,
    /// Name of the worker.
    pub worker: String,
    /// Roles of the process.
    pub roles: BTreeSet<Role>,
    /// Data partitions.
    pub partitions: u16,
    /// Copies of each stream, where the engine is created now.
    pub replicas: usize,
    /// Plugins.
    pub executors: ExecutorsConfig,
    /// When partitions take snapshots.
    pub snapshots: SnapshotPolicy,
    /// Secrets of replays.
    pub replay_keys: ReplayKeys,
    /// Named queues that the process serves.
    pub queues: ServedQueues,
    /// Most keys that a partition keeps.
    pub keys_max: usize,
}

impl TestEngine {
    /// One worker with every role and two partitions.
    #[must_use]
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            worker: "w-1".to_owned(),
            roles: Role::ALL.into_iter().collect(),
            partitions: 2,
            replicas: 1,
            executors: ExecutorsConfig::default(),
            snapshots: SnapshotPolicy::default(),
            replay_keys: ReplayKeys::default(),
            queues: ServedQueues::default(),
            keys_max: KEYS_MAX_DEFAULT,
        }
    }

    /// The same under another name.
    #[must_use]
    pub fn named(self, worker: &str) -> Self {
        Self { worker: worker.to_owned(), ..self }
    }

    /// The same with these roles only.
    #[must_use]
    pub fn with_roles(self, roles: impl IntoIterator<Item = Role>) -> Self {
        Self { roles: roles.into_iter().collect(), ..self }
    }

    /// The same with these plugins.
    #[must_use]
    pub fn with_executors(self, executors: ExecutorsConfig) -> Self {
        Self { executors, ..self }
    }

    /// The same with snapshots by this policy.
    #[must_use]
    pub fn with_snapshots(self, snapshots: SnapshotPolicy) -> Self {
        Self { snapshots, ..self }
    }

    /// The same with these secrets of replays.
    #[must_use]
    pub fn with_replay_keys(self, replay_keys: ReplayKeys) -> Self {
        Self { replay_keys, ..self }
    }

    /// The same, serving these queues.
    #[must_use]
    pub fn with_queues(self, queues: ServedQueues) -> Self {
        Self { queues, ..self }
    }

    /// Starts it; checkpoints go below `folder`.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub async fn start(self, folder: &Path) -> Engine {
        let checkpoint_dir = checkpoint_dir(folder, &self.worker);
        let (partitions, replicas) = (self.partitions, self.replicas);
        let topology = Topology { partitions, replicas, ..Topology::default() };
        let read_model_dir = folder.join("read-model").join(&self.worker);
        let topology = topology.fitted_to(ROOM_BYTES);
        let config = EngineConfig {
            nats_url: self.url,
            monitor_url: None,
            worker: self.worker,
            roles: self.roles,
            topology,
            executors: self.executors,
            signer: signer(),
            engine: ENGINE_NAME.to_owned(),
            belongs_to: None,
            checkpoint_dir,
            read_model_dir,
            snapshots: self.snapshots,
            replay_keys: self.replay_keys,
            queues: self.queues,
            keys_max: self.keys_max,
        };
        Engine::start(config).await.expect("the engine starts")
    }
}

/// Starts a worker for each role, which so run apart; whoever owns partitions
/// comes first.
///
/// # Panics
///
/// When one does not start.
pub async fn start_apart(broker: &TestBroker) -> Vec<Engine> {
    let mut workers = Vec::new();
    for (role, name) in [
        (Role::Coordinator, "coordinator"),
        (Role::Builder, "builder"),
        (Role::Matcher, "matcher"),
        (Role::Listener, "listener"),
    ] {
        let worker = TestEngine::at(broker.url()).named(name).with_roles([role]);
        workers.push(worker.start(broker.folder()).await);
    }
    workers
}

/// The key that every engine under test signs with.
///
/// # Panics
///
/// Never: the name is valid.
#[must_use]
pub fn signer() -> Signer {
    Signer::from_seed("fermata-test", [7; 32]).expect("a valid key name")
}

/// Where a worker below `folder` keeps its checkpoints.
#[must_use]
pub fn checkpoint_dir(folder: &Path, worker: &str) -> PathBuf {
    folder.join("checkpoints").join(worker)
}

/// Waits until the partitions that `engines` own are `all`, together.
///
/// # Panics
///
/// When they are not in time.
pub async fn all_owned(engines: &[&Engine], all: usize) {
    let begun = Instant::now();
    loop {
        let mut owned = 0;
        for engine in engines {
            owned += owned_by(engine).await;
        }
        if owned == all {
            return;
        }
        assert!(begun.elapsed() < OWNED_LIMIT, "{owned} of {all} partitions are owned");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How many partitions `engine` owns.
pub async fn owned_by(engine: &Engine) -> usize {
    engine.status().await.iter().filter(|status| status.state == "owning").count()
}
