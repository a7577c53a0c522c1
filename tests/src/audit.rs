//! What a partition's streams hold, read as an auditor reads them, so that a
//! test can check it, or tamper with it first.

use bytes::Bytes;
use fermata_actors::journal_archive::JournalReplay;
use fermata_audit::{
    AuditEntry, Checkpoint, Hash, JournalLeaf, PartitionVerifier, Report, Verifier, Want,
};
use fermata_core::identity::PartitionId;
use fermata_jetstream::reader::Holes;
use fermata_jetstream::{StoredMessage, StreamReader};
use fermata_wire::audit::AuditFrame;
use fermata_wire::journal::JournalFrame;
use fermata_wire::subjects;

use crate::engine::{ENGINE_NAME, signer};

/// A journal record as its leaf depends on it.
#[derive(Debug, Clone)]
pub struct StoredRecord {
    /// Index by its frame.
    pub index: u64,
    /// Header bytes.
    pub header: Vec<u8>,
    /// Salt.
    pub salt: [u8; 16],
    /// Payload bytes.
    pub payload: Vec<u8>,
    /// Sequence of its message.
    pub sequence: u64,
}

/// An entry of the audit log.
#[derive(Debug, Clone)]
pub struct StoredEntry {
    /// Its index.
    pub index: u64,
    /// Header bytes.
    pub header: Vec<u8>,
    /// Commitment.
    pub commitment: [u8; 32],
    /// Leaf hash.
    pub leaf: [u8; 32],
}

/// Journal, audit log and checkpoints of one partition.
#[derive(Debug, Clone)]
pub struct Evidence {
    origin: String,
    verifier: Verifier,
    /// The journal's records.
    pub records: Vec<StoredRecord>,
    /// The audit log's entries.
    pub entries: Vec<StoredEntry>,
    /// The signed notes.
    pub checkpoints: Vec<Bytes>,
}

impl Evidence {
    /// Reads all three streams, the one that is written last first.
    ///
    /// # Panics
    ///
    /// When they cannot be read.
    pub async fn read(reader: &StreamReader, partition: PartitionId) -> Self {
        let subject = subjects::checkpoints(partition);
        let checkpoints = messages(reader, "CHECKPOINTS").await.into_iter();
        // Anyone who may publish can put something there that we did not sign.
        let is_signed = |note: &Bytes| Checkpoint::open(note, &[signer().verifier()]).is_ok();
        let checkpoints = checkpoints
            .filter(|message| message.subject.as_str() == subject)
            .map(|message| message.payload)
            .filter(is_signed)
            .collect();
        let mut entries = Vec::new();
        for message in ours(reader, &format!("AUDIT_{partition}")).await {
            let frame = AuditFrame::decode(&message.payload).expect("an audit frame");
            entries.extend(frame.entries.iter().map(|entry| StoredEntry {
                index: entry.index,
                header: entry.header.to_vec(),
                commitment: *entry.commitment,
                leaf: *entry.leaf,
            }));
        }
        let mut records = Vec::new();
        for message in journal(reader, partition).await {
            let frame = JournalFrame::decode(&message.payload).expect("a journal frame");
            records.extend((frame.first_record_index..).zip(&frame.records).map(
                |(index, record)| StoredRecord {
                    index,
                    header: record.header.to_vec(),
                    salt: *record.salt,
                    payload: record.payload.to_vec(),
                    sequence: message.sequence,
                },
            ));
        }
        let origin = format!("{ENGINE_NAME}/{partition}");
        Self { origin, verifier: signer().verifier(), records, entries, checkpoints }
    }

