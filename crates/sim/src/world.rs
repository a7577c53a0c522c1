//! The simulated world: one partition, its broker, its workers, and time.

mod auditing;
mod cutting;
mod effects;
mod owning;
mod publishing;
mod snapshots;
mod taking_back;
mod tasks;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use fermata_audit::{Signer, Verifier};
use fermata_core::digest::Digest;
use fermata_core::effect::Attempt;
use fermata_core::identity::PartitionId;
use fermata_core::plan::Executable;
use fermata_partition::fold::JournalFold;
use fermata_partition::message::AppendOutcome;
use fermata_partition::snapshot::SnapshotPolicy;

use crate::broker::{Broker, Publish, StreamName};
use crate::dice::Dice;
use crate::invariants::Invariants;
use crate::lease::Lease;
use crate::load::Load;
use crate::plans;
use crate::runner::Sink;
use crate::scenario::{Faults, Scenario};
use crate::trace::{Broken, Log, Trace, Violation};
use crate::worker::{SeatConfig, Work, Worker};

pub(crate) use taking_back::TaskName;

/// Where simulated time begins, milliseconds since 1970. Half a minute before
/// a full hour, so that minutes pass early in each life, and an hour is closed.
pub(crate) const EPOCH_MS: u64 = 1_800_003_570_000;

/// First line of the checkpoints.
pub(crate) const ORIGIN: &str = "fermata.simulation/0";

/// How long after faults have stopped everything must be complete, milliseconds.
const COMPLETION_MS_MAX: u64 = 600_000;

/// Steps after which a simulation that is not complete has failed.
const STEPS_MAX: u64 = 200_000;

/// Something that happens at a time.
#[derive(Debug)]
enum Happening {
    /// A publish arrives at the broker.
    Arrive {
        publish: Publish,
        reply: Option<Reply>,
    },
    /// Somebody learns what became of a publish.
    Answer(Reply, AppendOutcome),
    /// Something reaches a worker, unless it has crashed since.
    ToWorker {
        worker: usize,
        generation: u64,
        work: Work,
    },
    Wake {
        worker: usize,
        generation: u64,
    },
    Restart(usize),
    /// A receiver commits a call.
    Commit(Attempt),
    /// An item of the load is published, for the first time or again.
    Load(usize),
    /// Somebody writes what is not his to write.
    Intrude,
    Heal,
    /// A queue gives a task to a worker, unless it is done.
    Task(u64),
    /// A task is taken out of its queue.
    RemoveTask(u64),
    /// A power cut in which the journal loses its end.
    Cut,
    /// Somebody accepts that.
    Accept,
}

/// Who waits for the answer to a publish.
#[derive(Debug, Clone, Copy)]
enum Reply {
    Owner { worker: usize, generation: u64, seat: u64 },
    Auditor { worker: usize, generation: u64, auditor: u64 },
    Outcome { worker: usize, generation: u64, id: u64 },
    Checkpoint { worker: usize, generation: u64, seat: u64 },
    Load(usize),
    Relay { worker: usize, generation: u64, seat: u64, up_to: u64 },
}

pub(crate) struct World {
    seed: u64,
    faults: Faults,
    dice: Dice,
    now_ms: u64,
    steps: u64,
    outputs: u64,
    crashes: u64,
    crash_points: BTreeSet<u64>,
    limits: fermata_core::partition::Limits,
    snapshots: SnapshotPolicy,
    snapshots_stored: u64,
    begun_from_snapshots: u64,
    hours_stored: u64,
    hours_read: u64,
    agenda: BTreeMap<(u64, u64), Happening>,
    arrivals_pending: u64,
    last_id: u64,
    heal_at_ms: u64,
    healed: bool,
    broker: Broker,
    workers: Vec<Worker>,
    lease: Lease,
    load: Load,
    sink: Sink,
    plans: BTreeMap<Digest, Arc<Executable>>,
    signing_seed: [u8; 32],
    verifier: Verifier,
    invariants: Invariants,
    /// How likely a record makes its owner panic, for every owner there is.
    panics: Arc<AtomicU32>,
    /// The same before faults stopped.
    panics_drawn: u32,
    log: Log,
    tasks: tasks::Tasks,
    cut: Option<cutting::Cut>,
}

