//! LeaseKeeper: says which partitions this worker should own.
//!
//! Leases say who should own a partition; the fence says who does. A worker
//! shows that it lives by a lease of its own; for every partition the live
//! workers agree by rendezvous hashing (Thaler and Ravishankar, 1998) which of
//! them should have it. A worker never pre-empts another: it waits until the
//! present owner has given the partition back or its lease has run out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fermata_core::digest::hash_parts_128;
use fermata_core::identity::PartitionId;
use fermata_jetstream::leases::{
    Acquired, Held, Lease, LeaseError, Renewed, leaving_key, partition_key, worker_key,
};
use fermata_jetstream::topology::LEASE_TTL;
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::log_pace::LogPace;
use crate::ports::Ports;
use crate::standstill::{Place, Trouble};
use crate::supervisor::SupervisorMessage;

/// How often leases are renewed: twice may fail before one runs out.
pub const RENEW_INTERVAL: Duration = Duration::from_secs(5);

/// How often a worker looks for partitions that it should own.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// What a lease keeper is told.
#[derive(Debug)]
pub enum LeaseKeeperMessage {
    /// Look at the leases; sent by the keeper to itself.
    Look,
    /// The partition was given back: release its lease.
    Released(PartitionId),
    /// Give everything back and answer when the leases are released.
    Leave(ractor::RpcReplyPort<()>),
    /// Say that this worker is about to leave: the others take what it gives
    /// back. From here on it takes nothing, and keeps what it holds.
    Retire,
}

/// Behaviour and ports.
#[derive(Debug)]
pub struct LeaseKeeper {
    ports: Ports,
    supervisor: ActorRef<SupervisorMessage>,
    partitions: Vec<PartitionId>,
}

/// The leases that this worker holds.
#[derive(Debug, Default)]
pub struct LeaseKeeperState {
    worker: Option<Keeping>,
    held: BTreeMap<PartitionId, Keeping>,
    giving_back: BTreeSet<PartitionId>,
    /// Keys of workers that no worker wrote, as last seen.
    foreign: BTreeSet<String>,
    /// Whether this worker is about to leave.
    is_retiring: bool,
    leaving: Option<Keeping>,
    warnings: Warnings,
}

/// One line about leases that cannot be kept in each window: a look comes twice a second.
#[derive(Debug)]
struct Warnings(LogPace);

impl Default for Warnings {
    fn default() -> Self {
        Self(LogPace::new(1))
    }
}

#[derive(Debug)]
struct Keeping {
    lease: Lease,
    renewed_at_ms: u64,
}

impl LeaseKeeper {
    /// A keeper for all partitions of the engine.
    #[must_use]
    pub fn new(ports: Ports, supervisor: ActorRef<SupervisorMessage>) -> Self {
        let data = (0..ports.facts.partitions).map(PartitionId);
        let partitions = std::iter::once(PartitionId::CONTROL).chain(data).collect();
        Self { ports, supervisor, partitions }
    }
}

impl Actor for LeaseKeeper {
    type Msg = LeaseKeeperMessage;
    type State = LeaseKeeperState;
    type Arguments = ();

    async fn pre_start(
        &self,
        myself: ActorRef<LeaseKeeperMessage>,
        (): (),
    ) -> Result<LeaseKeeperState, ActorProcessingErr> {
        myself.cast(LeaseKeeperMessage::Look)?;
        self.come_back().await;
        Ok(LeaseKeeperState::default())
    }

    async fn handle(
        &self,
        myself: ActorRef<LeaseKeeperMessage>,
        message: LeaseKeeperMessage,
        state: &mut LeaseKeeperState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            LeaseKeeperMessage::Look => {
                let errors = self.look(state).await;
                if let Some(error) = errors.first()
                    && let Some(left_out) = state.warnings.0.line()
                {
                    let count = errors.len();
                    tracing::warn!(%error, count, left_out, "leases cannot be kept; it is tried again");
                }
                drop(myself.send_after(LOOK_INTERVAL, || LeaseKeeperMessage::Look));
            }
            LeaseKeeperMessage::Released(partition) => self.release(partition, state).await,
            LeaseKeeperMessage::Leave(reply) => {
                let held = state.held.keys().copied().collect::<Vec<_>>();
                for partition in held {
                    self.release(partition, state).await;
                }
                for held in [state.worker.take(), state.leaving.take()].into_iter().flatten() {
                    let _ = self.ports.leases.release(&held.lease).await;
                }
                let _ = reply.send(());
                myself.stop(None);
            }
            LeaseKeeperMessage::Retire => {
                state.is_retiring = true;
                if let Some(error) = self.look(state).await.first() {
                    tracing::warn!(%error, "the other workers were not told yet that this one leaves");
                }
            }
        }
        Ok(())
    }
}

