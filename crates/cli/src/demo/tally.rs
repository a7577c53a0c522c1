//! What the engine made of the scenario, counted from the journals.

use std::collections::{BTreeMap, BTreeSet};

use fermata_core::identity::{PartitionId, RunId};
use fermata_core::record::{Body, Header, Record};
use fermata_jetstream::StreamReader;

use crate::error::CliError;
use crate::journal_view::JournalReader;

use super::scenario::Expected;

/// Figures of the journals in the terms of [`Expected`].
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Runs that succeeded, by workflow.
    pub runs_succeeded: BTreeMap<String, u32>,
    /// Runs that ended otherwise.
    pub runs_not_succeeded: u32,
    /// Runs in which an attempt failed and another was made.
    pub runs_with_retry: u32,
    /// Attempts that failed.
    pub attempts_failed: u32,
    /// Events recognised as repeats.
    pub repeats: u32,
    /// Events that a strategy ignores.
    pub ignored: u32,
    /// Events that no strategy takes.
    pub unmatched: u32,
    /// Rejected events by reason code.
    pub rejected: BTreeMap<String, u32>,
    /// Records in all journals.
    pub records: u64,
    /// A run to show: one that needed another attempt.
    pub sample: Option<RunId>,
}

/// Keeps reading journals where it left off.
#[derive(Debug)]
pub struct Counting {
    readers: Vec<JournalReader>,
    workflows: BTreeMap<RunId, String>,
    retried: BTreeSet<RunId>,
    tally: Tally,
}

impl Counting {
    /// Begins at the first record of every data partition.
    ///
    /// # Errors
    ///
    /// When a journal cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn begin(reader: &StreamReader, partitions: u16) -> Result<Self, CliError> {
        let mut readers = Vec::new();
        for partition in 0..partitions {
            readers.push(JournalReader::open(reader, PartitionId(partition)).await?);
        }
        let (workflows, retried, tally) = (BTreeMap::new(), BTreeSet::new(), Tally::default());
        Ok(Self { readers, workflows, retried, tally })
    }

    /// Counts what came since.
    ///
    /// # Errors
    ///
    /// When a journal cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Not safe: what was read and not counted is lost.
    pub async fn count(&mut self) -> Result<&Tally, CliError> {
        for reader in &mut self.readers {
            while let Some(records) = reader.next().await? {
                for (header, record) in &records {
                    fold(header, record, &mut self.tally, &mut self.workflows, &mut self.retried);
                }
            }
        }
        Ok(&self.tally)
    }
}

fn fold(
    header: &Header,
    record: &Record,
    tally: &mut Tally,
    workflows: &mut BTreeMap<RunId, String>,
    retried: &mut BTreeSet<RunId>,
) {
    tally.records += 1;
    match (&record.body, record.run) {
        (Body::RunStarted(started), Some(run)) => {
            workflows.insert(run, started.workflow.to_string());
        }
        (Body::RunSucceeded(_), Some(run)) => {
            let workflow = workflows.get(&run).cloned().unwrap_or_default();
            *tally.runs_succeeded.entry(workflow).or_default() += 1;
        }
        (Body::NodeRetrying(_), Some(run)) => {
            tally.attempts_failed += 1;
            if retried.insert(run) {
                tally.runs_with_retry += 1;
                tally.sample.get_or_insert(run);
            }
        }
        (Body::NodeFailed(_), _) => tally.attempts_failed += 1,
        (Body::EventRepeated(_), _) => tally.repeats += 1,
        (Body::EventIgnored(_), _) => tally.ignored += 1,
        (Body::EventUnmatched(_), _) => tally.unmatched += 1,
        (Body::EventRejected(rejected), _) => {
            *tally.rejected.entry(rejected.reason.to_string()).or_default() += 1;
        }
        _ if header.kind.ends_run() => tally.runs_not_succeeded += 1,
        _ => {}
    }
}

/// One figure beside what it must be.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Figure {
    /// What is counted.
    pub what: String,
    /// What the scenario implies.
    pub expected: u32,
    /// What there is.
    pub found: u32,
}

impl Figure {
    /// A figure.
    #[must_use]
    pub fn new(what: impl Into<String>, expected: u32, found: u32) -> Self {
        Self { what: what.into(), expected, found }
    }

    /// Whether it is as it must be.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.expected == self.found
    }
}

impl Tally {
    /// Every figure of the journals beside what the scenario implies.
    #[must_use]
    pub fn figures(&self, expected: &Expected) -> Vec<Figure> {
        let mut figures = Vec::new();
        for (workflow, count) in &expected.runs_succeeded {
            let found = self.runs_succeeded.get(*workflow).copied().unwrap_or(0);
            figures.push(Figure::new(format!("runs completed, {workflow}"), *count, found));
        }
        let others = self
            .runs_succeeded
            .iter()
            .filter(|(workflow, _)| !expected.runs_succeeded.contains_key(workflow.as_str()))
            .map(|(_, count)| count)
            .sum::<u32>();
        figures.extend([
            Figure::new("runs that ended otherwise", 0, self.runs_not_succeeded + others),
            Figure::new("runs with a retry", expected.runs_with_retry, self.runs_with_retry),
            Figure::new("attempts that failed", expected.attempts_failed, self.attempts_failed),
            Figure::new("repeats recognised", expected.repeats, self.repeats),
            Figure::new("ignored by a strategy", expected.ignored, self.ignored),
            Figure::new("unmatched, for review", expected.unmatched, self.unmatched),
        ]);
        for (reason, count) in &expected.dead_letters {
            let found = self.rejected.get(*reason).copied().unwrap_or(0);
            figures.push(Figure::new(format!("dead letters, {reason}"), *count, found));
        }
        let others = self
            .rejected
            .iter()
            .filter(|(reason, _)| !expected.dead_letters.contains_key(reason.as_str()))
            .map(|(_, count)| count)
            .sum::<u32>();
        figures.push(Figure::new("dead letters, other reasons", 0, others));
        figures
    }
}
