//! Plans that are not at hand.

use std::collections::HashMap;
use std::sync::Arc;

use fermata_core::digest::Digest;
use fermata_core::plan::Executable;

use super::{HaltReason, Output, Owner, Phase};
use crate::message::Now;

/// How often a plan that is not found is asked for before that is believed: a
/// read may come from a server that is behind.
pub const PLAN_ASKED_MAX: u32 = 4;

/// Least pause before it is asked for again, milliseconds.
pub const PLAN_AGAIN_MS: u64 = 200;

/// How long a plan that was not found counts as missing without being asked for
/// again, milliseconds.
pub const PLAN_MISSING_MS: u64 = 60_000;

/// What is asked for, and what was not found.
#[derive(Debug, Default)]
pub(super) struct WantedPlans {
    awaited: Option<Awaited>,
    /// Until when, by the monotonic clock.
    missing: HashMap<Digest, u64>,
}

#[derive(Debug, Clone, Copy)]
struct Awaited {
    digest: Digest,
    asked: u32,
    again_ms: Option<u64>,
}

impl WantedPlans {
    /// Whether an answer is awaited: until it comes, nothing that needs plans
    /// goes on.
    pub(super) fn is_awaited(&self) -> bool {
        self.awaited.is_some()
    }

    /// Whether the plan was looked for and not found a short while ago.
    pub(super) fn is_missing(&self, digest: &Digest, now: Now) -> bool {
        self.missing.get(digest).is_some_and(|until_ms| now.monotonic_ms < *until_ms)
    }
}

impl Owner {
    /// Asks for a plan; nothing else is asked for until it is answered.
    pub(super) fn fetch(&mut self, digest: Digest, outputs: &mut Vec<Output>) {
        if self.plans.awaited.is_none_or(|awaited| awaited.digest != digest) {
            self.plans.awaited = Some(Awaited { digest, asked: 1, again_ms: None });
            outputs.push(Output::FetchPlan(digest));
        }
    }

    pub(super) fn ask_for_plan_again(&mut self, now: Now, outputs: &mut Vec<Output>) {
        let ended = self.phase == Phase::Ended;
        let Some(awaited) = self.plans.awaited.as_mut().filter(|_| !ended) else { return };
        if awaited.again_ms.is_some_and(|again_ms| again_ms <= now.monotonic_ms) {
            awaited.again_ms = None;
            awaited.asked += 1;
            outputs.push(Output::FetchPlan(awaited.digest));
        }
    }

    pub(super) fn take_plan(
        &mut self,
        digest: Digest,
        plan: Option<Arc<Executable>>,
        now: Now,
        outputs: &mut Vec<Output>,
    ) {
        let found = plan.is_some();
        if let Some(plan) = plan {
            self.fold.add_plan(digest, plan);
        }
        let Some(awaited) = self.plans.awaited.as_mut().filter(|awaited| awaited.digest == digest)
        else {
            return;
        };
        if !found && awaited.asked < PLAN_ASKED_MAX {
            awaited.again_ms = Some(now.monotonic_ms.saturating_add(PLAN_AGAIN_MS));
            return;
        }
        self.plans.awaited = None;
        if !found {
            let until_ms = now.monotonic_ms.saturating_add(PLAN_MISSING_MS);
            self.plans.missing.retain(|_, until_ms| *until_ms > now.monotonic_ms);
            self.plans.missing.insert(digest, until_ms);
        }
        if self.phase == Phase::Replaying {
            if !found {
                return self.halt(HaltReason::PlanMissing(digest), outputs);
            }
            self.replay(now, outputs);
        }
    }
}
