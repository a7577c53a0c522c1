//! The state of a partition as a snapshot holds it.
//!
//! [`Partition::freeze`] takes a copy that is mostly pointers, so that the owner
//! goes on at once; [`FrozenPartition::image`] makes of it what is written, in
//! its own time and on any thread; [`Partition::restore`] makes a state of that.
//! The law is that a restored state is the state, and goes on like it.
//!
//! Keys of hours that are over may be left out of an image and written apart,
//! once: see [`super::ClosedHour`].
//!
//! # Adding to the state
//!
//! `freeze` and [`Run::image`] take their values apart without `..`: a new field
//! does not compile until somebody says here what a snapshot holds of it. Three
//! answers are right:
//!
//! - nothing, because it follows from the rest, as timers do: `restore` makes it
//!   again, and [`Partition::summary`] holds it against what was;
//! - nothing, because it is not part of the fold, as plans are;
//! - a field of [`PartitionImage`] (or of `RunImage`, or a state of `Node`) with
//!   `#[serde(default, skip_serializing_if = …)]`, absent when there is nothing.
//!
//! The version is not raised by that. A program that does not know the field
//! refuses a snapshot that has it, rather than to lose what it says; one that
//! has nothing to say in it is read by all. Only a field that changes its
//! meaning or goes raises the version.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use super::correlation::CorrelationsImage;
use super::keys::{FrozenKeys, KeyHour};
use super::runs::FrozenRuns;
use super::timers::{Timer, Timers};
use super::{
    Case, Correlations, Definitions, HighWaters, KeyWindow, Limits, Outbox, Partition, Resolutions,
    SeenPositions,
};
use crate::digest::Digest;
use crate::effect::{DeadCommand, DeadEvent};
use crate::identity::{JournalTime, PartitionId, RunId, SourcePosition, StreamPosition};
use crate::plan::Executable;
use crate::run::{NotThePlan, Phase, Run, RunImage};

/// A copy of a partition's state, taken without making it wait: runs and full
/// chunks of keys are shared with it.
#[derive(Debug, Clone)]
pub struct FrozenPartition {
    pub(super) id: PartitionId,
    pub(super) time: JournalTime,
    epoch: u64,
    position: StreamPosition,
    floor: u64,
    seen: Vec<(u64, u32, u64)>,
    pub(super) keys: FrozenKeys<SourcePosition>,
    pub(super) commands: FrozenKeys<()>,
    runs: FrozenRuns,
    cases: Vec<(Uuid, Case)>,
    case_expiry: BTreeSet<(JournalTime, Uuid)>,
    unfiled: Vec<DeadCommand>,
    definitions: Definitions,
    outbox: Outbox,
    high_waters: HighWaters,
    correlations: Correlations,
    resolutions: Resolutions,
    dead_events: Vec<DeadEvent>,
}

/// The state of a partition as a snapshot holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartitionImage {
    /// The partition.
    pub partition: PartitionId,
    pub(super) time: JournalTime,
    epoch: u64,
    position: StreamPosition,
    floor: u64,
    /// Sequence, number of the word of 64 places, bits.
    seen: Vec<(u64, u32, u64)>,
    pub(super) keys: Vec<KeyHour<SourcePosition>>,
    pub(super) commands: Vec<KeyHour<()>>,
    runs: Vec<RunImage>,
    cases: Vec<CaseImage>,
    unfiled: Vec<DeadCommand>,
    definitions: Definitions,
    #[serde(default, skip_serializing_if = "Outbox::is_unused")]
    outbox: Outbox,
    #[serde(default, skip_serializing_if = "HighWaters::is_empty")]
    high_waters: HighWaters,
    #[serde(default, skip_serializing_if = "CorrelationsImage::is_unused")]
    correlations: CorrelationsImage,
    #[serde(default, skip_serializing_if = "Resolutions::is_empty")]
    resolutions: Resolutions,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    dead_events: Vec<DeadEvent>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseImage {
    id: Uuid,
    case: Case,
    /// When it is looked at next.
    expires: Vec<JournalTime>,
}

/// Why an image is no state.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// A run names a plan that is not at hand.
    #[error("plan {0}, which a run of the snapshot needs, is not at hand")]
    PlanMissing(Digest),
    /// A run is none of its plan.
    #[error(transparent)]
    NotThePlan(#[from] NotThePlan),
}

impl FrozenPartition {
    /// The partition.
    #[must_use]
    pub fn id(&self) -> PartitionId {
        self.id
    }

    /// The command position consumed so far.
    #[must_use]
    pub fn position(&self) -> StreamPosition {
        self.position
    }

    /// What is written of it. Takes as long as there is state: not for the
    /// thread that decides.
    #[must_use]
    pub fn image(&self) -> PartitionImage {
        self.image_of_hours(|_| true)
    }

    /// The same without the keys of closed hours, of which [`Self::closed_hour`]
    /// tells: [`PartitionImage::add_hours`] adds them again.
    #[must_use]
    pub fn open_image(&self) -> PartitionImage {
        let open = self.open_hour();
        self.image_of_hours(|hour| hour >= open)
    }

