//! Where runs and nodes stand, as words.

use std::fmt;

use clap::ValueEnum;
use fermata_core::record::Kind;
use serde::Serialize;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
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

impl RunStatus {
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
    /// It waits for an event.
    Waiting,
}

impl NodeStatus {
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
            Self::Waiting => "waiting",
        }
    }
}

impl fmt::Display for NodeStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
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
}
