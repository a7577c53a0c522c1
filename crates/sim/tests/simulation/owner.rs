//! One owner by itself, over a journal that stores what it is sent.

#[cfg(test)]
mod turns;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use fermata_core::command::{Command, EventCommand, EventReference, StartRun, Verdict};
use fermata_core::digest::Digest;
use fermata_core::effect::{Attempt, Effect, Outcome};
use fermata_core::identity::{JournalTime, PartitionId, SourcePosition};
use fermata_core::json::Json;
use fermata_core::partition::{Limits, Report};
use fermata_core::plan::{
    Executable, FailureClass, Join, PLAN_VERSION, Plan, PlanNode, RetryPolicy, Work,
};
use fermata_core::record::Kind;
use fermata_core::run::AttemptReport;
use fermata_partition::append::Send;
use fermata_partition::clock::AHEAD_MS_MAX;
use fermata_partition::message::{AppendOutcome, Message, Now};
use fermata_partition::owner::{
    Cause, HaltReason, Input, Output, Owner, OwnerConfig, PLAN_AGAIN_MS, PLAN_ASKED_MAX,
    SaltSource, StandDown, Undecidable,
};
use fermata_partition::snapshot::{FrozenFold, SnapshotPolicy};
use fermata_wire::commands::CommandFrame;
use fermata_wire::journal::JournalFrame;
use uuid::Uuid;

const START_MS: u64 = 1_800_000_000_000;
const DEADLINE_MS: u64 = 10_000;
const RETRY_MS: u64 = 1_000;

/// Salts of a program that may have a fault: then each record makes it panic.
#[derive(Clone, Default)]
struct Zeros(Arc<AtomicBool>);

impl SaltSource for Zeros {
    fn salt(&mut self) -> [u8; 16] {
        if self.0.load(Ordering::Relaxed) {
            std::panic::resume_unwind(Box::new("a fault of the program"));
        }
        [0; 16]
    }
}

/// A plan of one call that may be made again after a pause of up to [`RETRY_MS`].
fn plan() -> (Digest, Arc<Executable>) {
    let node = PlanNode {
        id: "call".into(),
        predecessors: Vec::new(),
        successors: Vec::new(),
        join: Join::All,
        when: None,
        work: Work::Noop,
        timeout_ms: 1_000,
        queue: None,
        retry: RetryPolicy {
            max_attempts: 3,
            initial_ms: RETRY_MS,
            factor_permille: 1_000,
            max_ms: RETRY_MS,
            on: FailureClass::ALL.to_vec(),
        },
    };
    let plan = Plan {
        version: PLAN_VERSION,
        workflow: "test".into(),
        workflow_version: "1".into(),
        nodes: vec![node],
        run_timeout_ms: DEADLINE_MS,
        input_schema: None,
    };
    let (digest, _) = fermata_wire::plan::encode(&plan).unwrap();
    (digest, Arc::new(Executable::new(plan).unwrap()))
}

fn event(sequence: u64, index: u32, kind: &str, verdict: Verdict) -> Command {
    let event = EventReference {
        tenant: "acme".parse().unwrap(),
        id: format!("{sequence}-{index}").into(),
        source: "test".into(),
        kind: kind.into(),
        traceparent: None,
        hops: 0,
        breach: None,
        replayed: None,
    };
    let key = u128::from(sequence) << 32 | u128::from(index);
    let source = SourcePosition { sequence, index };
    let (replay, correlation) = (None, None);
    Command::Event(EventCommand { event, key, source, replay, verdict, correlation })
}

fn start(sequence: u64, index: u32) -> Command {
    let run = StartRun {
        strategy: "test".into(),
        strategy_version: 1,
        plan: plan().0,
        input: Json::null(),
    };
    event(sequence, index, "started", Verdict::Start { runs: vec![run] })
}

/// An owner, the journal it appends to, and what it has released.
struct Bench {
    owner: Owner,
    outputs: Vec<Output>,
    journal: Vec<Message>,
    /// The append that has no answer yet.
    in_flight: Option<Send>,
    effects: Vec<Effect>,
    frozen: Vec<FrozenFold>,
    faulty: Zeros,
    halted: Option<HaltReason>,
    stood_down: Option<StandDown>,
    plans_asked: u32,
    commands: u64,
    now_ms: u64,
    /// How far the wall clock is ahead of the broker's.
    skew_ms: u64,
}