impl LeaseKeeper {
    /// Keeps each lease for itself: what fails with one must not let others run
    /// out. Tells everything that failed.
    async fn look(&self, state: &mut LeaseKeeperState) -> Vec<LeaseError> {
        let mut errors = Vec::new();
        let key = worker_key(&self.ports.facts.worker);
        let kept = self.keep(&key, state.worker.take()).await;
        state.worker = kept.unwrap_or_else(|error| noted(error, &mut errors));
        if state.is_retiring {
            let leaving = leaving_key(&self.ports.facts.worker);
            let kept = self.keep(&leaving, state.leaving.take()).await;
            state.leaving = kept.unwrap_or_else(|error| noted(error, &mut errors));
            self.renew_all(state, &mut errors).await;
            return errors;
        }
        let found = match self.ports.leases.workers().await {
            Ok(found) => found,
            Err(error) => {
                // Who else lives is not known: what is held is kept.
                errors.push(error);
                self.renew_all(state, &mut errors).await;
                return errors;
            }
        };
        let Held { mut workers, foreign, leaving, .. } = found;
        workers.retain(|worker| !leaving.contains(worker));
        let foreign = foreign.into_iter().map(|lease| lease.key).collect::<BTreeSet<_>>();
        for key in foreign.difference(&state.foreign) {
            tracing::warn!(key, "no worker wrote this; it counts for nothing");
        }
        state.foreign = foreign;
        let worker = &*self.ports.facts.worker;
        if !workers.iter().any(|living| living == worker) {
            // It ran out, or somebody wrote over it: the others count without this worker.
            let kept = self.keep(&key, None).await;
            state.worker = kept.unwrap_or_else(|error| noted(error, &mut errors));
            workers.extend(state.worker.is_some().then(|| worker.to_owned()));
        }
        for partition in self.partitions.clone() {
            let should = preferred(&workers, partition) == Some(worker);
            let kept = match (state.held.remove(&partition), should) {
                (Some(held), true) => self.renew(partition, held, state).await,
                (Some(held), false) => {
                    self.give_back(partition, state);
                    self.renew(partition, held, state).await
                }
                (None, true) => self.acquire(partition, state).await,
                (None, false) => Ok(()),
            };
            errors.extend(kept.err());
        }
        errors
    }

    /// Takes back what an earlier life of this worker said when it left.
    async fn come_back(&self) {
        let key = leaving_key(&self.ports.facts.worker);
        let released = async {
            match self.ports.leases.get(&key).await? {
                Some(lease) => self.ports.leases.release(&lease).await,
                None => Ok(()),
            }
        };
        if let Err(error) = released.await {
            // It runs out by itself.
            tracing::debug!(%error, "an old notice of leaving stands");
        }
    }

    async fn renew_all(&self, state: &mut LeaseKeeperState, errors: &mut Vec<LeaseError>) {
        for partition in state.held.keys().copied().collect::<Vec<_>>() {
            if let Some(held) = state.held.remove(&partition) {
                errors.extend(self.renew(partition, held, state).await.err());
            }
        }
    }

    async fn acquire(
        &self,
        partition: PartitionId,
        state: &mut LeaseKeeperState,
    ) -> Result<(), LeaseError> {
        let key = partition_key(&partition.to_string());
        if let Some(held) = self.keep(&key, None).await? {
            let until_ms = held.until_ms();
            state.held.insert(partition, held);
            state.giving_back.remove(&partition);
            let _ = self.supervisor.cast(SupervisorMessage::Own(partition, until_ms));
        }
        Ok(())
    }

    async fn renew(
        &self,
        partition: PartitionId,
        held: Keeping,
        state: &mut LeaseKeeperState,
    ) -> Result<(), LeaseError> {
        let (key, lease, renewed_at_ms) =
            (held.lease.key.clone(), held.lease.clone(), held.renewed_at_ms);
        let renewed = match self.keep(&key, Some(held)).await {
            Ok(renewed) => renewed,
            Err(error) => {
                // Not knowing is no reason to stop before the lease has run out:
                // the fence keeps the journal whole all the same.
                let held = Keeping { lease, renewed_at_ms };
                if self.ports.clock.now().monotonic_ms < held.until_ms() {
                    state.held.insert(partition, held);
                } else {
                    let _ = self.supervisor.cast(SupervisorMessage::Disown(partition));
                }
                return Err(error);
            }
        };
        if let Some(held) = renewed {
            let until = SupervisorMessage::LeaseUntil(partition, held.until_ms());
            let _ = self.supervisor.cast(until);
            state.held.insert(partition, held);
        } else {
            let _ = self.supervisor.cast(SupervisorMessage::Disown(partition));
        }
        Ok(())
    }