    /// Checks all of it. What is not audited or signed yet is counted, not found fault with.
    ///
    /// # Panics
    ///
    /// When the verifier refuses what it asked for.
    #[must_use]
    pub fn verify(&self) -> Report {
        let mut verifier = PartitionVerifier::new(&self.origin, vec![self.verifier.clone()], true);
        let (mut records, mut entries) = (self.records.iter(), self.entries.iter());
        let mut checkpoints = (1..).zip(&self.checkpoints);
        loop {
            let taken = match verifier.wants() {
                Want::Journal => records.next().map(|record| verifier.journal(leaf(record))),
                Want::Audit => entries.next().map(|stored| {
                    let leaf = Hash(stored.leaf);
                    verifier.audit(AuditEntry {
                        index: stored.index,
                        header: &stored.header,
                        commitment: &stored.commitment,
                        leaf: &leaf,
                    })
                }),
                Want::Checkpoint => checkpoints
                    .next()
                    .map(|(sequence, note)| verifier.checkpoint(sequence, note).map(drop)),
                Want::Nothing => return verifier.finish(),
            };
            match (taken, verifier.wants()) {
                (Some(taken), _) => taken.expect("room for what is wanted"),
                (None, Want::Journal) => verifier.end_of_journal(),
                (None, Want::Audit) => verifier.end_of_audit(),
                (None, Want::Checkpoint | Want::Nothing) => verifier.end_of_checkpoints(),
            }
        }
    }
}

/// Reads again and again until everything is audited and signed; returns that.
///
/// # Panics
///
/// When it is not within `limit`, or something is wrong.
pub async fn complete(
    reader: &StreamReader,
    partition: PartitionId,
    limit: std::time::Duration,
) -> Evidence {
    let begun = std::time::Instant::now();
    loop {
        let evidence = Evidence::read(reader, partition).await;
        let report = evidence.verify();
        assert!(report.is_sound(), "partition {partition}: {:?}", report.findings);
        if report.unaudited == 0 && report.unsigned == 0 && report.records == report.leaves {
            return evidence;
        }
        assert!(begun.elapsed() < limit, "partition {partition} not signed in time: {report:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

fn leaf(record: &StoredRecord) -> JournalLeaf<'_> {
    JournalLeaf {
        index: record.index,
        header: &record.header,
        salt: &record.salt,
        payload: &record.payload,
        journal_sequence: record.sequence,
    }
}

/// What writers of ours wrote to a journal, what is archived of it too.
async fn journal(reader: &StreamReader, partition: PartitionId) -> Vec<StoredMessage> {
    let mut replay = JournalReplay::open(reader, partition, 1).await.expect("a journal");
    let mut found = Vec::new();
    loop {
        let batch = replay.next_batch(1_000).await.expect("a batch");
        if batch.is_empty() {
            return found;
        }
        found.extend(batch.into_iter().filter(|message| message.writer.is_some()));
    }
}

/// Messages that a writer of ours wrote; the rest holds no record.
async fn ours(reader: &StreamReader, stream: &str) -> Vec<StoredMessage> {
    let mut messages = messages(reader, stream).await;
    messages.retain(|message| message.writer.is_some());
    messages
}

/// How often a stream is read again that was purged meanwhile: a janitor looks every second.
const READS_MAX: u32 = 20;

/// Every message that a stream holds, in order: all behind what is purged.
///
/// # Panics
///
/// When the stream cannot be read, or has a hole.
pub async fn messages(reader: &StreamReader, stream: &str) -> Vec<StoredMessage> {
    for _ in 0..READS_MAX {
        let found = messages_once(reader, stream).await;
        let hole = found.windows(2).find(|pair| pair[0].sequence + 1 != pair[1].sequence);
        let Some(hole) = hole else { return found };
        // What was purged while it was read is none.
        let state = reader.stream_state(stream).await.expect("the stream");
        let behind = hole[1].sequence;
        assert!(behind <= state.first_sequence, "`{stream}` has a hole before {behind}");
    }
    panic!("`{stream}` is purged whenever it is read");
}

async fn messages_once(reader: &StreamReader, stream: &str) -> Vec<StoredMessage> {
    let mut replay = reader.replay(stream, 1, Holes::Allowed).await.expect("a replay");
    let mut found = Vec::<StoredMessage>::new();
    loop {
        let batch = replay.next_batch(1_000).await.expect("a batch");
        if batch.is_empty() {
            return found;
        }
        found.extend(batch);
    }
}
