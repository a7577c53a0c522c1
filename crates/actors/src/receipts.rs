//! Receipts of records for whoever asks a running process.
//!
//! A receipt needs hashes from all over the log. The first request for a partition therefore reads
//! its whole log and keeps of every 256 entries two hashes and where they stand in the stream;
//! later ones read what has come since, and the entries that they ask for. What is kept can be
//! lost: it is read again.

mod log;
mod logs;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use fermata_audit::{BLOCK_LEAVES, Hash, Receipt, Verifier};
use fermata_core::identity::PartitionId;
use fermata_jetstream::StreamReader;
use fermata_jetstream::reader::{FollowError, Holes, ReadError};
use fermata_jetstream::topology::audit_stream;
use thiserror::Error;
use tokio::time::Instant;

use self::log::{Log, ReadEntry, entries_of};
use self::logs::Logs;
pub use self::logs::TURN_LIMIT;
use crate::checkpoint_log::{SignedNote, newest_of_stream};
use crate::ports::Ports;

/// Records of one request: each may cost reading a block of its own.
pub const RECEIPTS_MAX: usize = 16;

/// How long a request reads before it says how far it has come: with [`TURN_LIMIT`] below what an
/// answer over HTTP may take. What was read of the log is kept for the next one.
pub const READING_LIMIT: Duration = Duration::from_secs(5);

/// Records of a log of which receipts are made here: 2^26, for which 18 MiB are kept, of each
/// partition. Of a larger one `fermata audit prove` makes them.
pub const LOG_RECORDS_MAX: u64 = 1 << 26;

/// Messages that are taken from a log at a time.
const BATCH_MESSAGES: usize = 512;

/// Why there are no receipts.
#[derive(Debug, Error)]
pub enum ReceiptsError {
    /// The engine has no such partition.
    #[error("there is no partition `{0}`")]
    NoPartition(PartitionId),
    /// More than [`RECEIPTS_MAX`].
    #[error("{0} records are more than {RECEIPTS_MAX}; ask for some of them at a time")]
    TooMany(usize),
    /// The record is not among those that are signed.
    #[error(
        "record {index} is not among the {signed} that are signed in partition {partition}; what has just happened is signed within about a second"
    )]
    NotSigned {
        /// The partition.
        partition: PartitionId,
        /// The record.
        index: u64,
        /// How many are signed.
        signed: u64,
    },
    /// Other requests for the partition did not end within [`TURN_LIMIT`].
    #[error("other requests for partition {0} are under way; ask again")]
    Busy(PartitionId),
    /// The log has not been read so far by this process.
    #[error("the log of partition {partition} is being read: {read} of {of} entries; ask again")]
    Reading {
        /// The partition.
        partition: PartitionId,
        /// Entries read.
        read: u64,
        /// Entries to read.
        of: u64,
    },
    /// The log is read, and its entries come too slowly.
    #[error("the broker is slow: {made} of {of} receipts within {READING_LIMIT:?}; ask for fewer")]
    Slow {
        /// Receipts made.
        made: usize,
        /// Receipts asked for.
        of: usize,
    },
    /// More than [`LOG_RECORDS_MAX`].
    #[error(
        "the log of partition {partition} has {records} records, more than {LOG_RECORDS_MAX}; `fermata audit prove` makes receipts of it"
    )]
    TooLarge {
        /// The partition.
        partition: PartitionId,
        /// Its records.
        records: u64,
    },
    /// The log is not what was signed.
    #[error("partition {partition}: {detail}; `fermata audit verify` says more")]
    Unsound {
        /// The partition.
        partition: PartitionId,
        /// What is wrong.
        detail: String,
    },
    /// A checkpoint or an entry cannot be read.
    #[error("a message cannot be read")]
    Message(#[from] ReadError),
    /// The log cannot be read.
    #[error("the log cannot be read")]
    Log(#[from] FollowError),
}

/// Makes receipts; one request per partition at a time, the others wait.
#[derive(Debug)]
pub struct Receipts {
    ports: Ports,
    logs: Logs,
}

impl Receipts {
    /// Makes receipts with what `ports` reaches.
    #[must_use]
    pub fn new(ports: Ports) -> Self {
        Self { ports, logs: Logs::default() }
    }

    /// Receipts of these records of a partition, by index, all against its newest checkpoint. They
    /// hold no payload: their headers name tenant, kind, run and node.
    ///
    /// # Errors
    ///
    /// [`ReceiptsError`]; nobody gets a receipt that does not hold.
    ///
    /// # Cancel safety
    ///
    /// What was read of the log is kept.
    pub async fn of(
        &self,
        partition: PartitionId,
        records: &BTreeSet<u64>,
    ) -> Result<Vec<Receipt>, ReceiptsError> {
        let facts = &self.ports.facts;
        if partition != PartitionId::CONTROL && partition.0 >= facts.partitions {
            return Err(ReceiptsError::NoPartition(partition));
        }
        if records.len() > RECEIPTS_MAX {
            return Err(ReceiptsError::TooMany(records.len()));
        }
        let (mut log, until) = self.logs.turn(partition).await?;
        let request = Request {
            reader: &self.ports.reader,
            partition,
            origin: facts.origin(partition),
            verifier: facts.signer.verifier(),
            records,
            until,
        };
        let made = request.answer(&mut log).await;
        if matches!(made, Err(ReceiptsError::Unsound { .. })) {
            // What was read once may have been wrong; what is there is read again.
            *log = Log::default();
        }
        made
    }
}

/// One request.
struct Request<'a> {
    reader: &'a StreamReader,
    partition: PartitionId,
    origin: String,
    verifier: Verifier,
    records: &'a BTreeSet<u64>,
    until: Instant,
}

