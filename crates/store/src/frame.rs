//! What one message of a journal changes, each run once.

use std::collections::HashMap;

use fermata_core::digest::Digest;
use fermata_core::identity::{JournalTime, PartitionId, RunId};
use fermata_core::record::Kind;
use fermata_wire::WireError;
use fermata_wire::envelope::read;
use fermata_wire::journal::JournalFrame;
use serde::Deserialize;

use crate::run::RunSummary;

/// What one message of a journal changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameChanges {
    /// Whose journal.
    pub partition: PartitionId,
    /// Where the message stands in it.
    pub sequence: u64,
    /// Digest of the message's bytes.
    pub digest: Digest,
    /// Each run that it concerns, once.
    pub runs: Vec<RunChange>,
    /// Journal time of the message, when messages before it are missing: runs that started
    /// until then may be unknown.
    pub missing_until_ms: Option<u64>,
    time_ms: u64,
}

/// What one message of a journal changes about one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunChange {
    /// The run.
    pub run: RunId,
    began: Option<RunSummary>,
    later: Vec<(Kind, Option<u32>, JournalTime)>,
}

/// What a list needs of a record's header: most of a frame is read past.
#[derive(Deserialize)]
struct RunHeader {
    #[serde(default)]
    run: Option<RunId>,
    kind: Kind,
    #[serde(default)]
    attempt: Option<u32>,
    time: JournalTime,
}

impl FrameChanges {
    /// Reads a message that an owner wrote.
    ///
    /// # Errors
    ///
    /// [`WireError`] when it cannot be read; never panics, on any bytes.
    pub fn read(partition: PartitionId, sequence: u64, payload: &[u8]) -> Result<Self, WireError> {
        let mut changes = Self::foreign(partition, sequence, payload);
        let mut places: HashMap<RunId, usize> = HashMap::new();
        let frame = JournalFrame::decode(payload)?;
        changes.time_ms = frame.head.time.0;
        for sealed in frame.records {
            let RunHeader { run, kind, attempt, time } = read("record header", sealed.header)?;
            let Some(run) = run else { continue };
            let place = *places.entry(run).or_insert_with(|| {
                changes.runs.push(RunChange { run, began: None, later: Vec::new() });
                changes.runs.len() - 1
            });
            let Some(change) = changes.runs.get_mut(place) else { continue };
            if kind == Kind::RunStarted {
                let (header, record) = sealed.open()?;
                change.began = RunSummary::begin(&header, &record);
            } else {
                change.later.push((kind, attempt, time));
            }
        }
        Ok(changes)
    }

    /// A message that no owner wrote: it moves the position and changes nothing.
    #[must_use]
    pub fn foreign(partition: PartitionId, sequence: u64, payload: &[u8]) -> Self {
        let digest = Digest::of(payload);
        Self { partition, sequence, digest, runs: Vec::new(), missing_until_ms: None, time_ms: 0 }
    }

    /// The same, with messages before it missing.
    #[must_use]
    pub fn after_gap(self) -> Self {
        Self { missing_until_ms: Some(self.time_ms), ..self }
    }
}

impl RunChange {
    /// The run after this change; nothing when nobody knows how it began. A run begins once:
    /// the first beginning counts.
    #[must_use]
    pub fn after(&self, before: Option<RunSummary>) -> Option<RunSummary> {
        let mut run = before.or_else(|| self.began.clone())?;
        self.fold(&mut run);
        Some(run)
    }

    /// The same for a run that is known.
    pub(crate) fn fold(&self, run: &mut RunSummary) {
        self.later.iter().for_each(|(kind, attempt, time)| run.fold(*kind, *attempt, *time));
    }
}
