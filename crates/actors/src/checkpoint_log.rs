//! A partition's signed checkpoints: the synced file, then the stream. Sizes never fall in the stream: an
//! auditor that was paused, or a publish that was tried again, may come late,
//! and what is late is left out.

use std::time::Duration;

use bytes::Bytes;
use fermata_audit::{Checkpoint, Verifier};
use fermata_core::identity::PartitionId;
use fermata_jetstream::reader::ReadError;
use fermata_jetstream::topology::CHECKPOINTS_STREAM;
use fermata_jetstream::{PublishOutcome, StreamReader};
use fermata_wire::subjects;
use tokio::sync::watch;

use crate::log_pace::LogPace;
use crate::ports::Ports;

/// Pause before a checkpoint is tried again; by then a newer one may take its place.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Tries for the last checkpoint of an auditor that has ended. What is not
/// stored then stands in the file, and the next auditor signs again.
const LAST_TRIES_MAX: u32 = 5;

/// Stores the newest checkpoint that it was offered; one that was overtaken
/// meanwhile is left out, as the newer one covers it.
#[derive(Debug)]
pub struct CheckpointLog {
    offered: watch::Sender<Option<Signed>>,
}

#[derive(Debug, Clone)]
struct Signed {
    note: Bytes,
    size: u64,
}

impl CheckpointLog {
    /// Begins to store for `partition`; ends with the value, the last checkpoint stored.
    #[must_use]
    pub fn start(ports: Ports, partition: PartitionId) -> Self {
        let (offered, newest) = watch::channel(None);
        let storing = ports.facts.checkpoints.begin_storing();
        tokio::spawn(async move {
            store_all(ports, partition, newest).await;
            drop(storing);
        });
        Self { offered }
    }

    /// Has this note stored soon; `size` is the number of entries that it covers.
    pub fn offer(&self, note: String, size: u64) {
        self.offered.send_replace(Some(Signed { note: note.into(), size }));
    }
}

async fn store_all(
    ports: Ports,
    partition: PartitionId,
    mut newest: watch::Receiver<Option<Signed>>,
) {
    let mut last = None;
    // An outage is tried five times a second, by every partition.
    let mut warnings = LogPace::new(1);
    while newest.changed().await.is_ok() {
        let mut last_tries = 0;
        loop {
            let Some(signed) = newest.borrow_and_update().clone() else { break };
            // What the next auditor finds covered it does not send to subscribers
            // again, so what was sent has to leave this process first.
            if let Err(error) = ports.core.flush().await {
                tracing::error!(%partition, %error, "the feed was not sent; nothing more is signed");
                return;
            }
            // A synced write takes milliseconds: here nobody waits for it.
            let size = signed.size;
            let written = ports.facts.checkpoints.write(partition, size, &signed.note).await;
            if let Err(error) = written
                && let Some(left_out) = warnings.line()
            {
                tracing::error!(%partition, size, %error, left_out, "a checkpoint cannot be written");
            }
            if store(&ports, partition, signed, &mut last, &mut warnings).await {
                break;
            }
            last_tries += u32::from(newest.has_changed().is_err());
            if last_tries == LAST_TRIES_MAX {
                return;
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }
}

/// Stores one behind everything that is there; true once it needs no other try.
/// `last` is the newest sequence of the subject, where it is known.
async fn store(
    ports: &Ports,
    partition: PartitionId,
    signed: Signed,
    last: &mut Option<u64>,
    warnings: &mut LogPace,
) -> bool {
    let behind = match *last {
        Some(sequence) => sequence,
        None => match newest(ports, partition).await {
            Ok((_, Some(newest))) if newest.checkpoint.size() >= signed.size => return true,
            Ok((sequence, _)) => sequence,
            Err(error) => {
                if let Some(left_out) = warnings.line() {
                    tracing::warn!(%partition, %error, left_out, "the newest checkpoint cannot be read yet");
                }
                return false;
            }
        },
    };
    let subject = subjects::checkpoints(partition);
    match ports.publisher.publish_behind(subject, behind, signed.note).await {
        PublishOutcome::Stored { sequence, .. } => {
            *last = Some(sequence);
            true
        }
        PublishOutcome::Refused { .. } | PublishOutcome::Unknown => {
            *last = None;
            false
        }
    }
}

async fn newest(
    ports: &Ports,
    partition: PartitionId,
) -> Result<(u64, Option<SignedNote>), ReadError> {
    newest_of_stream(&ports.reader, ports.facts.signer.verifier(), partition).await
}

/// A checkpoint, and the note that it was read from.
#[derive(Debug, Clone)]
pub struct SignedNote {
    /// The note.
    pub note: Bytes,
    /// What it says.
    pub checkpoint: Checkpoint,
}

/// The newest checkpoint of the stream that `verifier` signed, and the sequence of the
/// newest message there: whoever may publish can put something else behind it.
///
/// # Errors
///
/// When the stream cannot be read.
///
/// # Cancel safety
///
/// Can be dropped.
pub async fn newest_of_stream(
    reader: &StreamReader,
    verifier: Verifier,
    partition: PartitionId,
) -> Result<(u64, Option<SignedNote>), ReadError> {
    let verifier = [verifier];
    let subject = subjects::checkpoints(partition);
    let mut message = reader.last_of_subject(CHECKPOINTS_STREAM, &subject).await?;
    let last = message.as_ref().map_or(0, |message| message.sequence);
    let mut sequence = last;
    while sequence > 0 {
        if let Some(message) = message.filter(|message| *message.subject == *subject) {
            match Checkpoint::open(&message.payload, &verifier) {
                Ok(checkpoint) => {
                    let note = message.payload;
                    return Ok((last, Some(SignedNote { note, checkpoint })));
                }
                Err(error) => {
                    tracing::warn!(%partition, sequence, %error, "a checkpoint is not ours and is passed over");
                }
            }
        }
        sequence -= 1;
        message = match sequence {
            0 => None,
            sequence => reader.read_one(CHECKPOINTS_STREAM, sequence).await?,
        };
    }
    Ok((last, None))
}