impl Request<'_> {
    fn unsound(&self, detail: impl ToString) -> ReceiptsError {
        ReceiptsError::Unsound { partition: self.partition, detail: detail.to_string() }
    }

    async fn answer(&self, log: &mut Log) -> Result<Vec<Receipt>, ReceiptsError> {
        let verifier = self.verifier.clone();
        let (_, signed) = newest_of_stream(self.reader, verifier, self.partition).await?;
        let size = signed.as_ref().map_or(0, |signed| signed.checkpoint.size());
        let unsigned = self.records.last().filter(|last| **last >= size);
        let (Some(signed), None) = (signed, unsigned) else {
            let index = self.records.last().copied().unwrap_or_default();
            return Err(ReceiptsError::NotSigned {
                partition: self.partition,
                index,
                signed: size,
            });
        };
        self.read_up_to(log, size).await?;
        let proven = self.prove(log, &signed).await?;
        let note = String::from_utf8_lossy(&signed.note);
        let mut receipts = Vec::with_capacity(proven.len());
        for (index, (entry, path)) in proven {
            let receipt = Receipt {
                partition: self.partition.to_string(),
                origin: self.origin.clone(),
                index,
                header: entry.header,
                commitment: entry.commitment,
                leaf: entry.leaf,
                path,
                checkpoint: note.clone().into_owned(),
                opening: None,
            };
            let checked = receipt.check(std::slice::from_ref(&self.verifier));
            checked.map_err(|error| self.unsound(format!("record {index}: {error}")))?;
            receipts.push(receipt);
        }
        Ok(receipts)
    }

    /// Reads the log on until it has `size` entries.
    async fn read_up_to(&self, log: &mut Log, size: u64) -> Result<(), ReceiptsError> {
        let (partition, stream) = (self.partition, audit_stream(self.partition));
        if size > LOG_RECORDS_MAX {
            return Err(ReceiptsError::TooLarge { partition, records: size });
        }
        if log.size() >= size {
            return Ok(());
        }
        let mut replay = self.reader.replay(&stream, log.last() + 1, Holes::Allowed).await?;
        while log.size() < size {
            if Instant::now() >= self.until {
                return Err(ReceiptsError::Reading { partition, read: log.size(), of: size });
            }
            let messages = replay.next_batch(BATCH_MESSAGES).await?;
            if messages.is_empty() {
                let read = log.size();
                return Err(self
                    .unsound(format!("{size} entries were signed, but audit ends after {read}")));
            }
            for message in &messages {
                log.take(message).map_err(|detail| self.unsound(detail))?;
            }
        }
        Ok(())
    }

    /// The asked records with their ways to the signed root.
    async fn prove(
        &self,
        log: &Log,
        signed: &SignedNote,
    ) -> Result<BTreeMap<u64, (ReadEntry, Vec<Hash>)>, ReceiptsError> {
        let (size, root) = (signed.checkpoint.size(), signed.checkpoint.root());
        let last = self.entries(log, size - size % BLOCK_LEAVES..size).await?;
        let last: Vec<Hash> = last.iter().map(|entry| entry.leaf).collect();
        let tree = log.index().tree_of(size, &last).map_err(|error| self.unsound(error))?;
        if tree.root() != root {
            let found = tree.root();
            return Err(self.unsound(format!(
                "the first {size} entries have root `{found}`, signed was `{root}`"
            )));
        }
        let mut proven = BTreeMap::new();
        let mut rest = self.records.iter().copied().peekable();
        while let Some(&index) = rest.peek() {
            // One is made of a log that has been read, so that asking again for fewer ends.
            if !proven.is_empty() && Instant::now() >= self.until {
                return Err(ReceiptsError::Slow { made: proven.len(), of: self.records.len() });
            }
            let first = index - index % BLOCK_LEAVES;
            let block = self.entries(log, first..(first + BLOCK_LEAVES).min(size)).await?;
            let leaves: Vec<Hash> = block.iter().map(|entry| entry.leaf).collect();
            while let Some(index) = rest.next_if(|index| *index < first + BLOCK_LEAVES) {
                let path = tree.path(index, &leaves).map_err(|error| self.unsound(error))?;
                let place = usize::try_from(index - first).ok();
                let entry = place.and_then(|place| block.get(place)).cloned();
                let entry = entry.ok_or_else(|| self.unsound("an entry is gone"))?;
                proven.insert(index, (entry, path));
            }
        }
        Ok(proven)
    }

    /// The entries of one block, which were read before: message by message, as there are few, and
    /// a consumer of the stream would be handed far more.
    async fn entries(
        &self,
        log: &Log,
        wanted: Range<u64>,
    ) -> Result<Vec<ReadEntry>, ReceiptsError> {
        let mut entries = Vec::new();
        let (false, Some(begin)) = (wanted.is_empty(), log.begin_of(wanted.start)) else {
            return Ok(entries);
        };
        let stream = audit_stream(self.partition);
        let all = wanted.end - wanted.start;
        for sequence in begin..=log.last() {
            let message = self.reader.read_one(&stream, sequence).await?;
            if let Some(message) = message {
                let read = entries_of(&message, &wanted).map_err(|detail| self.unsound(detail))?;
                entries.extend(read);
            }
            if entries.len() as u64 >= all {
                return Ok(entries);
            }
        }
        Err(self.unsound(format!("audit ends before entry {}", wanted.end)))
    }
}
