//! A sound log to change, and its check.

use std::ops::Range;

use super::super::*;
use crate::checkpoint::Checkpoint;
use crate::key::Signer;
use crate::tree::root_of;

pub(super) const ORIGIN: &str = "example.org/audit/0";

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Record {
    pub(super) index: u64,
    pub(super) header: Vec<u8>,
    pub(super) salt: [u8; 16],
    pub(super) payload: Vec<u8>,
    pub(super) sequence: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stored {
    pub(super) index: u64,
    pub(super) header: Vec<u8>,
    pub(super) commitment: [u8; 32],
    pub(super) leaf: Hash,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Log {
    pub(super) journal: Vec<Record>,
    pub(super) audit: Vec<Stored>,
    pub(super) checkpoints: Vec<String>,
}

pub(super) fn signer() -> Signer {
    Signer::from_seed("example.org/audit", [7; 32]).unwrap()
}

/// Record `index`; headers repeat, as they may.
pub(super) fn record(index: u64, salt: u8) -> Record {
    let mut salt = [salt; 16];
    salt[..8].copy_from_slice(&index.to_be_bytes());
    let header = format!("kind {}", index % 3).into_bytes();
    Record { index, header, salt, payload: vec![5; 3], sequence: 1 + index / 4 }
}

pub(super) fn stored(record: &Record) -> Stored {
    let commitment = commitment(&record.salt, &record.payload);
    let leaf = leaf_hash(&record.header, &commitment);
    Stored { index: record.index, header: record.header.clone(), commitment, leaf }
}

pub(super) fn sign(log: &[Record], size: usize) -> String {
    let leaves: Vec<_> = log[..size].iter().map(|record| stored(record).leaf).collect();
    let sequence = log[..size].last().map_or(0, |record| record.sequence);
    Checkpoint::new(ORIGIN, size as u64, root_of(&leaves), sequence).unwrap().sign(&signer())
}

pub(super) fn sound_log(size: usize, checkpoints: &[usize]) -> Log {
    let journal: Vec<_> = (0..size as u64).map(|index| record(index, 1)).collect();
    let audit = journal.iter().map(stored).collect();
    let checkpoints = checkpoints.iter().map(|size| sign(&journal, *size)).collect();
    Log { journal, audit, checkpoints }
}

pub(super) fn feed_record(
    verifier: &mut PartitionVerifier,
    record: &Record,
) -> Result<(), BufferFull> {
    verifier.journal(JournalLeaf {
        index: record.index,
        header: &record.header,
        salt: &record.salt,
        payload: &record.payload,
        journal_sequence: record.sequence,
    })
}

pub(super) fn feed_entry(
    verifier: &mut PartitionVerifier,
    entry: &Stored,
) -> Result<(), BufferFull> {
    verifier.audit(AuditEntry {
        index: entry.index,
        header: &entry.header,
        commitment: &entry.commitment,
        leaf: &entry.leaf,
    })
}

pub(super) fn check(log: &Log, allow_tail: bool) -> Report {
    check_without(log, 0..0, allow_tail)
}

/// The same where the records `removed` are not there, and were removed on purpose.
pub(super) fn check_without(log: &Log, removed: Range<usize>, allow_tail: bool) -> Report {
    let mut verifier = PartitionVerifier::new(ORIGIN, vec![signer().verifier()], allow_tail);
    let (mut journal, mut audit) = (log.journal.iter(), log.audit.iter());
    let mut checkpoints = (1..).zip(&log.checkpoints);
    let mut to_tell = (!removed.is_empty()).then_some(removed);
    loop {
        let read = log.journal.len() - journal.len();
        match verifier.wants() {
            Want::Journal if to_tell.as_ref().is_some_and(|removed| removed.start == read) => {
                let removed = to_tell.take().unwrap();
                verifier.journal_removed(removed.end as u64).unwrap();
            }
            Want::Journal => match journal.next() {
                Some(record) => feed_record(&mut verifier, record).unwrap(),
                None => verifier.end_of_journal(),
            },
            Want::Audit => match audit.next() {
                Some(entry) => feed_entry(&mut verifier, entry).unwrap(),
                None => verifier.end_of_audit(),
            },
            Want::Checkpoint => match checkpoints.next() {
                Some((sequence, note)) => {
                    verifier.checkpoint(sequence, note.as_bytes()).unwrap();
                }
                None => verifier.end_of_checkpoints(),
            },
            Want::Nothing => return verifier.finish(),
        }
    }
}
