//! A partition's owner without a broker: the real one, with streams and objects in memory, and a
//! clock that goes as fast as the owner decides.
//!
//! What is real: decisions, frames, snapshots, segments, and when each is due. What is a model: the
//! streams are queues, a purge takes from their front, and every append is stored at once. The
//! leaves of the audit log are placeholders.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fermata_audit::{Hash, Tree};
use fermata_core::command::{Command, EventCommand, EventReference, StartRun, Verdict};
use fermata_core::digest::Digest;
use fermata_core::effect::{Attempt, Effect, Outcome};
use fermata_core::identity::{PartitionId, SourcePosition, Tenant};
use fermata_core::json::Json;
use fermata_core::partition::{Limits, Report};
use fermata_core::plan::Executable;
use fermata_core::run::AttemptReport;
use fermata_partition::auditor::AuditMark;
use fermata_partition::message::{AppendOutcome, Message, Now};
use fermata_partition::owner::{Input, Output, Owner, OwnerConfig, SaltSource};
use fermata_partition::snapshot::{FrozenFold, SnapshotPolicy};
use fermata_wire::commands::CommandFrameBuilder;
use fermata_wire::journal::Salt;
use miette::{IntoDiagnostic as _, miette};
use uuid::Uuid;

/// The partition.
pub const ONLY: PartitionId = PartitionId(0);

/// When the first event comes, milliseconds since 1970.
pub const BEGIN_MS: u64 = 1_700_000_000_000;

const NS_PER_MS: i64 = 1_000_000;

/// Events of one message of commands: as many as the builder puts together under load.
const EVENTS_PER_FRAME: u64 = 200;

struct FixedSalts;

impl SaltSource for FixedSalts {
    fn salt(&mut self) -> Salt {
        [9; 16]
    }
}

/// What the owner asks of the world and gets no answer to from itself.
#[derive(Debug)]
pub enum Asked {
    /// An attempt is to be made.
    Attempt(Attempt),
    /// A snapshot is to be stored.
    Snapshot(Box<FrozenFold>),
}

/// An owner, its journal and its commands.
pub struct DrivenOwner {
    owner: Owner,
    workflow: (Digest, Arc<Executable>),
    /// What its journal holds.
    pub journal: VecDeque<Message>,
    journal_last: u64,
    /// Sequences and sizes of what its COMMANDS hold.
    pub commands: VecDeque<(u64, u64)>,
    commands_last: u64,
    events: u64,
    now: Now,
    tree: Tree,
    /// The longest time that one input took.
    pub longest: Duration,
}

impl DrivenOwner {
    /// An owner that has taken a new partition over and starts `workflow` for each event.
    pub fn start(workflow: Executable, snapshots: SnapshotPolicy) -> miette::Result<Self> {
        let (digest, _) = fermata_wire::plan::encode(workflow.plan()).into_diagnostic()?;
        let mut outputs = Vec::new();
        let config = OwnerConfig {
            partition: ONLY,
            limits: Limits::default(),
            worker: "bench".into(),
            incarnation: Uuid::from_u128(7),
            salts: Box::new(FixedSalts),
            live: HashSet::new(),
            set_aside: std::collections::HashMap::new(),
            signed_records: 0,
            snapshot: None,
            snapshots,
        };
        let owner = Owner::new(config, &mut outputs);
        let mut driven = Self {
            owner,
            workflow: (digest, Arc::new(workflow)),
            journal: VecDeque::new(),
            journal_last: 0,
            commands: VecDeque::new(),
            commands_last: 0,
            events: 0,
            now: Now { wall_ms: BEGIN_MS, monotonic_ms: 0 },
            tree: Tree::new(),
            longest: Duration::ZERO,
        };
        let asked = driven.settle(outputs)?;
        driven.handle(Input::LeaseUntil(u64::MAX), asked)?;
        Ok(driven)
    }

    /// The owner.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// The plan that its runs have.
    pub fn workflow(&self) -> (Digest, Arc<Executable>) {
        self.workflow.clone()
    }

    /// Bytes that its streams hold: journal, and commands.
    pub fn stream_bytes(&self) -> (u64, u64) {
        let journal = self.journal.iter().map(|message| message.payload.len() as u64).sum();
        (journal, self.commands.iter().map(|(_, bytes)| bytes).sum())
    }

    /// Its clocks.
    pub fn now(&self) -> Now {
        self.now
    }

    /// Milliseconds since it began.
    pub fn passed_ms(&self) -> u64 {
        self.now.monotonic_ms
    }

    /// Lets time pass, and takes `events` events then.
    pub fn step(&mut self, later_ms: u64, events: u64) -> miette::Result<Vec<Asked>> {
        self.now.wall_ms += later_ms;
        self.now.monotonic_ms += later_ms;
        let mut asked = self.handle(Input::BrokerTime(self.broker_time_ns()), Vec::new())?;
        let mut left = events;
        while left > 0 {
            let count = left.min(EVENTS_PER_FRAME);
            let message = self.commands_of(count)?;
            asked = self.handle(Input::Commands(message), asked)?;
            left -= count;
        }
        self.handle(Input::Tick, asked)
    }

