//! Records that are lost, where somebody accepted that.

use proptest::prelude::*;

use super::super::*;
use super::log::{Log, ORIGIN, Stored, feed_entry, feed_record, sign, signer, sound_log};
use crate::loss::Subtrees;

/// A log from which the records `from..next` were lost after `signed` of them were signed.
#[derive(Debug, Clone)]
struct Cut {
    log: Log,
    from: usize,
    signed: usize,
    next: usize,
    note: String,
    subtrees: Vec<Hash>,
}

fn cut(size: usize, checkpoints: &[usize], (from, signed, next): (usize, usize, usize)) -> Cut {
    let mut log = sound_log(size, checkpoints);
    let note = sign(&log.journal, signed);
    let over = |range: std::ops::Range<usize>| {
        let mut subtrees = Subtrees::over(range.start as u64, range.end as u64);
        log.audit[range].iter().for_each(|entry| subtrees.push(entry.leaf));
        subtrees.finish().unwrap()
    };
    let subtrees = [over(from..signed), over(signed..next)].concat();
    log.journal.drain(from..next);
    Cut { log, from, signed, next, note, subtrees }
}

impl Cut {
    fn check(&self) -> Report {
        let mut verifier = PartitionVerifier::new(ORIGIN, vec![signer().verifier()], false);
        let (mut journal, mut audit) = (self.log.journal.iter().peekable(), self.log.audit.iter());
        let mut checkpoints = (1..).zip(&self.log.checkpoints);
        let mut read = 0;
        loop {
            match verifier.wants() {
                Want::Journal if read == self.from && journal.peek().is_some() => {
                    read += 1;
                    let loss = Loss {
                        from: self.from as u64,
                        signed: self.signed as u64,
                        next: self.next as u64,
                        checkpoint: self.note.as_bytes(),
                        subtrees: &self.subtrees,
                    };
                    verifier.journal_lost(loss).unwrap();
                }
                Want::Journal => match journal.next() {
                    Some(record) => {
                        read += 1;
                        feed_record(&mut verifier, record).unwrap();
                    }
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
}

/// A size, checkpoints up to it, and a loss within it.
fn shape() -> impl Strategy<Value = (usize, Vec<usize>, (usize, usize, usize))> {
    (1_usize..80, 1_usize..80, 0_usize..20, 1_usize..40).prop_flat_map(
        |(from, lost, unsigned, behind)| {
            let size = from + lost + unsigned + behind;
            let loss = (from, from + lost, from + lost + unsigned);
            prop::collection::btree_set(1..size, 0..6).prop_map(move |sizes| {
                (size, sizes.into_iter().chain([size]).collect::<Vec<_>>(), loss)
            })
        },
    )
}

proptest! {
    #[test]
    fn an_accepted_loss_is_no_finding((size, checkpoints, loss) in shape()) {
        let report = cut(size, &checkpoints, loss).check();

        prop_assert_eq!(&report.findings, &[]);
        prop_assert_eq!((report.records, report.leaves), (size as u64, size as u64));
    }

    /// Whoever changes an entry that stands for a lost record is found, also where no
    /// checkpoint is left but that of the acceptance.
    #[test]
    fn a_changed_entry_of_a_lost_record_is_found(
        (size, checkpoints, loss) in shape(),
        at: prop::sample::Index,
        all_signed: bool,
        bit: u8,
    ) {
        let checkpoints = if all_signed { checkpoints } else { Vec::new() };
        let mut cut = cut(size, &checkpoints, loss);
        let (from, next) = (cut.from, cut.next);
        let entry: &mut Stored = &mut cut.log.audit[from + at.index(next - from)];
        entry.commitment[usize::from(bit / 8)] ^= 1 << (bit % 8);
        entry.leaf = leaf_hash(&entry.header, &entry.commitment);

        let report = cut.check();

        let named = report.findings.iter().any(|finding| matches!(finding, Finding::LossDiffers { .. }));
        prop_assert!(named, "{:?}", report.findings);
    }

    #[test]
    fn a_loss_that_nobody_accepted_on_what_was_signed_is_found(
        (size, checkpoints, loss) in shape(),
        at: prop::sample::Index,
        bit: u8,
    ) {
        let mut cut = cut(size, &checkpoints, loss);
        let unsigned = Subtrees::over(cut.signed as u64, cut.next as u64).count();
        let signed = cut.subtrees.len() - unsigned;
        cut.subtrees[at.index(signed)].0[usize::from(bit / 8)] ^= 1 << (bit % 8);

        let report = cut.check();

        let unproved = |finding: &Finding| matches!(finding, Finding::LossUnproved { .. });
        prop_assert!(report.findings.iter().any(unproved), "{:?}", report.findings);
    }
}
