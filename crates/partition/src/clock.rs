//! Journal time: set by the owner, never falling, never far ahead of the broker.

use fermata_core::identity::JournalTime;

use crate::message::Now;

/// How far journal time may run ahead of the broker's clock, milliseconds.
/// Covers the delay between storing and reading a message.
pub const AHEAD_MS_MAX: u64 = 5_000;

/// A difference between the own clock and the broker's that is an alarm, milliseconds.
pub const SKEW_ALARM_MS: u64 = 30_000;

/// Sets the time of frames: max(previous, min(own wall clock, broker's time as
/// last seen + own monotonic time since + [`AHEAD_MS_MAX`])).
///
/// A publish acknowledgement carries no time, so the broker's time is taken
/// from the messages that are read: the journal's own and the commands.
#[derive(Debug, Clone, Default)]
pub struct JournalClock {
    previous: JournalTime,
    /// Where the broker's clock stood at least, and when by the monotonic clock.
    seen: Option<(u64, u64)>,
    /// Where it stood at most, and when.
    bounded: Option<(u64, u64)>,
}

impl JournalClock {
    /// Notes that the broker's clock stood at `broker_time_ns` no later than `now`.
    pub fn see(&mut self, broker_time_ns: i64, now: Now) {
        let broker_ms = u64::try_from(broker_time_ns / 1_000_000).unwrap_or(0);
        let estimate = self.broker_now(now).unwrap_or(0);
        if broker_ms >= estimate {
            self.seen = Some((broker_ms, now.monotonic_ms));
        }
    }

    /// Notes that the broker's clock stood at `broker_time_ns` after `asked_monotonic_ms` and no later than
    /// `now`: when it stored what was sent then.
    ///
    /// Whoever reads what was stored long ago, or what a broker that was stopped gives late, does not
    /// learn how the clocks stand now; this bounds it.
    pub fn see_answer(&mut self, broker_time_ns: i64, asked_monotonic_ms: u64, now: Now) {
        self.see(broker_time_ns, now);
        let broker_ms = u64::try_from(broker_time_ns / 1_000_000).unwrap_or(0);
        self.bounded = Some((broker_ms, asked_monotonic_ms));
    }

    /// Raises the previous time to that of a replayed frame.
    pub fn replayed(&mut self, time: JournalTime) {
        self.previous = self.previous.max(time);
    }

    /// The time of a frame that is begun `now`.
    pub fn next(&mut self, now: Now) -> JournalTime {
        self.previous = self.peek(now);
        self.previous
    }

    /// The time that a frame begun `now` would have.
    #[must_use]
    pub fn peek(&self, now: Now) -> JournalTime {
        self.previous.max(JournalTime(now.wall_ms.min(self.bound(now).unwrap_or(u64::MAX))))
    }

    /// In how many milliseconds frames reach `due`, if the clocks go on as they
    /// are: not before both the own clock and the broker's allow it.
    #[must_use]
    pub fn reaches_in_ms(&self, due: JournalTime, now: Now) -> u64 {
        if self.previous >= due {
            return 0;
        }
        let by_broker = self.bound(now).map_or(0, |bound| due.0.saturating_sub(bound));
        due.0.saturating_sub(now.wall_ms).max(by_broker)
    }

    fn bound(&self, now: Now) -> Option<u64> {
        Some(self.broker_now(now)?.saturating_add(AHEAD_MS_MAX))
    }

    /// How far the own wall clock is from the broker's for certain, milliseconds; signed,
    /// positive when the own clock is ahead. Nothing until the broker has answered.
    #[must_use]
    pub fn skew_ms(&self, now: Now) -> Option<i64> {
        let least = self.broker_now(now)?;
        // A clock that was set forward since.
        let most = at(self.bounded?, now).max(least);
        let wall = i64::try_from(now.wall_ms).ok()?;
        let nearest = i64::try_from(now.wall_ms.clamp(least, most)).ok()?;
        Some(wall.saturating_sub(nearest))
    }

    fn broker_now(&self, now: Now) -> Option<u64> {
        Some(at(self.seen?, now))
    }
}

/// Where a clock stands `now` that stood somewhere at some time.
fn at((clock_ms, monotonic_ms): (u64, u64), now: Now) -> u64 {
    clock_ms.saturating_add(now.monotonic_ms.saturating_sub(monotonic_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(wall_ms: u64, monotonic_ms: u64) -> Now {
        Now { wall_ms, monotonic_ms }
    }

    #[test]
    fn time_never_falls_and_never_runs_far_ahead_of_the_broker() {
        let mut clock = JournalClock::default();
        clock.see_answer(1_000_000 * 1_000_000, 0, now(1_000_000, 0));

        assert_eq!(clock.next(now(1_000_100, 100)), JournalTime(1_000_100));
        assert_eq!(clock.next(now(500, 200)), JournalTime(1_000_100), "the wall clock fell");
        let jumped = clock.next(now(9_000_000, 300));
        assert_eq!(jumped, JournalTime(1_000_300 + AHEAD_MS_MAX), "the wall clock jumped");
        assert_eq!(clock.skew_ms(now(9_000_000, 300)), Some(9_000_000 - 1_000_300));
    }

    #[test]
    fn what_was_read_late_does_not_tell_how_the_clocks_stand() {
        let (mut clock, minute_ms) = (JournalClock::default(), 60_000);
        // The journal's last message is an hour old, and nobody has answered.
        clock.see(1_000_000 * 1_000_000, now(4_600_000, 0));
        assert_eq!(clock.skew_ms(now(4_600_000, 0)), None);

        // The claim was stored at once, and the broker was stopped for a minute before it said so.
        clock.see_answer(4_600_100 * 1_000_000, 100, now(4_600_100 + minute_ms, 100 + minute_ms));

        assert_eq!(clock.skew_ms(now(4_660_100, 60_100)), Some(0));
        let ahead = clock.skew_ms(now(4_760_100, 60_100));
        assert_eq!(ahead, Some(100_000), "the own clock is ahead of what the broker's can be");
        let behind = clock.skew_ms(now(4_500_100, 60_100));
        assert_eq!(behind, Some(-100_000), "it is behind what the broker's was at least");
    }

    #[test]
    fn a_time_is_reached_when_both_clocks_allow_it() {
        let mut clock = JournalClock::default();
        clock.see(1_000_000 * 1_000_000, now(1_000_000, 0));
        let due = JournalTime(1_020_000);

        let on_time = clock.reaches_in_ms(due, now(1_000_000, 0));
        let ahead = clock.reaches_in_ms(due, now(1_060_000, 0));
        let behind = clock.reaches_in_ms(due, now(990_000, 0));

        assert_eq!(on_time, 20_000);
        assert_eq!(ahead, 20_000 - AHEAD_MS_MAX, "the broker's clock holds it back");
        assert_eq!(behind, 30_000, "the own clock holds it back");
        assert_eq!(clock.next(now(1_060_000, ahead)), due);
        assert_eq!(clock.reaches_in_ms(due, now(0, ahead)), 0);
    }
}
