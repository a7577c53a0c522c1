//! Faults as data: what can be done to a scene, and how some are drawn that overlap in time.

use std::fmt;
use std::ops::Range;

use fermata_jetstream::topology::LEASE_TTL;
use fermata_tests::sink::Mood;
use rand::RngExt as _;
use rand::rngs::StdRng;

/// How many there are at once.
const AT_ONCE: std::ops::RangeInclusive<usize> = 2..=3;

/// When each begins, milliseconds; none ends before all have begun.
const BEGINS_MS: Range<u64> = 0..1_500;

/// Seconds by which a clock is set. Ahead by less than tasks of a queue may take: with less time left
/// than the clock is ahead they would not be begun, and be waited for to no end of this test.
const CLOCK_STEPS: [i64; 3] = [25, -25, -3_600];

/// Which way nothing goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// What is sent to it is lost.
    Deaf,
    /// What it sends is lost.
    Mute,
}

/// Something that goes wrong for a while; workers and servers are counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A worker is killed and starts again.
    WorkerKilled(usize),
    /// A worker stands still until after its leases have run out.
    WorkerStopped(usize),
    /// A worker is asked to end, and starts again.
    WorkerLeaves(usize),
    /// One more worker comes and leaves again.
    WorkerJoins(usize),
    /// A worker hears nothing, or is not heard.
    WorkerCut(usize, Line),
    /// A worker's clock is set by so many seconds.
    ClockSet(usize, i64),
    /// A server is killed and starts again.
    ServerKilled(usize),
    /// A server stands still.
    ServerStopped(usize),
    /// A server is cut off from the other servers; clients reach it.
    ServerApart(usize),
    /// A server hears nothing, or is not heard, by anybody.
    ServerCut(usize, Line),
    /// The plugin does to every call the same.
    Plugin(Mood),
    /// Bytes that are no message of ours come into every stream.
    Garbage,
    /// Events that are known are published again.
    Repeats,
    /// Runs are cancelled.
    Cancels,
}

/// Whom a fault befalls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Worker(usize),
    Server(usize),
}

impl Fault {
    fn target(self) -> Option<Target> {
        match self {
            Self::WorkerKilled(worker)
            | Self::WorkerStopped(worker)
            | Self::WorkerLeaves(worker)
            | Self::WorkerJoins(worker)
            | Self::WorkerCut(worker, _)
            | Self::ClockSet(worker, _) => Some(Target::Worker(worker)),
            Self::ServerKilled(server)
            | Self::ServerStopped(server)
            | Self::ServerApart(server)
            | Self::ServerCut(server, _) => Some(Target::Server(server)),
            Self::Plugin(_) | Self::Garbage | Self::Repeats | Self::Cancels => None,
        }
    }

    /// How long it lasts, milliseconds; at least until the last one has begun.
    fn lasts_ms(self) -> Range<u64> {
        let lease_ms = LEASE_TTL.as_secs() * 1_000;
        match self {
            Self::WorkerStopped(_) => lease_ms + 1_000..lease_ms + 3_000,
            Self::WorkerCut(..) => 4_000..lease_ms + 3_000,
            Self::ServerStopped(_) => 8_000..8_001,
            Self::ServerApart(_) | Self::ServerCut(..) => 4_000..10_000,
            Self::WorkerKilled(_)
            | Self::WorkerLeaves(_)
            | Self::WorkerJoins(_)
            | Self::ClockSet(..)
            | Self::ServerKilled(_)
            | Self::Plugin(_) => 2_000..6_000,
            // Long enough to go on behind most others.
            Self::Garbage | Self::Repeats | Self::Cancels => 4_000..12_000,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::WorkerKilled(worker) => write!(out, "worker {worker} killed"),
            Self::WorkerStopped(worker) => write!(out, "worker {worker} stopped"),
            Self::WorkerLeaves(worker) => write!(out, "worker {worker} leaves"),
            Self::WorkerJoins(worker) => write!(out, "worker {worker} joins"),
            Self::WorkerCut(worker, line) => write!(out, "worker {worker} {line:?}"),
            Self::ClockSet(worker, step) => write!(out, "clock of worker {worker} set by {step} s"),
            Self::ServerKilled(server) => write!(out, "server {server} killed"),
            Self::ServerStopped(server) => write!(out, "server {server} stopped"),
            Self::ServerApart(server) => write!(out, "server {server} cut off from the others"),
            Self::ServerCut(server, line) => write!(out, "server {server} {line:?}"),
            Self::Plugin(mood) => write!(out, "plugin {mood:?}"),
            Self::Garbage => write!(out, "garbage"),
            Self::Repeats => write!(out, "events again"),
            Self::Cancels => write!(out, "cancels"),
        }
    }
}

/// What there is to draw from.
#[derive(Debug, Clone, Copy)]
pub struct Means {
    pub servers: usize,
    /// Those that are always wanted; one more joins now and then.
    pub workers: usize,
    /// Whether servers and workers have networks of their own.
    pub networks: bool,
    /// Whether workers have clocks that can be set.
    pub clocks: bool,
}

