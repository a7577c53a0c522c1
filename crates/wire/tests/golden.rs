//! The bytes of every message and of every record, version by version.
//!
//! A file under `golden/` never changes once it is there: stored bytes are read
//! for ever. A new layout is a new version with files of its own beside them.
//! `UPDATE=1` writes files that are missing and leaves the others as they are.

#![expect(clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

mod fixtures;
#[path = "fixtures/plans.rs"]
mod plans;
#[path = "fixtures/tasks.rs"]
mod tasks;

use std::path::PathBuf;
use std::sync::Arc;

use fermata_core::command::Replayed;
use fermata_core::identity::PartitionId;
use fermata_core::record::{Body, Kind, Queued, Record};
use fermata_wire::audit::{AuditFrame, AuditFrameBuilder, Entries, Entry};
use fermata_wire::commands::{CommandFrame, CommandFrameBuilder};
use fermata_wire::dead::DeadLetter;
use fermata_wire::journal::{FrameBuilder, JournalFrame};
use fermata_wire::projection::{Projected, Projection};
use fermata_wire::relay::RelayFrame;
use fermata_wire::segment::{ArchivedMessage, Segment};
use fermata_wire::stages::{AdmittedFrame, MatchedFrame, StageFrame};
use fermata_wire::tasks::TaskMessage;
use fermata_wire::{MessageKind, envelope, plan};

use fixtures::{FIRST_INDEX, HEAD, SALT};

const BYTES_PER_LINE: usize = 32;

/// The golden bytes of `name`; `encoded` is held against them.
fn golden(name: &str, encoded: &[u8]) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/v1")
        .join(format!("{name}.hex"));
    if !path.exists() && std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, to_hex(encoded)).expect("a written file");
    }
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!("`{}`: {error}; `UPDATE=1` writes what is missing", path.display())
    });
    let golden = from_hex(&text);
    assert_eq!(to_hex(encoded), to_hex(&golden), "{name} is written with other bytes than before");
    golden
}

fn to_hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    bytes.chunks(BYTES_PER_LINE).map(|chunk| line(chunk) + "\n").collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits = text.split_whitespace().collect::<String>();
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| {
            let pair = std::str::from_utf8(pair).expect("ASCII");
            u8::from_str_radix(pair, 16).expect("hexadecimal digits")
        })
        .collect()
}

fn frame_of(records: &[Record]) -> Vec<u8> {
    let mut builder = FrameBuilder::default();
    for (index, record) in (FIRST_INDEX..).zip(records) {
        builder.push(record, index, HEAD.time, SALT).expect("an encodable record");
    }
    builder.finish(&HEAD, FIRST_INDEX).expect("a frame")
}

#[test]
fn every_record_kind_keeps_its_bytes() {
    for kind in Kind::ALL {
        let record = fixtures::record(*kind);
        assert_eq!(record.body.kind(), *kind);
        keeps_its_bytes(&format!("record.{}", kind.as_str()), &record);
    }
}

#[test]
fn every_record_of_a_replay_keeps_its_bytes() {
    for (kind, record) in records_of_replays() {
        keeps_its_bytes(&format!("record.{}.replay", kind.as_str()), &record);
    }
}

#[test]
fn records_that_say_who_asked_for_a_replay_keep_their_bytes() {
    let (by, reason) = (Some("ann".into()), Some("a typo".into()));
    let said = Replayed { by, reason, unless_started: false };
    for kind in [Kind::EventStarted, Kind::RunStarted] {
        let mut record = fixtures::record(kind);
        if let Body::EventStarted(body) = &mut record.body {
            body.event.replayed = Some(Arc::new(said.clone()));
        } else if let Body::RunStarted(body) = &mut record.body {
            body.event.replayed = Some(Arc::new(said.clone()));
        }
        keeps_its_bytes(&format!("record.{}.replayed", kind.as_str()), &record);
    }
    let said = Replayed { unless_started: true, ..Replayed::default() };
    let mut record = fixtures::record(Kind::EventStarted);
    if let Body::EventStarted(body) = &mut record.body {
        body.event.replayed = Some(Arc::new(said));
    }
    keeps_its_bytes("record.event.started.replayed_unless_started", &record);
}

/// Records that name the replay which they answer.
fn records_of_replays() -> Vec<(Kind, Record)> {
    let of_replay = |kind: &Kind| {
        let mut record = fixtures::record(*kind);
        let replay = if let Body::EventIgnored(body) = &mut record.body {
            &mut body.replay
        } else if let Body::EventUnmatched(body) = &mut record.body {
            &mut body.replay
        } else if let Body::EventRejected(body) = &mut record.body {
            &mut body.replay
        } else if let Body::EventRepeated(body) = &mut record.body {
            &mut body.replay
        } else {
            return None;
        };
        *replay = Some(fixtures::ID);
        Some((*kind, record))
    };
    Kind::ALL.iter().filter_map(of_replay).collect()
}

