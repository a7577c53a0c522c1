//! What a simulation is made of besides its seed.

use fermata_core::partition::Limits;

use crate::dice::Dice;

/// How likely each fault is, in thousandths of the occasions for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// A publish that never arrives; answered as unknown.
    pub request_lost: u32,
    /// A publish that is stored and whose acknowledgement is lost.
    pub ack_lost: u32,
    /// A publish that arrives after its sender has given it up.
    pub request_delayed: u32,
    /// A publish that arrives twice.
    pub request_duplicated: u32,
    /// A fenced publish answered as a conflict although nothing was stored (three servers).
    pub conflict_spurious: u32,
    /// A stream that begins to refuse everything for a while.
    pub stream_full: u32,
    /// A read answered from an older state of the stream.
    pub read_stale: u32,
    /// A read that fails.
    pub read_failed: u32,
    /// A message that nobody of ours wrote, in the journal or the audit log.
    pub foreign: u32,
    /// A message of COMMANDS that its consumer leaves out.
    pub delivery_lost: u32,
    /// A message of COMMANDS that its consumer delivers twice.
    pub delivery_duplicated: u32,
    /// A message of COMMANDS that comes late, behind later ones.
    pub delivery_delayed: u32,
    /// A crash of a worker before one output.
    pub crash: u32,
    /// A pause (SIGSTOP) of a worker before one output.
    pub pause: u32,
    /// A wall clock that jumps.
    pub clock_jump: u32,
    /// A lease granted to somebody while another holds it.
    pub lease_doubled: u32,
    /// An attempt that fails, hangs, or commits and loses its answer.
    pub attempt_fails: u32,
    /// A command frame that cannot be read.
    pub garbage: u32,
    /// An event delivered again, perhaps with another verdict.
    pub redelivery: u32,
    /// A plan that a read does not find although it is there.
    pub plan_not_found: u32,
    /// A panic while a record is decided and encoded.
    pub panic: u32,
    /// A snapshot that is not what was written, at some time after it was stored.
    pub snapshot_damaged: u32,
}

/// A simulation to be run from a seed.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Worker processes, at least one.
    pub workers: usize,
    /// Messages in EVENTS, each with up to three events.
    pub events: u64,
    /// Faults, until they stop.
    pub faults: Faults,
    /// Whether the seed switches some faults off and weakens others, so that
    /// each seed meets its own mixture.
    pub swarm: bool,
    /// When faults stop, milliseconds of simulated time.
    pub heal_at_ms: u64,
    /// Outputs, counted over all workers from 1, before which their worker crashes.
    pub crashes: Vec<u64>,
    /// Bounds of the partition.
    pub limits: Limits,
    /// Whether every line of the trace goes to standard error.
    pub verbose: bool,
    /// In how many of a thousand lives the journal loses its end, which ends them.
    pub cuts: u32,
}

impl Scenario {
    /// Every fault there is, in a mixture that the seed chooses.
    #[must_use]
    pub fn chaos() -> Self {
        Self {
            workers: 3,
            events: 14,
            faults: Faults {
                request_lost: 60,
                ack_lost: 60,
                request_delayed: 80,
                request_duplicated: 60,
                conflict_spurious: 40,
                stream_full: 15,
                read_stale: 150,
                read_failed: 100,
                foreign: 25,
                delivery_lost: 40,
                delivery_duplicated: 60,
                delivery_delayed: 60,
                crash: 8,
                pause: 8,
                clock_jump: 30,
                lease_doubled: 120,
                attempt_fails: 250,
                garbage: 80,
                redelivery: 250,
                plan_not_found: 300,
                panic: 2,
                snapshot_damaged: 100,
            },
            swarm: true,
            heal_at_ms: 90_000,
            crashes: Vec::new(),
            limits: Limits {
                attempts_open_max: 6,
                decision_records_max: 12,
                decision_bytes_max: 4_096,
                partitions: 1,
                signal_kept_ms: 20_000,
                queued_open_max: 2,
                ..Limits::default()
            },
            verbose: false,
            cuts: 30,
        }
    }

    /// The same, and each life ends with a journal that lost its end.
    #[must_use]
    pub fn cut() -> Self {
        Self { cuts: 1_000, ..Self::chaos() }
    }

    /// A short life without any fault, to put crashes into.
    #[must_use]
    pub fn short() -> Self {
        Self {
            workers: 2,
            events: 4,
            faults: Faults::default(),
            swarm: false,
            heal_at_ms: 4_000,
            cuts: 0,
            ..Self::chaos()
        }
    }

    /// The bounds that this seed works under: in a swarm, often so small that
    /// one command fills a frame, and sometimes so small that a message of
    /// commands, or a step of a run, does not fit any.
    pub(crate) fn drawn_limits(&self, dice: &mut Dice) -> Limits {
        let mut limits = self.limits;
        if self.swarm {
            limits.decision_records_max = match dice.below(4) {
                0 => 2,
                1 => 4,
                _ => limits.decision_records_max,
            };
            limits.frame_bytes_max = match dice.below(8) {
                0 => 1_100,
                1 => 3_000,
                _ => limits.frame_bytes_max,
            };
        }
        limits
    }

    /// The faults that this seed meets.
    pub(crate) fn drawn(&self, dice: &mut Dice) -> Faults {
        let mut faults = self.faults;
        if self.swarm {
            for fault in faults.each_mut() {
                *fault = match dice.below(4) {
                    0 => 0,
                    1 => *fault / 3,
                    _ => *fault,
                };
            }
        }
        faults
    }
}

impl Faults {
    fn each_mut(&mut self) -> [&mut u32; 22] {
        [
            &mut self.request_lost,
            &mut self.ack_lost,
            &mut self.request_delayed,
            &mut self.request_duplicated,
            &mut self.conflict_spurious,
            &mut self.stream_full,
            &mut self.read_stale,
            &mut self.read_failed,
            &mut self.foreign,
            &mut self.delivery_lost,
            &mut self.delivery_duplicated,
            &mut self.delivery_delayed,
            &mut self.crash,
            &mut self.pause,
            &mut self.clock_jump,
            &mut self.lease_doubled,
            &mut self.attempt_fails,
            &mut self.garbage,
            &mut self.redelivery,
            &mut self.plan_not_found,
            &mut self.panic,
            &mut self.snapshot_damaged,
        ]
    }
}