impl Bench {
    fn taking_over(journal: Vec<Message>, limits: Limits) -> Self {
        Self::knowing(journal, limits, HashMap::new())
    }

    /// An owner that takes over and is told what others could not decide.
    fn knowing(
        journal: Vec<Message>,
        limits: Limits,
        set_aside: HashMap<Undecidable, Cause>,
    ) -> Self {
        let faulty = Zeros::default();
        let config = OwnerConfig {
            partition: PartitionId(0),
            limits,
            worker: "test".into(),
            incarnation: Uuid::from_u128(journal.len() as u128 + 1),
            salts: Box::new(faulty.clone()),
            live: HashSet::new(),
            set_aside,
            signed_records: 0,
            snapshot: None,
            snapshots: SnapshotPolicy::default(),
        };
        let mut outputs = Vec::new();
        let owner = Owner::new(config, &mut outputs);
        let mut bench = Self {
            owner,
            outputs,
            journal,
            in_flight: None,
            effects: Vec::new(),
            faulty,
            halted: None,
            frozen: Vec::new(),
            stood_down: None,
            plans_asked: 0,
            commands: 0,
            now_ms: 0,
            skew_ms: 0,
        };
        bench.tell(Input::LeaseUntil(u64::MAX));
        bench
    }

    /// An owner of an empty partition that has stored its takeover.
    fn owning(limits: Limits) -> Self {
        let mut bench = Self::taking_over(Vec::new(), limits);
        bench.settle();
        assert!(bench.owner.is_owning());
        bench
    }

    fn now(&self) -> Now {
        let wall_ms = START_MS + self.now_ms + self.skew_ms;
        Now { wall_ms, monotonic_ms: 1_000_000 + self.now_ms }
    }

    fn tell(&mut self, input: Input) {
        let now = self.now();
        self.owner.handle(input, now, &mut self.outputs);
        self.perform();
    }

    fn perform(&mut self) {
        for output in std::mem::take(&mut self.outputs) {
            match output {
                Output::Append(send) => self.in_flight = Some(send),
                Output::Replay { from } => {
                    let skipped = usize::try_from(from - 1).unwrap();
                    for message in self.journal.clone().into_iter().skip(skipped) {
                        self.tell(Input::Journal(message));
                    }
                    self.tell(Input::JournalEnd { last_sequence: self.journal.len() as u64 });
                }
                Output::FetchPlan(_) => self.plans_asked += 1,
                Output::Consume { .. } => self.tell(Input::CommandsEnd { last_sequence: 0 }),
                Output::Effect(effect) => self.effects.push(effect),
                Output::ReadTime { .. } => {
                    self.tell(Input::BrokerTime(broker_time_ns(self.now_ms)));
                }
                Output::Committed { .. } => {}
                Output::Snapshot(frozen) => self.frozen.push(*frozen),
                Output::Halt(reason) => self.halted = Some(reason),
                Output::StandDown(reason) => self.stood_down = Some(reason),
                other @ (Output::AppendLater(_)
                | Output::ReadJournal { .. }
                | Output::ConsumeAgain { .. }
                | Output::Relay(_)
                | Output::RelayLater(_)) => panic!("{other:?}"),
            }
        }
    }

    /// Stores the append in flight; returns the kinds of its records.
    fn store(&mut self) -> Vec<Kind> {
        let Some(Send { expected_last_sequence, writer, payload }) = self.in_flight.take() else {
            return Vec::new();
        };
        assert_eq!(expected_last_sequence, self.journal.len() as u64);
        let kinds = kinds(&payload);
        let sequence = expected_last_sequence + 1;
        let (writer, broker_time_ns) = (Some(writer), broker_time_ns(self.now_ms));
        self.journal.push(Message { sequence, broker_time_ns, writer, payload });
        self.tell(Input::Appended(AppendOutcome::Stored { sequence }));
        kinds
    }

    fn settle(&mut self) -> Vec<Kind> {
        let mut kinds = Vec::new();
        while self.in_flight.is_some() {
            kinds.extend(self.store());
        }
        kinds
    }

