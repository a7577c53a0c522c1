//! Time, streams, and what happens to what is published.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use fermata_core::digest::Digest;
use fermata_core::identity::PartitionId;
use fermata_core::partition::Limits;
use fermata_core::plan::Executable;
use fermata_partition::key_hours::HourName;
use fermata_partition::message::{AppendOutcome, Message};
use fermata_partition::owner::{Cause, Input, Undecidable};

use super::laws::Laws;
use super::load::{self, Item};
use super::owning::Seat;
use super::{RelayScenario, RelayTrace};
use crate::broker::Fate;
use crate::dice::Dice;
use crate::plans;
use crate::scenario::Faults;
use crate::trace::{Broken, Log, Violation};

/// Where simulated time begins, milliseconds since 1970: shortly before a full hour.
pub(super) const EPOCH_MS: u64 = 1_800_003_590_000;

/// How long a sender waits for an acknowledgement, milliseconds.
const ANSWER_MS_MAX: u64 = 2_000;

/// How long a request may be under way, milliseconds.
const DELAY_MS_MAX: u64 = 30_000;

/// How long after faults have stopped everything must be done, milliseconds.
const COMPLETION_MS_MAX: u64 = 300_000;

/// Something that happens at a time.
pub(super) enum Happening {
    /// A publish arrives.
    Arrive(Publish, Option<Reply>),
    /// Its sender learns what became of it.
    Answer(Reply, AppendOutcome),
    /// Something reaches an owner, if it still is there.
    Tell(PartitionId, u64, Input),
    /// An owner is given commands, and the time.
    Poll(PartitionId, u64),
    /// Somebody begins to own a partition.
    TakeOver(PartitionId),
    /// An item of the load is published, for the first time or again.
    Load(usize),
    Heal,
}

/// What is published to a partition's streams.
#[derive(Debug, Clone)]
pub(super) struct Publish {
    pub(super) partition: PartitionId,
    /// The fence of a journal; none for commands.
    pub(super) expected: Option<u64>,
    pub(super) writer: Option<String>,
    pub(super) payload: Bytes,
}

/// Who waits for the answer to a publish.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reply {
    Journal { partition: PartitionId, seat: u64 },
    Relay { partition: PartitionId, seat: u64, target: PartitionId, up_to: u64 },
    Load(usize),
}

/// One partition: its streams, and who owns it or believes so.
pub(super) struct Side {
    pub(super) journal: Vec<Message>,
    pub(super) commands: Vec<Message>,
    full_until_ms: u64,
    pub(super) seats: Vec<Seat>,
    pub(super) set_aside: HashMap<Undecidable, Cause>,
    /// Its snapshots as files, oldest first.
    pub(super) snapshots: Vec<Vec<u8>>,
    /// Closed hours as files.
    pub(super) hours: BTreeMap<HourName, Vec<u8>>,
}

pub(super) struct World {
    seed: u64,
    pub(super) dice: Dice,
    pub(super) faults: Faults,
    heal_at_ms: u64,
    pub(super) now_ms: u64,
    steps: u64,
    last_id: u64,
    pub(super) healed: bool,
    agenda: BTreeMap<(u64, u64), Happening>,
    pub(super) sides: Vec<Side>,
    items: Vec<Item>,
    pub(super) plan: (Digest, Arc<Executable>),
    pub(super) panics: Arc<AtomicU32>,
    pub(super) limits: Limits,
    pub(super) laws: Laws,
    log: Log,
}

