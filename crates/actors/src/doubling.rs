//! Pauses between attempts at one thing, each twice as long as the one before it.

use std::time::Duration;

/// The next pause.
#[derive(Debug)]
pub(crate) struct Doubling {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Doubling {
    /// From `first` up to `most`.
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, next: first }
    }

    /// How long to pause now.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = self.most.min(pause * 2);
        pause
    }

    /// It went well, or is another thing now.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_of_definitions_double_up_to_a_bound_and_begin_again() {
        let mut doubling = Doubling::new(Duration::from_secs(2), Duration::from_secs(30));
        let mut next = || doubling.pause().as_secs();

        assert_eq!([next(), next(), next(), next(), next(), next()], [2, 4, 8, 16, 30, 30]);
        doubling.reset();
        assert_eq!(doubling.pause().as_secs(), 2);
    }
}
