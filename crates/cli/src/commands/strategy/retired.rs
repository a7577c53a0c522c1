//! Strategies that are out of use: who took what out of use and what it was for, read from the control partition's
//! journal.

use std::collections::BTreeMap;
use std::sync::Arc;

use fermata_core::identity::PartitionId;
use fermata_core::partition::Definitions;
use fermata_core::record::Body;
use fermata_core::strategy::{StrategyDefinition, TENANT_ANY};
use fermata_definitions::did_you_mean;
use fermata_jetstream::StreamReader;
use serde::Serialize;

use crate::broker_session::BrokerSession;
use crate::commands::definitions::Answer;
use crate::error::{CliError, ExitCode};
use crate::journal_view::JournalReader;
use crate::output::{Output, time_text};

/// A strategy that is out of use.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Retired {
    strategy: Arc<str>,
    version: u32,
    /// Absent where the journal does not hold it any more.
    by: Option<String>,
    reason: Option<String>,
    time_ms: Option<u64>,
    /// Revision of the definitions that were active without it.
    revision: Option<u64>,
    /// What it was; absent where the journal does not hold it any more.
    #[serde(skip)]
    definition: Option<StrategyDefinition>,
}

impl Retired {
    fn of(strategy: &Arc<str>, version: u32) -> Self {
        let (by, reason, time_ms, revision, definition) = (None, None, None, None, None);
        Self { strategy: strategy.clone(), version, by, reason, time_ms, revision, definition }
    }

    /// Whether it was for events of this tenant, and of what types in a pattern.
    fn was_on(&self, tenant: &str) -> Option<&str> {
        let definition = self.definition.as_ref()?;
        let is_ours = definition.tenant == tenant || definition.tenant == TENANT_ANY;
        is_ours.then_some(definition.on.as_str())
    }

    /// That it took events of type `kind` until then.
    pub(super) fn told(&self, kind: &str) -> String {
        let Self { strategy, version, by, reason, time_ms, revision, .. } = self;
        let mut text = format!("`{strategy}` took the type `{kind}` until it was retired");
        if let Some(time_ms) = time_ms {
            text.push_str(&format!(" at {}", time_text(*time_ms)));
        }
        if let Some(revision) = revision {
            text.push_str(&format!(" (revision {revision})"));
        }
        if let Some(by) = by {
            text.push_str(&format!(" by {by}"));
        }
        if let Some(reason) = reason.as_ref().filter(|reason| !reason.is_empty()) {
            text.push_str(&format!(": {reason}"));
        }
        format!("{text}; applied in a version above {version}, it takes it again")
    }
}

/// Those retired strategies that took events of the tenant and type, each as it was last: those `covers` says yes
/// to, of a pattern of types.
pub(super) async fn that_took(
    tenant: &str,
    active: &Definitions,
    session: &BrokerSession,
    covers: impl Fn(&str) -> bool,
) -> Result<Vec<Retired>, CliError> {
    let mut retired = with_reasons(active, session).await?;
    retired.retain(|retired| retired.was_on(tenant).is_some_and(&covers));
    Ok(retired)
}

/// Lists those that are retired now.
pub(super) async fn list(
    active: &Definitions,
    session: &BrokerSession,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let listed = with_reasons(active, session).await?;
    if output.is_json() {
        listed.iter().try_for_each(|retired| output.json_line(retired))?;
        return Ok(ExitCode::Success);
    }
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let row = |retired: Retired| {
        vec![
            retired.strategy.to_string(),
            retired.version.to_string(),
            or_none(retired.time_ms.map(time_text)),
            or_none(retired.by),
            or_none(retired.reason),
        ]
    };
    let columns = ["STRATEGY", "VERSION", "RETIRED", "BY", "REASON"];
    output.table(&columns, listed.into_iter().map(row).collect(), "no strategies are retired")?;
    Ok(ExitCode::Success)
}

async fn with_reasons(
    active: &Definitions,
    session: &BrokerSession,
) -> Result<Vec<Retired>, CliError> {
    let retired = active.retired.iter();
    let mut retired: BTreeMap<_, _> =
        retired.map(|(name, version)| (name.clone(), Retired::of(name, *version))).collect();
    if retired.is_empty() {
        return Ok(Vec::new());
    }
    let reader = StreamReader::new(session.broker());
    let mut journal = JournalReader::open(&reader, PartitionId::CONTROL).await?;
    while let Some(records) = journal.next().await? {
        for (header, record) in records {
            let Body::DefinitionsApplied(applied) = record.body else { continue };
            for entry in &applied.strategies {
                // Brought back; whoever retired it before is not who did it last.
                if let Some(known) = retired.get_mut(&entry.name) {
                    *known = Retired::of(&entry.name, known.version);
                    known.definition = serde_json::from_str(entry.definition.as_str()).ok();
                }
            }
            for name in &applied.retire.strategies {
                // What is retired already is not retired once more by another one.
                if let Some(known) = retired.get_mut(name).filter(|known| known.by.is_none()) {
                    known.by = Some(applied.by.clone());
                    known.reason.clone_from(&applied.retire.reason);
                    known.time_ms = Some(header.time.0);
                    known.revision = Some(applied.revision);
                }
            }
        }
    }
    Ok(retired.into_values().collect())
}

/// Adds to what the engine says of names that are not there which ones may be meant.
pub(super) fn suggest(answer: &mut Answer, names: &[Arc<str>], active: &Definitions) {
    for name in names.iter().filter(|name| !active.strategies.contains_key(*name)) {
        let question = did_you_mean(name, active.strategies.keys().map(|known| &**known));
        let problem = format!("there is no strategy `{name}`");
        let problem = answer.problems.iter_mut().find(|told| told.starts_with(&problem));
        if let (Some(question), Some(problem)) = (question, problem) {
            *problem = format!("there is no strategy `{name}`; {question}");
        }
    }
}
