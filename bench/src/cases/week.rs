//! `week`: seven days of the load of `runs` in accelerated journal time, to see that nothing grows
//! with them: memory, what streams and objects hold, and how long a takeover takes.
//!
//! One partition, [`DrivenOwner`]. Events come evenly; snapshots are due by the engine's own policy,
//! and after each the janitor's rules are applied to the queues: commands and journal go below the
//! older of two snapshots, the journal only as far as it is in segments, and segments go after a day
//! (`archive.retention`; without it the archive grows for ever, as it should). The audit log, of
//! which nothing is ever purged, is the one thing that must grow: by as much each day.

mod archive;
mod audit_log;
mod graph;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

use fermata_core::partition::Limits;
use fermata_partition::fold::decode;
use fermata_partition::key_hours::HourName;
use fermata_partition::owner::Input;
use fermata_partition::snapshot::{FrozenFold, Snapshot, SnapshotFile, SnapshotPolicy};
use miette::{IntoDiagnostic as _, ensure, miette};
use serde::Serialize;

use super::workflows::three_noops;
use crate::driven_owner::{Asked, DrivenOwner, ONLY};
use crate::figures::{Figures, count};
use crate::process_usage::{memory, thread_cpu};
use crate::setup::{mebibytes, progress};
use archive::Archive;
use audit_log::AuditLog;

const DAYS: u64 = 7;
const HOUR_MS: u64 = 60 * 60 * 1_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// Journal time between two messages of commands.
const STEP_MS: u64 = 10_000;

/// How often a takeover is tried.
const RECOVERY_EVERY_HOURS: u64 = 6;

/// Takeovers each time; the quickest counts, by the processor's time: the machine does other things
/// as well.
const RECOVERIES: u32 = 3;

/// Day 2 is the first whose every hour has a whole window of keys behind it; no later sample may
/// exceed its largest by more than this factor.
const FLAT_FACTOR: f64 = 1.25;

/// The audit log grows by as much each day, but for longer numbers in it.
const EVEN_FACTOR: f64 = 1.02;
const EVEN_BYTES: f64 = 65_536.0;

/// What a sample may differ by in any case: noise of the allocator, and of a clock.
const NOISE_BYTES: u64 = 16 * 1024 * 1024;
const NOISE_MS: f64 = 25.0;

/// What is there at an hour of the week.
#[derive(Debug, Clone, Default, Serialize)]
struct Sample {
    hour: u64,
    runs: u64,
    resident_bytes: u64,
    keys: u64,
    journal_bytes: u64,
    commands_bytes: u64,
    snapshots_bytes: u64,
    archive_bytes: u64,
    /// With what retention has removed: what there would be without it.
    archived_bytes: u64,
    /// AUDIT, of which nothing is purged.
    audit_bytes: u64,
    /// CHECKPOINTS, of which nothing is purged either.
    checkpoints_bytes: u64,
    /// Processor's time of a takeover, where one was tried.
    recovery_ms: Option<f64>,
    /// Messages that were folded then, behind the snapshot.
    tail_messages: Option<u64>,
}

impl Sample {
    fn kept_bytes(&self) -> u64 {
        self.journal_bytes + self.commands_bytes + self.snapshots_bytes + self.archive_bytes
    }
}

/// Two snapshots, the older first.
#[derive(Debug, Default)]
struct Stored {
    snapshots: Vec<(Snapshot, Vec<u8>)>,
    /// Closed hours that they name.
    hours: BTreeMap<HourName, Vec<u8>>,
}

impl Stored {
    fn bytes(&self) -> u64 {
        let snapshots = self.snapshots.iter().map(|(_, bytes)| bytes.len() as u64);
        snapshots.chain(self.hours.values().map(|bytes| bytes.len() as u64)).sum()
    }
}

struct Week {
    owner: DrivenOwner,
    stored: Stored,
    archive: Archive,
    audit: AuditLog,
    segment_bytes: u64,
    written: Duration,
    snapshots: u64,
}

