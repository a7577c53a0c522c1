//! Whose turn it is: everything that waits to be decided gets its share.

/// Records that one source decides before the next one has its turn. Default
/// 128: an eighth of a full frame, so that each frame under load has something
/// of everything that waits. A message of commands is decided whole.
pub const TURN_RECORDS: usize = 128;

/// Outcomes that may wait while messages of commands have their turns. Default 1,024: more than
/// a full frame takes, so that frames are full, and some 50 ms of work. Beyond it what was begun
/// goes on before more is begun: otherwise a flood of starts would leave every outcome, of all
/// tenants, behind `attempts_open_max` others.
pub const REPORTS_WAITING_MAX: usize = 1_024;

/// Records of other kinds of work after which commands have a turn, however many outcomes wait.
/// Default 8,192: eight full frames, some 200 ms. A run of a hundred thousand nodes at once does
/// not keep others' events and cancels out.
pub const RECORDS_WITHOUT_COMMANDS_MAX: usize = 8_192;

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
    /// Records of other kinds of work since commands had a turn.
    without_commands: usize,
}

impl Turn {
    /// Something was decided into `records` records.
    pub(super) fn spend(&mut self, records: usize) {
        let records = records.max(1);
        match self.source {
            Source::Commands => {}
            Source::Reports | Source::Timers | Source::HeldBack | Source::Lost => {
                self.without_commands = self.without_commands.saturating_add(records);
            }
        }
        self.records += records;
        if self.records >= TURN_RECORDS {
            self.pass();
        }
    }

    /// Nothing is left to decide, or the turn is over.
    pub(super) fn pass(&mut self) {
        // A whole turn, however small the messages; one in which nothing was decided is none.
        if self.source == Source::Commands && self.records > 0 {
            self.without_commands = 0;
        }
        *self = Self { source: self.source.next(), records: 0, ..*self };
    }

    /// Whether commands wait for some of so many outcomes to be decided first.
    pub(super) fn reports_go_first(&self, reports: usize) -> bool {
        reports > REPORTS_WAITING_MAX && self.without_commands < RECORDS_WITHOUT_COMMANDS_MAX
    }
}
