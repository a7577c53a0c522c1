//! To which body the id of a request belongs: one message for each id in the stream
//! REPLAYS, stored only where there is none. The broker decides that, so it holds for
//! all processes at once, and after all of them have ended.
//!
//! The entry is stored before anything of the request is. A process that ends between
//! the two leaves an id that belongs to its body, and whoever sends the same request
//! again has its events stored.

use fermata_core::digest::Digest;
use fermata_jetstream::topology::REPLAYS_STREAM;
use fermata_jetstream::{Bytes, PublishOutcome, Refusal};
use fermata_wire::replay::{ReplayRefusal, replay_id};
use fermata_wire::subjects;

use super::ReplayRequestError;
use super::entry::{ReplayEntry, ReplayEntryError};
use crate::ports::Ports;

/// The entry of a request, which is there now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entered {
    /// Its events are to be stored, or some are; the entry stands at this sequence.
    Open(u64),
    /// Its events stand at these sequences.
    Answered(Vec<u64>),
}

/// Makes sure that the id belongs to this body.
pub(super) async fn enter(
    ports: &Ports,
    webhook_id: &str,
    body: &Digest,
) -> Result<Entered, ReplayRequestError> {
    let subject = subjects::replay_entry(replay_id(webhook_id));
    let entry = encoded(ports, webhook_id, body, None)?;
    match ports.publisher.publish_behind(subject.clone(), 0, entry.clone()).await {
        PublishOutcome::Stored { sequence, .. } => Ok(Entered::Open(sequence)),
        PublishOutcome::Refused { refusal: Refusal::WrongLastSequence { last }, .. } => {
            match found(ports, webhook_id, &subject, last, body).await? {
                Found::Entered(entered) => Ok(entered),
                Found::Nobodys(sequence) => replace(ports, &subject, sequence, entry).await,
            }
        }
        PublishOutcome::Refused { refusal: Refusal::StreamFull, .. } => unavailable(format!(
            "stream `{REPLAYS_STREAM}` is full, ids leave it when they are old"
        )),
        PublishOutcome::Refused { description, .. } => unavailable(description),
        PublishOutcome::Unknown => unavailable("the broker did not answer".to_owned()),
    }
}

/// What stands in an id's place.
enum Found {
    Entered(Entered),
    /// Nobody who has a secret wrote what stands at this sequence.
    Nobodys(u64),
}

/// Puts the entry in the place of what nobody of ours wrote: by that an id belongs to no body.
async fn replace(
    ports: &Ports,
    subject: &str,
    sequence: u64,
    entry: Bytes,
) -> Result<Entered, ReplayRequestError> {
    tracing::warn!(subject, sequence, "an entry that nobody signed is replaced");
    match ports.publisher.publish_behind(subject.to_owned(), sequence, entry).await {
        PublishOutcome::Stored { sequence, .. } => Ok(Entered::Open(sequence)),
        PublishOutcome::Refused { description, .. } => unavailable(description),
        PublishOutcome::Unknown => unavailable("the broker did not answer".to_owned()),
    }
}

/// What is there already. A read may come from a leader that is behind, so nothing
/// older than the entry that the broker named is believed.
async fn found(
    ports: &Ports,
    webhook_id: &str,
    subject: &str,
    last: Option<u64>,
    body: &Digest,
) -> Result<Found, ReplayRequestError> {
    let stored = ports.reader.last_of_subject(REPLAYS_STREAM, subject).await;
    let stored = match stored {
        Ok(stored) => stored.filter(|stored| last.is_none_or(|last| stored.sequence >= last)),
        Err(error) => return unavailable(error.to_string()),
    };
    let Some(stored) = stored else {
        return unavailable("what is known of its id cannot be read yet".to_owned());
    };
    let nobodys = Ok(Found::Nobodys(stored.sequence));
    let entry = match ReplayEntry::decode(&stored.payload) {
        Ok(entry) if entry.is_authentic(&ports.facts.replay_keys, webhook_id) => entry,
        Ok(_) | Err(ReplayEntryError::Malformed(_)) => return nobodys,
        Err(error @ ReplayEntryError::Newer(_)) => {
            return unavailable(format!("what is known of its id cannot be read: {error}"));
        }
    };
    if !entry.came_with(body) {
        return Err(ReplayRequestError::Differs);
    }
    Ok(Found::Entered(match entry.sequences {
        Some(sequences) => Entered::Answered(sequences),
        None => Entered::Open(stored.sequence),
    }))
}

/// Keeps the answer. Without it the same request is stored again, and passed over by
/// its partitions, which know the ids of its replays.
pub(super) async fn answer(
    ports: &Ports,
    webhook_id: &str,
    body: &Digest,
    entry: u64,
    sequences: Vec<u64>,
) {
    let subject = subjects::replay_entry(replay_id(webhook_id));
    let Ok(answered) = encoded(ports, webhook_id, body, Some(sequences)) else { return };
    match ports.publisher.publish_behind(subject, entry, answered).await {
        PublishOutcome::Stored { .. } => {}
        // Another copy of the request was answered meanwhile.
        PublishOutcome::Refused { refusal: Refusal::WrongLastSequence { .. }, .. } => {}
        outcome @ (PublishOutcome::Refused { .. } | PublishOutcome::Unknown) => {
            tracing::warn!(webhook_id, ?outcome, "the answer to a request to replay is not kept");
        }
    }
}

fn encoded(
    ports: &Ports,
    webhook_id: &str,
    body: &Digest,
    sequences: Option<Vec<u64>>,
) -> Result<Bytes, ReplayRequestError> {
    let entry = ReplayEntry::new(&ports.facts.replay_keys, webhook_id, body, sequences);
    match entry.ok_or(ReplayRefusal::NotConfigured)?.encode() {
        Ok(bytes) => Ok(bytes.into()),
        Err(error) => unavailable(error.to_string()),
    }
}

fn unavailable<T>(detail: String) -> Result<T, ReplayRequestError> {
    Err(ReplayRequestError::Unavailable(detail))
}