impl World {
    pub(crate) fn new(seed: u64, scenario: &Scenario) -> Result<Self, Broken> {
        let mut dice = Dice::new(seed);
        let faults = scenario.drawn(&mut dice);
        let limits = scenario.drawn_limits(&mut dice);
        let partition = PartitionId(0);
        let known = plans::all()?;
        let signing_seed = [7; 32];
        let verifier = signer_of(signing_seed)?.verifier();
        let fold = JournalFold::new(partition, limits);
        let digests = known.iter().map(|(digest, _)| *digest).collect();
        let mut world = Self {
            seed,
            faults,
            now_ms: 0,
            steps: 0,
            outputs: 0,
            crashes: 0,
            crash_points: scenario.crashes.iter().copied().collect(),
            limits,
            snapshots: snapshots::drawn_policy(scenario.swarm, &mut dice),
            snapshots_stored: 0,
            begun_from_snapshots: 0,
            hours_stored: 0,
            hours_read: 0,
            agenda: BTreeMap::new(),
            arrivals_pending: 0,
            last_id: 0,
            heal_at_ms: scenario.heal_at_ms,
            healed: false,
            broker: Broker::new(dice.chance(500)),
            workers: (0..scenario.workers.max(1)).map(|_| Worker::new(0, 0)).collect(),
            lease: Lease::default(),
            load: Load::new(partition, digests)?,
            sink: Sink::default(),
            invariants: Invariants::new(fold, &known, verifier.clone()),
            plans: known.into_iter().collect(),
            signing_seed,
            verifier,
            panics: Arc::new(AtomicU32::new(faults.panic)),
            panics_drawn: faults.panic,
            log: Log::new(scenario.verbose),
            tasks: tasks::Tasks::default(),
            cut: None,
            dice,
        };
        world.fill_agenda(scenario.events);
        world.plan_cut(scenario.cuts);
        Ok(world)
    }

    fn fill_agenda(&mut self, events: u64) {
        let items = self.load.draw(events, self.faults.garbage, &mut self.dice);
        for item in 0..items {
            let after = self.dice.below(self.heal_at_ms * 3 / 4);
            self.after(after, Happening::Load(item));
        }
        for worker in 0..self.workers.len() {
            let after = self.dice.below(2_000);
            self.reach_worker(worker, after, Work::LeaseTick);
        }
        if self.faults.foreign > 0 {
            self.after(1_000, Happening::Intrude);
        }
        self.after(self.heal_at_ms, Happening::Heal);
    }

    /// Runs until everything is complete.
    pub(crate) fn run(mut self) -> Result<Trace, Violation> {
        match self.run_to_completion() {
            Ok(()) => Ok(self.trace()),
            Err(Broken { invariant, detail }) => Err(Violation {
                seed: self.seed,
                step: self.steps,
                invariant,
                detail,
                lines: self.log.lines(),
            }),
        }
    }

    fn run_to_completion(&mut self) -> Result<(), Broken> {
        while let Some(((at_ms, _), happening)) = self.agenda.pop_first() {
            self.now_ms = at_ms;
            self.steps += 1;
            self.happen(happening)?;
            if self.is_cut_open() {
                continue;
            }
            if self.healed {
                let missing = match self.arrivals_pending == 0 && self.load.all_acknowledged() {
                    true => self.invariants.outstanding(&self.broker),
                    false => Some("some of the load is not acknowledged".to_owned()),
                };
                let Some(missing) = missing else {
                    return self.invariants.at_end(&self.broker);
                };
                if self.now_ms > self.whole_since_ms() + COMPLETION_MS_MAX || self.steps > STEPS_MAX
                {
                    return Err(Broken::new("invariant_everything_completes", missing));
                }
            }
        }
        Err(Broken::new("invariant_everything_completes", "nothing happens any more"))
    }

    fn trace(&self) -> Trace {
        Trace {
            seed: self.seed,
            steps: self.steps,
            outputs: self.outputs,
            simulated_ms: self.now_ms,
            hash: self.log.hash(),
            journal_messages: self.broker.stream(StreamName::Journal).last(),
            records: self.invariants.reference.leaves().len() as u64,
            epochs: self.invariants.reference.fold().partition().epoch(),
            crashes: self.crashes,
            attempts: self.invariants.attempts_started(),
            folds_compared: self.invariants.folds_compared,
            undecidable: self.invariants.undecidable(),
            snapshots_stored: self.snapshots_stored,
            begun_from_snapshots: self.begun_from_snapshots,
            hours_stored: self.hours_stored,
            hours_read: self.hours_read,
            tasks_delivered: self.tasks.delivered,
            tasks_redelivered: self.tasks.redelivered,
            tasks_taken_back: self.tasks.taken_back,
            losses_accepted: self.losses_accepted(),
        }
    }

    fn happen(&mut self, happening: Happening) -> Result<(), Broken> {
        match happening {
            Happening::Arrive { publish, reply } => self.arrive(&publish, reply),
            Happening::Answer(reply, outcome) => self.answer(reply, outcome),
            Happening::ToWorker { worker, generation, work } => {
                if let Some(known) = self.alive(worker, generation) {
                    known.queue.push_back(work);
                }
                self.drain(worker)
            }
            Happening::Wake { worker, generation } => {
                if let Some(known) = self.alive(worker, generation) {
                    known.paused = false;
                    self.say(worker, "wakes");
                }
                self.drain(worker)
            }
            Happening::Restart(worker) => {
                self.restart(worker);
                Ok(())
            }
            Happening::Commit(attempt) => match self.sink.commits(&attempt) {
                true => self.invariants.invariant_one_commit_per_effect(&attempt),
                false => Ok(()),
            },
            Happening::Load(item) => self.publish_load(item),
            Happening::Intrude => {
                self.intrude();
                Ok(())
            }
            Happening::Heal => self.heal(),
            Happening::Task(task) => self.deliver_task(task),
            Happening::RemoveTask(task) => {
                self.tasks.remove(task);
                Ok(())
            }
            Happening::Cut => self.cut(),
            Happening::Accept => self.accept_loss(),
        }
    }

