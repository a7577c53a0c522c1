mod checkpoints;
mod log;
mod loss;
mod tamper;

use proptest::prelude::*;

use self::log::{
    ORIGIN, Record, check, check_without, feed_entry, feed_record, record, signer, sound_log,
    stored,
};
use self::tamper::{Tamper, apply, names, tamper};
use super::*;

/// Sizes of a log and of its checkpoints, the last at its end.
fn shape() -> impl Strategy<Value = (usize, Vec<usize>)> {
    (80_usize..200).prop_flat_map(|size| {
        prop::collection::btree_set(0..size, 0..6)
            .prop_map(move |sizes| (size, sizes.into_iter().chain([size]).collect()))
    })
}

proptest! {
    #[test]
    fn a_sound_log_has_no_finding((size, checkpoints) in shape()) {
        let log = sound_log(size, &checkpoints);

        let report = check(&log, false);

        prop_assert_eq!(&report.findings, &[]);
        prop_assert!(report.is_sound());
        prop_assert_eq!((report.leaves, report.records), (size as u64, size as u64));
        prop_assert_eq!((report.sound_to, report.unaudited, report.unsigned), (size as u64, 0, 0));
        prop_assert_eq!(report.checkpoints, checkpoints.len() as u64);
    }

    #[test]
    fn one_tamper_is_found_and_named(
        (size, checkpoints) in shape(),
        tamper in tamper(),
        at: prop::sample::Index,
        at_checkpoint: bool,
        bit: u8,
        renumber: bool,
        allow_tail: bool,
    ) {
        let mut log = sound_log(size, &checkpoints);
        // The places beside a checkpoint are where it matters what it covers.
        let at = if at_checkpoint {
            checkpoints[at.index(checkpoints.len())].min(size - 1)
        } else {
            at.index(size)
        };
        let expected = apply(&mut log, &tamper, at, bit, renumber);

        let findings = check(&log, allow_tail).findings;

        prop_assert!(names(&findings, &expected, &tamper, at), "{expected:?} not in {findings:#?}");
        prop_assert!(findings.len() <= 8, "{findings:#?}");
    }

    /// Whatever is done, and however often: a log that differs is not sound.
    #[test]
    fn several_tampers_never_pass(
        (size, checkpoints) in shape(),
        tampers in prop::collection::vec((tamper(), any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let sound = sound_log(size, &checkpoints);
        let mut log = sound.clone();
        for (tamper, at, bit) in &tampers {
            let size = log.journal.len().min(log.audit.len());
            if size > 0 {
                apply(&mut log, tamper, at.index(size), *bit, false);
            }
        }

        let report = check(&log, false);

        prop_assert_eq!(report.is_sound(), log == sound, "{:#?}", report.findings);
    }

    /// Records that were kept long enough, before or while the journal was read: their entries
    /// stand for them, and are what was signed.
    #[test]
    fn a_log_whose_records_were_removed_is_sound_until_an_entry_is_changed(
        (size, checkpoints) in shape(),
        from: prop::sample::Index,
        from_the_first: bool,
        count: prop::sample::Index,
        at: prop::sample::Index,
        bit: u8,
    ) {
        let mut log = sound_log(size, &checkpoints);
        let from = if from_the_first { 0 } else { from.index(size) };
        let count = 1 + count.index(size - from);
        let removed = from..from + count;
        log.journal.drain(removed.clone());

        let report = check_without(&log, removed.clone(), false);
        prop_assert_eq!(&report.findings, &[]);
        prop_assert_eq!((report.records, report.leaves), (size as u64, size as u64));
        prop_assert!(!check(&log, false).is_sound(), "nobody said that they were removed");

        log.audit[from + at.index(count)].commitment[usize::from(bit / 8)] ^= 1 << (bit % 8);
        prop_assert!(!check_without(&log, removed, false).is_sound());
    }

    /// Without a checkpoint the place is still right, and one change is one place.
    #[test]
    fn one_tamper_is_found_without_any_checkpoint(
        tamper in tamper(),
        at in 0_usize..100,
        bit: u8,
        renumber: bool,
    ) {
        let mut log = sound_log(100, &[]);
        let expected = apply(&mut log, &tamper, at, bit, renumber);

        let report = check(&log, true);

        // An end that is only not audited yet looks the same.
        let tail = matches!(tamper, Tamper::TruncateAudit)
            || matches!(tamper, Tamper::DropEntry) && at == 99;
        if tail {
            prop_assert_eq!(report.unaudited, 100 - at as u64);
        } else {
            prop_assert!(!report.is_sound());
            let first = report.findings[0].index().unwrap();
            let swapped = matches!(expected, Finding::Reordered { .. });
            prop_assert!(swapped || first == at as u64, "{:#?}", report.findings);
        }
        prop_assert!(report.findings.len() <= 5, "{:#?}", report.findings);
    }

    /// The order of feeding makes no difference.
    #[test]
    fn any_interleaving_gives_the_same_report(
        (size, checkpoints) in shape(),
        tamper in tamper(),
        at: prop::sample::Index,
        order in prop::collection::vec(0..3_u8, 900),
    ) {
        let mut log = sound_log(size, &checkpoints);
        apply(&mut log, &tamper, at.index(size), 0, false);
        let mut verifier = PartitionVerifier::new(ORIGIN, vec![signer().verifier()], true);
        let (mut journal, mut audit) = (log.journal.iter().peekable(), log.audit.iter().peekable());
        let mut checkpoints = (1..).zip(&log.checkpoints);
        for kind in order {
            match kind {
                0 => match journal.peek() {
                    Some(record) if feed_record(&mut verifier, record).is_ok() => {
                        journal.next();
                    }
                    Some(_) => {}
                    None => verifier.end_of_journal(),
                },
                1 => match audit.peek() {
                    Some(entry) if feed_entry(&mut verifier, entry).is_ok() => {
                        audit.next();
                    }
                    Some(_) => {}
                    None => verifier.end_of_audit(),
                },
                _ => match checkpoints.next() {
                    Some((sequence, note)) => {
                        verifier.checkpoint(sequence, note.as_bytes())?;
                    }
                    None => verifier.end_of_checkpoints(),
                },
            }
        }
        prop_assume!(journal.peek().is_none() && audit.peek().is_none());
        prop_assume!(checkpoints.next().is_none());

        prop_assert_eq!(verifier.finish(), check(&log, true));
    }

    #[test]
    fn a_tail_is_counted_and_only_wrong_if_not_allowed(
        size in 2_usize..80, audited: prop::sample::Index, signed: prop::sample::Index,
    ) {
        let audited = 1 + audited.index(size - 1);
        let signed = signed.index(audited);
        let mut log = sound_log(size, &[signed]);
        log.audit.truncate(audited);

        let report = check(&log, true);

        prop_assert!(report.is_sound(), "{:#?}", report.findings);
        prop_assert_eq!(report.unaudited, (size - audited) as u64);
        prop_assert_eq!(report.unsigned, (audited - signed) as u64);
        let (audited, signed) = (audited as u64, signed as u64);
        prop_assert_eq!(check(&log, false).findings, [
            Finding::CheckpointBehind { size: signed, leaves: audited },
            Finding::Missing { index: audited, count: size as u64 - audited, stream: Stream::Audit },
        ]);
    }
}

#[test]
fn an_empty_log_is_sound() {
    assert!(check(&sound_log(0, &[]), false).is_sound());
    assert!(check(&sound_log(0, &[0]), false).is_sound());
}

#[test]
fn a_log_rewritten_in_both_streams_is_caught_by_its_signed_root() {
    let mut log = sound_log(50, &[10, 20, 30, 50]);
    log.journal[25].payload.push(1);
    log.audit[25] = stored(&log.journal[25]);

    let report = check(&log, false);

    assert_eq!(report.sound_to, 20);
    assert!(
        matches!(
            report.findings.as_slice(),
            [Finding::RootMismatch { checkpoint: 3, size: 30, sound_to: 20, .. }]
        ),
        "{:#?}",
        report.findings
    );
}

#[test]
fn both_streams_cut_below_a_checkpoint_are_caught() {
    let mut log = sound_log(50, &[10, 40, 50]);
    log.journal.truncate(45);
    log.audit.truncate(45);

    assert_eq!(
        check(&log, true).findings,
        [Finding::CheckpointAhead { checkpoint: 3, size: 50, leaves: 45 }]
    );
}

#[test]
fn several_problems_are_reported_at_once() {
    let mut log = sound_log(3_000, &[1_000, 2_000, 3_000]);
    log.journal[2_500].payload.push(0);
    log.journal.insert(1_500, record(9, 9));
    log.audit[700].leaf = Hash([0; 32]);
    log.checkpoints[1] = log.checkpoints[1].replace("example.org/audit/0", "example.org/audit/1");

    let Report { findings, notices, .. } = check(&log, false);

    assert!(matches!(notices.as_slice(), [Notice::NotSigned { sequence: 2, .. }]), "{notices:?}");
    assert!(
        matches!(
            findings.as_slice(),
            [
                Finding::Changed { index: 700, stream: Stream::Audit, part: Part::Leaf },
                Finding::SequenceDecreased { index: 1_500 },
                Finding::Added { index: 1_500, count: 1, stream: Stream::Journal },
                Finding::Changed { index: 2_500, stream: Stream::Journal, part: Part::Payload },
                Finding::SizeMismatch { records: 3_001, leaves: 3_000 },
            ]
        ),
        "{findings:#?}"
    );
}

#[test]
fn a_run_of_added_or_missing_records_is_one_finding() {
    let mut log = sound_log(4_000, &[4_000]);
    log.journal.splice(100..100, (0..900).map(|index| record(index, 3)));
    log.audit.drain(3_000..3_500);

    let findings = check(&log, false).findings;

    assert!(
        findings.contains(&Finding::Added { index: 100, count: 900, stream: Stream::Journal }),
        "{findings:#?}"
    );
    assert!(
        findings.contains(&Finding::Missing { index: 3_900, count: 500, stream: Stream::Audit }),
        "{findings:#?}"
    );
}

#[test]
fn one_added_and_one_missing_nearby_are_not_many_changed() {
    let mut log = sound_log(100, &[50, 100]);
    log.journal.remove(30);
    log.journal.insert(10, Record { sequence: log.journal[10].sequence, ..record(10, 3) });

    assert_eq!(
        check(&log, false).findings,
        [
            Finding::Added { index: 10, count: 1, stream: Stream::Journal },
            Finding::Missing { index: 30, count: 1, stream: Stream::Journal },
        ]
    );
}

#[test]
fn the_number_of_findings_is_bounded_and_the_rest_counted() {
    let mut log = sound_log(6_000, &[6_000]);
    log.journal.iter_mut().for_each(|record| record.payload.push(1));

    let report = check(&log, false);

    assert_eq!(report.findings.len(), FINDINGS_MAX);
    assert_eq!(report.findings.len() as u64 + report.findings_omitted, 6_000);
    assert!(!report.is_sound());
}

#[test]
fn a_wrong_carried_index_is_named_once() {
    let mut log = sound_log(50, &[50]);
    log.journal[7].index = 70;
    log.audit[20..].iter_mut().for_each(|entry| entry.index += 5);

    assert_eq!(
        check(&log, false).findings,
        [
            Finding::Misnumbered { index: 7, declared: 70, stream: Stream::Journal },
            Finding::Misnumbered { index: 20, declared: 25, stream: Stream::Audit },
        ]
    );
}

#[test]
fn a_stream_fed_alone_is_refused_at_its_bound() {
    let mut verifier = PartitionVerifier::new(ORIGIN, vec![signer().verifier()], true);
    assert_eq!(verifier.wants(), Want::Checkpoint);
    let first = record(0, 1);
    assert_eq!(feed_record(&mut verifier, &first), Err(BufferFull { want: Want::Checkpoint }));

    verifier.end_of_checkpoints();
    for _ in 0..PENDING_MAX {
        feed_record(&mut verifier, &first).unwrap();
    }

    assert_eq!(feed_record(&mut verifier, &first), Err(BufferFull { want: Want::Audit }));
}
