//! A journal that an earlier program wrote, and the state that it had then: whoever reads it later
//! comes to the same. And what is written by a newer program is never taken for something else.
//!
//! The files below `golden/history-v1` never change once they are there. `UPDATE=1` writes them
//! where there are none: what today's program decides about a small life of a partition.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use fermata_audit::{Hash, Tree};
use fermata_core::command::{
    CancelCommand, Command, EventCommand, EventReference, StartRun, Verdict,
};
use fermata_core::digest::Digest;
use fermata_core::effect::Outcome;
use fermata_core::identity::{
    JournalTime, PartitionId, RunId, SourcePosition, StreamPosition, Tenant,
};
use fermata_core::json::Json;
use fermata_core::partition::{Decision, Limits, Partition, Report};
use fermata_core::plan::{
    Executable, FailureClass, Join, PLAN_VERSION, Plan, PlanNode, RetryPolicy, Work,
};
use fermata_core::record::{Kind, PartitionOwned, Record};
use fermata_core::relay::{
    RelayCommand, Relayed, Signal, SignalData, SignalEvent, Subscribe, Waiter,
};
use fermata_core::run::AttemptReport;
use fermata_partition::auditor::AuditMark;
use fermata_partition::fold::{Decoded, FoldError, JournalFold, decode};
use fermata_partition::message::Message;
use fermata_partition::snapshot::SnapshotFile;
use fermata_wire::WireError;
use fermata_wire::journal::{FrameBuilder, FrameHead, JournalFrame};
use fermata_wire::segment::{ArchivedMessage, Segment};
use uuid::Uuid;

const PARTITION: PartitionId = PartitionId(3);
const START_MS: u64 = 1_800_000_000_000;
const BYTES_PER_LINE: usize = 32;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/history-v1").join(name)
}

fn write(name: &str, bytes: &[u8]) {
    let line = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let hex = bytes.chunks(BYTES_PER_LINE).map(|chunk| line(chunk) + "\n").collect::<String>();
    std::fs::create_dir_all(path("")).unwrap();
    std::fs::write(path(name), hex).unwrap();
}

fn read(name: &str) -> Vec<u8> {
    let path = path(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!("`{}`: {error}; `UPDATE=1` writes what is missing", path.display())
    });
    let digits = text.split_whitespace().collect::<String>();
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn tenant() -> Tenant {
    "acme".parse().unwrap()
}

fn node(id: &str, predecessors: Vec<u32>, successors: Vec<u32>, work: Work) -> PlanNode {
    PlanNode {
        id: id.into(),
        predecessors,
        successors,
        join: Join::All,
        when: None,
        work,
        timeout_ms: 60_000,
        queue: None,
        retry: RetryPolicy {
            max_attempts: 3,
            initial_ms: 1_000,
            factor_permille: 1_000,
            max_ms: 1_000,
            on: vec![FailureClass::Connect],
        },
    }
}

fn executable(nodes: Vec<PlanNode>) -> (Vec<u8>, Digest, Arc<Executable>) {
    let plan = Plan {
        version: PLAN_VERSION,
        workflow: "test".into(),
        workflow_version: "1".into(),
        nodes,
        run_timeout_ms: 3_600_000,
        input_schema: None,
    };
    let (digest, bytes) = fermata_wire::plan::encode(&plan).unwrap();
    (bytes, digest, Arc::new(Executable::new(plan).unwrap()))
}

/// Two tasks, the second after the first.
fn in_a_row() -> (Vec<u8>, Digest, Arc<Executable>) {
    executable(vec![
        node("first", vec![], vec![1], Work::Noop),
        node("second", vec![0], vec![], Work::Noop),
    ])
}

/// One that waits for an event.
fn waiting() -> (Vec<u8>, Digest, Arc<Executable>) {
    let work = Work::Wait { event: "order.*".to_owned(), correlation: "'o-42'".to_owned() };
    executable(vec![node("first", vec![], vec![], work)])
}

fn source(sequence: u64) -> SourcePosition {
    SourcePosition { sequence, index: 0 }
}

fn key(sequence: u64) -> u128 {
    u128::from(sequence) * 0x1_0001_0001_0001_0001_0001
}

fn reference(sequence: u64) -> EventReference {
    EventReference {
        tenant: tenant(),
        id: format!("e-{sequence}").into(),
        source: "test".into(),
        kind: "test".into(),
        traceparent: None,
        hops: 0,
        breach: None,
        replayed: None,
    }
}

