//! One fenced append in flight (ADR 5).
//!
//! ```text
//!              Stored ─────────────────────────► Committed
//! send ──► ────Unknown, Refused ──► send the identical frame again
//!              Conflict ──► read the sequence behind the fence
//!                             mine ────────────► Committed
//!                             nobody's ────────► step over it, send again
//!                             another writer's ► Lost
//!                             read failed ─────► read again
//!                             nothing there ───► send again: the fence decides
//!                             stream shorter ──► Truncated
//! ```
//!
//! At most one copy can be stored: every copy carries the same fence, and once
//! the fence has moved past a foreign message no older copy can pass it.

use bytes::Bytes;

use crate::message::{AppendOutcome, Message};

/// The end of a stream as this writer knows it, and its append in flight.
#[derive(Debug, Clone)]
pub struct FencedAppend {
    last: u64,
    in_flight: Option<InFlight>,
}

#[derive(Debug, Clone)]
struct InFlight {
    writer: String,
    payload: Bytes,
}

/// What to do next about an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Publish this, with the fence.
    Send(Send),
    /// Publish it again after a pause: nothing is known, or it was refused, or
    /// a conflict was reported and nothing is there.
    SendLater(Send),
    /// Read the message at this sequence and the stream's last sequence.
    Read {
        /// The sequence behind the fence.
        sequence: u64,
    },
    /// The same once more, after a pause: the read failed.
    ReadLater {
        /// The sequence behind the fence.
        sequence: u64,
    },
    /// The append is stored.
    Committed {
        /// Its sequence.
        sequence: u64,
    },
    /// A message that no writer of ours wrote holds the sequence: it is
    /// stepped over, and the append sent again behind it.
    Foreign {
        /// Its sequence.
        sequence: u64,
        /// The append behind it.
        send: Send,
    },
    /// Another writer was first: this one owns nothing any more.
    Lost {
        /// The other writer's tag.
        by: String,
    },
    /// The stream ends before the fence: acknowledged messages are gone.
    Truncated {
        /// Where it ends.
        last_sequence: u64,
    },
    /// The outcome belongs to nothing in flight.
    Ignore,
}

/// A publish with its fence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Send {
    /// Sequence that the stream must end at.
    pub expected_last_sequence: u64,
    /// Value of the writer header.
    pub writer: String,
    /// The bytes.
    pub payload: Bytes,
}

/// The answer to [`Step::Read`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadAnswer {
    /// The message at that sequence.
    Found(Message),
    /// Nothing there; the stream ends here.
    Absent {
        /// The stream's last sequence.
        last_sequence: u64,
    },
    /// The read failed.
    Failed,
    /// Something stood there and was purged.
    Purged,
}

impl FencedAppend {
    /// A writer that knows the stream to end at `last`.
    #[must_use]
    pub fn new(last: u64) -> Self {
        Self { last, in_flight: None }
    }

    /// Sequence that the stream ends at, as far as this writer knows.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Whether an append has no outcome yet.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Moves the end on, past a message that was read.
    pub fn advance(&mut self, sequence: u64) {
        self.last = self.last.max(sequence);
    }

    /// Begins an append. The writer tag must be unique to this frame of this
    /// writer: it is how the frame is recognised.
    pub fn begin(&mut self, writer: String, payload: Bytes) -> Send {
        self.in_flight = Some(InFlight { writer: writer.clone(), payload: payload.clone() });
        Send { expected_last_sequence: self.last, writer, payload }
    }

    /// What follows from the outcome of the last [`Send`].
    pub fn on_outcome(&mut self, outcome: AppendOutcome) -> Step {
        let Some(send) = self.resend() else { return Step::Ignore };
        match outcome {
            AppendOutcome::Stored { sequence } if sequence == self.last + 1 => {
                self.commit(sequence)
            }
            // The fence does not allow it, so whatever answered is not the
            // stream that we know: find out.
            AppendOutcome::Stored { .. } | AppendOutcome::Conflict => {
                Step::Read { sequence: self.last + 1 }
            }
            AppendOutcome::Refused | AppendOutcome::Unknown => Step::SendLater(send),
        }
    }

    /// What follows from the answer to [`Step::Read`].
    pub fn on_read(&mut self, answer: ReadAnswer) -> Step {
        let Some(in_flight) = &self.in_flight else { return Step::Ignore };
        match answer {
            ReadAnswer::Failed => Step::ReadLater { sequence: self.last + 1 },
            ReadAnswer::Absent { last_sequence } if last_sequence < self.last => {
                Step::Truncated { last_sequence }
            }
            // Either the read is too old, or nothing is there: a conflict is also
            // reported while an earlier copy is in process that comes to nothing.
            // The fence tells the two apart, a read cannot.
            ReadAnswer::Absent { .. } => match self.resend() {
                Some(send) => Step::SendLater(send),
                None => Step::Ignore,
            },
            // Whoever purged it took snapshots behind it, and has long owned what
            // this writer believes to own.
            ReadAnswer::Purged => Step::Lost { by: "an owner that has purged it".to_owned() },
            ReadAnswer::Found(message) if message.sequence != self.last + 1 => Step::Ignore,
            ReadAnswer::Found(message) => match message.writer {
                Some(writer)
                    if writer == in_flight.writer && message.payload == in_flight.payload =>
                {
                    self.commit(message.sequence)
                }
                Some(by) => Step::Lost { by },
                None => {
                    self.last = message.sequence;
                    match self.resend() {
                        Some(send) => Step::Foreign { sequence: message.sequence, send },
                        None => Step::Ignore,
                    }
                }
            },
        }
    }

    fn commit(&mut self, sequence: u64) -> Step {
        self.last = sequence;
        self.in_flight = None;
        Step::Committed { sequence }
    }

    fn resend(&self) -> Option<Send> {
        self.in_flight.as_ref().map(|in_flight| Send {
            expected_last_sequence: self.last,
            writer: in_flight.writer.clone(),
            payload: in_flight.payload.clone(),
        })
    }
}
