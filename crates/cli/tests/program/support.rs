//! A broker with the streams of one data partition, and the program beside it.

use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use fermata_core::identity::{JournalTime, PartitionId, StreamPosition};
use fermata_core::record::Record;
use fermata_jetstream::connection::ConnectOptions;
use fermata_jetstream::engine_config::agree_on_engine_config;
use fermata_jetstream::server::Placement;
use fermata_jetstream::{
    Broker, Durability, ManagedServer, Publisher, PublisherOptions, ServerOptions, Topology,
};
use fermata_wire::journal::{FrameBuilder, FrameHead};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use uuid::Uuid;

/// Longest that a test waits for something that must happen: longer than anything that this program waits for
/// itself, the 30 s after which the broker delivers again and a command gives up among them.
pub const SOON: Duration = Duration::from_secs(90);

pub const WRITER: &str = "test";
pub const ENGINE: &str = "test-engine";
pub const SALT: [u8; 16] = [9; 16];
pub const PARTITION: PartitionId = PartitionId(0);

/// How the program ended and what it printed.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Standard output as JSON lines.
    pub fn json(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    /// The first check of `fermata doctor --json` whose `member` is `value`.
    pub fn check(&self, member: &str, value: &str) -> Option<Value> {
        self.json().into_iter().find(|check| check[member] == value)
    }
}

pub struct Stage {
    pub server: ManagedServer,
    pub broker: Broker,
    pub publisher: Publisher,
    pub folder: TempDir,
}

pub fn write_key(file: &std::path::Path) {
    std::fs::write(file, signer().to_private_text()).expect("a file");
}

pub fn signer() -> fermata_audit::Signer {
    fermata_audit::Signer::from_seed(ENGINE, [1; 32]).expect("a key")
}

pub fn topology() -> Topology {
    // What a machine may have left on its disk.
    Topology { partitions: 1, ..Topology::default() }.fitted_to(4 * 1024 * 1024 * 1024)
}

/// The program with `arguments`, not started.
pub fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fermata"));
    command.args(arguments).env_remove("FERMATA_NATS_URL").env("NO_COLOR", "1");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

pub async fn run(arguments: &[&str]) -> Ended {
    let output = tokio::time::timeout(SOON, program(arguments).output());
    let output = output.await.expect("the program ends").expect("the program starts");
    Ended {
        code: output.status.code().expect("the program was not killed"),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

/// Has `fermata doctor` look around until what it found is `enough`: it waits for workers and for the broker's
/// time no longer than 2 s, and a worker that has just started hears its question a moment later.
pub async fn examined_until(
    examine: impl AsyncFn() -> Ended,
    enough: impl Fn(&Ended) -> bool,
) -> Ended {
    let begun = Instant::now();
    loop {
        let examined = examine().await;
        if enough(&examined) {
            return examined;
        }
        assert!(begun.elapsed() < SOON, "{}{}", examined.stdout, examined.stderr);
    }
}

/// A port that is free, and that the system gives to nobody who asks for any: it lies below
/// the range that these are taken from.
pub fn free_port() -> u16 {
    // Those who ask in one process begin to look at different places.
    static ASKED: AtomicU16 = AtomicU16::new(0);
    let asked = ASKED.fetch_add(1_000, Ordering::Relaxed);
    let first = 10_000 + (std::process::id() as u16 % 10_000 + asked % 10_000) % 10_000;
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (first..first + 10_000).find(is_free).expect("a free port")
}

impl Stage {
    /// A broker without an engine.
    pub async fn bare() -> Self {
        Self::placed(Placement::default()).await
    }

    /// As [`Self::bare`], whose streams may reserve so many bytes.
    pub async fn bare_with_store(bytes: u64) -> Self {
        let placement = Placement { file_store_bytes: Some(bytes), ..Placement::default() };
        Self::placed(placement).await
    }

    async fn placed(placement: Placement) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options = ServerOptions {
            data_dir: folder.path().join("nats"),
            durability: Durability::Process,
            port: None,
            monitor: true,
        };
        let server = ManagedServer::start_at(options, placement).await;
        let server = server.expect("a server; `make tools` gets it");
        let broker = Broker::connect(&server.url(), ConnectOptions::default()).await.unwrap();
        let publisher = Publisher::new(&broker, PublisherOptions::default()).await.unwrap();
        Self { server, broker, publisher, folder }
    }

    /// A broker on which an engine was set up.
    pub async fn new() -> Self {
        Self::bare().await.set_up().await
    }

    /// As [`Self::new`], on a broker whose streams may reserve so many bytes.
    pub async fn with_store(bytes: u64) -> Self {
        Self::bare_with_store(bytes).await.set_up().await
    }

    async fn set_up(self) -> Self {
        let stage = self;
        topology().apply(&stage.broker).await.expect("streams");
        let config = json!({
            "engine": ENGINE, "partitions": 1, "audit_vkey": signer().vkey(), "version": 1,
        });
        let payload = config.to_string().into_bytes().into();
        agree_on_engine_config(&stage.broker, &stage.publisher, WRITER, payload).await.unwrap();
        stage
    }

    /// Deletes a stream.
    pub async fn delete_stream(&self, stream: &str) {
        let subject = format!("$JS.API.STREAM.DELETE.{stream}");
        let core = fermata_jetstream::core_messages::CoreMessages::new(&self.broker);
        let answer = core.request(&subject, Default::default(), SOON).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        assert_eq!(answer["success"], true, "{answer}");
    }

    /// Runs the program against the broker.
    pub async fn run(&self, arguments: &[&str]) -> Ended {
        let url = self.server.url();
        let mut all = vec!["--nats-url", url.as_str()];
        all.extend(arguments);
        run(&all).await
    }

    /// Stores a message of ours at the end of its stream, which ends at `last`.
    pub async fn append(&self, subject: &str, last: u64, payload: Vec<u8>) {
        let outcome = self.publisher.append(subject, last, WRITER, payload.into()).await;
        outcome.sequence().expect("stored");
    }

    /// Stores `records` as one frame of the data partition's journal, which ends at `last`.
    pub async fn journal(&self, last: u64, first_index: u64, records: &[Record]) {
        self.journal_of(PARTITION, last, first_index, records).await;
    }

    /// As [`Self::journal`], of any partition.
    pub async fn journal_of(
        &self,
        partition: PartitionId,
        last: u64,
        first_index: u64,
        records: &[Record],
    ) {
        let time = JournalTime(1_700_000_000_000 + 10 * first_index);
        let mut builder = FrameBuilder::default();
        for (record, index) in records.iter().zip(first_index..) {
            builder.push(record, index, time, SALT).unwrap();
        }
        let head = FrameHead {
            epoch: 1,
            incarnation: Uuid::from_u128(1),
            number: last,
            time,
            position: StreamPosition::default(),
            floor: 0,
        };
        let subject = fermata_wire::subjects::journal(partition);
        self.append(&subject, last, builder.finish(&head, first_index).unwrap()).await;
    }
}
