//! Whose turn it is: everything that waits to be decided gets its share.

/// Records that one source decides before the next one has its turn. Default
/// 128: an eighth of a full frame, so that each frame under load has something
/// of everything that waits. A message of commands is decided whole.
pub const TURN_RECORDS: usize = 128;

/// What there is to decide, in the order of turns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Source {
    /// Outcomes from inside the process.
    #[default]
    Reports,
    /// Deadlines and retries that are due.
    Timers,
    /// Runs that a bound held back.
    HeldBack,
    /// What the last owner ordered and nobody finished.
    Lost,
    /// Messages of commands.
    Commands,
}

impl Source {
    /// How many there are.
    pub(super) const COUNT: usize = 5;

    fn next(self) -> Self {
        match self {
            Self::Reports => Self::Timers,
            Self::Timers => Self::HeldBack,
            Self::HeldBack => Self::Lost,
            Self::Lost => Self::Commands,
            Self::Commands => Self::Reports,
        }
    }
}

/// Whose turn it is, kept from frame to frame: a source that fills frame after
/// frame does not begin each of them.
#[derive(Debug, Default)]
pub(super) struct Turn {
    pub(super) source: Source,
    records: usize,
}

impl Turn {
    /// Something was decided into `records` records.
    pub(super) fn spend(&mut self, records: usize) {
        self.records += records.max(1);
        if self.records >= TURN_RECORDS {
            self.pass();
        }
    }

    /// Nothing is left to decide, or the turn is over.
    pub(super) fn pass(&mut self) {
        *self = Self { source: self.source.next(), records: 0 };
    }
}
