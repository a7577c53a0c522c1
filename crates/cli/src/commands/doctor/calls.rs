//! Whether the workers know what the workflows call that active strategies start.

use std::collections::BTreeSet;

use fermata_core::digest::Digest;
use fermata_core::partition::Definitions;
use fermata_core::plan::Plan;
use fermata_core::strategy::{Action, StrategyDefinition};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::Check;
use super::workers::WorkerStatus;
use crate::broker_session::BrokerSession;
use crate::commands::workflow::called;
use crate::error::CliError;
use crate::output::counted;

/// Versions of workflows that are looked at; each is one question to the broker.
const WORKFLOWS_LOOKED_AT_MAX: usize = 1_000;

/// Questions under way at a time.
const ASKED_AT_ONCE: usize = 16;

/// Calls that are told in the text.
const CALLS_TOLD_MAX: usize = 3;

/// Compares what active workflows call with what the workers say that they know.
pub(super) async fn known(session: &BrokerSession, statuses: &[WorkerStatus]) -> Check {
    match unknown(session, statuses).await {
        Ok((told, left_out)) => judge(&told, left_out),
        Err(error) => Check::failed("calls", &error),
    }
}

/// What no worker knows, and how many workflows were not looked at.
async fn unknown(
    session: &BrokerSession,
    statuses: &[WorkerStatus],
) -> Result<(Vec<String>, usize), CliError> {
    let active = started(&session.active_definitions().await?);
    let left_out = active.len().saturating_sub(WORKFLOWS_LOOKED_AT_MAX);
    if active.is_empty() {
        return Ok((Vec::new(), 0));
    }
    let store = session.definitions_store().await?;
    let read = |digest: String| {
        let store = &store;
        async move { store.get_blob(&digest).await.map(|bytes| (digest, bytes)) }
    };
    let digests = active.iter().take(WORKFLOWS_LOOKED_AT_MAX).map(ToString::to_string);
    let mut plans = stream::iter(digests.map(read)).buffered(ASKED_AT_ONCE);
    let mut told = Vec::new();
    while let Some((digest, bytes)) = plans.try_next().await? {
        // One that is gone is told where it is needed.
        let Some(bytes) = bytes else { continue };
        let plan: Plan = fermata_wire::plan::decode(&bytes)
            .map_err(CliError::unreadable(format!("the plan {digest}")))?;
        told.extend(called::told(&plan, statuses));
    }
    Ok((told, left_out))
}

/// The plans of the workflows that active strategies start: other versions stay for ever and harm nobody.
fn started(active: &Definitions) -> BTreeSet<Digest> {
    let definitions = active.strategies.values().filter_map(|entry| {
        serde_json::from_str::<StrategyDefinition>(entry.definition.as_str()).ok()
    });
    let plans = definitions.filter_map(|definition| match definition.action {
        Action::Run { workflow, .. } => active.plan(&workflow.name, &workflow.version),
        Action::Ignore => None,
    });
    plans.collect()
}

fn judge(told: &[String], left_out: usize) -> Check {
    let rest = match left_out {
        0 => String::new(),
        more => format!("; {} not looked at", counted(more, "workflow was", "workflows were")),
    };
    if told.is_empty() {
        let found =
            format!("what workflows that strategies start call is known to those who run it{rest}");
        return Check::ok("calls", found);
    }
    let shown = told.iter().take(CALLS_TOLD_MAX).map(String::as_str).collect::<Vec<_>>();
    let more = match told.len().saturating_sub(CALLS_TOLD_MAX) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let found = format!("{}{more}{rest}", shown.join(". "));
    let hint = "such a task fails, and its run with it: end these workers, and start them with what is missing \
                (`--plugin`, `--config`)";
    Check::warn("calls", found, hint).code("call_unknown").details(told.iter().cloned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::Health;

    #[test]
    fn calls_that_nobody_knows_are_warned_of_and_a_few_are_shown() {
        let told = ["a", "b", "c", "d"].map(str::to_owned);

        let check = judge(&told, 2);

        assert_eq!((check.health, check.code), (Health::Warn, Some("call_unknown")));
        assert_eq!(check.found, "a. b. c; and 1 more; 2 workflows were not looked at");
        assert_eq!(check.details, ["a", "b", "c", "d"]);
        assert_eq!(judge(&[], 0).health, Health::Ok);
    }
}
