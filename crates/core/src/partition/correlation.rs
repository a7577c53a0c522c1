//! What waits under a correlation key, and the signals that nobody took yet.
//!
//! Lives in the partition that hash(tenant, key) names. A signal resumes every
//! wait of its key whose pattern its type matches, each once; one that resumes
//! nobody is kept for whoever comes later, for a bounded time. A later wait
//! takes the oldest kept signal that it matches, and nobody else gets that one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

mod shared_keys;

use super::{Decision, Partition};
use crate::identity::{JournalTime, PartitionId, Tenant};
use crate::record::{Record, SignalExpired, SignalKept, WaitClosed, WaitMatched, WaitSubscribed};
use crate::relay::{
    RelayCommand, Resume, ResumeAnswer, Signal, SignalEvent, Subscribe, Unsubscribe, Waiter,
};
use crate::run::CorruptHistory;
use crate::strategy::type_matches;
use shared_keys::Keys;

/// Most waits of one correlation key. 16: all of them are resumed by one
/// decision, each with the event, which must fit a frame. A further one is
/// refused and its node fails.
pub const WAITS_OF_KEY_MAX: usize = 16;

/// Most signals of one correlation key that are kept; a further one is given up
/// at once.
pub const SIGNALS_OF_KEY_MAX: usize = 16;

/// Waits and kept signals by correlation key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Correlations {
    keys: Keys,
    /// Kept signals by number; at most 10,000, so a copy of the pointers is cheap.
    kept: BTreeMap<u64, Arc<Kept>>,
    expiry: BTreeSet<(JournalTime, u64)>,
    /// Number of the signal kept last.
    last: u64,
    waits: usize,
}

/// What stands under one key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Correlation {
    /// In the order in which they came.
    waits: Vec<Wait>,
    /// Numbers of kept signals, oldest first.
    kept: Vec<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wait {
    waiter: Waiter,
    event: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    signal: Signal,
    expires: JournalTime,
}

/// What a snapshot holds of [`Correlations`]; the rest follows from it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CorrelationsImage {
    /// Keys that somebody waits under, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    waits: Vec<WaitsImage>,
    /// Kept signals, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    kept: Vec<KeptImage>,
    /// Number of the signal kept last.
    last: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WaitsImage {
    tenant: Tenant,
    key: Arc<str>,
    /// In the order in which they came.
    waits: Vec<Wait>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptImage {
    number: u64,
    signal: Signal,
    expires: JournalTime,
}

impl CorrelationsImage {
    /// Whether nothing ever waited or was kept.
    pub(super) fn is_unused(&self) -> bool {
        *self == Self::default()
    }
}

impl Correlations {
    /// What a snapshot holds of it.
    pub(super) fn image(&self) -> CorrelationsImage {
        // Without `..`: what is added here must be in the image or follow from it.
        let Self { keys, kept, expiry: _, last, waits: _ } = self;
        let mut waits = Vec::new();
        for (tenant, keys) in keys.iter() {
            for (key, known) in keys.iter().filter(|(_, known)| !known.waits.is_empty()) {
                let (tenant, key) = (tenant.clone(), key.clone());
                waits.push(WaitsImage { tenant, key, waits: known.waits.clone() });
            }
        }
        waits.sort_unstable_by(|one, other| {
            (&one.tenant, &one.key).cmp(&(&other.tenant, &other.key))
        });
        let kept = kept.iter().map(|(number, kept)| {
            let Kept { signal, expires } = Kept::clone(kept);
            KeptImage { number: *number, signal, expires }
        });
        CorrelationsImage { waits, kept: kept.collect(), last: *last }
    }

    /// What `image` was made of.
    pub(super) fn restore(image: CorrelationsImage) -> Self {
        let mut restored = Self { last: image.last, ..Self::default() };
        for WaitsImage { tenant, key, waits } in image.waits {
            restored.waits += waits.len();
            restored.of_mut(&tenant, &key).waits = waits;
        }
        for KeptImage { number, signal, expires } in image.kept {
            restored.keep(number, Kept { signal, expires });
        }
        restored
    }

    /// Keeps a signal that is younger than all that are kept.
    fn keep(&mut self, number: u64, kept: Kept) {
        self.expiry.insert((kept.expires, number));
        let tenant = &kept.signal.event.reference.tenant;
        self.of_mut(tenant, &kept.signal.key).kept.push(number);
        self.kept.insert(number, Arc::new(kept));
    }

    /// Waits over all keys.
    #[must_use]
    pub fn waits(&self) -> usize {
        self.waits
    }

    /// Signals that are kept, over all keys.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    fn of(&self, tenant: &Tenant, key: &str) -> Option<&Correlation> {
        self.keys.get(tenant, key)
    }

    fn of_mut(&mut self, tenant: &Tenant, key: &Arc<str>) -> &mut Correlation {
        self.keys.get_or_insert(tenant, key)
    }

    fn forget_if_empty(&mut self, tenant: &Tenant, key: &str) {
        let is_empty = |known: &Correlation| known.waits.is_empty() && known.kept.is_empty();
        if self.of(tenant, key).is_some_and(is_empty) {
            self.keys.remove(tenant, key);
        }
    }

    fn has_wait(&self, tenant: &Tenant, key: &str, waiter: &Waiter) -> bool {
        self.of(tenant, key)
            .is_some_and(|known| known.waits.iter().any(|wait| wait.waiter == *waiter))
    }

    /// Who takes a signal of `kind` that comes now, in order.
    fn takers(&self, tenant: &Tenant, key: &str, kind: &str) -> Vec<Waiter> {
        let waits = self.of(tenant, key).into_iter().flat_map(|known| &known.waits);
        let matching = waits.filter(|wait| type_matches(&wait.event, kind));
        matching.map(|wait| wait.waiter.clone()).collect()
    }

    /// The oldest kept signal whose type `pattern` matches.
    fn oldest(&self, tenant: &Tenant, key: &str, pattern: &str) -> Option<(u64, &Signal)> {
        let known = self.of(tenant, key)?;
        let kept = known.kept.iter().filter_map(|number| Some((*number, self.kept.get(number)?)));
        kept.map(|(number, kept)| (number, &kept.signal))
            .find(|(_, signal)| type_matches(pattern, &signal.event.reference.kind))
    }

    fn remove_wait(&mut self, tenant: &Tenant, key: &Arc<str>, waiter: &Waiter) -> bool {
        let known = self.of_mut(tenant, key);
        let before = known.waits.len();
        known.waits.retain(|wait| wait.waiter != *waiter);
        let removed = before - known.waits.len();
        self.waits -= removed;
        self.forget_if_empty(tenant, key);
        removed > 0
    }

    fn remove_kept(&mut self, number: u64) -> bool {
        let Some(kept) = self.kept.remove(&number) else { return false };
        self.expiry.remove(&(kept.expires, number));
        let (tenant, key) = (&kept.signal.event.reference.tenant, &kept.signal.key);
        self.of_mut(tenant, key).kept.retain(|other| *other != number);
        self.forget_if_empty(tenant, key);
        true
    }
}

