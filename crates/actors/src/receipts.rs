//! Receipts of records for whoever asks a running process.
//!
//! A receipt needs hashes from all over the log. The first request for a partition therefore reads
//! its whole log and keeps of every 256 entries two hashes and where they stand in the stream;
//! later ones read what has come since, and the entries that they ask for. What is kept can be
//! lost: it is read again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fermata_audit::{BLOCK_LEAVES, Hash, Receipt, TreeIndex};
use fermata_core::identity::PartitionId;
use fermata_jetstream::reader::{FollowError, Holes, ReadError};
use fermata_jetstream::topology::audit_stream;
use fermata_jetstream::{StoredMessage, StreamReader};
use fermata_wire::WireError;
use fermata_wire::audit::AuditFrame;
use thiserror::Error;
use tokio::time::Instant;

use crate::checkpoint_log::newest_of_stream;
use crate::ports::Ports;

/// Records of one request: each may cost a read of its own.
pub const RECEIPTS_MAX: usize = 64;

/// How long a request reads on in a log before it says how far it has come: below what an answer
/// over HTTP may take. The next one goes on from there.
pub const READING_LIMIT: Duration = Duration::from_secs(5);

/// Records of a log of which receipts are made here: 2^28, for which 72 MiB are kept. Of a larger
/// one `fermata audit prove` makes them.
pub const LOG_RECORDS_MAX: u64 = 1 << 28;

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
    /// The newest checkpoint cannot be read.
    #[error("the checkpoints cannot be read: {0}")]
    Checkpoints(#[from] ReadError),
    /// The log cannot be read.
    #[error("the log cannot be read: {0}")]
    Log(#[from] FollowError),
}

/// Makes receipts; one request per partition at a time, the others wait.
#[derive(Debug)]
pub struct Receipts {
    ports: Ports,
    logs: Mutex<HashMap<PartitionId, Arc<tokio::sync::Mutex<Log>>>>,
}

impl Receipts {
    /// Makes receipts with what `ports` reaches.
    #[must_use]
    pub fn new(ports: Ports) -> Self {
        Self { ports, logs: Mutex::default() }
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
        let (facts, reader) = (&self.ports.facts, &self.ports.reader);
        if partition != PartitionId::CONTROL && partition.0 >= facts.partitions {
            return Err(ReceiptsError::NoPartition(partition));
        }
        if records.len() > RECEIPTS_MAX {
            return Err(ReceiptsError::TooMany(records.len()));
        }
        let until = Instant::now() + READING_LIMIT;
        let log = self.log(partition);
        let mut log = log.lock().await;
        let verifier = [facts.signer.verifier()];
        let (_, signed) = newest_of_stream(reader, facts.signer.verifier(), partition).await?;
        let size = signed.as_ref().map_or(0, |signed| signed.checkpoint.size());
        let unsigned = records.last().filter(|last| **last >= size);
        let (Some(signed), None) = (signed, unsigned) else {
            let index = records.last().copied().unwrap_or_default();
            return Err(ReceiptsError::NotSigned { partition, index, signed: size });
        };
        let mut reading = Reading { reader, partition, until };
        reading.up_to(&mut log, size).await?;
        let made = reading.receipts(&log, records, signed.checkpoint.root(), size).await;
        let note = String::from_utf8_lossy(&signed.note);
        let proven = made.inspect_err(|error| {
            if matches!(error, ReceiptsError::Unsound { .. }) {
                // What was read once may have been wrong; what is there is read again.
                *log = Log::default();
            }
        })?;
        let mut receipts = Vec::with_capacity(proven.len());
        for (index, (entry, path)) in proven {
            let receipt = Receipt {
                partition: partition.to_string(),
                origin: facts.origin(partition),
                index,
                header: entry.header,
                commitment: entry.commitment,
                leaf: entry.leaf,
                path,
                checkpoint: note.clone().into_owned(),
                opening: None,
            };
            if let Err(error) = receipt.check(&verifier) {
                let detail = format!("record {index}: {error}");
                return Err(ReceiptsError::Unsound { partition, detail });
            }
            receipts.push(receipt);
        }
        Ok(receipts)
    }

    fn log(&self, partition: PartitionId) -> Arc<tokio::sync::Mutex<Log>> {
        // Nobody panics while holding it.
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.entry(partition).or_default().clone()
    }
}

/// What is kept of a log.
#[derive(Debug, Default)]
struct Log {
    index: TreeIndex,
    /// Where each block of [`BLOCK_LEAVES`] entries begins.
    blocks: Vec<Place>,
    /// The last message that was read.
    last: u64,
}

/// A message of a log.
#[derive(Debug, Clone, Copy)]
struct Place {
    sequence: u64,
    /// Index of its first entry.
    first: u64,
}

/// An entry that is proven, or beside one.
#[derive(Debug, Clone)]
struct ReadEntry {
    header: Vec<u8>,
    commitment: [u8; 32],
    leaf: Hash,
}

/// One request.
struct Reading<'a> {
    reader: &'a StreamReader,
    partition: PartitionId,
    until: Instant,
}

