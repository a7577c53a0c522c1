//! Messages of our own, as anybody may forge them.

use fermata_core::plan::Executable;
use fermata_wire::audit::AuditFrame;
use fermata_wire::commands::CommandFrame;
use fermata_wire::dead::DeadLetter;
use fermata_wire::journal::{FrameBuilder, JournalFrame};
use fermata_wire::{Envelope, MessageKind, plan};

/// A journal frame: what can be opened is the same when it is sealed again.
///
/// # Panics
///
/// When a law is broken.
pub fn frame(bytes: &[u8]) {
    let Ok(frame) = JournalFrame::decode(bytes) else { return };
    let mut builder = FrameBuilder::default();
    let mut opened = Vec::new();
    for sealed in &frame.records {
        let Ok((header, record)) = sealed.open() else { return };
        builder
            .push(&record, header.index, header.time, *sealed.salt)
            .expect("what was read can be written");
        opened.push(record);
    }
    // Written with all its names it may be longer than it came.
    let Ok(written) = builder.finish(&frame.head, frame.first_record_index) else { return };
    let again = JournalFrame::decode(&written).expect("what was written can be read");
    assert_eq!(again.head, frame.head);
    let again: Vec<_> = again
        .records
        .iter()
        .map(|sealed| sealed.open().expect("what was written can be opened").1)
        .collect();
    assert_eq!(again, opened);
}

/// An envelope of any kind with what belongs into it.
///
/// The first byte picks the kind.
///
/// # Panics
///
/// When a law is broken.
pub fn envelope(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    match choice % 5 {
        0 => {
            if let Ok(frame) = CommandFrame::decode(bytes)
                && let Ok(written) = frame.encode()
            {
                assert_eq!(CommandFrame::decode(&written).expect("readable"), frame);
            }
        }
        1 => {
            if let Ok(letter) = DeadLetter::decode(bytes)
                && let Ok(written) = letter.encode()
            {
                assert_eq!(DeadLetter::decode(&written).expect("readable"), letter);
            }
        }
        2 => {
            if let Ok(frame) = AuditFrame::decode(bytes)
                && let Ok(written) = frame.encode()
            {
                assert_eq!(AuditFrame::decode(&written).expect("readable"), frame);
            }
        }
        3 => {
            if let Ok(found) = plan::decode(bytes)
                && let Ok(sound) = Executable::new(found.clone())
            {
                assert_eq!(sound.into_plan(), found);
            }
        }
        _ => {
            for kind in [MessageKind::Admitted, MessageKind::Matched, MessageKind::Definitions] {
                if let Ok(envelope) = Envelope::decode(kind, bytes) {
                    assert!(envelope.body.len() <= bytes.len());
                }
            }
        }
    }
}
