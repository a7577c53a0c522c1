//! Whatever bytes come: a decoder answers with a value or with an error that
//! says what is wrong, and never panics.

#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

mod fixtures;
#[path = "fixtures/tasks.rs"]
mod tasks;

use fermata_core::partition::Definitions;
use fermata_core::record::Kind;
use fermata_wire::audit::{AuditFrame, AuditFrameBuilder, Entries, Entry};
use fermata_wire::commands::CommandFrame;
use fermata_wire::dead::DeadLetter;
use fermata_wire::envelope::{DEPTH_MAX, decode_message};
use fermata_wire::journal::{FrameBuilder, JournalFrame};
use fermata_wire::projection::Projection;
use fermata_wire::relay::RelayFrame;
use fermata_wire::stages::{AdmittedFrame, MatchedFrame, StageFrame};
use fermata_wire::tasks::{TaskId, TaskMessage};
use fermata_wire::{ENVELOPE_BYTES_MAX, Envelope, MessageKind, WireError, plan};
use proptest::prelude::*;
use proptest::sample::Index;

const KINDS: [MessageKind; 10] = [
    MessageKind::Admitted,
    MessageKind::Matched,
    MessageKind::Commands,
    MessageKind::Journal,
    MessageKind::Audit,
    MessageKind::Plan,
    MessageKind::Definitions,
    MessageKind::Dead,
    MessageKind::Relay,
    MessageKind::Task,
];

/// Decodes all the way down to what actors work with.
fn decode(kind: MessageKind, bytes: &[u8]) -> Result<(), WireError> {
    match kind {
        MessageKind::Admitted => AdmittedFrame::decode(bytes).map(drop),
        MessageKind::Matched => MatchedFrame::decode(bytes).map(drop),
        MessageKind::Commands => CommandFrame::decode(bytes).map(drop),
        MessageKind::Journal => JournalFrame::decode(bytes)?
            .records
            .iter()
            .try_for_each(|record| record.open().map(drop)),
        MessageKind::Audit => AuditFrame::decode(bytes).map(drop),
        MessageKind::Plan => plan::decode(bytes).map(drop),
        MessageKind::Definitions => {
            decode_message::<Definitions>(MessageKind::Definitions, bytes).map(drop)
        }
        MessageKind::Dead => DeadLetter::decode(bytes).map(drop),
        MessageKind::Relay => RelayFrame::decode(bytes).map(|frame| drop(frame.commands())),
        MessageKind::Task => TaskMessage::decode(bytes).map(|task| drop(task.into_attempt())),
    }
}

fn sound(kind: MessageKind) -> Vec<u8> {
    match kind {
        MessageKind::Admitted => {
            let mut frame = fixtures::admitted();
            frame.events.extend(fixtures::correlated().0.events);
            frame.encode()
        }
        MessageKind::Matched => {
            let mut frame = fixtures::matched();
            frame.events.extend(fixtures::correlated().1.events);
            frame.encode()
        }
        MessageKind::Commands => {
            let mut frame = fixtures::commands();
            frame.commands.extend(fixtures::younger_commands().commands);
            frame.commands.extend(fixtures::completing_commands().commands);
            frame.commands.extend(fixtures::resolving_commands().commands);
            frame.commands.extend(fixtures::repairing_commands().commands);
            frame.commands.extend(fixtures::correlated_commands().commands);
            frame.encode()
        }
        MessageKind::Journal => {
            let mut builder = FrameBuilder::default();
            for (index, kind) in (fixtures::FIRST_INDEX..).zip(Kind::ALL) {
                let record = fixtures::record(*kind);
                builder
                    .push(&record, index, fixtures::HEAD.time, fixtures::SALT)
                    .expect("a record");
            }
            builder.finish(&fixtures::HEAD, fixtures::FIRST_INDEX)
        }
        MessageKind::Audit => {
            let entry = Entry { index: 7, header: b"h", commitment: &[1; 32], leaf: &[2; 32] };
            AuditFrame { journal_sequence: 3, entries: vec![entry] }.encode()
        }
        MessageKind::Plan => plan::encode(&fixtures::plan()).map(|(_, bytes)| bytes),
        MessageKind::Definitions => Projection::of(&fixtures::definitions()).map(|one| one.message),
        MessageKind::Dead => fixtures::dead().encode(),
        MessageKind::Relay => fixtures::relay().encode(),
        MessageKind::Task => TaskMessage::new(&tasks::all()[0].1).encode(),
    }
    .expect("an encodable message")
}

/// The body of a message; a plan is a body without an envelope.
fn body_of(kind: MessageKind) -> Vec<u8> {
    let bytes = sound(kind);
    if kind == MessageKind::Plan {
        return bytes;
    }
    Envelope::decode(kind, &bytes).expect("an envelope").body.to_vec()
}

