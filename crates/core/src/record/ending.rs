//! Why a run ends, and what a wish to end it comes to.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::plan::FailureClass;

/// Why a run ends other than well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum EndReason {
    /// A node failed for good.
    Failed {
        /// The node.
        node: Arc<str>,
        /// What kind of failure.
        class: FailureClass,
        /// For people.
        detail: String,
    },
    /// Someone asked.
    Cancelled {
        /// Who.
        by: String,
        /// Why, for people.
        reason: String,
    },
    /// The run's deadline passed.
    TimedOut,
}

/// What a cancel command came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelAnswer {
    /// The run is closing now.
    Closing,
    /// It was closing already.
    AlreadyClosing,
    /// There is no such run, or it has ended.
    NotRunning,
}

impl CancelAnswer {
    /// The answer as written in records and replies.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closing => "closing",
            Self::AlreadyClosing => "already_closing",
            Self::NotRunning => "not_running",
        }
    }
}
