//! What was done about a run after it had ended.

use std::sync::Arc;

use fermata_core::identity::{RunId, SourcePosition};
use fermata_core::record::{CaseResolved, Header};
use fermata_core::review::Resolution;
use serde::Serialize;
use uuid::Uuid;

/// What a person decided about the case of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResolvedCase {
    /// The case.
    pub case: Uuid,
    /// What was decided: that its event is decided once more, or nothing.
    pub resolution: Resolution,
    /// Who decided.
    pub by: Arc<str>,
    /// Why.
    pub reason: String,
    /// Journal time, milliseconds since 1970.
    pub time_ms: u64,
    /// Where the events stand that are decided once more for it.
    #[serde(skip)]
    pub(super) events: Vec<SourcePosition>,
}

impl ResolvedCase {
    pub(super) fn of(header: &Header, resolved: &CaseResolved) -> Self {
        let CaseResolved { case, resolution, by, reason, events, .. } = resolved;
        Self {
            case: *case,
            resolution: resolution.clone(),
            by: by.clone(),
            reason: reason.clone(),
            time_ms: header.time.0,
            events: events.clone(),
        }
    }
}

/// A later start of work for the event of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StartedAgain {
    /// The runs that it started.
    pub runs: Vec<RunId>,
    /// Journal time, milliseconds since 1970.
    pub time_ms: u64,
    /// Whether that was done to resolve the run's case.
    pub by_case: bool,
}
