//! Events that the partition rejected itself, until their bytes are filed.
//!
//! A stage that rejects an event files it before the partition hears of it. What
//! is rejected only here (no room for its key, a plan that is gone) is filed by
//! the owner behind the record, and by the next one if it was not.

use std::collections::BTreeMap;

use super::{Decision, Partition};
use crate::effect::{DeadEvent, Effect};
use crate::identity::SourcePosition;
use crate::record::{EventFiled, EventRejected, Record};

/// Rejected events that are not filed, from which on no message of commands is
/// decided. Default 10,000: some megabytes, and seconds of filing. Filing goes on
/// meanwhile, so that this passes.
pub const UNFILED_EVENTS_MAX: usize = 10_000;

/// Rejected events whose bytes are not filed.
pub(super) type DeadEvents = BTreeMap<SourcePosition, DeadEvent>;

impl Partition {
    /// Whether another message of commands may be decided: what it rejects has
    /// to be filed.
    #[must_use]
    pub fn takes_commands(&self) -> bool {
        self.dead_events.len() < UNFILED_EVENTS_MAX
    }

    /// The first message of EVENTS of which an event is rejected and not filed.
    #[must_use]
    pub fn first_unfiled(&self) -> Option<u64> {
        self.dead_events.keys().next().map(|source| source.sequence)
    }

    /// Records that an event is rejected, and orders that it is filed.
    pub(super) fn reject(&mut self, rejected: EventRejected, out: &mut Decision) {
        let (source, tenant) = (rejected.source, rejected.event.tenant.clone());
        self.emit(Record::of_tenant(&tenant, rejected.into()), out);
        self.file_again(source, out);
    }

    /// Orders that a rejected event is filed, unless it was.
    pub(super) fn file_again(&self, source: SourcePosition, out: &mut Decision) {
        let dead = self.dead_events.get(&source).cloned();
        out.effects.extend(dead.map(|dead| Effect::FileEvent(Box::new(dead))));
    }

    /// An event is filed: recorded once.
    pub(super) fn conclude_filing(&mut self, source: SourcePosition, out: &mut Decision) {
        let Some(dead) = self.dead_events.get(&source) else { return };
        let tenant = dead.event.tenant.clone();
        self.emit(Record::of_tenant(&tenant, EventFiled { source }.into()), out);
    }

    pub(super) fn evolve_rejected(&mut self, rejected: &EventRejected) {
        // Whoever names a digest has filed the bytes.
        if rejected.original.is_none() {
            let EventRejected { event, source, reason, detail, .. } = rejected.clone();
            self.dead_events.insert(source, DeadEvent { event, source, reason, detail });
        }
    }
}
