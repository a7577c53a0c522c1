//! What a process takes of its machine, and what a broker holds for it.

use std::path::PathBuf;

use fermata_jetstream::Broker;
use serde_json::{Value, json};

use crate::cluster::ask;

/// What a process takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Memory that is really there, in bytes.
    pub resident_bytes: u64,
    /// Open files, connections among them.
    pub open_files: usize,
    /// Threads.
    pub threads: u64,
}

impl Footprint {
    /// What the process takes now.
    ///
    /// # Panics
    ///
    /// When there is no such process, or no `/proc`.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let at = |name: &str| PathBuf::from(format!("/proc/{pid}/{name}"));
        let status = std::fs::read_to_string(at("status")).expect("a process");
        let number = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            let word = line.and_then(|line| line.split_whitespace().nth(1));
            word.and_then(|word| word.parse::<u64>().ok()).expect("a number")
        };
        Self {
            resident_bytes: number("VmRSS:") * 1_024,
            open_files: std::fs::read_dir(at("fd")).expect("a process").count(),
            threads: number("Threads:"),
        }
    }

    /// The larger of each.
    #[must_use]
    pub fn or_more(self, other: Self) -> Self {
        Self {
            resident_bytes: self.resident_bytes.max(other.resident_bytes),
            open_files: self.open_files.max(other.open_files),
            threads: self.threads.max(other.threads),
        }
    }
}

/// Every stream with what it holds, and what it may hold, in bytes; nothing when the broker does
/// not answer.
pub async fn stream_bytes(broker: &Broker) -> Option<Vec<(String, u64, Option<u64>)>> {
    let listed = ask(broker, "STREAM.LIST", &json!({ "offset": 0 })).await?;
    let streams = listed["streams"].as_array()?.iter().map(|stream| {
        let name = stream["config"]["name"].as_str().unwrap_or_default().to_owned();
        let bytes = stream["state"]["bytes"].as_u64().unwrap_or_default();
        // Without a bound it is -1.
        (name, bytes, stream["config"]["max_bytes"].as_u64())
    });
    Some(streams.collect())
}

/// How many messages the consumers of a stream have delivered that are not acknowledged, and what
/// is the most; nothing when the broker does not answer.
pub async fn unacknowledged(broker: &Broker, stream: &str) -> Option<Vec<(u64, Option<u64>)>> {
    let operation = format!("CONSUMER.LIST.{stream}");
    let listed = ask(broker, &operation, &json!({ "offset": 0 })).await?;
    let consumers = listed["consumers"].as_array()?.iter().map(|consumer: &Value| {
        let most = consumer["config"]["max_ack_pending"].as_u64();
        (consumer["num_ack_pending"].as_u64().unwrap_or_default(), most)
    });
    Some(consumers.collect())
}
