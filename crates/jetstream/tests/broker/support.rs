//! A server of its own for each test, on a free port and in a folder that goes away.

use std::time::Duration;

use fermata_jetstream::{
    Broker, Bytes, ConnectOptions, Durability, ManagedServer, Publisher, PublisherOptions,
    ServerOptions, Topology,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Longest that a test waits for something that must happen.
pub const SOON: Duration = Duration::from_secs(60);

pub struct Stage {
    pub server: ManagedServer,
    pub broker: Broker,
    pub publisher: Publisher,
    pub _folder: TempDir,
}

/// A server without JetStream; it ends with the value.
pub struct PlainServer {
    pub url: String,
    process: std::process::Child,
    _folder: TempDir,
}

impl PlainServer {
    /// With what `config` says beside where it listens.
    pub async fn start(config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("nats.conf");
        let ports = folder.path();
        let config = format!("listen: \"127.0.0.1:-1\"\nports_file_dir: {ports:?}\n{config}");
        std::fs::write(&file, config).expect("written");
        let (binary, _) = fermata_jetstream::server::find_server_binary().expect("a binary");
        let mut command = std::process::Command::new(binary);
        command.arg("-c").arg(&file).stderr(std::process::Stdio::null());
        let process = command.spawn().expect("a server");
        let ports = folder.path().join(format!("nats-server_{}.ports", process.id()));
        let url = loop {
            let text = std::fs::read_to_string(&ports).unwrap_or_default();
            if let Some(url) = text.split('"').find(|part| part.starts_with("nats://")) {
                break url.to_owned();
            }
            tokio::task::yield_now().await;
        };
        Self { url, process, _folder: folder }
    }
}

impl Drop for PlainServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn options(folder: &TempDir) -> ServerOptions {
    ServerOptions {
        data_dir: folder.path().join("nats"),
        durability: Durability::Process,
        port: None,
        monitor: false,
    }
}

pub async fn connect(server: &ManagedServer) -> Broker {
    let options = ConnectOptions { connect_limit: SOON, ..ConnectOptions::default() };
    Broker::connect(&server.url(), options).await.expect("a connection")
}

impl Stage {
    /// A server with the streams of one data partition.
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let server = ManagedServer::start(options(&folder))
            .await
            .expect("a server; `make tools` gets the binary");
        let broker = connect(&server).await;
        small_topology().apply(&broker).await.expect("streams");
        let options = PublisherOptions { answer_limit: SOON, ..PublisherOptions::default() };
        let publisher = Publisher::new(&broker, options).await.expect("a publisher");
        Self { server, broker, publisher, _folder: folder }
    }

    /// Publishes numbers as text and waits for all of them to be stored.
    pub async fn fill(&self, subject: &str, numbers: std::ops::RangeInclusive<u64>) {
        let mut receipts = Vec::new();
        for number in numbers {
            receipts
                .push(self.publisher.publish(subject, None, Bytes::from(number.to_string())).await);
        }
        for receipt in receipts {
            receipt.await.sequence().expect("stored");
        }
    }

    /// Publishes `body` behind a block of headers as it is, which no client library need send.
    pub async fn publish_block(&self, subject: &str, block: &[u8]) {
        let url = self.server.url();
        let address = url.trim_start_matches("nats://");
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
        let sizes = format!("{} {}", block.len(), block.len() + 4);
        let connect = "CONNECT {\"verbose\":false,\"headers\":true}\r\n";
        let start = format!("{connect}HPUB {subject} {sizes}\r\n");
        let sent = [start.as_bytes(), block, b"body\r\nPING\r\n"].concat();
        stream.write_all(&sent).await.expect("sent");
        let mut answer = Vec::new();
        while !answer.ends_with(b"PONG\r\n") {
            let mut chunk = [0; 4096];
            let bytes = stream.read(&mut chunk).await.expect("an answer");
            assert!(bytes > 0, "{}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&chunk[..bytes]);
        }
    }
}

pub fn small_topology() -> Topology {
    // What a machine may have left on its disk.
    Topology { partitions: 1, ..Topology::default() }.fitted_to(4 * 1024 * 1024 * 1024)
}
