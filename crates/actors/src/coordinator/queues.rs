//! Attempts on their way to named queues.
//!
//! One task per queue publishes what the owner orders for it, in order, and
//! waits where the stream of tasks has no room: what it holds is bounded by what
//! the owner may have ordered (`Limits::queued_open_max`), and nothing else waits
//! for it. It outlives the owner of the moment: publishing the same attempt for
//! the next one too is the same message.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use fermata_core::effect::{Outcome, QueuedAttempt, Recall};
use fermata_core::identity::PartitionId;
use fermata_core::partition::Report;
use fermata_core::plan::FailureClass;
use fermata_core::run::AttemptReport;
use fermata_jetstream::{PublishOutcome, Publisher, Refusal};
use fermata_wire::subjects;
use fermata_wire::tasks::{TaskId, TaskMessage};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ractor::ActorRef;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use super::state::Task;
use super::{Coordinator, CoordinatorMessage, CoordinatorState};
use crate::clock::wall_ms;
use crate::uncommitted_reports::UncommittedReports;

/// Publishes to one queue that wait for their answer at once.
const UNANSWERED_MAX: usize = 64;

/// Pause while a queue takes nothing; then one task is tried.
const FULL_PAUSE: Duration = Duration::from_millis(500);

/// Pause after a publish whose outcome nobody knows.
const UNKNOWN_PAUSE: Duration = Duration::from_millis(250);

/// How long a task is kept beyond its time, so that a worker whose clock is off
/// does not miss it.
const TTL_MARGIN_MS: u64 = 60_000;

/// What is ordered for queues by one partition.
#[derive(Debug, Default)]
pub(super) struct Queues(HashMap<Arc<str>, Dispatcher>);

#[derive(Debug)]
struct Dispatcher {
    orders: UnboundedSender<Order>,
    standing: Arc<Standing>,
    _task: Task,
}

#[derive(Debug)]
enum Order {
    Publish(Box<QueuedAttempt>),
    /// It is not wanted any more; what is published is not taken back.
    Forget(TaskId),
}

/// How one dispatcher stands.
#[derive(Debug, Default)]
struct Standing {
    /// Ordered and not known to be stored.
    waiting: AtomicUsize,
    /// Whether the queue takes nothing.
    is_full: AtomicBool,
}

impl Queues {
    /// Publishes it as soon as its queue takes it.
    fn publish(
        &mut self,
        partition: PartitionId,
        publisher: &Publisher,
        queued: Box<QueuedAttempt>,
    ) {
        let dispatcher = self.0.entry(queued.queue.clone()).or_insert_with_key(|queue| {
            let (orders, ordered) = unbounded_channel();
            let standing = Arc::<Standing>::default();
            let dispatch = Dispatch {
                partition,
                queue: queue.clone(),
                publisher: publisher.clone(),
                standing: standing.clone(),
                waiting: VecDeque::new(),
                known: HashSet::new(),
                held_until: None,
            };
            Dispatcher { orders, standing, _task: Task::spawn(dispatch.run(ordered)) }
        });
        dispatcher.standing.waiting.fetch_add(1, Ordering::Relaxed);
        // It lasts as long as its orders.
        let _ = dispatcher.orders.send(Order::Publish(queued));
    }

    fn forget(&self, queue: &str, task: TaskId) {
        if let Some(dispatcher) = self.0.get(queue) {
            let _ = dispatcher.orders.send(Order::Forget(task));
        }
    }

    /// Tasks that are ordered and not known to be stored.
    pub(super) fn waiting(&self) -> usize {
        self.0.values().map(|queue| queue.standing.waiting.load(Ordering::Relaxed)).sum()
    }

    /// Whether everything is published that a queue takes.
    pub(super) fn has_published(&self) -> bool {
        self.0.values().all(|Dispatcher { standing, .. }| {
            standing.waiting.load(Ordering::Relaxed) == 0
                || standing.is_full.load(Ordering::Relaxed)
        })
    }

    /// Queues that take nothing, for people.
    pub(super) fn full(&self) -> Vec<String> {
        let full = |(name, queue): (&Arc<str>, &Dispatcher)| {
            queue.standing.is_full.load(Ordering::Relaxed).then(|| name.to_string())
        };
        let mut names = self.0.iter().filter_map(full).collect::<Vec<_>>();
        names.sort_unstable();
        names
    }
}

impl Coordinator {
    pub(super) fn enqueue(&self, queued: Box<QueuedAttempt>, state: &mut CoordinatorState) {
        state.queues.publish(self.partition, &self.ports.publisher, queued);
    }

    /// Tells whoever runs attempts of a closing run to stop, and does not wait for
    /// them: what they report after this is late.
    pub(super) async fn recall(
        &self,
        myself: &ActorRef<CoordinatorMessage>,
        recall: Recall,
        state: &CoordinatorState,
    ) {
        let Recall { run, tenant, tasks } = recall;
        let mut reports = Vec::with_capacity(tasks.len());
        for (node, attempt, queue) in tasks {
            let task = TaskId { run, node: node.clone(), activation: 1, attempt };
            let text = task.to_string();
            state.queues.forget(&queue, task);
            let subject = subjects::tasks_cancel(&queue);
            // Nobody need hear it: the result is late then.
            let _ = self.ports.core.publish_core(subject, text.into()).await;
            let detail = format!("the run is closing; it was in queue `{queue}`");
            let outcome = Outcome::Failed { class: FailureClass::Cancelled, detail };
            let tenant = Some(tenant.clone());
            reports.push(Report::Attempt(AttemptReport {
                run,
                node,
                activation: 1,
                attempt,
                tenant,
                outcome,
            }));
        }
        let reports = UncommittedReports::new(self.partition, self.runner.clone(), reports);
        let _ = myself.cast(CoordinatorMessage::Reports(reports));
    }
}

