//! Applying definitions as a user's tool does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fermata_core::command::{Command, DefineCommand, StrategyEntry, WorkflowEntry};
use fermata_core::digest::Digest;
use fermata_core::identity::PartitionId;
use fermata_core::json::Json;
use fermata_core::plan::Executable;
use fermata_definitions::{Limits, Problem, read_strategies};
use fermata_wire::commands::CommandFrame;
use fermata_wire::subjects;
use miette::{IntoDiagnostic as _, WrapErr as _, miette};
use serde::Deserialize;
use uuid::Uuid;

use crate::client::Client;
use crate::events::stored;

/// How long an engine may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// What is active.
#[derive(Debug, Clone)]
pub struct Applied {
    /// Number of the set.
    pub revision: u64,
    /// The plans in it.
    pub plans: HashMap<Digest, Arc<Executable>>,
}

/// The engine's answer.
#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    revision: u64,
    #[serde(default)]
    problems: Vec<String>,
}

/// The strategy `name` that answers events of type `kind` by starting `workflow` version 1.
pub fn starts(kind: &str, workflow: &str) -> String {
    format!(
        "strategies:\n  - name: {workflow}\n    version: 1\n    tenant: '*'\n    on: {kind}\n    \
         workflow: {{ name: {workflow}, version: '1' }}\n"
    )
}

/// The strategy that ignores events of type `kind`.
pub fn ignores(kind: &str) -> String {
    format!(
        "strategies:\n  - name: ignore\n    version: 1\n    tenant: '*'\n    on: {kind}\n    \
         action: ignore\n"
    )
}

/// Applies workflows and strategies, and waits for the engine's answer.
pub async fn apply(
    client: &Client,
    workflows: Vec<Executable>,
    strategies: &str,
) -> miette::Result<Applied> {
    let store = client.store().await?;
    let mut plans = HashMap::new();
    let mut entries = Vec::new();
    for workflow in workflows {
        let plan = workflow.plan();
        let (digest, bytes) = fermata_wire::plan::encode(plan).into_diagnostic()?;
        store.put_blob(&digest.to_string(), &bytes).await.into_diagnostic()?;
        let (name, version) = (plan.workflow.clone(), plan.workflow_version.clone());
        entries.push(WorkflowEntry { name, version, plan: digest });
        plans.insert(digest, Arc::new(workflow));
    }
    let strategies =
        read_strategies(strategies, None, &Limits::WRITTEN).map_err(|found| told(&found))?;
    let strategies = strategies.iter().map(|strategy| {
        let definition = Json::from_value(&serde_json::to_value(strategy).into_diagnostic()?);
        Ok(StrategyEntry {
            name: strategy.name.as_str().into(),
            version: strategy.version,
            definition,
        })
    });
    let strategies = strategies.collect::<miette::Result<Vec<_>>>()?;
    let inbox = format!("_INBOX.bench.{}", Uuid::from_bytes(rand::random()).simple());
    let mut answers = client.core.subscribe(&inbox).await.into_diagnostic()?;
    let command = Command::Define(DefineCommand {
        id: Uuid::from_bytes(rand::random()),
        by: "bench".to_owned(),
        strategies,
        workflows: entries,
        reply_to: Some(inbox.into()),
        flags: fermata_core::flags::Flags::default(),
        contracts: Vec::new(),
        contract_modes: std::collections::BTreeMap::new(),
        retire: fermata_core::command::Retirement::default(),
    });
    let frame = CommandFrame { floor: 0, commands: vec![command] }.encode().into_diagnostic()?;
    let subject = subjects::commands(PartitionId::CONTROL);
    stored(client.publisher.publish(subject, None, frame.into()).await.await)?;
    let answer = tokio::time::timeout(ANSWER_LIMIT, answers.next())
        .await
        .into_diagnostic()
        .wrap_err("the engine does not answer a definition")?
        .ok_or_else(|| miette!("the connection is closed"))?;
    let answer: Answer = serde_json::from_slice(&answer.payload).into_diagnostic()?;
    if !answer.problems.is_empty() {
        return Err(miette!("the engine refuses the definitions: {}", answer.problems.join("; ")));
    }
    Ok(Applied { revision: answer.revision, plans })
}

/// Problems of a definition as an error.
pub fn told(problems: &[Problem]) -> miette::Report {
    let texts = problems.iter().map(|problem| format!("{}: {}", problem.path, problem.message));
    miette!("{}", texts.collect::<Vec<_>>().join("; "))
}
