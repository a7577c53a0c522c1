//! Replay: the frames of a journal into the state of a partition.

use std::collections::HashMap;
use std::sync::Arc;

use fermata_core::digest::Digest;
use fermata_core::identity::{JournalTime, PartitionId};
use fermata_core::partition::{Limits, Partition, RestoreError};
use fermata_core::plan::Executable;
use fermata_core::record::{Body, Header, Record};
use fermata_core::run::CorruptHistory;
use fermata_wire::WireError;
use fermata_wire::journal::JournalFrame;
use thiserror::Error;

use crate::message::Message;
use crate::snapshot::{FrameMark, FrozenFold, Snapshot};
use crate::truncation::{accepted_loss, is_acceptance};

/// Why a journal cannot be folded. The partition halts: there is no state to
/// go on from, and nothing may be decided on a guess.
#[derive(Debug, Error)]
pub enum FoldError {
    /// The messages are not contiguous.
    #[error("journal message {found} follows {last}; messages between them are missing")]
    Gap {
        /// The last that was folded.
        last: u64,
        /// The one that came.
        found: u64,
    },
    /// Ours, but not readable.
    #[error("journal message {sequence} is ours and cannot be decoded")]
    Undecodable {
        /// Its sequence.
        sequence: u64,
        /// Why.
        #[source]
        source: WireError,
    },
    /// Its frame cannot follow the ones before it.
    #[error("journal message {sequence} cannot follow: {detail}")]
    Disordered {
        /// Its sequence.
        sequence: u64,
        /// What is wrong.
        detail: String,
    },
    /// A record cannot follow the ones before it.
    #[error("record {index} in journal message {sequence} cannot be folded")]
    Corrupt {
        /// Its message.
        sequence: u64,
        /// Its index.
        index: u64,
        /// Why.
        #[source]
        source: CorruptHistory,
    },
}

/// A partition as folded so far, and what tells whether the next frame may follow.
#[derive(Debug, Clone)]
pub struct JournalFold {
    partition: Partition,
    last_sequence: u64,
    next_index: u64,
    last: Option<FrameMark>,
}

/// A decoded message of a journal.
#[derive(Debug)]
pub enum Decoded<'a> {
    /// Nobody of ours wrote it: it uses a sequence and holds no record.
    Foreign,
    /// A frame with its records.
    Frame(JournalFrame<'a>, Vec<(Header, Record)>),
}

/// Decodes a journal message.
///
/// # Errors
///
/// [`FoldError::Undecodable`] if it is ours and cannot be read.
pub fn decode(message: &Message) -> Result<Decoded<'_>, FoldError> {
    if message.writer.is_none() {
        return Ok(Decoded::Foreign);
    }
    let undecodable = |source| FoldError::Undecodable { sequence: message.sequence, source };
    let frame = JournalFrame::decode(&message.payload).map_err(undecodable)?;
    let records = frame.records.iter().map(fermata_wire::journal::SealedRecord::open);
    let records = records.collect::<Result<Vec<_>, _>>().map_err(undecodable)?;
    Ok(Decoded::Frame(frame, records))
}

impl JournalFold {
    /// The state before the first message.
    #[must_use]
    pub fn new(id: PartitionId, limits: Limits) -> Self {
        Self { partition: Partition::new(id, limits), last_sequence: 0, next_index: 0, last: None }
    }

    /// The state that a snapshot holds, with the `plans` that it needs.
    pub(crate) fn restore(
        snapshot: Snapshot,
        limits: Limits,
        plans: HashMap<Digest, Arc<Executable>>,
    ) -> Result<Self, RestoreError> {
        let Snapshot { mut image, sequence, next_index, last, hours, .. } = snapshot;
        image.add_hours(hours);
        let partition = Partition::restore(image, limits, plans)?;
        Ok(Self { partition, last_sequence: sequence, next_index, last })
    }

    /// A copy of the fold, cheap to take.
    #[must_use]
    pub fn freeze(&self) -> FrozenFold {
        FrozenFold {
            partition: self.partition.freeze(),
            sequence: self.last_sequence,
            next_index: self.next_index,
            last: self.last,
        }
    }

    /// The state folded so far.
    #[must_use]
    pub fn partition(&self) -> &Partition {
        &self.partition
    }

    /// The state folded so far, to decide on.
    pub fn partition_mut(&mut self) -> &mut Partition {
        &mut self.partition
    }

