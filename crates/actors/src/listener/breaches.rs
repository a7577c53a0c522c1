//! Events that break their contract and go on all the same, since the contracts of their tenant only
//! warn: whoever tries a contract looks for them.

use std::sync::{Mutex, PoisonError};

use fermata_wire::stages::AdmittedEvent;

use crate::log_pace::LogPace;
use crate::metrics::Metrics;

/// How many of them are told in the log in each window of its pace; all are counted.
const BREACHES_TOLD_MAX: u32 = 3;

/// Where they are told.
#[derive(Debug)]
pub(super) struct Breaches {
    metrics: Metrics,
    pace: Mutex<LogPace>,
}

impl Breaches {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { metrics, pace: Mutex::new(LogPace::new(BREACHES_TOLD_MAX)) }
    }

    /// Tells of those among `events`.
    pub(super) fn tell(&self, events: &[AdmittedEvent]) {
        for AdmittedEvent { event, .. } in events {
            let Some(breach) = &event.breach else { continue };
            self.metrics.contract_breached();
            let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(left_out) = pace.line() {
                tracing::warn!(
                    tenant = %event.tenant,
                    r#type = &*event.kind,
                    id = &*event.id,
                    breach = &**breach,
                    left_out,
                    "an event breaks its contract and goes on, since the contracts of its tenant only warn"
                );
            }
        }
    }
}
