//! `fermata audit prove`: receipts of records, for people who trust only the key.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use fermata_audit::{Receipt, Verifier};
use fermata_core::identity::{PartitionId, RunId};
use fermata_jetstream::StreamReader;
use serde_json::json;

use super::newest::{SignedLog, partitions_of};
use super::opening::{Gone, Openings};
use super::partition_audit::AcceptedLoss;
use super::pass::{Asked, Pass};
use super::receipt::{RECORD_COLUMNS, record_row};
use crate::broker_session::BrokerSession;
use crate::commands::runs::{find, partition_of, run_id};
use crate::error::{CliError, ExitCode};
use crate::output::{Output, Tone, counted};

/// Arguments of `fermata audit prove`.
#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("asked").args(["run", "partition"]).required(true))]
pub struct ProveArguments {
    /// All records of this run
    #[arg(long, value_name = "ID", value_parser = run_id, conflicts_with = "record")]
    pub run: Option<RunId>,
    /// Partition of the records: a number, or `control`
    #[arg(long, value_name = "P", requires = "record")]
    pub partition: Option<PartitionId>,
    /// Index of a record in its partition, as `audit tail` prints it; may be named several times
    #[arg(long, value_name = "INDEX", requires = "partition")]
    pub record: Vec<u64>,
    /// Put salt and payload of each record into its receipt; they may be personal data
    #[arg(long)]
    pub open: bool,
    /// Write the receipts to this file, one JSON object per line
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Key that checkpoints are verified with; default: the one in the engine's configuration
    #[arg(long, value_name = "KEY")]
    pub vkey: Option<String>,
}

impl ProveArguments {
    fn asked(&self) -> Asked {
        match self.run {
            Some(run) => Asked::Run(run),
            None => Asked::Records(self.record.iter().copied().collect::<BTreeSet<_>>()),
        }
    }
}

/// Proves what the arguments name.
pub(super) async fn run(
    arguments: &ProveArguments,
    session: &BrokerSession,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let config = session.engine_config().await?;
    let verifier = Verifier::parse(arguments.vkey.as_ref().unwrap_or(&config.audit_vkey))?;
    let asked = arguments.asked();
    let partition = match arguments.run {
        Some(run) => Some(partition_of(run, config.partitions)?),
        None => partitions_of(&config, arguments.partition)?.first().copied(),
    };
    let log = SignedLog::new(&config, partition.unwrap_or(PartitionId::CONTROL), verifier);
    let reader = StreamReader::new(session.broker());
    let Some(signed) = log.newest_checkpoint(&reader, asked.size_min()).await? else {
        return Err(not_found(&log, &asked, 0, session, output).await);
    };
    let size = signed.checkpoint.size();
    if asked.size_min() > size {
        return Err(not_signed(&log, &asked, size));
    }

    let progress = output.progress(0, "messages read");
    let pass = Pass::read(&reader, log.partition, &asked, size, &progress).await?;
    progress.finish_and_clear();
    let (leaves, behind) = (pass.leaves(), pass.behind);
    if leaves < size {
        return finding(
            &log,
            &format!(
                "{} signed, but audit ends after {leaves}",
                counted(size, "entry was", "entries were")
            ),
            output,
        );
    }
    let (root, proven) = pass.finish()?;
    if root != signed.checkpoint.root() {
        let signed = signed.checkpoint.root();
        let first = match size {
            1 => "the first entry has".to_owned(),
            _ => format!("the first {size} entries have"),
        };
        let differs = format!("{first} root `{root}`, signed was `{signed}`");
        return finding(&log, &differs, output);
    }
    if proven.is_empty() {
        return Err(not_found(&log, &asked, size, session, output).await);
    }

    let mut openings = match arguments.open {
        true => Some(Openings::open(&reader, log.partition, &proven).await?),
        false => None,
    };
    let mut receipts = Receipts::new(arguments.out.as_deref())?;
    let (mut rows, mut gone) = (Vec::new(), Vec::new());
    for record in proven {
        let opening = match &mut openings {
            Some(openings) => openings.of(record.index).await?.map_err(|why| gone.push(why)).ok(),
            None => None,
        };
        let receipt = Receipt {
            partition: log.partition.to_string(),
            origin: log.origin.clone(),
            index: record.index,
            header: record.header,
            commitment: record.commitment,
            leaf: record.leaf,
            path: record.path,
            checkpoint: signed.note.clone(),
            opening,
        };
        // Nobody gets a receipt that does not hold: an opened one compares the journal as well.
        if let Err(error) = receipt.check(std::slice::from_ref(&log.verifier)) {
            return finding(&log, &format!("record {}: {error}", receipt.index), output);
        }
        receipts.write(&receipt, output)?;
        rows.push(record_row(&receipt));
    }
    let count = rows.len();
    receipts.finish()?;
    not_opened(&gone, count, output);
    if behind > 0 {
        let more = counted(behind, "more record of the run is", "more records of the run are");
        output.note(&format!("{more} not signed yet"));
    }
    if !output.is_json() {
        output.table(&RECORD_COLUMNS, rows, "")?;
        let proved = output.tone(Tone::Good, "proved");
        let (partition, name) = (log.partition, log.verifier.name());
        output.line(&format!(
            "{proved}: {} of partition {partition}, in {} that `{name}` signed under root {root}",
            counted(count, "record", "records"),
            counted(size, "entry", "entries")
        ))?;
        if arguments.out.is_none() {
            output.note("--json prints the receipts, --out FILE writes them");
        }
    }
    Ok(ExitCode::Success)
}

