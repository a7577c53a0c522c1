//! What the server's monitoring endpoint tells and the client protocol does not.

use std::{io, time::Duration};

use serde::Deserialize;
use thiserror::Error;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How long the endpoint may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// Why the endpoint told nothing.
#[derive(Debug, Error)]
pub enum MonitoringError {
    /// The address is not `http://<host>:<port>`.
    #[error("`{0}` is no monitoring address; it must look like `http://127.0.0.1:8222`")]
    Address(String),
    /// The endpoint did not answer in time.
    #[error("the monitoring endpoint did not answer within {ANSWER_LIMIT:?}")]
    NoAnswer,
    /// The connection failed.
    #[error("could not ask the monitoring endpoint")]
    Io(#[from] io::Error),
    /// The answer is not what the endpoint promises.
    #[error("could not read what the monitoring endpoint said")]
    Unreadable(#[from] serde_json::Error),
}

#[derive(Deserialize)]
struct JetStreamReport {
    #[serde(default)]
    server_id: String,
    config: JetStreamConfig,
    /// Bytes that streams take.
    #[serde(default)]
    storage: u64,
    /// Bytes that streams may grow to.
    #[serde(default)]
    reserved_storage: u64,
}

#[derive(Deserialize)]
struct JetStreamConfig {
    #[serde(default)]
    sync_always: bool,
    #[serde(default)]
    max_storage: u64,
}

/// What a server says about its store of streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Which server says so, as its clients are told it.
    pub server_id: String,
    /// Whether every message is synced to disk before it is acknowledged (`sync_interval: always`).
    pub is_sync_always: bool,
    /// Bytes that all streams on it take.
    pub bytes: u64,
    /// Bytes that they may take: what is configured, or three quarters of what the disk had free at the start.
    pub bytes_max: u64,
    /// Bytes that they are promised, empty or not: the server makes and enlarges none beyond `bytes_max`.
    pub reserved_bytes: u64,
}

/// Asks a server about its store of streams.
///
/// The client protocol does not tell this, so it needs the monitoring endpoint, as in `http://127.0.0.1:8222`.
///
/// # Errors
/// When the endpoint cannot be reached or says something else.
///
/// # Cancel safety
/// Can be dropped.
pub async fn store(monitor_url: &str) -> Result<Store, MonitoringError> {
    let body = ask(monitor_url, "/jsz").await?;
    let report: JetStreamReport = serde_json::from_str(&body)?;
    Ok(Store {
        server_id: report.server_id,
        is_sync_always: report.config.sync_always,
        bytes: report.storage,
        bytes_max: report.config.max_storage,
        reserved_bytes: report.reserved_storage,
    })
}

/// What the server says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ServerHealth {
    /// `ok`, or in a word what it is not.
    pub status: String,
    /// What is wrong, such as a stream that it can no longer write.
    #[serde(default)]
    pub error: Option<String>,
}

impl ServerHealth {
    /// Whether it finds nothing wrong.
    pub fn is_ok(&self) -> bool {
        self.status == "ok"
    }
}

/// Asks the server whether it is well. A full disk shows here and in publishes that get no answer, and stays
/// until the server is restarted, also when there is room again.
///
/// # Errors
/// When the endpoint cannot be reached or says something else.
///
/// # Cancel safety
/// Can be dropped.
pub async fn health(monitor_url: &str) -> Result<ServerHealth, MonitoringError> {
    Ok(serde_json::from_str(&ask(monitor_url, "/healthz").await?)?)
}

/// The body of an answer of the endpoint.
async fn ask(monitor_url: &str, path: &str) -> Result<String, MonitoringError> {
    let address = monitor_url
        .strip_prefix("http://")
        .map(|address| address.trim_end_matches('/'))
        .filter(|address| !address.is_empty() && !address.contains(['/', '\r', '\n']))
        .ok_or_else(|| MonitoringError::Address(monitor_url.to_owned()))?;
    let answer = timeout(ANSWER_LIMIT, get(address, path))
        .await
        .map_err(|_| MonitoringError::NoAnswer)??;
    Ok(answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned())
}

/// HTTP/1.0 (RFC 1945): the server closes the connection after the answer, which is then complete.
async fn get(address: &str, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
    Ok(answer)
}
