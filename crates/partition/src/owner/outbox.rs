//! Commands to other partitions on their way (ADR 22).
//!
//! One frame per target is under way, of commands whose records are durable. It
//! is published until it is known to be stored; only then the next one goes
//! out. So the first stored copy of a command stands before that of the next
//! one, whichever owner sent them, and COMMANDS needs no fence: everything else
//! in it is a later copy, which the target recognises.

use std::collections::BTreeMap;

use bytes::Bytes;
use fermata_core::identity::PartitionId;
use fermata_core::partition::Report;
use fermata_wire::relay::RelayFrame;

use super::{Output, Owner, Phase};
use crate::message::AppendOutcome;

/// Bytes of commands in one frame to another partition; the first is taken
/// whatever its size. 16 KiB: what a partition decides about a frame goes into
/// one of its own, and an event resumes every wait of its key.
pub const RELAY_BYTES_TARGET: usize = 16 * 1024;

/// Most commands in one frame to another partition.
pub const RELAY_COMMANDS_MAX: usize = 64;

/// A frame of commands for another partition, to publish to its COMMANDS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    /// The target.
    pub target: PartitionId,
    /// Index of its last command.
    pub up_to: u64,
    /// The message.
    pub frame: Bytes,
}

/// What this owner has sent, which is not part of the state: the next one sends
/// what is not recorded as delivered.
#[derive(Debug, Default)]
pub(super) struct Sending {
    /// Up to which index the outbox is durable.
    durable: u64,
    under_way: BTreeMap<PartitionId, Relay>,
    /// Up to which index each target's COMMANDS is known to hold everything.
    stored: BTreeMap<PartitionId, u64>,
}

impl Sending {
    /// Notes that everything up to `index` is durable.
    pub(super) fn durable_to(&mut self, index: u64) {
        self.durable = self.durable.max(index);
    }
}

impl Owner {
    /// Takes the answer to [`Output::Relay`].
    pub(super) fn relayed(
        &mut self,
        target: PartitionId,
        up_to: u64,
        outcome: AppendOutcome,
        outputs: &mut Vec<Output>,
    ) {
        let sending = &mut self.sending;
        let Some(relay) = sending.under_way.get(&target).filter(|relay| relay.up_to == up_to)
        else {
            return;
        };
        match outcome {
            AppendOutcome::Stored { .. } => {
                sending.under_way.remove(&target);
                sending.stored.insert(target, up_to);
                self.reports_waiting.push_back(Report::Relayed { target, up_to });
            }
            // Whether it is stored or not, a copy more does no harm.
            AppendOutcome::Conflict | AppendOutcome::Refused | AppendOutcome::Unknown => {
                outputs.push(Output::RelayLater(relay.clone()));
            }
        }
    }

    /// Sends what is durable to every target that nothing is under way to.
    pub(super) fn send_relays(&mut self, outputs: &mut Vec<Output>) {
        if self.phase != Phase::Owning || self.sending.durable == 0 {
            return;
        }
        let targets = self.fold.partition().outbox().targets().collect::<Vec<_>>();
        for target in targets {
            if !self.sending.under_way.contains_key(&target)
                && let Some(relay) = self.next_relay(target)
            {
                self.sending.under_way.insert(target, relay.clone());
                outputs.push(Output::Relay(relay));
            }
        }
    }

    fn next_relay(&self, target: PartitionId) -> Option<Relay> {
        let Sending { durable, stored, .. } = &self.sending;
        let stored = stored.get(&target).copied().unwrap_or(0);
        let mut frame = RelayFrame::new(self.config.partition);
        let mut bytes = 0;
        let waiting = self.fold.partition().outbox().waiting(target);
        for queued in waiting.filter(|queued| queued.index > stored) {
            let full = frame.len() >= RELAY_COMMANDS_MAX
                || (bytes > 0 && bytes + queued.command.bytes() > RELAY_BYTES_TARGET);
            if queued.index > *durable || full {
                break;
            }
            bytes += frame.push(queued.index, queued.previous, &queued.command).ok()?;
        }
        let up_to = frame.up_to()?;
        Some(Relay { target, up_to, frame: frame.encode().ok()?.into() })
    }
}
