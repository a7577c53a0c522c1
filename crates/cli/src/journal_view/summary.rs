//! One run as one line.

use std::sync::Arc;

use fermata_core::identity::{RunId, Tenant};
use fermata_core::record::{Body, Header, Record};
use serde::Serialize;

use super::status::RunStatus;

/// What a list shows of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunSummary {
    /// Its id.
    pub id: RunId,
    /// Whose it is.
    pub tenant: Tenant,
    /// The workflow.
    pub workflow: Arc<str>,
    /// The workflow's version.
    pub workflow_version: Arc<str>,
    /// The strategy that chose it.
    pub strategy: Arc<str>,
    /// Where it stands.
    pub status: RunStatus,
    /// When it began, journal time in milliseconds since 1970.
    pub started_ms: u64,
    /// When it ended, likewise.
    pub ended_ms: Option<u64>,
    /// Attempts ordered so far.
    pub attempts: u32,
    /// Attempts that failed and were followed, or are to be followed, by another.
    pub retries: u32,
    /// CloudEvents `id` of the event that started it.
    pub event_id: Arc<str>,
    /// CloudEvents `source` of that event.
    pub event_source: Arc<str>,
    /// CloudEvents `type` of that event.
    pub event_type: Arc<str>,
}

impl RunSummary {
    /// The run as its first record leaves it; nothing when the record is no first one.
    #[must_use]
    pub fn begin(header: &Header, record: &Record) -> Option<Self> {
        let Body::RunStarted(started) = &record.body else { return None };
        Some(Self {
            id: header.run?,
            tenant: header.tenant.clone()?,
            workflow: started.workflow.clone(),
            workflow_version: started.workflow_version.clone(),
            strategy: started.strategy.clone(),
            status: RunStatus::Running,
            started_ms: header.time.0,
            ended_ms: None,
            attempts: 0,
            retries: 0,
            event_id: started.event.id.clone(),
            event_source: started.event.source.clone(),
            event_type: started.event.kind.clone(),
        })
    }

    /// Folds a later record of the run.
    pub fn fold(&mut self, header: &Header, record: &Record) {
        self.attempts += u32::from(matches!(record.body, Body::NodeDispatched(_)));
        self.retries += u32::from(matches!(record.body, Body::NodeRetrying(_)));
        if let Some(status) = RunStatus::after(header.kind) {
            self.status = status;
            self.ended_ms = status.has_ended().then_some(header.time.0);
        }
    }

    /// How long it took, in milliseconds; nothing while it goes on.
    #[must_use]
    pub fn duration_ms(&self) -> Option<u64> {
        self.ended_ms.map(|ended| ended.saturating_sub(self.started_ms))
    }
}