impl Partition {
    /// What waits under correlation keys here.
    #[must_use]
    pub fn correlations(&self) -> &Correlations {
        &self.correlations
    }

    /// The partition where what waits under `key` lives.
    pub(super) fn correlation_partition(&self, tenant: &Tenant, key: &str) -> PartitionId {
        let parts: [&[u8]; 3] = [b"correlation", tenant.as_str().as_bytes(), key.as_bytes()];
        PartitionId::of(&parts, self.limits.partitions)
    }

    pub(super) fn decide_subscribe(&mut self, subscribe: &Subscribe, out: &mut Decision) {
        let Subscribe { tenant, key, event, waiter } = subscribe;
        if self.correlations.has_wait(tenant, key, waiter) {
            return;
        }
        let of_key = self.correlations.of(tenant, key).map_or(0, |known| known.waits.len());
        let refused = if of_key >= WAITS_OF_KEY_MAX {
            Some(format!("{of_key} tasks wait under this correlation key, the most that can"))
        } else if self.correlations.waits >= self.limits.waits_max {
            let waits = self.correlations.waits;
            Some(format!("{waits} tasks wait in the partition of this key, the most that can"))
        } else {
            None
        };
        if let Some(detail) = refused {
            return self.answer_wait(tenant, waiter, ResumeAnswer::Refused(detail), out);
        }
        let (key, event) = (key.clone(), event.clone());
        let body =
            WaitSubscribed { key: key.clone(), event: event.clone(), waiter: waiter.clone() };
        self.emit(Record::of_tenant(tenant, body.into()), out);
        let kept = self.correlations.oldest(tenant, &key, &event);
        let Some((number, event)) = kept.map(|(number, kept)| (number, kept.event.clone())) else {
            return;
        };
        self.match_wait(&key, waiter, event, Some(number), out);
    }

    pub(super) fn decide_unsubscribe(&mut self, unsubscribe: &Unsubscribe, out: &mut Decision) {
        let Unsubscribe { tenant, key, waiter } = unsubscribe;
        if self.correlations.has_wait(tenant, key, waiter) {
            let body = WaitClosed { key: key.clone(), waiter: waiter.clone() };
            self.emit(Record::of_tenant(tenant, body.into()), out);
        }
    }

    pub(super) fn decide_signal(&mut self, signal: &Signal, out: &mut Decision) {
        let reference = &signal.event.reference;
        let (tenant, key) = (&reference.tenant, &signal.key);
        let takers = self.correlations.takers(tenant, key, &reference.kind);
        if !takers.is_empty() {
            for waiter in &takers {
                self.match_wait(key, waiter, signal.event.clone(), None, out);
            }
            return;
        }
        let of_key = self.correlations.of(tenant, key).map_or(0, |known| known.kept.len());
        let full =
            of_key >= SIGNALS_OF_KEY_MAX || self.correlations.kept.len() >= self.limits.signals_max;
        if full {
            return self.give_signal_up(None, signal, out);
        }
        let number = self.correlations.last.saturating_add(1);
        let expires = self.time.plus_ms(self.limits.signal_kept_ms);
        let body = SignalKept { number, signal: signal.clone(), expires };
        self.emit(Record::of_tenant(tenant, body.into()), out);
    }