fn keeps_its_bytes(name: &str, record: &Record) {
    let bytes = golden(name, &frame_of(std::slice::from_ref(record)));

    let frame = JournalFrame::decode(&bytes).expect("a frame");
    let (header, decoded) = frame.records.first().expect("one").open().expect("a record");
    assert_eq!(header, record.header(FIRST_INDEX, HEAD.time));
    assert_eq!(decoded, *record);
}

#[test]
fn a_journal_frame_keeps_its_bytes() {
    let records = [fixtures::record(Kind::RunStarted), fixtures::record(Kind::NodeDispatched)];

    let bytes = golden("journal", &frame_of(&records));
    let empty = golden("journal.empty", &frame_of(&[]));

    let frame = JournalFrame::decode(&bytes).expect("a frame");
    assert_eq!((frame.head, frame.first_record_index), (HEAD, FIRST_INDEX));
    assert_eq!(frame.records.len(), 2);
    assert!(frame.records.iter().all(|record| *record.salt == SALT));
    assert_eq!(JournalFrame::decode(&empty).expect("a frame").records, []);
}

#[test]
fn a_command_frame_keeps_its_bytes_however_it_is_built() {
    for (name, frame) in [
        ("commands", fixtures::commands()),
        ("commands.younger", fixtures::younger_commands()),
        ("commands.complete", fixtures::completing_commands()),
        ("commands.resolve", fixtures::resolving_commands()),
        ("commands.orphan", fixtures::repairing_commands()),
        ("commands.correlated", fixtures::correlated_commands()),
    ] {
        let bytes = golden(name, &frame.encode().expect("a frame"));

        assert_eq!(CommandFrame::decode(&bytes).expect("a frame"), frame);
        let mut builder = CommandFrameBuilder::default();
        frame.commands.iter().for_each(|command| builder.push(command).expect("a command"));
        assert_eq!(builder.finish(frame.floor).expect("a frame"), bytes);
    }
}

#[test]
fn frames_between_stages_keep_their_bytes() {
    let (admitted, matched) = (fixtures::admitted(), fixtures::matched());

    let admitted_bytes = golden("admitted", &admitted.encode().expect("a frame"));
    let matched_bytes = golden("matched", &matched.encode().expect("a frame"));

    assert_eq!(AdmittedFrame::decode(&admitted_bytes).expect("a frame"), admitted);
    assert_eq!(MatchedFrame::decode(&matched_bytes).expect("a frame"), matched);
}

#[test]
fn frames_between_stages_keep_their_bytes_with_correlation_keys() {
    let (admitted, matched) = fixtures::correlated();

    let admitted_bytes = golden("admitted.correlated", &admitted.encode().expect("a frame"));
    let matched_bytes = golden("matched.correlated", &matched.encode().expect("a frame"));

    assert_eq!(AdmittedFrame::decode(&admitted_bytes).expect("a frame"), admitted);
    assert_eq!(MatchedFrame::decode(&matched_bytes).expect("a frame"), matched);
}

#[test]
fn a_frame_between_partitions_keeps_its_bytes() {
    let relay = fixtures::relay();

    let bytes = golden("relay", &relay.encode().expect("a frame"));

    let decoded = RelayFrame::decode(&bytes).expect("a frame");
    assert_eq!(decoded, relay);
    assert!(decoded.commands().iter().all(|relayed| relayed.command.is_some()));
}

#[test]
fn an_audit_frame_keeps_its_bytes_however_it_is_built() {
    let (header, commitment, leaf) = (b"header".as_slice(), [0xc0; 32], [0x1e; 32]);
    let entry = |index| Entry { index, header, commitment: &commitment, leaf: &leaf };
    let frame = AuditFrame { journal_sequence: 12, entries: vec![entry(300), entry(301)] };

    let bytes = golden("audit", &frame.encode().expect("a frame"));

    assert_eq!(AuditFrame::decode(&bytes).expect("a frame"), frame);
    let mut entries = Entries::with_capacity(300, 2, 12);
    (0..2).for_each(|_| entries.push(header, &commitment, &leaf).expect("an entry"));
    let mut builder = AuditFrameBuilder::default();
    builder.push(&entries, 0..2);
    assert_eq!(builder.finish(12).expect("a frame"), bytes);
}

