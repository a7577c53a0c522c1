//! A nats-server of our own with a folder of its own.

use fermata_jetstream::server::Placement;
use fermata_jetstream::{Durability, ManagedServer, ServerOptions};
use tempfile::TempDir;

/// How much the streams of a server under test may reserve, in bytes: more than they ever fill, and
/// more than a small disk has left.
pub const RESERVED_MAX: u64 = 64 << 30;

/// A running server; it ends and its folder goes with the value.
#[derive(Debug)]
pub struct TestBroker {
    /// The server.
    pub server: ManagedServer,
    folder: TempDir,
}

impl TestBroker {
    /// Starts a server on free loopback ports.
    ///
    /// # Panics
    ///
    /// When there is no nats-server: tests against a real one are never skipped.
    pub async fn start(durability: Durability) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data_dir = folder.path().join("nats");
        let options = ServerOptions { data_dir, durability, port: None, monitor: true };
        let place = Placement { file_store_bytes: Some(RESERVED_MAX), ..Placement::default() };
        let server = ManagedServer::start_at(options, place).await.expect("a nats-server");
        Self { server, folder }
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// A folder that lives as long as the server.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }
}
