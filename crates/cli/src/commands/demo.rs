//! `fermata demo`: everything at work, and checked.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use fermata_actors::Role;
use fermata_actors::hand_over::ATTEMPTS_LIMIT_DEFAULT;
use fermata_actors::task_worker::PERMITS_DEFAULT;
use fermata_core::identity::RunId;
use fermata_core::partition::KEYS_MAX_DEFAULT;
use fermata_definitions::{Limits, read_strategies, read_workflow, report};
use fermata_jetstream::Durability;
use fermata_jetstream::topology::PARTITIONS_DEFAULT;
use indicatif::ProgressBar;

use super::audit::{PartitionAudit, VerifyArguments, print_audits, verify_partitions};
use super::dead::DeadLetters;
use super::definitions::make_active;
use super::runs::print_history;
use super::up::{EngineArguments, PluginArgument};
use super::{strategy, workflow};
use crate::arguments::{ENGINE_FILE, GlobalArguments};
use crate::broker_session::{BrokerSession, stored_sequence};
use crate::demo;
use crate::demo::plugin_server::PluginServer;
use crate::demo::scenario::{EVENTS_DEFAULT, EVENTS_MAX, EVENTS_MIN, Scenario};
use crate::demo::tally::{Counting, Figure, Tally};
use crate::error::{CliError, ExitCode};
use crate::journal_view::read_run;
use crate::local_engine::{
    self, EndRequests, LocalEngine, OwnBroker, Start, make_folder, worker_file,
};
use crate::output::{Output, Tone, span_text};

/// Arguments of `fermata demo`; the data folder is a global one.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  fermata demo
  fermata demo --keep --data-dir /tmp/fermata-demo
  fermata demo --events 1000

It brings a broker of its own; its data folder is target/demo unless `--data-dir` names
another, and is emptied first.")]
pub struct DemoArguments {
    /// Keep broker and engine running at the end, to look around
    #[arg(long)]
    pub keep: bool,
    /// How many events to publish, the broken and the repeated ones included
    #[arg(long, default_value_t = EVENTS_DEFAULT, value_parser = clap::value_parser!(u32).range(i64::from(EVENTS_MIN)..=i64::from(EVENTS_MAX)), value_name = "N")]
    pub events: u32,
}

/// Folder of the demonstration when none is named.
const DATA_DIR: &str = "target/demo";

/// File in the folder that a running demonstration holds locked.
const LOCK_FILE: &str = "demo.lock";

/// How long the engine may take for all events after the last was published.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);

/// How often it is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Shows everything at work, and holds every figure against the scenario.
///
/// # Errors
///
/// When a part cannot be started.
///
/// # Cancel safety
///
/// Broker and engine end with the process.
pub async fn run(
    arguments: DemoArguments,
    global: &GlobalArguments,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let data_dir = global.data_dir.clone().unwrap_or_else(|| PathBuf::from(DATA_DIR));
    let _lock = take_folder(&data_dir)?;
    let plugins = PluginServer::start(Scenario::behaviours())
        .await
        .map_err(CliError::io("start the plugin server"))?;
    let mut running = start(&data_dir, &plugins).await?;
    let global = running.arguments(global);
    say(output, &format!("broker     {}  (data in {})", running.url(), data_dir.display()))?;
    say(output, &format!("plugins    {}  (counts effects per idempotency key)", plugins.url()))?;
    // Nothing is halted where everything is new.
    running.ready().await?;
    let figures = show(&arguments, &running, &plugins, &global, output).await;
    if arguments.keep && figures.is_ok() {
        let code = figures?;
        say(output, "\nbroker and engine stay up; Ctrl-C ends them")?;
        let mut requests = EndRequests::listen()?;
        local_engine::stay(running, &mut requests, ATTEMPTS_LIMIT_DEFAULT).await?;
        return Ok(code);
    }
    running.shut_down(ATTEMPTS_LIMIT_DEFAULT).await?;
    figures
}

