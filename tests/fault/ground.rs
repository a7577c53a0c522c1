//! The servers that a test runs on, and how to reach one of them.

use std::path::Path;

use fermata_jetstream::server::{Placement, cluster_url, loopback_places, start_cluster};
use fermata_jetstream::{Durability, ManagedServer, ServerOptions};
use fermata_tests::broker::RESERVED_MAX;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Servers in a cluster of three.
pub const SERVERS: usize = 3;

fn with_room(place: Placement) -> Placement {
    Placement { file_store_bytes: Some(RESERVED_MAX), ..place }
}

/// Running servers; they end and their folders go with the value.
pub struct Ground {
    pub servers: Vec<ManagedServer>,
    folder: TempDir,
}

impl Ground {
    /// One server.
    pub async fn alone(durability: Durability) -> Self {
        Self::alone_at(durability, Placement::default()).await
    }

    /// One server at a place.
    pub async fn alone_at(durability: Durability, place: Placement) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data_dir = folder.path().join("nats");
        let options = ServerOptions { data_dir, durability, port: None, monitor: true };
        let server =
            ManagedServer::start_at(options, with_room(place)).await.expect("a nats-server");
        Self { servers: vec![server], folder }
    }

    /// A cluster on loopback.
    pub async fn cluster(durability: Durability) -> Self {
        Self::cluster_at(durability, loopback_places(SERVERS).expect("free ports")).await
    }

    /// A cluster with a server at each place.
    pub async fn cluster_at(durability: Durability, places: Vec<Placement>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let places = places.into_iter().map(with_room).collect();
        let servers = start_cluster(folder.path(), durability, places).await;
        Self { servers: servers.expect("a cluster"), folder }
    }

    /// Where clients connect: all servers.
    pub fn url(&self) -> String {
        cluster_url(&self.servers)
    }

    /// A folder that lives as long as the servers.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Copies of each stream.
    pub fn replicas(&self) -> usize {
        self.servers.len()
    }

    /// Names of the servers.
    pub fn names(&self) -> Vec<String> {
        (1..=self.servers.len()).map(|server| format!("fermata-{server}")).collect()
    }

    /// The server of a name.
    pub fn index_of(&self, name: &str) -> usize {
        self.names().iter().position(|server| server == name).expect("a server of the cluster")
    }

    /// Stops a server where it stands.
    pub fn pause(&self, server: usize) {
        self.signal(server, Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&self, server: usize) {
        self.signal(server, Signal::CONT);
    }

    fn signal(&self, server: usize, signal: Signal) {
        let pid = i32::try_from(self.servers[server].pid()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a running process"), signal).expect("a signal");
    }
}
