//! How full one partition's COMMANDS is, as a builder knows it.
//!
//! What the broker said last, and what this process has published that the answer may not show.
//! Other builders' part is missing until the next look; looks come often where it matters, and
//! the rest of the stream is room for that.

use std::time::{Duration, Instant};

/// Percent of its bytes up to which events may fill COMMANDS of a partition.
pub const INTAKE_PERCENT_MAX: u64 = 80;

/// Percent from which on the broker is asked more often.
const NEAR_PERCENT: u64 = 50;

/// How often the broker is asked how full a stream is that has room, at most.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The same for one that has not: what is purged is noticed after that at the latest.
pub const LOOK_INTERVAL_NEAR: Duration = Duration::from_millis(100);

/// How full a stream was.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    bytes: u64,
    bytes_max: u64,
}

/// What is known of how full it is.
#[derive(Debug, Default)]
pub(super) struct Fill {
    look: Option<Look>,
    /// Bytes of all frames that were let through.
    begun: u64,
    /// Bytes of those whose publish has ended, stored or not.
    ended: u64,
    /// What had ended when the look was asked for: an answer may not show the rest yet.
    ended_before_look: u64,
    is_looking: bool,
}

impl Fill {
    /// Bytes that the stream may hold beyond what the look shows.
    fn unseen(&self) -> u64 {
        self.begun.saturating_sub(self.ended_before_look)
    }

    /// Percent to which the stream is filled with so many bytes more; without a limit none.
    fn percent_with(&self, look: &Look, bytes: u64) -> u64 {
        let filled = look.bytes.saturating_add(self.unseen()).saturating_add(bytes);
        filled.saturating_mul(100).checked_div(look.bytes_max).unwrap_or(0)
    }

    fn is_old(&self, look: &Look, now: Instant) -> bool {
        let near = self.percent_with(look, 0) >= NEAR_PERCENT;
        let interval = if near { LOOK_INTERVAL_NEAR } else { LOOK_INTERVAL };
        now.saturating_duration_since(look.at) >= interval
    }

    /// The bytes that have ended when the broker is to be asked now, if it is.
    ///
    /// One at a time asks; meanwhile all frames go by what is known.
    pub(super) fn look(&mut self, now: Instant) -> Option<u64> {
        let is_old = self.look.as_ref().is_none_or(|look| self.is_old(look, now));
        let asks = is_old && !std::mem::replace(&mut self.is_looking, true);
        asks.then_some(self.ended)
    }

    /// Decides on a frame of so many bytes, which count from then on if it is let through.
    pub(super) fn admit(&mut self, bytes: u64) -> Admission {
        let Some(look) = &self.look else {
            return Admission::Unknown;
        };
        // A stream smaller than a frame takes one when it is empty.
        let filled = look.bytes.saturating_add(self.unseen());
        if filled > 0 && self.percent_with(look, bytes) > INTAKE_PERCENT_MAX {
            return Admission::Wait;
        }
        self.begun = self.begun.saturating_add(bytes);
        Admission::Publish
    }

    /// A frame of so many bytes is stored or not, and a look that is asked for from now on shows it.
    pub(super) fn end(&mut self, bytes: u64) {
        self.ended = self.ended.saturating_add(bytes);
    }

    /// Takes what the broker said to a look that was asked for when `ended` bytes had ended.
    pub(super) fn looked(&mut self, answer: Option<(u64, u64)>, ended: u64, at: Instant) {
        self.is_looking = false;
        match (answer, &mut self.look) {
            (Some((bytes, bytes_max)), look) => {
                *look = Some(Look { at, bytes, bytes_max });
                self.ended_before_look = ended;
            }
            // What was known holds until the broker answers again; it refuses when full.
            (None, Some(look)) => look.at = at,
            (None, look @ None) => *look = Some(Look { at, bytes: 0, bytes_max: 0 }),
        }
    }
}

/// What a frame of intake may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    Publish,
    /// Once the broker has been asked for the first time.
    Unknown,
    /// Later.
    Wait,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn looked_at(bytes: u64, bytes_max: u64) -> Fill {
        let mut fill = Fill::default();
        fill.looked(Some((bytes, bytes_max)), 0, Instant::now());
        fill
    }

    fn is_old_after(fill: &Fill, interval: Duration) -> bool {
        let look = fill.look.expect("a look");
        fill.is_old(&look, look.at + interval)
    }

    #[test]
    fn a_stream_without_a_limit_is_never_filled() {
        assert_eq!(looked_at(u64::MAX, 0).admit(7), Admission::Publish);
    }

    #[test]
    fn a_stream_that_fills_is_looked_at_more_often() {
        let mut fill = looked_at(10, 100);
        assert!(!is_old_after(&fill, LOOK_INTERVAL_NEAR));
        assert!(is_old_after(&fill, LOOK_INTERVAL));

        assert_eq!(fill.admit(45), Admission::Publish);

        assert!(is_old_after(&fill, LOOK_INTERVAL_NEAR), "what is published counts");
    }

    #[test]
    fn only_one_asks_and_all_go_by_what_is_known() {
        let mut fill = looked_at(10, 100);
        let later = Instant::now() + LOOK_INTERVAL;

        assert_eq!(fill.look(later), Some(0));
        assert_eq!(fill.look(later), None);
        assert_eq!(fill.admit(1), Admission::Publish);
        assert_eq!(fill.admit(70), Admission::Wait);
    }

    #[test]
    fn nothing_passes_before_the_first_look_which_only_one_takes() {
        let mut fill = Fill::default();
        let now = Instant::now();

        assert_eq!(fill.look(now), Some(0));
        assert_eq!(fill.look(now), None);
        assert_eq!(fill.admit(1), Admission::Unknown);
        fill.looked(None, 0, now);

        assert_eq!(fill.admit(1), Admission::Publish, "who cannot be asked holds nothing up");
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Admit(u64),
        Store(usize),
        Ask,
        Answer,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1..30_u64).prop_map(Step::Admit),
            3 => (0..8_usize).prop_map(Step::Store),
            1 => Just(Step::Ask),
            1 => Just(Step::Answer),
        ]
    }

    proptest! {
        /// An answer tells of a moment between question and answer, and frames are on their way
        /// all the while: whatever the order, events never fill more than is theirs.
        #[test]
        fn one_builder_never_fills_more_than_is_for_events(
            steps in proptest::collection::vec(step(), 1..200),
        ) {
            let bytes_max = 100;
            let mut fill = looked_at(0, bytes_max);
            let (mut stored, mut on_the_way, mut asked) = (0, Vec::new(), None);
            let now = Instant::now();
            for step in steps {
                match step {
                    Step::Admit(bytes) => {
                        if fill.admit(bytes) == Admission::Publish {
                            on_the_way.push(bytes);
                        }
                    }
                    Step::Store(at) if at < on_the_way.len() => {
                        let bytes = on_the_way.swap_remove(at);
                        stored += bytes;
                        fill.end(bytes);
                    }
                    Step::Store(_) => {}
                    Step::Ask => asked = Some((fill.ended, stored)),
                    Step::Answer => {
                        if let Some((ended, seen)) = asked.take() {
                            fill.looked(Some((seen, bytes_max)), ended, now);
                        }
                    }
                }
                prop_assert!(stored * 100 / bytes_max <= INTAKE_PERCENT_MAX, "{stored} stored");
            }
        }
    }
}
