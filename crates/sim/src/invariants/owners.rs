//! What must hold of each owner by itself.

use std::collections::BTreeSet;

use fermata_core::effect::Effect;
use fermata_core::identity::RunId;
use fermata_core::partition::Limits;
use fermata_partition::message::Now;
use fermata_partition::owner::{Cause, Output, Owner, Undecidable};

use super::Invariants;
use crate::broker::Stream;
use crate::trace::Broken;

impl Invariants {
    /// An owner sends a frame when the one before it is stored: it never has two
    /// appends in flight. The broker checks each fence by itself, so of several
    /// in flight one may fail and the rest pass; with one there is no rest.
    pub(crate) fn invariant_one_append_is_in_flight(
        writer: &str,
        journal: &Stream,
    ) -> Result<(), Broken> {
        let broken = |detail: String| Broken::new("invariant_one_append_is_in_flight", detail);
        let tag = writer.rsplit_once('.');
        let Some((owner, Ok(number))) = tag.map(|(owner, number)| (owner, number.parse::<u64>()))
        else {
            return Err(broken(format!("`{writer}` is no writer of a frame")));
        };
        let Some(before) = number.checked_sub(1) else { return Ok(()) };
        let before = format!("{owner}.{before}");
        let mut stored = journal.messages().iter().rev();
        match stored.any(|message| message.writer.as_ref() == Some(&before)) {
            true => Ok(()),
            false => Err(broken(format!("{writer} is sent and {before} is not stored"))),
        }
    }

    /// An owner that has ended wants nothing more: the answer would come to the
    /// next one.
    pub(crate) fn invariant_nothing_follows_the_end_of_an_owner(
        outputs: &[Output],
    ) -> Result<(), Broken> {
        let is_end = |output: &Output| matches!(output, Output::StandDown(_) | Output::Halt(_));
        match outputs.iter().position(is_end) {
            Some(end) if end + 1 < outputs.len() => {
                let detail = format!("{:?}", outputs.get(end..));
                Err(Broken::new("invariant_nothing_follows_the_end_of_an_owner", detail))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// What an owner wants to be woken for can be done when it wakes: told the
    /// time, it has done all that was due.
    pub(crate) fn invariant_an_owner_does_not_spin(owner: &Owner, now: Now) -> Result<(), Broken> {
        match owner.wakes_in_ms(now) {
            Some(0) => {
                let due = owner.partition().next_due();
                let (running, quiet) = (owner.partition().running(), owner.is_quiet());
                let detail = format!(
                    "at {now:?} it wants to be woken at once, for {due:?}; {running} run, quiet: {quiet}"
                );
                Err(Broken::new("invariant_an_owner_does_not_spin", detail))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// No attempt of a run is released behind the order to stop them.
    pub(crate) fn invariant_nothing_starts_after_its_abort(
        outputs: &[Output],
        aborted: &mut BTreeSet<RunId>,
    ) -> Result<(), Broken> {
        for output in outputs {
            if let Output::Effect(Effect::Abort(run)) = output {
                aborted.insert(*run);
            }
            let started = if let Output::Effect(Effect::Start(attempt)) = output {
                Some(attempt)
            } else if let Output::Effect(Effect::Enqueue(queued)) = output {
                Some(&queued.attempt)
            } else {
                None
            };
            if let Some(attempt) = started
                && aborted.contains(&attempt.run)
            {
                let detail = format!("{} starts and its run was aborted", attempt.key());
                return Err(Broken::new("invariant_nothing_starts_after_its_abort", detail));
            }
        }
        Ok(())
    }

    /// An owner that cannot decide something names what it was deciding, and has
    /// a reason: a fault of the program, or a frame that is too small.
    pub(crate) fn invariant_what_fails_is_blamed(
        &mut self,
        what: Undecidable,
        cause: &Cause,
        consumed: u64,
        limits: &Limits,
        panics: bool,
    ) -> Result<(), Broken> {
        let next = match what {
            Undecidable::Command { sequence, .. } | Undecidable::Message { sequence } => sequence,
            Undecidable::Run(_) => consumed + 1,
        };
        let real = match cause {
            Cause::Panicked(_) => panics,
            Cause::TooLarge { bytes } => *bytes > limits.frame_bytes_max,
        };
        if next != consumed + 1 || !real {
            let detail = format!("{what:?} is blamed behind message {consumed}: {cause}");
            return Err(Broken::new("invariant_what_fails_is_blamed", detail));
        }
        self.blamed.insert(what);
        Ok(())
    }

    /// Commands, messages and runs that an owner could not decide.
    pub(crate) fn undecidable(&self) -> u64 {
        self.blamed.len() as u64
    }

    /// Nothing is poisoned or quarantined that could be decided.
    pub(super) fn invariant_only_what_failed_is_set_aside(&self) -> Result<(), Broken> {
        let poisoned = self.reference.poisoned().map(|(sequence, index)| match index {
            Some(index) => Undecidable::Command { sequence: *sequence, index: *index },
            None => Undecidable::Message { sequence: *sequence },
        });
        let readable = poisoned.filter(|what| match what {
            Undecidable::Message { sequence } => !self.expected.garbage.contains(sequence),
            Undecidable::Command { .. } | Undecidable::Run(_) => true,
        });
        let quarantined = self.reference.quarantined().map(|run| Undecidable::Run(*run));
        match readable.chain(quarantined).find(|what| !self.blamed.contains(what)) {
            None => Ok(()),
            Some(what) => {
                let detail = format!("{what:?} is set aside and nobody failed at it");
                Err(Broken::new("invariant_only_what_failed_is_set_aside", detail))
            }
        }
    }
}
