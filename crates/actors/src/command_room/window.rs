//! How many commands of one builder may stand before one partition, undecided.
//!
//! Whoever comes last to COMMANDS waits for all that is in it. So a builder publishes no more
//! than the partition decides in about [`AHEAD_MAX`]; the rest waits where it can still be
//! passed. How fast the partition decides is measured only while frames wait for this window:
//! at other times it decides what there is. Nor is a window trusted that lets the partition
//! run dry: it doubles.
//!
//! A window is for a partition that decides. One that stands still (it has no owner, is halted,
//! or nobody can be asked) would hold up what comes for all others: after [`STANDSTILL`] its
//! frames pass as if there were no window, up to what COMMANDS holds. When it goes on, frames
//! pass half as fast as it decides until what has piled up is gone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Commands that may be undecided at first: a partition that decides 40,000 per second, more
/// than any was seen to, takes 100 ms for them.
pub const WINDOW_FIRST: u64 = 4_096;

/// Commands that may always be undecided: 250 ms of 1,000 per second.
pub const WINDOW_MIN: u64 = 256;

/// Frames that may always be undecided: a slow partition has one to decide while the next one
/// is on its way.
const FRAMES_MIN: u64 = 2;

/// Commands that may be undecided at the most: 250 ms of 260,000 per second.
pub const WINDOW_MAX: u64 = 65_536;

/// What the partition decides in this time may be undecided, and no more: this long another
/// tenant's event waits behind it.
pub const AHEAD_MAX: Duration = Duration::from_millis(250);

/// How long it is measured at least before the window follows: several frames, and answers.
const MEASURED_FOR: Duration = Duration::from_millis(250);

/// After how long without a frame that waits the partition decides what there is, not what it can.
const WAITING_GAP: Duration = Duration::from_millis(100);

/// How often it is asked how far the partition has come, at most: the answer is a message of
/// its journal, up to 1 MiB. Where it is asked half as often, the partition runs dry between
/// answers, or has more before it than [`AHEAD_MAX`].
pub const ASK_INTERVAL: Duration = Duration::from_millis(100);

/// How often a partition is asked whose answers tell nothing new.
pub const ASK_INTERVAL_MAX: Duration = Duration::from_secs(1);

/// The same while frames wait and it may yet be found to go on: several times within
/// [`STANDSTILL`].
const ASK_INTERVAL_WAITING: Duration = Duration::from_millis(250);

/// How long nothing may be known to be committed before the frames that wait pass all the same.
pub const STANDSTILL: Duration = Duration::from_secs(1);

/// How long none of this builder's frames may be decided, though the partition goes on with
/// what others have published, or with outcomes, before one of those that wait passes.
pub const UNSERVED_MAX: Duration = Duration::from_secs(5);

/// How often one passes from then on: the partition goes on, so what it has before it is not to
/// grow without a bound.
pub const UNSERVED_PAUSE: Duration = Duration::from_secs(1);

/// Frames whose places are known one by one; further ones count with the last of them.
const FRAMES_KNOWN_MAX: usize = 65_536;

/// Frames wait since the partition was last known to go on.
#[derive(Debug, Clone, Copy)]
struct Blocked {
    /// Since it was last known to commit anything, commands or other work.
    moved: Instant,
    /// Since it decided anything of ours.
    served: Instant,
    /// When the last frame passed all the same.
    passed: Option<Instant>,
}

impl Blocked {
    fn stands_still(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.moved) >= STANDSTILL
    }

    /// Frames have waited for so long that one passes.
    fn passes(&self, now: Instant) -> bool {
        let since = |at: Instant| now.saturating_duration_since(at);
        let unserved = since(self.served) >= UNSERVED_MAX;
        self.stands_still(now)
            || (unserved && self.passed.is_none_or(|passed| since(passed) >= UNSERVED_PAUSE))
    }
}

/// What was decided while frames waited.
#[derive(Debug, Clone, Copy)]
struct Measure {
    since: Instant,
    /// When the last frame had to wait.
    waited_at: Instant,
    commands: u64,
}

impl Measure {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.waited_at) > WAITING_GAP
    }
}

/// A question how far the partition has come; only one is under way.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "nothing is asked until it is answered"]
pub(super) struct Question {
    /// Commands of frames that are stored nowhere, or at or below what the end of COMMANDS
    /// is from now on.
    unknown: u64,
}

impl Question {
    /// Whether the end of COMMANDS is asked for, too.
    pub(super) fn wants_end(&self) -> bool {
        self.unknown > 0
    }
}

