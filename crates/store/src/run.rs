//! One run as one line, and where it stands.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use fermata_core::identity::{JournalTime, RunId, Tenant};
use fermata_core::record::{Body, Header, Kind, Record};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// It goes on.
    Running,
    /// It takes nothing new on and waits for what is under way.
    Closing,
    /// It ended well.
    Succeeded,
    /// A node failed for good.
    Failed,
    /// Someone asked for it.
    Cancelled,
    /// It took too long.
    TimedOut,
    /// A record decided for it would not fold.
    Quarantined,
}

/// Text that is no status of a run.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{0}` is no status of a run; they are running, closing, succeeded, failed, cancelled, timed_out and quarantined"
)]
pub struct NotAStatus(String);

impl RunStatus {
    /// Every status.
    pub const ALL: [Self; 7] = [
        Self::Running,
        Self::Closing,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::TimedOut,
        Self::Quarantined,
    ];

    /// The status as shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Closing => "closing",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::Quarantined => "quarantined",
        }
    }

    /// Whether nothing more happens.
    #[must_use]
    pub fn has_ended(self) -> bool {
        !matches!(self, Self::Running | Self::Closing)
    }

    /// The status that a record of `kind` brings about, if it does.
    #[must_use]
    pub fn after(kind: Kind) -> Option<Self> {
        if kind == Kind::RunClosing {
            return Some(Self::Closing);
        }
        if !kind.ends_run() {
            return None;
        }
        [
            (Kind::RunSucceeded, Self::Succeeded),
            (Kind::RunFailed, Self::Failed),
            (Kind::RunCancelled, Self::Cancelled),
            (Kind::RunTimedOut, Self::TimedOut),
            (Kind::RunQuarantined, Self::Quarantined),
        ]
        .into_iter()
        .find_map(|(ending, status)| (ending == kind).then_some(status))
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl FromStr for RunStatus {
    type Err = NotAStatus;

    fn from_str(text: &str) -> Result<Self, NotAStatus> {
        let found = Self::ALL.into_iter().find(|status| status.as_str() == text);
        found.ok_or_else(|| NotAStatus(text.chars().take(40).collect()))
    }
}

/// What a list shows of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Those of them that were not the first of their task: one that is only due does not count yet.
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

    /// Folds a later record of the run, of this kind, about this attempt and at this time: a list
    /// shows no more of it.
    pub fn fold(&mut self, kind: Kind, attempt: Option<u32>, time: JournalTime) {
        if kind == Kind::NodeDispatched {
            self.attempts = self.attempts.saturating_add(1);
            self.retries = self.retries.saturating_add(u32::from(attempt > Some(1)));
        }
        if let Some(status) = RunStatus::after(kind) {
            self.status = status;
            self.ended_ms = status.has_ended().then_some(time.0);
        }
    }

    /// How long it took, in milliseconds; nothing while it goes on.
    #[must_use]
    pub fn duration_ms(&self) -> Option<u64> {
        self.ended_ms.map(|ended| ended.saturating_sub(self.started_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_that_ends_a_run_gives_a_status_of_an_ended_run() {
        for kind in Kind::ALL {
            let ended = RunStatus::after(*kind).is_some_and(RunStatus::has_ended);

            assert_eq!(ended, kind.ends_run(), "{kind:?}");
        }
    }

    #[test]
    fn a_status_is_read_as_it_is_shown() {
        for status in RunStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
        }
        assert!("done".parse::<RunStatus>().is_err());
    }
}
