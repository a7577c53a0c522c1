//! The way from one intake stage to the next: in memory when both run in this
//! process, over a stream when they do not. One mechanism: a frame is passed on
//! when everything that came of it is durable, and only then is its source
//! acknowledged.

use std::sync::Arc;
use std::time::Duration;

use fermata_jetstream::shared_consumer::{Acker, SharedConsumerError, ack_all_of};
use fermata_jetstream::{
    Delivery, PublishOutcome, Publisher, SharedConsumer, SharedConsumerOptions,
};
use fermata_wire::WireError;
use fermata_wire::dead::DeadLetter;
use fermata_wire::stages::StageFrame;
use ractor::{ActorRef, Message};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::clock::wall_ms;
use crate::listener::file;
use crate::ports::Ports;

/// Frames that a stage holds at once, from a stream; each waits for its own
/// outputs, so this is what overlaps the broker's answer times.
pub const FRAMES_HELD_MAX: usize = 16;

/// Messages taken from a stream at once.
pub const BATCH_MESSAGES_MAX: usize = 1_000;

/// Pause before a message is delivered again whose outputs could not be stored.
pub const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Deliveries after which a message that cannot be decoded is filed as a dead
/// letter. One that a newer program wrote waits for a worker that can read it.
pub const DELIVERIES_MAX: u64 = 5;

/// Tries to publish one frame before its source is left for later.
const PUBLISHES_MAX: u32 = 3;

/// A frame and where to say that everything that came of it is durable.
/// Dropping it unsaid leaves the source unacknowledged.
#[derive(Debug)]
pub struct Passed<F> {
    /// The frame.
    pub frame: F,
    /// Told once, when all is durable.
    pub done: oneshot::Sender<()>,
}

/// Where a stage's frames go.
#[derive(Debug)]
pub enum Hop<F: StageFrame + std::fmt::Debug>
where
    Passed<F>: Message,
{
    /// The next stage runs here.
    Memory(ActorRef<Passed<F>>),
    /// The next stage runs anywhere.
    Stream {
        /// Publishes.
        publisher: Publisher,
        /// The subject.
        subject: Arc<str>,
    },
}

impl<F: StageFrame + std::fmt::Debug> Clone for Hop<F>
where
    Passed<F>: Message,
{
    fn clone(&self) -> Self {
        match self {
            Self::Memory(next) => Self::Memory(next.clone()),
            Self::Stream { publisher, subject } => {
                Self::Stream { publisher: publisher.clone(), subject: subject.clone() }
            }
        }
    }
}

impl<F: StageFrame + std::fmt::Debug> Hop<F>
where
    Passed<F>: Message,
{
    /// Passes a frame on; true once everything that came of it is durable.
    ///
    /// # Cancel safety
    ///
    /// When dropped, the frame may be durable all the same.
    pub async fn pass(&self, frame: F) -> bool {
        match self {
            Self::Memory(next) => {
                let (done, durable) = oneshot::channel();
                next.cast(Passed { frame, done }).is_ok() && durable.await.is_ok()
            }
            Self::Stream { publisher, subject } => {
                let mut waiting = vec![frame];
                while let Some(frame) = waiting.pop() {
                    let Ok(bytes) = frame.encode() else {
                        let (first, rest) = frame.halve();
                        let Some(rest) = rest else { return false };
                        waiting.extend([rest, first]);
                        continue;
                    };
                    if !publish(publisher, subject, bytes.into()).await {
                        return false;
                    }
                }
                true
            }
        }
    }
}

/// Publishes until it is known to be stored, a few times at the most. A repeat
/// after an unknown outcome may store it twice; who reads recognises positions.
///
/// # Cancel safety
///
/// When dropped, it may be stored.
pub async fn publish(publisher: &Publisher, subject: &str, bytes: bytes::Bytes) -> bool {
    for _ in 0..PUBLISHES_MAX {
        match publisher.publish(subject.to_owned(), None, bytes.clone()).await.await {
            PublishOutcome::Stored { .. } => return true,
            PublishOutcome::Unknown => {}
            PublishOutcome::Refused { description, code, .. } => {
                tracing::warn!(
                    subject,
                    code,
                    description,
                    "a publish was refused; it is tried later"
                );
                return false;
            }
        }
    }
    false
}

/// Acknowledges a source once its outputs are durable, or asks for it again.
///
/// # Cancel safety
///
/// When dropped, what is not acknowledged comes again.
pub async fn settle(ackers: Vec<Acker>, durable: bool) {
    if durable {
        ack_all_of(ackers).await;
    } else {
        for acker in ackers {
            acker.nak(AGAIN_AFTER).await;
        }
    }
}

/// Feeds a stage from its stream: the part of a stage that runs apart.
///
/// Ends when the stage ends.
pub async fn feed<F>(ports: Ports, options: SharedConsumerOptions, stage: ActorRef<Passed<F>>)
where
    F: StageFrame + std::fmt::Debug,
    Passed<F>: Message,
{
    let held = Arc::new(Semaphore::new(FRAMES_HELD_MAX));
    while let Err(error) = feed_until_broken(&ports, &options, &stage, &held).await {
        tracing::warn!(stream = options.stream, %error, "the stage's consumer is made again");
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

async fn feed_until_broken<F>(
    ports: &Ports,
    options: &SharedConsumerOptions,
    stage: &ActorRef<Passed<F>>,
    held: &Arc<Semaphore>,
) -> Result<(), SharedConsumerError>
where
    F: StageFrame + std::fmt::Debug,
    Passed<F>: Message,
{
    let mut consumer = SharedConsumer::open(&ports.broker, options.clone()).await?;
    loop {
        for delivery in consumer.next_batch(FRAMES_HELD_MAX).await? {
            let frame = match F::decode(&delivery.payload) {
                Ok(frame) => frame,
                Err(error) => {
                    give_up_or_wait(ports, options, delivery, &error).await;
                    continue;
                }
            };
            let Ok(permit) = held.clone().acquire_owned().await else { return Ok(()) };
            let (done, durable) = oneshot::channel();
            if stage.cast(Passed { frame, done }).is_err() {
                return Ok(());
            }
            tokio::spawn(settle_later(vec![delivery.acker], durable, permit));
        }
    }
}

/// Files a frame that cannot be decoded, after a few deliveries.
async fn give_up_or_wait(
    ports: &Ports,
    options: &SharedConsumerOptions,
    delivery: Delivery,
    error: &WireError,
) {
    let (stream, sequence) = (&options.stream, delivery.stream_sequence);
    let newer = matches!(error, WireError::NewerVersion { .. });
    if newer || delivery.delivered_count < DELIVERIES_MAX {
        tracing::warn!(stream, sequence, %error, "a frame cannot be decoded; it comes again");
        return delivery.acker.nak(AGAIN_AFTER).await;
    }
    let letter = DeadLetter {
        id: format!("{stream}.{sequence}.all"),
        tenant: "_engine".to_owned(),
        stage: options.name.clone(),
        reason: error.code().to_owned(),
        detail: error.to_string(),
        subject: delivery.subject.to_string(),
        original: delivery.payload.clone(),
        time_ms: wall_ms(),
    };
    let filed = file(ports, vec![letter]).await;
    settle(vec![delivery.acker], filed).await;
}

async fn settle_later(
    ackers: Vec<Acker>,
    durable: oneshot::Receiver<()>,
    permit: OwnedSemaphorePermit,
) {
    let durable = durable.await.is_ok();
    settle(ackers, durable).await;
    drop(permit);
}
