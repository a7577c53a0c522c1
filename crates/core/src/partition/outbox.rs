//! Commands to other partitions, and from them (ADR 22).
//!
//! A partition's outbox is a fold of its journal: `outbox.queued` puts a command
//! in, `outbox.delivered` drops what is stored in the target's COMMANDS. An
//! owner sends what is durable, one frame per target in flight, and sends again
//! what is not recorded as delivered. The target takes each command once and in
//! order: `relay.taken` moves its high-water, and only the command whose
//! previous index is that high-water moves it; or is below it with its own above,
//! as it is behind a sender's journal that lost its end (ADR 33).
//!
//! A command to the own partition goes the same way: one order, one bound, one
//! mechanism, and no decision that begins another one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Decision, Partition};
use crate::identity::{PartitionId, Tenant};
use crate::record::{OutboxDelivered, OutboxQueued, Record, RelayTaken, TruncationAccepted};
use crate::relay::{RelayCommand, Relayed};
use crate::run::CorruptHistory;

/// Indices that an accepted truncation leaves out beside one for each record that is known to be
/// lost: how many records were lost behind those is not known, and indices are plenty.
const LOST_UNSEEN: u64 = 1 << 32;

/// Commands of one partition that are not delivered, by target.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outbox {
    /// Index of the command queued last, over all targets.
    last: u64,
    channels: BTreeMap<PartitionId, Channel>,
}

/// What waits for one target.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Channel {
    /// Index of the command queued last for this target.
    last: u64,
    /// Shared with the copies that snapshots took.
    waiting: VecDeque<Arc<Queued>>,
}

/// A command that waits to be delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Queued {
    /// Its index in the outbox, from 1.
    pub index: u64,
    /// The index before it for this target; 0 for the first.
    pub previous: u64,
    /// What it asks for.
    pub command: RelayCommand,
}

impl Outbox {
    /// Index of the command queued last, over all targets; 0 before the first.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Targets with commands that are not delivered.
    pub fn targets(&self) -> impl Iterator<Item = PartitionId> {
        let waiting = self.channels.iter().filter(|(_, channel)| !channel.waiting.is_empty());
        waiting.map(|(target, _)| *target)
    }

    /// What waits for `target`, in order.
    pub fn waiting(&self, target: PartitionId) -> impl Iterator<Item = &Queued> {
        let waiting = self.channels.get(&target).into_iter().flat_map(|channel| &channel.waiting);
        waiting.map(|queued| &**queued)
    }

    /// How many commands wait for `target`.
    #[must_use]
    pub fn len(&self, target: PartitionId) -> usize {
        self.channels.get(&target).map_or(0, |channel| channel.waiting.len())
    }

    /// Whether everything is delivered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.channels.values().all(|channel| channel.waiting.is_empty())
    }

    /// Whether nothing was ever queued: then a snapshot says nothing of it.
    pub(super) fn is_unused(&self) -> bool {
        *self == Self::default()
    }

    fn next(&self, target: PartitionId) -> (u64, u64) {
        (self.last.saturating_add(1), self.channels.get(&target).map_or(0, |channel| channel.last))
    }

    /// Leaves out the indices of commands that `records` lost records may have queued:
    /// one each at the most, and as many more as an audit log that lags can never hide:
    /// commands leave before their records are audited. Their targets may have taken
    /// those, and what comes now is no repetition of them.
    fn leave_out(&mut self, records: u64) {
        self.last = self.last.saturating_add(records).saturating_add(LOST_UNSEEN);
    }

    fn queue(&mut self, record: &Record, queued: &OutboxQueued) -> Result<(), CorruptHistory> {
        let (index, previous) = self.next(queued.target);
        if (queued.index, queued.previous) != (index, previous) {
            let detail = format!("command {index} behind {previous} is next for its target");
            return Err(CorruptHistory::new(record, detail));
        }
        self.last = index;
        let channel = self.channels.entry(queued.target).or_default();
        channel.last = index;
        let command = queued.command.clone();
        channel.waiting.push_back(Arc::new(Queued { index, previous, command }));
        Ok(())
    }

    fn deliver(
        &mut self,
        record: &Record,
        delivered: &OutboxDelivered,
    ) -> Result<(), CorruptHistory> {
        let channel = self.channels.get_mut(&delivered.target);
        let Some(channel) = channel.filter(|channel| delivered.up_to <= channel.last) else {
            return Err(CorruptHistory::new(record, "nothing was queued up to there"));
        };
        while channel.waiting.front().is_some_and(|queued| queued.index <= delivered.up_to) {
            channel.waiting.pop_front();
        }
        Ok(())
    }
}

