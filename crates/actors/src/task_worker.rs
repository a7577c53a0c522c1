//! TaskWorker: serves one named queue, one task per attempt, as many at once as
//! it has permits.
//!
//! A task comes again until its result is among the commands of its partition:
//! to this worker, when it has it still, or to another one. Whether a result
//! counts, its owner decides. A task that must not be run twice is let go of
//! before it begins, and begins on its first delivery alone; what nobody saw
//! end then is unknown.
//!
//! | room | holds |
//! |---|---|
//! | `intake` | what is taken from the queue, and who is told to stop |
//! | `serving` | one task from its delivery to its acknowledgement |
//! | `parking` | tasks that nobody can run |

mod intake;
mod parking;
mod serving;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use fermata_executors::Executors;
use fermata_jetstream::Delivery;
use fermata_jetstream::work_queue::{TASK_WAIT_DEFAULT, message_id};
use fermata_wire::WireError;
use fermata_wire::tasks::{TaskId, TaskMessage};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use self::intake::{Intake, listen_for_cancels};
use self::serving::{Serving, Stop};
use crate::metrics::Metrics;
use crate::node_runner::Means;
use crate::ports::Ports;

/// Tasks of one queue that a process runs at once when nothing else is said: as
/// many calls as one process makes with ease, few enough that another worker gets
/// its share of what waits.
pub const PERMITS_DEFAULT: usize = 64;

/// Most permits that can be asked for: what the node runner of a process takes.
pub const PERMITS_MAX: usize = 1_024;

/// Deliveries of one task after which it is parked: its workers keep dying at it.
/// Never left to the broker's own limit, which strands a message, or loses it on
/// replicas (nats-server#7817).
pub const DELIVERIES_MAX: u64 = 5;

/// Attempts that a worker remembers to have ended, so that one whose
/// acknowledgement was lost is not run again here.
const ENDED_REMEMBERED: usize = 1_024;

/// Pause before a task that a newer program wrote is offered again.
const NEWER_PAUSE: Duration = Duration::from_secs(5);

/// The queues that a process serves.
#[derive(Debug, Clone)]
pub struct ServedQueues {
    /// Their names, each `[a-z0-9][a-z0-9-]*`.
    pub names: Vec<String>,
    /// Tasks of each that run at once here, at most [`PERMITS_MAX`].
    pub permits: usize,
    /// How long the broker waits to hear of a task before another worker gets it;
    /// the same for all workers of a queue.
    pub wait: Duration,
}

impl Default for ServedQueues {
    fn default() -> Self {
        Self { names: Vec::new(), permits: PERMITS_DEFAULT, wait: TASK_WAIT_DEFAULT }
    }
}

/// What a worker is told.
#[derive(Debug)]
pub enum TaskWorkerMessage {
    /// Run this; a permit comes with it.
    Taken(Delivery, OwnedSemaphorePermit),
    /// This attempt has ended here; whether its result is stored.
    Ended(TaskId, bool),
    /// The run of this attempt is closing.
    Cancel(TaskId),
    /// Take nothing more, let what is under way end for as long as this, then give
    /// it back; answer when nothing is under way.
    Drain(Duration, RpcReplyPort<()>),
}

/// Behaviour and ports.
#[derive(Debug)]
pub struct TaskWorker {
    shared: Arc<Shared>,
    permits: usize,
    wait: Duration,
}

/// What every task of a worker needs.
#[derive(Debug)]
struct Shared {
    ports: Ports,
    means: Means,
    queue: Arc<str>,
    metrics: Metrics,
    wait: Duration,
}

/// What is under way.
#[derive(Debug)]
pub struct TaskWorkerState {
    running: HashMap<TaskId, Running>,
    ended: VecDeque<TaskId>,
    intake: Option<Intake>,
    permits: Arc<Semaphore>,
    /// Says to everything that is under way that the process ends.
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    _cancels: JoinSet<()>,
}

#[derive(Debug)]
struct Running {
    /// Where another delivery of the same task goes.
    adopt: mpsc::Sender<Delivery>,
    cancel: Option<oneshot::Sender<()>>,
}

impl TaskWorker {
    /// The worker of `queue`.
    #[must_use]
    pub fn new(
        ports: Ports,
        executors: Arc<Executors>,
        metrics: Metrics,
        queue: &str,
        served: &ServedQueues,
    ) -> Self {
        let means = Means::of(&ports, executors);
        let (queue, wait) = (queue.into(), served.wait);
        let shared = Arc::new(Shared { ports, means, queue, metrics, wait });
        Self { shared, permits: served.permits.clamp(1, PERMITS_MAX), wait }
    }
}

impl Actor for TaskWorker {
    type Msg = TaskWorkerMessage;
    type State = TaskWorkerState;
    type Arguments = ();

