//! What people decide about review cases.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::identity::{RunId, SourcePosition, Tenant};

/// Most events of one case that are decided once more. Default 1,000: their
/// positions take some 25 KiB in the journal. Those beyond it are counted as
/// left out, and whoever resolves the case is told.
pub const EVENTS_OF_CASE_MAX: usize = 1_000;

/// What is done about a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Resolution {
    /// Its events are matched again, with the definitions of then.
    Retry,
    /// Its events start what this strategy starts, whatever it asks of them.
    Route {
        /// The strategy's name.
        strategy: Arc<str>,
    },
    /// Nothing: somebody has looked, and that is recorded.
    Close,
}

impl Resolution {
    /// The resolution as one word.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Route { .. } => "route",
            Self::Close => "close",
        }
    }

    /// The strategy that events are routed to.
    #[must_use]
    pub fn strategy(&self) -> Option<&Arc<str>> {
        match self {
            Self::Route { strategy } => Some(strategy),
            Self::Retry | Self::Close => None,
        }
    }
}

/// Resolves a review case. The first resolution of a case counts: the same one
/// again changes nothing, and another one is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolveCommand {
    /// The case; its first two bytes are the partition, big-endian.
    pub case: Uuid,
    /// Whose case it is.
    pub tenant: Tenant,
    /// The run concerned, if one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// What is done.
    pub resolution: Resolution,
    /// Who decides.
    pub by: String,
    /// Why, for people.
    pub reason: String,
    /// Where the case's events stand, at most [`EVENTS_OF_CASE_MAX`]; none to
    /// close it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<SourcePosition>,
    /// Events of the case that are decided no more: not kept any longer, or too many.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
    /// NATS subject for the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<Arc<str>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
pub(crate) fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Events of a resolved case that are to be decided once more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseReplay {
    /// The case.
    pub case: Uuid,
    /// Whose events they are; those of others are left alone.
    pub tenant: Tenant,
    /// The strategy that they are routed to; none to match them again.
    pub strategy: Option<Arc<str>>,
    /// Where they stand.
    pub events: Arc<[SourcePosition]>,
}

/// What came of a [`CaseReplay`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaseReplayed {
    /// The case.
    pub case: Uuid,
    /// Events that partitions were asked to decide once more.
    pub asked: u32,
    /// Events that were not there any more, or could not be used.
    pub missing: u32,
}
