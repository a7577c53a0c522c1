//! Resolving review cases: what a person decided, once, and what follows.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Decision, Partition};
use crate::effect::{Effect, bounded_detail};
use crate::identity::{JournalTime, RunId, SourcePosition, Tenant};
use crate::json::Json;
use crate::record::{CaseReplayed as CaseReplayedRecord, CaseResolved, Record};
use crate::review::{CaseReplay, CaseReplayed, EVENTS_OF_CASE_MAX, Resolution, ResolveCommand};
use crate::run::CorruptHistory;

/// Resolutions that a partition remembers. Default 10,000: some megabytes, and
/// weeks of what people resolve by hand. Beyond it the oldest is forgotten, and
/// its case could be resolved again; the journal still tells of the first time.
pub(super) const RESOLUTIONS_MAX: usize = 10_000;

/// Resolved cases whose events are not all decided once more yet. Default 1,000:
/// with the positions of their events 16 MB at the most. A further one is
/// answered as `busy` and leaves no record.
pub(super) const REPLAYING_MAX: usize = 1_000;

/// What became of a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resolved {
    tenant: Tenant,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run: Option<RunId>,
    resolution: Resolution,
    by: Arc<str>,
    at: JournalTime,
    /// Where the events stand that are to be decided once more; none when that
    /// is done, or was not asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    events: Vec<SourcePosition>,
}

/// The cases that were resolved, as far as they are remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Resolutions(BTreeMap<Uuid, Resolved>);

impl Resolutions {
    /// Whether none is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether `case` was resolved.
    #[must_use]
    pub fn contains(&self, case: Uuid) -> bool {
        self.0.contains_key(&case)
    }

    /// The cases whose events are still to be decided once more, in a fixed order.
    pub(super) fn replaying(&self) -> impl Iterator<Item = Uuid> {
        self.0.iter().filter(|(_, resolved)| !resolved.events.is_empty()).map(|(case, _)| *case)
    }

    fn replay(&self, case: Uuid) -> Option<CaseReplay> {
        let resolved = self.0.get(&case).filter(|resolved| !resolved.events.is_empty())?;
        Some(CaseReplay {
            case,
            tenant: resolved.tenant.clone(),
            strategy: resolved.resolution.strategy().cloned(),
            events: resolved.events.as_slice().into(),
        })
    }

    /// Makes room: what is still under way is never forgotten.
    fn forget_oldest(&mut self) {
        while self.0.len() > RESOLUTIONS_MAX {
            let done = self.0.iter().filter(|(_, resolved)| resolved.events.is_empty());
            let Some(oldest) = done.min_by_key(|(case, one)| (one.at, **case)) else { return };
            let oldest = *oldest.0;
            self.0.remove(&oldest);
        }
    }
}

impl Partition {
    /// The cases that were resolved.
    #[must_use]
    pub fn resolutions(&self) -> &Resolutions {
        &self.resolutions
    }

    pub(super) fn decide_resolve(&mut self, command: &ResolveCommand, out: &mut Decision) {
        let answer = self.resolve(command, out);
        if let Some(to) = command.reply_to.clone() {
            out.effects.push(Effect::Reply { to, answer: Json::from_value(&answer) });
        }
    }

    /// The first resolution counts, whatever comes after it.
    fn resolve(&mut self, command: &ResolveCommand, out: &mut Decision) -> Value {
        let case = command.case;
        let of_another = |tenant: &Tenant| *tenant != command.tenant;
        if let Some(earlier) = self.resolutions.0.get(&case) {
            if of_another(&earlier.tenant) {
                return json!({ "case": case, "answer": "unknown_case" });
            }
            let same = earlier.resolution == command.resolution;
            return json!({
                "case": case,
                "answer": if same { "already_resolved" } else { "conflict" },
                "resolution": earlier.resolution,
                "by": &*earlier.by,
                "time_ms": earlier.at.0,
            });
        }
        if case.as_bytes().get(..2) != Some(self.id.0.to_be_bytes().as_slice()) {
            return json!({ "case": case, "answer": "unknown_case" });
        }
        let replays = command.resolution != Resolution::Close && !command.events.is_empty();
        if replays && self.resolutions.replaying().count() >= REPLAYING_MAX {
            return json!({ "case": case, "answer": "busy" });
        }
        let mut events = match replays {
            true => command.events.clone(),
            false => Vec::new(),
        };
        events.sort_unstable();
        events.dedup();
        let beyond = events.len().saturating_sub(EVENTS_OF_CASE_MAX);
        events.truncate(EVENTS_OF_CASE_MAX);
        let body = CaseResolved {
            case,
            resolution: command.resolution.clone(),
            by: bounded_detail(&command.by).into(),
            reason: bounded_detail(&command.reason),
            events,
            left_out: command.left_out.saturating_add(beyond as u64),
        };
        let record = Record { run: command.run, ..Record::of_tenant(&command.tenant, body.into()) };
        self.emit(record, out);
        out.effects.extend(self.resolutions.replay(case).map(Effect::ReplayCase));
        json!({
            "case": case,
            "answer": "resolved",
            "resolution": command.resolution,
            "by": command.by,
            "time_ms": self.time.0,
        })
    }

    /// Orders again what a lost owner may have left half done: partitions take
    /// each replay once.
    pub(super) fn replay_case_again(&self, case: Uuid, out: &mut Decision) {
        out.effects.extend(self.resolutions.replay(case).map(Effect::ReplayCase));
    }

    pub(super) fn conclude_case_replay(&mut self, replayed: &CaseReplayed, out: &mut Decision) {
        let CaseReplayed { case, asked, missing } = *replayed;
        let known = self.resolutions.0.get(&case).filter(|known| !known.events.is_empty());
        let Some(known) = known else { return };
        let body = CaseReplayedRecord { case, asked, missing };
        let record = Record { run: known.run, ..Record::of_tenant(&known.tenant, body.into()) };
        self.emit(record, out);
    }

    pub(super) fn evolve_case_resolved(
        &mut self,
        record: &Record,
        tenant: &Tenant,
        resolved: &CaseResolved,
    ) -> Result<(), CorruptHistory> {
        let known = Resolved {
            tenant: tenant.clone(),
            run: record.run,
            resolution: resolved.resolution.clone(),
            by: resolved.by.clone(),
            at: self.time,
            events: resolved.events.clone(),
        };
        if self.resolutions.contains(resolved.case) {
            return Err(CorruptHistory::new(record, "the case is resolved already"));
        }
        self.resolutions.0.insert(resolved.case, known);
        self.resolutions.forget_oldest();
        Ok(())
    }

    pub(super) fn evolve_case_replayed(
        &mut self,
        record: &Record,
        replayed: &CaseReplayedRecord,
    ) -> Result<(), CorruptHistory> {
        match self.resolutions.0.get_mut(&replayed.case) {
            Some(known) if !known.events.is_empty() => {
                known.events = Vec::new();
                self.resolutions.forget_oldest();
                Ok(())
            }
            Some(_) | None => Err(CorruptHistory::new(record, "no event of it is to be replayed")),
        }
    }
}