    async fn pre_start(
        &self,
        myself: ActorRef<TaskWorkerMessage>,
        (): (),
    ) -> Result<TaskWorkerState, ActorProcessingErr> {
        let permits = Arc::new(Semaphore::new(self.permits));
        let mut cancels = JoinSet::new();
        cancels.spawn(listen_for_cancels(self.shared.clone(), myself.clone()));
        let intake = Intake::start(self.shared.clone(), self.wait, permits.clone(), myself);
        tracing::info!(
            queue = &*self.shared.queue,
            permits = self.permits,
            "the worker serves a queue"
        );
        Ok(TaskWorkerState {
            running: HashMap::new(),
            ended: VecDeque::new(),
            intake: Some(intake),
            permits,
            stop: watch::channel(false).0,
            tasks: JoinSet::new(),
            _cancels: cancels,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<TaskWorkerMessage>,
        message: TaskWorkerMessage,
        state: &mut TaskWorkerState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            TaskWorkerMessage::Taken(delivery, permit) => {
                // Those that have ended meanwhile are let go.
                while state.tasks.try_join_next().is_some() {}
                self.take(&myself, delivery, permit, state);
            }
            TaskWorkerMessage::Ended(task, is_stored) => {
                state.running.remove(&task);
                if is_stored {
                    state.ended.push_back(task);
                    if state.ended.len() > ENDED_REMEMBERED {
                        state.ended.pop_front();
                    }
                }
            }
            TaskWorkerMessage::Cancel(task) => {
                let running = state.running.get_mut(&task);
                if let Some(cancel) = running.and_then(|running| running.cancel.take()) {
                    // One that ends just now needs no telling.
                    let _ = cancel.send(());
                }
            }
            TaskWorkerMessage::Drain(limit, reply) => self.drain(limit, reply, state),
        }
        Ok(())
    }
}

impl TaskWorker {
    fn take(
        &self,
        myself: &ActorRef<TaskWorkerMessage>,
        delivery: Delivery,
        permit: OwnedSemaphorePermit,
        state: &mut TaskWorkerState,
    ) {
        let shared = self.shared.clone();
        let message = match TaskMessage::decode(&delivery.payload) {
            Ok(message) => message,
            Err(WireError::NewerVersion { .. }) => {
                self.refuse("newer", &delivery);
                state.tasks.spawn(async move {
                    delivery.acker.nak(NEWER_PAUSE).await;
                    drop(permit);
                });
                return;
            }
            Err(error) => {
                self.refuse("unreadable", &delivery);
                let detail = format!("the task cannot be read: {error}");
                state.tasks.spawn(parking::park(shared, delivery, None, detail, permit));
                return;
            }
        };
        let (due, idempotent) = (message.due, message.idempotent);
        let attempt = message.into_attempt();
        let task = TaskId::of(&attempt);
        if let Some(running) = state.running.get(&task) {
            // It is under way here: from now on the newer delivery is answered.
            let _ = running.adopt.try_send(delivery);
            return;
        }
        if state.ended.contains(&task) {
            self.refuse("ended", &delivery);
            state.tasks.spawn(async move {
                delivery.acker.ack().await;
                drop(permit);
            });
            return;
        }
        if idempotent && delivery.delivered_count > DELIVERIES_MAX {
            self.refuse("poisoned", &delivery);
            let deliveries = delivery.delivered_count - 1;
            let detail = format!("{deliveries} workers were given the task and none told its end");
            let attempt = Some(Box::new(attempt));
            state.tasks.spawn(parking::park(shared, delivery, attempt, detail, permit));
            return;
        }
        let (adopt, adopted) = mpsc::channel(1);
        let (cancel, cancelled) = oneshot::channel();
        state.running.insert(task.clone(), Running { adopt, cancel: Some(cancel) });
        let stop = Stop::new(cancelled, state.stop.subscribe());
        let serving = Serving { shared, attempt, due, idempotent, delivery, adopted, stop };
        let myself = myself.clone();
        state.tasks.spawn(async move {
            let is_stored = serving.run().await;
            // A worker that is gone has nobody to tell.
            let _ = myself.cast(TaskWorkerMessage::Ended(task, is_stored));
            drop(permit);
        });
    }

    fn refuse(&self, reason: &'static str, delivery: &Delivery) {
        let task = message_id(delivery).unwrap_or_default();
        let (queue, deliveries) = (&*self.shared.queue, delivery.delivered_count);
        self.shared.metrics.task_refused(queue, reason);
        tracing::warn!(queue, task, deliveries, reason, "a task is not run");
    }

    fn drain(&self, limit: Duration, reply: RpcReplyPort<()>, state: &mut TaskWorkerState) {
        let intake = state.intake.take();
        let (permits, all) = (state.permits.clone(), self.permits);
        let stop = state.stop.clone();
        let queue = self.shared.queue.clone();
        state.tasks.spawn(async move {
            if let Some(intake) = intake {
                intake.end().await;
            }
            let all = u32::try_from(all).unwrap_or(u32::MAX);
            let ended = || async {
                // The semaphore is never closed.
                let _ = permits.acquire_many(all).await;
            };
            if tokio::time::timeout(limit, ended()).await.is_err() {
                tracing::warn!(
                    queue = &*queue,
                    "tasks had not ended in time; other workers get them"
                );
                stop.send_replace(true);
                let _ = tokio::time::timeout(serving::END_LIMIT, ended()).await;
            }
            // Whoever asked may wait no longer.
            let _ = reply.send(());
        });
    }
}