fn wrap(kind: MessageKind, body: &[u8]) -> Vec<u8> {
    if kind == MessageKind::Plan {
        return body.to_vec();
    }
    Envelope::new(kind, Some(0), body).encode().expect("an envelope")
}

/// `map` with one more key and value at its end. A map of up to 15 pairs begins
/// with one byte that counts them.
fn with_pair(map: &[u8], key: &str, value: u8) -> Vec<u8> {
    let mut longer = map.to_vec();
    assert!((0x80..0x8f).contains(&longer[0]), "a small map");
    longer[0] += 1;
    longer.push(0xa0 | u8::try_from(key.len()).expect("a short key"));
    longer.extend_from_slice(key.as_bytes());
    longer.push(value);
    longer
}

/// A key that the body has already, with a value of its type.
fn key_of(kind: MessageKind) -> (&'static str, u8) {
    match kind {
        MessageKind::Admitted | MessageKind::Matched => ("events", 0x90),
        MessageKind::Commands => ("floor", 0),
        MessageKind::Journal => ("epoch", 0),
        MessageKind::Audit => ("journal_sequence", 0),
        MessageKind::Plan => ("version", 1),
        MessageKind::Definitions => ("revision", 0),
        MessageKind::Dead => ("id", 0xa0),
        MessageKind::Relay => ("source", 0),
        MessageKind::Task => ("activation", 1),
    }
}

fn malformed(kind: MessageKind, bytes: &[u8]) -> bool {
    matches!(decode(kind, bytes), Err(WireError::Malformed { .. }))
}

#[test]
fn a_sound_message_is_decoded() {
    for kind in KINDS {
        decode(kind, &sound(kind)).unwrap_or_else(|error| panic!("{}: {error}", kind.as_str()));
    }
}

#[test]
fn a_key_that_stands_twice_is_refused() {
    for kind in KINDS {
        let (key, value) = key_of(kind);
        let twice = with_pair(&body_of(kind), key, value);
        assert!(malformed(kind, &wrap(kind, &twice)), "{} in the body", kind.as_str());
        let twice = with_pair(&sound(kind), "version", 1);
        assert!(malformed(kind, &twice), "{} in the envelope", kind.as_str());
    }
}

#[test]
fn a_key_that_nobody_knows_is_refused() {
    for kind in KINDS {
        let unknown = with_pair(&body_of(kind), "unheard_of", 0xc0);
        assert!(malformed(kind, &wrap(kind, &unknown)), "{}", kind.as_str());
    }
}

#[test]
fn a_depth_bomb_is_refused_wherever_it_stands() {
    for levels in [DEPTH_MAX + 1, 100_000] {
        let bomb = [vec![0x91; levels], vec![0xc0]].concat();
        for kind in KINDS {
            assert!(malformed(kind, &bomb), "{}", kind.as_str());
            assert!(malformed(kind, &wrap(kind, &bomb)), "{} in the body", kind.as_str());
        }
    }
}

/// The head of a map or list that goes on, but not here.
#[test]
fn half_a_value_behind_the_end_is_refused() {
    for kind in KINDS {
        for more in [0x81, 0x91, 0xdc, 0xdf] {
            let longer = [sound(kind), vec![more]].concat();
            let refused = decode(kind, &longer);
            assert!(matches!(refused, Err(WireError::TrailingBytes { .. })), "{refused:?}");
        }
    }
}

#[test]
fn a_newer_version_is_told_from_garbage() {
    for kind in KINDS.into_iter().filter(|kind| *kind != MessageKind::Plan) {
        let newer = Envelope { version: kind.version() + 1, ..Envelope::new(kind, None, b"?") };

        let refused = decode(kind, &newer.encode().expect("an envelope"));

        assert!(matches!(refused, Err(WireError::NewerVersion { .. })), "{refused:?}");
    }
}

#[test]
fn another_kind_than_expected_is_named() {
    for kind in KINDS.into_iter().filter(|kind| *kind != MessageKind::Plan) {
        for other in KINDS.into_iter().filter(|other| *other != kind && *other != MessageKind::Plan)
        {
            let refused = decode(kind, &sound(other));
            assert!(matches!(refused, Err(WireError::WrongKind { .. })), "{refused:?}");
        }
    }
}

#[test]
fn what_is_larger_than_a_message_is_refused_unread() {
    let large = vec![0xc0; ENVELOPE_BYTES_MAX + 1];
    for kind in KINDS.into_iter().filter(|kind| *kind != MessageKind::Plan) {
        assert!(matches!(decode(kind, &large), Err(WireError::TooLarge { .. })));
    }
}

