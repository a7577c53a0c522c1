//! Where nodes stand, as words.

use std::fmt;

use serde::Serialize;

/// Where a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeStatus {
    /// An attempt is ordered and has no outcome.
    Running,
    /// It waits to try again.
    Backoff,
    /// It ended well.
    Succeeded,
    /// It was not taken.
    Skipped,
    /// It failed for good.
    Failed,
    /// Nobody knows whether its effect happened.
    Unknown,
    /// A delay that has begun.
    Delayed,
    /// Accepted; its outcome comes by callback.
    Accepted,
    /// It waits for an event.
    Waiting,
}

impl NodeStatus {
    /// Whether the node has begun and not ended.
    #[must_use]
    pub fn is_under_way(self) -> bool {
        match self {
            Self::Running | Self::Backoff | Self::Delayed | Self::Accepted | Self::Waiting => true,
            Self::Succeeded | Self::Skipped | Self::Failed | Self::Unknown => false,
        }
    }

    /// The status as shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Backoff => "backoff",
            Self::Succeeded => "succeeded",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::Delayed => "delayed",
            Self::Accepted => "accepted",
            Self::Waiting => "waiting",
        }
    }
}

impl fmt::Display for NodeStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}
