//! `snapshot`: how long an owner decides nothing else because a snapshot is taken.
//!
//! One partition without a broker ([`DrivenOwner`]) with many open runs and a steady load. Copies
//! are written and hashed on another thread meanwhile, as in the engine, so that what the owner
//! changes is shared with a copy that is in use.

use std::thread;
use std::time::{Duration, Instant};

use fermata_partition::owner::Input;
use fermata_partition::snapshot::SnapshotPolicy;
use miette::{IntoDiagnostic as _, ensure, miette};

use super::workflows::held;
use crate::driven_owner::{Asked, DrivenOwner};
use crate::figures::{Figures, Times};
use crate::setup::progress;

/// Snapshots taken.
const SNAPSHOTS: u64 = 10;

/// Messages of commands after each, and before the first of them.
const STEPS: u64 = 200;

/// The longest that an owner may decide nothing else: what is promised, with so many open runs at
/// least.
const PAUSE_MAX: Duration = Duration::from_millis(50);
const RUNS_PROMISED: u64 = 100_000;

/// Events of a message: what comes together in a few milliseconds.
const EVENTS: u64 = 20;

/// Opens `n` runs, and takes snapshots under load.
pub fn run(n: u64) -> miette::Result<Vec<Figures>> {
    let never = SnapshotPolicy {
        records_max: u64::MAX,
        bytes_max: u64::MAX,
        interval_ms: u64::MAX,
        ..SnapshotPolicy::default()
    };
    let bar = progress("snapshot", n);
    let mut owner = DrivenOwner::start(held("hold")?, never)?;
    for first in (0..n).step_by(1_000) {
        // Nobody answers: the runs stay open.
        owner.step(1, 1_000.min(n - first))?;
        forget_streams(&mut owner);
        bar.inc(1_000.min(n - first));
    }
    bar.finish_and_clear();

    let begun = Instant::now();
    let mut without = Vec::new();
    for _ in 0..SNAPSHOTS * STEPS {
        without.push(step(&mut owner)?);
    }
    let without_elapsed = begun.elapsed();

    let begun = Instant::now();
    let (mut bytes, mut writing) = (0, Duration::ZERO);
    let mut with = Vec::new();
    for _ in 0..SNAPSHOTS {
        let taking = Instant::now();
        let asked = owner.handle(Input::Snapshot, Vec::new())?;
        with.push(taking.elapsed());
        let frozen = asked.into_iter().find_map(|asked| match asked {
            Asked::Snapshot(frozen) => Some(frozen),
            Asked::Attempt(_) => None,
        });
        let frozen = frozen.ok_or_else(|| miette!("no snapshot is taken"))?;
        let mark = owner.mark(frozen.next_index());
        let written = thread::spawn(move || {
            let begun = Instant::now();
            (frozen.encode(&mark, &[]).map(|written| written.bytes.len()), begun.elapsed())
        });
        for _ in 0..STEPS {
            with.push(step(&mut owner)?);
        }
        let (length, took) = written.join().map_err(|_| miette!("writing it panicked"))?;
        bytes = length.into_diagnostic()?;
        writing = writing.max(took);
        owner.handle(Input::SnapshotEnded, Vec::new())?;
    }
    let with_elapsed = begun.elapsed();

    let open = owner.owner().partition().runs().count();
    ensure!(u64::try_from(open).is_ok_and(|open| open >= n), "only {open} of {n} runs are open");
    let longest = with.iter().max().copied().unwrap_or_default();
    ensure!(
        n < RUNS_PROMISED || longest < PAUSE_MAX,
        "an input took {longest:?} while snapshots were taken, the bound is {PAUSE_MAX:?}"
    );
    let told = |case, times: Vec<Duration>, elapsed| {
        let longest = Times::of(times.clone()).percentile_ms(100).unwrap_or_default();
        let steps = u64::try_from(times.len()).unwrap_or(u64::MAX);
        Figures::of(case, steps, elapsed)
            .with_times(times)
            .note(format!("longest {longest:.2} ms, {open} runs open at the end"))
    };
    let writing = writing.as_secs_f64() * 1e3;
    Ok(vec![
        told("snapshot_without", without, without_elapsed),
        told("snapshot", with, with_elapsed).note(format!(
            "{SNAPSHOTS} snapshots of up to {bytes} bytes, written in up to {writing:.0} ms each"
        )),
    ])
}

/// One message of commands and all that comes of it.
fn step(owner: &mut DrivenOwner) -> miette::Result<Duration> {
    let begun = Instant::now();
    owner.step(1, EVENTS)?;
    let took = begun.elapsed();
    forget_streams(owner);
    Ok(took)
}

/// What is purged in an engine: here nobody reads it.
fn forget_streams(owner: &mut DrivenOwner) {
    owner.journal.clear();
    owner.commands.clear();
}
