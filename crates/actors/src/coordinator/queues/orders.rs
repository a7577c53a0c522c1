//! What one queue is ordered by one partition: what waits, what is on its way,
//! what is not wanted any more, and where the rest is.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fermata_core::effect::QueuedAttempt;
use fermata_jetstream::{PublishOutcome, Refusal};
use fermata_wire::tasks::TaskId;

use super::{FULL_PAUSE, Standing, UNKNOWN_PAUSE};

/// Published tasks whose place in the stream is remembered, so that they can be
/// taken back: as many as a partition has in one queue (some megabytes). Older ones
/// are left to workers, who are told.
const PUBLISHED_REMEMBERED: usize = 16_384;

/// The orders of one queue.
#[derive(Debug)]
pub(super) struct Orders {
    standing: Arc<Standing>,
    waiting: VecDeque<Box<QueuedAttempt>>,
    /// What may be in the queue, for an earlier owner ordered it too.
    unsure: VecDeque<Box<QueuedAttempt>>,
    /// What of it is looked for.
    sought: VecDeque<Box<QueuedAttempt>>,
    /// What waits or is being published, and whether it is wanted: the next owner
    /// orders it again.
    known: HashMap<TaskId, bool>,
    /// Where the newest published ones are in the stream.
    published: HashMap<TaskId, u64>,
    published_order: VecDeque<TaskId>,
    /// Sequences of tasks that are to be taken back.
    removals: VecDeque<u64>,
}

impl Orders {
    pub(super) fn new(standing: Arc<Standing>) -> Self {
        Self {
            standing,
            waiting: VecDeque::new(),
            unsure: VecDeque::new(),
            sought: VecDeque::new(),
            known: HashMap::new(),
            published: HashMap::new(),
            published_order: VecDeque::new(),
            removals: VecDeque::new(),
        }
    }

    /// It is to be published; whoever ordered it has counted it.
    pub(super) fn publish(&mut self, queued: Box<QueuedAttempt>) {
        match self.known.entry(TaskId::of(&queued.attempt)) {
            Entry::Vacant(unknown) => {
                unknown.insert(true);
                match queued.again {
                    true => self.unsure.push_back(queued),
                    false => self.waiting.push_back(queued),
                }
            }
            // It is on its way still, and was not counted any more.
            Entry::Occupied(mut forgotten) if !*forgotten.get() => *forgotten.get_mut() = true,
            Entry::Occupied(_) => self.count_down(),
        }
    }

    /// Whether the queue is to be looked into: [`Self::found`] is told what is there then.
    pub(super) fn seeks(&mut self) -> bool {
        let seeks = self.sought.is_empty() && !self.unsure.is_empty();
        if seeks {
            self.sought = std::mem::take(&mut self.unsure);
        }
        seeks
    }

    /// What is sought is in the queue at these sequences, or is published.
    pub(super) fn found(&mut self, stored: &HashMap<TaskId, u64>) {
        for queued in std::mem::take(&mut self.sought) {
            let task = TaskId::of(&queued.attempt);
            match (stored.get(&task), self.known.get(&task) == Some(&true)) {
                (Some(sequence), true) => {
                    self.done(&task);
                    self.remember(task, *sequence);
                }
                (Some(sequence), false) => {
                    self.known.remove(&task);
                    self.removals.push_back(*sequence);
                }
                (None, _) => self.waiting.push_back(queued),
            }
        }
    }

    /// It is not wanted any more, wherever it is.
    pub(super) fn forget(&mut self, task: &TaskId) {
        match self.known.get_mut(task) {
            Some(is_wanted) if *is_wanted => {
                *is_wanted = false;
                self.count_down();
            }
            Some(_) => {}
            None => self.removals.extend(self.published.remove(task)),
        }
    }

    /// The next to publish at `now_ms`, wall clock.
    pub(super) fn next(&mut self, now_ms: u64) -> Option<Box<QueuedAttempt>> {
        loop {
            let queued = self.waiting.pop_front()?;
            let task = TaskId::of(&queued.attempt);
            if self.known.get(&task) != Some(&true) {
                self.known.remove(&task);
            } else if queued.due.0 > now_ms {
                return Some(queued);
            } else {
                // Its owner has it on the clock; here nobody waits for it any more.
                self.done(&task);
            }
        }
    }

    /// A task to take back, by its sequence.
    pub(super) fn next_removal(&mut self) -> Option<u64> {
        self.removals.pop_front()
    }

