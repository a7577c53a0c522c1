//! The table of publishes in flight.

use std::task::{Poll, Waker};

use crate::{outcome::PublishOutcome, reply_tokens::ReplyToken};

#[derive(Debug)]
enum SlotState {
    Free,
    Waiting {
        since: u32,
        waker: Option<Waker>,
    },
    /// Nobody will ask, but the window is still taken until the answer comes or is overdue.
    Abandoned {
        since: u32,
    },
    Resolved(PublishOutcome),
}

#[derive(Debug)]
struct Slot {
    serial: u64,
    state: SlotState,
}

/// One slot per publish that is unanswered or whose receipt is still held; as many as were ever needed at once.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
    next_serial: u64,
    unanswered: usize,
}

impl Slots {
    /// Takes a slot for a publish made during sweep `since`.
    pub(super) fn take(&mut self, since: u32) -> ReplyToken {
        self.next_serial += 1;
        self.unanswered += 1;
        let serial = self.next_serial;
        let filled = Slot { serial, state: SlotState::Waiting { since, waker: None } };
        if let Some(slot) = self.free.pop() {
            if let Some(place) = self.place(slot) {
                *place = filled;
            }
            return ReplyToken { slot, serial };
        }
        // Four thousand million receipts do not fit into memory, so the number always fits.
        let slot = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        self.slots.push(filled);
        ReplyToken { slot, serial }
    }

    /// Records an outcome. `Some` means that the publish was unanswered until now; inside it is who waits, if anyone.
    pub(super) fn resolve(
        &mut self,
        token: ReplyToken,
        outcome: PublishOutcome,
    ) -> Option<Option<Waker>> {
        let place = self.held(token)?;
        let waker = match &mut place.state {
            SlotState::Waiting { waker, .. } => {
                let waker = waker.take();
                place.state = SlotState::Resolved(outcome);
                waker
            }
            SlotState::Abandoned { .. } => {
                place.state = SlotState::Free;
                self.free.push(token.slot);
                None
            }
            SlotState::Free | SlotState::Resolved(_) => return None,
        };
        self.unanswered -= 1;
        Some(waker)
    }

    /// Makes every unanswered publish unknown for which `overdue(sweep of its making)` holds.
    pub(super) fn expire(
        &mut self,
        overdue: impl Fn(u32) -> bool,
        mut resolved: impl FnMut(Option<Waker>),
    ) {
        if self.unanswered == 0 {
            return;
        }
        for (slot, place) in (0_u32..).zip(self.slots.iter_mut()) {
            match &mut place.state {
                SlotState::Waiting { since, waker } if overdue(*since) => {
                    resolved(waker.take());
                    place.state = SlotState::Resolved(PublishOutcome::Unknown);
                }
                SlotState::Abandoned { since } if overdue(*since) => {
                    resolved(None);
                    place.state = SlotState::Free;
                    self.free.push(slot);
                }
                SlotState::Free
                | SlotState::Waiting { .. }
                | SlotState::Abandoned { .. }
                | SlotState::Resolved(_) => continue,
            }
            self.unanswered -= 1;
        }
    }

    /// Takes the outcome and frees the slot, or remembers who waits.
    pub(super) fn poll(&mut self, token: ReplyToken, waker: &Waker) -> Poll<PublishOutcome> {
        let Some(place) = self.held(token) else { return Poll::Ready(PublishOutcome::Unknown) };
        match &mut place.state {
            SlotState::Waiting { waker: waiting, .. } => {
                match waiting {
                    Some(waiting) => waiting.clone_from(waker),
                    None => *waiting = Some(waker.clone()),
                }
                Poll::Pending
            }
            SlotState::Resolved(outcome) => {
                let outcome = std::mem::replace(outcome, PublishOutcome::Unknown);
                place.state = SlotState::Free;
                self.free.push(token.slot);
                Poll::Ready(outcome)
            }
            SlotState::Free | SlotState::Abandoned { .. } => Poll::Ready(PublishOutcome::Unknown),
        }
    }

    /// The receipt is gone: frees the slot now, or once the publish is answered.
    pub(super) fn abandon(&mut self, token: ReplyToken) {
        let Some(place) = self.held(token) else { return };
        match &place.state {
            SlotState::Waiting { since, .. } => {
                place.state = SlotState::Abandoned { since: *since }
            }
            SlotState::Resolved(_) => {
                place.state = SlotState::Free;
                self.free.push(token.slot);
            }
            SlotState::Free | SlotState::Abandoned { .. } => {}
        }
    }

    pub(super) fn unanswered(&self) -> usize {
        self.unanswered
    }

    fn place(&mut self, slot: u32) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(slot).ok()?)
    }

    fn held(&mut self, token: ReplyToken) -> Option<&mut Slot> {
        self.place(token.slot).filter(|place| place.serial == token.serial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORED: PublishOutcome = PublishOutcome::Stored { sequence: 7, duplicate: false };

    #[test]
    fn a_late_answer_never_reaches_the_next_publish_in_the_same_slot() {
        let mut slots = Slots::default();
        let old = slots.take(0);
        slots.expire(|_| true, |_| ());
        assert_eq!(slots.poll(old, Waker::noop()), Poll::Ready(PublishOutcome::Unknown));

        let new = slots.take(0);
        let answered = slots.resolve(old, STORED);

        assert_eq!(new.slot, old.slot);
        assert!(answered.is_none());
        assert_eq!(slots.poll(new, Waker::noop()), Poll::Pending);
    }

    #[test]
    fn a_second_answer_changes_nothing() {
        let mut slots = Slots::default();
        let token = slots.take(0);

        let first = slots.resolve(token, STORED);
        let second = slots.resolve(token, PublishOutcome::Unknown);

        assert!(first.is_some() && second.is_none());
        assert_eq!(slots.poll(token, Waker::noop()), Poll::Ready(STORED));
    }

    #[test]
    fn abandoned_publishes_leave_nothing_behind_once_answered_or_overdue() {
        let mut slots = Slots::default();
        let answered = slots.take(0);
        let overdue = slots.take(0);
        slots.abandon(answered);
        slots.abandon(overdue);

        slots.resolve(answered, STORED);
        slots.expire(|_| true, |_| ());

        assert_eq!(slots.unanswered(), 0);
        assert_eq!(slots.free.len(), slots.slots.len());
    }

    #[test]
    fn only_what_is_overdue_becomes_unknown() {
        let mut slots = Slots::default();
        let old = slots.take(1);
        let young = slots.take(9);

        slots.expire(|since| since < 5, |_| ());

        assert_eq!(slots.poll(old, Waker::noop()), Poll::Ready(PublishOutcome::Unknown));
        assert_eq!(slots.poll(young, Waker::noop()), Poll::Pending);
    }
}