/// Runs a week with `n` runs. With `graph` it writes that file, and the samples beside it.
pub fn run(n: u64, graph: Option<&Path>) -> miette::Result<Vec<Figures>> {
    let policy = SnapshotPolicy::default();
    let bar = progress("week", n);
    let begun = Instant::now();
    let mut week = Week {
        owner: DrivenOwner::start(three_noops("three-noops")?, policy)?,
        stored: Stored::default(),
        archive: Archive::default(),
        audit: AuditLog::start()?,
        segment_bytes: policy.segment_bytes,
        written: Duration::ZERO,
        snapshots: 0,
    };
    let mut samples: Vec<Sample> = Vec::new();
    let mut runs = 0;
    while week.owner.passed_ms() < DAYS * DAY_MS {
        let due = u128::from(n) * u128::from(week.owner.passed_ms() + STEP_MS);
        let due = u64::try_from(due / u128::from(DAYS * DAY_MS)).into_diagnostic()?;
        week.step(due - runs)?;
        bar.inc(due - runs);
        runs = due;
        if week.owner.passed_ms().is_multiple_of(HOUR_MS) {
            samples.push(week.sample(runs)?);
        }
    }
    bar.finish_and_clear();
    let records = week.owner.owner().records();
    let flat = flatness(&samples);
    if let Some(path) = graph {
        let title = format!("{n} runs in {DAYS} days of journal time, one partition");
        std::fs::write(path, graph::svg(&title, &samples)).into_diagnostic()?;
        let json = serde_json::to_string_pretty(&samples).into_diagnostic()?;
        std::fs::write(path.with_extension("json"), json + "\n").into_diagnostic()?;
    }
    flat?;
    let last = samples.last().cloned().unwrap_or_default();
    let figures = Figures {
        rss_mib: Some(mebibytes(last.resident_bytes)),
        ..Figures::of("week", n, begun.elapsed())
    };
    let figures = figures.note(format!(
        "{DAYS} days of journal time, {records} records, {} snapshots written in {:.1} s; longest input {:.1} ms",
        week.snapshots,
        week.written.as_secs_f64(),
        week.owner.longest.as_secs_f64() * 1e3,
    ));
    let figures = figures.note(format!(
        "never purged: {:.1} MiB of audit log, {:.0} bytes a run; {} checkpoints of {:.0} bytes, \
         one each {} s of which there was anything to sign",
        mebibytes(week.audit.bytes()),
        count(week.audit.bytes()) / count(n.max(1)),
        week.audit.checkpoints(),
        count(week.audit.checkpoint_bytes()) / count(week.audit.checkpoints().max(1)),
        STEP_MS / 1_000,
    ));
    ensure!(
        week.audit.records() == records,
        "{} of {records} records are in the audit log",
        week.audit.records()
    );
    let figures = days(&samples).into_iter().fold(figures, Figures::note);
    Ok(vec![figures])
}

impl Week {
    fn step(&mut self, events: u64) -> miette::Result<()> {
        let mut asked = self.owner.step(STEP_MS, events)?;
        while !asked.is_empty() {
            let mut attempts = Vec::new();
            let mut more = Vec::new();
            for asked in asked {
                match asked {
                    Asked::Attempt(attempt) => attempts.push(attempt),
                    Asked::Snapshot(frozen) => more.extend(self.store(&frozen)?),
                }
            }
            if !attempts.is_empty() {
                more.extend(self.owner.succeed(attempts)?);
            }
            asked = more;
        }
        self.audit.follow(self.owner.journal.iter(), self.owner.now())
    }

