//! `fermata audit checkpoint`: what the log has signed last, to be kept elsewhere.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use fermata_audit::{Checkpoint, Verifier};
use fermata_core::identity::PartitionId;
use fermata_jetstream::StreamReader;
use serde_json::json;

use super::newest::{SignedCheckpoint, SignedLog, partitions_of};
use crate::broker_session::BrokerSession;
use crate::error::{CliError, ExitCode};
use crate::output::{Output, Tone};

/// What a file with a kept checkpoint ends in.
pub(super) const NOTE_EXTENSION: &str = "note";

/// Arguments of `fermata audit checkpoint`.
#[derive(Debug, Clone, Args)]
pub struct CheckpointArguments {
    /// Only this partition: a number, or `control`
    #[arg(long, value_name = "P")]
    pub partition: Option<PartitionId>,
    /// Key that checkpoints are verified with; default: the one in the engine's configuration
    #[arg(long, value_name = "KEY")]
    pub vkey: Option<String>,
    /// Also write each to this folder, as `<partition>-<size>.note`; nothing is overwritten
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Prints the newest checkpoint of each partition, and writes it down.
pub(super) async fn run(
    arguments: &CheckpointArguments,
    session: &BrokerSession,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let config = session.engine_config().await?;
    let verifier = Verifier::parse(arguments.vkey.as_ref().unwrap_or(&config.audit_vkey))?;
    let reader = StreamReader::new(session.broker());
    let mut rows = Vec::new();
    let mut departed = Vec::new();
    for partition in partitions_of(&config, arguments.partition)? {
        let log = SignedLog::new(&config, partition, verifier.clone());
        let Some(signed) = log.newest_checkpoint(&reader, 0).await? else { continue };
        let SignedCheckpoint { checkpoint, note } = &signed;
        if output.is_json() {
            output.json_line(&json!({
                "partition": partition.to_string(),
                "size": checkpoint.size(),
                "root": checkpoint.root().to_string(),
                "checkpoint": note,
            }))?;
        }
        if let Some(folder) = &arguments.out {
            departed.extend(keep(folder, &log, &signed)?);
        }
        let (size, root) = (checkpoint.size().to_string(), checkpoint.root().to_string());
        rows.push(vec![partition.to_string(), size, root]);
    }
    if !output.is_json() {
        output.table(&["PARTITION", "SIZE", "ROOT"], rows, "nothing is signed yet")?;
    }
    for file in &departed {
        let finding = format!(
            "`{file}` holds another checkpoint of the same size; compare it with the log by \
             `fermata audit verify --checkpoint {file}`"
        );
        match output.is_json() {
            true => output.json_line(&json!({ "finding": finding }))?,
            false => output.line(&format!("{}: {finding}", output.tone(Tone::Bad, "NOT SOUND")))?,
        }
    }
    Ok(if departed.is_empty() { ExitCode::Success } else { ExitCode::Findings })
}

/// Writes a checkpoint to its file; tells the file if it holds another one.
fn keep(
    folder: &Path,
    log: &SignedLog,
    signed: &SignedCheckpoint,
) -> Result<Option<String>, CliError> {
    fs::create_dir_all(folder)
        .map_err(CliError::io(format!("create the folder `{}`", folder.display())))?;
    let size = signed.checkpoint.size();
    let path = folder.join(format!("{}-{size}.{NOTE_EXTENSION}", log.partition));
    let file = path.display().to_string();
    match fs::OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(mut created) => {
            let written =
                created.write_all(signed.note.as_bytes()).and_then(|()| created.sync_all());
            if written.is_err() {
                // Half a note would be taken for another checkpoint.
                let _ = fs::remove_file(&path);
            }
            written.map_err(CliError::io(format!("write `{file}`")))?;
            Ok(None)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let kept = fs::read(&path).map_err(CliError::io(format!("read `{file}`")))?;
            let kept = Checkpoint::open(&kept, std::slice::from_ref(&log.verifier));
            Ok((kept.as_ref() != Ok(&signed.checkpoint)).then_some(file))
        }
        Err(error) => Err(CliError::io(format!("create `{file}`"))(error)),
    }
}