    fn command(&mut self, commands: Vec<Command>) {
        self.commands += 1;
        let payload = CommandFrame { floor: 0, commands }.encode().unwrap().into();
        let (sequence, broker_time_ns) = (self.commands, broker_time_ns(self.now_ms));
        let message = Message { sequence, broker_time_ns, writer: None, payload };
        self.tell(Input::Commands(message));
        if self.plans_asked > 0 {
            self.plans_asked = 0;
            let (digest, plan) = plan();
            self.tell(Input::Plan(digest, Some(plan)));
        }
    }

    /// The attempts that were started since this was asked last.
    fn started(&mut self) -> Vec<Attempt> {
        let effects = std::mem::take(&mut self.effects).into_iter();
        let started = effects.filter_map(|effect| match effect {
            Effect::Start(attempt) => Some(attempt),
            Effect::Abort(_)
            | Effect::HandleCase(_)
            | Effect::FileDead(_)
            | Effect::Ended(_)
            | Effect::Project
            | Effect::Reply { .. }
            | Effect::ReplayCase(_)
            | Effect::Enqueue(_)
            | Effect::Recall(_)
            | Effect::FileEvent(_)
            | Effect::Matched(_) => None,
        });
        started.collect()
    }

    fn fails(&mut self, attempt: &Attempt) {
        self.tell(Input::Report(failure(attempt)));
    }

    /// Starts so many runs, whose first attempts all fail at the same time.
    fn with_outcomes(&mut self, runs: u32) {
        for sequence in 1..=runs.div_ceil(100) {
            self.command((0..100).map(|index| start(sequence.into(), index)).collect());
            self.settle();
        }
        let started = self.started();
        assert!(started.len() >= runs as usize);
        let now = self.now();
        let reports = started.iter().map(failure).collect::<Vec<_>>();
        self.owner.handle_reports(reports, now, &mut self.outputs);
        self.perform();
    }
}

fn failure(attempt: &Attempt) -> Report {
    let detail = "failed".to_owned();
    Report::Attempt(AttemptReport {
        run: attempt.run,
        node: attempt.node.clone(),
        activation: attempt.activation,
        attempt: attempt.attempt,
        tenant: Some(attempt.tenant.clone()),
        outcome: Outcome::Failed { class: FailureClass::Http5xx, detail },
    })
}

fn broker_time_ns(now_ms: u64) -> i64 {
    i64::try_from(START_MS + now_ms).unwrap() * 1_000_000
}

fn kinds(payload: &Bytes) -> Vec<Kind> {
    let frame = JournalFrame::decode(payload).unwrap();
    frame.records.iter().map(|record| record.header().unwrap().kind).collect()
}

#[test]
fn a_retry_that_cannot_be_made_wakes_nobody() {
    let mut bench = Bench::owning(Limits { attempts_open_max: 1, ..Limits::default() });
    bench.command(vec![start(1, 0), start(1, 1)]);
    bench.settle();
    let first = bench.started();
    assert_eq!(first.len(), 1);

    // Its failure makes room for the other run, and none for its own retry.
    bench.fails(&first[0]);
    bench.settle();
    assert_eq!(bench.owner.partition().running(), 1);
    assert_eq!(bench.owner.wakes_in_ms(bench.now()), Some(DEADLINE_MS));
    bench.now_ms += RETRY_MS;
    bench.tell(Input::Tick);
    assert_eq!(bench.settle(), []);

    let second = bench.started();
    bench.fails(&second[0]);
    bench.settle();
    assert_eq!(bench.started().first().map(|attempt| attempt.attempt), Some(2));
}

#[test]
fn a_wall_clock_that_is_ahead_wakes_nobody_early() {
    let mut bench = Bench::owning(Limits::default());
    bench.command(vec![start(1, 0)]);
    bench.settle();

    bench.skew_ms = 3_600_000;
    let wakes_in_ms = bench.owner.wakes_in_ms(bench.now()).unwrap();
    assert_eq!(wakes_in_ms, DEADLINE_MS - AHEAD_MS_MAX);
    bench.now_ms += wakes_in_ms;
    bench.tell(Input::Tick);

    assert_eq!(bench.settle(), [Kind::RunClosing]);
    assert_eq!(bench.owner.partition().time(), JournalTime(START_MS + DEADLINE_MS));
}