    /// What became of a publish; returns for how long nothing is to be published.
    pub(super) fn answered(
        &mut self,
        queued: Box<QueuedAttempt>,
        outcome: PublishOutcome,
    ) -> Option<Duration> {
        let task = TaskId::of(&queued.attempt);
        let queue = queued.queue.clone();
        let is_wanted = self.known.get(&task) == Some(&true);
        match outcome {
            PublishOutcome::Stored { sequence, .. } => {
                if self.standing.is_full.swap(false, Ordering::Relaxed) {
                    tracing::info!(%task, queue = &*queue, "the queue takes tasks again");
                }
                if is_wanted {
                    self.done(&task);
                    self.remember(task, sequence);
                } else {
                    self.known.remove(&task);
                    self.removals.push_back(sequence);
                }
                None
            }
            // Whether it is there: workers are told not to begin it.
            PublishOutcome::Refused { .. } | PublishOutcome::Unknown if !is_wanted => {
                self.known.remove(&task);
                None
            }
            // Nothing left this process: that says nothing about the queue.
            PublishOutcome::Refused { refusal: Refusal::NotSent, .. } => {
                self.again(queued, UNKNOWN_PAUSE)
            }
            PublishOutcome::Refused { refusal: Refusal::TooLarge, description, .. } => {
                tracing::error!(%task, queue = &*queue, description, "a task cannot be published; its time ends it");
                self.done(&task);
                None
            }
            // Nothing was stored, by this publish: one before it may have been.
            PublishOutcome::Refused { description, code, .. } => {
                if !self.standing.is_full.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%task, queue = &*queue, code, description, "a queue takes no task; those that are ordered wait, everything else goes on");
                }
                self.again(queued, FULL_PAUSE)
            }
            // No window of ids is leaned on: a broker that was restarted forgets those
            // of messages that are gone.
            PublishOutcome::Unknown if !queued.idempotent => {
                tracing::warn!(%task, queue = &*queue, "nobody knows whether a task is in its queue that must not be there twice; its time tells");
                self.done(&task);
                None
            }
            PublishOutcome::Unknown => self.again(queued, UNKNOWN_PAUSE),
        }
    }

    fn again(&mut self, queued: Box<QueuedAttempt>, pause: Duration) -> Option<Duration> {
        self.waiting.push_front(queued);
        Some(pause)
    }

    fn done(&mut self, task: &TaskId) {
        self.known.remove(task);
        self.count_down();
    }

    fn count_down(&self) {
        self.standing.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    fn remember(&mut self, task: TaskId, sequence: u64) {
        if self.published.insert(task.clone(), sequence).is_some() {
            return;
        }
        self.published_order.push_back(task);
        if self.published_order.len() > PUBLISHED_REMEMBERED
            && let Some(oldest) = self.published_order.pop_front()
        {
            self.published.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use fermata_core::effect::{Attempt, AttemptWork};
    use fermata_core::identity::JournalTime;
    use fermata_core::plan::Completion;

    use super::*;

    const NOW_MS: u64 = 1_000;

    const UNKNOWN: PublishOutcome = PublishOutcome::Unknown;

    fn stored(sequence: u64) -> PublishOutcome {
        PublishOutcome::Stored { sequence, duplicate: false }
    }

    fn refused(refusal: Refusal) -> PublishOutcome {
        PublishOutcome::Refused { refusal, code: 0, description: String::new() }
    }

    fn queued(number: u32, idempotent: bool) -> Box<QueuedAttempt> {
        let attempt = Attempt {
            run: "0193f3a0-0000-8000-8000-000000000001".parse().unwrap(),
            node: "ask".into(),
            activation: 1,
            attempt: number,
            tenant: "acme".parse().unwrap(),
            timeout_ms: 1_000,
            traceparent: None,
            work: AttemptWork::Noop,
            completion: Completion::Answer,
        };
        let due = JournalTime(NOW_MS + 1_000);
        Box::new(QueuedAttempt { attempt, queue: "gpu".into(), due, idempotent, again: false })
    }

    fn task(number: u32) -> TaskId {
        TaskId::of(&queued(number, true).attempt)
    }

    fn ordered(numbers: impl IntoIterator<Item = u32>, idempotent: bool) -> Orders {
        let mut orders = Orders::new(Arc::default());
        for number in numbers {
            orders.standing.waiting.fetch_add(1, Ordering::Relaxed);
            orders.publish(queued(number, idempotent));
        }
        orders
    }

    fn next(orders: &mut Orders) -> Option<u32> {
        orders.next(NOW_MS).map(|queued| queued.attempt.attempt)
    }

    fn counted(orders: &Orders) -> usize {
        orders.standing.waiting.load(Ordering::Relaxed)
    }

    #[test]
    fn a_task_that_is_taken_back_while_it_waits_is_not_published() {
        let mut orders = ordered(1..=3, true);

        orders.forget(&task(1));
        orders.forget(&task(2));

        assert_eq!(counted(&orders), 1);
        assert_eq!((next(&mut orders), next(&mut orders)), (Some(3), None));
        assert_eq!(orders.next_removal(), None);
    }

    #[test]
    fn one_that_is_taken_back_on_its_way_leaves_the_queue_as_soon_as_it_is_there() {
        let mut orders = ordered([1], true);
        let on_its_way = orders.next(NOW_MS).unwrap();

        orders.forget(&task(1));
        assert_eq!(orders.next_removal(), None, "nobody knows where it is");
        assert_eq!(orders.answered(on_its_way, stored(7)), None);

        assert_eq!((orders.next_removal(), counted(&orders)), (Some(7), 0));
    }

    #[test]
    fn one_that_is_taken_back_on_its_way_is_not_published_again() {
        for outcome in [UNKNOWN, refused(Refusal::NotSent), refused(Refusal::Other)] {
            let mut orders = ordered([1], true);
            let on_its_way = orders.next(NOW_MS).unwrap();

            orders.forget(&task(1));

            assert_eq!(orders.answered(on_its_way, outcome), None);
            assert_eq!((next(&mut orders), counted(&orders)), (None, 0));
        }
    }

    #[test]
    fn one_that_is_taken_back_when_it_is_published_leaves_the_queue_once() {
        let mut orders = ordered([1], true);
        let queued = orders.next(NOW_MS).unwrap();
        orders.answered(queued, stored(7));

        orders.forget(&task(1));
        orders.forget(&task(1));

        assert_eq!((orders.next_removal(), orders.next_removal()), (Some(7), None));
        assert_eq!(counted(&orders), 0);
    }

    #[test]
    fn one_that_is_wanted_after_all_is_published_once() {
        let mut orders = ordered([1], true);
        orders.forget(&task(1));

        orders.standing.waiting.fetch_add(1, Ordering::Relaxed);
        orders.publish(queued(1, true));

        assert_eq!(counted(&orders), 1);
        assert_eq!((next(&mut orders), next(&mut orders)), (Some(1), None));
    }

    #[test]
    fn what_an_earlier_owner_published_is_published_again_only_if_it_is_gone() {
        let mut orders = Orders::new(Arc::default());
        for number in 1..=4 {
            orders.standing.waiting.fetch_add(1, Ordering::Relaxed);
            orders.publish(Box::new(QueuedAttempt { again: true, ..*queued(number, true) }));
        }
        assert_eq!(next(&mut orders), None, "nothing is published before it is looked for");
        assert!(orders.seeks());
        orders.forget(&task(3));
        orders.forget(&task(4));

        orders.found(&[(task(1), 7), (task(3), 8)].into());

        assert!(!orders.seeks(), "what is found is sought no more");
        assert_eq!((next(&mut orders), next(&mut orders)), (Some(2), None));
        assert_eq!((orders.next_removal(), orders.next_removal()), (Some(8), None));
        assert_eq!(counted(&orders), 1, "one is on its way");
        orders.forget(&task(1));
        assert_eq!(orders.next_removal(), Some(7), "its place is known");
    }

    #[test]
    fn what_is_ordered_while_others_are_sought_waits_for_the_next_look() {
        let again = |number| Box::new(QueuedAttempt { again: true, ..*queued(number, true) });
        let mut orders = Orders::new(Arc::default());
        orders.publish(again(1));
        assert!(orders.seeks());
        orders.publish(again(2));
        assert!(!orders.seeks(), "one look at a time");

        orders.found(&HashMap::new());

        assert_eq!((next(&mut orders), next(&mut orders)), (Some(1), None));
        assert!(orders.seeks());
    }

    #[test]
    fn one_that_no_stream_takes_holds_up_no_other() {
        let mut orders = ordered([1, 2], true);
        let too_large = orders.next(NOW_MS).unwrap();

        assert_eq!(orders.answered(too_large, refused(Refusal::TooLarge)), None);

        assert_eq!((next(&mut orders), next(&mut orders), counted(&orders)), (Some(2), None, 1));
        assert!(!orders.standing.is_full.load(Ordering::Relaxed));
    }

    #[test]
    fn only_what_may_run_twice_is_published_after_nobody_knew() {
        for (idempotent, expected) in [(true, Some(1)), (false, None)] {
            let mut orders = ordered([1], idempotent);
            let on_its_way = orders.next(NOW_MS).unwrap();

            orders.answered(on_its_way, UNKNOWN);

            assert_eq!(next(&mut orders), expected, "idempotent: {idempotent}");
        }
    }
}