/// Up to where the commands of each partition are taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HighWaters(BTreeMap<PartitionId, u64>);

impl HighWaters {
    /// Index of the last command taken from `source`; 0 before the first.
    #[must_use]
    pub fn of(&self, source: PartitionId) -> u64 {
        self.0.get(&source).copied().unwrap_or(0)
    }

    /// Whether nothing was ever taken: then a snapshot says nothing of it.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where a command of `source` stands to what was taken of it.
    fn order(&self, source: PartitionId, index: u64, previous: u64) -> Order {
        let high_water = self.of(source);
        if index <= high_water {
            Order::Repeated
        } else if previous <= high_water {
            // Below it only where the sender lost the end of its journal: what was taken
            // then is none of the commands that it goes on with.
            Order::Next
        } else {
            Order::Ahead
        }
    }

    fn take(&mut self, record: &Record, taken: &RelayTaken) -> Result<(), CorruptHistory> {
        if self.order(taken.source, taken.index, taken.previous) != Order::Next {
            let (high_water, source) = (self.of(taken.source), taken.source);
            let detail = format!("{high_water} was taken last from partition {source}");
            return Err(CorruptHistory::new(record, detail));
        }
        self.0.insert(taken.source, taken.index);
        Ok(())
    }
}

/// Where a relayed command stands to what was taken before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// It was taken before: a copy of a frame that was sent again.
    Repeated,
    /// It is the next one.
    Next,
    /// Others are missing before it.
    Ahead,
}

impl Partition {
    /// Commands to other partitions that are not delivered.
    #[must_use]
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Up to where the commands of other partitions are taken.
    #[must_use]
    pub fn high_waters(&self) -> &HighWaters {
        &self.high_waters
    }

    /// Whether `target` has so many commands to take that nothing that can wait
    /// is queued for it.
    pub(super) fn is_outbox_full(&self, target: PartitionId) -> bool {
        self.outbox.len(target) >= self.limits.outbox_max
    }

    /// Puts a command into the outbox.
    pub(super) fn relay(
        &mut self,
        tenant: &Tenant,
        target: PartitionId,
        command: RelayCommand,
        out: &mut Decision,
    ) -> bool {
        let (index, previous) = self.outbox.next(target);
        let body = OutboxQueued { target, index, previous, command };
        self.emit(Record::of_tenant(tenant, body.into()), out)
    }

    /// Notes that `target`'s COMMANDS holds everything up to the index `up_to`.
    pub(super) fn conclude_relay(&mut self, target: PartitionId, up_to: u64, out: &mut Decision) {
        let waits = self.outbox.waiting(target).next().is_some_and(|queued| queued.index <= up_to);
        if waits {
            self.emit(Record::of_partition(OutboxDelivered { target, up_to }.into()), out);
        }
    }