fn event(sequence: u64, key: u128, verdict: Verdict) -> Command {
    let (event, source) = (reference(sequence), source(sequence));
    let (replay, correlation) = (None, None);
    Command::Event(EventCommand { event, key, source, replay, verdict, correlation })
}

fn start(sequence: u64, key: u128, plan: Digest) -> Command {
    let input = Json::from_text(r#"{"n":1}"#).unwrap();
    let run = StartRun { strategy: "test".into(), strategy_version: 1, plan, input };
    event(sequence, key, Verdict::Start { runs: vec![run] })
}

fn run_of(sequence: u64) -> RunId {
    RunId::new(PARTITION, &tenant(), key(sequence), source(sequence), "test", None)
}

fn report(sequence: u64, node: &str, outcome: Outcome) -> Report {
    Report::Attempt(AttemptReport {
        run: run_of(sequence),
        node: node.into(),
        activation: 1,
        attempt: 1,
        tenant: Some(tenant()),
        outcome,
    })
}

fn succeeded() -> Outcome {
    Outcome::Succeeded { output: Json::from_text("[1,2]").unwrap() }
}

fn failed() -> Outcome {
    Outcome::Failed { class: FailureClass::Connect, detail: "refused".to_owned() }
}

/// A partition that decides, and the journal of it.
struct Life {
    partition: Partition,
    messages: Vec<Message>,
    epoch: u64,
    number: u64,
    next_index: u64,
    time_ms: u64,
}

impl Life {
    fn new() -> Self {
        let mut partition = Partition::new(PARTITION, Limits::default());
        for (_, digest, plan) in [in_a_row(), waiting()] {
            partition.add_plan(digest, plan);
        }
        let (messages, time_ms) = (Vec::new(), START_MS);
        Self { partition, messages, epoch: 0, number: 0, next_index: 0, time_ms }
    }

    fn message(&mut self, writer: Option<String>, payload: Vec<u8>) {
        let sequence = self.messages.len() as u64 + 1;
        let broker_time_ns = i64::try_from(self.time_ms).unwrap() * 1_000_000 + 7;
        let payload = payload.into();
        self.messages.push(Message { sequence, broker_time_ns, writer, payload });
    }

    /// A frame of what is decided, so many milliseconds after the last.
    fn frame(&mut self, after_ms: u64, decide: impl FnOnce(&mut Partition, &mut Decision)) {
        self.time_ms += after_ms;
        let time = JournalTime(self.time_ms);
        self.partition.begin_frame(time);
        let position = StreamPosition { sequence: self.next_index, broker_time_ns: 17 };
        self.partition.advance(position, 0);
        let mut out = Decision::default();
        decide(&mut self.partition, &mut out);
        let mut builder = FrameBuilder::default();
        for (record, index) in out.records.iter().zip(self.next_index..) {
            builder.push(record, index, time, [9; 16]).unwrap();
        }
        let head = FrameHead {
            epoch: self.epoch,
            incarnation: Uuid::from_u128(u128::from(self.epoch)),
            number: self.number,
            time,
            position,
            floor: 0,
        };
        let frame = builder.finish(&head, self.next_index).unwrap();
        self.number += 1;
        self.next_index += out.records.len() as u64;
        self.message(Some(format!("writer.{}.{}", self.epoch, self.number)), frame);
    }

    fn take_over(&mut self, after_ms: u64) {
        self.epoch += 1;
        self.number = 0;
        let (epoch, incarnation) = (self.epoch, Uuid::from_u128(u128::from(self.epoch)));
        self.frame(after_ms, |partition, out| {
            let owned = PartitionOwned { epoch, worker: "w-1".into(), incarnation };
            let record = Record::of_partition(owned.into());
            partition.evolve(&record).unwrap();
            out.records.push(record);
        });
        self.frame(0, |partition, out| {
            partition.recover_partition(out);
            for lost in partition.outstanding() {
                partition.recover(&lost, out);
            }
        });
    }

    /// Something of most that happens to a data partition.
    fn lived() -> Self {
        let (row, wait) = (in_a_row().1, waiting().1);
        let mut life = Self::new();
        life.take_over(0);
        life.frame(5, |partition, out| {
            for sequence in 1..=5 {
                partition.decide(&start(sequence, key(sequence), row), out);
            }
            partition.decide(&event(6, key(6), Verdict::Unmatched { near: Vec::new() }), out);
            partition.decide(&start(7, key(1), row), out);
            partition.decide(&start(8, key(8), wait), out);
            partition.poison(9, Some(1), "malformed", "it cannot be read", out);
        });
        life.frame(7, |partition, out| {
            partition.report(&report(1, "first", failed()), out);
            partition.report(&report(2, "first", succeeded()), out);
            partition.report(&report(3, "first", succeeded()), out);
            let cancel = CancelCommand {
                id: Uuid::from_u128(77),
                run: run_of(4),
                by: "somebody".to_owned(),
                reason: "no longer wanted".to_owned(),
                reply_to: None,
            };
            partition.decide(&Command::Cancel(cancel), out);
        });
        life.message(None, b"nobody of ours wrote this".to_vec());
        life.take_over(300);
        life.frame(2_000, |partition, out| {
            partition.fire_timer(out);
            partition.report(&report(2, "second", succeeded()), out);
            partition.report(&report(4, "first", succeeded()), out);
        });
        life.frame(11, |partition, out| {
            let waiter = Waiter { run: run_of(8), node: "first".into(), activation: 1 };
            let key: Arc<str> = "o-42".into();
            let subscribe =
                Subscribe { tenant: tenant(), key: key.clone(), event: "order.*".into(), waiter };
            let signal = SignalEvent { reference: reference(10), data: SignalData::default() };
            let other = "o-43".into();
            let commands = [
                RelayCommand::Subscribe(subscribe),
                RelayCommand::Signal(Signal { key: other, event: signal, review: true }),
            ];
            for (command, index) in commands.into_iter().zip(1..) {
                let (source, previous) = (PartitionId(7), index - 1);
                let relayed = Relayed { source, index, previous, command: Some(command) };
                partition.decide_relayed(&relayed, (index, 0), out);
            }
        });
        life
    }
}

/// The files that there are for ever, made where they are missing.
fn history() -> (Vec<u8>, Vec<u8>, Vec<Vec<u8>>) {
    if !path("segment.hex").exists() && std::env::var_os("UPDATE").is_some() {
        let life = Life::lived();
        let messages = life.messages.iter().map(|message| ArchivedMessage {
            sequence: message.sequence,
            broker_time_ns: message.broker_time_ns,
            writer: message.writer.as_deref(),
            payload: (&*message.payload).into(),
        });
        let segment = Segment {
            partition: PARTITION,
            first_record_index: 0,
            next_record_index: life.next_index,
            messages: messages.collect(),
        };
        let plans = [in_a_row(), waiting()];
        let fold = folded(&life.messages, &plans.clone().map(|(bytes, ..)| bytes)).unwrap();
        // What was decided is what its journal folds to.
        assert!(fold.partition().is_like(&life.partition), "{}", fold.partition().summary());
        let size = fold.next_index();
        let mut tree = Tree::new();
        tree.extend((0..size).map(|_| Hash([7; 32])));
        let mark =
            AuditMark { tree, last_leaf: None, journal_sequence: 0, note: "a note".to_owned() };
        let snapshot = fold.freeze().encode(&mark, &[]).unwrap();
        write("segment.hex", &segment.encode().unwrap());
        write("snapshot.hex", &snapshot.bytes);
        for ((bytes, ..), number) in plans.iter().zip(1..) {
            write(&format!("plan-{number}.hex"), bytes);
        }
    }
    let plans = [1, 2].map(|number| read(&format!("plan-{number}.hex")));
    (read("segment.hex"), read("snapshot.hex"), plans.into())
}

fn messages(segment: &[u8]) -> Vec<Message> {
    let segment = Segment::decode(segment).unwrap();
    let owned = |message: &ArchivedMessage<'_>| Message {
        sequence: message.sequence,
        broker_time_ns: message.broker_time_ns,
        writer: message.writer.map(str::to_owned),
        payload: message.payload.to_vec().into(),
    };
    segment.messages.iter().map(owned).collect()
}

