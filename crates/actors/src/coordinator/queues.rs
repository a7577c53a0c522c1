//! Attempts on their way to named queues.
//!
//! One task per queue publishes what the owner orders for it, in order, and
//! waits where the stream of tasks has no room: what it holds is bounded by what
//! the owner may have ordered (`Limits::queued_open_max`), and nothing else waits
//! for it. It outlives the owner of the moment: publishing the same attempt for
//! the next one too is the same message.

mod orders;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use fermata_core::effect::{Outcome, QueuedAttempt, Recall};
use fermata_core::partition::Report;
use fermata_core::plan::FailureClass;
use fermata_core::run::AttemptReport;
use fermata_jetstream::work_queue::{remove_task, stored_tasks};
use fermata_jetstream::{Broker, PublishOutcome, Publisher, Refusal};
use fermata_wire::subjects;
use fermata_wire::tasks::{TaskId, TaskMessage};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ractor::ActorRef;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use self::orders::Orders;
use super::state::Task;
use super::{Coordinator, CoordinatorMessage, CoordinatorState};
use crate::clock::wall_ms;
use crate::ports::Ports;
use crate::uncommitted_reports::UncommittedReports;

/// Publishes to one queue that wait for their answer at once, and removals from it.
const UNANSWERED_MAX: usize = 64;

/// Pause while a queue takes nothing; then one task is tried.
const FULL_PAUSE: Duration = Duration::from_millis(500);

/// Pause after a publish whose outcome nobody knows.
const UNKNOWN_PAUSE: Duration = Duration::from_millis(250);

/// How long it may take to look at what a queue holds after a takeover: 20,000 tasks are some
/// seconds. What was ordered anew does not wait meanwhile. Where it takes longer, or the broker
/// does not answer, what was ordered before is published once more.
const LOOK_LIMIT: Duration = Duration::from_secs(30);

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
    /// It is not wanted any more: taken back if it is published.
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
    fn publish(&mut self, broker: &Broker, publisher: &Publisher, queued: Box<QueuedAttempt>) {
        let dispatcher = self.0.entry(queued.queue.clone()).or_insert_with_key(|queue| {
            let (orders, ordered) = unbounded_channel();
            let standing = Arc::<Standing>::default();
            let dispatch = Dispatch {
                queue: queue.clone(),
                broker: broker.clone(),
                publisher: publisher.clone(),
                standing: standing.clone(),
                orders: Orders::new(standing.clone()),
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
        let Ports { broker, publisher, .. } = &self.ports;
        state.queues.publish(broker, publisher, queued);
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
    queue: Arc<str>,
    broker: Broker,
    publisher: Publisher,
    standing: Arc<Standing>,
    orders: Orders,
    held_until: Option<Instant>,
}

impl Dispatch {
    async fn run(mut self, mut ordered: UnboundedReceiver<Order>) {
        let mut unanswered = FuturesUnordered::new();
        let mut removing = FuturesUnordered::new();
        let mut looking = FuturesUnordered::new();
        loop {
            if self.orders.seeks() {
                looking.push(look(self.broker.clone(), self.queue.clone()));
            }
            while let Some(queued) = self.next(unanswered.len()) {
                unanswered.push(send(self.publisher.clone(), queued));
            }
            while removing.len() < UNANSWERED_MAX
                && let Some(sequence) = self.orders.next_removal()
            {
                removing.push(remove(self.broker.clone(), self.queue.clone(), sequence));
            }
            let held_until = self.held_until;
            tokio::select! {
                order = ordered.recv() => match order {
                    Some(Order::Publish(queued)) => self.orders.publish(queued),
                    Some(Order::Forget(task)) => self.orders.forget(&task),
                    None => return,
                },
                Some((queued, outcome)) = unanswered.next(), if !unanswered.is_empty() => {
                    if let Some(pause) = self.orders.answered(queued, outcome) {
                        self.held_until = Some(Instant::now() + pause);
                    }
                }
                Some(()) = removing.next(), if !removing.is_empty() => {}
                Some(stored) = looking.next(), if !looking.is_empty() => {
                    self.orders.found(&stored);
                }
                () = until(held_until), if held_until.is_some() => self.held_until = None,
            }
        }
    }

    /// The next to publish: none while the queue takes nothing, one to try whether
    /// it does again.
    fn next(&mut self, unanswered: usize) -> Option<Box<QueuedAttempt>> {
        let most = match self.standing.is_full.load(Ordering::Relaxed) {
            true => 1,
            false => UNANSWERED_MAX,
        };
        if self.held_until.is_some() || unanswered >= most {
            return None;
        }
        self.orders.next(wall_ms())
    }
}

/// The tasks that the queue holds, and where; none where that is not known.
async fn look(broker: Broker, queue: Arc<str>) -> HashMap<TaskId, u64> {
    let failed: String = match tokio::time::timeout(LOOK_LIMIT, stored_tasks(&broker, &queue)).await
    {
        Ok(Ok(stored)) => {
            let task = |(id, sequence): (String, u64)| Some((TaskId::of_message(&id)?, sequence));
            return stored.into_iter().filter_map(task).collect();
        }
        Ok(Err(error)) => error.to_string(),
        Err(late) => late.to_string(),
    };
    tracing::warn!(
        queue = &*queue,
        error = failed,
        "what a queue holds is not known; what an earlier owner published for it is published once more"
    );
    HashMap::new()
}

async fn until(held_until: Option<Instant>) {
    if let Some(held_until) = held_until {
        tokio::time::sleep_until(held_until).await;
    }
}

async fn send(
    publisher: Publisher,
    queued: Box<QueuedAttempt>,
) -> (Box<QueuedAttempt>, PublishOutcome) {
    let payload = match TaskMessage::new(&queued).encode() {
        Ok(payload) => payload.into(),
        // No attempt within the bounds is like this.
        Err(error) => {
            let (refusal, description) = (Refusal::TooLarge, error.to_string());
            return (queued, PublishOutcome::Refused { refusal, code: 0, description });
        }
    };
    let subject = subjects::tasks(&queued.queue);
    let id = TaskId::of(&queued.attempt).to_string();
    let left_ms = queued.due.0.saturating_sub(wall_ms()).saturating_add(TTL_MARGIN_MS);
    let ttl = Duration::from_millis(left_ms);
    let outcome = publisher.publish_task(subject, &id, ttl, payload).await;
    (queued, outcome)
}

/// Takes a published task back. One that a worker has taken meanwhile is not there,
/// and one that stays is not begun by whoever was told: it is tried once.
async fn remove(broker: Broker, queue: Arc<str>, sequence: u64) {
    if let Err(error) = remove_task(&broker, sequence).await {
        tracing::debug!(queue = &*queue, sequence, %error, "a task is not taken back");
    }
}
