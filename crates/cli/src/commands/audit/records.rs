//! The records of a journal in order, and what stands in the place of those that are gone.

use std::collections::VecDeque;

use fermata_actors::journal_archive::JournalArchive;
use fermata_core::identity::PartitionId;
use fermata_core::record::TruncationAccepted;
use fermata_jetstream::topology::journal_stream;
use fermata_jetstream::{Bytes, StoredMessage, StreamReader};
use fermata_partition::truncation::loss_of;
use fermata_wire::WireError;
use fermata_wire::journal::{JournalFrame, SealedRecord};
use indicatif::ProgressBar;

use super::partition_audit::{AcceptedLoss, UnreadableMessages};
use super::section::Section;
use crate::error::CliError;

/// A record with what its leaf depends on; shares the bytes of its message.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) index: u64,
    pub(super) header: Bytes,
    pub(super) salt: [u8; 16],
    pub(super) payload: Bytes,
    pub(super) journal_sequence: u64,
    /// The loss before it, which it accepts.
    loss: Option<Box<(TruncationAccepted, AcceptedLoss)>>,
}

/// What comes next in a journal.
#[derive(Debug)]
pub(super) enum Next {
    /// A record.
    Record(Leaf),
    /// Nothing up to the second index: these were kept long enough, and were removed on purpose.
    Removed(u64, u64),
    /// Nothing: these are lost, which the record behind them accepts.
    Lost(TruncationAccepted),
    /// Its end.
    End,
}

/// A journal up to where it ended when it was first looked at.
#[derive(Debug)]
pub(super) struct JournalRecords {
    reader: StreamReader,
    partition: PartitionId,
    archive: JournalArchive,
    section: Section,
    end: u64,
    waiting: VecDeque<Leaf>,
    /// Index of the record that comes next if none is gone.
    next: u64,
    /// Sequence of the last message that was read.
    read_to: u64,
    /// That of the message before a hole behind which no record was seen yet.
    hole_behind: Option<u64>,
    pub(super) losses: Vec<AcceptedLoss>,
}

impl JournalRecords {
    pub(super) async fn open(
        reader: &StreamReader,
        partition: PartitionId,
        end: u64,
        progress: &ProgressBar,
    ) -> Result<Self, CliError> {
        Ok(Self {
            reader: reader.clone(),
            partition,
            archive: JournalArchive::open(reader, partition).await?,
            section: Section::open_journal(reader, partition, end, progress).await?,
            end,
            waiting: VecDeque::new(),
            next: 0,
            read_to: 0,
            hole_behind: None,
            losses: Vec::new(),
        })
    }

    /// Index of the record that comes next if none is gone.
    pub(super) fn next_index(&self) -> u64 {
        self.next
    }

    pub(super) async fn next(
        &mut self,
        unreadable: &mut UnreadableMessages,
    ) -> Result<Next, CliError> {
        while self.waiting.is_empty() {
            match self.section.next().await? {
                Some(message) => self.take(&message, unreadable),
                None => return self.at_end(unreadable).await,
            }
        }
        let first = self.waiting.front();
        let from = first.map_or(0, |first| match &first.loss {
            Some(loss) => loss.0.from,
            None => first.index,
        });
        if let Some(read_to) = self.hole_behind.take()
            && let Some(next) = self.removed_to(read_to, from).await?
        {
            return Ok(self.pass_removed(next));
        }
        let loss = self.waiting.front_mut().and_then(|first| first.loss.take());
        if let Some((accepted, told)) = loss.map(|loss| *loss) {
            self.losses.push(told);
            // Entries come in the place of the lost records before this one.
            self.next = accepted.next;
            return Ok(Next::Lost(accepted));
        }
        let Some(leaf) = self.waiting.pop_front() else { return Ok(Next::End) };
        self.next = leaf.index.saturating_add(1);
        Ok(Next::Record(leaf))
    }

    /// What ends it may be gone as well: it is read up to where it ended when it was begun with.
    async fn at_end(&mut self, unreadable: &mut UnreadableMessages) -> Result<Next, CliError> {
        let short = (self.read_to < self.end).then_some(self.read_to);
        self.read_to = self.end;
        if let Some(read_to) = self.hole_behind.take().or(short)
            && let Some(next) = self.removed_to(read_to, u64::MAX).await?
        {
            return Ok(self.pass_removed(next));
        }
        if short.is_some() {
            unreadable.note_missing(journal_stream(self.partition), self.end);
        }
        Ok(Next::End)
    }

    /// Up to which index records were removed behind message `read_to`, at most to `most`; nothing
    /// where none was.
    ///
    /// Nobody signs what is told of them, so what can be checked is. Segments go from the first one
    /// on: while the message before a hole is there, nobody removed what is missing in it.
    async fn removed_to(&self, read_to: u64, most: u64) -> Result<Option<u64>, CliError> {
        let told = self.archive.removed().await?;
        let told = told.map_or(0, |removed| removed.next_record_index).min(most);
        let is_told = told > self.next;
        Ok((is_told && self.archive.first_sequence(&self.reader).await? > read_to).then_some(told))
    }

    fn pass_removed(&mut self, next: u64) -> Next {
        Next::Removed(std::mem::replace(&mut self.next, next), next)
    }

    fn take(&mut self, message: &StoredMessage, unreadable: &mut UnreadableMessages) {
        if message.sequence > self.read_to + 1 {
            self.hole_behind.get_or_insert(self.read_to);
        }
        self.read_to = message.sequence;
        match leaves_of(message) {
            Ok(leaves) => self.waiting.extend(leaves),
            Err(error) => unreadable.note(journal_stream(self.partition), message, &error),
        }
    }
}

/// The records of a journal message; none when nobody of ours wrote it.
fn leaves_of(message: &StoredMessage) -> Result<Vec<Leaf>, WireError> {
    if message.writer.is_none() {
        return Ok(Vec::new());
    }
    let frame = JournalFrame::decode(&message.payload)?;
    let leaf = |(index, record): (u64, &SealedRecord<'_>)| Leaf {
        index,
        header: message.payload.slice_ref(record.header),
        salt: *record.salt,
        payload: message.payload.slice_ref(record.payload),
        journal_sequence: message.sequence,
        loss: None,
    };
    let mut leaves: Vec<Leaf> =
        (frame.first_record_index..).zip(&frame.records).map(leaf).collect();
    // A record that cannot be read is for its leaf to tell of.
    if let (Ok(Some(accepted)), Some(first)) = (loss_of(&frame.records), leaves.first_mut()) {
        let loss = AcceptedLoss::new(&accepted, frame.head.time, message.sequence);
        first.loss = Some(Box::new((accepted, loss)));
    }
    Ok(leaves)
}
