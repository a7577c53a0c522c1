//! Runs as the journals tell them.
//!
//! A journal is read once from its beginning; each record is folded into what
//! is shown of its run. Nothing here needs a plan or decides anything: it is
//! for people, and shows even what an engine would refuse to fold.

mod afterwards;
mod case_events;
mod cases;
mod history;
mod near;
mod orphans;
mod refused;
mod starts;
mod status;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::HashMap;

use fermata_actors::journal_archive::JournalReplay;
use fermata_core::identity::{PartitionId, RunId};
use fermata_core::record::{Body, Header, Kind, Record};
use fermata_jetstream::topology::journal_stream;
use fermata_jetstream::{StoredMessage, StreamReader};
use fermata_store::{Cursor, RunPage, RunQuery};
use fermata_wire::WireError;
use fermata_wire::journal::{JournalFrame, SealedRecord};
use indicatif::ProgressBar;

pub use afterwards::{ResolvedCase, StartedAgain};
pub use case_events::{CaseEvents, Done, EventsOfCase};
pub use cases::{Resolved, Review, ReviewList, Sample, partition_of};
pub use fermata_store::{RunStatus, RunSummary};
pub use history::{Failure, NodeView, RunHistory, TimelineEntry, What};
pub use near::{NearIds, did_you_mean};
pub use orphans::{Orphan, Orphans, SkippedAttempt, read_orphans};
pub use refused::RefusedByContract;
pub use starts::{EventKey, Sought, Started, Starts};
pub use status::NodeStatus;

use crate::error::CliError;

/// How many messages are taken from a stream at a time.
const BATCH_MESSAGES: usize = 512;

/// The records of a journal message; none when nobody of ours wrote it.
///
/// # Errors
///
/// [`WireError`] when it is ours and cannot be read.
pub fn records_of(message: &StoredMessage) -> Result<Vec<(Header, Record)>, WireError> {
    if message.writer.is_none() {
        return Ok(Vec::new());
    }
    JournalFrame::decode(&message.payload)?.records.iter().map(SealedRecord::open).collect()
}

/// A journal being read by records.
#[derive(Debug)]
pub struct JournalReader {
    stream: String,
    replay: JournalReplay,
    /// Counts the records that were read.
    progress: ProgressBar,
}

impl JournalReader {
    /// Reads the journal of `partition` from its beginning, also where it is archived.
    ///
    /// # Errors
    ///
    /// When it is not there or the broker does not answer.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn open(reader: &StreamReader, partition: PartitionId) -> Result<Self, CliError> {
        Self::counting(reader, partition, &ProgressBar::hidden()).await
    }

    /// As [`Self::open`], and counts the records on `progress`.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn counting(
        reader: &StreamReader,
        partition: PartitionId,
        progress: &ProgressBar,
    ) -> Result<Self, CliError> {
        let stream = journal_stream(partition);
        let replay = JournalReplay::open(reader, partition, 1).await?;
        Ok(Self { stream, replay, progress: progress.clone() })
    }

    /// The next records; nothing at the end.
    ///
    /// # Errors
    ///
    /// When the broker does not answer, or a message of ours cannot be read.
    ///
    /// # Cancel safety
    ///
    /// What was read is lost when dropped.
    pub async fn next(&mut self) -> Result<Option<Vec<(Header, Record)>>, CliError> {
        let messages = self.replay.next_batch(BATCH_MESSAGES).await?;
        if messages.is_empty() {
            return Ok(None);
        }
        let mut records = Vec::new();
        for message in &messages {
            records.extend(read_message(&self.stream, message)?);
        }
        self.progress.inc(u64::try_from(records.len()).unwrap_or(0));
        Ok(Some(records))
    }

    /// The sequence after the last message read.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.replay.wanted()
    }
}

