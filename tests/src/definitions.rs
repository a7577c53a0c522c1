//! Applying definitions as a user's tool does.

use std::time::Duration;

use fermata_actors::Engine;
use fermata_core::command::{Command, DefineCommand, Retirement, StrategyEntry, WorkflowEntry};
use fermata_core::identity::PartitionId;
use fermata_core::json::Json;
use fermata_core::plan::{Executable, Plan};
use fermata_core::strategy::StrategyDefinition;
use fermata_definitions::{Limits, read_strategies, read_workflow};
use fermata_jetstream::PublishOutcome;
use fermata_wire::commands::CommandFrame;
use fermata_wire::subjects;

/// How long an engine may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Applies workflows and strategies written in YAML and waits until this
/// process sees them; returns the revision.
///
/// # Panics
///
/// When they are refused.
pub async fn apply_yaml(engine: &Engine, workflows: &[&str], strategies: &str) -> u64 {
    let plans = workflows
        .iter()
        .map(|yaml| read_workflow(yaml, None, &Limits::WRITTEN).expect("a sound workflow"))
        .map(Executable::into_plan)
        .collect();
    let strategies = read_strategies(strategies, None, &Limits::WRITTEN).expect("sound strategies");
    apply(engine, plans, strategies).await
}

/// Applies plans and strategies and waits until this process sees them.
///
/// # Panics
///
/// When they are refused.
pub async fn apply(engine: &Engine, plans: Vec<Plan>, strategies: Vec<StrategyDefinition>) -> u64 {
    let (revision, problems) = offer(engine, plans, strategies).await;
    assert_eq!(problems, Vec::<String>::new(), "the definitions are accepted");
    revision
}

/// Offers strategies written in YAML; returns what speaks against them.
pub async fn offer_yaml(engine: &Engine, strategies: &str) -> Vec<String> {
    let strategies = read_strategies(strategies, None, &Limits::WRITTEN).expect("sound strategies");
    offer(engine, Vec::new(), strategies).await.1
}

/// Takes strategies out of use; returns what speaks against it.
pub async fn retire(engine: &Engine, names: &[&str]) -> Vec<String> {
    let strategies = names.iter().map(|name| (*name).into()).collect();
    let retire = Retirement { strategies, reason: Some("not needed".to_owned()) };
    ask(engine, DefineCommand { retire, ..DefineCommand::default() }).await.1
}

/// Offers plans and strategies, and waits until this process sees what is active then; returns
/// the revision and what speaks against them.
async fn offer(
    engine: &Engine,
    plans: Vec<Plan>,
    strategies: Vec<StrategyDefinition>,
) -> (u64, Vec<String>) {
    let ports = engine.ports();
    let mut workflows = Vec::new();
    for plan in plans {
        let (digest, bytes) = fermata_wire::plan::encode(&plan).expect("an encodable plan");
        ports.store.put_blob(&digest.to_string(), &bytes).await.expect("a stored plan");
        let (name, version) = (plan.workflow.clone(), plan.workflow_version.clone());
        workflows.push(WorkflowEntry { name, version, plan: digest });
    }
    let strategies = strategies.iter().map(|strategy| StrategyEntry {
        name: strategy.name.as_str().into(),
        version: strategy.version,
        definition: Json::from_value(&serde_json::to_value(strategy).expect("JSON")),
    });
    let strategies = strategies.collect();
    let whole = DefineCommand { strategies, workflows, ..DefineCommand::default() };
    let mut answered = (0, Vec::new());
    for part in whole.parts() {
        answered = ask(engine, part).await;
        if !answered.1.is_empty() {
            break;
        }
    }
    answered
}

async fn ask(engine: &Engine, command: DefineCommand) -> (u64, Vec<String>) {
    let ports = engine.ports();
    let inbox = format!("_INBOX.test.{}", uuid::Uuid::from_bytes(rand::random()).simple());
    let mut answers = ports.core.subscribe(&inbox).await.expect("a subscription");
    let command = Command::Define(DefineCommand {
        id: uuid::Uuid::from_bytes(rand::random()),
        by: "test".to_owned(),
        reply_to: Some(inbox.into()),
        ..command
    });
    publish_command(engine, PartitionId::CONTROL, command).await;
    let answer =
        tokio::time::timeout(ANSWER_LIMIT, answers.next()).await.expect("an answer in time");
    let answer: serde_json::Value =
        serde_json::from_slice(&answer.expect("an answer").payload).expect("JSON");
    let problems = answer["problems"].as_array().expect("a list").iter();
    let problems = problems.map(|problem| problem.as_str().expect("text").to_owned()).collect();
    let revision = answer["revision"].as_u64().expect("a revision");
    let mut definitions = ports.definitions.clone();
    let seen = definitions.wait_for(|snapshot| snapshot.revision >= revision);
    tokio::time::timeout(ANSWER_LIMIT, seen).await.expect("in time").expect("a watch");
    (revision, problems)
}

/// Publishes one command.
///
/// # Panics
///
/// When it is not stored.
pub async fn publish_command(engine: &Engine, partition: PartitionId, command: Command) {
    let frame = CommandFrame { floor: 0, commands: vec![command] }.encode().expect("a frame");
    let subject = subjects::commands(partition);
    let outcome = engine.ports().publisher.publish(subject, None, frame.into()).await.await;
    assert!(matches!(outcome, PublishOutcome::Stored { .. }), "{outcome:?}");
}
