//! Attempts that were ordered, have no outcome, and that nobody can work on any
//! more: as the journal tells it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use fermata_core::digest::Digest;
use fermata_core::identity::{PartitionId, RunId, Tenant};
use fermata_core::plan::Plan;
use fermata_core::record::{Body, Header, Kind, Record};
use fermata_jetstream::StreamReader;
use fermata_jetstream::definitions_store::DefinitionsStore;
use serde::Serialize;

use super::JournalReader;
use crate::error::CliError;

/// How long after its time limit an attempt is an orphan. Default 60 s: twice as
/// far as clocks may differ before that is an alarm. Whoever carries an attempt
/// out ends it at its time limit, and the report of its outcome takes seconds.
const MARGIN_MS: u64 = 60_000;

/// An attempt that nobody works on any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Orphan {
    /// Whose run it is.
    pub tenant: Tenant,
    /// The run.
    pub run: RunId,
    /// The node.
    pub node: Arc<str>,
    /// The attempt.
    pub attempt: u32,
    /// When it was ordered, journal time, milliseconds.
    pub ordered_ms: u64,
    /// How long it may take, milliseconds.
    pub timeout_ms: u64,
}

/// What was found in the journals.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Orphans {
    /// Attempts that nobody works on any more.
    pub orphans: Vec<Orphan>,
    /// Attempts without an outcome of which nobody can tell.
    pub skipped: Vec<SkippedAttempt>,
}

/// An attempt without an outcome whose plan is not stored: how long it may take is not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SkippedAttempt {
    /// The run.
    pub run: RunId,
    /// The node.
    pub node: Arc<str>,
    /// The attempt.
    pub attempt: u32,
}

/// Attempts without an outcome; as many as there are at a time.
#[derive(Debug, Default)]
struct Outstanding {
    plans: HashMap<RunId, Digest>,
    attempts: BTreeMap<(RunId, Arc<str>), (Tenant, u32, u64)>,
}

impl Outstanding {
    fn fold(&mut self, header: &Header, record: &Record) {
        let (Some(run), Some(tenant)) = (header.run, &header.tenant) else { return };
        if let Body::RunStarted(started) = &record.body {
            self.plans.insert(run, started.plan);
        }
        if header.kind.ends_run() {
            self.plans.remove(&run);
            self.attempts.retain(|(of, _), _| *of != run);
        }
        let Some(node) = header.node.clone() else { return };
        if header.kind == Kind::NodeDispatched {
            let attempt = (tenant.clone(), header.attempt.unwrap_or(1), header.time.0);
            self.attempts.insert((run, node), attempt);
        } else if header.kind != Kind::EffectLate {
            // Whatever else is said of a node ends or suspends its attempt.
            self.attempts.remove(&(run, node));
        }
    }
}

/// Reads the journals of `partitions` for attempts that were over before `now_ms`.
///
/// # Errors
///
/// When a journal or a plan cannot be read.
///
/// # Cancel safety
///
/// Can be dropped.
pub async fn read_orphans(
    reader: &StreamReader,
    store: &DefinitionsStore,
    partitions: &[PartitionId],
    now_ms: u64,
) -> Result<Orphans, CliError> {
    let (mut orphans, mut skipped) = (Vec::new(), Vec::new());
    let mut plans: HashMap<Digest, Option<Plan>> = HashMap::new();
    for partition in partitions {
        let mut outstanding = Outstanding::default();
        let mut journal = JournalReader::open(reader, *partition).await?;
        while let Some(records) = journal.next().await? {
            records.iter().for_each(|(header, record)| outstanding.fold(header, record));
        }
        for ((run, node), (tenant, attempt, ordered_ms)) in outstanding.attempts {
            let digest = outstanding.plans.get(&run);
            if let Some(digest) = digest
                && !plans.contains_key(digest)
            {
                plans.insert(*digest, read_plan(store, digest).await?);
            }
            let plan = digest.and_then(|digest| plans.get(digest)).and_then(Option::as_ref);
            let known = plan.and_then(|plan| plan.nodes.iter().find(|known| known.id == node));
            let Some(timeout_ms) = known.map(|known| known.timeout_ms) else {
                skipped.push(SkippedAttempt { run, node, attempt });
                continue;
            };
            let orphan = Orphan { tenant, run, node, attempt, ordered_ms, timeout_ms };
            orphans.extend(orphan.is_over(now_ms).then_some(orphan));
        }
    }
    Ok(Orphans { orphans, skipped })
}

impl Orphan {
    fn is_over(&self, now_ms: u64) -> bool {
        let over = self.ordered_ms.saturating_add(self.timeout_ms).saturating_add(MARGIN_MS);
        over <= now_ms
    }
}

async fn read_plan(store: &DefinitionsStore, digest: &Digest) -> Result<Option<Plan>, CliError> {
    let Some(bytes) = store.get_blob(&digest.to_string()).await? else { return Ok(None) };
    let plan = fermata_wire::plan::decode(&bytes);
    plan.map(Some).map_err(CliError::unreadable(format!("plan {digest}")))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Script, run_of};
    use super::*;

    #[test]
    fn an_attempt_is_outstanding_until_its_node_or_its_run_has_an_end() {
        let (first, second) = (run_of("a"), run_of("b"));
        let mut script = Script::default();
        let mut outstanding = Outstanding::default();
        for (header, record) in [
            script.at(10).started(first),
            script.at(10).started(second),
            script.at(20).dispatched(first, "n", 1),
            script.at(30).dispatched(second, "n", 2),
            script.at(40).succeeded(first),
        ] {
            outstanding.fold(&header, &record);
        }

        let left = outstanding.attempts.into_iter().collect::<Vec<_>>();
        let tenant = left[0].1.0.clone();
        assert_eq!(left, [((second, "n".into()), (tenant, 2, 30))]);
    }

    #[test]
    fn an_attempt_is_an_orphan_only_well_after_its_time_limit() {
        let orphan = Orphan {
            tenant: "acme".parse().unwrap(),
            run: run_of("a"),
            node: "n".into(),
            attempt: 1,
            ordered_ms: 1_000,
            timeout_ms: 30_000,
        };

        assert!(!orphan.is_over(31_000) && !orphan.is_over(90_999));
        assert!(orphan.is_over(91_000));
    }
}
