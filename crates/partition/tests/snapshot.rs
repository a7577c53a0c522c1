//! Snapshots: what they hold, how they are written for ever, and what taking
//! one costs. That a snapshot and what follows come to the same as everything is
//! held at every message of every simulated life, see `crates/sim`.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fermata_audit::{Hash, Tree};
use fermata_core::command::{Command, EventCommand, EventReference, StartRun, Verdict};
use fermata_core::digest::Digest;
use fermata_core::effect::{Effect, Outcome};
use fermata_core::identity::{
    JournalTime, PartitionId, RunId, SourcePosition, StreamPosition, Tenant,
};
use fermata_core::json::Json;
use fermata_core::partition::{Decision, Limits, Report};
use fermata_core::plan::{
    Executable, FailureClass, Join, PLAN_VERSION, Plan, PlanNode, RetryPolicy, Work,
};
use fermata_core::record::Kind;
use fermata_core::relay::{
    RelayCommand, Relayed, Signal, SignalData, SignalEvent, Subscribe, Waiter,
};
use fermata_core::run::AttemptReport;
use fermata_partition::auditor::AuditMark;
use fermata_partition::fold::JournalFold;
use fermata_partition::snapshot::{SNAPSHOT, Snapshot, SnapshotError, SnapshotFile};
use fermata_test_clock::processor_time;
use fermata_wire::sealed_file::FileError;
use proptest::prelude::*;

const PARTITION: PartitionId = PartitionId(3);
const START_MS: u64 = 1_800_000_000_000;

/// Spelt out, so that a new class makes no other plan and no other bytes.
const CLASSES: [FailureClass; 11] = [
    FailureClass::Timeout,
    FailureClass::Connect,
    FailureClass::Http3xx,
    FailureClass::Http4xx,
    FailureClass::Http5xx,
    FailureClass::ResponseTooLarge,
    FailureClass::ResponseNotJson,
    FailureClass::NotAllowed,
    FailureClass::Cancelled,
    FailureClass::Expression,
    FailureClass::Unknown,
];

fn tenant() -> Tenant {
    "acme".parse().unwrap()
}

/// Two calls, the second after the first; the first is tried again.
fn plan() -> (Digest, Arc<Executable>) {
    let node = |id: &str, predecessors: Vec<u32>, successors: Vec<u32>| PlanNode {
        id: id.into(),
        predecessors,
        successors,
        join: Join::All,
        when: None,
        work: Work::Noop,
        timeout_ms: 1_000,
        queue: None,
        retry: RetryPolicy {
            max_attempts: 3,
            initial_ms: 1_000,
            factor_permille: 1_000,
            max_ms: 1_000,
            on: CLASSES.to_vec(),
        },
    };
    let plan = Plan {
        version: PLAN_VERSION,
        workflow: "test".into(),
        workflow_version: "1".into(),
        nodes: vec![node("first", vec![], vec![1]), node("second", vec![0], vec![])],
        run_timeout_ms: 3_600_000,
        input_schema: None,
    };
    let (digest, _) = fermata_wire::plan::encode(&plan).unwrap();
    (digest, Arc::new(Executable::new(plan).unwrap()))
}

fn event(sequence: u64, verdict: Verdict) -> Command {
    let event = EventReference {
        tenant: tenant(),
        id: format!("e-{sequence}").into(),
        source: "test".into(),
        kind: "test".into(),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        hops: 0,
        breach: None,
        replayed: None,
    };
    let source = SourcePosition { sequence, index: 2 };
    let key = u128::from(sequence) * 0x1_0001_0001_0001_0001_0001;
    let (replay, correlation) = (None, None);
    Command::Event(EventCommand { event, key, source, replay, verdict, correlation })
}