impl Means {
    /// What can happen, by kinds, of which each is as likely as the others.
    fn kinds(&self) -> Vec<Vec<Fault>> {
        let worker = |fault: &dyn Fn(usize) -> Fault| (0..self.workers).map(fault).collect();
        let server = |fault: &dyn Fn(usize) -> Fault| (0..self.servers).map(fault).collect();
        let mut kinds: Vec<Vec<Fault>> = vec![
            worker(&Fault::WorkerKilled),
            worker(&Fault::WorkerStopped),
            worker(&Fault::WorkerLeaves),
            vec![Fault::WorkerJoins(self.workers)],
            server(&Fault::ServerKilled),
            server(&Fault::ServerStopped),
            [Mood::Fails, Mood::Hangs, Mood::Hides].map(Fault::Plugin).into(),
            vec![Fault::Garbage],
            vec![Fault::Repeats],
            vec![Fault::Cancels],
        ];
        if self.clocks {
            let set = |worker| CLOCK_STEPS.map(|step| Fault::ClockSet(worker, step));
            kinds.push((0..self.workers).flat_map(set).collect());
        }
        if self.networks {
            let worker =
                |worker| [Line::Deaf, Line::Mute].map(|line| Fault::WorkerCut(worker, line));
            let server =
                |server| [Line::Deaf, Line::Mute].map(|line| Fault::ServerCut(server, line));
            kinds.push((0..self.workers).flat_map(worker).collect());
            kinds.push((0..self.servers).flat_map(server).collect());
            if self.servers > 1 {
                kinds.push((0..self.servers).map(Fault::ServerApart).collect());
            }
        }
        kinds
    }
}

/// A fault and when it is, milliseconds from the beginning of its round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occurrence {
    pub fault: Fault,
    pub during_ms: Range<u64>,
}

impl fmt::Display for Occurrence {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [from, to] = [self.during_ms.start, self.during_ms.end].map(|ms| ms as f64 / 1_000.0);
        write!(out, "{} from {from:.1} to {to:.1} s", self.fault)
    }
}

/// Draws faults of different kinds that overlap, each on a target of its own. All of them end, so
/// nothing is taken away for ever, though a quorum may be for some seconds.
pub fn draw(dice: &mut StdRng, means: &Means) -> Vec<Occurrence> {
    let mut kinds = means.kinds();
    let wanted = dice.random_range(AT_ONCE);
    let mut drawn = Vec::<Occurrence>::new();
    while drawn.len() < wanted {
        let kind = kinds.swap_remove(dice.random_range(0..kinds.len()));
        let is_taken = |fault: &Fault| {
            let target = fault.target();
            target.is_some() && drawn.iter().any(|other| other.fault.target() == target)
        };
        let free = kind.into_iter().filter(|fault| !is_taken(fault)).collect::<Vec<_>>();
        if free.is_empty() {
            continue;
        }
        let fault = free[dice.random_range(0..free.len())];
        let begins_ms = dice.random_range(BEGINS_MS);
        let ends_ms = begins_ms + dice.random_range(fault.lasts_ms());
        drawn.push(Occurrence { fault, during_ms: begins_ms..ends_ms });
    }
    drawn
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::mem::discriminant;

    use rand::SeedableRng as _;

    use super::*;

    const SEEDS: u64 = 2_000;

    fn drawn(seed: u64, means: &Means) -> Vec<Occurrence> {
        draw(&mut StdRng::seed_from_u64(seed), means)
    }

    #[test]
    fn a_seed_draws_two_or_three_faults_that_overlap_on_different_targets_and_the_same_again() {
        let (servers, workers) = (3, 3);
        let means = Means { servers, workers, networks: true, clocks: true };
        let mut counts = BTreeSet::new();
        for seed in 0..SEEDS {
            let drawn_first = drawn(seed, &means);
            assert_eq!(drawn_first, drawn(seed, &means));
            counts.insert(drawn_first.len());
            let last_begins = drawn_first.iter().map(|one| one.during_ms.start).max();
            let first_ends = drawn_first.iter().map(|one| one.during_ms.end).min();
            assert!(last_begins < first_ends, "{drawn_first:?}");
            for (index, one) in drawn_first.iter().enumerate() {
                for other in &drawn_first[index + 1..] {
                    assert_ne!(discriminant(&one.fault), discriminant(&other.fault));
                    let target = one.fault.target();
                    assert!(target.is_none() || target != other.fault.target(), "{drawn_first:?}");
                }
            }
        }
        assert_eq!(counts, BTreeSet::from([2, 3]));
    }

    #[test]
    fn every_fault_that_can_be_is_drawn_and_none_that_cannot() {
        for servers in [1, 3] {
            for networks in [false, true] {
                for clocks in [false, true] {
                    let means = Means { servers, workers: 2, networks, clocks };
                    let faults = (0..SEEDS).flat_map(|seed| drawn(seed, &means));
                    let found = faults.map(|one| one.fault.to_string()).collect::<BTreeSet<_>>();
                    let possible = means.kinds().into_iter().flatten();
                    let possible = possible.map(|fault| fault.to_string()).collect::<BTreeSet<_>>();
                    assert_eq!(found, possible);
                    let has = |what: &str| found.iter().any(|fault| fault.contains(what));
                    assert_eq!(has("clock"), clocks);
                    assert_eq!(has("Deaf") && has("Mute"), networks);
                    assert_eq!(has("cut off"), networks && servers > 1);
                }
            }
        }
    }
}
