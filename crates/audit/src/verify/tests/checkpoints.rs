//! Which messages among the checkpoints are failures, and which prove nothing.

use super::super::*;
use super::log::{Log, ORIGIN, check, signer, sound_log};
use crate::checkpoint::Checkpoint;
use crate::key::Signer;
use crate::tree::root_of;

/// A log of 50 records, and a way to sign what it never was.
fn contradicted(
    checkpoints: impl Fn(&dyn Fn(&str, usize, usize, u64) -> String) -> Vec<String>,
) -> Report {
    let log = sound_log(50, &[]);
    let root = |size: usize| {
        root_of(&log.audit[..size].iter().map(|entry| entry.leaf).collect::<Vec<_>>())
    };
    let checkpoints = checkpoints(&|origin, size, root_size, sequence| {
        Checkpoint::new(origin, size as u64, root(root_size), sequence).unwrap().sign(&signer())
    });
    check(&Log { checkpoints, ..log }, false)
}

fn lines<Item: ToString>(items: &[Item]) -> String {
    items.iter().map(Item::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_the_key_signed_and_contradicts_the_log_is_a_failure() {
    let no_checkpoint = crate::note::sign_note("no checkpoint\n", &[&signer()]).unwrap();

    let report = contradicted(|note| {
        vec![
            note(ORIGIN, 20, 20, 5),
            note(ORIGIN, 20, 21, 5),
            note(ORIGIN, 10, 10, 3),
            no_checkpoint.clone(),
            note(ORIGIN, 40, 40, 99),
            note(ORIGIN, 20, 22, 5),
            note(ORIGIN, 50, 50, 13),
        ]
    });

    assert_eq!((report.sound_to, report.notices.len()), (50, 0));
    insta::assert_snapshot!(
        lines(&report.findings),
        @"
        checkpoint 5: record 39 has journal sequence 10, signed was 99
        checkpoint 2: contradicts another of size 20
        checkpoint 3: covers 10 entries, one before it 20
        checkpoint 4: the checkpoint is not the four lines origin, size, root, `journal <sequence>`
        checkpoint 6: contradicts another of size 20
        "
    );
}

#[test]
fn what_anyone_can_put_among_the_checkpoints_is_a_notice_and_no_failure() {
    let stranger = Signer::from_seed("example.org/audit", [8; 32]).unwrap();
    let other_key = Checkpoint::new(ORIGIN, 30, Hash([1; 32]), 8).unwrap().sign(&stranger);

    let report = contradicted(|note| {
        let forged = note(ORIGIN, 30, 30, 8).replace("\n30\n", "\n31\n");
        vec![
            "garbage".to_owned(),
            note(ORIGIN, 20, 20, 5),
            note(ORIGIN, 20, 20, 5),
            note("example.org/audit/1", 30, 30, 8),
            other_key.clone(),
            forged,
            note(ORIGIN, 50, 50, 13),
            note(ORIGIN, 20, 20, 5),
        ]
    });

    assert!(report.is_sound(), "{:?}", report.findings);
    assert_eq!((report.sound_to, report.checkpoints), (50, 2));
    insta::assert_snapshot!(
        lines(&report.notices),
        @"
        checkpoint 1: is none of this log's: the checkpoint's note is refused: the note is not a text, a blank line and signature lines, each ended by a newline
        checkpoint 3: repeats the one of size 20
        checkpoint 4: is of log `example.org/audit/1`
        checkpoint 5: is none of this log's: the checkpoint's note is refused: no signature is by a known key
        checkpoint 6: is none of this log's: the checkpoint's note is refused: the signature of `example.org/audit` does not verify
        checkpoint 8: repeats the one of size 20
        "
    );
}

#[test]
fn a_log_of_which_no_checkpoint_is_the_keys_is_a_failure() {
    let report = contradicted(|note| vec![note("example.org/audit/1", 50, 50, 13)]);

    assert!(report.findings.contains(&Finding::NothingSigned { notes: 1, leaves: 50 }));
}

#[test]
fn the_number_of_notices_is_bounded_and_the_rest_counted() {
    let mut log = sound_log(50, &[50]);
    log.checkpoints.extend((0..200).map(|number| format!("garbage {number}")));

    let report = check(&log, false);

    assert!(report.is_sound());
    assert_eq!((report.notices.len(), report.notices_omitted), (NOTICES_MAX, 136));
}