/// Makes sure that what is emptied here belongs to nobody else: neither to an engine that is
/// no demonstration nor to a demonstration that still runs. The lock ends with the file.
fn take_folder(data_dir: &Path) -> Result<File, CliError> {
    let folder = data_dir.display();
    if worker_file(data_dir).exists() {
        let refused = format!("`{folder}` is the data folder of an engine; choose another one");
        return Err(CliError::Usage(refused));
    }
    make_folder(data_dir)?;
    let file = File::create(data_dir.join(LOCK_FILE));
    let file = file.map_err(CliError::io(format!("write to `{folder}`")))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let text = "a demonstration runs there; end it, or name another folder by `--data-dir`";
            Err(CliError::Usage(format!("`{folder}` is in use: {text}")))
        }
        Err(TryLockError::Error(source)) => Err(CliError::io(format!("lock `{folder}`"))(source)),
    }
}

async fn start(data_dir: &Path, plugins: &PluginServer) -> Result<LocalEngine, CliError> {
    // What an earlier demonstration left would be counted too.
    match std::fs::remove_dir_all(data_dir.join("nats")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(CliError::io(format!("empty `{}`", data_dir.display()))(error));
        }
        Ok(()) | Err(_) => {}
    }
    let _ = std::fs::remove_dir_all(data_dir.join("checkpoints"));
    // It would work for that one's engine alone.
    let _ = std::fs::remove_file(data_dir.join(ENGINE_FILE));
    let named = |name: &&str| PluginArgument { name: (*name).to_owned(), url: plugins.url() };
    let engine = EngineArguments {
        partitions: PARTITIONS_DEFAULT,
        replicas: 1,
        plugins: Scenario::plugins().iter().map(named).collect(),
        config: None,
        http: None,
        http_receipts: false,
        drain_seconds: ATTEMPTS_LIMIT_DEFAULT.as_secs(),
        audit_key: None,
        replay_secrets: None,
        archive_retention_days: None,
        stream_room: None,
        queues: Vec::new(),
        queue_permits: PERMITS_DEFAULT as u64,
        keys_max: KEYS_MAX_DEFAULT as u64,
    };
    LocalEngine::start(Start {
        data_dir,
        nats_url: None,
        own_broker: OwnBroker { durability: Durability::Power, port: None },
        roles: Role::ALL.into_iter().collect(),
        name: Some("demo"),
        tells_url: true,
        engine: &engine,
    })
    .await
}

async fn show(
    arguments: &DemoArguments,
    running: &LocalEngine,
    plugins: &PluginServer,
    global: &GlobalArguments,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    apply(global, output).await?;
    let scenario = Scenario::new(arguments.events, "demo");
    let reader = &running.engine().ports().reader;
    let mut counting = Counting::begin(reader, PARTITIONS_DEFAULT).await?;
    let begun = Instant::now();
    publish(running, &scenario, output).await?;
    let tally = settle(&mut counting, &scenario, output).await?;
    let took = begun.elapsed();

    let mut figures = tally.figures(&scenario.expected);
    figures.extend(plugin_figures(plugins, &scenario));
    // Counted, not kept.
    let dead = DeadLetters::read(reader, 0, |_| true, &ProgressBar::hidden()).await?;
    let letters = u32::try_from(dead.found).unwrap_or(u32::MAX);
    figures.push(Figure::new("dead letters that can be listed", scenario.expected.dead(), letters));
    print_figures(&figures, &scenario, took, output)?;
    if let (Some(run), false) = (tally.sample, output.is_json())
        && let Some(history) = read_run(reader, run, &ProgressBar::hidden()).await?.history
    {
        let title = output.tone(Tone::Strong, "One run that needed another attempt");
        output.line(&format!("\n{title}"))?;
        print_history(&history, output)?;
    }
    let audits = audit(global, output).await?;
    let code = verdict(&figures, &audits);
    if !output.is_json() {
        let folder = global.data_dir.clone().unwrap_or_else(|| PathBuf::from(DATA_DIR));
        // A run of this demonstration can be looked at only while its broker runs.
        let sample = tally.sample.filter(|_| arguments.keep);
        epilogue(code == ExitCode::Success, arguments.keep, sample, &folder, output)?;
    }
    Ok(code)
}

