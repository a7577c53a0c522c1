//! One task, from its delivery to its acknowledgement.

use std::sync::Arc;
use std::time::Duration;

use fermata_core::command::{Command, OutcomeCommand};
use fermata_core::effect::{Attempt, Outcome, bounded_outcome};
use fermata_core::identity::JournalTime;
use fermata_core::plan::FailureClass;
use fermata_core::run::AttemptReport;
use fermata_jetstream::work_queue::HandBack;
use fermata_jetstream::{Acker, Delivery};
use fermata_wire::commands::CommandFrame;
use fermata_wire::subjects;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tracing::Instrument as _;

use super::Shared;
use super::handing_back::{hand_back, handed_back};
use crate::clock::wall_ms;
use crate::hop::{AGAIN_AFTER, publish};
use crate::node_runner::{carry_out, report_of};

/// The broker hears of a task that is under way this many times in the time that
/// it waits for an acknowledgement.
const HEARTBEATS: u32 = 3;

/// How long the broker may take to say that it has let go of a task that must not be
/// run twice; after that it is not begun.
pub(super) const ACK_LIMIT: Duration = Duration::from_secs(5);

/// How long it may take to say that it has let go of one whose result is stored,
/// from when it is connected: some elections. After that the task comes again.
pub(super) const ACK_STORED_LIMIT: Duration = Duration::from_secs(30);

/// How long tasks that are told to stop may take to say so.
pub(super) const END_LIMIT: Duration = Duration::from_secs(5);

/// One task.
pub(super) struct Serving {
    pub(super) shared: Arc<Shared>,
    pub(super) attempt: Attempt,
    pub(super) due: JournalTime,
    pub(super) idempotent: bool,
    pub(super) delivery: Delivery,
    /// Where another delivery of the same task comes.
    pub(super) adopted: mpsc::Receiver<Delivery>,
    pub(super) stop: Stop,
}

/// What makes a task stop before its end.
pub(super) struct Stop {
    cancelled: oneshot::Receiver<()>,
    ending: watch::Receiver<bool>,
}

/// Why it did.
enum Stopped {
    /// Its run is closing.
    Cancelled,
    /// This process ends.
    Ending,
}

impl Stop {
    pub(super) fn new(cancelled: oneshot::Receiver<()>, ending: watch::Receiver<bool>) -> Self {
        Self { cancelled, ending }
    }

    async fn told(&mut self) -> Stopped {
        let Self { cancelled, ending } = self;
        let ending = async { ending.wait_for(|ending| *ending).await.is_ok() };
        tokio::select! {
            Ok(()) = cancelled => Stopped::Cancelled,
            true = ending => Stopped::Ending,
            // The worker is gone: nobody can tell it anything.
            else => std::future::pending().await,
        }
    }
}

/// What answers for a task towards the broker.
struct Held {
    acker: Acker,
    adopted: mpsc::Receiver<Delivery>,
    heartbeats: Interval,
    /// As which it is handed back.
    hand_back: Option<HandBack>,
}

impl Held {
    /// Keeps the task from other workers while `work` goes on.
    async fn while_under_way<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                Some(delivery) = self.adopted.recv() => self.acker = delivery.acker,
                _ = self.heartbeats.tick() => self.acker.keep_durable().await,
            }
        }
    }
}

/// Keeps a task from other workers while `work` goes on.
pub(super) async fn kept<T>(acker: &Acker, wait: Duration, work: impl Future<Output = T>) -> T {
    let mut heartbeats = heartbeats(wait);
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            _ = heartbeats.tick() => acker.keep_durable().await,
        }
    }
}

/// How often the broker hears of a task that is under way.
fn heartbeats(wait: Duration) -> Interval {
    let period = (wait / HEARTBEATS).max(Duration::from_millis(1));
    let mut heartbeats = interval_at(Instant::now() + period, period);
    heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    heartbeats
}

impl Serving {
    /// Runs the task, stores its result, and acknowledges it. Returns whether its
    /// result is stored.
    pub(super) async fn run(self) -> bool {
        let Self { shared, attempt, due, idempotent, delivery, adopted, stop } = self;
        let heartbeats = heartbeats(shared.wait);
        let (first, deliveries) = (delivery.delivered_count == 1, delivery.delivered_count);
        let hand_back = handed_back(&delivery);
        let held = Held { acker: delivery.acker, adopted, heartbeats, hand_back };
        let (queue, worker) = (&*shared.queue, &*shared.ports.facts.worker);
        let span = tracing::debug_span!("task", queue, worker, deliveries);
        let under_way = shared.metrics.task_begins(queue);
        let stored = match idempotent {
            true => repeatable(&shared, attempt, due, held, stop).instrument(span).await,
            false => once(&shared, attempt, due, first, held, stop).instrument(span).await,
        };
        under_way.ends(stored);
        stored
    }
}