    /// When the next kept signal is given up.
    pub(super) fn next_signal_due(&self) -> Option<JournalTime> {
        self.correlations.expiry.first().map(|(expires, _)| *expires)
    }

    /// Whether a kept signal is to be given up at `time`.
    #[must_use]
    pub fn is_signal_due(&self, time: JournalTime) -> bool {
        self.next_signal_due().is_some_and(|due| due <= time)
    }

    /// Gives up the kept signal whose time is over first.
    pub fn expire_signal(&mut self, out: &mut Decision) {
        let first = self.correlations.expiry.first().filter(|(due, _)| *due <= self.time);
        let Some((due, number)) = first.copied() else { return };
        match self.correlations.kept.get(&number).map(|kept| kept.signal.clone()) {
            Some(signal) => self.give_signal_up(Some(number), &signal, out),
            None => {
                self.correlations.expiry.remove(&(due, number));
            }
        }
    }

    /// Nobody takes the signal: if no strategy applied to its event either, a
    /// person looks at it.
    fn give_signal_up(&mut self, number: Option<u64>, signal: &Signal, out: &mut Decision) {
        let reference = &signal.event.reference;
        let (tenant, kind) = (&reference.tenant, &reference.kind);
        let case = signal.review.then(|| self.unmatched_case(tenant, kind));
        let (key, event) = (signal.key.clone(), reference.clone());
        let body = SignalExpired { number, key, event, case };
        self.emit(Record::of_tenant(tenant, body.into()), out);
        if let Some(case) = case {
            self.open_unmatched_case(case, tenant, kind, &reference.id, out);
        }
    }

    fn match_wait(
        &mut self,
        key: &Arc<str>,
        waiter: &Waiter,
        event: SignalEvent,
        kept: Option<u64>,
        out: &mut Decision,
    ) {
        let (id, source) = (event.reference.id.clone(), event.reference.source.clone());
        let body = WaitMatched { key: key.clone(), waiter: waiter.clone(), id, source, kept };
        let tenant = event.reference.tenant.clone();
        if self.emit(Record::of_tenant(&tenant, body.into()), out) {
            self.answer_wait(&tenant, waiter, ResumeAnswer::Event(event), out);
        }
    }

    /// Bounded by the waits that there are, so it needs no room in the outbox.
    fn answer_wait(
        &mut self,
        tenant: &Tenant,
        waiter: &Waiter,
        answer: ResumeAnswer,
        out: &mut Decision,
    ) {
        let resume = Resume { tenant: tenant.clone(), waiter: waiter.clone(), answer };
        self.relay(tenant, waiter.run.partition(), RelayCommand::Resume(resume), out);
    }

    pub(super) fn evolve_wait_subscribed(&mut self, tenant: &Tenant, subscribed: &WaitSubscribed) {
        let wait = Wait { waiter: subscribed.waiter.clone(), event: subscribed.event.clone() };
        self.correlations.of_mut(tenant, &subscribed.key).waits.push(wait);
        self.correlations.waits += 1;
    }

    pub(super) fn evolve_wait_closed(
        &mut self,
        record: &Record,
        tenant: &Tenant,
        closed: &WaitClosed,
    ) -> Result<(), CorruptHistory> {
        match self.correlations.remove_wait(tenant, &closed.key, &closed.waiter) {
            true => Ok(()),
            false => Err(CorruptHistory::new(record, "nobody waits like that")),
        }
    }

    pub(super) fn evolve_wait_matched(
        &mut self,
        record: &Record,
        tenant: &Tenant,
        matched: &WaitMatched,
    ) -> Result<(), CorruptHistory> {
        if matched.kept.is_some_and(|number| !self.correlations.kept.contains_key(&number)) {
            return Err(CorruptHistory::new(record, "no such signal is kept"));
        }
        if !self.correlations.remove_wait(tenant, &matched.key, &matched.waiter) {
            return Err(CorruptHistory::new(record, "nobody waits like that"));
        }
        if let Some(number) = matched.kept {
            self.correlations.remove_kept(number);
        }
        Ok(())
    }

    pub(super) fn evolve_signal_kept(
        &mut self,
        record: &Record,
        kept: &SignalKept,
    ) -> Result<(), CorruptHistory> {
        if kept.number != self.correlations.last.saturating_add(1) {
            let last = self.correlations.last;
            return Err(CorruptHistory::new(record, format!("signal {last} was kept last")));
        }
        let SignalKept { number, signal, expires } = kept;
        self.correlations.last = *number;
        let kept = Kept { signal: signal.clone(), expires: *expires };
        self.correlations.keep(*number, kept);
        Ok(())
    }

    pub(super) fn evolve_signal_expired(
        &mut self,
        record: &Record,
        expired: &SignalExpired,
    ) -> Result<(), CorruptHistory> {
        match expired.number {
            Some(number) if !self.correlations.remove_kept(number) => {
                Err(CorruptHistory::new(record, "no such signal is kept"))
            }
            Some(_) | None => Ok(()),
        }
    }
}
