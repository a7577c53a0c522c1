//! `fermata doctor --repair halted-partition --accept-truncation`: a partition
//! whose journal holds fewer records than were signed goes on without them.
//!
//! Everything is read first, and nothing is done unless all of it fits: nobody
//! runs the partition, what is left of the journal is the beginning of what was
//! signed, and the audit log holds the rest. Then one frame is appended with the
//! fence of the journal's end, so that of two who accept one succeeds.

mod append;
mod evidence;
mod lost;

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;

use fermata_core::identity::{JournalTime, PartitionId};
use fermata_jetstream::StreamReader;
use fermata_jetstream::leases::{Leases, partition_key};
use fermata_partition::truncation::Acceptance;
use serde_json::json;

use self::append::Appended;
use self::evidence::{Evidence, Found};
use super::{checks, workers};
use crate::broker_session::{BrokerSession, EngineConfig, random_id};
use crate::commands::audit::AcceptedLoss;
use crate::error::{CliError, ExitCode};
use crate::output::{Output, Tone, counted};

/// How far the broker's clock may be behind the journal's: further, one of both is wrong.
const CLOCK_BEHIND_MS_MAX: u64 = 30_000;

/// What somebody asks for.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) partition: PartitionId,
    pub(super) by: String,
    pub(super) reason: String,
    pub(super) dry_run: bool,
    pub(super) yes: bool,
    /// Folder with the checkpoints that a worker of this machine has written.
    pub(super) checkpoints: PathBuf,
}

/// Accepts the loss, and tells.
pub(super) async fn accept(
    session: &BrokerSession,
    asked: Asked,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let config = session.engine_config().await?;
    if !config.partition_ids().contains(&asked.partition) {
        return Err(CliError::NotFound(format!("there is no partition `{}`", asked.partition)));
    }
    let signed_elsewhere = nobody_runs(session, asked.partition).await?;
    let evidence = match evidence::read(session, &config, &asked, output).await? {
        Found::Loss(evidence) => *evidence,
        Found::Accepted(loss) => return tell_accepted(asked.partition, &loss, output),
    };
    if let Some((worker, signed)) =
        signed_elsewhere.filter(|(_, signed)| *signed > evidence.accepted.signed)
    {
        return Err(CliError::Refused(format!(
            "worker `{worker}` knows a checkpoint of {}, and only one of {} is found: run this where \
             that worker keeps its checkpoints, and name the folder with `--data-dir`",
            counted(signed, "entry", "entries"),
            evidence.accepted.signed
        )));
    }
    let time_ms = checks::broker_time_ms(session).await?;
    if time_ms + CLOCK_BEHIND_MS_MAX < evidence.end.head.time.0 {
        return Err(CliError::Refused(
            "the broker's clock is behind the journal's last record: set it by NTP first"
                .to_owned(),
        ));
    }
    evidence.show(output)?;
    if asked.dry_run {
        return evidence.tell("would_accept", None, output);
    }
    if !asked.yes && !is_confirmed(output)? {
        return evidence.tell("not_accepted", None, output);
    }
    store(session, &config, &asked, evidence, time_ms, output).await
}

async fn store(
    session: &BrokerSession,
    config: &EngineConfig,
    asked: &Asked,
    evidence: Evidence,
    time_ms: u64,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    // First: from the moment of the append an owner may begin, and not from these.
    evidence.remove_snapshots(session).await?;
    let acceptance = Acceptance {
        accepted: evidence.accepted.clone(),
        time: JournalTime(time_ms),
        incarnation: random_id(),
        salt: rand::random(),
    };
    let frame = acceptance.frame(&evidence.end).map_err(|error| CliError::Failed {
        action: format!("accepting the loss of partition {} of {}", asked.partition, config.engine),
        source: Box::new(error),
    })?;
    match append::append(session, asked.partition, evidence.last_sequence, frame).await? {
        Appended::Stored { sequence } => evidence.tell("accepted", Some(sequence), output),
        Appended::Lost { sequence } => {
            // Another was first: who accepts the same has what was asked for.
            let reader = StreamReader::new(session.broker());
            let stream = fermata_jetstream::topology::journal_stream(asked.partition);
            let message = reader.read_one(&stream, sequence).await?;
            let loss =
                message.as_ref().and_then(|message| AcceptedLoss::of(message).ok().flatten());
            match loss {
                Some(loss) => tell_accepted(asked.partition, &loss, output),
                None => Err(CliError::Refused(format!(
                    "the journal of partition {} goes on meanwhile, from message {sequence}: look again",
                    asked.partition
                ))),
            }
        }
    }
}

