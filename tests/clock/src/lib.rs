//! Bounds of processor time for tests, which hold on a machine that is busy with other things.
//!
//! Time that other processes take does not count. What remains is that threads which share a core,
//! its caches and the memory slow each other down, two or three times at worst. So what takes too
//! long is tried again, beside a reference that is slowed down as much.

#![expect(clippy::expect_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::time::Duration;

/// How often work is tried before it is called too slow, as [`assert_within`] says.
const TRIES: usize = 5;

/// What the reference takes on the machine that the bounds were chosen on, when it is quiet.
const REFERENCE_TAKES: Duration = Duration::from_millis(7);

/// More than this is no machine that is busy, but one that the bounds are not for.
const SLOWDOWN_MAX: f64 = 4.0;

/// Processor time of this thread so far: what other processes take does not count.
///
/// # Panics
///
/// Panics where threads have no such clock: not on Linux.
#[must_use]
pub fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("no negative time")
}

/// Runs `work`, and again while it takes longer than `limit` of processor time, at most five
/// times. On a machine that is slowed down the limit is as much longer.
///
/// `work` must do the same each time.
///
/// # Panics
///
/// Panics when no try is within the limit.
#[track_caller]
pub fn assert_within<T>(limit: Duration, what: &str, mut work: impl FnMut() -> T) -> T {
    let mut tries = Vec::new();
    let mut before = None;
    loop {
        let begun = processor_time();
        let done = work();
        let took = processor_time() - begun;
        // Nothing is measured beside what is quick enough anyway.
        if took <= limit {
            return done;
        }
        let after = slowdown();
        let allowed = limit.mul_f64(f64::midpoint(before.unwrap_or(after), after));
        tries.push(format!("{took:?} of {allowed:?}"));
        if took <= allowed {
            return done;
        }
        assert!(tries.len() < TRIES, "{what} took longer than {limit:?}: {}", tries.join(", "));
        before = Some(after);
    }
}

/// How much slower this thread is just now than where the bounds come from; at least 1.
fn slowdown() -> f64 {
    let begun = processor_time();
    reference();
    let took = processor_time() - begun;
    took.div_duration_f64(REFERENCE_TAKES).clamp(1.0, SLOWDOWN_MAX)
}

/// What parsers and checks do: many small texts, allocated, compared and found again.
fn reference() {
    let keys = (0..50_000_u32).map(|key| (key.wrapping_mul(2_654_435_761).to_string(), key));
    let map: BTreeMap<String, u32> = keys.collect();
    let sum = map.values().fold(0_u32, |sum, key| sum.wrapping_mul(31).wrapping_add(*key));
    std::hint::black_box(sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spin(time: Duration) {
        let begun = processor_time();
        while processor_time() - begun < time {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn the_reference_takes_what_is_said_of_it_or_the_machine_is_busy() {
        let took: Vec<_> = (0..10)
            .map(|_| {
                let begun = processor_time();
                reference();
                processor_time() - begun
            })
            .collect();
        println!("{took:?}");
        // One that grew quick would forgive no busy machine, one that grew slow would forgive all.
        let best = took.iter().min().copied().unwrap_or_default();
        let right = REFERENCE_TAKES / 4..REFERENCE_TAKES.mul_f64(SLOWDOWN_MAX);
        assert!(right.contains(&best), "{took:?}");
    }

    #[test]
    fn what_is_quick_is_done_once() {
        let mut done = 0;
        assert_within(Duration::from_secs(5), "nothing", || done += 1);
        assert_eq!(done, 1);
    }

    #[test]
    fn one_slow_try_is_forgiven() {
        let mut slow = std::iter::once(Duration::from_millis(250));
        let limit = Duration::from_millis(50);
        assert_within(limit, "one try", || spin(slow.next().unwrap_or_default()));
    }

    #[test]
    #[should_panic(expected = "spinning took longer than 10ms")]
    fn what_is_slow_each_time_fails_however_busy_the_machine_is() {
        let limit = Duration::from_millis(10);
        assert_within(limit, "spinning", || spin(limit.mul_f64(SLOWDOWN_MAX + 1.0)));
    }
}
