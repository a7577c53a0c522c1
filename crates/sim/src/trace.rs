//! What a simulation says: its trace, and what it found broken.

use std::collections::VecDeque;
use std::fmt;

/// Lines kept for the report of a violation.
const LINES_KEPT: usize = 30;

/// What one simulation came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// The seed.
    pub seed: u64,
    /// Steps taken.
    pub steps: u64,
    /// Outputs of state machines carried out: the points where a worker can crash.
    pub outputs: u64,
    /// Simulated time, milliseconds.
    pub simulated_ms: u64,
    /// FNV-1a over every line.
    pub hash: u64,
    /// Messages in the journal.
    pub journal_messages: u64,
    /// Records in the journal.
    pub records: u64,
    /// Owners that took the partition over.
    pub epochs: u64,
    /// Workers that crashed.
    pub crashes: u64,
    /// Attempts of effects that started.
    pub attempts: u64,
    /// Comparisons of a live state with the fold of the journal.
    pub folds_compared: u64,
    /// Commands, messages and runs that an owner could not decide.
    pub undecidable: u64,
    /// Snapshots that reached the store.
    pub snapshots_stored: u64,
    /// Attempts to own that began from one.
    pub begun_from_snapshots: u64,
    /// Closed hours that were stored.
    pub hours_stored: u64,
    /// Closed hours that lives began from.
    pub hours_read: u64,
    /// Tasks of queues that workers were given.
    pub tasks_delivered: u64,
    /// Those of them that were given before.
    pub tasks_redelivered: u64,
    /// Tasks that left their queue unbegun, for their run was closing.
    pub tasks_taken_back: u64,
    /// Losses of the journal's end that were accepted: 0 or 1, the last thing of a life.
    pub losses_accepted: u64,
}

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) invariant: &'static str,
    pub(crate) detail: String,
}

impl Broken {
    pub(crate) fn new(invariant: &'static str, detail: impl Into<String>) -> Self {
        Self { invariant, detail: detail.into() }
    }
}

/// A violation of an invariant, and how it came about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Violation {
    /// The seed that repeats it.
    pub seed: u64,
    /// The step at which it was seen.
    pub step: u64,
    /// Name of the invariant.
    pub invariant: &'static str,
    /// What was seen.
    pub detail: String,
    /// The last lines of the trace.
    pub lines: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, step, invariant, detail, lines } = self;
        writeln!(formatter, "seed {seed}, step {step}: `{invariant}` does not hold: {detail}")?;
        lines.iter().try_for_each(|line| writeln!(formatter, "    {line}"))
    }
}

/// The lines of a running simulation.
#[derive(Debug)]
pub(crate) struct Log {
    hash: u64,
    lines: VecDeque<String>,
    verbose: bool,
}

impl Log {
    pub(crate) fn new(verbose: bool) -> Self {
        Self { hash: 0xCBF2_9CE4_8422_2325, lines: VecDeque::new(), verbose }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }

    pub(crate) fn line(&mut self, at_ms: u64, text: impl fmt::Display) {
        let line = format!("{at_ms:>7} {text}");
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
        if self.verbose {
            eprintln!("{line}");
        }
        if self.lines.len() == LINES_KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }
}