/// One queue's dispatcher.
struct Dispatch {
    partition: PartitionId,
    queue: Arc<str>,
    publisher: Publisher,
    standing: Arc<Standing>,
    waiting: VecDeque<Ordered>,
    /// What waits or is being published: the next owner orders it again.
    known: HashSet<TaskId>,
    held_until: Option<Instant>,
}

#[derive(Debug)]
struct Ordered {
    queued: Box<QueuedAttempt>,
    /// Whether a publish of it had no answer.
    may_be_there: bool,
}

impl Dispatch {
    async fn run(mut self, mut orders: UnboundedReceiver<Order>) {
        let mut unanswered = FuturesUnordered::new();
        loop {
            while let Some(ordered) = self.next(unanswered.len()) {
                unanswered.push(send(self.publisher.clone(), ordered));
            }
            let held_until = self.held_until;
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.take(order),
                    None => return,
                },
                Some((ordered, outcome)) = unanswered.next(), if !unanswered.is_empty() => {
                    self.answered(ordered, outcome);
                }
                () = until(held_until), if held_until.is_some() => self.held_until = None,
            }
        }
    }

    /// The next to publish: none while the queue takes nothing, one to try whether
    /// it does again.
    fn next(&mut self, unanswered: usize) -> Option<Ordered> {
        let most = match self.standing.is_full.load(Ordering::Relaxed) {
            true => 1,
            false => UNANSWERED_MAX,
        };
        loop {
            if self.held_until.is_some() || unanswered >= most {
                return None;
            }
            let ordered = self.waiting.pop_front()?;
            // Its owner has it on the clock; here nobody waits for it any more.
            if ordered.queued.due.0 > wall_ms() {
                return Some(ordered);
            }
            self.done(&ordered);
        }
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Publish(queued) => {
                if self.known.insert(TaskId::of(&queued.attempt)) {
                    self.waiting.push_back(Ordered { queued, may_be_there: false });
                } else {
                    self.standing.waiting.fetch_sub(1, Ordering::Relaxed);
                }
            }
            Order::Forget(task) => {
                let place = self
                    .waiting
                    .iter()
                    .position(|ordered| TaskId::of(&ordered.queued.attempt) == task);
                if let Some(ordered) = place.and_then(|place| self.waiting.remove(place)) {
                    self.done(&ordered);
                }
            }
        }
    }

    fn answered(&mut self, ordered: Ordered, outcome: PublishOutcome) {
        match outcome {
            PublishOutcome::Stored { .. } => {
                self.done(&ordered);
                if self.standing.is_full.swap(false, Ordering::Relaxed) {
                    let (partition, queue) = (self.partition, &*self.queue);
                    tracing::info!(%partition, queue, "the queue takes tasks again");
                }
            }
            // Nothing left this process: that says nothing about the queue.
            PublishOutcome::Refused { refusal: Refusal::NotSent, .. } => {
                self.again(ordered, UNKNOWN_PAUSE);
            }
            PublishOutcome::Refused { description, code, .. } => {
                if !self.standing.is_full.swap(true, Ordering::Relaxed) {
                    let (partition, queue) = (self.partition, &*self.queue);
                    tracing::warn!(%partition, queue, code, description, "a queue takes no task; those that are ordered wait, everything else goes on");
                }
                // Nothing was stored, by this publish: one before it may have been.
                self.again(ordered, FULL_PAUSE);
            }
            PublishOutcome::Unknown => self.again(ordered, UNKNOWN_PAUSE),
        }
    }

    fn again(&mut self, ordered: Ordered, pause: Duration) {
        // No window of ids is leaned on: a broker that was restarted forgets those of
        // messages that are gone.
        if !ordered.queued.idempotent && ordered.may_be_there {
            let task = TaskId::of(&ordered.queued.attempt);
            let (partition, queue) = (self.partition, &*self.queue);
            tracing::warn!(%partition, queue, %task, "nobody knows whether a task is in its queue that must not be there twice; its time tells");
            return self.done(&ordered);
        }
        self.held_until = Some(Instant::now() + pause);
        self.waiting.push_front(ordered);
    }

    fn done(&mut self, ordered: &Ordered) {
        self.known.remove(&TaskId::of(&ordered.queued.attempt));
        self.standing.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn until(held_until: Option<Instant>) {
    if let Some(held_until) = held_until {
        tokio::time::sleep_until(held_until).await;
    }
}

async fn send(publisher: Publisher, mut ordered: Ordered) -> (Ordered, PublishOutcome) {
    let queued = &ordered.queued;
    let payload = match TaskMessage::new(queued).encode() {
        Ok(payload) => payload.into(),
        Err(error) => {
            // No attempt within the bounds is like this; its time ends it.
            let task = TaskId::of(&queued.attempt);
            tracing::error!(%task, %error, "a task cannot be published");
            return (ordered, PublishOutcome::Stored { sequence: 0, duplicate: false });
        }
    };
    let subject = subjects::tasks(&queued.queue);
    let id = TaskId::of(&queued.attempt).to_string();
    let left_ms = queued.due.0.saturating_sub(wall_ms()).saturating_add(TTL_MARGIN_MS);
    let ttl = Duration::from_millis(left_ms);
    let outcome = publisher.publish_task(subject, &id, ttl, payload).await;
    // A refusal stores nothing: only what may be there counts as published.
    if outcome == PublishOutcome::Unknown {
        ordered.may_be_there = true;
    }
    (ordered, outcome)
}
