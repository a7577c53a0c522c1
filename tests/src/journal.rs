//! Reading what partitions have decided.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fermata_actors::journal_archive::{ArchiveError, JournalReplay};
use fermata_core::identity::{PartitionId, RunId};
use fermata_core::partition::Limits;
use fermata_core::plan::Executable;
use fermata_core::record::{Header, Kind, Record};
use fermata_jetstream::StreamReader;
use fermata_jetstream::definitions_store::DefinitionsStore;
use fermata_partition::fold::{Decoded, JournalFold, decode};
use fermata_partition::message::Message;

/// A record with its header.
pub type Entry = (Header, Record);

/// How often what is waited for is looked at.
const POLL: Duration = Duration::from_millis(25);

/// A journal as read so far; reading again goes on where it stopped.
#[derive(Debug)]
pub struct JournalWatch {
    partition: PartitionId,
    next: u64,
    /// Every message so far.
    pub messages: Vec<Message>,
    /// Every record so far, in order.
    pub records: Vec<Entry>,
}

impl JournalWatch {
    /// Nothing read yet.
    #[must_use]
    pub fn new(partition: PartitionId) -> Self {
        Self { partition, next: 1, messages: Vec::new(), records: Vec::new() }
    }

    /// Reads what has come since.
    ///
    /// # Errors
    ///
    /// When the broker does not answer; read again.
    ///
    /// # Panics
    ///
    /// When a message of ours cannot be decoded.
    pub async fn read(&mut self, reader: &StreamReader) -> Result<(), ArchiveError> {
        let mut replay = JournalReplay::open(reader, self.partition, self.next).await?;
        loop {
            let batch = replay.next_batch(1_000).await?;
            if batch.is_empty() {
                return Ok(());
            }
            for message in batch {
                assert_eq!(message.sequence, self.next, "the journal has a hole");
                let message = Message {
                    sequence: message.sequence,
                    broker_time_ns: message.broker_time_ns,
                    writer: message.writer,
                    payload: message.payload,
                };
                if let Decoded::Frame(_, records) = decode(&message).expect("a readable message") {
                    self.records.extend(records);
                }
                self.next = message.sequence + 1;
                self.messages.push(message);
            }
        }
    }

    /// Folds every message, as an owner does on taking over.
    ///
    /// # Panics
    ///
    /// When a plan is missing or a message cannot follow the ones before it.
    pub async fn fold(&self, store: &DefinitionsStore) -> JournalFold {
        let mut fold = JournalFold::new(self.partition, Limits::default());
        for message in &self.messages {
            let decoded = decode(message).expect("a readable message");
            if let Decoded::Frame(_, records) = &decoded {
                for digest in fold.missing_plans(records) {
                    let bytes = store.get_blob(&digest.to_string()).await.expect("a store");
                    let plan = fermata_wire::plan::decode(&bytes.expect("the plan"));
                    let plan = Executable::new(plan.expect("a plan")).expect("a sound plan");
                    fold.add_plan(digest, Arc::new(plan));
                }
            }
            fold.fold(message.sequence, &decoded).expect("a message that can follow");
        }
        fold
    }
}

/// Every record of a partition, in order.
///
/// # Panics
///
/// When the journal cannot be read or decoded.
pub async fn records(reader: &StreamReader, partition: PartitionId) -> Vec<Entry> {
    let mut watch = JournalWatch::new(partition);
    watch.read(reader).await.expect("a journal");
    watch.records
}

/// Every record of all data partitions.
pub async fn all_records(reader: &StreamReader, partitions: u16) -> Vec<Entry> {
    let mut found = Vec::new();
    for partition in 0..partitions {
        found.extend(records(reader, PartitionId(partition)).await);
    }
    found
}

/// Reads all records of the data partitions until `enough` says so.
///
/// # Panics
///
/// When it does not within `limit`.
pub async fn records_until(
    reader: &StreamReader,
    partitions: u16,
    limit: Duration,
    enough: impl Fn(&[Entry]) -> bool,
) -> Vec<Entry> {
    let partitions = (0..partitions).map(PartitionId).collect::<Vec<_>>();
    records_of_until(reader, &partitions, limit, enough).await
}

/// Reads all records of these partitions until `enough` says so.
///
/// # Panics
///
/// When it does not within `limit`.
pub async fn records_of_until(
    reader: &StreamReader,
    partitions: &[PartitionId],
    limit: Duration,
    enough: impl Fn(&[Entry]) -> bool,
) -> Vec<Entry> {
    let begun = Instant::now();
    let mut watches = partitions.iter().copied().map(JournalWatch::new).collect::<Vec<_>>();
    loop {
        let mut found = Vec::new();
        for watch in &mut watches {
            watch.read(reader).await.expect("a journal");
            found.extend(watch.records.iter().cloned());
        }
        if enough(&found) {
            return found;
        }
        assert!(begun.elapsed() < limit, "not within {limit:?}; recorded: {:?}", tally(&found));
        tokio::time::sleep(POLL).await;
    }
}

/// How many records are of `kind`.
#[must_use]
pub fn count(records: &[Entry], kind: Kind) -> usize {
    records.iter().filter(|(header, _)| header.kind == kind).count()
}

/// The records of a run, in order.
#[must_use]
pub fn of_run(records: &[Entry], run: RunId) -> Vec<&Entry> {
    records.iter().filter(|(header, _)| header.run == Some(run)).collect()
}

/// The kinds of a run's records, in order.
#[must_use]
pub fn kinds_of(records: &[Entry], run: RunId) -> Vec<Kind> {
    of_run(records, run).into_iter().map(|(header, _)| header.kind).collect()
}

/// The run that the first record of `kind` names.
#[must_use]
pub fn run_of(records: &[Entry], kind: Kind) -> Option<RunId> {
    records.iter().find(|(header, _)| header.kind == kind).and_then(|(header, _)| header.run)
}

/// How many records there are of each kind.
#[must_use]
pub fn tally(records: &[Entry]) -> BTreeMap<&'static str, usize> {
    let mut tally = BTreeMap::new();
    for (header, _) in records {
        *tally.entry(header.kind.as_str()).or_default() += 1;
    }
    tally
}