    /// What the coordinator does with a snapshot, and the janitor behind it.
    fn store(&mut self, frozen: &FrozenFold) -> miette::Result<Vec<Asked>> {
        let begun = Instant::now();
        let mark = self.owner.mark(frozen.next_index());
        let stored = self.stored.hours.keys().cloned().collect::<Vec<_>>();
        let written = frozen.encode(&mark, &stored).into_diagnostic()?;
        let new = written.new_hours.into_iter().map(|file| (file.name, file.bytes));
        self.stored.hours.extend(new);
        let read = SnapshotFile::decode(ONLY, &written.bytes).into_diagnostic()?;
        let read = read.with_hours(&self.stored.hours).into_diagnostic()?;
        self.written += begun.elapsed();
        self.snapshots += 1;
        self.stored.snapshots.push((read, written.bytes));
        if self.stored.snapshots.len() > 2 {
            self.stored.snapshots.remove(0);
        }
        if let [(older, _), _] = self.stored.snapshots.as_slice() {
            let first_hour = older.first_hour();
            self.stored.hours.retain(|name, _| name.hour >= first_hour);
            let (sequence, position) = (older.sequence(), older.position().sequence);
            self.owner.commands.retain(|(at, _)| *at >= position);
            let now_ms = self.owner.passed_ms();
            self.archive.archive(&self.owner.journal, sequence, self.segment_bytes, now_ms)?;
            let kept_from = sequence.min(self.archive.archived() + 1);
            while self.owner.journal.front().is_some_and(|first| first.sequence < kept_from) {
                self.owner.journal.pop_front();
            }
            self.archive.forget_before(now_ms.saturating_sub(DAY_MS));
        }
        self.owner.handle(Input::SnapshotEnded, Vec::new())
    }

    fn sample(&self, runs: u64) -> miette::Result<Sample> {
        let hour = self.owner.passed_ms() / HOUR_MS;
        let (journal_bytes, commands_bytes) = self.owner.stream_bytes();
        let mut sample = Sample {
            hour,
            runs,
            resident_bytes: memory(std::process::id())?.now_bytes,
            keys: self.owner.owner().partition().keys_kept() as u64,
            journal_bytes,
            commands_bytes,
            snapshots_bytes: self.stored.bytes(),
            archive_bytes: self.archive.bytes(),
            archived_bytes: self.archive.archived_bytes(),
            audit_bytes: self.audit.bytes(),
            checkpoints_bytes: self.audit.checkpoint_bytes(),
            ..Sample::default()
        };
        if hour.is_multiple_of(RECOVERY_EVERY_HOURS) {
            let (took, tail) = self.recover()?;
            sample.recovery_ms = Some(took.as_secs_f64() * 1e3);
            sample.tail_messages = Some(tail);
        }
        Ok(sample)
    }

    /// What a takeover does: the newest snapshot is read, and the journal behind it folded. What
    /// comes of it must be the owner's own state.
    fn recover(&self) -> miette::Result<(Duration, u64)> {
        let newest = self.stored.snapshots.last();
        let (_, bytes) = newest.ok_or_else(|| miette!("there is no snapshot yet"))?;
        let mut quickest = Duration::MAX;
        let mut tail = 0;
        for _ in 0..RECOVERIES {
            let begun = thread_cpu()?;
            let read = SnapshotFile::decode(ONLY, bytes).into_diagnostic()?;
            let snapshot = read.with_hours(&self.stored.hours).into_diagnostic()?;
            let (sequence, plans) = (snapshot.sequence(), HashMap::from([self.owner.workflow()]));
            let mut fold = snapshot.restore(Limits::default(), plans).into_diagnostic()?;
            tail = 0;
            for message in self.owner.journal.iter().filter(|at| at.sequence > sequence) {
                let decoded = decode(message).into_diagnostic()?;
                fold.fold(message.sequence, &decoded).into_diagnostic()?;
                tail += 1;
            }
            quickest = quickest.min(thread_cpu()?.saturating_sub(begun));
            let same = fold.partition().is_like(self.owner.owner().partition());
            ensure!(same, "a snapshot and what follows is not the state");
        }
        Ok((quickest, tail))
    }
}