fn start(sequence: u64) -> Command {
    let input = Json::from_text(r#"{"n":1}"#).unwrap();
    let (plan, _) = plan();
    let run = StartRun { strategy: "test".into(), strategy_version: 1, plan, input };
    event(sequence, Verdict::Start { runs: vec![run] })
}

fn fold() -> JournalFold {
    let mut fold = JournalFold::new(PARTITION, Limits::default());
    let (digest, executable) = plan();
    fold.add_plan(digest, executable);
    fold.partition_mut().begin_frame(JournalTime(START_MS));
    fold
}

/// A state with something of everything that a data partition has.
fn state() -> JournalFold {
    let mut fold = fold();
    let partition = fold.partition_mut();
    let mut out = Decision::default();
    for sequence in 1..=3 {
        partition.decide(&start(sequence), &mut out);
    }
    partition.decide(&event(4, Verdict::Unmatched { near: Vec::new() }), &mut out);
    partition.poison(5, Some(1), "malformed", "it cannot be read", &mut out);
    let report = |sequence: u64, outcome: Outcome| {
        let source = SourcePosition { sequence, index: 2 };
        let key = u128::from(sequence) * 0x1_0001_0001_0001_0001_0001;
        Report::Attempt(AttemptReport {
            run: RunId::new(PARTITION, &tenant(), key, source, "test", None),
            node: "first".into(),
            activation: 1,
            attempt: 1,
            tenant: Some(tenant()),
            outcome,
        })
    };
    let failed = Outcome::Failed { class: FailureClass::Connect, detail: "refused".to_owned() };
    partition.report(&report(1, failed), &mut out);
    let output = Json::from_text("[1,2]").unwrap();
    partition.report(&report(2, Outcome::Succeeded { output }), &mut out);
    partition.advance(StreamPosition { sequence: 9, broker_time_ns: 17 }, 1);
    assert!(partition.running() == 2 && partition.cases().count() == 1, "{}", partition.summary());
    fold
}

fn mark(size: u64) -> AuditMark {
    let mut tree = Tree::new();
    tree.extend((0..size).map(|_| Hash([7; 32])));
    let last_leaf = (size > 0).then_some(Hash([7; 32]));
    AuditMark { tree, last_leaf, journal_sequence: 4, note: "a note".to_owned() }
}

/// Reads a snapshot that names no hours.
fn decode(partition: PartitionId, bytes: &[u8]) -> Result<Snapshot, SnapshotError> {
    SnapshotFile::decode(partition, bytes)?.with_hours(&BTreeMap::<_, Vec<u8>>::new())
}

fn bytes() -> Vec<u8> {
    state().freeze().encode(&mark(0), &[]).unwrap().bytes
}

#[test]
fn a_snapshot_that_is_read_is_the_state_and_goes_on_like_it() {
    let mut fold = state();
    let read = decode(PARTITION, &bytes()).unwrap();
    assert_eq!(read.audit(), &mark(0));
    let (digest, executable) = plan();
    let plans = [(digest, executable)].into_iter().collect();

    let mut restored = read.restore(Limits::default(), plans).unwrap();

    assert_eq!(restored.partition().summary(), fold.partition().summary());
    let later = JournalTime(START_MS + 2_000);
    let decided = [&mut fold, &mut restored].map(|fold| {
        let mut out = Decision::default();
        fold.partition_mut().begin_frame(later);
        fold.partition_mut().fire_timer(&mut out);
        fold.partition_mut().decide(&start(3), &mut out);
        fold.partition_mut().decide(&start(8), &mut out);
        out
    });
    assert_eq!(decided[0], decided[1]);
    assert!(decided[0].records_decided() > 2, "{decided:?}");
}

/// A wait with its timer, what is queued for another partition, what is taken
/// from one, a subscription and a kept signal.
#[test]
fn what_waits_and_what_is_between_partitions_is_in_a_snapshot() {
    let wait = Work::Wait { event: "order.*".to_owned(), correlation: "'o-42'".to_owned() };
    let mut plan = plan().1.plan().clone();
    plan.nodes.truncate(1);
    plan.nodes[0].successors.clear();
    plan.nodes[0].work = wait;
    let (digest, _) = fermata_wire::plan::encode(&plan).unwrap();
    let executable = Arc::new(Executable::new(plan).unwrap());
    let mut fold = JournalFold::new(PARTITION, Limits::default());
    fold.add_plan(digest, executable.clone());
    let partition = fold.partition_mut();
    partition.begin_frame(JournalTime(START_MS));
    let mut out = Decision::default();
    let run = StartRun {
        strategy: "test".into(),
        strategy_version: 1,
        plan: digest,
        input: Json::from_text("{}").unwrap(),
    };
    partition.decide(&event(1, Verdict::Start { runs: vec![run] }), &mut out);
    let run = *partition.runs().next().unwrap().0;
    let waiter = Waiter { run, node: "first".into(), activation: 1 };
    let (key, pattern): (Arc<str>, Arc<str>) = ("o-42".into(), "order.*".into());
    let Command::Event(EventCommand { event: reference, .. }) =
        event(2, Verdict::Unmatched { near: Vec::new() })
    else {
        unreachable!()
    };
    let signal_event = SignalEvent { reference, data: SignalData::default() };
    let commands = [
        RelayCommand::Subscribe(Subscribe {
            tenant: tenant(),
            key: key.clone(),
            event: pattern,
            waiter,
        }),
        RelayCommand::Signal(Signal { key, event: signal_event, review: true }),
    ];
    for (command, index) in commands.into_iter().zip(1..) {
        let source = PartitionId(7);
        let relayed = Relayed { source, index, previous: index - 1, command: Some(command) };
        partition.decide_relayed(&relayed, (index, 0), &mut out);
    }
    assert!(!partition.outbox().is_empty() && partition.high_waters().of(PartitionId(7)) == 2);
    assert_eq!((partition.correlations().waits(), partition.correlations().kept()), (1, 1));
    let bytes = fold.freeze().encode(&mark(0), &[]).unwrap().bytes;

    let read = decode(PARTITION, &bytes).unwrap();
    let plans = [(digest, executable)].into_iter().collect();
    let mut restored = read.restore(Limits::default(), plans).unwrap();

    assert_eq!(restored.partition().summary(), fold.partition().summary());
    assert!(restored.partition().is_like(fold.partition()));
    let decided = [&mut fold, &mut restored].map(|fold| {
        let mut out = Decision::default();
        let partition = fold.partition_mut();
        partition.begin_frame(JournalTime(START_MS + 3_600_000));
        partition.fire_timer(&mut out);
        partition.expire_signal(&mut out);
        for effect in &mut out.effects {
            // Which strategy started a run is for instruments, and in no snapshot.
            if let Effect::Ended(ended) = effect {
                ended.strategy = None;
            }
        }
        out
    });
    assert_eq!(decided[0], decided[1]);
    let kinds: Vec<_> = decided[0].records.iter().map(|record| record.body.kind()).collect();
    assert!(kinds.contains(&Kind::NodeFailed), "{kinds:?}");
    assert!(kinds.contains(&Kind::SignalExpired), "{kinds:?}");
}

#[test]
fn a_snapshot_needs_the_plans_of_its_runs() {
    let read = decode(PARTITION, &bytes()).unwrap();
    assert_eq!(read.plans().into_iter().collect::<Vec<_>>(), [plan().0]);

    assert!(read.restore(Limits::default(), std::collections::HashMap::new()).is_err());
}

#[test]
fn what_a_decision_changes_after_a_copy_was_taken_is_not_in_the_copy() {
    let mut fold = state();
    let frozen = fold.freeze();
    let before = frozen.encode(&mark(0), &[]).unwrap().bytes;

    let mut out = Decision::default();
    fold.partition_mut().begin_frame(JournalTime(START_MS + 2_000));
    fold.partition_mut().fire_timer(&mut out);
    fold.partition_mut().decide(&start(8), &mut out);

    assert_eq!(frozen.encode(&mark(0), &[]).unwrap().bytes, before);
}

/// The bytes of version 1 are read and written for ever; `UPDATE=1` writes the
/// file where there is none.
#[test]
fn version_1_is_written_as_it_always_was() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/snapshot-v1.hex");
    let hex = |bytes: &[u8]| {
        let line = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        bytes.chunks(32).map(|chunk| line(chunk) + "\n").collect::<String>()
    };
    let written = hex(&bytes());
    if !path.exists() && std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &written).unwrap();
    }

    assert_eq!(written, std::fs::read_to_string(&path).unwrap());
}