fn plans(bytes: &[Vec<u8>]) -> HashMap<Digest, Arc<Executable>> {
    let plan = |bytes: &Vec<u8>| {
        let plan = Executable::new(fermata_wire::plan::decode(bytes).unwrap()).unwrap();
        (Digest::of(bytes), Arc::new(plan))
    };
    bytes.iter().map(plan).collect()
}

fn folded(messages: &[Message], plan_bytes: &[Vec<u8>]) -> Result<JournalFold, FoldError> {
    let mut fold = JournalFold::new(PARTITION, Limits::default());
    for (digest, plan) in plans(plan_bytes) {
        fold.add_plan(digest, plan);
    }
    for message in messages {
        fold.fold(message.sequence, &decode(message)?)?;
    }
    Ok(fold)
}

fn kinds(messages: &[Message]) -> BTreeSet<&'static str> {
    let mut kinds = BTreeSet::new();
    for message in messages {
        if let Decoded::Frame(_, records) = decode(message).unwrap() {
            kinds.extend(records.iter().map(|(header, _)| header.kind.as_str()));
        }
    }
    kinds
}

#[test]
fn an_old_journal_folds_to_the_state_that_it_had() {
    let (segment, snapshot, plan_bytes) = history();
    let messages = messages(&segment);
    let snapshot = SnapshotFile::decode(PARTITION, &snapshot).unwrap();
    let snapshot = snapshot.with_hours(&BTreeMap::<_, Vec<u8>>::new()).unwrap();

    let fold = folded(&messages, &plan_bytes).unwrap();

    assert_eq!(
        (fold.last_sequence(), fold.next_index()),
        (snapshot.sequence(), snapshot.next_index())
    );
    let had = snapshot.restore(Limits::default(), plans(&plan_bytes)).unwrap();
    let (folded, had) = (fold.partition(), had.partition());
    assert!(folded.is_like(had), "\n  folded {}\n  had    {}", folded.summary(), had.summary());
    // It says something: runs that are open, that have ended, that wait; keys, cases, what is
    // between partitions.
    assert!(folded.open_runs() >= 4 && folded.cases().count() > 0, "{}", folded.summary());
    for kind in [
        Kind::RunSucceeded,
        Kind::RunCancelled,
        Kind::NodeRetrying,
        Kind::NodeWaiting,
        Kind::EventRepeated,
        Kind::CommandPoisoned,
        Kind::OutboxQueued,
        Kind::WaitSubscribed,
        Kind::SignalKept,
    ] {
        assert!(kinds(&messages).contains(kind.as_str()), "{kind:?}: {:?}", kinds(&messages));
    }
}

