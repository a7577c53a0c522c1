//! Tasks that a worker gives away although nothing is wrong with them: it ends,
//! or cannot read what a newer program wrote.
//!
//! Each delivery counts as a worker that was lost, so such a task is stored anew,
//! behind the others, and counts from where it stood. One that may run twice is
//! stored and then let go of; any other one is let go of first, and only on its
//! first delivery: if it is lost in between, its time tells.

use std::time::Duration;

use fermata_jetstream::work_queue::{HandBack, message_id};
use fermata_jetstream::{Acker, Delivery, PublishOutcome};
use fermata_wire::tasks::{TaskId, TaskMessage};

use super::Shared;
use super::serving::ACK_LIMIT;
use crate::clock::wall_ms;

/// How often it is tried to store one that the queue has let go of, and refuses.
const STORES_MAX: u32 = 8;

/// Pause between two tries.
const STORE_PAUSE: Duration = Duration::from_millis(250);

/// As what a delivery is handed back, if it can be.
pub(super) fn handed_back(delivery: &Delivery) -> Option<HandBack> {
    let task = TaskId::of_message(message_id(delivery)?)?;
    HandBack::of(delivery, task.handed_back(delivery.stream_sequence), wall_ms())
}

/// Hands back what has come and was not begun.
pub(super) async fn hand_back_unbegun(shared: &Shared, delivery: Delivery) {
    // What cannot be read may be one that must not run twice.
    let repeatable = TaskMessage::decode(&delivery.payload).is_ok_and(|task| task.idempotent);
    let task = handed_back(&delivery);
    hand_back(shared, task, delivery.acker, repeatable, Duration::ZERO).await;
}

/// Hands `task` back; where that does not go well it comes again after `pause`, or
/// in its time, and counts as lost by this worker.
pub(super) async fn hand_back(
    shared: &Shared,
    task: Option<HandBack>,
    acker: Acker,
    repeatable: bool,
    pause: Duration,
) {
    let Some(task) = task.filter(|task| repeatable || task.is_first_delivery()) else {
        return acker.nak(pause).await;
    };
    let publisher = &shared.ports.publisher;
    if repeatable {
        match task.publish(publisher).await {
            PublishOutcome::Stored { .. } => drop(acker.ack_durable(ACK_LIMIT).await),
            PublishOutcome::Refused { .. } | PublishOutcome::Unknown => acker.nak(pause).await,
        }
        return;
    }
    if !acker.ack_confirmed(ACK_LIMIT).await {
        return;
    }
    for _ in 0..STORES_MAX {
        match task.publish(publisher).await {
            PublishOutcome::Stored { .. } => return,
            // It may be there, and must not be there twice.
            PublishOutcome::Unknown => break,
            PublishOutcome::Refused { .. } => tokio::time::sleep(STORE_PAUSE).await,
        }
    }
    let (queue, task) = (&*shared.queue, task.id());
    tracing::warn!(queue, task, "a task may be lost that was handed back; its time tells");
}
