//! Asks the broker how far a partition has decided, for a builder that is elsewhere.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fermata_core::identity::PartitionId;
use fermata_jetstream::StreamReader;
use fermata_jetstream::progress::end_of;
use fermata_jetstream::topology::{commands_stream, journal_stream};
use fermata_wire::journal::JournalFrame;
use fermata_wire::subjects;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::Room;
use super::window::{Answer, Newest, Question};

/// How long an answer may take: one that takes longer says nothing about now.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// Questions of one process under way at once, over all partitions: so many MiB of answers at the
/// most. One that comes on top has no answer, after which its partition is asked less often.
pub const QUESTIONS_AT_ONCE_MAX: usize = 16;

/// A question under way; the next one can be asked when this is dropped.
pub(super) struct Asking {
    room: Arc<Room>,
    question: Question,
    answer: Answer,
}

impl Drop for Asking {
    fn drop(&mut self) {
        let now = Instant::now();
        self.room.known().window.answered(&self.question, self.answer, now);
        self.room.news.notify_one();
    }
}

impl Asking {
    pub(super) fn new(room: Arc<Room>, question: Question) -> Self {
        Self { room, question, answer: Answer::default() }
    }

    /// Asks once, while it holds one of [`QUESTIONS_AT_ONCE_MAX`]; without an answer nothing is
    /// known.
    pub(super) async fn ask(
        mut self,
        reader: StreamReader,
        partition: PartitionId,
        _turn: OwnedSemaphorePermit,
    ) {
        let ask = async {
            if self.question.wants_end() {
                let end = end_of(reader.broker(), &commands_stream(partition)).await;
                self.answer.end = end.ok();
            }
            self.answer.newest = newest(&reader, partition).await;
        };
        if timeout(ANSWER_LIMIT, ask).await.is_err() {
            tracing::debug!(%partition, "how far the partition has decided is not known");
        }
    }
}

/// The newest message of the journal, whose head says what is decided. A message that is no frame
/// says nothing, and so does an empty journal: nobody has owned the partition yet.
async fn newest(reader: &StreamReader, partition: PartitionId) -> Option<Newest> {
    let (stream, subject) = (journal_stream(partition), subjects::journal(partition));
    let newest = reader.last_of_subject(&stream, &subject).await.ok()??;
    let frame = JournalFrame::decode(&newest.payload).ok()?;
    Some(Newest { sequence: newest.sequence, decided: frame.head.position.sequence })
}
