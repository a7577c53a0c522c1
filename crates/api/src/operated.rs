//! What is operated, as the endpoints see it.

use std::collections::BTreeSet;
use std::time::Instant;

use axum::body::Bytes;
use serde::Serialize;

use crate::problem::Problem;

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The worker's name.
    pub worker: String,
    /// Version of the program.
    pub version: &'static str,
    /// When the process began its work.
    pub since: Instant,
}

/// One thing that keeps a process from being ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Obstacle {
    /// What it is, for programs: stays the same over versions.
    pub code: &'static str,
    /// What it is, for people.
    pub detail: String,
}

/// A signed request to decide events once more, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayRequest {
    /// Names and values of the headers whose values are text.
    pub headers: Vec<(String, String)>,
    /// What was signed.
    pub body: Bytes,
}

/// An event of a request, stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replay {
    /// The event's id.
    pub event: String,
    /// Its tenant.
    pub tenant: String,
    /// The id under which it is decided once more.
    pub replay: String,
    /// Its sequence among the events.
    pub sequence: u64,
}

/// A process that can be asked how it is.
pub trait Operated: Send + Sync + 'static {
    /// Who it is.
    fn identity(&self) -> Identity;

    /// What keeps it from being ready; nothing when it is.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped: an answer that takes too long is.
    fn obstacles(&self) -> impl Future<Output = Vec<Obstacle>> + Send;

    /// Parts of the engine that people switched off: what waits for that, waits although the process is
    /// ready.
    fn switched_off(&self) -> Vec<&'static str>;

    /// Its figures in the Prometheus text format 0.0.4, or why there are none.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped: an answer that takes too long is.
    fn metrics(&self) -> impl Future<Output = Result<String, String>> + Send;

    /// Receipts of these records of a partition, each as JSON on one line.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped: an answer that takes too long is.
    fn receipts(
        &self,
        partition: &str,
        records: BTreeSet<u64>,
    ) -> impl Future<Output = Result<Vec<String>, Problem>> + Send;

    /// Whether a request is signed as it has to be.
    ///
    /// # Errors
    ///
    /// What the sender is answered.
    fn verify_replay(&self, request: &ReplayRequest) -> Result<(), Problem>;

    /// Verifies a request and stores its events; the same request again changes
    /// nothing and has the same answer.
    ///
    /// # Cancel safety
    ///
    /// When dropped, some of the events may be stored; the sender asks again.
    fn replay(
        &self,
        request: ReplayRequest,
    ) -> impl Future<Output = Result<Vec<Replay>, Problem>> + Send;
}