/// Fails where the rest of the week is not as day 2 was.
fn flatness(samples: &[Sample]) -> miette::Result<()> {
    let of_day = |from: u64, to: u64| {
        samples.iter().filter(move |sample| (from * 24..=to * 24).contains(&sample.hour))
    };
    let bytes = [
        ("memory", (|sample| sample.resident_bytes) as fn(&Sample) -> u64),
        ("streams and objects", Sample::kept_bytes),
    ];
    for (what, of) in bytes {
        let first = of_day(1, 2).map(of).max().unwrap_or(0);
        let later = of_day(2, DAYS).map(of).max().unwrap_or(0);
        let most = count(first) * FLAT_FACTOR + count(NOISE_BYTES);
        let (first, later_mib) = (mebibytes(first), mebibytes(later));
        ensure!(
            count(later) <= most,
            "{what} grow: {first:.1} MiB on day 2, {later_mib:.1} MiB later"
        );
    }
    let grown = |day: u64| {
        let at = |hour| samples.iter().find(|sample| sample.hour == hour);
        let bytes =
            |hour| at(hour).map_or(0, |sample| sample.audit_bytes + sample.checkpoints_bytes);
        count(bytes((day + 1) * 24).saturating_sub(bytes(day * 24)))
    };
    for day in 2..DAYS {
        let (first, later) = (grown(1), grown(day));
        ensure!(
            later <= first * EVEN_FACTOR + EVEN_BYTES,
            "the audit log grows faster: by {first:.0} bytes on day 2, by {later:.0} on day {}",
            day + 1
        );
    }
    let slowest = |from, to| of_day(from, to).filter_map(|sample| sample.recovery_ms);
    let first = slowest(1, 2).fold(0.0, f64::max);
    let later = slowest(2, DAYS).fold(0.0, f64::max);
    ensure!(
        later <= first * FLAT_FACTOR + NOISE_MS,
        "recovery takes longer: {first:.1} ms on day 2, {later:.1} ms later"
    );
    Ok(())
}

/// A line for each day's end.
fn days(samples: &[Sample]) -> Vec<String> {
    let ends = samples.iter().filter(|sample| sample.hour.is_multiple_of(24));
    let line = |sample: &Sample| {
        format!(
            "day {}: {} runs, memory {:.1} MiB, kept {:.1} MiB (journal {:.1}, commands {:.1}, \
             snapshots {:.1}, archive {:.1} of {:.1}), audit log {:.1} MiB and checkpoints {:.1}, {} keys, recovery {:.1} ms with {} messages",
            sample.hour / 24,
            sample.runs,
            mebibytes(sample.resident_bytes),
            mebibytes(sample.kept_bytes()),
            mebibytes(sample.journal_bytes),
            mebibytes(sample.commands_bytes),
            mebibytes(sample.snapshots_bytes),
            mebibytes(sample.archive_bytes),
            mebibytes(sample.archived_bytes),
            mebibytes(sample.audit_bytes),
            mebibytes(sample.checkpoints_bytes),
            sample.keys,
            sample.recovery_ms.unwrap_or_default(),
            sample.tail_messages.unwrap_or_default(),
        )
    };
    ends.map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(of: impl Fn(u64, &mut Sample)) -> Vec<Sample> {
        let sample = |hour| {
            let mut sample = Sample {
                hour,
                resident_bytes: 100 << 20,
                journal_bytes: 100 << 20,
                recovery_ms: hour.is_multiple_of(6).then_some(100.0),
                ..Sample::default()
            };
            of(hour, &mut sample);
            sample
        };
        (1..=DAYS * 24).map(sample).collect()
    }

    #[test]
    fn a_week_in_which_anything_grows_is_not_flat() {
        assert!(flatness(&samples(|_, _| {})).is_ok());
        assert!(flatness(&samples(|hour, sample| sample.resident_bytes += hour << 20)).is_err());
        assert!(flatness(&samples(|hour, sample| sample.archive_bytes += hour << 20)).is_err());
        let slower = |hour, sample: &mut Sample| {
            sample.recovery_ms = sample.recovery_ms.map(|ms| ms + count(hour));
        };
        assert!(flatness(&samples(slower)).is_err());
    }

    #[test]
    fn an_audit_log_may_grow_evenly_and_no_faster() {
        let evenly = |hour: u64, sample: &mut Sample| sample.audit_bytes = hour << 20;
        let faster = |hour: u64, sample: &mut Sample| sample.audit_bytes = (hour * hour) << 20;

        assert!(flatness(&samples(evenly)).is_ok());
        assert!(flatness(&samples(faster)).is_err());
    }

    #[test]
    fn the_first_day_may_grow() {
        let grows = |hour: u64, sample: &mut Sample| sample.resident_bytes = hour.min(24) << 23;

        assert!(flatness(&samples(grows)).is_ok());
    }
}
