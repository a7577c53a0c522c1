//! Tasks that nobody can run: reported as failed and filed as a dead letter, each
//! once, and only then acknowledged.

use std::sync::Arc;

use fermata_core::effect::{Attempt, Outcome, bounded_detail};
use fermata_core::plan::FailureClass;
use fermata_core::run::AttemptReport;
use fermata_jetstream::work_queue::{deliveries_before, message_id};
use fermata_jetstream::{Bytes, Delivery, PublishOutcome, Refusal};
use fermata_wire::dead::DeadLetter;
use fermata_wire::subjects;
use fermata_wire::tasks::TaskId;
use tokio::sync::OwnedSemaphorePermit;

use super::Shared;
use super::serving::{ACK_STORED_LIMIT, kept, report};
use crate::clock::wall_ms;
use crate::hop::AGAIN_AFTER;
use crate::node_runner::report_of;

/// Stage of its dead letter.
const STAGE: &str = "tasks";

/// Reason code of its dead letter.
const REASON: &str = "task_poisoned";

/// Parks a task; `attempt` is absent when it cannot be read.
pub(super) async fn park(
    shared: Arc<Shared>,
    delivery: Delivery,
    attempt: Option<Box<Attempt>>,
    detail: String,
    permit: OwnedSemaphorePermit,
) {
    let outcome = Outcome::Failed {
        class: FailureClass::Poisoned,
        detail: bounded_detail(&format!("{detail} (queue `{}`)", shared.queue)),
    };
    let tenant = attempt.as_ref().map(|attempt| attempt.tenant.clone());
    let trace = attempt.as_ref().and_then(|attempt| attempt.traceparent.as_deref());
    let trace = trace.map(str::to_owned);
    let told = match attempt {
        Some(attempt) => Some(report_of(&attempt, outcome)),
        // Whoever published it has named it all the same.
        None => message_id(&delivery).and_then(TaskId::of_message).map(|task| {
            let TaskId { run, node, activation, attempt } = task;
            AttemptReport { run, node, activation, attempt, tenant: None, outcome }
        }),
    };
    let tenant = tenant.map_or_else(|| "_engine".to_owned(), |tenant| tenant.to_string());
    let parked = async {
        if let Some(told) = told {
            report(&shared, told).await;
        }
        file(&shared, &delivery, &tenant, detail, trace).await;
    };
    // What cannot be told or filed for long would be parked by one worker after the
    // other, with all their permits.
    kept(&delivery.acker, shared.wait, parked).await;
    // One that is not confirmed comes again, and is parked again without a trace.
    delivery.acker.ack_durable(ACK_STORED_LIMIT).await;
    drop(permit);
}

/// Files the dead letter on a subject of its own, behind nothing: the broker
/// refuses a second one, whenever and from whomever it comes.
async fn file(
    shared: &Shared,
    delivery: &Delivery,
    tenant: &str,
    detail: String,
    trace: Option<String>,
) {
    let sequence = delivery.stream_sequence;
    let deliveries = delivery.delivered_count.saturating_add(deliveries_before(delivery));
    let letter = DeadLetter {
        id: format!("TASKS.{sequence}.all"),
        tenant: tenant.to_owned(),
        stage: STAGE.to_owned(),
        reason: REASON.to_owned(),
        detail,
        subject: delivery.subject.to_string(),
        original: delivery.payload.clone(),
        time_ms: wall_ms(),
        headers: Vec::new(),
        attempts: u32::try_from(deliveries).ok(),
        trace,
    };
    let letter = shared.ports.dead_room.fitted(&shared.ports.broker, letter).await;
    let encoded = letter
        .encode()
        .or_else(|_| DeadLetter { original: Bytes::new(), ..letter.clone() }.encode());
    let Ok(bytes) = encoded else { return };
    let (bytes, subject) = (Bytes::from(bytes), subjects::dead_task(tenant, sequence));
    // Of a letter that is there now it may be the one that has no answer.
    let mut was_perhaps_filed = false;
    loop {
        let publisher = &shared.ports.publisher;
        match publisher.publish_behind(subject.clone(), 0, bytes.clone()).await {
            PublishOutcome::Stored { .. } => return shared.ports.dead_room.filed(STAGE, REASON),
            PublishOutcome::Refused {
                refusal: Refusal::WrongLastSequence { last: Some(1..) },
                ..
            } => {
                if was_perhaps_filed {
                    shared.ports.dead_room.filed(STAGE, REASON);
                }
                return;
            }
            PublishOutcome::Refused { description, code, .. } => {
                tracing::warn!(
                    subject,
                    code,
                    description,
                    "a dead letter was refused; it is tried again"
                );
            }
            PublishOutcome::Unknown => was_perhaps_filed = true,
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}