/// No file of past failures: their inputs become tests of their own.
fn without_files() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(without_files())]

    #[test]
    fn any_bytes_are_answered(kind in prop::sample::select(&KINDS), bytes: Vec<u8>) {
        let _ = decode(kind, &bytes);
        let _ = decode(kind, &wrap(kind, &bytes));
    }

    #[test]
    fn a_message_that_was_cut_is_refused(kind in prop::sample::select(&KINDS), at: Index) {
        let sound = sound(kind);
        prop_assert!(malformed(kind, &sound[..at.index(sound.len())]));
        let body = body_of(kind);
        prop_assert!(malformed(kind, &wrap(kind, &body[..at.index(body.len())])));
    }

    #[test]
    fn a_flipped_bit_is_answered(
        kind in prop::sample::select(&KINDS),
        at: Index,
        bit in 0..8_u8,
    ) {
        let mut bytes = sound(kind);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let _ = decode(kind, &bytes);
    }

    #[test]
    fn bytes_behind_the_end_are_refused(
        kind in prop::sample::select(&KINDS),
        more in prop::collection::vec(any::<u8>(), 1..20),
    ) {
        let longer = [sound(kind), more.clone()].concat();
        let refused = decode(kind, &longer);
        prop_assert!(matches!(refused, Err(WireError::TrailingBytes { .. })), "{:?}", refused);
        let longer = [body_of(kind), more].concat();
        let refused = decode(kind, &wrap(kind, &longer));
        prop_assert!(matches!(refused, Err(WireError::TrailingBytes { .. })), "{:?}", refused);
    }

    /// What was encoded before is what an encoder writes, from whatever pieces.
    #[test]
    fn a_frame_of_encoded_entries_is_the_frame_of_their_values(
        first_index in prop_oneof![0..300_u64, Just(u64::from(u32::MAX) - 1)],
        headers in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..20),
        cuts in prop::collection::vec(any::<Index>(), 0..4),
        bytes_max in 0..3_000_usize,
        journal_sequence: u64,
    ) {
        let mut entries = Entries::with_capacity(first_index, 0, 0);
        for (byte, header) in (0..).zip(&headers) {
            entries.push(header, &[byte; 32], &[byte + 100; 32])?;
        }
        let values: Vec<_> = (0..entries.len()).filter_map(|place| entries.get(place)).collect();
        let seen: Vec<_> = values.iter().map(|entry| (entry.index, entry.header.to_vec())).collect();
        let given: Vec<_> = (first_index..).zip(headers.iter().cloned()).collect();
        prop_assert_eq!(seen, given);
        let (commitment, leaf) = (values[0].commitment, values[0].leaf);
        prop_assert_eq!((commitment, leaf), (&[0; 32], &[100; 32]));

        let mut places: Vec<_> = cuts.iter().map(|cut| cut.index(headers.len())).collect();
        places.extend([0, headers.len()]);
        places.sort_unstable();
        let mut builder = AuditFrameBuilder::default();
        places.windows(2).for_each(|pair| builder.push(&entries, pair[0]..pair[1]));
        prop_assert_eq!(builder.bytes(), entries.bytes(0..headers.len()));
        let built = builder.finish(journal_sequence)?;
        prop_assert_eq!(built, AuditFrame { journal_sequence, entries: values }.encode()?);

        let from = cuts.first().map_or(0, |cut| cut.index(headers.len()));
        let end = entries.fitting(from, bytes_max);
        prop_assert!(end > from && end <= headers.len());
        prop_assert!(end == from + 1 || entries.bytes(from..end) <= bytes_max);
        prop_assert!(end == headers.len() || entries.bytes(from..end + 1) > bytes_max);
    }
}

#[test]
fn the_id_of_a_task_reads_back_and_nothing_else_does() {
    for (_, queued) in tasks::all() {
        let id = TaskId::of(&queued.attempt);

        assert_eq!(id.to_string().parse(), Ok(id.clone()));
        let text = id.to_string();
        for other in
            [format!("{text}/1"), text.replace('/', "."), format!("{text}x"), String::new()]
        {
            assert!(other.parse::<TaskId>().is_err(), "{other}");
        }
    }
}

#[test]
fn a_task_that_was_handed_back_is_known_by_its_message() {
    for (_, queued) in tasks::all() {
        let named = TaskId::of(&queued.attempt);
        for id in [named.clone(), TaskId { node: "back-1".into(), ..named }] {
            assert_eq!(TaskId::of_message(&id.to_string()), Some(id.clone()));
            assert_eq!(TaskId::of_message(&id.handed_back(7)), Some(id.clone()));
            assert_ne!(id.handed_back(7), id.handed_back(8));
            assert_eq!(TaskId::of_message(&format!("{id}/7")), None);
        }
    }
}