impl Reading<'_> {
    fn unsound(&self, detail: impl ToString) -> ReceiptsError {
        ReceiptsError::Unsound { partition: self.partition, detail: detail.to_string() }
    }

    fn decode<'m>(&self, message: &'m StoredMessage) -> Result<AuditFrame<'m>, ReceiptsError> {
        AuditFrame::decode(&message.payload).map_err(|error: WireError| {
            let (stream, sequence) = (audit_stream(self.partition), message.sequence);
            self.unsound(format!("message {sequence} of stream `{stream}` cannot be read: {error}"))
        })
    }

    /// Reads the log on until it has `size` entries.
    async fn up_to(&mut self, log: &mut Log, size: u64) -> Result<(), ReceiptsError> {
        let (partition, stream) = (self.partition, audit_stream(self.partition));
        if size > LOG_RECORDS_MAX {
            return Err(ReceiptsError::TooLarge { partition, records: size });
        }
        if log.index.size() >= size {
            return Ok(());
        }
        let mut replay = self.reader.replay(&stream, log.last + 1, Holes::Allowed).await?;
        while log.index.size() < size {
            if Instant::now() >= self.until {
                return Err(ReceiptsError::Reading { partition, read: log.index.size(), of: size });
            }
            let messages = replay.next_batch(BATCH_MESSAGES).await?;
            if messages.is_empty() {
                let read = log.index.size();
                return Err(self
                    .unsound(format!("{size} entries were signed, but audit ends after {read}")));
            }
            for message in &messages {
                self.take(log, message)?;
            }
        }
        Ok(())
    }

    /// Takes a whole message or nothing of it; none when nobody of ours wrote it.
    fn take(&self, log: &mut Log, message: &StoredMessage) -> Result<(), ReceiptsError> {
        if message.writer.is_some() {
            let frame = self.decode(message)?;
            let place = Place { sequence: message.sequence, first: log.index.size() };
            for entry in &frame.entries {
                if log.index.size().is_multiple_of(BLOCK_LEAVES) {
                    log.blocks.push(place);
                }
                // The root shows whether it is that of the entry.
                log.index.push(Hash(*entry.leaf));
            }
        }
        log.last = message.sequence;
        Ok(())
    }

    /// The asked records with their ways to the root of the tree of `size` leaves.
    async fn receipts(
        &self,
        log: &Log,
        records: &BTreeSet<u64>,
        root: Hash,
        size: u64,
    ) -> Result<BTreeMap<u64, (ReadEntry, Vec<Hash>)>, ReceiptsError> {
        let last = self.entries(log, size - size % BLOCK_LEAVES..size).await?;
        let last: Vec<Hash> = last.iter().map(|entry| entry.leaf).collect();
        let tree = log.index.tree_of(size, &last).map_err(|error| self.unsound(error))?;
        if tree.root() != root {
            let found = tree.root();
            return Err(self.unsound(format!(
                "the first {size} entries have root `{found}`, signed was `{root}`"
            )));
        }
        let mut proven = BTreeMap::new();
        let mut rest = records.iter().copied().peekable();
        while let Some(&index) = rest.peek() {
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

    /// The entries of one block, which were read before.
    async fn entries(
        &self,
        log: &Log,
        wanted: Range<u64>,
    ) -> Result<Vec<ReadEntry>, ReceiptsError> {
        let block = usize::try_from(wanted.start / BLOCK_LEAVES).unwrap_or(usize::MAX);
        let mut entries = Vec::new();
        let (false, Some(place)) = (wanted.is_empty(), log.blocks.get(block)) else {
            return Ok(entries);
        };
        let stream = audit_stream(self.partition);
        let mut replay = self.reader.replay(&stream, place.sequence, Holes::Allowed).await?;
        let mut index = place.first;
        while index < wanted.end {
            let messages = replay.next_batch(BLOCK_LEAVES as usize).await?;
            if messages.is_empty() {
                return Err(self.unsound(format!("audit ends before entry {}", wanted.end)));
            }
            for message in messages.iter().filter(|message| message.writer.is_some()) {
                for entry in self.decode(message)?.entries {
                    if wanted.contains(&index) {
                        entries.push(ReadEntry {
                            header: entry.header.to_vec(),
                            commitment: *entry.commitment,
                            leaf: Hash(*entry.leaf),
                        });
                    }
                    index += 1;
                }
            }
        }
        Ok(entries)
    }
}