/// Says why nothing is proven: a run that the journal does not know either was typed wrong, as a rule.
async fn not_found(
    log: &SignedLog,
    asked: &Asked,
    size: u64,
    session: &BrokerSession,
    output: &Output,
) -> CliError {
    match asked {
        Asked::Run(run) => match find(*run, session, output).await {
            Ok(_) => not_signed(log, asked, size),
            Err(unknown) => unknown,
        },
        Asked::Records(_) => not_signed(log, asked, size),
    }
}

fn not_signed(log: &SignedLog, asked: &Asked, size: u64) -> CliError {
    let partition = log.partition;
    CliError::NotFound(format!(
        "{asked} is not in the {} signed in partition {partition}; \
         what has just happened is signed within about a second",
        counted(size, "entry that is", "entries that are")
    ))
}

/// Says which records are not opened, and why: those of one reason together.
fn not_opened(gone: &[Gone], count: usize, output: &mut Output) {
    for why in gone.chunk_by(|one, next| one == next) {
        let (Some(first), records) = (why.first(), why.len()) else { continue };
        let (are, were) = if records == 1 { ("is", "was") } else { ("are", "were") };
        let reason = match first {
            Gone::Removed => {
                format!("{were} kept long enough and {are} removed from the archive")
            }
            Gone::Lost(AcceptedLoss { by, reason, journal_sequence, .. }) => format!(
                "{are} lost, which {by} accepted (\u{201c}{reason}\u{201d}, message {journal_sequence} of the journal)"
            ),
            Gone::Missing => format!(
                "{are} not in the journal, and nobody says that anything was removed or lost \
                 (`fermata audit verify` says more)"
            ),
        };
        let all = counted(count, "record", "records");
        output.note(&format!("{records} of {all} {reason}, and {are} not opened"));
    }
}

/// Says that the log is not the one that was signed.
fn finding(log: &SignedLog, text: &str, output: &mut Output) -> Result<ExitCode, CliError> {
    let partition = log.partition.to_string();
    if output.is_json() {
        output.json_line(&json!({ "partition": partition, "finding": text }))?;
    } else {
        let title = output.tone(Tone::Bad, "NOT SOUND");
        output.line(&format!(
            "{title}: partition {partition}: {text}; `fermata audit verify` says more"
        ))?;
    }
    Ok(ExitCode::Findings)
}

/// Where receipts go: a file, and standard output for programs.
struct Receipts {
    file: Option<(String, BufWriter<File>)>,
}

impl Receipts {
    fn new(path: Option<&Path>) -> Result<Self, CliError> {
        let create = |path: &Path| {
            let name = path.display().to_string();
            let file = File::create(path).map_err(CliError::io(format!("create `{name}`")))?;
            Ok::<_, CliError>((name, BufWriter::new(file)))
        };
        Ok(Self { file: path.map(create).transpose()? })
    }

    fn write(&mut self, receipt: &Receipt, output: &mut Output) -> Result<(), CliError> {
        let text = receipt.to_json().map_err(|source| CliError::Failed {
            action: "writing a receipt".to_owned(),
            source: source.into(),
        })?;
        if let Some((name, file)) = &mut self.file {
            writeln!(file, "{text}").map_err(CliError::io(format!("write `{name}`")))?;
        }
        match output.is_json() {
            true => output.line(&text),
            false => Ok(()),
        }
    }

    fn finish(self) -> Result<(), CliError> {
        let Some((name, mut file)) = self.file else { return Ok(()) };
        file.flush().map_err(CliError::io(format!("write `{name}`")))
    }
}