#[test]
fn plans_definitions_and_dead_letters_keep_their_bytes() {
    let (digest, encoded) = plan::encode(&fixtures::plan()).expect("a plan");
    let plan_bytes = golden("plan", &encoded);
    let definitions = fixtures::definitions();
    let projection = Projection::of(&definitions).expect("definitions");
    let definitions_bytes = golden("definitions", &projection.message);
    let dead = fixtures::dead();
    let dead_bytes = golden("dead", &dead.encode().expect("a dead letter"));

    assert_eq!(plan::decode(&plan_bytes).expect("a plan"), fixtures::plan());
    assert_eq!(digest, fermata_core::digest::Digest::of(&plan_bytes));
    let decoded: fermata_core::partition::Definitions =
        envelope::decode_message(MessageKind::Definitions, &definitions_bytes)
            .expect("definitions");
    assert_eq!(decoded, definitions);
    let mut many = fixtures::definitions();
    let entry = many.strategies.values().next().expect("a strategy").clone();
    for at in 0..20_000 {
        let name: std::sync::Arc<str> = format!("many-{at:05}").into();
        let entry = fermata_core::command::StrategyEntry { name: name.clone(), ..entry.clone() };
        many.strategies.insert(name, entry);
    }
    let projection = Projection::of(&many).expect("many definitions");
    let pointer = golden("definitions_stored", &projection.message);
    let (stored, object) = projection.object.expect("an object");
    assert_eq!(Projected::decode(&pointer).expect("a pointer"), Projected::Stored(stored.clone()));
    assert_eq!(stored.open(&object).expect("many definitions"), many);
    assert_eq!(DeadLetter::decode(&dead_bytes).expect("a dead letter"), dead);
    let traced = DeadLetter {
        headers: vec![("Content-Type".to_owned(), "application/json".to_owned())],
        attempts: Some(5),
        trace: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        ..dead
    };
    let traced_bytes = golden("dead_traced", &traced.encode().expect("a dead letter"));
    assert_eq!(DeadLetter::decode(&traced_bytes).expect("a dead letter"), traced);
}

#[test]
fn a_run_that_an_event_of_a_run_started_keeps_its_bytes() {
    let mut record = fixtures::record(Kind::RunStarted);
    if let Body::RunStarted(started) = &mut record.body {
        started.event.hops = 3;
    }

    keeps_its_bytes("record.run.started.hops", &record);
}

#[test]
fn plans_of_every_kind_of_node_keep_their_bytes() {
    for (name, expected) in plans::younger_plans() {
        let (_, encoded) = plan::encode(&expected).expect("a plan");
        let bytes = golden(name, &encoded);

        assert_eq!(plan::decode(&bytes).expect("a plan"), expected);
    }
}

#[test]
fn a_segment_of_an_archive_keeps_its_bytes() {
    let frame =
        frame_of(&[fixtures::record(Kind::RunStarted), fixtures::record(Kind::RunSucceeded)]);
    let message = |sequence, writer, payload| ArchivedMessage {
        sequence,
        broker_time_ns: 1_800_000_000_123_456_789,
        writer,
        payload: serde_bytes::Bytes::new(payload),
    };
    let expected = Segment {
        partition: PartitionId(3),
        first_record_index: FIRST_INDEX,
        next_record_index: FIRST_INDEX + 2,
        messages: vec![
            message(41, Some("0191d3a0.7.0"), frame.as_slice()),
            message(42, None, b"nobody of ours wrote this"),
        ],
    };

    let bytes = golden("segment", &expected.encode().expect("a segment"));

    assert_eq!(Segment::decode(&bytes).expect("a segment"), expected);
}

#[test]
fn tasks_of_queues_keep_their_bytes() {
    for (name, queued) in tasks::all() {
        let message = TaskMessage::new(&queued);
        let bytes = golden(name, &message.encode().expect("a message"));

        let decoded = TaskMessage::decode(&bytes).expect("a message");
        assert_eq!((decoded.due, decoded.idempotent), (queued.due, queued.idempotent));
        assert_eq!(decoded.into_attempt(), queued.attempt);
    }
}

#[test]
fn an_attempt_for_a_queue_keeps_its_bytes() {
    let mut record = fixtures::record(Kind::NodeDispatched);
    if let Body::NodeDispatched(dispatched) = &mut record.body {
        let due = fermata_core::identity::JournalTime(1_700_000_030_000);
        dispatched.queued = Some(Queued { queue: "gpu".into(), due });
    }

    keeps_its_bytes("record.node.dispatched.queued", &record);
}
