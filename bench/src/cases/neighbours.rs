//! `neighbours`: what a noisy tenant, and poison, cost a quiet tenant in the same engine.
//!
//! The quiet one is measured in turns, alone and beside each of the others, so that a machine that
//! drifts does so for all of them. The ratios are what counts.
//!
//! | room | holds |
//! |---|---|
//! | `quiet` | the tenant that is measured |
//! | `noisy` | thousands of runs that hang, and thousands of events a second |
//! | `poison` | what cannot be decoded, decided or run |
//! | `crate::flood` | messages at a steady pace |
//! | `recorded` | whether all of it happened, once |

mod noisy;
mod poison;
mod quiet;
mod recorded;

use std::time::{Duration, Instant};

use self::noisy::Noisy;
use self::poison::Poison;
use self::quiet::{Measured, Quiet};
use super::workflows::{answered, held, queued, refused, three_noops, uncomputable};
use crate::arguments::BenchArguments;
use crate::figures::{Figures, Times};
use crate::plugin::HoldingPlugin;
use crate::setup::{Setup, mebibytes, progress};

/// Rounds of five turns each: alone, beside the noisy one, alone, beside poison, beside a heap.
const ROUNDS: u64 = 5;

/// Events of each kind before the measured ones, until caches and consumers are warm.
const WARM_UP: u64 = 10;

/// Events that the noisy tenant publishes at once: several seconds of work.
const HEAP_EVENTS: u64 = 200_000;

/// Events of each kind of the quiet tenant that are published while the heap is worked on: a second
/// and a half at its pace.
const BESIDE_HEAP: u64 = 75;

/// Names of the lines, for each kind of the quiet tenant's runs.
const ALONE: [&str; 2] = ["neighbours_alone", "neighbours_alone_call"];
const BESIDE_NOISY: [&str; 2] = ["neighbours_noisy", "neighbours_noisy_call"];
const BESIDE_HEAP_LINES: [&str; 2] = ["neighbours_heap", "neighbours_heap_call"];
const BESIDE_POISON: [&str; 2] = ["neighbours_poison", "neighbours_poison_call"];

/// What the tenants' events start. The second `poison` strategy cannot say whether it applies, the
/// third one not with what; what the next two start fails.
const STRATEGIES: &str = "
strategies:
  - { name: three-noops, version: 1, tenant: quiet, on: quiet.noops, workflow: { name: three-noops, version: '1' } }
  - { name: answered, version: 1, tenant: quiet, on: quiet.call, workflow: { name: answered, version: '1' } }
  - { name: flood, version: 1, tenant: noisy, on: noisy.flood, workflow: { name: three-noops, version: '1' } }
  - { name: held, version: 1, tenant: noisy, on: noisy.held, workflow: { name: held, version: '1' } }
  - { name: parked, version: 1, tenant: poison, on: poison.parked, workflow: { name: parked, version: '1' } }
  - { name: guard, version: 1, tenant: poison, on: poison.guard, when: event.data.nothing > 1, workflow: { name: three-noops, version: '1' } }
  - { name: variables, version: 1, tenant: poison, on: poison.variables, variables: { n: event.data.nothing.there }, workflow: { name: three-noops, version: '1' } }
  - { name: uncomputable, version: 1, tenant: poison, on: poison.uncomputable, workflow: { name: uncomputable, version: '1' } }
  - { name: refused, version: 1, tenant: poison, on: poison.refused, workflow: { name: refused, version: '1' } }
";

/// What was measured in one kind of turns.
#[derive(Debug, Default)]
struct Turns {
    measured: Vec<Measured>,
    /// Processor time of engines and broker meanwhile, and how long that was: what came of it is
    /// looked up meanwhile as well.
    engine: Duration,
    broker: Duration,
    observed: Duration,
}

/// The figures of the runs of one kind, and how long they took until the journal had their ends.
#[derive(Debug)]
struct Line {
    figures: Figures,
    journaled: Times,
}

impl Turns {
    /// Measures `n` more of each kind.
    async fn measure(&mut self, setup: &Setup, quiet: &mut Quiet, n: u64) -> miette::Result<()> {
        let (before, begun) = (setup.usage()?, Instant::now());
        self.measured.push(quiet.measure(n).await?);
        let after = setup.usage()?;
        self.observed += begun.elapsed();
        self.engine += after.engine.saturating_sub(before.engine);
        self.broker += after.broker.saturating_sub(before.broker);
        Ok(())
    }