    fn image_of_hours(&self, wanted: impl Fn(u64) -> bool) -> PartitionImage {
        let mut runs = self.runs.iter().map(|(id, run)| run.image(*id)).collect::<Vec<_>>();
        runs.sort_unstable_by_key(|run| run.id);
        let mut expires: HashMap<Uuid, Vec<JournalTime>> = HashMap::new();
        for (at, case) in &self.case_expiry {
            expires.entry(*case).or_default().push(*at);
        }
        let cases = self.cases.iter().map(|(id, case)| CaseImage {
            id: *id,
            case: case.clone(),
            expires: expires.remove(id).unwrap_or_default(),
        });
        PartitionImage {
            partition: self.id,
            time: self.time,
            epoch: self.epoch,
            position: self.position,
            floor: self.floor,
            seen: self.seen.clone(),
            keys: self.keys.of_hours(&wanted),
            commands: self.commands.of_hours(&wanted),
            runs,
            cases: cases.collect(),
            unfiled: self.unfiled.clone(),
            definitions: self.definitions.clone(),
            outbox: self.outbox.clone(),
            high_waters: self.high_waters.clone(),
            correlations: self.correlations.image(),
            resolutions: self.resolutions.clone(),
            dead_events: self.dead_events.clone(),
        }
    }
}

impl PartitionImage {
    /// The plans that its runs need, each once.
    #[must_use]
    pub fn plans(&self) -> BTreeSet<Digest> {
        self.runs.iter().map(|run| run.plan).collect()
    }

    /// The command position consumed so far.
    #[must_use]
    pub fn position(&self) -> StreamPosition {
        self.position
    }

    /// Open runs.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.runs.len()
    }
}

impl Partition {
    /// A copy of the state, see [`FrozenPartition`]. Takes a pointer per shard of
    /// the runs and of what waits under correlation keys, per chunk of keys, per
    /// command that is not delivered and per kept signal, and a copy of the rest:
    /// cases and positions above the floor are never much.
    #[must_use]
    pub fn freeze(&self) -> FrozenPartition {
        // Without `..`: see the head of this file.
        let Self {
            id,
            limits: _,
            time,
            epoch,
            position,
            floor,
            seen,
            keys,
            commands,
            runs,
            timers: _,
            cases,
            case_expiry,
            unfiled,
            definitions,
            running: _,
            plans: _,
            held_back: _,
            outbox,
            high_waters,
            correlations,
            outbox_held: _,
            // Counted again from the runs.
            queued_in: _,
            queue_held: _,
            settling: _,
            resolutions,
            dead_events,
        } = self;
        FrozenPartition {
            id: *id,
            time: *time,
            epoch: *epoch,
            position: *position,
            floor: *floor,
            seen: seen.freeze(),
            keys: keys.freeze(),
            commands: commands.freeze(),
            runs: runs.freeze(),
            cases: cases.iter().map(|(id, case)| (*id, case.clone())).collect(),
            case_expiry: case_expiry.clone(),
            unfiled: unfiled.values().cloned().collect(),
            definitions: definitions.clone(),
            outbox: outbox.clone(),
            high_waters: high_waters.clone(),
            correlations: correlations.clone(),
            resolutions: resolutions.clone(),
            dead_events: dead_events.values().cloned().collect(),
        }
    }

    /// The state of which `image` was made, under `limits`, with the `plans`
    /// that its runs need.
    ///
    /// # Errors
    ///
    /// [`RestoreError`] if a plan is not at hand, or not that of its run.
    pub fn restore(
        image: PartitionImage,
        limits: Limits,
        plans: HashMap<Digest, Arc<Executable>>,
    ) -> Result<Self, RestoreError> {
        let mut keys = KeyWindow::new(limits.key_window_ms, limits.keys_max);
        keys.restore(image.keys);
        let mut commands = KeyWindow::new(limits.key_window_ms, limits.keys_max);
        commands.restore(image.commands);
        let mut state = Self {
            time: image.time,
            epoch: image.epoch,
            position: image.position,
            floor: image.floor,
            seen: SeenPositions::restore(image.floor, &image.seen),
            keys,
            commands,
            unfiled: image
                .unfiled
                .into_iter()
                .map(|dead| ((dead.sequence, dead.index), dead))
                .collect(),
            definitions: image.definitions,
            outbox: image.outbox,
            high_waters: image.high_waters,
            correlations: Correlations::restore(image.correlations),
            resolutions: image.resolutions,
            dead_events: image.dead_events.into_iter().map(|dead| (dead.source, dead)).collect(),
            plans,
            ..Self::new(image.partition, limits)
        };
        for CaseImage { id, case, expires } in image.cases {
            state.case_expiry.extend(expires.into_iter().map(|at| (at, id)));
            state.cases.insert(id, case);
        }
        for run in image.runs {
            let plan = state.plans.get(&run.plan).cloned();
            let plan = plan.ok_or(RestoreError::PlanMissing(run.plan))?;
            let (id, run) = (run.id, Run::restore(run, plan)?);
            state.running = state.running.saturating_add(run.running());
            state.queued_in.enter_all(&run);
            state.timers.remember(id, &run);
            state.runs.insert(id, run);
        }
        Ok(state)
    }

    /// Keys of events that it remembers.
    #[must_use]
    pub fn keys_kept(&self) -> usize {
        self.keys.len()
    }

    /// Ids of commands that it remembers.
    #[must_use]
    pub fn command_ids_kept(&self) -> usize {
        self.commands.len()
    }

    /// The plans that are at hand.
    #[must_use]
    pub fn plans(&self) -> &HashMap<Digest, Arc<Executable>> {
        &self.plans
    }
}

impl Timers {
    /// The timers of a run that is open.
    fn remember(&mut self, id: RunId, run: &Run) {
        if *run.phase() != Phase::Open {
            return;
        }
        self.insert(run.deadline, Timer::Deadline(id));
        for (index, _) in run.nodes() {
            if let Some((due, timer)) = Timer::of_node(id, run, index) {
                self.insert(due, timer);
            }
        }
    }
}
