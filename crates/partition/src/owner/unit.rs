//! One decision: guarded, measured, and named when it fails.
//!
//! A decision is what must stand in one frame: a message of commands with its
//! position, an outcome and what follows from it, one timer, one run that goes
//! on. What fails is blamed on what the decision was about, never on what
//! happens to stand in the frame beside it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use fermata_core::partition::{Decision, Partition};
use fermata_wire::WireError;
use fermata_wire::journal::FrameBuilder;

use super::{Cause, HaltReason, OpenFrame, Output, Owner, SaltSource, StandDown, Undecidable};
use crate::message::Now;

/// Where the open frame stood before a decision.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    pub(super) records: usize,
    pub(super) effects: usize,
    pub(super) reports: usize,
    bytes: usize,
    /// Index of the last command to another partition.
    pub(super) outbox_last: u64,
}

impl Owner {
    /// Decides about `about`, or about nothing that could be set aside, into a
    /// frame that has room for it. Returns whether it could be decided; if not,
    /// this owner has ended.
    pub(super) fn decide(
        &mut self,
        about: Option<Undecidable>,
        now: Now,
        outputs: &mut Vec<Output>,
        decide: impl FnOnce(&mut Partition, &mut Decision),
    ) -> bool {
        let mark = self.mark(now);
        self.decide_part(about, outputs, decide) && self.fit(about, mark, outputs)
    }

    /// Opens a frame for a decision, and notes where it stands.
    pub(super) fn mark(&mut self, now: Now) -> Mark {
        self.begin_frame(now);
        Mark {
            records: self.builder.len(),
            effects: self.decision.effects.len(),
            reports: self.open_reports.len(),
            bytes: self.builder.bytes(),
            outbox_last: self.fold.partition().outbox().last(),
        }
    }

    /// Decides a part of a decision, and encodes it.
    pub(super) fn decide_part(
        &mut self,
        about: Option<Undecidable>,
        outputs: &mut Vec<Output>,
        decide: impl FnOnce(&mut Partition, &mut Decision),
    ) -> bool {
        let Self { fold, decision, builder, open, config, .. } = self;
        let Some(open) = *open else { return false };
        let decided = guarded(|| {
            decide(fold.partition_mut(), decision);
            encode(decision, builder, open, &mut *config.salts)
        });
        match decided {
            Ok(()) => true,
            Err(cause) => self.fail(about, cause, outputs),
        }
    }

    /// Sees to it that a decision fits its frame. What the frame held before it
    /// becomes a frame of its own if need be.
    pub(super) fn fit(
        &mut self,
        about: Option<Undecidable>,
        mark: Mark,
        outputs: &mut Vec<Output>,
    ) -> bool {
        let bytes = self.builder.bytes() - mark.bytes;
        let most = self.config.limits.frame_bytes_max;
        if bytes > most {
            return self.fail(about, Cause::TooLarge { bytes }, outputs);
        }
        if self.builder.bytes() > most {
            self.split(mark, outputs);
        }
        true
    }

    fn fail(
        &mut self,
        about: Option<Undecidable>,
        cause: Cause,
        outputs: &mut Vec<Output>,
    ) -> bool {
        match about {
            Some(what) => self.stand_down(StandDown::Undecidable { what, cause }, outputs),
            None => self.halt(HaltReason::Failed { during: "a decision", cause }, outputs),
        }
        false
    }
}

/// Runs `work`, and answers with the cause if it fails or panics. After a panic
/// the half-changed state is dropped with its owner, so nobody sees it.
pub(super) fn guarded<T, E: std::error::Error>(
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, Cause> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Cause::Panicked(error.to_string())),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(Cause::Panicked(text.unwrap_or_else(|| "no message".to_owned())))
        }
    }
}

fn encode(
    decision: &mut Decision,
    builder: &mut FrameBuilder,
    open: OpenFrame,
    salts: &mut dyn SaltSource,
) -> Result<(), WireError> {
    for record in decision.records.drain(..) {
        let index = open.first_record_index + builder.len() as u64;
        builder.push(&record, index, open.time, salts.salt())?;
    }
    Ok(())
}