/// Folds a journal of which one message has other bytes; which message was at fault, and why.
fn refused(messages: &[Message], changed: &Message, plan_bytes: &[Vec<u8>]) -> (u64, WireError) {
    let is_it = |message: &Message| message.sequence == changed.sequence;
    let other = |message: &Message| if is_it(message) { changed.clone() } else { message.clone() };
    let messages = messages.iter().map(other).collect::<Vec<_>>();
    match folded(&messages, plan_bytes) {
        Err(FoldError::Undecodable { sequence, source }) => (sequence, source),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("message {} was folded", changed.sequence),
    }
}

/// The message with `from` replaced by as many bytes, where it first stands.
fn with(message: &Message, from: &[u8], to: &[u8]) -> Option<Message> {
    let at = message.payload.windows(from.len()).position(|window| window == from)?;
    let (before, rest) = message.payload.split_at(at);
    let (_, behind) = rest.split_at(from.len());
    Some(Message { payload: [before, to, behind].concat().into(), ..message.clone() })
}

#[test]
fn a_newer_frame_and_a_record_of_no_known_kind_stop_the_fold_and_are_named() {
    let (segment, _, plan_bytes) = history();
    let messages = messages(&segment);
    let ours = messages.iter().filter(|message| message.writer.is_some());

    let mut kinds_changed = 0;
    for message in ours {
        // A fixed number of one byte, behind its name.
        let newer = with(message, b"version\x01", b"version\x02").unwrap();
        let (sequence, why) = refused(&messages, &newer, &plan_bytes);
        assert_eq!(sequence, message.sequence);
        assert!(matches!(why, WireError::NewerVersion { version: 2, known: 1, .. }), "{why:?}");
        assert!(why.to_string().contains("upgrade it"), "{why}");

        let frame = JournalFrame::decode(&message.payload).unwrap();
        for record in &frame.records {
            let kind = record.header().unwrap().kind.as_str();
            let unknown = kind.to_uppercase();
            let changed = with(message, kind.as_bytes(), unknown.as_bytes()).unwrap();
            let (sequence, why) = refused(&messages, &changed, &plan_bytes);
            assert_eq!(sequence, message.sequence);
            let source = std::error::Error::source(&why).unwrap().to_string();
            assert!(matches!(why, WireError::Malformed { .. }), "{why:?}");
            assert!(source.contains(&unknown), "{source}");
            kinds_changed += 1;
        }
    }
    assert!(kinds_changed > 30, "{kinds_changed}");
    assert!(kinds(&messages).len() > 15, "{:?}", kinds(&messages));
}
