//! The intake stages of one process. Stages that run here side by side are
//! fused: they pass frames in memory.
//!
//! A stage takes from its stream even where the stage before it runs here too:
//! what a worker that runs the stages apart has left there is decided by whoever
//! is there.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use fermata_jetstream::SharedConsumerOptions;
use fermata_jetstream::topology::{ADMITTED_STREAM, MATCHED_STREAM};
use fermata_wire::subjects::{ADMITTED, MATCHED};
use futures_util::future::join_all;
use ractor::{ActorCell, ActorId, SpawnErr};
use tokio::task::JoinHandle;

use crate::builder::{BUILDER_CONSUMER, Builder};
use crate::engine::Role;
use crate::floor::Floor;
use crate::hop::Hop;
use crate::lanes::{Draining, LaneTurns};
use crate::listener::Listener;
use crate::matcher::{MATCHER_CONSUMER, Matcher};
use crate::metrics::Metrics;
use crate::ports::Ports;
use crate::source::Source;
use crate::stage::spawn_stage;

/// Running stages; they stop when this is dropped.
#[derive(Debug, Default)]
pub struct Intake {
    /// In the order in which events pass through them.
    stages: Vec<ActorCell>,
    sources: Vec<Source>,
    draining: Option<Draining>,
    floor: Option<JoinHandle<()>>,
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.stages.iter().for_each(|stage| stage.stop(None));
        self.floor.iter().for_each(JoinHandle::abort);
    }
}

impl Intake {
    /// Starts the stages that `roles` names.
    ///
    /// # Errors
    ///
    /// When the supervisor is stopping.
    ///
    /// # Cancel safety
    ///
    /// What was started stops.
    pub async fn start(
        ports: &Ports,
        roles: &BTreeSet<Role>,
        metrics: &Metrics,
        supervisor: &ActorCell,
    ) -> Result<Self, SpawnErr> {
        let mut intake = Self::default();
        let to_stream = |subject: &str| (ports.publisher.clone(), subject.into());
        let supervisor = || Some(supervisor.clone());
        let matched = if roles.contains(&Role::Builder) {
            let floor = Floor::default();
            let builder = Builder::new(ports.clone(), floor.clone(), metrics.clone());
            let builder = spawn_stage(builder, supervisor()).await?;
            intake.stages.insert(0, builder.get_cell());
            let options = SharedConsumerOptions::new(MATCHED_STREAM, BUILDER_CONSUMER);
            intake.sources.push(Source::start(ports.clone(), options, builder.clone()));
            intake.floor = Some(tokio::spawn(floor.follow(ports.clone())));
            Hop::Memory(builder)
        } else {
            let (publisher, subject) = to_stream(MATCHED);
            Hop::Stream { publisher, subject }
        };
        let admitted = if roles.contains(&Role::Matcher) {
            let matcher = Matcher::new(ports.clone(), matched);
            let matcher = spawn_stage(matcher, supervisor()).await?;
            intake.stages.insert(0, matcher.get_cell());
            let options = SharedConsumerOptions::new(ADMITTED_STREAM, MATCHER_CONSUMER);
            intake.sources.push(Source::start(ports.clone(), options, matcher.clone()));
            let turns = LaneTurns::new(ports.lanes.clone(), Hop::Memory(matcher.clone()));
            let turns = spawn_stage(turns, supervisor()).await?;
            intake.stages.insert(0, turns.get_cell());
            intake.draining = Some(Draining::start(ports.clone(), turns));
            Hop::Memory(matcher)
        } else {
            let (publisher, subject) = to_stream(ADMITTED);
            Hop::Stream { publisher, subject }
        };
        if roles.contains(&Role::Listener) {
            let listener = Listener::new(ports.clone(), admitted, metrics.clone());
            let listener = spawn_stage(listener, supervisor()).await?;
            intake.stages.insert(0, listener.get_cell());
            intake.sources.push(Source::start(ports.clone(), Listener::consumer(), listener));
        }
        Ok(intake)
    }

    /// The actors of the stages.
    pub fn actors(&self) -> impl Iterator<Item = ActorId> {
        self.stages.iter().map(ActorCell::get_id)
    }

    /// Takes nothing more, waits until what was taken is settled, and ends; all within the limit.
    ///
    /// # Cancel safety
    ///
    /// As if the process ended: what is not settled comes again.
    pub async fn drain(mut self, limit: Duration) {
        let until = Instant::now() + limit;
        let sources = std::mem::take(&mut self.sources).into_iter();
        let sources = join_all(sources.map(|source| source.drain(limit)));
        let draining = self.draining.take();
        let lanes = async {
            if let Some(draining) = draining {
                draining.drain(limit).await;
            }
        };
        tokio::join!(sources, lanes);
        for stage in std::mem::take(&mut self.stages) {
            let left = until.saturating_duration_since(Instant::now());
            if stage.drain_and_wait(Some(left)).await.is_err() {
                stage.stop(None);
            }
        }
    }
}