#[test]
fn what_is_no_snapshot_is_told_apart() {
    let sound = bytes();
    let kind_of = |bytes: &[u8]| match decode(PARTITION, bytes) {
        Ok(_) => "read",
        Err(SnapshotError::File(FileError::Malformed { .. })) => "malformed",
        Err(SnapshotError::File(FileError::WrongKind { .. })) => "another kind",
        Err(SnapshotError::File(FileError::NewerVersion { version: 2, known: 1, .. })) => "newer",
        Err(SnapshotError::File(FileError::Damaged { .. })) => "damaged",
        Err(other) => panic!("{other:?}"),
    };
    let place = |what: &[u8]| sound.windows(what.len()).position(|at| at == what).unwrap();
    let version = place(b"version") + b"version".len();
    let with = |at: usize, byte: u8| {
        let mut bytes = sound.clone();
        bytes[at] = byte;
        bytes
    };

    assert_eq!(kind_of(&sound), "read");
    assert_eq!(kind_of(&sound[..sound.len() / 2]), "malformed");
    assert_eq!(kind_of(&[sound.as_slice(), &[0xc0]].concat()), "malformed");
    assert_eq!(kind_of(&with(version, 2)), "newer");
    assert_eq!(kind_of(&with(place(b"snapshot"), b'S')), "another kind");
    assert_eq!(kind_of(&with(sound.len() / 2, 0xff)), "damaged");
    let other = decode(PartitionId(4), &sound);
    assert!(matches!(other, Err(SnapshotError::OtherPartition { found: PARTITION })));
}

