//! What is taken from a queue: as much as there are permits for.

use std::sync::Arc;
use std::time::Duration;

use fermata_jetstream::shared_consumer::SharedConsumerError;
use fermata_jetstream::work_queue::WorkQueue;
use fermata_wire::subjects;
use futures_util::future::join_all;
use ractor::ActorRef;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

use super::handing_back::hand_back_unbegun;
use super::{Shared, TaskWorkerMessage};
use crate::hop::AGAIN_AFTER;

/// Takes from the queue until it is dropped or ended.
#[derive(Debug)]
pub(super) struct Intake {
    /// The task ends when this is dropped.
    running: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Intake {
    pub(super) fn start(
        shared: Arc<Shared>,
        permits: Arc<Semaphore>,
        worker: ActorRef<TaskWorkerMessage>,
    ) -> Self {
        let (running, ended) = oneshot::channel();
        let pump = Pump { shared, permits, worker, ended };
        Self { running, task: tokio::spawn(pump.run()) }
    }

    /// Takes nothing more; what has come and was not begun goes to another worker.
    pub(super) async fn end(self) {
        drop(self.running);
        let _ = self.task.await;
    }
}

struct Pump {
    shared: Arc<Shared>,
    permits: Arc<Semaphore>,
    worker: ActorRef<TaskWorkerMessage>,
    ended: oneshot::Receiver<()>,
}

impl Pump {
    async fn run(mut self) {
        loop {
            let Err(error) = self.run_until_broken().await else { return };
            let queue = &*self.shared.queue;
            tracing::warn!(queue, %error, "a queue cannot be served; it is tried again");
            tokio::select! {
                () = tokio::time::sleep(AGAIN_AFTER) => {}
                _ = &mut self.ended => return,
            }
        }
    }

    /// Ends well when nothing more is to be taken.
    async fn run_until_broken(&mut self) -> Result<(), SharedConsumerError> {
        let broker = &self.shared.ports.broker;
        let mut queue = WorkQueue::open(broker, &self.shared.queue, self.shared.wait).await?;
        loop {
            let permit = tokio::select! {
                permit = self.permits.clone().acquire_owned() => permit,
                _ = &mut self.ended => {
                    self.end(queue).await;
                    return Ok(());
                }
            };
            let Ok(first) = permit else { return Ok(()) };
            let room = 1 + self.permits.available_permits();
            let deliveries = tokio::select! {
                taken = queue.take(room) => taken?,
                _ = &mut self.ended => {
                    self.end(queue).await;
                    return Ok(());
                }
            };
            let mut first = Some(first);
            for delivery in deliveries {
                // Nobody else takes permits, so there is one for each.
                let permit = match first.take() {
                    Some(permit) => Ok(permit),
                    None => self.permits.clone().try_acquire_owned(),
                };
                let Ok(permit) = permit else {
                    delivery.acker.nak(Duration::ZERO).await;
                    continue;
                };
                // A worker that is gone lets it come again.
                let _ = self.worker.cast(TaskWorkerMessage::Taken(delivery, permit));
            }
        }
    }
}

impl Pump {
    /// What has come and was not begun is handed to other workers, all of it at once:
    /// the process does not wait for long.
    async fn end(&self, queue: WorkQueue) {
        let unbegun = queue.end().await.into_iter();
        join_all(unbegun.map(|delivery| hand_back_unbegun(&self.shared, delivery))).await;
    }
}

/// Hears which attempts are to stop, until dropped. Nobody stores what is told
/// here: one that was missed ends by itself, and its result is late.
pub(super) async fn listen_for_cancels(shared: Arc<Shared>, worker: ActorRef<TaskWorkerMessage>) {
    let subject = subjects::tasks_cancel(&shared.queue);
    loop {
        match shared.ports.core.subscribe(&subject).await {
            Ok(mut messages) => {
                while let Some(message) = messages.next().await {
                    let text = std::str::from_utf8(&message.payload).unwrap_or_default();
                    if let Ok(task) = text.parse() {
                        let _ = worker.cast(TaskWorkerMessage::Cancel(task));
                    }
                }
            }
            Err(error) => {
                tracing::warn!(subject, %error, "it cannot be heard which tasks are to stop")
            }
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}
