//! Review cases: what a person has to look at.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::{Decision, Partition};
use crate::digest::hash_parts;
use crate::effect::{CaseNotice, Effect, Outcome, bounded_outcome};
use crate::identity::{JournalTime, PartitionId, RunId, Tenant};
use crate::json::Json;
use crate::record::{CaseNotified, CaseNotifying, CaseOpened, EndReason, Record};

/// The rung of the escalation ladder where a person decides.
pub const TIER_PERSON: u8 = 3;

/// Nobody knew what to do with an event.
const UNMATCHED: &str = "unmatched";
/// A task of a run failed for good.
const RUN_FAILED: &str = "run_failed";
/// A run took longer than it may.
const RUN_TIMED_OUT: &str = "run_timed_out";
/// A run cannot be decided about.
pub(super) const RUN_QUARANTINED: &str = "run_quarantined";

/// Why a case is opened: every reason that a case can have.
pub const CASE_REASONS: [&str; 4] = [UNMATCHED, RUN_FAILED, RUN_TIMED_OUT, RUN_QUARANTINED];

/// The rungs of the escalation ladder on which cases are.
pub const CASE_TIERS: [u8; 1] = [TIER_PERSON];

const MINUTE_MS: u64 = 60_000;

/// A case that was opened and may still be told of, or added to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Whose case it is.
    pub tenant: Tenant,
    /// Rung of the escalation ladder.
    pub tier: u8,
    /// Stable reason code.
    pub reason: Arc<str>,
    /// The run concerned, if one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// For people.
    pub detail: Json,
    /// Attempts to tell of it.
    pub attempt: u32,
    /// Whether it has been told of.
    pub notified: bool,
}

impl Case {
    fn notice(&self, case: Uuid) -> CaseNotice {
        CaseNotice {
            case,
            attempt: self.attempt,
            tenant: self.tenant.clone(),
            tier: self.tier,
            reason: self.reason.clone(),
            run: self.run,
            detail: self.detail.clone(),
        }
    }
}

/// The `generation`th case for unmatched events of `kind` in the minute of `now`.
fn unmatched_case_id(
    partition: PartitionId,
    tenant: &Tenant,
    kind: &str,
    now: JournalTime,
    generation: u64,
) -> Uuid {
    let minute = (now.0 / MINUTE_MS).to_be_bytes();
    let like: [&[u8]; 4] = [b"unmatched", tenant.as_str().as_bytes(), kind.as_bytes(), &minute];
    match generation {
        0 => case_id(partition, &like),
        later => case_id(partition, &[like.as_slice(), &[&later.to_be_bytes()]].concat()),
    }
}

