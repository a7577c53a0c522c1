//! `fermata audit check-receipt`: a receipt against a key, without a broker.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;

use clap::Args;
use fermata_audit::{Checkpoint, RECEIPT_BYTES_MAX, Receipt, ReceiptError, Verifier};
use fermata_core::record::Header;
use fermata_wire::envelope::read;
use serde_json::json;

use super::kept::reasons;
use crate::error::{CliError, ExitCode};
use crate::output::{Output, Tone, counted, time_text};

/// Arguments of `fermata audit check-receipt`.
#[derive(Debug, Clone, Args)]
pub struct CheckReceiptArguments {
    /// File with receipts, one per line
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Key that is trusted, from a source that is: whoever writes a receipt could write a key into it
    #[arg(long, value_name = "KEY")]
    pub vkey: String,
}

/// Columns of [`record_row`].
pub(super) const RECORD_COLUMNS: [&str; 7] =
    ["PARTITION", "RECORD", "TIME", "KIND", "TENANT", "RUN", "NODE"];

/// What a receipt is about, by its header.
pub(super) fn record_row(receipt: &Receipt) -> Vec<String> {
    let mut row = vec![receipt.partition.clone(), receipt.index.to_string()];
    match read::<Header>("record header", &receipt.header) {
        Ok(header) => row.extend([
            time_text(header.time.0),
            header.kind.as_str().to_owned(),
            header.tenant.map_or_else(|| "-".to_owned(), |tenant| tenant.to_string()),
            header.run.map_or_else(|| "-".to_owned(), |run| run.to_string()),
            header.node.map_or_else(|| "-".to_owned(), |node| node.to_string()),
        ]),
        // Of a newer version.
        Err(_) => row.resize(RECORD_COLUMNS.len(), "?".to_owned()),
    }
    row
}

/// Checks each receipt of the file.
pub(super) fn check(
    arguments: &CheckReceiptArguments,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let verifier = Verifier::parse(&arguments.vkey)?;
    let name = arguments.file.display().to_string();
    let file = File::open(&arguments.file).map_err(CliError::io(format!("read `{name}`")))?;
    let mut lines = BufReader::new(file);
    let (mut number, mut receipts, mut refused) = (0_u64, 0_u64, 0_u64);
    loop {
        let mut line = Vec::new();
        // The newline, and one byte more that tells that it is too long.
        let mut part = lines.by_ref().take(RECEIPT_BYTES_MAX as u64 + 2);
        part.read_until(b'\n', &mut line).map_err(CliError::io(format!("read `{name}`")))?;
        if line.is_empty() {
            break;
        }
        number += 1;
        let text = line.trim_ascii();
        if text.is_empty() {
            continue;
        }
        let receipt = Receipt::parse(text).map_err(|error| {
            let reasons = reasons(&error);
            CliError::Usage(format!("line {number} of `{name}` is not a receipt: {reasons}"))
        })?;
        let checked = receipt.check(std::slice::from_ref(&verifier));
        receipts += 1;
        refused += u64::from(checked.is_err());
        print(&receipt, &checked, output)?;
    }
    if receipts == 0 {
        return Err(CliError::Usage(format!("`{name}` holds no receipt")));
    }
    if !output.is_json() {
        let verdict = match refused {
            0 => {
                let receipts = counted(receipts, "receipt holds", "receipts hold");
                format!("{}: {receipts}", output.tone(Tone::Good, "sound"))
            }
            _ => {
                let verdict = output.tone(Tone::Bad, "NOT SOUND");
                let hold = if refused == 1 { "does not hold" } else { "do not hold" };
                let receipts = counted(receipts, "receipt", "receipts");
                format!("{verdict}: {refused} of {receipts} {hold}")
            }
        };
        output.line(&verdict)?;
    }
    Ok(if refused == 0 { ExitCode::Success } else { ExitCode::Findings })
}

fn print(
    receipt: &Receipt,
    checked: &Result<Checkpoint, ReceiptError>,
    output: &mut Output,
) -> Result<(), CliError> {
    let Receipt { partition, index, origin, .. } = receipt;
    let finding = checked.as_ref().err().map(|error| reasons(error));
    let checkpoint = checked.as_ref().ok();
    if output.is_json() {
        let header = read::<Header>("record header", &receipt.header).ok();
        return output.json_line(&json!({
            "partition": partition,
            "origin": origin,
            "record": index,
            "holds": finding.is_none(),
            "opened": receipt.opening.is_some(),
            "header": header,
            "size": checkpoint.map(Checkpoint::size),
            "root": checkpoint.map(|checkpoint| checkpoint.root().to_string()),
            "finding": finding,
        }));
    }
    let line = match (finding, checkpoint) {
        (None, Some(checkpoint)) => {
            let about = record_row(receipt).get(2..).unwrap_or_default().join(" ");
            let (size, root) = (checkpoint.size(), checkpoint.root());
            let opened = if receipt.opening.is_some() { ", opened" } else { "" };
            let good = output.tone(Tone::Good, "holds");
            format!(
                "{good}: record {index} of `{origin}`{opened}: {about}; in {} under root {root}",
                counted(size, "entry", "entries")
            )
        }
        (finding, _) => {
            let bad = output.tone(Tone::Bad, "DOES NOT HOLD");
            format!("{bad}: record {index} of `{origin}`: {}", finding.unwrap_or_default())
        }
    };
    output.line(&line)
}
