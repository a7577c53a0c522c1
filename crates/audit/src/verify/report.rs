//! The outcome of a check, and the bounded list that it is made from.

use crate::hash::Hash;
use crate::verify::finding::{FINDINGS_MAX, Finding};
use crate::verify::notice::Notice;

/// What the check of one partition says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Entries in AUDIT.
    pub leaves: u64,
    /// Records in the journal.
    pub records: u64,
    /// Checkpoints that opened and are of this log.
    pub checkpoints: u64,
    /// Tree size of the last of them, 0 if there is none.
    pub checkpoint_size: u64,
    /// Largest signed size at which the entries have the signed root.
    pub sound_to: u64,
    /// Root over the entries of AUDIT, recomputed from header and commitment.
    pub root: Hash,
    /// Records at the journal's end that AUDIT does not have yet.
    pub unaudited: u64,
    /// Entries at AUDIT's end that no checkpoint covers yet.
    pub unsigned: u64,
    /// What is wrong, by index; at most [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// How many more findings there were.
    pub findings_omitted: u64,
    /// What is strange among the checkpoints and no failure; at most
    /// [`NOTICES_MAX`](crate::NOTICES_MAX).
    pub notices: Vec<Notice>,
    /// How many more notices there were.
    pub notices_omitted: u64,
}

impl Report {
    /// Tells whether nothing is wrong. Whether the tail ([`Report::unaudited`],
    /// [`Report::unsigned`]) is short enough, the caller decides.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty() && self.findings_omitted == 0
    }
}

/// Findings up to the bound; neighbours are joined into one.
#[derive(Debug, Default)]
pub(super) struct Findings {
    list: Vec<Finding>,
    omitted: u64,
}

impl Findings {
    pub(super) fn add(&mut self, finding: Finding) {
        if self.list.last_mut().is_some_and(|last| join(last, &finding)) {
            return;
        }
        if self.list.len() < FINDINGS_MAX {
            self.list.push(finding);
        } else {
            self.omitted = self.omitted.saturating_add(1);
        }
    }

    /// The findings by index, those about no index last; and how many more.
    pub(super) fn into_parts(mut self) -> (Vec<Finding>, u64) {
        self.list.sort_by_key(|finding| finding.index().unwrap_or(u64::MAX));
        (self.list, self.omitted)
    }
}

/// Extends `last` by `next` if both are about one run of records.
fn join(last: &mut Finding, next: &Finding) -> bool {
    let (run, (next_index, next_count, next_stream)) = match (last, next) {
        (
            Finding::Missing { index, count, stream },
            Finding::Missing { index: next_index, count: next_count, stream: next_stream },
        )
        | (
            Finding::Added { index, count, stream },
            Finding::Added { index: next_index, count: next_count, stream: next_stream },
        ) => ((index, count, stream), (next_index, next_count, next_stream)),
        _ => return false,
    };
    let (index, count, stream) = run;
    let joins = stream == next_stream && index.checked_add(*count) == Some(*next_index);
    if joins {
        *count = count.saturating_add(*next_count);
    }
    joins
}
