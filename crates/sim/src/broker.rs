//! The modelled broker: streams that store, refuse and forget answers.
//!
//! Faults between a sender and a stream are a [`Fate`] drawn per publish; what
//! the stream itself does is here. Conflicts are answered alike whether the
//! server would say 10071, 10164 or 10158. With three servers a conflict may be
//! answered although nothing is stored: an earlier copy was in process and came
//! to nothing.
//!
//! Each fence is checked by itself, when its publish arrives. So of several
//! publishes under way, each on the sequence that the one before it would have,
//! one may fail and the rest pass: an intruder takes the place of the first, the
//! second finds the stream where it expects it, and a hole stays. The protocol
//! is safe from this because it never has a second append under way: of one
//! frame there may be copies, all with the same fence, of which one at most is
//! stored. `invariant_one_append_is_in_flight` holds owners to it.

use std::collections::BTreeMap;

use bytes::Bytes;
use fermata_partition::append::ReadAnswer;
use fermata_partition::key_hours::{HourFile, HourName};
use fermata_partition::message::{AppendOutcome, Message};

use crate::dice::Dice;
use crate::scenario::Faults;

/// One of the partition's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StreamName {
    Commands,
    Journal,
    Audit,
    Checkpoints,
}

/// What is published.
#[derive(Debug, Clone)]
pub(crate) struct Publish {
    pub(crate) stream: StreamName,
    pub(crate) expected_last_sequence: Option<u64>,
    pub(crate) writer: Option<String>,
    pub(crate) payload: Bytes,
}

/// What becomes of a publish on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Plain,
    RequestLost,
    AckLost,
    Delayed,
    Duplicated,
}

impl Fate {
    pub(crate) fn draw(faults: &Faults, dice: &mut Dice) -> Self {
        let kinds = [
            (faults.request_lost, Self::RequestLost),
            (faults.ack_lost, Self::AckLost),
            (faults.request_delayed, Self::Delayed),
            (faults.request_duplicated, Self::Duplicated),
        ];
        kinds
            .into_iter()
            .find(|(permille, _)| dice.chance(*permille))
            .map_or(Self::Plain, |(_, fate)| fate)
    }
}

/// A stream: messages from sequence 1 on. Those that were purged are kept for
/// who looks at everything that ever was, and read by nobody.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    messages: Vec<Message>,
    purged_to: u64,
    full_until_ms: u64,
}

/// A snapshot in the object store.
#[derive(Debug, Clone)]
pub(crate) struct StoredSnapshot {
    pub(crate) sequence: u64,
    /// The position of commands that it stands for.
    pub(crate) position: u64,
    pub(crate) bytes: Bytes,
    pub(crate) damaged: bool,
    /// Closed hours that it names.
    pub(crate) hours: Vec<HourName>,
    /// The oldest hour of which it or any later one holds a key.
    pub(crate) first_hour: u64,
}

impl Stream {
    pub(crate) fn last(&self) -> u64 {
        self.messages.len() as u64
    }

    pub(crate) fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The message, unless it was purged.
    pub(crate) fn get(&self, sequence: u64) -> Option<&Message> {
        self.ever(sequence).filter(|_| sequence > self.purged_to)
    }

    /// The message, also if it was purged.
    pub(crate) fn ever(&self, sequence: u64) -> Option<&Message> {
        self.messages.get(usize::try_from(sequence.checked_sub(1)?).ok()?)
    }

    pub(crate) fn from(&self, sequence: u64) -> &[Message] {
        let start = usize::try_from(sequence.saturating_sub(1)).unwrap_or(usize::MAX);
        self.messages.get(start..).unwrap_or_default()
    }

    /// Up to where messages were purged.
    pub(crate) fn purged_to(&self) -> u64 {
        self.purged_to
    }

    /// Removes the messages up to `sequence`, but the last.
    pub(crate) fn purge_to(&mut self, sequence: u64) {
        self.purged_to = self.purged_to.max(sequence.min(self.last().saturating_sub(1)));
    }

    /// Stores the message if the fence allows it.
    fn append(&mut self, publish: &Publish, now_ms: u64) -> AppendOutcome {
        if publish.expected_last_sequence.is_some_and(|expected| expected != self.last()) {
            return AppendOutcome::Conflict;
        }
        if now_ms < self.full_until_ms {
            return AppendOutcome::Refused;
        }
        let sequence = self.last() + 1;
        self.messages.push(Message {
            sequence,
            broker_time_ns: i64::try_from(now_ms).unwrap_or(i64::MAX).saturating_mul(1_000_000),
            writer: publish.writer.clone(),
            payload: publish.payload.clone(),
        });
        AppendOutcome::Stored { sequence }
    }

    /// How much of the stream a read sees: all of it, or a little less.
    pub(crate) fn seen_by_read(&self, faults: &Faults, dice: &mut Dice) -> u64 {
        match dice.chance(faults.read_stale) {
            true => self.last().saturating_sub(dice.between(1, 3)),
            false => self.last(),
        }
    }

    pub(crate) fn read(&self, sequence: u64, faults: &Faults, dice: &mut Dice) -> ReadAnswer {
        if dice.chance(faults.read_failed) {
            return ReadAnswer::Failed;
        }
        if sequence <= self.purged_to {
            return ReadAnswer::Purged;
        }
        let last_sequence = self.seen_by_read(faults, dice);
        match self.get(sequence).filter(|message| message.sequence <= last_sequence) {
            Some(message) => ReadAnswer::Found(message.clone()),
            None => ReadAnswer::Absent { last_sequence },
        }
    }
}

