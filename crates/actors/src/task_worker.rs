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
//! | `handing_back` | tasks that somebody else is to run |
//! | `remembered` | tasks that are known again when they come again |

mod handing_back;
mod intake;
mod parking;
mod remembered;
mod serving;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fermata_executors::Executors;
use fermata_jetstream::Delivery;
use fermata_jetstream::work_queue::{TASK_WAIT_DEFAULT, deliveries_before, message_id};
use fermata_wire::WireError;
use fermata_wire::tasks::{TaskId, TaskMessage};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use self::handing_back::{hand_back, handed_back};
use self::intake::{Intake, listen_for_cancels};
use self::remembered::Remembered;
use self::serving::{ACK_STORED_LIMIT, Serving, Stop};
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

/// Attempts that a worker remembers to be taken back, so that it does not begin
/// them when their turn comes: as many as a partition has in one queue (some
/// megabytes). The oldest beyond it are forgotten, and run if they come; their
/// results are late.
const CANCELLED_REMEMBERED: usize = 16_384;

/// How long a task that a newer program wrote is kept, and with it its permit,
/// before it is handed on: other workers have time to take what they can read.
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
    ended: Remembered,
    cancelled: Remembered,
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
        Self { shared, permits: served.permits.clamp(1, PERMITS_MAX) }
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
        let intake = Intake::start(self.shared.clone(), permits.clone(), myself);
        tracing::info!(
            queue = &*self.shared.queue,
            permits = self.permits,
            "the worker serves a queue"
        );
        Ok(TaskWorkerState {
            running: HashMap::new(),
            ended: Remembered::at_most(ENDED_REMEMBERED),
            cancelled: Remembered::at_most(CANCELLED_REMEMBERED),
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
                    state.ended.insert(task);
                }
            }
            TaskWorkerMessage::Cancel(task) => {
                let running = state.running.get_mut(&task);
                if let Some(cancel) = running.and_then(|running| running.cancel.take()) {
                    // One that ends just now needs no telling.
                    let _ = cancel.send(());
                }
                // One that waits in the queue is known when its turn comes.
                state.cancelled.insert(task);
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
                let mut ending = state.stop.subscribe();
                state.tasks.spawn(async move {
                    let pause = tokio::time::timeout(NEWER_PAUSE, async {
                        // Whichever comes first; the worker may be gone as well.
                        let _ = ending.wait_for(|ending| *ending).await;
                    });
                    let _ = serving::kept(&delivery.acker, shared.wait, pause).await;
                    let task = handed_back(&delivery);
                    hand_back(&shared, task, delivery.acker, false, NEWER_PAUSE).await;
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
        if let Some(fault) = delivery.fault {
            // It breaks the connection of each worker that it is delivered to.
            self.refuse("unreadable", &delivery);
            let detail = format!("the task cannot be delivered: {fault}");
            let attempt = Some(Box::new(message.into_attempt()));
            state.tasks.spawn(parking::park(shared, delivery, attempt, detail, permit));
            return;
        }
        let (due, idempotent) = (message.due, message.idempotent);
        let attempt = message.into_attempt();
        let task = TaskId::of(&attempt);
        if let Some(running) = state.running.get(&task) {
            // It is under way here: from now on the newer delivery is answered.
            let _ = running.adopt.try_send(delivery);
            return;
        }
        // Nobody waits for these: they leave the queue and are not run.
        let over = match (state.ended.contains(&task), state.cancelled.contains(&task)) {
            (true, _) => Some("ended"),
            (false, true) => Some("cancelled"),
            (false, false) => None,
        };
        if let Some(reason) = over {
            self.refuse(reason, &delivery);
            state.tasks.spawn(async move {
                delivery.acker.ack_durable(ACK_STORED_LIMIT).await;
                drop(permit);
            });
            return;
        }
        let deliveries = delivery.delivered_count.saturating_add(deliveries_before(&delivery));
        if idempotent && deliveries > DELIVERIES_MAX {
            self.refuse("poisoned", &delivery);
            let deliveries = deliveries - 1;
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
