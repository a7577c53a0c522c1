//! Answers `fermata doctor`: every worker tells how it stands, its halted
//! partitions included, to whoever asks on one subject.

use std::sync::Arc;

use fermata_wire::subjects;
use serde::{Deserialize, Serialize};

use crate::coordinator::PartitionStatus;
use crate::engine::Engine;
use crate::standstill::Standstill;
use crate::started_with::StartedWith;

/// Where answers may go: nobody gets a worker to write anywhere else.
const INBOX_PREFIX: &str = "_INBOX.";

/// Asks all workers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusQuestion {
    /// Where the answer goes: below `_INBOX.`.
    pub reply_to: String,
}

/// How one worker stands.
#[derive(Debug, Clone, Serialize)]
pub struct WorkerStatus {
    /// Its name.
    pub worker: String,
    /// Version of the program.
    pub version: &'static str,
    /// The partitions that it has the leases of.
    pub partitions: Vec<PartitionStatus>,
    /// What takes nothing that it wants stored, and for how long.
    pub standstills: Vec<Standstill>,
    /// What it was started with.
    #[serde(flatten)]
    pub started_with: Arc<StartedWith>,
}

impl Engine {
    /// Answers until the engine ends.
    pub(crate) async fn answer_status(self) {
        tokio::select! {
            () = self.answer_all() => {}
            () = self.ended() => {}
        }
    }

    async fn answer_all(&self) {
        let core = &self.ports().core;
        let mut questions = match core.subscribe(subjects::STATUS).await {
            Ok(questions) => questions,
            Err(error) => {
                tracing::warn!(%error, "`fermata doctor` cannot ask this worker");
                return;
            }
        };
        while let Some(question) = questions.next().await {
            let Ok(question) = serde_json::from_slice::<StatusQuestion>(&question.payload) else {
                continue;
            };
            if !question.reply_to.starts_with(INBOX_PREFIX) {
                continue;
            }
            let status = WorkerStatus {
                worker: self.ports().facts.worker.to_string(),
                version: env!("CARGO_PKG_VERSION"),
                partitions: self.status().await,
                standstills: self.standstills(),
                started_with: self.started_with().clone(),
            };
            let Ok(answer) = serde_json::to_vec(&status) else { continue };
            if let Err(error) = core.publish_core(question.reply_to, answer.into()).await {
                tracing::debug!(%error, "an answer about this worker could not be sent");
            }
        }
    }
}