#[test]
fn a_takeover_tells_people_again_as_frames_have_room() {
    let limits = Limits { decision_records_max: 4, ..Limits::default() };
    let mut before = Bench::owning(Limits::default());
    let unmatched = |index| {
        let verdict = Verdict::Unmatched { near: Vec::new() };
        event(1, index, &format!("kind-{index}"), verdict)
    };
    before.command((0..30).map(unmatched).collect());
    before.settle();

    let mut bench = Bench::taking_over(before.journal, limits);
    let mut told = 0;
    while bench.in_flight.is_some() {
        let kinds = bench.store();
        assert!(kinds.len() <= 4, "{} records in a frame", kinds.len());
        told += kinds.iter().filter(|kind| **kind == Kind::CaseNotifying).count();
    }

    assert_eq!(told, 30);
    let notices = bench.effects.iter().filter(|effect| matches!(effect, Effect::HandleCase(_)));
    assert_eq!(notices.count(), 30);
}

#[test]
fn a_plan_that_is_not_found_is_asked_for_again_before_the_partition_halts() {
    let mut before = Bench::owning(Limits::default());
    before.command(vec![start(1, 0)]);
    before.settle();
    let digest = plan().0;

    let mut bench = Bench::taking_over(before.journal, Limits::default());
    for asked in 1..=PLAN_ASKED_MAX {
        assert_eq!(bench.plans_asked, asked);
        assert!(!bench.owner.wants_journal(), "while the plan is fetched");
        assert!(bench.halted.is_none());
        bench.tell(Input::Plan(digest, None));
        bench.tell(Input::Tick);
        assert_eq!(bench.plans_asked, asked, "not at once");
        bench.now_ms += PLAN_AGAIN_MS;
        bench.tell(Input::Tick);
    }

    assert!(matches!(bench.halted, Some(HaltReason::PlanMissing(missing)) if missing == digest));
}

#[test]
fn a_plan_that_is_found_at_last_lets_the_replay_go_on() {
    let mut before = Bench::owning(Limits::default());
    before.command(vec![start(1, 0)]);
    before.settle();
    let (digest, executable) = plan();

    let mut bench = Bench::taking_over(before.journal, Limits::default());
    bench.tell(Input::Plan(digest, None));
    bench.now_ms += PLAN_AGAIN_MS;
    bench.tell(Input::Tick);
    bench.tell(Input::Plan(digest, Some(executable)));
    bench.settle();

    assert!(bench.owner.is_owning());
    assert_eq!(bench.started().first().map(|attempt| attempt.attempt), Some(2));
}

#[test]
fn a_run_that_cannot_be_decided_about_is_quarantined_by_the_next_owner() {
    let mut bench = Bench::owning(Limits::default());
    bench.command(vec![start(1, 0), start(1, 1)]);
    bench.settle();
    let started = bench.started();

    bench.faulty.0.store(true, Ordering::Relaxed);
    bench.fails(&started[0]);
    let Some(StandDown::Undecidable { what, cause }) = bench.stood_down else {
        panic!("{:?}", bench.stood_down)
    };
    assert_eq!(what, Undecidable::Run(started[0].run));
    let carried = bench.owner.take_uncommitted_reports();
    assert_eq!(carried.len(), 1);

    let set_aside = HashMap::from([(what, cause)]);
    let mut next = Bench::knowing(bench.journal, Limits::default(), set_aside);
    let (digest, executable) = plan();
    next.tell(Input::Plan(digest, Some(executable)));
    carried.into_iter().for_each(|report| next.tell(Input::Report(report)));
    let records = next.settle();

    let quarantined = records.iter().filter(|kind| **kind == Kind::RunQuarantined).count();
    assert_eq!(quarantined, 1, "{records:?}");
    assert!(!records.contains(&Kind::NodeRetrying), "{records:?}");
    assert!(next.owner.partition().run(started[0].run).is_none());
    assert!(next.owner.partition().run(started[1].run).is_some(), "the other one goes on");
}
