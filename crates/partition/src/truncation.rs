//! Going on behind a journal that lost its end, when somebody accepts that (ADR 33).
//!
//! Such a journal holds fewer records than were signed, and its partition halts:
//! with one more record it would say something else than what is signed. A frame
//! that accepts the loss begins behind everything that was ever published, so that
//! no index gets another content. It holds one record, which names the lost
//! indices, what was signed, who accepts it and why; the fold takes exactly that
//! jump. The frame takes nothing over: whoever owns the partition next replays it.

use bytes::Bytes;
use fermata_audit::{Hash, Loss};
use fermata_core::identity::JournalTime;
use fermata_core::record::{Body, Header, Kind, Record, TruncationAccepted};
use fermata_wire::WireError;
use fermata_wire::journal::{FrameBuilder, FrameHead, JournalFrame, Salt, SealedRecord};
use thiserror::Error;
use uuid::Uuid;

/// The end of what is left of a journal: its last frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalEnd {
    /// What that frame says about itself.
    pub head: FrameHead,
    /// How many records are left.
    pub records: u64,
}

impl JournalEnd {
    /// The end of a journal whose last frame this is.
    #[must_use]
    pub fn of(frame: &JournalFrame<'_>) -> Self {
        let records = frame.first_record_index + frame.records.len() as u64;
        Self { head: frame.head, records }
    }
}

/// A loss that somebody accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acceptance {
    /// The lost indices and what was signed.
    pub accepted: TruncationAccepted,
    /// When: what the broker's clock says. Journal time never falls.
    pub time: JournalTime,
    /// 128 random bits, new for each attempt: by them the frame is told from others.
    pub incarnation: Uuid,
    /// Hides who and why behind the record's commitment.
    pub salt: Salt,
}

/// A frame to append behind the end of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptingFrame {
    /// Value of the writer header.
    pub writer: String,
    /// The bytes.
    pub payload: Bytes,
}

/// Why a loss cannot be accepted.
#[derive(Debug, Error)]
pub enum NotAcceptable {
    /// The journal holds everything that was signed.
    #[error("the journal holds {found} records, {signed} were signed: nothing is lost")]
    NothingLost {
        /// Records that are there.
        found: u64,
        /// Records that were signed.
        signed: u64,
    },
    /// The loss begins elsewhere than where the journal ends.
    #[error(
        "the journal holds {found} records, and record {from} is said to be the first lost one"
    )]
    Elsewhere {
        /// Records that are there.
        found: u64,
        /// The first index said to be lost.
        from: u64,
    },
    /// The frame cannot be written.
    #[error("the frame cannot be written")]
    Unwritable(#[from] WireError),
}

impl Acceptance {
    /// The frame that accepts the loss behind `end`.
    ///
    /// # Errors
    ///
    /// [`NotAcceptable`] when nothing is lost there.
    pub fn frame(self, end: &JournalEnd) -> Result<AcceptingFrame, NotAcceptable> {
        let Self { accepted, time, incarnation, salt } = self;
        let TruncationAccepted { from, signed, next, .. } = accepted;
        let found = end.records;
        if found >= signed || signed > next {
            return Err(NotAcceptable::NothingLost { found, signed });
        }
        if from != found {
            return Err(NotAcceptable::Elsewhere { found, from });
        }
        let time = time.max(end.head.time);
        let head = FrameHead { incarnation, number: 0, time, ..end.head };
        let mut builder = FrameBuilder::default();
        builder.push(&Record::of_partition(accepted.into()), next, time, salt)?;
        let payload = builder.finish(&head, next)?.into();
        let writer = format!("{}.accepts.{next}", incarnation.simple());
        Ok(AcceptingFrame { writer, payload })
    }
}

pub(crate) fn is_acceptance(record: &Record) -> bool {
    record.body.kind() == Kind::TruncationAccepted
}

/// What a frame accepts whose records these are: it holds that alone, and its index is
/// the one that the record names.
pub(crate) fn accepted_loss(
    first_record_index: u64,
    records: &[(Header, Record)],
) -> Option<&TruncationAccepted> {
    match records {
        [(_, Record { body: Body::TruncationAccepted(accepted), .. })] => Some(accepted)
            .filter(|accepted| {
                accepted.next == first_record_index && accepted.from < accepted.signed
            })
            .filter(|accepted| accepted.signed <= accepted.next),
        [..] => None,
    }
}

/// What a frame accepts that holds these records: only where its first record accepts
/// something. Whether it may stand there, the fold says.
///
/// # Errors
///
/// [`WireError`] when the record cannot be read.
pub fn loss_of(records: &[SealedRecord<'_>]) -> Result<Option<TruncationAccepted>, WireError> {
    let Some(first) = records.first() else { return Ok(None) };
    if first.header()?.kind != Kind::TruncationAccepted {
        return Ok(None);
    }
    let (_, record) = first.open()?;
    Ok(if let Body::TruncationAccepted(accepted) = record.body { Some(accepted) } else { None })
}

/// Roots of the subtrees over the lost leaves.
#[must_use]
pub fn subtrees_of(accepted: &TruncationAccepted) -> Vec<Hash> {
    accepted.subtrees.iter().map(|digest| Hash(digest.0)).collect()
}

/// What the audit log goes on behind; `subtrees` are those of [`subtrees_of`].
#[must_use]
pub fn audit_loss<'a>(accepted: &'a TruncationAccepted, subtrees: &'a [Hash]) -> Loss<'a> {
    Loss {
        from: accepted.from,
        signed: accepted.signed,
        next: accepted.next,
        checkpoint: accepted.checkpoint.as_bytes(),
        subtrees,
    }
}
