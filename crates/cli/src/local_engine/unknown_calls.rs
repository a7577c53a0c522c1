//! Telling of calls that this process was not started for. A worker beside it may know what they reach:
//! a task that this one is given fails all the same, and its run with it.

use std::collections::BTreeSet;
use std::sync::Arc;

use fermata_actors::Engine;
use fermata_actors::definitions::Snapshot;

use crate::commands::doctor::workers::WorkerStatus;
use crate::commands::workflow::called::{UnknownCall, judge};

/// Calls that are told of while the process runs. Default 100: whoever has more of them has the wrong
/// configuration, which the first ones say.
pub const UNKNOWN_CALLS_TOLD_MAX: usize = 100;

/// Tells in the log, each once, of the calls of workflows that active strategies start and that this
/// process would make and knows nothing of; now, and whenever definitions become active.
///
/// # Cancel safety
///
/// Can be dropped.
pub(super) async fn tell(engine: Engine) {
    let own = Arc::new(WorkerStatus::of_this_process(engine.started_with()));
    let mut definitions = engine.ports().definitions.clone();
    let mut told = BTreeSet::new();
    loop {
        let snapshot = definitions.borrow_and_update().clone();
        let own = own.clone();
        // Plans may have 100,000 tasks each.
        let unknown = tokio::task::spawn_blocking(move || unknown(&snapshot, &own));
        for UnknownCall { call, meant, with } in unknown.await.unwrap_or_default() {
            if told.len() < UNKNOWN_CALLS_TOLD_MAX && told.insert(call.clone()) {
                let hint = meant.unwrap_or_else(|| format!("start it with {with}"));
                tracing::warn!(
                    "{call}, which this process does not know: such a task that it is given fails; {hint}"
                );
            }
        }
        if definitions.changed().await.is_err() {
            return;
        }
    }
}

fn unknown(snapshot: &Snapshot, own: &WorkerStatus) -> Vec<UnknownCall> {
    let strategies = snapshot.strategies.strategies().iter();
    let started: BTreeSet<_> = strategies
        .filter_map(|strategy| strategy.workflow())
        .map(|workflow| (&*workflow.name, &*workflow.version))
        .collect();
    let plans = started.into_iter().filter_map(|(name, version)| snapshot.workflow(name, version));
    let unknown = plans.flat_map(|(_, plan)| judge(plan.plan(), std::slice::from_ref(own)));
    unknown.take(UNKNOWN_CALLS_TOLD_MAX).collect()
}