    fn line(&self, names: [&'static str; 2], kind: usize) -> Line {
        let of = |turn: &Measured| turn.times.get(kind).cloned().unwrap_or_default();
        let times = self.measured.iter().flat_map(of).collect::<Vec<_>>();
        let elapsed = self.measured.iter().map(|turn| turn.elapsed).sum::<Duration>();
        let n = u64::try_from(times.len()).unwrap_or(u64::MAX);
        let by_turn = self.measured.iter().map(|turn| {
            format!("{:.1}", Times::of(of(turn)).percentile_ms(99).unwrap_or_default())
        });
        let by_turn = by_turn.collect::<Vec<_>>().join(", ");
        let journaled = self.measured.iter().filter_map(|turn| turn.journaled.get(kind)).flatten();
        let journaled = Times::of(journaled.copied().collect());
        let cores = |used: Duration| used.as_secs_f64() / self.observed.as_secs_f64().max(1e-9);
        let case = names.get(kind).copied().unwrap_or_default();
        // How many there are a second is the pace of the publisher, which was chosen.
        let figures = Figures { per_s: None, ..Figures::of(case, n, elapsed).with_times(times) }
            .note(format!("p99 turn by turn, ms: {by_turn}"))
            .note(format!(
                "until the journal holds `run.succeeded`: p50 {:.2} ms, p99 {:.2} ms",
                journaled.percentile_ms(50).unwrap_or_default(),
                journaled.percentile_ms(99).unwrap_or_default(),
            ))
            .note(format!(
                "busy meanwhile: {:.2} cores with engines, {:.2} with the broker",
                cores(self.engine),
                cores(self.broker),
            ));
        Line { figures, journaled }
    }

    /// The same, compared with those alone.
    fn line_beside(&self, names: [&'static str; 2], kind: usize, alone: &Line) -> Figures {
        let Line { figures, journaled } = self.line(names, kind);
        let ratio = |beside: Option<f64>, alone: Option<f64>| {
            beside.zip(alone).map_or(0.0, |(beside, alone)| beside / alone)
        };
        let journal = |percent| {
            ratio(journaled.percentile_ms(percent), alone.journaled.percentile_ms(percent))
        };
        let note = format!(
            "times as long as alone: p50 {:.2}, p99 {:.2}; until the journal p50 {:.2}, p99 {:.2}",
            ratio(figures.p50_ms, alone.figures.p50_ms),
            ratio(figures.p99_ms, alone.figures.p99_ms),
            journal(50),
            journal(99),
        );
        figures.beside(&alone.figures).note(note)
    }
}

/// Measures `n` runs of each kind alone and beside each of the others.
pub async fn run(arguments: &BenchArguments, n: u64) -> miette::Result<Vec<Figures>> {
    let rounds = if arguments.smoke { 1 } else { ROUNDS };
    let per_turn = n.div_ceil(rounds);
    let bar = progress("neighbours", rounds * 5);
    let plugin = HoldingPlugin::start().await?;
    let workflows = vec![
        three_noops("three-noops")?,
        answered("answered")?,
        held("held")?,
        queued("parked", poison::QUEUE)?,
        uncomputable("uncomputable")?,
        refused("refused")?,
    ];
    let setup = Setup::start(arguments, workflows, STRATEGIES, Some(plugin.url())).await?;
    let mut quiet = Quiet::open(&setup).await?;
    let mut noisy = Noisy::open(&setup, plugin, arguments.durability).await?;
    let mut poison = Poison::open(&setup).await?;
    let [mut alone, mut beside_noisy, mut beside_poison, mut beside_heap] = <[Turns; 4]>::default();
    quiet.measure(WARM_UP).await?;

    for _ in 0..rounds {
        // Two halves, one before each of the others.
        alone.measure(&setup, &mut quiet, per_turn.div_ceil(2)).await?;
        bar.inc(1);
        noisy.begin(&setup).await?;
        beside_noisy.measure(&setup, &mut quiet, per_turn).await?;
        noisy.end(&setup).await?;
        bar.inc(1);
        alone.measure(&setup, &mut quiet, per_turn.div_ceil(2)).await?;
        bar.inc(1);
        poison.begin(&setup).await?;
        beside_poison.measure(&setup, &mut quiet, per_turn).await?;
        poison.end(&setup).await?;
        bar.inc(1);
        let (events, beside) =
            if arguments.smoke { (HEAP_EVENTS / 20, 10) } else { (HEAP_EVENTS, BESIDE_HEAP) };
        let heap = noisy.heap_up(&setup, events).await?;
        beside_heap.measure(&setup, &mut quiet, beside).await?;
        noisy.heap_is_done(heap).await?;
        bar.inc(1);
    }

    recorded::check(&setup, &quiet, &noisy, &poison).await?;
    let mut measured = Vec::new();
    for kind in 0..ALONE.len() {
        let alone = alone.line(ALONE, kind);
        let noisy_line = beside_noisy.line_beside(BESIDE_NOISY, kind, &alone).note(noisy.told());
        let poison = beside_poison.line_beside(BESIDE_POISON, kind, &alone).note(poison.told());
        let heap = beside_heap.line_beside(BESIDE_HEAP_LINES, kind, &alone);
        measured.extend([alone.figures, noisy_line, poison, heap.note(noisy.heaps_told())]);
    }
    let mut peak_bytes = 0;
    for engine in &setup.engines {
        peak_bytes += engine.memory()?.peak_bytes;
    }
    for figures in &mut measured {
        figures.rss_mib = Some(mebibytes(peak_bytes));
    }
    Ok(measured)
}
