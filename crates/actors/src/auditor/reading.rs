//! What an auditor reads: the stored log from where it is signed, and the
//! journal where there was no room to keep what was told.

use fermata_core::identity::PartitionId;
use fermata_jetstream::reader::ReadError;
use fermata_partition::auditor::{Input, StoredFrom};
use fermata_partition::message::Message;
use fermata_wire::audit::AuditFrame;
use ractor::ActorRef;

use super::{AGAIN_AFTER, AuditorMessage, message_of};
use crate::ports::Ports;

/// Messages of the audit log that are handed over at once: at most 16 MiB, and
/// mostly all that is behind the newest checkpoint.
const STORED_MESSAGES_MAX: u64 = 16;

/// Reads some messages of the stored log and hands them over.
pub(super) async fn read_stored(
    ports: Ports,
    stream: String,
    from: StoredFrom,
    generation: u64,
    myself: ActorRef<AuditorMessage>,
) {
    let (messages, read_to, last_sequence) = loop {
        match stored_from(&ports, &stream, from).await {
            Ok(found) => break found,
            Err(error) => {
                tracing::warn!(stream, %error, "the audit log cannot be read; it is tried again");
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
    };
    for message in messages {
        let _ = myself.cast(AuditorMessage::Answer(generation, Input::Stored(message)));
    }
    let end = Input::StoredEnd { read_to, last_sequence };
    let _ = myself.cast(AuditorMessage::Answer(generation, end));
}

/// At most [`STORED_MESSAGES_MAX`] messages, the last sequence that was looked
/// at, and where the log ends.
async fn stored_from(
    ports: &Ports,
    stream: &str,
    from: StoredFrom,
) -> Result<(Vec<Message>, u64, u64), ReadError> {
    let last = ports.reader.stream_state(stream).await?.last_sequence;
    let first = match from {
        StoredFrom::Entry(index) => sequence_of(ports, stream, index, last).await?,
        StoredFrom::Sequence(sequence) => sequence,
    };
    let read_to = last.min(first + STORED_MESSAGES_MAX - 1);
    let mut messages = Vec::new();
    for sequence in first..=read_to {
        // A message that is gone is found by what it held.
        messages.extend(ports.reader.read_one(stream, sequence).await?.map(message_of));
    }
    Ok((messages, read_to, last))
}

/// The sequence of a message that holds entry `index` or an earlier one, 1 if
/// none does. Looked for from the end back, in growing steps: a checkpoint is at
/// most a second old, so it is near.
async fn sequence_of(ports: &Ports, stream: &str, index: u64, last: u64) -> Result<u64, ReadError> {
    let (mut sequence, mut step) = (last, 1);
    while sequence > 1 {
        if let Some(message) = ports.reader.read_one(stream, sequence).await? {
            // What nobody of ours wrote holds no entry, whatever its bytes say.
            let ours = message.writer.is_some();
            let frame = AuditFrame::decode(&message.payload).ok().filter(|_| ours);
            let first = frame.and_then(|frame| frame.entries.first().map(|entry| entry.index));
            if first.is_some_and(|first| first <= index) {
                return Ok(sequence);
            }
        }
        sequence = sequence.saturating_sub(step);
        step *= 2;
    }
    Ok(1)
}

/// Reads journal messages that the owner was told and the auditor had no room
/// for: the first at least, as it is there, and as many as can be read then.
pub(super) async fn read_journal(
    ports: &Ports,
    partition: PartitionId,
    from: u64,
    to: u64,
) -> Vec<Message> {
    let stream = format!("JOURNAL_{partition}");
    let mut messages = Vec::new();
    let mut sequence = from;
    while sequence <= to {
        match ports.reader.read_one(&stream, sequence).await {
            Ok(Some(message)) => {
                messages.push(message_of(message));
                sequence += 1;
                continue;
            }
            Ok(None) => tracing::error!(stream, sequence, "a message of the journal is not found"),
            Err(error) => {
                tracing::warn!(stream, sequence, %error, "the journal cannot be read yet");
            }
        }
        if !messages.is_empty() {
            break;
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
    messages
}
