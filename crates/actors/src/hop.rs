//! The way from one intake stage to the next: in memory when both run in this
//! process, over a stream when they do not. One mechanism: a frame is passed on
//! when everything that came of it is durable, and only then is its source
//! acknowledged.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fermata_jetstream::{PublishOutcome, Publisher};
use fermata_wire::stages::StageFrame;
use ractor::ActorRef;
use tokio::sync::oneshot;

use crate::stage::Passed;

/// Pause before what could not be stored or read is tried again.
pub const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Tries to publish one frame before its source is left for later.
const PUBLISHES_MAX: u32 = 3;

/// Where a stage's frames go.
#[derive(Debug)]
pub enum Hop<F: StageFrame + fmt::Debug> {
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

impl<F: StageFrame + fmt::Debug> Clone for Hop<F> {
    fn clone(&self) -> Self {
        match self {
            Self::Memory(next) => Self::Memory(next.clone()),
            Self::Stream { publisher, subject } => {
                Self::Stream { publisher: publisher.clone(), subject: subject.clone() }
            }
        }
    }
}

impl<F: StageFrame + fmt::Debug> Hop<F> {
    /// Passes a frame on; true once everything that came of it is durable.
    ///
    /// # Cancel safety
    ///
    /// When dropped, the frame may be durable all the same.
    pub async fn pass(&self, frame: F) -> bool {
        match self {
            Self::Memory(next) => {
                let (done, durable) = oneshot::channel();
                next.cast(Passed { input: frame, done }).is_ok()
                    && durable.await.is_ok_and(|held_back| held_back.is_empty())
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

/// Publishes until it is known to be stored, a few times at the most; true when it is, see
/// [`publish_known`].
///
/// # Cancel safety
///
/// When dropped, it may be stored.
pub async fn publish(publisher: &Publisher, subject: &str, bytes: bytes::Bytes) -> bool {
    matches!(publish_known(publisher, subject, bytes).await, PublishOutcome::Stored { .. })
}

/// Publishes until it is known to be stored, a few times at the most, and says what became of
/// it: refused only if no try can have stored it. A repeat after an unknown outcome may store
/// it twice; who reads recognises positions.
///
/// # Cancel safety
///
/// When dropped, it may be stored.
pub async fn publish_known(
    publisher: &Publisher,
    subject: &str,
    bytes: bytes::Bytes,
) -> PublishOutcome {
    for tried in 0..PUBLISHES_MAX {
        let outcome = publisher.publish(subject.to_owned(), None, bytes.clone()).await.await;
        match &outcome {
            PublishOutcome::Stored { .. } => return outcome,
            PublishOutcome::Unknown => {}
            PublishOutcome::Refused { description, code, .. } => {
                tracing::warn!(
                    subject,
                    code,
                    description,
                    "a publish was refused; it is tried later"
                );
                // An earlier try may have been stored without an answer.
                return if tried == 0 { outcome } else { PublishOutcome::Unknown };
            }
        }
    }
    PublishOutcome::Unknown
}
