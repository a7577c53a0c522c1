//! LeaseKeeper: says which partitions this worker should own.
//!
//! Leases say who should own a partition; the fence says who does. A worker
//! shows that it lives by a lease of its own; for every partition the live
//! workers agree by rendezvous hashing (Thaler and Ravishankar, 1998) which of
//! them should have it. A worker never pre-empts another: it waits until the
//! present owner has given the partition back or its lease has run out.

use std::collections::BTreeMap;
use std::time::Duration;

use fermata_core::digest::hash_parts_128;
use fermata_core::identity::PartitionId;
use fermata_jetstream::leases::{Acquired, Lease, LeaseError, Renewed, partition_key, worker_key};
use fermata_jetstream::topology::LEASE_TTL;
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::ports::Ports;
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
    Leave(Vec<PartitionId>, ractor::RpcReplyPort<()>),
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
    worker: Option<Held>,
    held: BTreeMap<PartitionId, Held>,
    giving_back: Vec<PartitionId>,
}

#[derive(Debug)]
struct Held {
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
                if let Err(error) = self.look(state).await {
                    tracing::warn!(%error, "leases cannot be kept; it is tried again");
                }
                drop(myself.send_after(LOOK_INTERVAL, || LeaseKeeperMessage::Look));
            }
            LeaseKeeperMessage::Released(partition) => self.release(partition, state).await,
            LeaseKeeperMessage::Leave(partitions, reply) => {
                for partition in partitions {
                    self.release(partition, state).await;
                }
                if let Some(held) = state.worker.take() {
                    let _ = self.ports.leases.release(&held.lease).await;
                }
                let _ = reply.send(());
                myself.stop(None);
            }
        }
        Ok(())
    }
}

impl LeaseKeeper {
    async fn look(&self, state: &mut LeaseKeeperState) -> Result<(), LeaseError> {
        let key = worker_key(&self.ports.facts.worker);
        state.worker = self.keep(&key, state.worker.take()).await?;
        let workers = self.ports.leases.live_workers().await?;
        for partition in self.partitions.clone() {
            let should = preferred(&workers, partition) == Some(&*self.ports.facts.worker);
            match (state.held.remove(&partition), should) {
                (Some(held), true) => self.renew(partition, held, state).await?,
                (Some(held), false) => {
                    self.give_back(partition, state)?;
                    self.renew(partition, held, state).await?;
                }
                (None, true) => self.acquire(partition, state).await?,
                (None, false) => {}
            }
        }
        Ok(())
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
            // A lease that was lost while it was given back needs that no more.
            state.giving_back.retain(|giving_back| *giving_back != partition);
            let _ = self.supervisor.cast(SupervisorMessage::Own(partition, until_ms));
        }
        Ok(())
    }

    async fn renew(
        &self,
        partition: PartitionId,
        held: Held,
        state: &mut LeaseKeeperState,
    ) -> Result<(), LeaseError> {
        let (key, lease, renewed_at_ms) =
            (held.lease.key.clone(), held.lease.clone(), held.renewed_at_ms);
        let renewed = match self.keep(&key, Some(held)).await {
            Ok(renewed) => renewed,
            Err(error) => {
                // Not knowing is no reason to stop before the lease has run out:
                // the fence keeps the journal whole all the same.
                let held = Held { lease, renewed_at_ms };
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

    fn give_back(
        &self,
        partition: PartitionId,
        state: &mut LeaseKeeperState,
    ) -> Result<(), LeaseError> {
        if !state.giving_back.contains(&partition) {
            state.giving_back.push(partition);
            let _ = self.supervisor.cast(SupervisorMessage::GiveBack(partition));
        }
        Ok(())
    }

    async fn release(&self, partition: PartitionId, state: &mut LeaseKeeperState) {
        state.giving_back.retain(|giving_back| *giving_back != partition);
        if let Some(held) = state.held.remove(&partition) {
            // One that cannot be released runs out by itself.
            if let Err(error) = self.ports.leases.release(&held.lease).await {
                tracing::debug!(%partition, %error, "a lease was not released");
            }
        }
    }

    /// Takes or extends one lease; nothing when another worker holds it.
    async fn keep(&self, key: &str, held: Option<Held>) -> Result<Option<Held>, LeaseError> {
        let now_ms = self.ports.clock.now().monotonic_ms;
        let renew_ms = u64::try_from(RENEW_INTERVAL.as_millis()).unwrap_or(u64::MAX);
        if let Some(held) = held {
            if now_ms < held.renewed_at_ms + renew_ms {
                return Ok(Some(held));
            }
            if let Renewed::Renewed(lease) = self.ports.leases.renew(&held.lease).await? {
                return Ok(Some(Held { lease, renewed_at_ms: now_ms }));
            }
        }
        let holder = self.ports.facts.worker.as_bytes().to_vec();
        match self.ports.leases.acquire(key, holder.clone().into()).await? {
            Acquired::Granted(lease) => Ok(Some(Held { lease, renewed_at_ms: now_ms })),
            // From an earlier life of this worker: it takes its leases back at once.
            Acquired::HeldBy(lease) if lease.holder == holder => {
                match self.ports.leases.renew(&lease).await? {
                    Renewed::Renewed(lease) => Ok(Some(Held { lease, renewed_at_ms: now_ms })),
                    Renewed::Lost => Ok(None),
                }
            }
            Acquired::HeldBy(_) => Ok(None),
        }
    }
}

impl Held {
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
