//! Beginning to own the partition, and ceasing to.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use fermata_core::effect::EffectKey;
use fermata_core::partition::{Limits, Report};
use fermata_partition::owner::{Input, Owner, OwnerConfig, SaltSource, StandDown};
use fermata_partition::snapshot::Snapshot;
use ractor::{ActorProcessingErr, ActorRef};
use rand::RngExt as _;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::snapshots::newest_snapshot;
use super::{AUDIT_LAG_FRAMES_MAX, Answer, Coordinator, CoordinatorMessage, CoordinatorState};
use crate::auditor::AuditorMessage;
use crate::node_runner::NodeRunnerMessage;

/// Pause before another attempt to own the partition; doubles up to the maximum.
const AGAIN_AFTER_FIRST: Duration = Duration::from_millis(50);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(5);

/// Pause before the lease is looked at again when it has run out.
const LEASE_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// How long the runner may take to answer; it does nothing that waits.
const ATTACH_LIMIT: Duration = Duration::from_secs(10);

/// Draws from the thread's cryptographically secure generator.
struct RandomSalts;

impl SaltSource for RandomSalts {
    fn salt(&mut self) -> [u8; 16] {
        rand::rng().random()
    }
}

impl Coordinator {
    /// Begins another attempt to own the partition: first the newest snapshot is
    /// read and its auditor begins anew, which takes as long as the broker does.
    pub(super) fn take(
        &self,
        myself: &ActorRef<CoordinatorMessage>,
        state: &mut CoordinatorState,
    ) -> Result<(), ActorProcessingErr> {
        let is_free = state.owner.is_none() && state.beginning.is_none();
        if !is_free || state.halted.is_some() || !state.draining.is_empty() {
            return Ok(());
        }
        if self.has_no_lease(state) {
            drop(myself.send_after(LEASE_AGAIN_AFTER, || CoordinatorMessage::Take));
            return Ok(());
        }
        state.generation += 1;
        state.audit_permits = Arc::new(Semaphore::new(AUDIT_LAG_FRAMES_MAX));
        let incarnation = Uuid::from_bytes(rand::rng().random());
        state.beginning = Some(incarnation);
        let (generation, writer) = (state.generation, incarnation.simple().to_string());
        let (ports, partition, stream) =
            (self.ports.clone(), self.partition, self.journal_stream.clone());
        let (auditor, unusable) = (state.auditor.clone(), state.snapshots.unusable());
        self.ask(myself, state, async move {
            let begin = async {
                let snapshot = newest_snapshot(&ports, partition, &stream, &unusable).await?;
                let behind = snapshot.as_ref().map(|snapshot| snapshot.audit().clone());
                let (signed, answer) = ractor::concurrency::oneshot();
                let signed = signed.into();
                let message = AuditorMessage::Begin { generation, writer, behind, signed };
                let gone = |_| "the auditor has ended".to_owned();
                auditor.cast(message).map_err(|_| "the auditor has ended".to_owned())?;
                let signed = answer.await.map_err(gone)??;
                Ok((signed, snapshot))
            };
            Answer::AuditBegun(begin.await)
        });
        Ok(())
    }

    /// Whoever was paused and has lost the partition must not take it back from
    /// its new owner; the lease keeper says whether the lease is renewed.
    fn has_no_lease(&self, state: &CoordinatorState) -> bool {
        self.ports.clock.now().monotonic_ms >= state.lease.until_ms()
    }

    /// The auditor has begun: an owner replays, or the partition is halted.
    pub(super) async fn begin(
        &self,
        myself: &ActorRef<CoordinatorMessage>,
        begun: Result<(u64, Option<Box<Snapshot>>), String>,
        state: &mut CoordinatorState,
    ) -> Result<(), ActorProcessingErr> {
        let Some(incarnation) = state.beginning.take() else { return Ok(()) };
        let (signed_records, snapshot) = match begun {
            Ok(begun) => begun,
            Err(reason) => {
                self.halt(reason, state);
                return Ok(());
            }
        };
        // The auditor may have waited long for the broker.
        if self.has_no_lease(state) {
            drop(myself.send_after(LEASE_AGAIN_AFTER, || CoordinatorMessage::Take));
            return Ok(());
        }
        state.snapshots.begin(snapshot.as_deref());
        let config = OwnerConfig {
            partition: self.partition,
            limits: Limits {
                partitions: self.ports.facts.partitions,
                keys_max: self.ports.facts.keys_max,
                ..Limits::default()
            },
            worker: self.ports.facts.worker.clone(),
            incarnation,
            salts: Box::new(RandomSalts),
            live: self.attach(myself, state).await?,
            set_aside: state.set_aside.clone(),
            signed_records,
            snapshot,
            snapshots: self.ports.facts.snapshots,
        };
        let mut outputs = Vec::new();
        let mut owner = Owner::new(config, &mut outputs);
        let now = self.ports.clock.now();
        owner.handle(Input::LeaseUntil(state.lease.until_ms()), now, &mut outputs);
        owner.handle_reports(state.carried.take(), now, &mut outputs);
        if state.settling.has_begun() {
            owner.handle(Input::Settle, now, &mut outputs);
        }
        state.owner = Some(owner);
        self.perform_all(myself, outputs, state).await
    }

    /// What is under way here, and what ended and is not committed.
    async fn attach(
        &self,
        myself: &ActorRef<CoordinatorMessage>,
        state: &CoordinatorState,
    ) -> Result<HashSet<(EffectKey, u32)>, ActorProcessingErr> {
        let lease = state.lease.view();
        let attach =
            |reply| NodeRunnerMessage::Attach(self.partition, myself.clone(), lease, reply);
        let mut live = self
            .runner
            .call(attach, Some(ATTACH_LIMIT))
            .await?
            .success_or(ActorProcessingErr::from("the node runner did not answer"))?;
        for report in state.carried.iter() {
            if let Report::Attempt(report) = report {
                let key = EffectKey::of_node(report.run, report.node.clone(), report.activation);
                live.insert((key, report.attempt));
            }
        }
        Ok(live)
    }

    pub(super) fn stand_down(
        &self,
        myself: &ActorRef<CoordinatorMessage>,
        reason: StandDown,
        state: &mut CoordinatorState,
    ) -> Result<(), ActorProcessingErr> {
        tracing::warn!(partition = %self.partition, ?reason, "the owner stands down");
        match reason {
            // It must not be tried again as it was.
            StandDown::Undecidable { what, cause } => {
                state.set_aside.insert(what, cause);
            }
            // Another owner orders again what has not begun here.
            StandDown::Fenced { .. } => {
                self.runner.cast(NodeRunnerMessage::Withdraw(self.partition, myself.get_id()))?;
            }
            StandDown::Truncated { .. } => {}
            StandDown::SnapshotUnusable { sequence, .. } => state.snapshots.set_aside(sequence),
        }
        state.end_owner();
        let pause = AGAIN_AFTER_FIRST.saturating_mul(1 << state.attempts_to_own.min(10));
        state.attempts_to_own = state.attempts_to_own.saturating_add(1);
        drop(myself.send_after(pause.min(AGAIN_AFTER_MAX), || CoordinatorMessage::Take));
        Ok(())
    }

    /// Stops the partition until a person looks. What was reported to it goes to
    /// its commands, where it is found when the partition goes on.
    pub(super) fn halt(&self, reason: String, state: &mut CoordinatorState) {
        tracing::error!(partition = %self.partition, reason, "the partition is halted; `fermata doctor` explains");
        state.halted = Some(reason);
        state.end_owner();
        state.detach();
    }
}