    /// Lets a worker do all that waits for it, unless it is paused or dies.
    fn drain(&mut self, worker: usize) -> Result<(), Broken> {
        loop {
            let Some(known) = self.workers.get_mut(worker) else { return Ok(()) };
            if known.paused {
                return Ok(());
            }
            let Some(work) = known.queue.pop_front() else { break };
            if work.is_crash_point() {
                self.outputs += 1;
                if self.crash_points.contains(&self.outputs) || self.throws(self.faults.crash) {
                    self.crash(worker);
                    return Ok(());
                }
                if self.throws(self.faults.pause) {
                    self.pause(worker, work);
                    return Ok(());
                }
            }
            self.perform(worker, work)?;
        }
        self.compare_states(worker)
    }

    fn throws(&mut self, permille: u32) -> bool {
        !self.healed && self.dice.chance(permille)
    }

    fn crash(&mut self, worker: usize) {
        self.say(worker, "crashes");
        self.crashes += 1;
        let now_ms = self.now_ms;
        if let Some(known) = self.workers.get_mut(worker) {
            *known = Worker::new(now_ms, known.generation + 1);
            known.alive = false;
        }
        let after = self.dice.between(50, 20_000);
        self.after(after, Happening::Restart(worker));
    }

    fn restart(&mut self, worker: usize) {
        let now_ms = self.now_ms;
        if let Some(known) = self.workers.get_mut(worker).filter(|known| !known.alive) {
            *known = Worker::new(now_ms, known.generation + 1);
            self.say(worker, "starts again");
            self.reach_worker(worker, 1, Work::LeaseTick);
        }
    }

    /// Stops a worker in the middle of what it does; it wakes to everything
    /// that has come meanwhile.
    fn pause(&mut self, worker: usize, work: Work) {
        self.say(worker, "is paused");
        let Some(known) = self.workers.get_mut(worker) else { return };
        known.paused = true;
        known.queue.push_front(work);
        let generation = known.generation;
        let after = self.dice.between(100, 40_000);
        self.after(after, Happening::Wake { worker, generation });
    }

    fn heal(&mut self) -> Result<(), Broken> {
        self.log.line(self.now_ms, "faults stop");
        self.healed = true;
        self.faults = Faults::default();
        self.panics.store(0, Ordering::Relaxed);
        self.crash_points.clear();
        self.broker.heal();
        for worker in 0..self.workers.len() {
            self.restart(worker);
            if let Some(known) = self.workers.get_mut(worker) {
                known.paused = false;
                known.skew_ms = 0;
            }
            self.drain(worker)?;
        }
        Ok(())
    }

    /// Holds the live state of a quiet owner against the journal's fold.
    fn compare_states(&mut self, worker: usize) -> Result<(), Broken> {
        let last = self.broker.stream(StreamName::Journal).last();
        let Some(seat) = self.workers.get_mut(worker).and_then(|known| known.seat.as_mut()) else {
            return Ok(());
        };
        if seat.committed != last
            || seat.compared == last
            || !seat.owner.is_owning()
            || !seat.owner.is_quiet()
        {
            return Ok(());
        }
        seat.compared = last;
        self.invariants.invariant_live_state_is_the_fold(seat.owner.partition())
    }

    fn after(&mut self, after_ms: u64, happening: Happening) {
        self.last_id += 1;
        self.agenda.insert((self.now_ms + after_ms, self.last_id), happening);
    }

    fn reach_worker(&mut self, worker: usize, after_ms: u64, work: Work) {
        let generation = self.generation(worker);
        self.after(after_ms, Happening::ToWorker { worker, generation, work });
    }

    /// The worker, if it has not crashed since.
    fn alive(&mut self, worker: usize, generation: u64) -> Option<&mut Worker> {
        let known = self.workers.get_mut(worker)?;
        (known.alive && known.generation == generation).then_some(known)
    }

    fn generation(&self, worker: usize) -> u64 {
        self.workers.get(worker).map_or(0, |known| known.generation)
    }

    fn id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn say(&mut self, worker: usize, text: impl std::fmt::Display) {
        self.log.line(self.now_ms, format_args!("worker {worker} {text}"));
    }

    fn seat_config(&self) -> Result<SeatConfig<'_>, Broken> {
        Ok(SeatConfig {
            partition: PartitionId(0),
            limits: self.limits,
            signer: signer_of(self.signing_seed)?,
            verifier: &self.verifier,
            checkpoints: self.broker.stream(StreamName::Checkpoints).messages(),
            panics: self.panics.clone(),
            snapshots: self.snapshots,
        })
    }
}

fn signer_of(seed: [u8; 32]) -> Result<Signer, Broken> {
    Signer::from_seed("fermata.simulation", seed)
        .map_err(|error| Broken::new("signer_is_sound", error.to_string()))
}