/// As [`records_of`], with an error that names the message.
///
/// # Errors
///
/// When the message is ours and cannot be read.
pub fn read_message(
    stream: &str,
    message: &StoredMessage,
) -> Result<Vec<(Header, Record)>, CliError> {
    let what = || format!("message {} of stream `{stream}`", message.sequence);
    records_of(message).map_err(|source| CliError::Unreadable { what: what(), source })
}

/// Every run of one or more journals, each as one line.
#[derive(Debug, Clone, Default)]
pub struct RunList {
    runs: HashMap<RunId, RunSummary>,
}

impl RunList {
    /// Folds a record; those of no run change nothing.
    pub fn fold(&mut self, header: &Header, record: &Record) {
        let Some(run) = header.run else { return };
        match self.runs.get_mut(&run) {
            Some(summary) => summary.fold(header.kind, header.attempt, header.time),
            None => {
                if let Some(summary) = RunSummary::begin(header, record) {
                    self.runs.insert(run, summary);
                }
            }
        }
    }

    /// The run `id`.
    #[must_use]
    pub fn get(&self, id: RunId) -> Option<&RunSummary> {
        self.runs.get(&id)
    }

    /// Every run, the newest first.
    #[must_use]
    pub fn into_newest_first(self) -> Vec<RunSummary> {
        let mut runs: Vec<_> = self.runs.into_values().collect();
        runs.sort_by_key(Cursor::of);
        runs
    }

    /// What the read model would answer.
    #[must_use]
    pub fn page(self, query: &RunQuery) -> RunPage {
        let behind = |run: &RunSummary| query.after.is_none_or(|after| Cursor::of(run) > after);
        let wanted = |run: &RunSummary| query.takes(run) && behind(run);
        let mut runs = self.into_newest_first();
        runs.retain(wanted);
        let more = runs.len() > query.limit;
        runs.truncate(query.limit);
        RunPage { next: runs.last().filter(|_| more).map(Cursor::of), runs }
    }

    /// Reads the journals of `partitions`; `read` is told how many messages came.
    ///
    /// # Errors
    ///
    /// When one cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn read(
        reader: &StreamReader,
        partitions: impl IntoIterator<Item = PartitionId>,
        read: impl Fn(u64),
    ) -> Result<Self, CliError> {
        let mut list = Self::default();
        for partition in partitions {
            let mut journal = JournalReader::open(reader, partition).await?;
            let mut from = journal.next_sequence();
            while let Some(records) = journal.next().await? {
                records.iter().for_each(|(header, record)| list.fold(header, record));
                read(journal.next_sequence().saturating_sub(from));
                from = journal.next_sequence();
            }
        }
        Ok(list)
    }
}

/// A run as its partition's journal tells it.
#[derive(Debug)]
pub struct ReadRun {
    /// Everything about it; nothing when there is no such run.
    pub history: Option<RunHistory>,
    /// Runs of the partition whose ids are one or a few digits off, the nearest first.
    pub near: Vec<RunId>,
    /// The sequence to follow the journal from.
    pub next_sequence: u64,
}

/// Reads everything about one run from its partition's journal.
///
/// # Errors
///
/// When the journal cannot be read.
///
/// # Cancel safety
///
/// Can be dropped.
pub async fn read_run(
    reader: &StreamReader,
    run: RunId,
    progress: &ProgressBar,
) -> Result<ReadRun, CliError> {
    let mut history: Option<RunHistory> = None;
    let mut key = None;
    let mut near = NearIds::of(run);
    let mut journal = JournalReader::counting(reader, run.partition(), progress).await?;
    while let Some(records) = journal.next().await? {
        for (header, record) in &records {
            fold_of_run(run, &mut key, &mut history, header, record);
            if let (Some(other), Kind::RunStarted) = (header.run, header.kind)
                && other != run
            {
                near.look_at(other);
            }
        }
    }
    Ok(ReadRun { history, near: near.found(), next_sequence: journal.next_sequence() })
}

