//! An engine in this process.

use std::collections::BTreeSet;
use std::path::Path;

use fermata_actors::{Engine, EngineConfig, Role};
use fermata_audit::Signer;
use fermata_executors::ExecutorsConfig;
use fermata_jetstream::Topology;

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
    /// Plugins.
    pub executors: ExecutorsConfig,
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
            executors: ExecutorsConfig::default(),
        }
    }

    /// Starts it; checkpoints go below `folder`.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub async fn start(self, folder: &Path) -> Engine {
        let signer = Signer::from_seed("fermata-test", [7; 32]).expect("a valid key name");
        let checkpoint_dir = folder.join("checkpoints").join(&self.worker);
        let topology = Topology { partitions: self.partitions, ..Topology::default() };
        let config = EngineConfig {
            nats_url: self.url,
            worker: self.worker,
            roles: self.roles,
            topology,
            executors: self.executors,
            signer,
            engine: "engine-under-test".to_owned(),
            checkpoint_dir,
        };
        Engine::start(config).await.expect("the engine starts")
    }
}
