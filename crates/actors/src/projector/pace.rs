//! Pace: how much of a machine the read model takes that others want.
//!
//! The thread of the index works in slices and compares, for each, the time by the clock with
//! the processor's time that it got. What is missing went to others: the machine is full. Then
//! it rests, the longer the more was missing, so that caches, memory and the broker are left
//! to them too. On a machine with room it never rests. How much it rests is bounded by how old
//! its answers are: at [`STALE_MAX`] it rests no more.

use std::time::{Duration, Instant};

/// Work after which the pace is looked at.
pub(super) const SLICE: Duration = Duration::from_millis(5);

/// How old answers may get by resting. Beyond, the index works on without a rest, as fast as
/// its priority lets it.
pub const STALE_MAX: Duration = Duration::from_secs(10);

/// Longest rest: a question that comes ends it, a journal message does not.
pub const REST_MAX: Duration = Duration::from_millis(100);

/// How long it rests for the time that others took.
const REST_PER_MISSING: u32 = 4;

/// Less than this share of a slice missing, one in so many, is no full machine.
const MISSING_SHARE: u32 = 10;

/// One slice of work.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slice {
    /// By the clock.
    pub took: Duration,
    /// Of the processor.
    pub got: Duration,
}

/// How long to rest after `slice`, with answers as old as `stale`.
pub(super) fn rest_after(slice: Slice, stale: Duration) -> Duration {
    let missing = slice.took.saturating_sub(slice.got);
    if missing * MISSING_SHARE < slice.took || stale >= STALE_MAX {
        return Duration::ZERO;
    }
    let wanted = (missing * REST_PER_MISSING).min(REST_MAX);
    // The older the answers, the shorter.
    wanted.mul_f64(1.0 - stale.as_secs_f64() / STALE_MAX.as_secs_f64())
}

/// Measures slices.
#[derive(Debug)]
pub(super) struct Pace {
    took: Duration,
    got: Duration,
}

impl Pace {
    pub fn new() -> Self {
        Self { took: Duration::ZERO, got: Duration::ZERO }
    }

    /// Does some work; tells of a slice when one is full.
    pub fn work<T>(&mut self, work: impl FnOnce() -> T) -> (T, Option<Slice>) {
        let (begun, processor) = (Instant::now(), processor_time());
        let done = work();
        let took = begun.elapsed();
        self.took += took;
        // Where nobody says how much of the processor it got, it got all.
        self.got += match (processor, processor_time()) {
            (Some(before), Some(after)) => after.saturating_sub(before),
            (None, _) | (_, None) => took,
        };
        if self.took < SLICE {
            return (done, None);
        }
        let slice = Slice { took: self.took, got: self.got };
        *self = Self::new();
        (done, Some(slice))
    }
}

/// Processor's time of this thread so far, where the system tells.
#[cfg(target_os = "linux")]
fn processor_time() -> Option<Duration> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).ok()
}

#[cfg(not(target_os = "linux"))]
fn processor_time() -> Option<Duration> {
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slice(took_ms: u64, got_ms: u64) -> Slice {
        Slice { took: Duration::from_millis(took_ms), got: Duration::from_millis(got_ms) }
    }

    #[test]
    fn a_machine_with_room_is_used_without_a_rest() {
        assert_eq!(rest_after(slice(10, 10), Duration::ZERO), Duration::ZERO);
        assert_eq!(rest_after(slice(1_000, 950), Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn what_others_took_is_left_to_them_for_longer() {
        assert_eq!(rest_after(slice(10, 5), Duration::ZERO), Duration::from_millis(20));
    }

    #[test]
    fn answers_that_are_as_old_as_they_may_be_end_all_rest() {
        assert_eq!(rest_after(slice(10, 1), STALE_MAX), Duration::ZERO);
        assert_eq!(rest_after(slice(10, 1), STALE_MAX * 2), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn a_rest_is_bounded_and_shorter_the_older_the_answers_are(
            took in 0..10_000_u64,
            got in 0..10_000_u64,
            stale in 0..20_000_u64,
            older in 0..20_000_u64,
        ) {
            let rest = |stale| rest_after(slice(took, got), Duration::from_millis(stale));

            prop_assert!(rest(stale) <= REST_MAX);
            prop_assert!(rest(stale + older) <= rest(stale));
        }
    }
}
