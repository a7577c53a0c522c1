//! One pass over a partition's audit log, which finds the asked records and proves them.

use std::collections::BTreeSet;
use std::fmt;

use fermata_audit::{Hash, ProofError, Prover, leaf_hash};
use fermata_core::identity::{PartitionId, RunId};
use fermata_core::record::Header;
use fermata_jetstream::topology::audit_stream;
use fermata_jetstream::{StoredMessage, StreamReader};
use fermata_wire::audit::{AuditFrame, Entry};
use fermata_wire::envelope::read;
use indicatif::ProgressBar;

use super::section::Section;
use crate::error::CliError;

/// Which records are to be proven.
#[derive(Debug)]
pub(super) enum Asked {
    /// Those at these indices.
    Records(BTreeSet<u64>),
    /// Those of a run.
    Run(RunId),
}

impl Asked {
    /// Entries that must be signed for all of them to be proven, as far as that is known.
    pub(super) fn size_min(&self) -> u64 {
        match self {
            Self::Records(indices) => indices.last().map_or(0, |last| last.saturating_add(1)),
            Self::Run(_) => 0,
        }
    }

    /// Whether it is the record at `index`, which has this header. One that cannot be read (of a
    /// newer version) is of no run that is known here.
    fn names(&self, index: u64, header: &[u8]) -> bool {
        match self {
            Self::Records(indices) => indices.contains(&index),
            Self::Run(run) => {
                read::<Header>("record header", header).is_ok_and(|header| header.run == Some(*run))
            }
        }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Records(indices) => {
                write!(formatter, "record {}", indices.last().copied().unwrap_or_default())
            }
            Self::Run(run) => write!(formatter, "a record of run {run}"),
        }
    }
}

/// A record that was asked for.
#[derive(Debug)]
struct Found {
    header: Vec<u8>,
    commitment: [u8; 32],
    journal_from: u64,
}

/// A record that was asked for, with its proof.
#[derive(Debug)]
pub(super) struct Proven {
    pub(super) index: u64,
    pub(super) header: Vec<u8>,
    pub(super) commitment: [u8; 32],
    pub(super) leaf: Hash,
    pub(super) path: Vec<Hash>,
    /// A sequence of the journal at or before its message.
    pub(super) journal_from: u64,
}

/// The pass: memory for the asked records, never for the others.
#[derive(Debug)]
pub(super) struct Pass {
    prover: Prover,
    size: u64,
    next: u64,
    found: Vec<Found>,
    /// Records of the run behind what is signed.
    pub(super) behind: u64,
    /// Journal sequence up to which entries have been read.
    journal_from: u64,
}

impl Pass {
    /// Reads the log of `partition` up to its signed `size`, and to its end where that may tell
    /// of more of a run.
    pub(super) async fn read(
        reader: &StreamReader,
        partition: PartitionId,
        asked: &Asked,
        size: u64,
        progress: &ProgressBar,
    ) -> Result<Self, CliError> {
        let mut pass = Self {
            prover: Prover::new(size),
            size,
            next: 0,
            found: Vec::new(),
            behind: 0,
            journal_from: 1,
        };
        let stream = audit_stream(partition);
        let end = reader.stream_state(&stream).await?.last_sequence;
        progress.set_length(end);
        let mut section = Section::open(reader, &stream, end, progress).await?;
        while let Some(message) = section.next().await? {
            pass.message(&stream, &message, asked)?;
            if pass.next >= size && matches!(asked, Asked::Records(_)) {
                break;
            }
        }
        Ok(pass)
    }

    /// Takes the entries of a message; none when nobody of ours wrote it.
    fn message(
        &mut self,
        stream: &str,
        message: &StoredMessage,
        asked: &Asked,
    ) -> Result<(), CliError> {
        if message.writer.is_none() {
            return Ok(());
        }
        let what = || format!("message {} of stream `{stream}`", message.sequence);
        let frame = AuditFrame::decode(&message.payload)
            .map_err(|source| CliError::Unreadable { what: what(), source })?;
        for entry in &frame.entries {
            self.entry(entry, asked).map_err(not_proven)?;
        }
        self.journal_from = frame.journal_sequence.max(1);
        Ok(())
    }

    fn entry(&mut self, entry: &Entry<'_>, asked: &Asked) -> Result<(), ProofError> {
        let index = self.next;
        self.next += 1;
        let is_asked = asked.names(index, entry.header);
        if index >= self.size {
            self.behind += u64::from(is_asked);
            return Ok(());
        }
        let leaf = leaf_hash(entry.header, entry.commitment);
        if !is_asked {
            return self.prover.push(leaf);
        }
        // Copies: a part of a message would keep all of it.
        self.found.push(Found {
            header: entry.header.to_vec(),
            commitment: *entry.commitment,
            journal_from: self.journal_from,
        });
        self.prover.push_asked(leaf)
    }

    /// Entries that were read and are signed.
    pub(super) fn leaves(&self) -> u64 {
        self.next.min(self.size)
    }

    /// The root, to be compared with the signed one, and the asked records by index.
    pub(super) fn finish(self) -> Result<(Hash, Vec<Proven>), CliError> {
        let proofs = self.prover.finish().map_err(not_proven)?;
        let proven =
            proofs.inclusions.into_iter().zip(self.found).map(|(inclusion, found)| Proven {
                index: inclusion.index,
                header: found.header,
                commitment: found.commitment,
                leaf: inclusion.leaf,
                path: inclusion.path,
                journal_from: found.journal_from,
            });
        Ok((proofs.root, proven.collect()))
    }
}

fn not_proven(error: ProofError) -> CliError {
    match error == ProofError::TooManyAsked {
        true => CliError::Usage(format!("{error}; name some of the records by --record")),
        false => CliError::Failed { action: "the proof".to_owned(), source: error.into() },
    }
}
