//! The one append, with the fence of the journal's end.

use std::time::Duration;

use fermata_actors::auditor::message_of;
use fermata_actors::ports::append_outcome;
use fermata_core::identity::PartitionId;
use fermata_jetstream::topology::journal_stream;
use fermata_jetstream::{Publisher, StreamReader};
use fermata_partition::append::{FencedAppend, ReadAnswer, Send, Step};
use fermata_partition::truncation::AcceptingFrame;
use fermata_wire::subjects;

use crate::broker_session::BrokerSession;
use crate::error::CliError;

/// How often it is sent when no answer comes; each waits for one.
const TRIES_MAX: u32 = 5;

/// Pause before it is sent or read again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Appended {
    /// It is stored.
    Stored { sequence: u64 },
    /// Another writer was first, with the message at this sequence.
    Lost { sequence: u64 },
}

/// Appends `frame` behind `last`, where the journal of `partition` ends.
pub(super) async fn append(
    session: &BrokerSession,
    partition: PartitionId,
    last: u64,
    frame: AcceptingFrame,
) -> Result<Appended, CliError> {
    let publisher = session.publisher().await?;
    let reader = StreamReader::new(session.broker());
    let (subject, stream) = (subjects::journal(partition), journal_stream(partition));
    let mut append = FencedAppend::new(last);
    let mut step = Step::Send(append.begin(frame.writer, frame.payload));
    let mut tries = 0;
    loop {
        tries += 1;
        if tries > TRIES_MAX {
            let reason = "the broker did not answer in time; ask again".to_owned();
            return Err(CliError::NotStored { subject, reason, unknown: true });
        }
        step = match step {
            Step::Send(send) | Step::Foreign { send, .. } => {
                publish(&publisher, &mut append, &subject, send).await
            }
            Step::SendLater(send) => {
                tokio::time::sleep(AGAIN_AFTER).await;
                publish(&publisher, &mut append, &subject, send).await
            }
            Step::Read { sequence } => append.on_read(read(&reader, &stream, sequence).await),
            Step::ReadLater { sequence } => {
                tokio::time::sleep(AGAIN_AFTER).await;
                append.on_read(read(&reader, &stream, sequence).await)
            }
            Step::Committed { sequence } => return Ok(Appended::Stored { sequence }),
            Step::Lost { .. } => return Ok(Appended::Lost { sequence: append.last() + 1 }),
            Step::Truncated { .. } | Step::Ignore => {
                let text = "the journal ends earlier than when it was looked at: look again";
                return Err(CliError::Refused(text.to_owned()));
            }
        };
    }
}

async fn publish(
    publisher: &Publisher,
    append: &mut FencedAppend,
    subject: &str,
    send: Send,
) -> Step {
    let Send { expected_last_sequence, writer, payload } = send;
    let outcome =
        publisher.append(subject.to_owned(), expected_last_sequence, &writer, payload).await;
    append.on_outcome(append_outcome(&outcome))
}

async fn read(reader: &StreamReader, stream: &str, sequence: u64) -> ReadAnswer {
    match (reader.read_one(stream, sequence).await, reader.stream_state(stream).await) {
        (Ok(Some(message)), _) => ReadAnswer::Found(message_of(message)),
        (Ok(None), Ok(state)) => ReadAnswer::Absent { last_sequence: state.last_sequence },
        (Err(_), _) | (_, Err(_)) => ReadAnswer::Failed,
    }
}