proptest! {
    #[test]
    fn no_bytes_make_reading_panic(noise in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(decode(PARTITION, &noise).is_err());
        let sealed = fermata_wire::sealed_file::seal(SNAPSHOT, |bytes| {
            bytes.extend(&noise);
            Ok(())
        });
        prop_assert!(decode(PARTITION, &sealed.unwrap()).is_err());
    }

    #[test]
    fn a_changed_or_cut_snapshot_is_never_read(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let mut bytes = bytes();
        let at = at.index(bytes.len());
        prop_assert!(decode(PARTITION, &bytes[..at]).is_err());
        bytes[at] ^= 1 << bit;
        prop_assert!(decode(PARTITION, &bytes).is_err());
    }
}

/// The owner waits for the copy, and then pays for what it shares with it: all that the longest
/// of these takes. What is beneath is copied once for each snapshot, when it is changed first.
#[test]
fn taking_a_copy_of_100_000_open_runs_is_no_pause() {
    const RUNS: u64 = 100_000;
    // What comes together in a few milliseconds.
    const COMMANDS_AT_ONCE: u64 = 128;
    let mut fold = fold();
    let mut out = Decision::default();
    for sequence in 1..=RUNS {
        fold.partition_mut().decide(&start(sequence), &mut out);
        out = Decision::default();
    }
    assert_eq!(fold.partition().runs().count() as u64, RUNS);
    // Positions above the floor are those of a second or two.
    fold.partition_mut().advance(StreamPosition::default(), RUNS - 20_000);

    let (mut longest, mut sequence) = (Duration::ZERO, RUNS);
    for _ in 0..5 {
        let begun = processor_time();
        let frozen = fold.freeze();
        let copied = processor_time() - begun;
        for _ in 0..COMMANDS_AT_ONCE {
            sequence += 1;
            fold.partition_mut().decide(&start(sequence), &mut out);
            out = Decision::default();
        }
        let took = processor_time() - begun;
        println!("copied in {copied:?}, with the commands behind it {took:?}");
        drop(frozen);
        longest = longest.max(took);
    }
    let frozen = fold.freeze();
    let begun = Instant::now();
    let bytes = frozen.encode(&mark(0), &[]).unwrap().bytes;
    println!("written in {:?}, {} bytes", begun.elapsed(), bytes.len());

    assert!(longest < Duration::from_millis(50), "{longest:?}");
}
