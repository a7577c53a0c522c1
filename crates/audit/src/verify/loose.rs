//! Judging what has no counterpart at its place, once enough is known: whether
//! it stands elsewhere, and which stream the signed roots contradict.

use std::collections::HashMap;

use crate::hash::Hash;
use crate::verify::alignment::Loose;
use crate::verify::finding::{Finding, Part, Stream};
use crate::verify::report::Findings;
use crate::verify::side::Entry;
use crate::verify::signed::Signed;

/// Most records and entries without counterpart that are kept to be recognised
/// elsewhere: about 2 MiB. With more, they are judged by what is known then, and
/// one that stands later than that is reported as missing and added.
pub const LOOSE_MAX: usize = 4_096;

/// Turns all of `loose` into findings.
pub(super) fn judge(loose: &mut Vec<Loose>, signed: &Signed, findings: &mut Findings) {
    let mut entries: HashMap<Hash, usize> = HashMap::new();
    for (place, one) in loose.iter().enumerate() {
        if let Some(entry) = one.audit {
            entries.entry(entry.leaf).or_insert(place);
        }
    }
    for place in 0..loose.len() {
        let record = loose.get(place).and_then(|one| one.journal);
        let Some(record) = record else { continue };
        let Some(moved_to) = entries.remove(&record.leaf) else { continue };
        let entry = loose.get_mut(moved_to).and_then(|one| one.audit.take());
        if let Some(one) = loose.get_mut(place) {
            one.journal = None;
        }
        let Some(entry) = entry else { continue };
        let first = record.position.min(entry.position);
        findings.add(Finding::Reordered {
            journal_index: record.position,
            audit_index: entry.position,
            stream: signed.culprit(first, first),
        });
    }
    for one in loose.drain(..) {
        judge_one(&one, signed, findings);
    }
}

fn judge_one(one: &Loose, signed: &Signed, findings: &mut Findings) {
    let culprit = signed.culprit(one.journal_position, one.audit_position);
    match (one.journal, one.audit) {
        (Some(record), Some(entry)) => changed(&record, &entry, culprit, findings),
        (Some(record), None) => {
            let missing = culprit == Stream::Audit || culprit == Stream::Unknown && one.skipped;
            let index = record.position;
            findings.add(if missing {
                Finding::Missing { index, count: 1, stream: Stream::Audit }
            } else {
                Finding::Added { index, count: 1, stream: Stream::Journal }
            });
        }
        (None, Some(entry)) => {
            let missing = culprit == Stream::Journal || culprit == Stream::Unknown && one.skipped;
            let index = entry.position;
            findings.add(if missing {
                Finding::Missing { index, count: 1, stream: Stream::Journal }
            } else {
                Finding::Added { index, count: 1, stream: Stream::Audit }
            });
        }
        (None, None) => {}
    }
}

/// Names every part in which `entry` differs from `record`.
pub(super) fn changed(record: &Entry, entry: &Entry, culprit: Stream, findings: &mut Findings) {
    let index = entry.position;
    let mut add = |stream, part| findings.add(Finding::Changed { index, stream, part });
    let entry_agrees_with_itself = entry.leaf == entry.stored;
    // An entry that contradicts its own leaf was changed itself.
    let stream = if entry_agrees_with_itself { culprit } else { Stream::Audit };
    if record.header != entry.header {
        add(stream, Part::Header);
    }
    if record.commitment != entry.commitment {
        let recomputed = stream == Stream::Journal || stream == Stream::Unknown;
        add(stream, if recomputed { Part::Payload } else { Part::Commitment });
    }
    if !entry_agrees_with_itself && record.leaf != entry.stored {
        add(Stream::Audit, Part::Leaf);
    }
}