    /// Answers attempts: each has succeeded.
    pub fn succeed(&mut self, attempts: Vec<Attempt>) -> miette::Result<Vec<Asked>> {
        let report = |attempt: Attempt| {
            Report::Attempt(AttemptReport {
                run: attempt.run,
                node: attempt.node,
                activation: attempt.activation,
                attempt: attempt.attempt,
                tenant: Some(attempt.tenant),
                outcome: Outcome::Succeeded { output: Json::null() },
            })
        };
        let mut outputs = Vec::new();
        let begun = Instant::now();
        self.owner.handle_reports(attempts.into_iter().map(report), self.now, &mut outputs);
        self.took(begun.elapsed());
        self.settle(outputs)
    }

    /// Takes one input, and answers what the owner asks of its streams.
    pub fn handle(&mut self, input: Input, mut asked: Vec<Asked>) -> miette::Result<Vec<Asked>> {
        let outputs = self.told(input);
        asked.extend(self.settle(outputs)?);
        Ok(asked)
    }

    /// What vouches for a snapshot that ends before record `next_index`.
    pub fn mark(&mut self, next_index: u64) -> AuditMark {
        let new = next_index.saturating_sub(self.tree.size());
        self.tree.extend((0..new).map(|_| Hash([7; 32])));
        let last_leaf = (next_index > 0).then_some(Hash([7; 32]));
        let journal_sequence = self.journal_last;
        AuditMark { tree: self.tree.clone(), last_leaf, journal_sequence, note: "none".to_owned() }
    }

    fn told(&mut self, input: Input) -> Vec<Output> {
        let mut outputs = Vec::new();
        let begun = Instant::now();
        self.owner.handle(input, self.now, &mut outputs);
        self.took(begun.elapsed());
        outputs
    }

    fn took(&mut self, time: Duration) {
        self.longest = self.longest.max(time);
    }

    fn broker_time_ns(&self) -> i64 {
        i64::try_from(self.now.wall_ms).unwrap_or(i64::MAX / NS_PER_MS) * NS_PER_MS
    }

    fn settle(&mut self, outputs: Vec<Output>) -> miette::Result<Vec<Asked>> {
        let mut asked = Vec::new();
        let mut waiting = VecDeque::from(outputs);
        while let Some(output) = waiting.pop_front() {
            let input = match output {
                Output::Append(send) | Output::AppendLater(send) => {
                    self.journal_last += 1;
                    let (sequence, broker_time_ns) = (self.journal_last, self.broker_time_ns());
                    let (writer, payload) = (Some(send.writer), send.payload);
                    self.journal.push_back(Message { sequence, broker_time_ns, writer, payload });
                    Input::Appended(AppendOutcome::Stored { sequence })
                }
                Output::Replay { .. } => Input::JournalEnd { last_sequence: self.journal_last },
                Output::ReadTime { .. } => Input::BrokerTime(self.broker_time_ns()),
                Output::FetchPlan(digest) => {
                    let known = digest == self.workflow.0;
                    Input::Plan(digest, known.then(|| self.workflow.1.clone()))
                }
                Output::Consume { .. } => Input::CommandsEnd { last_sequence: self.commands_last },
                Output::Effect(Effect::Start(attempt)) => {
                    asked.push(Asked::Attempt(attempt));
                    continue;
                }
                Output::Snapshot(frozen) => {
                    asked.push(Asked::Snapshot(frozen));
                    continue;
                }
                Output::Effect(_) | Output::Committed { .. } => continue,
                other @ (Output::ReadJournal { .. }
                | Output::ConsumeAgain { .. }
                | Output::StandDown(_)
                | Output::Halt(_)
                | Output::Relay(_)
                | Output::RelayLater(_)) => {
                    return Err(miette!("the owner does what it has no reason for: {other:?}"));
                }
            };
            waiting.extend(self.told(input));
        }
        Ok(asked)
    }

    fn commands_of(&mut self, count: u64) -> miette::Result<Message> {
        let mut builder = CommandFrameBuilder::default();
        // All that came before is decided: what is told of it is one number.
        let floor = self.events;
        for _ in 0..count {
            self.events += 1;
            builder.push(&self.event(self.events)?).into_diagnostic()?;
        }
        let payload = Bytes::from(builder.finish(floor).into_diagnostic()?);
        self.commands_last += 1;
        self.commands.push_back((self.commands_last, payload.len() as u64));
        let (sequence, broker_time_ns) = (self.commands_last, self.broker_time_ns());
        Ok(Message { sequence, broker_time_ns, writer: None, payload })
    }

    fn event(&self, number: u64) -> miette::Result<Command> {
        let tenant: Tenant = format!("tenant-{}", number % 20).parse().into_diagnostic()?;
        let id = format!("{number:032x}");
        let event = EventReference {
            tenant,
            id: id.as_str().into(),
            source: "/bench/source".into(),
            kind: "bench.run".into(),
            traceparent: None,
            hops: 0,
            breach: None,
            replayed: None,
        };
        let run = StartRun {
            strategy: "three-noops".into(),
            strategy_version: 1,
            plan: self.workflow.0,
            input: Json::null(),
        };
        let Digest(digest) = Digest::of(id.as_bytes());
        let key = digest.iter().take(16).fold(0, |key, byte| (key << 8) | u128::from(*byte));
        Ok(Command::Event(EventCommand {
            event,
            key,
            source: SourcePosition { sequence: number, index: 0 },
            replay: None,
            verdict: Verdict::Start { runs: vec![run] },
            correlation: None,
        }))
    }
}
