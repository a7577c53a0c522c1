//! What the audit log tells of records that are lost: their headers.

use std::collections::{BTreeMap, BTreeSet};

use fermata_audit::{Hash, Subtrees};
use fermata_core::identity::{PartitionId, RunId};
use fermata_core::record::{Header, Kind};
use fermata_jetstream::StreamReader;
use fermata_jetstream::topology::audit_stream;
use fermata_wire::audit::AuditFrame;
use indicatif::ProgressBar;
use serde::Serialize;

use crate::commands::audit::Section;
use crate::error::CliError;

/// Most attempts that are listed; of the rest only the number is kept.
pub(super) const ATTEMPTS_MAX: usize = 256;

/// An attempt of which the lost records tell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct LostAttempt {
    pub(super) run: RunId,
    pub(super) node: String,
    pub(super) attempt: u32,
}

/// The entries of lost records.
#[derive(Debug, Clone, Default)]
pub(super) struct Lost {
    /// Roots of the subtrees over them; nothing where some are missing.
    pub(super) subtrees: Option<Vec<Hash>>,
    pub(super) kinds: BTreeMap<&'static str, u64>,
    pub(super) runs: BTreeSet<RunId>,
    /// Attempts that were ordered: they may be ordered once more.
    pub(super) attempts: Vec<LostAttempt>,
    pub(super) attempts_omitted: u64,
}

/// How many entries the audit log holds, by its last one.
pub(super) async fn entries_end(
    reader: &StreamReader,
    partition: PartitionId,
) -> Result<(u64, u64), CliError> {
    let stream = audit_stream(partition);
    let last = reader.stream_state(&stream).await?.last_sequence;
    let mut sequence = last;
    while sequence > 0 {
        if let Some(message) = reader.read_one(&stream, sequence).await?
            && message.writer.is_some()
        {
            let frame = AuditFrame::decode(&message.payload)
                .map_err(CliError::unreadable(format!("message {sequence} of `{stream}`")))?;
            if let Some(entry) = frame.entries.last() {
                return Ok((entry.index + 1, last));
            }
        }
        sequence -= 1;
    }
    Ok((0, last))
}

/// Reads the entries `from` to `next`, exclusive, of which `signed` were signed.
pub(super) async fn read_lost(
    reader: &StreamReader,
    partition: PartitionId,
    last_sequence: u64,
    (from, signed, next): (u64, u64, u64),
) -> Result<Lost, CliError> {
    let stream = audit_stream(partition);
    let mut section = Section::open(reader, &stream, last_sequence, &ProgressBar::hidden()).await?;
    let mut lost = Lost::default();
    let (mut to_signed, mut to_next) = (Subtrees::over(from, signed), Subtrees::over(signed, next));
    let mut wanted = from;
    while let Some(message) = section.next().await? {
        if message.writer.is_none() {
            continue;
        }
        let sequence = message.sequence;
        let frame = AuditFrame::decode(&message.payload)
            .map_err(CliError::unreadable(format!("message {sequence} of `{stream}`")))?;
        for entry in frame.entries.iter().filter(|entry| (from..next).contains(&entry.index)) {
            if entry.index != wanted {
                return Ok(lost);
            }
            wanted += 1;
            let leaf = fermata_audit::leaf_hash(entry.header, entry.commitment);
            if entry.index < signed {
                to_signed.push(leaf)
            } else {
                to_next.push(leaf)
            }
            let header: Header = fermata_wire::envelope::read("record header", entry.header)?;
            lost.note(&header);
        }
    }
    lost.subtrees =
        to_signed.finish().zip(to_next.finish()).map(|(signed, next)| [signed, next].concat());
    Ok(lost)
}

impl Lost {
    fn note(&mut self, header: &Header) {
        *self.kinds.entry(header.kind.as_str()).or_default() += 1;
        self.runs.extend(header.run);
        if header.kind != Kind::NodeDispatched {
            return;
        }
        let (Some(run), Some(node)) = (header.run, &header.node) else { return };
        if self.attempts.len() >= ATTEMPTS_MAX {
            self.attempts_omitted += 1;
            return;
        }
        let attempt = header.attempt.unwrap_or(1);
        self.attempts.push(LostAttempt { run, node: node.to_string(), attempt });
    }
}