/// That no worker runs the partition; and how many entries one of them knows to be signed.
async fn nobody_runs(
    session: &BrokerSession,
    partition: PartitionId,
) -> Result<Option<(String, u64)>, CliError> {
    let leases = Leases::open(session.broker()).await?;
    let live = leases.live_workers().await?;
    let name = partition.to_string();
    let lease = leases.get(&partition_key(&name)).await?;
    let holder = lease.as_ref().and_then(|lease| lease.worker());
    let statuses = workers::ask_all(session, &live).await?;
    let mut signed = Vec::new();
    for status in &statuses {
        let Some(found) = status.partitions.iter().find(|found| found.partition == name) else {
            continue;
        };
        if found.state != "halted" {
            return Err(CliError::Refused(format!(
                "partition {name} is not halted: worker `{}` says `{}`",
                status.worker, found.state
            )));
        }
        signed.push((status.worker.clone(), found.signed_records));
    }
    let answered = |holder: &str| statuses.iter().any(|status| status.worker == holder);
    match holder.filter(|holder| !answered(holder)) {
        Some(holder) => Err(CliError::Refused(format!(
            "worker `{holder}` holds the lease of partition {name} and does not answer: it may run it. Stop it, wait \
             15 s, and try again"
        ))),
        None => Ok(signed.into_iter().max_by_key(|(_, signed)| *signed)),
    }
}

fn tell_accepted(
    partition: PartitionId,
    loss: &AcceptedLoss,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    if output.is_json() {
        let partition = partition.to_string();
        let line = json!({
            "repair": "halted_partition", "partition": partition, "answer": "accepted_already", "loss": loss,
        });
        output.json_line(&line)?;
        return Ok(ExitCode::Success);
    }
    let AcceptedLoss { from, next, by, reason, .. } = loss;
    let last = next - 1;
    output.line(&format!(
        "partition {partition}: nothing to do; {by} accepted the loss of records {from} to {last}: {reason}"
    ))?;
    Ok(ExitCode::Success)
}

/// Asks whoever sits at the terminal.
fn is_confirmed(output: &Output) -> Result<bool, CliError> {
    let (stdin, mut stderr) = (std::io::stdin(), std::io::stderr());
    if output.is_json() || !stdin.is_terminal() || !stderr.is_terminal() {
        let text = "nobody is there to be asked: say `--yes`, or look with `--dry-run`";
        return Err(CliError::Usage(text.to_owned()));
    }
    write!(stderr, "Let the partition go on without these records? Type `yes`: ")?;
    stderr.flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}

impl Evidence {
    /// Tells what became of it.
    fn tell(
        &self,
        answer: &str,
        sequence: Option<u64>,
        output: &mut Output,
    ) -> Result<ExitCode, CliError> {
        let code = match answer {
            "not_accepted" => ExitCode::Findings,
            _ => ExitCode::Success,
        };
        if output.is_json() {
            output.json_line(&self.json(answer, sequence))?;
            return Ok(code);
        }
        let partition = self.partition;
        let text = match (answer, sequence) {
            ("would_accept", _) => "nothing was done".to_owned(),
            (_, Some(sequence)) => format!(
                "the loss is accepted, by message {sequence} of the journal; restart the workers: the partition goes on"
            ),
            (_, None) => "nothing was done; the partition stays halted".to_owned(),
        };
        let title = output.tone(Tone::Good, &format!("partition {partition}"));
        output.line(&format!("{title}: {text}"))?;
        Ok(code)
    }
}
