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
    seen: Option<(u64, u64)>,
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

    /// How far the own wall clock is from the broker's, milliseconds; signed,
    /// positive when the own clock is ahead.
    #[must_use]
    pub fn skew_ms(&self, now: Now) -> Option<i64> {
        let broker = i64::try_from(self.broker_now(now)?).ok()?;
        Some(i64::try_from(now.wall_ms).ok()?.saturating_sub(broker))
    }

    fn broker_now(&self, now: Now) -> Option<u64> {
        let (broker_ms, at) = self.seen?;
        Some(broker_ms.saturating_add(now.monotonic_ms.saturating_sub(at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall_ms: u64, monotonic_ms: u64) -> Now {
        Now { wall_ms, monotonic_ms }
    }

    #[test]
    fn time_never_falls_and_never_runs_far_ahead_of_the_broker() {
        let mut clock = JournalClock::default();
        clock.see(1_000_000 * 1_000_000, at(1_000_000, 0));

        assert_eq!(clock.next(at(1_000_100, 100)), JournalTime(1_000_100));
        assert_eq!(clock.next(at(500, 200)), JournalTime(1_000_100), "the wall clock fell");
        let jumped = clock.next(at(9_000_000, 300));
        assert_eq!(jumped, JournalTime(1_000_300 + AHEAD_MS_MAX), "the wall clock jumped");
        assert_eq!(clock.skew_ms(at(9_000_000, 300)), Some(9_000_000 - 1_000_300));
    }

    #[test]
    fn a_time_is_reached_when_both_clocks_allow_it() {
        let mut clock = JournalClock::default();
        clock.see(1_000_000 * 1_000_000, at(1_000_000, 0));
        let due = JournalTime(1_020_000);

        let on_time = clock.reaches_in_ms(due, at(1_000_000, 0));
        let ahead = clock.reaches_in_ms(due, at(1_060_000, 0));
        let behind = clock.reaches_in_ms(due, at(990_000, 0));

        assert_eq!(on_time, 20_000);
        assert_eq!(ahead, 20_000 - AHEAD_MS_MAX, "the broker's clock holds it back");
        assert_eq!(behind, 30_000, "the own clock holds it back");
        assert_eq!(clock.next(at(1_060_000, ahead)), due);
        assert_eq!(clock.reaches_in_ms(due, at(0, ahead)), 0);
    }
}