    /// Decides a command of another partition, if it is the next one of it.
    ///
    /// `sequence` and `place` say where it stands in COMMANDS.
    pub fn decide_relayed(
        &mut self,
        relayed: &Relayed,
        (sequence, place): (u64, u32),
        out: &mut Decision,
    ) {
        match (self.order_of(relayed), &relayed.command) {
            (Order::Repeated, _) => {}
            (Order::Next, Some(command)) => {
                self.take_relayed(relayed, out);
                self.decide_relay_command(command, out);
            }
            (Order::Next, None) => {
                let detail = "the command is of a kind that this program does not know";
                self.poison_relayed(relayed, (sequence, place), ("malformed", detail), out);
            }
            // The sender's order makes this impossible while streams keep what
            // they hold: somebody has to look, and the bytes must not be lost.
            (Order::Ahead, _) => {
                let high_water = self.high_waters.of(relayed.source);
                let detail = format!(
                    "command {} of partition {} follows {}, only {high_water} was taken",
                    relayed.index, relayed.source, relayed.previous
                );
                self.poison(sequence, Some(place), "relay_ahead", &detail, out);
            }
        }
    }

    /// Consumes a relayed command unread: it is decided, so the next one can be.
    pub fn poison_relayed(
        &mut self,
        relayed: &Relayed,
        (sequence, place): (u64, u32),
        (reason, detail): (&str, &str),
        out: &mut Decision,
    ) {
        if self.order_of(relayed) == Order::Next {
            self.take_relayed(relayed, out);
            self.poison(sequence, Some(place), reason, detail, out);
        }
    }

    /// Consumes a whole message of relayed commands unread, by one record of it.
    pub fn poison_relays(
        &mut self,
        relays: &[Relayed],
        sequence: u64,
        (reason, detail): (&str, &str),
        out: &mut Decision,
    ) {
        // One record moves the high-water over all of them, as it must fit a
        // frame that their decisions did not.
        let mut taken: Option<RelayTaken> = None;
        for relayed in relays {
            let Relayed { source, index, previous, .. } = *relayed;
            match &mut taken {
                Some(taken) if previous == taken.index => taken.index = index,
                Some(_) => {}
                None if self.order_of(relayed) == Order::Next => {
                    taken = Some(RelayTaken { source, index, previous });
                }
                None => {}
            }
        }
        if let Some(taken) = taken {
            self.emit(Record::of_partition(taken.into()), out);
        }
        self.poison(sequence, None, reason, detail, out);
    }

    fn order_of(&self, relayed: &Relayed) -> Order {
        self.high_waters.order(relayed.source, relayed.index, relayed.previous)
    }

    fn take_relayed(&mut self, relayed: &Relayed, out: &mut Decision) {
        let Relayed { source, index, previous, .. } = *relayed;
        self.emit(Record::of_partition(RelayTaken { source, index, previous }.into()), out);
    }

    fn decide_relay_command(&mut self, command: &RelayCommand, out: &mut Decision) {
        match command {
            RelayCommand::Subscribe(subscribe) => self.decide_subscribe(subscribe, out),
            RelayCommand::Unsubscribe(unsubscribe) => self.decide_unsubscribe(unsubscribe, out),
            RelayCommand::Signal(signal) => self.decide_signal(signal, out),
            RelayCommand::Resume(resume) => self.decide_resume(resume, out),
        }
    }

    pub(super) fn evolve_outbox_queued(
        &mut self,
        record: &Record,
        queued: &OutboxQueued,
    ) -> Result<(), CorruptHistory> {
        self.outbox.queue(record, queued)
    }

    pub(super) fn evolve_truncation_accepted(
        &mut self,
        record: &Record,
        accepted: &TruncationAccepted,
    ) -> Result<(), CorruptHistory> {
        let TruncationAccepted { from, signed, next, .. } = accepted;
        if from >= signed || signed > next {
            return Err(CorruptHistory::new(record, "nothing is lost by it"));
        }
        self.outbox.leave_out(next - from);
        Ok(())
    }

    pub(super) fn evolve_outbox_delivered(
        &mut self,
        record: &Record,
        delivered: &OutboxDelivered,
    ) -> Result<(), CorruptHistory> {
        self.outbox.deliver(record, delivered)
    }

    pub(super) fn evolve_relay_taken(
        &mut self,
        record: &Record,
        taken: &RelayTaken,
    ) -> Result<(), CorruptHistory> {
        self.high_waters.take(record, taken)
    }
}