/// The streams of one partition.
#[derive(Debug, Default)]
pub(crate) struct Broker {
    commands: Stream,
    journal: Stream,
    audit: Stream,
    checkpoints: Stream,
    /// The newest last.
    snapshots: Vec<StoredSnapshot>,
    hours: BTreeMap<HourName, Bytes>,
    /// Whether it is three servers.
    replicated: bool,
}

impl Broker {
    pub(crate) fn new(replicated: bool) -> Self {
        Self { replicated, ..Self::default() }
    }

    pub(crate) fn stream(&self, name: StreamName) -> &Stream {
        match name {
            StreamName::Commands => &self.commands,
            StreamName::Journal => &self.journal,
            StreamName::Audit => &self.audit,
            StreamName::Checkpoints => &self.checkpoints,
        }
    }

    fn stream_mut(&mut self, name: StreamName) -> &mut Stream {
        match name {
            StreamName::Commands => &mut self.commands,
            StreamName::Journal => &mut self.journal,
            StreamName::Audit => &mut self.audit,
            StreamName::Checkpoints => &mut self.checkpoints,
        }
    }

    /// A publish arrives.
    pub(crate) fn arrive(
        &mut self,
        publish: &Publish,
        now_ms: u64,
        faults: &Faults,
        dice: &mut Dice,
    ) -> AppendOutcome {
        let fenced = publish.expected_last_sequence.is_some();
        if self.replicated && fenced && dice.chance(faults.conflict_spurious) {
            return AppendOutcome::Conflict;
        }
        let stream = self.stream_mut(publish.stream);
        if dice.chance(faults.stream_full) {
            stream.full_until_ms = now_ms + dice.between(500, 8_000);
        }
        stream.append(publish, now_ms)
    }

    /// The snapshots, the newest first.
    pub(crate) fn snapshots(&self) -> impl Iterator<Item = &StoredSnapshot> {
        self.snapshots.iter().rev()
    }

    /// Stores a snapshot, and removes those before `older`.
    pub(crate) fn store_snapshot(&mut self, snapshot: StoredSnapshot, older: u64) {
        self.snapshots.push(snapshot);
        self.snapshots.sort_by_key(|snapshot| snapshot.sequence);
        self.snapshots.retain(|snapshot| snapshot.sequence >= older);
    }

    /// The files of closed hours.
    pub(crate) fn hours(&self) -> &BTreeMap<HourName, Bytes> {
        &self.hours
    }

    pub(crate) fn store_hour(&mut self, HourFile { name, bytes }: HourFile) {
        self.hours.insert(name, bytes.into());
    }

    pub(crate) fn remove_hours_before(&mut self, first: u64) {
        self.hours.retain(|name, _| name.hour >= first);
    }

    /// Changes a byte of the newest snapshot, if there is another one to begin from.
    pub(crate) fn damage_newest_of_two(&mut self, purged_to: u64, dice: &mut Dice) {
        let good = |stored: &StoredSnapshot| !stored.damaged && stored.sequence >= purged_to;
        let good = self.snapshots.iter().filter(|stored| good(stored)).count();
        let Some(newest) = self.snapshots.last_mut().filter(|_| good >= 2) else { return };
        let mut bytes = newest.bytes.to_vec();
        let place = usize::try_from(dice.below(bytes.len() as u64)).unwrap_or(0);
        if let Some(byte) = bytes.get_mut(place) {
            *byte ^= 0x20;
        }
        (newest.bytes, newest.damaged) = (bytes.into(), true);
    }

    /// Forgets the messages of the journal behind `left`, though they were acknowledged.
    pub(crate) fn cut_journal(&mut self, left: u64) {
        self.journal.messages.truncate(usize::try_from(left).unwrap_or(usize::MAX));
    }

    /// Removes the snapshots of more than the first `left` messages of the journal.
    pub(crate) fn remove_snapshots_behind(&mut self, left: u64) {
        self.snapshots.retain(|snapshot| snapshot.sequence <= left);
    }

    pub(crate) fn purge(&mut self, name: StreamName, to: u64) {
        self.stream_mut(name).purge_to(to);
    }

    /// Makes room in every stream.
    pub(crate) fn heal(&mut self) {
        for name in
            [StreamName::Commands, StreamName::Journal, StreamName::Audit, StreamName::Checkpoints]
        {
            self.stream_mut(name).full_until_ms = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(stream: &mut Stream, expected_last_sequence: Option<u64>) -> AppendOutcome {
        let payload = Bytes::from_static(b"frame");
        let name = StreamName::Journal;
        stream.append(&Publish { stream: name, expected_last_sequence, writer: None, payload }, 0)
    }

    #[test]
    fn of_several_appends_under_way_one_fails_and_the_rest_pass() {
        let mut stream = Stream::default();
        publish(&mut stream, Some(0));
        // Three are sent, on 1, 2 and 3; somebody else is first.
        publish(&mut stream, None);

        let answers = [1, 2, 3].map(|expected| publish(&mut stream, Some(expected)));

        assert_eq!(answers[0], AppendOutcome::Conflict);
        assert_eq!(answers[1], AppendOutcome::Stored { sequence: 3 });
        assert_eq!(answers[2], AppendOutcome::Stored { sequence: 4 });
    }
}