impl World {
    pub(super) fn new(seed: u64, scenario: &RelayScenario) -> Result<Self, Broken> {
        let mut dice = Dice::new(seed);
        let plan = plans::waiting()?;
        let limits = limits(scenario, &mut dice);
        let mut faults = scenario.faults;
        // Some seeds go without panics, so that what is poisoned excuses nothing.
        if dice.chance(500) {
            faults.panic = 0;
        }
        let side = |_| Side {
            journal: Vec::new(),
            commands: Vec::new(),
            full_until_ms: 0,
            seats: Vec::new(),
            set_aside: HashMap::new(),
            snapshots: Vec::new(),
            hours: BTreeMap::new(),
        };
        let mut world = Self {
            seed,
            faults,
            heal_at_ms: scenario.heal_at_ms,
            now_ms: 0,
            steps: 0,
            last_id: 0,
            healed: false,
            agenda: BTreeMap::new(),
            sides: (0..scenario.partitions).map(side).collect(),
            items: load::draw(scenario.events, scenario.partitions, plan.0, &mut dice)?,
            laws: Laws::new(scenario.partitions, limits, std::slice::from_ref(&plan)),
            plan,
            panics: Arc::new(AtomicU32::new(faults.panic)),
            limits,
            log: Log::new(scenario.verbose),
            dice,
        };
        for item in 0..world.items.len() {
            let after = world.dice.below(scenario.heal_at_ms * 3 / 4);
            world.after(after, Happening::Load(item));
        }
        for partition in world.partitions() {
            world.after(1, Happening::TakeOver(partition));
        }
        world.after(scenario.heal_at_ms, Happening::Heal);
        Ok(world)
    }

    pub(super) fn run(mut self) -> Result<RelayTrace, Violation> {
        match self.run_to_completion() {
            Ok(()) => Ok(RelayTrace { hash: self.log.hash(), ..self.laws.trace }),
            Err(Broken { invariant, detail }) => {
                let (seed, step, lines) = (self.seed, self.steps, self.log.lines());
                Err(Violation { seed, step, invariant, detail, lines })
            }
        }
    }

    fn run_to_completion(&mut self) -> Result<(), Broken> {
        while let Some(((at_ms, _), happening)) = self.agenda.pop_first() {
            self.now_ms = at_ms;
            self.steps += 1;
            self.happen(happening)?;
            if !self.healed || !self.items.iter().all(|item| item.stored) {
                continue;
            }
            let commands = self.sides.iter().map(|side| side.commands.len() as u64);
            let Some(missing) = self.laws.outstanding(&commands.collect::<Vec<_>>()) else {
                return self.laws.at_end();
            };
            if self.now_ms > self.heal_at_ms + COMPLETION_MS_MAX {
                return Err(Broken::new("law_nothing_is_stuck", missing));
            }
        }
        Err(Broken::new("law_nothing_is_stuck", "nothing happens any more"))
    }