    /// Sequence of the last message folded.
    #[must_use]
    pub fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// Index that the next record has.
    #[must_use]
    pub fn next_index(&self) -> u64 {
        self.next_index
    }

    /// Time of the last frame.
    #[must_use]
    pub fn time(&self) -> JournalTime {
        self.last.map_or(JournalTime::default(), |last| last.time)
    }

    /// Makes a plan available.
    pub fn add_plan(&mut self, digest: Digest, plan: Arc<Executable>) {
        self.partition.add_plan(digest, plan);
    }

    /// The plans that `records` need and that are not at hand.
    #[must_use]
    pub fn missing_plans(&self, records: &[(Header, Record)]) -> Vec<Digest> {
        let mut missing = Vec::new();
        for (_, record) in records {
            if let Body::RunStarted(started) = &record.body
                && !self.partition.has_plan(&started.plan)
                && !missing.contains(&started.plan)
            {
                missing.push(started.plan);
            }
        }
        missing
    }

    /// Folds one message, decoded by [`decode`].
    ///
    /// # Errors
    ///
    /// [`FoldError`], naming the message and record at fault.
    pub fn fold(&mut self, sequence: u64, decoded: &Decoded<'_>) -> Result<(), FoldError> {
        if sequence != self.last_sequence + 1 {
            return Err(FoldError::Gap { last: self.last_sequence, found: sequence });
        }
        if let Decoded::Frame(frame, records) = decoded {
            self.check_order(sequence, frame, records)?;
            self.partition.begin_frame(frame.head.time);
            self.partition.advance(frame.head.position, frame.head.floor);
            for (header, record) in records {
                self.partition.evolve(record).map_err(|source| FoldError::Corrupt {
                    sequence,
                    index: header.index,
                    source,
                })?;
            }
            self.next_index = frame.first_record_index + records.len() as u64;
            let head = &frame.head;
            let (epoch, incarnation) = (head.epoch, head.incarnation);
            self.last =
                Some(FrameMark { epoch, incarnation, number: head.number, time: head.time });
        }
        self.last_sequence = sequence;
        Ok(())
    }

    /// Notes a message that this process appended and folded while deciding.
    pub(crate) fn appended(&mut self, sequence: u64, next_index: u64) {
        self.last_sequence = sequence;
        self.next_index = next_index;
    }

    fn check_order(
        &self,
        sequence: u64,
        frame: &JournalFrame<'_>,
        records: &[(Header, Record)],
    ) -> Result<(), FoldError> {
        let refuse = |detail: String| Err(FoldError::Disordered { sequence, detail });
        let head = &frame.head;
        let accepts = accepted_loss(frame.first_record_index, records);
        if accepts.is_none() && records.iter().any(|(_, record)| is_acceptance(record)) {
            return refuse("what it accepts stands nowhere else than alone in a frame".to_owned());
        }
        let takes_over = matches!(records.first(), Some((_, Record { body: Body::PartitionOwned(owned), .. }))
            if owned.epoch == head.epoch && owned.incarnation == head.incarnation);
        match self.last {
            Some(last) if head.time < last.time => {
                return refuse(format!("its time {:?} is before {:?}", head.time, last.time));
            }
            Some(last)
                if !takes_over
                    && accepts.is_none()
                    && (last.epoch, last.incarnation) != (head.epoch, head.incarnation) =>
            {
                return refuse(format!("epoch {} was never taken over by its writer", head.epoch));
            }
            Some(last) if accepts.is_some() && head.epoch != last.epoch => {
                return refuse(format!("epoch {} is none of an owner", head.epoch));
            }
            Some(last) if !takes_over && accepts.is_none() && head.number != last.number + 1 => {
                return refuse(format!("frame {} follows frame {}", head.number, last.number));
            }
            Some(_) => {}
            None if !takes_over => return refuse("the first frame takes nothing over".to_owned()),
            None => {}
        }
        if head.position.sequence < self.partition.position().sequence {
            return refuse(format!("its command position {} falls", head.position.sequence));
        }
        let next = accepts.map_or(frame.first_record_index, |accepted| accepted.from);
        if next != self.next_index {
            let (found, next) = (frame.first_record_index, self.next_index);
            return refuse(format!("its first record has index {found}, {next} is next"));
        }
        let misplaced = (frame.first_record_index..)
            .zip(records)
            .find(|(index, (header, _))| header.index != *index || header.time != head.time);
        match misplaced {
            Some((index, _)) => refuse(format!("record {index} names another index or time")),
            None => Ok(()),
        }
    }
}