    fn give_back(&self, partition: PartitionId, state: &mut LeaseKeeperState) {
        if state.giving_back.insert(partition) {
            let _ = self.supervisor.cast(SupervisorMessage::GiveBack(partition));
        }
    }

    async fn release(&self, partition: PartitionId, state: &mut LeaseKeeperState) {
        state.giving_back.remove(&partition);
        if let Some(held) = state.held.remove(&partition) {
            // One that cannot be released runs out by itself.
            if let Err(error) = self.ports.leases.release(&held.lease).await {
                tracing::debug!(%partition, %error, "a lease was not released");
            }
        }
    }

    /// Takes or extends one lease; nothing when another worker holds it.
    async fn keep(&self, key: &str, held: Option<Keeping>) -> Result<Option<Keeping>, LeaseError> {
        let now_ms = self.ports.clock.now().monotonic_ms;
        let is_fresh = held.as_ref().is_some_and(|held| held.is_fresh(now_ms));
        let kept = self.keep_since(key, held, now_ms).await;
        match &kept {
            Err(_) => {
                let (place, trouble) = (Place::Leases, Trouble::NoAnswer);
                let answered_ms = self.ports.clock.now().monotonic_ms;
                self.ports.standstills.tried_again(place, trouble, now_ms, answered_ms);
            }
            // One that another holds was not stored, and a fresh one was not asked for.
            Ok(Some(_)) if !is_fresh => self.ports.standstills.ended(Place::Leases),
            Ok(_) => {}
        }
        kept
    }

    async fn keep_since(
        &self,
        key: &str,
        held: Option<Keeping>,
        now_ms: u64,
    ) -> Result<Option<Keeping>, LeaseError> {
        if let Some(held) = held {
            if held.is_fresh(now_ms) {
                return Ok(Some(held));
            }
            if let Renewed::Renewed(lease) = self.ports.leases.renew(&held.lease).await? {
                return Ok(Some(Keeping { lease, renewed_at_ms: now_ms }));
            }
        }
        self.acquire_key(key, now_ms).await
    }

    async fn acquire_key(&self, key: &str, now_ms: u64) -> Result<Option<Keeping>, LeaseError> {
        let holder = self.ports.facts.worker.as_bytes().to_vec();
        match self.ports.leases.acquire(key, holder.clone().into()).await? {
            Acquired::Granted(lease) => Ok(Some(Keeping { lease, renewed_at_ms: now_ms })),
            // From an earlier life of this worker: it takes its leases back at once.
            Acquired::HeldBy(lease) if lease.holder == holder => self.renew_as(lease, now_ms).await,
            // Nobody's: bytes that no worker wrote would keep the partition without
            // owner until they expire, and for ever where they are written again.
            Acquired::HeldBy(lease) if lease.worker().is_none() => {
                tracing::warn!(key, "a lease names no worker; it is taken over");
                self.renew_as(Lease { holder: holder.into(), ..lease }, now_ms).await
            }
            Acquired::HeldBy(_) => Ok(None),
        }
    }

    async fn renew_as(&self, lease: Lease, now_ms: u64) -> Result<Option<Keeping>, LeaseError> {
        match self.ports.leases.renew(&lease).await? {
            Renewed::Renewed(lease) => Ok(Some(Keeping { lease, renewed_at_ms: now_ms })),
            Renewed::Lost => Ok(None),
        }
    }
}

/// Nothing is held that could not be kept; the error is told with the others.
fn noted(error: LeaseError, errors: &mut Vec<LeaseError>) -> Option<Keeping> {
    errors.push(error);
    None
}

impl Keeping {
    /// Whether it need not be renewed yet.
    fn is_fresh(&self, now_ms: u64) -> bool {
        let renew_ms = u64::try_from(RENEW_INTERVAL.as_millis()).unwrap_or(u64::MAX);
        now_ms < self.renewed_at_ms + renew_ms
    }

    /// Counted from before the request was sent: the broker's count starts later.
    fn until_ms(&self) -> u64 {
        self.renewed_at_ms + u64::try_from(LEASE_TTL.as_millis()).unwrap_or(u64::MAX)
    }
}

/// The worker that should own `partition`.
#[must_use]
pub fn preferred(workers: &[String], partition: PartitionId) -> Option<&str> {
    let weight = |worker: &&String| {
        hash_parts_128(&[b"rendezvous", worker.as_bytes(), &partition.0.to_be_bytes()])
    };
    workers.iter().max_by_key(weight).map(String::as_str)
}