    fn happen(&mut self, happening: Happening) -> Result<(), Broken> {
        match happening {
            Happening::Arrive(publish, reply) => self.arrive(publish, reply),
            Happening::Answer(reply, outcome) => self.answer(reply, outcome),
            Happening::Tell(partition, seat, input) => self.tell(partition, seat, [input]),
            Happening::Poll(partition, seat) => self.poll(partition, seat),
            Happening::TakeOver(partition) => self.take_over(partition),
            Happening::Load(item) => {
                if let Some(item_) = self.items.get(item) {
                    let (partition, payload) = (item_.partition, item_.frame.clone());
                    let publish = Publish { partition, expected: None, writer: None, payload };
                    self.publish(publish, 0, Reply::Load(item));
                }
                Ok(())
            }
            Happening::Heal => {
                self.line("faults stop");
                self.healed = true;
                self.faults = Faults::default();
                self.panics.store(0, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    /// Sends something on its way, which may be long, doubled, or lead nowhere.
    pub(super) fn publish(&mut self, publish: Publish, pause_ms: u64, reply: Reply) {
        let fate = Fate::draw(&self.faults, &mut self.dice);
        let arrives = pause_ms + self.dice.between(1, 20);
        let gives_up = pause_ms + ANSWER_MS_MAX;
        match fate {
            Fate::Plain => {
                self.after(arrives, Happening::Arrive(publish, Some(reply)));
                return;
            }
            Fate::RequestLost => {}
            Fate::AckLost => self.after(arrives, Happening::Arrive(publish, None)),
            Fate::Delayed => {
                let late = pause_ms + self.dice.between(ANSWER_MS_MAX / 2, DELAY_MS_MAX);
                self.after(late, Happening::Arrive(publish, None));
            }
            Fate::Duplicated => {
                let late = arrives + self.dice.between(1, DELAY_MS_MAX);
                self.after(late, Happening::Arrive(publish.clone(), None));
                self.after(arrives, Happening::Arrive(publish, Some(reply)));
                return;
            }
        }
        self.after(gives_up, Happening::Answer(reply, AppendOutcome::Unknown));
    }

    fn arrive(&mut self, publish: Publish, reply: Option<Reply>) -> Result<(), Broken> {
        let full = self.dice.chance(self.faults.stream_full);
        let full_until_ms = self.now_ms + self.dice.between(500, 8_000);
        let (now_ms, healed) = (self.now_ms, self.healed);
        let Some(side) = self.sides.get_mut(usize::from(publish.partition.0)) else {
            return Ok(());
        };
        if full {
            side.full_until_ms = full_until_ms;
        }
        let stream = match publish.expected {
            Some(_) => &mut side.journal,
            None => &mut side.commands,
        };
        let sequence = stream.len() as u64 + 1;
        let outcome = if publish.expected.is_some_and(|expected| expected + 1 != sequence) {
            AppendOutcome::Conflict
        } else if now_ms < side.full_until_ms && !healed {
            AppendOutcome::Refused
        } else {
            AppendOutcome::Stored { sequence }
        };
        let message = Message {
            sequence,
            broker_time_ns: i64::try_from(EPOCH_MS + now_ms).unwrap_or(0) * 1_000_000,
            writer: publish.writer,
            payload: publish.payload,
        };
        let is_journal = publish.expected.is_some();
        let partition = publish.partition;
        if matches!(outcome, AppendOutcome::Stored { .. }) {
            stream.push(message.clone());
            if is_journal {
                self.laws.on_journal(partition, &message)?;
            }
        }
        let stream = if is_journal { "journal" } else { "commands" };
        self.line(format_args!("{stream} {partition} gets a message: {outcome:?}"));
        if let Some(reply) = reply {
            let back = self.dice.between(1, 20);
            self.after(back, Happening::Answer(reply, outcome));
        }
        Ok(())
    }

    fn answer(&mut self, reply: Reply, outcome: AppendOutcome) -> Result<(), Broken> {
        match reply {
            Reply::Journal { partition, seat } => {
                self.tell(partition, seat, [Input::Appended(outcome)])
            }
            Reply::Relay { partition, seat, target, up_to } => {
                self.tell(partition, seat, [Input::Relayed { target, up_to, outcome }])
            }
            Reply::Load(item) => {
                let stored = matches!(outcome, AppendOutcome::Stored { .. });
                match self.items.get_mut(item) {
                    Some(item) if stored => item.stored = true,
                    Some(_) => self.after(300, Happening::Load(item)),
                    None => {}
                }
                Ok(())
            }
        }
    }

    pub(super) fn after(&mut self, after_ms: u64, happening: Happening) {
        self.last_id += 1;
        self.agenda.insert((self.now_ms + after_ms, self.last_id), happening);
    }

    pub(super) fn id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(super) fn line(&mut self, text: impl std::fmt::Display) {
        self.log.line(self.now_ms, text);
    }

    fn partitions(&self) -> Vec<PartitionId> {
        (0..).take(self.sides.len()).map(PartitionId).collect()
    }
}

/// Bounds that are met: often so small that a frame of commands fits no frame
/// of the journal.
fn limits(scenario: &RelayScenario, dice: &mut Dice) -> Limits {
    Limits {
        partitions: scenario.partitions,
        outbox_max: scenario.outbox_max,
        waits_max: 50,
        signals_max: 6,
        signal_kept_ms: 20_000,
        decision_records_max: if dice.chance(300) { 4 } else { 200 },
        frame_bytes_max: if dice.chance(250) { 2_500 } else { 1_020 * 1_024 },
        attempts_open_max: 4,
        ..Limits::default()
    }
}
