//! `fermata strategy list --retired`: who took what out of use, read from the control partition's journal.

use std::collections::BTreeMap;
use std::sync::Arc;

use fermata_core::identity::PartitionId;
use fermata_core::partition::Definitions;
use fermata_core::record::Body;
use fermata_definitions::did_you_mean;
use fermata_jetstream::StreamReader;
use serde::Serialize;

use crate::broker_session::BrokerSession;
use crate::commands::definitions::Answer;
use crate::error::{CliError, ExitCode};
use crate::journal_view::JournalReader;
use crate::output::{Output, time_text};

/// A strategy that is out of use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Retired {
    strategy: Arc<str>,
    version: u32,
    /// Absent where the journal does not hold it any more.
    by: Option<String>,
    reason: Option<String>,
    time_ms: Option<u64>,
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
    let retired = active.retired.iter().map(|(strategy, version)| {
        let (strategy, version) = (strategy.clone(), *version);
        (strategy.clone(), Retired { strategy, version, by: None, reason: None, time_ms: None })
    });
    let mut retired: BTreeMap<_, _> = retired.collect();
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
                    (known.by, known.reason, known.time_ms) = (None, None, None);
                }
            }
            for name in &applied.retire.strategies {
                // What is retired already is not retired once more by another one.
                if let Some(known) = retired.get_mut(name).filter(|known| known.by.is_none()) {
                    known.by = Some(applied.by.clone());
                    known.reason.clone_from(&applied.retire.reason);
                    known.time_ms = Some(header.time.0);
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