/// What came of a question.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Answer {
    /// Sequence of the last message of COMMANDS.
    pub(super) end: Option<u64>,
    pub(super) newest: Option<Newest>,
}

/// The newest message of a partition's journal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Newest {
    /// Its sequence.
    pub(super) sequence: u64,
    /// Sequence of the last message of COMMANDS that it says is decided.
    pub(super) decided: u64,
}

/// What one builder has published for one partition that is not decided.
#[derive(Debug)]
pub(super) struct Window {
    /// How many commands may be undecided.
    size: u64,
    /// Commands of the largest frame since the window last followed.
    frame: u64,
    /// Twice as many as may be until what passed during a standstill is decided.
    ceiling_twice: u64,
    /// Commands of frames that are being published.
    on_the_way: u64,
    /// Commands of frames by their sequences, and all of them together.
    stored: BTreeMap<u64, u64>,
    stored_commands: u64,
    /// Commands of frames that may be stored, nobody knows where.
    unknown: u64,
    /// Sequence up to which the partition is known to have decided.
    decided: u64,
    /// Sequence of the newest message of its journal that was read.
    journal: Option<u64>,
    blocked: Option<Blocked>,
    measure: Option<Measure>,
    is_asking: bool,
    asked_at: Option<Instant>,
    heard_at: Option<Instant>,
    ask_interval: Duration,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            size: WINDOW_FIRST,
            frame: 0,
            ceiling_twice: 0,
            on_the_way: 0,
            stored: BTreeMap::new(),
            stored_commands: 0,
            unknown: 0,
            decided: 0,
            journal: None,
            blocked: None,
            measure: None,
            is_asking: false,
            asked_at: None,
            heard_at: None,
            ask_interval: ASK_INTERVAL,
        }
    }
}

impl Window {
    /// Commands that are, or may be, published and not decided.
    fn outstanding(&self) -> u64 {
        self.on_the_way + self.stored_commands + self.unknown
    }

    fn limit(&self) -> u64 {
        self.size.max(self.ceiling_twice / 2)
    }

    /// Whether a frame of so many commands may be published. One larger than the window may
    /// when it is alone.
    pub(super) fn admits(&mut self, commands: u64, now: Instant) -> bool {
        let outstanding = self.outstanding();
        let with = outstanding.saturating_add(commands);
        if outstanding == 0 || with <= self.limit() {
            self.blocked = None;
            return true;
        }
        if self.blocked.is_some_and(|blocked| blocked.passes(now)) {
            return true;
        }
        self.frame = self.frame.max(commands);
        self.blocked.get_or_insert(Blocked { moved: now, served: now, passed: None });
        let begun = Measure { since: now, waited_at: now, commands: 0 };
        let measure = self.measure.filter(|measure| !measure.is_over(now)).unwrap_or(begun);
        self.measure = Some(Measure { waited_at: now, ..measure });
        false
    }

    /// A frame of so many commands is being published.
    pub(super) fn begin(&mut self, commands: u64, now: Instant) {
        self.frame = self.frame.max(commands);
        self.on_the_way = self.on_the_way.saturating_add(commands);
        // One that passes during a standstill: what fits ends the wait before.
        let outstanding = self.outstanding();
        if let Some(blocked) = &mut self.blocked {
            blocked.passed = Some(now);
            self.ceiling_twice = outstanding.saturating_mul(2);
        }
    }

    /// It is stored.
    pub(super) fn stored(&mut self, sequence: u64, commands: u64, now: Instant) {
        self.on_the_way = self.on_the_way.saturating_sub(commands);
        self.place(sequence, commands, now);
    }

    /// It is not stored, and will not be: nor does it hold the ceiling up.
    pub(super) fn refused(&mut self, commands: u64) {
        self.on_the_way = self.on_the_way.saturating_sub(commands);
        self.ceiling_twice = self.ceiling_twice.min(self.outstanding().saturating_mul(2));
    }

    /// Nobody knows whether it is stored.
    pub(super) fn lost_sight(&mut self, commands: u64) {
        self.on_the_way = self.on_the_way.saturating_sub(commands);
        self.unknown = self.unknown.saturating_add(commands);
    }

    fn place(&mut self, sequence: u64, commands: u64, now: Instant) {
        if sequence <= self.decided {
            return self.count_decided(commands, now);
        }
        self.stored_commands = self.stored_commands.saturating_add(commands);
        let (mut at, mut of_all) = (sequence, commands);
        if self.stored.len() >= FRAMES_KNOWN_MAX
            && let Some((last, commands)) = self.stored.pop_last()
        {
            (at, of_all) = (last.max(sequence), of_all.saturating_add(commands));
        }
        *self.stored.entry(at).or_default() += of_all;
    }

