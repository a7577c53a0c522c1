//! Checkpoints that somebody kept, as files, against what is read for the check.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use fermata_audit::{
    Checkpoint, CheckpointError, KEPT_MAX, KeptCheckpoints, NOTE_BYTES_MAX, NoteError, Verifier,
    leaf_hash,
};
use fermata_core::identity::PartitionId;
use serde::Serialize;

use super::checkpoint::NOTE_EXTENSION;
use crate::broker_session::EngineConfig;
use crate::error::CliError;
use crate::output::counted;

/// What comparing a kept checkpoint with its partition's log came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeptAudit {
    /// The file that holds it.
    pub file: String,
    /// Entries that it covers; nothing if its signature does not show that it was signed.
    pub size: Option<u64>,
    /// What is wrong, in words; nothing if the log goes on from it.
    pub departure: Option<String>,
}

impl KeptAudit {
    /// What is wrong, as a finding of the partition.
    pub(super) fn finding(&self) -> Option<String> {
        let departure = self.departure.as_ref()?;
        Some(format!("the kept checkpoint `{}`: {departure}", self.file))
    }
}

/// A file, and the checkpoint in it or why no signature speaks for it.
#[derive(Debug)]
struct KeptNote {
    file: String,
    origin: String,
    opened: Result<Checkpoint, String>,
}

/// The kept checkpoints of all partitions.
#[derive(Debug)]
pub(super) struct KeptNotes(Vec<KeptNote>);

impl KeptNotes {
    /// Reads the files, and all notes in the folders, that `paths` name.
    ///
    /// # Errors
    ///
    /// When one cannot be read, is no checkpoint, or is of no partition that is checked.
    pub(super) fn read(
        paths: &[PathBuf],
        verifier: &Verifier,
        config: &EngineConfig,
        checked: &[PartitionId],
    ) -> Result<Self, CliError> {
        let mut notes = Vec::new();
        for path in paths {
            for file in files_at(path)? {
                if notes.len() >= KEPT_MAX {
                    let refused = format!("more than {KEPT_MAX} kept checkpoints; name fewer");
                    return Err(CliError::Usage(refused));
                }
                notes.push(KeptNote::read(&file, verifier)?);
            }
        }
        let origins = |partitions: &[PartitionId]| -> Vec<String> {
            partitions.iter().map(|partition| config.audit_origin(*partition)).collect()
        };
        let (all, checked) = (origins(&config.partition_ids()), origins(checked));
        if let Some(KeptNote { file, origin, .. }) =
            notes.iter().find(|note| !all.contains(&note.origin))
        {
            return Err(CliError::Usage(format!(
                "`{file}` is a checkpoint of `{origin}`, which is no log of the engine `{}`",
                config.engine
            )));
        }
        let given = notes.len();
        notes.retain(|note| checked.contains(&note.origin));
        if given > 0 && notes.is_empty() {
            return Err(CliError::Usage(format!(
                "of {} none is of a partition that is checked",
                counted(given, "kept checkpoint", "kept checkpoints")
            )));
        }
        Ok(Self(notes))
    }

    /// Takes those of the log `origin` out, to be compared.
    pub(super) fn take(&mut self, origin: &str) -> KeptCheck {
        let notes: Vec<_> = self.0.extract_if(.., |note| note.origin == origin).collect();
        let opened = notes.iter().filter_map(|note| note.opened.as_ref().ok().cloned());
        KeptCheck { checkpoints: KeptCheckpoints::new(opened.collect()), notes }
    }
}

impl KeptNote {
    fn read(path: &Path, verifier: &Verifier) -> Result<Self, CliError> {
        let file = path.display().to_string();
        let mut note = Vec::new();
        fs::File::open(path)
            // One byte more tells that it is too large.
            .and_then(|opened| opened.take(NOTE_BYTES_MAX as u64 + 1).read_to_end(&mut note))
            .map_err(CliError::io(format!("read `{file}`")))?;
        let origin = || {
            let first = note.split(|byte| *byte == b'\n').next().unwrap_or_default();
            String::from_utf8_lossy(first).into_owned()
        };
        match Checkpoint::open(&note, std::slice::from_ref(verifier)) {
            Ok(checkpoint) => {
                Ok(Self { file, origin: checkpoint.origin().to_owned(), opened: Ok(checkpoint) })
            }
            // Whose log it would be only its unsigned text says: enough to name the partition.
            Err(CheckpointError::Note(
                reason @ (NoteError::NoKnownSignature | NoteError::BadSignature { .. }),
            )) => {
                let reason =
                    format!("it is not signed with the key `{}`: {reason}", verifier.name());
                Ok(Self { file, origin: origin(), opened: Err(reason) })
            }
            Err(error) => {
                let reasons = reasons(&error);
                Err(CliError::Usage(format!("`{file}` is not a checkpoint: {reasons}")))
            }
        }
    }
}

/// An error with all that lies behind it, on one line.
pub(super) fn reasons(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(reason) = source {
        text.push_str(": ");
        text.push_str(&reason.to_string());
        source = reason.source();
    }
    text
}

/// The file itself, or the notes in the folder, by name.
fn files_at(path: &Path) -> Result<Vec<PathBuf>, CliError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let failed = || CliError::io(format!("read the folder `{}`", path.display()));
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(failed())? {
        let file = entry.map_err(failed())?.path();
        if file.extension().is_some_and(|extension| extension == NOTE_EXTENSION) {
            files.push(file);
        }
    }
    if files.is_empty() {
        let folder = path.display();
        return Err(CliError::Usage(format!("the folder `{folder}` holds no `.{NOTE_EXTENSION}`")));
    }
    files.sort();
    Ok(files)
}

/// The kept checkpoints of one partition, while its log is read.
#[derive(Debug, Default)]
pub(super) struct KeptCheck {
    notes: Vec<KeptNote>,
    checkpoints: KeptCheckpoints,
}

impl KeptCheck {
    /// Takes the next entry of the log.
    pub(super) fn entry(&mut self, header: &[u8], commitment: &[u8; 32]) {
        if !self.notes.is_empty() {
            self.checkpoints.entry(leaf_hash(header, commitment));
        }
    }

    /// Takes a checkpoint of the log itself.
    pub(super) fn signed(&mut self, sequence: u64, size: u64, note: &[u8]) {
        self.checkpoints.signed(sequence, size, note);
    }

    pub(super) fn finish(self) -> Vec<KeptAudit> {
        let mut departures = self.checkpoints.finish().into_iter();
        let audit = |KeptNote { file, opened, .. }| {
            let (size, departure) = match opened {
                // One verdict for each that was opened, in their order.
                Ok(checkpoint) => (
                    Some(checkpoint.size()),
                    departures.next().flatten().map(|departure| departure.to_string()),
                ),
                Err(reason) => (None, Some(reason)),
            };
            KeptAudit { file, size, departure }
        };
        self.notes.into_iter().map(audit).collect()
    }
}
