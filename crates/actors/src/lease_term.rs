//! How long a partition's lease holds, as everyone sees it who touches the
//! world in the name of its owner.
//!
//! The owner asks before it releases an effect; whoever carries it out asks
//! again when it starts, because what was released may have waited meanwhile.

use fermata_partition::owner::LEASE_MARGIN_MS;
use tokio::sync::watch;

use crate::clock::Clock;

/// The term of one coordinator's lease; it is over when this is dropped.
#[derive(Debug)]
pub struct LeaseTerm {
    until_ms: watch::Sender<u64>,
    clock: Clock,
}

/// Sees the term of a lease.
#[derive(Debug, Clone)]
pub struct LeaseView {
    until_ms: watch::Receiver<u64>,
    clock: Clock,
}

impl LeaseTerm {
    /// A lease that holds until this time of the monotonic clock, milliseconds.
    #[must_use]
    pub fn new(clock: Clock, until_ms: u64) -> Self {
        Self { until_ms: watch::channel(until_ms).0, clock }
    }

    /// The lease was renewed until this time of the monotonic clock, milliseconds.
    pub fn extend(&self, until_ms: u64) {
        self.until_ms.send_replace(until_ms);
    }

    /// Until when it holds, milliseconds of the monotonic clock.
    #[must_use]
    pub fn until_ms(&self) -> u64 {
        *self.until_ms.borrow()
    }

    /// A view of it for those who touch the world.
    #[must_use]
    pub fn view(&self) -> LeaseView {
        LeaseView { until_ms: self.until_ms.subscribe(), clock: self.clock }
    }
}

impl LeaseView {
    /// Whether an effect may start now: somebody keeps the lease, and it holds
    /// for longer than [`LEASE_MARGIN_MS`].
    #[must_use]
    pub fn holds(&self) -> bool {
        self.until_ms.has_changed().is_ok() && holds(self.clock, *self.until_ms.borrow())
    }

    /// Waits until an effect may start; false when nobody keeps the lease any more.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn until_held(&mut self) -> bool {
        let clock = self.clock;
        let held = self.until_ms.wait_for(|until_ms| holds(clock, *until_ms)).await.is_ok();
        held && self.until_ms.has_changed().is_ok()
    }
}

fn holds(clock: Clock, until_ms: u64) -> bool {
    clock.now().monotonic_ms.saturating_add(LEASE_MARGIN_MS) < until_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR_MS: u64 = 1_000_000;

    #[tokio::test]
    async fn an_effect_may_start_only_while_the_lease_holds_for_longer_than_the_margin() {
        let term = LeaseTerm::new(Clock::start(), LEASE_MARGIN_MS);
        let mut view = term.view();
        assert!(!view.holds());

        let waits = tokio::spawn(async move { view.until_held().await });
        term.extend(FAR_MS);

        assert!(waits.await.unwrap());
        assert!(term.view().holds());
    }

    #[tokio::test]
    async fn a_lease_that_nobody_keeps_holds_no_longer_whatever_its_time_says() {
        let term = LeaseTerm::new(Clock::start(), FAR_MS);
        let mut view = term.view();
        drop(term);

        assert!(!view.holds());
        assert!(!view.until_held().await);
    }
}
