//! What someone may do to a stored log, and what must be found then.

use proptest::prelude::*;

use super::super::*;
use super::log::{Log, Record, record, stored};

/// One change, at an index below the log's size.
#[derive(Debug, Clone)]
pub(super) enum Tamper {
    JournalHeader,
    Payload,
    Salt,
    AuditHeader,
    Commitment,
    Leaf,
    /// An entry exchanged for a different one that agrees with itself.
    Rewrite,
    DropRecord,
    DropEntry,
    InsertRecord,
    InsertEntry,
    SwapRecords(usize),
    SwapEntries(usize),
    TruncateAudit,
    TruncateJournal,
}

pub(super) fn tamper() -> impl Strategy<Value = Tamper> {
    use Tamper::*;
    prop_oneof![
        Just(JournalHeader),
        Just(Payload),
        Just(Salt),
        Just(AuditHeader),
        Just(Commitment),
        Just(Leaf),
        Just(Rewrite),
        Just(DropRecord),
        Just(DropEntry),
        Just(InsertRecord),
        Just(InsertEntry),
        (1_usize..40).prop_map(SwapRecords),
        (1_usize..40).prop_map(SwapEntries),
        Just(TruncateAudit),
        Just(TruncateJournal),
    ]
}

/// Applies `tamper` at `at` and says what must be found, the log being signed to
/// its end. With `renumber` the carried indices follow the places.
pub(super) fn apply(log: &mut Log, tamper: &Tamper, at: usize, bit: u8, renumber: bool) -> Finding {
    let index = at as u64;
    let rest = (log.journal.len() - at) as u64;
    let flip = |bytes: &mut [u8]| {
        let place = usize::from(bit / 8) % bytes.len();
        bytes[place] ^= 1 << (bit % 8);
    };
    let changed = |stream, part| Finding::Changed { index, stream, part };
    let size = log.journal.len().min(log.audit.len());
    let other =
        |distance: usize| if at >= distance { at - distance } else { (at + distance) % size };
    let found = match tamper {
        Tamper::JournalHeader => {
            flip(&mut log.journal[at].header);
            changed(Stream::Journal, Part::Header)
        }
        Tamper::Payload => {
            flip(&mut log.journal[at].payload);
            changed(Stream::Journal, Part::Payload)
        }
        Tamper::Salt => {
            flip(&mut log.journal[at].salt);
            changed(Stream::Journal, Part::Payload)
        }
        Tamper::AuditHeader => {
            flip(&mut log.audit[at].header);
            changed(Stream::Audit, Part::Header)
        }
        Tamper::Commitment => {
            flip(&mut log.audit[at].commitment);
            changed(Stream::Audit, Part::Commitment)
        }
        Tamper::Leaf => {
            flip(&mut log.audit[at].leaf.0);
            changed(Stream::Audit, Part::Leaf)
        }
        Tamper::Rewrite => {
            flip(&mut log.audit[at].header);
            let entry = &mut log.audit[at];
            entry.leaf = leaf_hash(&entry.header, &entry.commitment);
            changed(Stream::Audit, Part::Header)
        }
        Tamper::DropRecord => {
            log.journal.remove(at);
            Finding::Missing { index, count: 1, stream: Stream::Journal }
        }
        Tamper::DropEntry => {
            log.audit.remove(at);
            Finding::Missing { index, count: 1, stream: Stream::Audit }
        }
        Tamper::InsertRecord => {
            let sequence = log.journal[at].sequence;
            log.journal.insert(at, Record { sequence, ..record(index, 2) });
            Finding::Added { index, count: 1, stream: Stream::Journal }
        }
        Tamper::InsertEntry => {
            log.audit.insert(at, stored(&record(index, 2)));
            Finding::Added { index, count: 1, stream: Stream::Audit }
        }
        Tamper::SwapRecords(distance) => {
            log.journal.swap(at, other(*distance));
            Finding::Reordered { journal_index: index, audit_index: 0, stream: Stream::Journal }
        }
        Tamper::SwapEntries(distance) => {
            log.audit.swap(at, other(*distance));
            Finding::Reordered { journal_index: index, audit_index: 0, stream: Stream::Audit }
        }
        Tamper::TruncateAudit => {
            log.audit.truncate(at);
            Finding::Missing { index, count: rest, stream: Stream::Audit }
        }
        Tamper::TruncateJournal => {
            log.journal.truncate(at);
            Finding::Missing { index, count: rest, stream: Stream::Journal }
        }
    };
    if renumber {
        let journal = log.journal.iter_mut().map(|record| &mut record.index);
        journal.zip(0..).for_each(|(index, place)| *index = place);
        let audit = log.audit.iter_mut().map(|entry| &mut entry.index);
        audit.zip(0..).for_each(|(index, place)| *index = place);
    }
    found
}

/// A swap is found at one of its two places; all else exactly as it was made.
pub(super) fn names(findings: &[Finding], expected: &Finding, tamper: &Tamper, at: usize) -> bool {
    let (Tamper::SwapRecords(distance) | Tamper::SwapEntries(distance)) = tamper else {
        return findings.contains(expected);
    };
    let first = if at >= *distance { at - distance } else { at };
    let Finding::Reordered { stream: moved_in, .. } = expected else { return false };
    findings.iter().any(|finding| {
        finding.index() == Some(first as u64)
            && matches!(finding, Finding::Reordered { stream, .. } if stream == moved_in)
    })
}