/// Good only if every figure holds, and the audit is sound and has everything.
fn verdict(figures: &[Figure], audits: &[PartitionAudit]) -> ExitCode {
    let good = figures.iter().all(Figure::holds)
        && audits.iter().all(|audit| audit.is_sound() && is_signed(audit));
    if good { ExitCode::Success } else { ExitCode::Findings }
}

async fn apply(global: &GlobalArguments, output: &mut Output) -> Result<(), CliError> {
    let read = |text, name| {
        read_workflow(text, Some(name), &Limits::WRITTEN)
            .map_err(|problems| CliError::Usage(report(&problems)))
    };
    let workflows = [
        read(demo::REPORT_WORKFLOW, "report.workflow.yaml")?,
        read(demo::REQUEST_WORKFLOW, "request.workflow.yaml")?,
    ];
    let strategies = read_strategies(demo::STRATEGIES, Some("strategies.yaml"), &Limits::WRITTEN)
        .map_err(|problems| CliError::Usage(report(&problems)))?;
    let mut new = workflow::new_definitions(&workflows)?;
    let count = strategies.len();
    new.strategies = strategy::entries(strategies)?;
    let answer = make_active(new, Some("demo".to_owned()), global, output).await?;
    if !answer.problems.is_empty() {
        return Err(CliError::Usage(answer.problems.join("; ")));
    }
    let text = format!("applied    2 workflows, {count} strategies, revision {}", answer.revision);
    say(output, &text)
}

async fn publish(
    running: &LocalEngine,
    scenario: &Scenario,
    output: &mut Output,
) -> Result<(), CliError> {
    let publisher = &running.engine().ports().publisher;
    let mut definitions = running.engine().ports().definitions.clone();
    // What is published before the matcher has seen the strategies matches nothing.
    let seen = definitions.wait_for(|snapshot| snapshot.revision > 0);
    if tokio::time::timeout(SETTLE_LIMIT, seen).await.is_err() {
        let what_now = "the definitions were applied and never became active".to_owned();
        return Err(CliError::NoAnswer { seconds: SETTLE_LIMIT.as_secs(), what_now });
    }
    let mut receipts = Vec::with_capacity(scenario.messages.len());
    for message in &scenario.messages {
        let mut headers = fermata_jetstream::Headers::new();
        headers.insert("Content-Type", message.content_type);
        let subject = message.subject.clone();
        let receipt = publisher.publish(subject, Some(headers), message.payload.clone()).await;
        receipts.push((&message.subject, receipt));
    }
    for (subject, receipt) in receipts {
        stored_sequence(subject, &receipt.await)?;
    }
    let (messages, events) = (scenario.messages.len(), scenario.expected.events);
    say(output, &format!("published  {events} events in {messages} messages, each acknowledged"))
}

