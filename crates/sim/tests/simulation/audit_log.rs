//! What an auditor does with a stored log that is not the one it signed.

use bytes::Bytes;
use fermata_audit::{Checkpoint, Signer};
use fermata_core::identity::{JournalTime, StreamPosition};
use fermata_core::record::{ForeignSkipped, Record};
use fermata_partition::auditor::{
    AuditHalt, Auditor, AuditorConfig, BACKLOG_BYTES_MAX, Input, Output,
};
use fermata_partition::message::{AppendOutcome, Message, Now};
use fermata_wire::journal::{FrameBuilder, FrameHead};
use uuid::Uuid;

const NOW: Now = Now { wall_ms: 1_000, monotonic_ms: 10_000 };

fn signer() -> Signer {
    Signer::from_seed("test", [1; 32]).unwrap()
}

fn frame(number: u64) -> Bytes {
    let time = JournalTime(1_000);
    let mut builder = FrameBuilder::default();
    let record = Record::of_partition(ForeignSkipped { sequence: number }.into());
    builder.push(&record, number, time, [2; 16]).unwrap();
    let head = FrameHead {
        epoch: 1,
        incarnation: Uuid::nil(),
        number,
        time,
        position: StreamPosition::default(),
        floor: 0,
    };
    builder.finish(&head, number).unwrap().into()
}

/// Lets an auditor derive `frames` records, continue `stored`, and say what it wants.
fn audited(
    frames: u64,
    stored: &mut Vec<Message>,
    checkpoint: Option<Checkpoint>,
) -> Result<Option<Checkpoint>, AuditHalt> {
    let writer = format!("auditor-{}", stored.len());
    let origin = "test/0".to_owned();
    let backlog_bytes_max = BACKLOG_BYTES_MAX;
    let signer = signer();
    let behind = None;
    let config = AuditorConfig { origin, signer, writer, checkpoint, backlog_bytes_max, behind };
    let verifiers = [config.signer.verifier()];
    let mut auditor = Auditor::new(config);
    let mut outputs = Vec::new();
    for number in 0..frames {
        let (sequence, frame) = (number + 1, Some(frame(number)));
        auditor.handle(Input::Journal { sequence, frame }, NOW, &mut outputs);
    }
    auditor.handle(Input::Live, NOW, &mut outputs);
    let mut signed = None;
    while !outputs.is_empty() {
        match outputs.remove(0) {
            Output::ReadStored { .. } => {
                for message in stored.clone() {
                    auditor.handle(Input::Stored(message), NOW, &mut outputs);
                }
                let read_to = stored.len() as u64;
                let end = Input::StoredEnd { read_to, last_sequence: read_to };
                auditor.handle(end, NOW, &mut outputs);
            }
            Output::Append(send) => {
                assert_eq!(send.expected_last_sequence, stored.len() as u64);
                let sequence = send.expected_last_sequence + 1;
                let (writer, payload) = (Some(send.writer), send.payload);
                stored.push(Message { sequence, broker_time_ns: 0, writer, payload });
                let outcome = AppendOutcome::Stored { sequence };
                auditor.handle(Input::Appended(outcome), NOW, &mut outputs);
            }
            Output::Checkpoint { note, .. } => {
                signed = Some(Checkpoint::open(note.as_bytes(), &verifiers).unwrap());
            }
            Output::Halt(reason) => return Err(reason),
            Output::Feed { .. } => {}
            other @ (Output::AppendLater(_)
            | Output::ReadAudit { .. }
            | Output::ReadJournal { .. }
            | Output::StandDown { .. }
            | Output::Marked(_)) => {
                panic!("{other:?}")
            }
        }
    }
    Ok(signed)
}

/// A log of two messages with two and three entries, and its checkpoint.
fn log() -> (Vec<Message>, Checkpoint) {
    let mut stored = Vec::new();
    let first = audited(2, &mut stored, None).unwrap().unwrap();
    let second = audited(5, &mut stored, Some(first)).unwrap().unwrap();
    assert_eq!((stored.len(), second.size()), (2, 5));
    (stored, second)
}

#[test]
fn an_auditor_that_starts_again_continues_its_log() {
    let (mut stored, checkpoint) = log();

    let signed = audited(7, &mut stored, Some(checkpoint)).unwrap();

    assert_eq!(signed.map(|checkpoint| checkpoint.size()), Some(7));
    assert_eq!(stored.len(), 3);
}

#[test]
fn a_log_that_ends_before_its_checkpoint_halts() {
    for kept in [0, 1] {
        let (mut stored, checkpoint) = log();
        stored.truncate(kept);

        let found = audited(7, &mut stored, Some(checkpoint));

        assert_eq!(found, Err(AuditHalt::BehindCheckpoint { signed: 5 }), "{kept} kept");
    }
}

#[test]
fn a_log_that_was_cut_and_continued_halts() {
    let (mut stored, checkpoint) = log();
    stored.truncate(1);
    audited(3, &mut stored, None).unwrap();

    let found = audited(7, &mut stored, Some(checkpoint));

    assert_eq!(found, Err(AuditHalt::BehindCheckpoint { signed: 5 }));
}

#[test]
fn entries_behind_the_checkpoint_are_taken_over() {
    let (mut stored, _) = log();

    let signed = audited(5, &mut stored, None).unwrap();

    assert_eq!(signed.map(|checkpoint| checkpoint.size()), Some(5));
    assert_eq!(stored.len(), 2, "nothing is stored twice");
}

#[test]
fn a_journal_shorter_than_its_checkpoint_halts() {
    let (mut stored, checkpoint) = log();

    let found = audited(4, &mut stored, Some(checkpoint));

    assert_eq!(found, Err(AuditHalt::JournalBehindCheckpoint { signed: 5, found: 4 }));
}