/// Folds what concerns a run: its records, and what its event, which has the `key`, starts later.
fn fold_of_run(
    run: RunId,
    key: &mut Option<u128>,
    history: &mut Option<RunHistory>,
    header: &Header,
    record: &Record,
) {
    if header.run == Some(run) {
        match history {
            Some(history) => history.fold(header, record),
            None => *history = RunHistory::begin(header, record),
        }
    } else if let Body::EventStarted(started) = &record.body {
        if started.runs.contains(&run) {
            *key = Some(started.key);
        } else if started.replay.is_some()
            && *key == Some(started.key)
            && let Some(history) = history
        {
            history.start_again(header, started);
        }
    }
}

#[cfg(test)]
mod tests {
    use fermata_core::identity::SourcePosition;
    use uuid::Uuid;

    use super::testing::{Script, run_of};
    use super::*;

    #[test]
    fn runs_are_listed_newest_first_and_records_of_no_run_are_passed_over() {
        let mut list = RunList::default();
        let (first, second) = (run_of("a"), run_of("b"));
        let mut script = Script::default();
        let records = [
            script.at(10).owned(),
            script.at(10).started(first),
            script.at(20).started(second),
            script.at(30).succeeded(first),
        ];

        records.iter().for_each(|(header, record)| list.fold(header, record));

        let listed: Vec<_> =
            list.into_newest_first().iter().map(|run| (run.id, run.status)).collect();
        assert_eq!(listed, [(second, RunStatus::Running), (first, RunStatus::Succeeded)]);
    }

    #[test]
    fn what_the_event_of_a_run_starts_later_is_told_and_by_what() {
        let (run, retried, meant) = (run_of("a"), run_of("b"), run_of("c"));
        let (case, place) = (Uuid::from_u128(7), SourcePosition { sequence: 5, index: 0 });
        let mut script = Script::default();
        let elsewhere = SourcePosition { sequence: 9, index: 0 };
        let records = [
            script.at(10).event_started(1, place, run),
            script.started(run),
            script.at(20).failed(run, "fetch"),
            script.at(30).case_resolved(run, case, place),
            script.at(40).event_replayed(1, place, retried),
            script.at(45).event_replayed(2, place, run_of("d")),
            script.at(50).event_replayed(1, elsewhere, meant),
        ];
        let (mut key, mut history) = (None, None);

        for (header, record) in &records {
            fold_of_run(run, &mut key, &mut history, header, record);
        }

        let history = history.unwrap();
        let again = |runs, time_ms, by_case| StartedAgain { runs, time_ms, by_case };
        let expected = [again(vec![retried], 40, true), again(vec![meant], 50, false)];
        assert_eq!(history.started_again, expected);
        let resolved = history.resolved.unwrap();
        assert_eq!((resolved.case, &*resolved.by, resolved.time_ms), (case, "ada", 30));
    }

    #[test]
    fn a_record_of_a_run_that_never_began_begins_none() {
        let mut list = RunList::default();
        let (header, record) = Script::default().at(10).succeeded(run_of("a"));

        list.fold(&header, &record);

        assert!(list.get(run_of("a")).is_none());
    }

    #[test]
    fn records_are_read_from_frames_and_foreign_messages_hold_none() {
        let run = run_of("a");
        let mut script = Script::default();
        let records = vec![script.at(10).owned(), script.at(10).started(run)];
        let message = script.message(&records);

        assert_eq!(records_of(&message).unwrap(), records);
        let foreign = StoredMessage { writer: None, ..message };
        assert_eq!(records_of(&foreign).unwrap(), []);
    }

    #[test]
    fn a_message_of_ours_that_cannot_be_read_is_named() {
        let mut message = Script::default().message(&[]);
        message.payload = b"garbage".as_slice().into();

        let error = read_message("JOURNAL_3", &message).unwrap_err();

        assert!(error.to_string().contains("message 1 of stream `JOURNAL_3`"), "{error}");
    }
}