    /// The partition's owner, which is near, has committed a frame, and decided all messages of
    /// COMMANDS up to `sequence`: maybe none of late, while it decides outcomes first.
    pub(super) fn decided_up_to(&mut self, sequence: u64, now: Instant) {
        self.goes_on(now);
        self.advance(sequence, now);
    }

    /// The partition has committed something.
    fn goes_on(&mut self, now: Instant) {
        self.heard_at = Some(now);
        if let Some(blocked) = &mut self.blocked {
            blocked.moved = now;
        }
    }

    /// All messages of COMMANDS up to `sequence` are decided.
    fn advance(&mut self, sequence: u64, now: Instant) {
        if sequence <= self.decided {
            return;
        }
        self.decided = sequence;
        self.ask_interval = ASK_INTERVAL;
        self.goes_on(now);
        let mut commands: u64 = 0;
        while let Some(first) = self.stored.first_entry().filter(|first| *first.key() <= sequence) {
            commands = commands.saturating_add(first.remove());
        }
        self.stored_commands = self.stored_commands.saturating_sub(commands);
        if commands > 0 {
            self.count_decided(commands, now);
        }
        self.follow(now);
    }

    fn count_decided(&mut self, commands: u64, now: Instant) {
        self.ceiling_twice = self.ceiling_twice.saturating_sub(commands);
        if let Some(blocked) = &mut self.blocked {
            blocked.served = now;
        }
        if let Some(measure) = &mut self.measure {
            measure.commands = measure.commands.saturating_add(commands);
        }
    }

    /// Follows what was measured while frames waited.
    fn follow(&mut self, now: Instant) {
        let Some(measure) = self.measure.filter(|measure| !measure.is_over(now)) else { return };
        let measured_for = now.saturating_duration_since(measure.since);
        let size = if self.stored_commands == 0 && measure.commands == 0 {
            // It had nothing of ours, and decides what others have published: that is no measure.
            self.measure = None;
            return;
        } else if self.stored_commands == 0 {
            // All that it was given is decided, and more waits here.
            self.size.saturating_mul(2)
        } else if measured_for >= MEASURED_FOR {
            let commands = u128::from(measure.commands) * AHEAD_MAX.as_nanos();
            let ahead = u64::try_from(commands / measured_for.as_nanos().max(1));
            // A pause of the partition is not its pace: half at a time.
            self.size.min(ahead.unwrap_or(u64::MAX).max(self.size / 2))
        } else {
            return;
        };
        let least = self.frame.saturating_mul(FRAMES_MIN).max(WINDOW_MIN);
        self.size = size.max(least).min(WINDOW_MAX);
        self.frame = 0;
        self.measure = None;
    }

    /// What is to be asked now, if anything: while no frame waits and less than half of the
    /// window is undecided, or who decides tells of itself, nothing is.
    pub(super) fn question(&mut self, now: Instant) -> Option<Question> {
        let has_room = self.blocked.is_none() && self.outstanding() <= self.size / 2;
        if self.is_asking || has_room {
            return None;
        }
        // Who decides does not know what was published without an answer.
        let heard_at = self.heard_at.filter(|_| self.unknown == 0);
        let last = self.asked_at.max(heard_at);
        if last.is_some_and(|last| now.saturating_duration_since(last) < self.ask_pause(now)) {
            return None;
        }
        self.is_asking = true;
        self.asked_at = Some(now);
        Some(Question { unknown: self.unknown })
    }

    /// How long after an answer the next one may be asked for.
    fn ask_pause(&self, now: Instant) -> Duration {
        match self.blocked {
            Some(blocked) if !blocked.stands_still(now) => {
                self.ask_interval.min(ASK_INTERVAL_WAITING)
            }
            Some(_) | None => self.ask_interval,
        }
    }

    /// Takes what came of a question.
    pub(super) fn answered(&mut self, question: &Question, answer: Answer, now: Instant) {
        self.is_asking = false;
        self.ask_interval = (self.ask_interval * 2).min(ASK_INTERVAL_MAX);
        if let Some(end) = answer.end {
            self.unknown = self.unknown.saturating_sub(question.unknown);
            self.place(end, question.unknown, now);
        }
        let Some(newest) = answer.newest else { return };
        self.advance(newest.decided, now);
        // The first one that is read says nothing of when it was written.
        if self.journal.is_some_and(|known| newest.sequence > known) {
            self.goes_on(now);
        }
        self.journal = self.journal.max(Some(newest.sequence));
    }
}

#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;