/// A task that may be run again: acknowledged when its result is stored.
async fn repeatable(
    shared: &Shared,
    attempt: Attempt,
    due: JournalTime,
    mut held: Held,
    mut stop: Stop,
) -> bool {
    let Some(attempt) = in_time(shared, attempt, due) else {
        held.acker.ack().await;
        return false;
    };
    let done = held.while_under_way(carry_out_or_stop(shared, &attempt, &mut stop)).await;
    let outcome = match done {
        Ok(outcome) => outcome,
        Err(Stopped::Cancelled) => cancelled(),
        Err(Stopped::Ending) => {
            let Held { acker, hand_back: task, .. } = held;
            hand_back(shared, task, acker, true, Duration::ZERO).await;
            return false;
        }
    };
    held.while_under_way(report(shared, report_of(&attempt, outcome))).await;
    if !held.acker.ack_durable(ACK_STORED_LIMIT).await {
        let (run, node, number) = (attempt.run, &*attempt.node, attempt.attempt);
        tracing::debug!(%run, node, attempt = number, "nobody knows whether a task is acknowledged; it comes again");
    }
    true
}

/// A task that must not be run twice: let go of before it begins, and begun on its
/// first delivery alone, by a worker that knows that the queue has let go of it.
async fn once(
    shared: &Shared,
    attempt: Attempt,
    due: JournalTime,
    first: bool,
    held: Held,
    mut stop: Stop,
) -> bool {
    let unknown = |detail: &str| {
        let detail = detail.to_owned();
        Outcome::Failed { class: FailureClass::Unknown, detail }
    };
    if !first {
        let outcome = unknown("another worker was given the task and may have run it");
        report(shared, report_of(&attempt, outcome)).await;
        held.acker.ack_durable(ACK_STORED_LIMIT).await;
        shared.metrics.task_refused(&shared.queue, "second_delivery");
        return true;
    }
    if !held.acker.ack_confirmed(ACK_LIMIT).await {
        let (run, node) = (attempt.run, &*attempt.node);
        tracing::warn!(%run, node, "a task that must not be run twice is not begun: nobody knows whether its queue has let go of it");
        shared.metrics.task_refused(&shared.queue, "unconfirmed");
        return false;
    }
    let Some(attempt) = in_time(shared, attempt, due) else { return false };
    let outcome = match carry_out_or_stop(shared, &attempt, &mut stop).await {
        Ok(outcome) => outcome,
        Err(Stopped::Cancelled) => cancelled(),
        Err(Stopped::Ending) => unknown("its worker ended while it ran"),
    };
    report(shared, report_of(&attempt, outcome)).await;
    true
}

/// The attempt with the time that is left for it; nothing when that is over. Its
/// owner has it on the clock and needs no telling.
fn in_time(shared: &Shared, attempt: Attempt, due: JournalTime) -> Option<Attempt> {
    let left_ms = due.0.saturating_sub(wall_ms());
    if left_ms == 0 {
        let (run, node, number) = (attempt.run, &*attempt.node, attempt.attempt);
        tracing::info!(%run, node, attempt = number, queue = &*shared.queue, "the time of a task is over; it is not run");
        shared.metrics.task_refused(&shared.queue, "overdue");
        return None;
    }
    Some(Attempt { timeout_ms: attempt.timeout_ms.min(left_ms), ..attempt })
}

async fn carry_out_or_stop(
    shared: &Shared,
    attempt: &Attempt,
    stop: &mut Stop,
) -> Result<Outcome, Stopped> {
    tokio::select! {
        outcome = carry_out(&shared.means, attempt) => Ok(outcome),
        stopped = stop.told() => Err(stopped),
    }
}

fn cancelled() -> Outcome {
    let detail = "the run is closing".to_owned();
    Outcome::Failed { class: FailureClass::Cancelled, detail }
}

/// Stores a result among the commands of its partition, however long that takes.
pub(super) async fn report(shared: &Shared, report: AttemptReport) {
    let partition = report.run.partition();
    let command = Command::Outcome(OutcomeCommand {
        run: report.run,
        node: report.node,
        activation: report.activation,
        attempt: report.attempt,
        tenant: report.tenant,
        outcome: bounded_outcome(&report.outcome),
    });
    let bytes = match (CommandFrame { floor: 0, commands: vec![command] }).encode() {
        Ok(bytes) => bytes::Bytes::from(bytes),
        Err(error) => {
            // An outcome within its bounds fits; the attempt's time ends it.
            tracing::error!(%partition, %error, "a result does not fit a message");
            return;
        }
    };
    let subject = subjects::commands(partition);
    while !publish(&shared.ports.publisher, &subject, bytes.clone()).await {
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}