fn case_id(partition: PartitionId, parts: &[&[u8]]) -> Uuid {
    let hash = hash_parts(parts);
    let mut bytes = [0_u8; 16];
    let prefix = partition.0.to_be_bytes();
    for (byte, value) in bytes.iter_mut().zip(prefix.iter().chain(hash.iter())) {
        *byte = *value;
    }
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

impl Partition {
    /// The cases kept now.
    pub fn cases(&self) -> impl Iterator<Item = (&Uuid, &Case)> {
        self.cases.iter()
    }

    /// The case for unmatched events of `kind` now: one for all of a minute, so
    /// that a typo in a strategy does not open a hundred thousand. What comes
    /// after it was resolved is another one's.
    pub(super) fn unmatched_case(&self, tenant: &Tenant, kind: &str) -> Uuid {
        let case = |number| unmatched_case_id(self.id, tenant, kind, self.time, number);
        let mut generation = 0;
        while self.resolutions.contains(case(generation)) {
            generation += 1;
        }
        case(generation)
    }

    pub(super) fn open_unmatched_case(
        &mut self,
        case: Uuid,
        tenant: &Tenant,
        kind: &str,
        sample: &str,
        out: &mut Decision,
    ) {
        if self.cases.contains_key(&case) {
            return;
        }
        let detail = json!({ "type": kind, "sample": sample });
        self.open_case(case, tenant, None, UNMATCHED, &detail, out);
    }

    pub(super) fn open_run_case(
        &mut self,
        run: RunId,
        tenant: &Tenant,
        reason: &'static str,
        detail: &serde_json::Value,
        out: &mut Decision,
    ) {
        let case = case_id(self.id, &[b"run", run.as_uuid().as_bytes()]);
        self.open_case(case, tenant, Some(run), reason, detail, out);
    }

    fn open_case(
        &mut self,
        case: Uuid,
        tenant: &Tenant,
        run: Option<RunId>,
        reason: &str,
        detail: &serde_json::Value,
        out: &mut Decision,
    ) {
        let opened = CaseOpened {
            case,
            tier: TIER_PERSON,
            reason: reason.into(),
            detail: Json::from_value(detail),
        };
        let record = Record { run, ..Record::of_tenant(tenant, opened.into()) };
        self.emit(record.attempt(1), out);
        self.order_notice(case, out);
    }

    /// Orders another notice of a case whose handler was lost.
    pub(super) fn notify_again(&mut self, case: Uuid, out: &mut Decision) {
        let Some(known) = self.cases.get(&case).filter(|known| !known.notified) else { return };
        let record = Record {
            run: known.run,
            ..Record::of_tenant(&known.tenant, CaseNotifying { case }.into())
        };
        let attempt = known.attempt.saturating_add(1);
        self.emit(record.attempt(attempt), out);
        self.order_notice(case, out);
    }

    fn order_notice(&self, case: Uuid, out: &mut Decision) {
        if let Some(known) = self.cases.get(&case) {
            out.effects.push(Effect::HandleCase(known.notice(case)));
        }
    }

    pub(super) fn conclude_case(
        &mut self,
        case: Uuid,
        attempt: u32,
        outcome: &Outcome,
        out: &mut Decision,
    ) {
        let Some(known) = self.cases.get(&case).filter(|known| !known.notified) else { return };
        let body = CaseNotified { case, outcome: bounded_outcome(outcome) }.into();
        let record = Record { run: known.run, ..Record::of_tenant(&known.tenant, body) };
        self.emit(record.attempt(attempt), out);
    }

    /// A case is kept while its notice is outstanding, and for the minute in
    /// which like events are added to it. It is looked at again at full minutes
    /// only: the owner begins frames that it does not write, and a replay, which
    /// does not know of them, must forget the same cases.
    pub(super) fn expire_cases(&mut self) {
        while let Some((expires, case)) = self.case_expiry.first().copied() {
            if expires > self.time {
                return;
            }
            self.case_expiry.pop_first();
            match self.cases.get(&case) {
                Some(known) if !known.notified => {
                    self.case_expiry.insert((next_minute(self.time), case));
                }
                Some(_) | None => {
                    self.cases.remove(&case);
                }
            }
        }
    }

    pub(super) fn evolve_case_opened(
        &mut self,
        record: &Record,
        tenant: &Tenant,
        opened: &CaseOpened,
    ) {
        let known = Case {
            tenant: tenant.clone(),
            tier: opened.tier,
            reason: opened.reason.clone(),
            run: record.run,
            detail: opened.detail.clone(),
            attempt: 1,
            notified: false,
        };
        self.cases.insert(opened.case, known);
        self.case_expiry.insert((next_minute(self.time), opened.case));
    }
}

fn next_minute(now: JournalTime) -> JournalTime {
    JournalTime((now.0 / MINUTE_MS).saturating_add(1).saturating_mul(MINUTE_MS))
}

/// The reason code and details of the case for a run that ended badly; `None`
/// where nobody needs to look.
pub(super) fn run_case(reason: &EndReason) -> Option<(&'static str, serde_json::Value)> {
    match reason {
        EndReason::Failed { node, class, detail } => Some((
            RUN_FAILED,
            json!({ "node": &**node, "class": class.as_str(), "detail": detail }),
        )),
        EndReason::TimedOut => Some((RUN_TIMED_OUT, json!({}))),
        EndReason::Cancelled { .. } => None,
    }
}
