//! `fermata doctor --repair`: what is safe, when somebody asks for it by name.

use std::sync::Arc;

use clap::ValueEnum;
use fermata_core::command::{Command, OrphanCommand};
use fermata_core::identity::PartitionId;
use fermata_jetstream::StreamReader;
use serde_json::{Value, json};

use super::{DoctorArguments, checks, room, truncation};
use crate::arguments::GlobalArguments;
use crate::broker_session::{ANSWER_LIMIT, BrokerSession, asking_user};
use crate::error::{CliError, ExitCode};
use crate::journal_view::{Orphan, Orphans, SkippedAttempt, read_orphans};
use crate::output::{Output, Tone, span_text};

/// What can be repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Repair {
    /// Attempts without an outcome that nobody works on any more become `unknown`
    OrphanedNodes,
    /// A partition whose journal lost records goes on without them, where that is accepted
    HaltedPartition,
    /// Streams that fill are enlarged, or all to what `--stream-room` says, or `--only` one; nothing shrinks
    Room,
    /// Everything that loses nothing: orphaned nodes
    All,
}

/// Repairs what was named, and tells.
pub(super) async fn repair(
    arguments: &DoctorArguments,
    what: Repair,
    global: &GlobalArguments,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    if what != Repair::Room {
        let of_room = [
            ("--stream-room", arguments.stream_room.is_some()),
            ("--only", arguments.only.is_some()),
            ("--monitor-url", !arguments.monitor_url.is_empty()),
        ];
        if let Some((option, _)) = of_room.into_iter().find(|(_, is_there)| *is_there) {
            return Err(CliError::Usage(format!("`{option}` goes with `room`")));
        }
    }
    if what == Repair::Room {
        if arguments.partition.is_some() {
            let text = "`--partition` goes with `halted-partition`";
            return Err(CliError::Usage(text.to_owned()));
        }
        return room::enlarge(arguments, global, output).await;
    }
    let Some(reason) = &arguments.reason else {
        let text = "say why with `--reason`; it is recorded";
        return Err(CliError::Usage(text.to_owned()));
    };
    let by = arguments.by.clone().unwrap_or_else(asking_user);
    if let (Some(partition), Repair::HaltedPartition) = (arguments.partition, what) {
        if !arguments.accept_truncation {
            let text = "its lost records are gone for good: accept that with `--accept-truncation`, \
                        or restore the stream";
            return Err(CliError::Usage(text.to_owned()));
        }
        let session = BrokerSession::open(global).await?;
        let asked = truncation::Asked {
            partition,
            by,
            reason: reason.clone(),
            dry_run: arguments.dry_run,
            yes: arguments.yes,
            checkpoints: global.data_dir().join("checkpoints"),
        };
        return truncation::accept(&session, asked, output).await;
    }
    match what {
        Repair::HaltedPartition => {
            Err(CliError::Usage("name the partition with `--partition`".to_owned()))
        }
        Repair::OrphanedNodes | Repair::Room | Repair::All if arguments.partition.is_some() => {
            Err(CliError::Usage("`--partition` goes with `halted-partition`".to_owned()))
        }
        Repair::OrphanedNodes | Repair::Room | Repair::All => {
            let session = BrokerSession::open(global).await?;
            give_orphans_up(&session, arguments.dry_run, &by, reason, output).await
        }
    }
}

async fn give_orphans_up(
    session: &BrokerSession,
    dry_run: bool,
    by: &str,
    reason: &str,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let partitions = session.engine_config().await?.partitions;
    let partitions = (0..partitions).map(PartitionId).collect::<Vec<_>>();
    let store = session.definitions_store().await?;
    let reader = StreamReader::new(session.broker());
    // Orders carry journal time, which follows the broker's clock.
    let now_ms = checks::broker_time_ms(session).await?;
    let Orphans { orphans, skipped } = read_orphans(&reader, &store, &partitions, now_ms).await?;
    let (mut given_up, mut left) = (0, skipped.len());
    for skipped in &skipped {
        tell_skipped(skipped, output)?;
    }
    for orphan in &orphans {
        let answer = match dry_run {
            true => "would_give_up".to_owned(),
            false => give_up(session, orphan, by, reason).await?,
        };
        given_up += usize::from(answer == "given_up");
        left += usize::from(!is_settled(&answer));
        tell(orphan, &answer, now_ms, output)?;
    }
    if !output.is_json() {
        let title = output.tone(Tone::Good, "orphaned nodes");
        let verb = if dry_run { "would be" } else { "are" };
        let count = if dry_run { orphans.len() } else { given_up };
        output.line(&format!("{title}: {count} {verb} given up"))?;
    }
    Ok(if left > 0 { ExitCode::Findings } else { ExitCode::Success })
}

/// Whether an answer leaves nothing to be done.
fn is_settled(answer: &str) -> bool {
    matches!(answer, "given_up" | "not_running" | "would_give_up")
}

fn tell_skipped(skipped: &SkippedAttempt, output: &mut Output) -> Result<(), CliError> {
    let SkippedAttempt { run, node, attempt } = skipped;
    if output.is_json() {
        return output.json_line(&json!({
            "repair": "orphaned_node", "answer": "skipped", "run": run, "node": node, "attempt": attempt,
        }));
    }
    output.line(&format!(
        "run {run}, node {node}, attempt {attempt}: skipped, its plan is not stored, so nobody knows how long it may take"
    ))
}

async fn give_up(
    session: &BrokerSession,
    orphan: &Orphan,
    by: &str,
    reason: &str,
) -> Result<String, CliError> {
    let command = |reply_to: Arc<str>| {
        Command::Orphan(OrphanCommand {
            tenant: orphan.tenant.clone(),
            run: orphan.run,
            node: orphan.node.clone(),
            attempt: orphan.attempt,
            by: by.to_owned(),
            reason: reason.to_owned(),
            reply_to: Some(reply_to),
        })
    };
    let answer = session.ask_partition(orphan.run.partition(), ANSWER_LIMIT, command).await?;
    Ok(answer.get("answer").and_then(Value::as_str).unwrap_or("unreadable").to_owned())
}

fn tell(orphan: &Orphan, answer: &str, now_ms: u64, output: &mut Output) -> Result<(), CliError> {
    let Orphan { run, node, attempt, ordered_ms, .. } = orphan;
    if output.is_json() {
        let mut line = json!({ "repair": "orphaned_node", "answer": answer });
        if let (Value::Object(line), Ok(Value::Object(orphan))) =
            (&mut line, serde_json::to_value(orphan))
        {
            line.extend(orphan);
        }
        return output.json_line(&line);
    }
    let age = span_text(now_ms.saturating_sub(*ordered_ms));
    let said = match answer {
        "given_up" => "is unknown from now on",
        "not_running" => "has an outcome by now; nothing was done",
        "would_give_up" => "would be unknown",
        other => other,
    };
    output.line(&format!("run {run}, node {node}, attempt {attempt}, ordered {age} ago: {said}"))
}