/// Waits until every figure of the journals is there, or the limit has passed.
async fn settle(
    counting: &mut Counting,
    scenario: &Scenario,
    output: &mut Output,
) -> Result<Tally, CliError> {
    let bar = output.progress(u64::from(scenario.expected.runs()), "runs completed");
    let begun = Instant::now();
    loop {
        let tally = counting.count().await?;
        let completed = tally.runs_succeeded.values().sum::<u32>();
        bar.set_position(u64::from(completed));
        let settled = tally.figures(&scenario.expected).iter().all(Figure::holds);
        if settled || begun.elapsed() > SETTLE_LIMIT {
            bar.finish_and_clear();
            return Ok(tally.clone());
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn plugin_figures(plugins: &PluginServer, scenario: &Scenario) -> Vec<Figure> {
    let report = plugins.report();
    let commits = |path: &String| report.paths.get(path).map_or(0, |counts| counts.commits);
    let by_path = scenario.expected.commits.iter().map(|(path, expected)| {
        Figure::new(format!("effects at {path}"), *expected, commits(path))
    });
    let most = Figure::new("most effects of one key", 1, report.commits_of_a_key_max);
    by_path.chain([most]).collect()
}

fn print_figures(
    figures: &[Figure],
    scenario: &Scenario,
    took: Duration,
    output: &mut Output,
) -> Result<(), CliError> {
    if output.is_json() {
        return figures.iter().try_for_each(|figure| output.json_line(figure));
    }
    let events = scenario.expected.events;
    let took = span_text(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    let title = format!("What became of {events} events, {took} after the first was published");
    output.line(&format!("\n{}", output.tone(Tone::Strong, &title)))?;
    let row = |figure: &Figure| {
        let verdict = match figure.holds() {
            true => output.tone(Tone::Good, "as it must be"),
            false => output.tone(Tone::Bad, "WRONG"),
        };
        let (found, expected) = (figure.found.to_string(), figure.expected.to_string());
        vec![figure.what.clone(), found, expected, verdict]
    };
    let rows = figures.iter().map(row).collect();
    output.table(&["OUTCOME", "FOUND", "IMPLIED", ""], rows, "")
}

/// Whether every record has its leaf, and a checkpoint covers every leaf.
fn is_signed(audit: &PartitionAudit) -> bool {
    audit.report.unaudited == 0 && audit.report.unsigned == 0
}

/// Verifies the audit once everything is signed.
async fn audit(
    global: &GlobalArguments,
    output: &mut Output,
) -> Result<Vec<PartitionAudit>, CliError> {
    let session = BrokerSession::open(global).await?;
    let everything = VerifyArguments {
        partition: None,
        vkey: None,
        export: None,
        complete: false,
        checkpoints: Vec::new(),
    };
    let begun = Instant::now();
    let audits = loop {
        let audits = verify_partitions(&everything, &session, &ProgressBar::hidden()).await?;
        if audits.iter().all(is_signed) || begun.elapsed() > SETTLE_LIMIT {
            break audits;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    };
    if !output.is_json() {
        output.line(&format!(
            "\n{}",
            output.tone(Tone::Strong, "The audit, recomputed from the journals")
        ))?;
    }
    print_audits(&audits, output)?;
    Ok(audits)
}

fn epilogue(
    good: bool,
    kept: bool,
    sample: Option<RunId>,
    folder: &Path,
    output: &mut Output,
) -> Result<(), CliError> {
    let verdict = match good {
        true => output
            .tone(Tone::Good, "Every figure is what the scenario implies, and the audit is sound."),
        false => output.tone(Tone::Bad, "Something is not as it must be: see the tables above."),
    };
    output.line(&format!("\n{verdict}"))?;
    let program = std::env::args().next().unwrap_or_else(|| "fermata".to_owned());
    let folder = folder.display();
    if kept {
        output.line("\nTo look around yourself, use a second terminal:")?;
    } else {
        output.line("\nTo look around yourself, keep it running and use a second terminal:")?;
        output.line(&format!("  {program} demo --keep --data-dir {folder}"))?;
    }
    let run = sample.map_or_else(|| "<id>".to_owned(), |run| run.to_string());
    let show = format!("runs show {run}");
    let tail = "audit tail --from-start --no-follow";
    for command in ["runs list", &show, "dead list", "audit verify", tail] {
        output.line(&format!("  {program} {command} --data-dir {folder}"))?;
    }
    Ok(())
}

fn say(output: &mut Output, text: &str) -> Result<(), CliError> {
    if output.is_json() { Ok(()) } else { output.line(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_figure_that_is_not_implied_is_a_finding() {
        let right = Figure::new("runs completed", 101, 101);
        let wrong = Figure::new("repeats recognised", 10, 9);

        assert_eq!(verdict(std::slice::from_ref(&right), &[]), ExitCode::Success);
        assert_eq!(verdict(&[right, wrong], &[]), ExitCode::Findings);
    }

    #[test]
    fn the_folder_of_an_engine_or_of_a_running_demonstration_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let held = take_folder(folder.path()).unwrap();

        let second = take_folder(folder.path()).unwrap_err();
        drop(held);
        let free = take_folder(folder.path()).is_ok();
        std::fs::write(worker_file(folder.path()), "worker-1").unwrap();
        let engines = take_folder(folder.path()).unwrap_err();

        assert!(second.to_string().contains("is in use"), "{second}");
        assert!(free && engines.to_string().contains("of an engine"), "{engines}");
    }
}
