//! When a process is ready: what is published from then on finds every
//! partition owned, here or elsewhere, and this process with the newest
//! definitions.

mod definitions;

use std::fmt;
use std::time::Duration;

use fermata_core::identity::PartitionId;
use fermata_jetstream::leases::{Held, Lease, partition_key};
use thiserror::Error;

use crate::coordinator::PartitionStatus;
use crate::engine::Engine;
use crate::standstill::Standstill;

pub(crate) use definitions::missing_definitions;

/// How often it is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Partitions that a message names; the rest is counted.
const NAMED_MAX: usize = 8;

/// What a process waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Awaited {
    /// No live worker holds the lease of these partitions: none with the role
    /// runs, or the lease of one that died has not run out.
    Owners(Vec<PartitionId>),
    /// This process has the lease and does not own yet.
    Takeover {
        /// Which.
        partition: PartitionId,
        /// What its coordinator says.
        state: &'static str,
        /// Why it is halted.
        reason: Option<String>,
    },
    /// Definitions of this revision have not arrived, or do not compile here.
    Definitions(u64),
    /// No definitions are active in this process, and those that are projected cannot be read: a
    /// newer program wrote them, or somebody wrote over them.
    UnreadableDefinitions(String),
    /// The broker did not say who holds what.
    Broker(String),
}

impl Awaited {
    /// Whether it is a partition that goes on only when somebody acts.
    fn is_halted(&self) -> bool {
        matches!(self, Self::Takeover { state: "halted", .. })
    }
}

impl fmt::Display for Awaited {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owners(partitions) => {
                let named = partitions.iter().take(NAMED_MAX).map(ToString::to_string);
                let named = named.collect::<Vec<_>>().join(", ");
                write!(formatter, "no live worker holds partition {named}")?;
                match partitions.len().saturating_sub(NAMED_MAX) {
                    0 => Ok(()),
                    more => write!(formatter, " and {more} more"),
                }
            }
            Self::Takeover { partition, state, reason: None } => {
                write!(formatter, "partition {partition} is `{state}` here")
            }
            Self::Takeover { partition, state, reason: Some(reason) } => {
                write!(formatter, "partition {partition} is `{state}` here: {reason}")
            }
            Self::Definitions(revision) => {
                write!(formatter, "definitions of revision {revision} are not active here")
            }
            Self::UnreadableDefinitions(problem) => {
                write!(
                    formatter,
                    "no definitions are active here, and the projected ones cannot be read: {problem}"
                )
            }
            Self::Broker(error) => write!(formatter, "the leases cannot be read: {error}"),
        }
    }
}

/// What keeps a process from being ready, of all that may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// It was asked to end, and takes nothing more.
    Draining,
    /// A connection to the broker is down.
    Disconnected,
    /// A partition is halted here.
    Halted {
        /// Which.
        partition: String,
        /// Why.
        reason: String,
    },
    /// The journal or the audit log of a partition, or the lease of this worker, is not stored.
    StandsStill(Standstill),
    /// As [`Engine::awaited`] says.
    Awaited(Awaited),
}

impl Obstacle {
    /// Names the kind for programs; stays the same over versions.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Disconnected => "broker_disconnected",
            Self::Halted { .. } => "partition_halted",
            Self::StandsStill(_) => "partition_stands_still",
            Self::Awaited(Awaited::Owners(_)) => "partitions_without_owner",
            Self::Awaited(Awaited::Takeover { .. }) => "partition_taking",
            Self::Awaited(Awaited::Definitions(_)) => "definitions_behind",
            Self::Awaited(Awaited::UnreadableDefinitions(_)) => "definitions_unreadable",
            Self::Awaited(Awaited::Broker(_)) => "broker_no_answer",
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Draining => formatter.write_str("it was asked to end and takes nothing more"),
            Self::Disconnected => formatter.write_str("the connection to the broker is down"),
            Self::Halted { partition, reason } => {
                write!(formatter, "partition {partition} is halted here: {reason}")
            }
            Self::StandsStill(standstill) => standstill.fmt(formatter),
            Self::Awaited(awaited) => awaited.fmt(formatter),
        }
    }
}

/// A process that is not ready in time.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotReady {
    /// Something is missing.
    #[error("not ready within {limit:?}: {awaited}")]
    Waiting {
        /// How long was waited.
        limit: Duration,
        /// What for, last.
        awaited: Awaited,
    },
    /// An actor kept failing.
    #[error("the engine gave up; its last log lines say why")]
    Ended,
}

impl Engine {
    /// Waits until every partition is owned, by this or another live worker, and
    /// this process has the active definitions: what is published from then on
    /// is decided at once. A worker that takes over a partition elsewhere counts
    /// from when it has the lease.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn ready(&self) {
        while self.awaited().await.is_some() {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// As [`Engine::ready`], for so long at the most.
    ///
    /// # Errors
    ///
    /// [`NotReady`], with what it waited for.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn ready_within(&self, limit: Duration) -> Result<(), NotReady> {
        self.within(limit, self.ready()).await
    }

    /// As [`Engine::ready_within`], but what is halted here is not waited for: it stays so until
    /// somebody acts. Gives the partitions that are, each an [`Obstacle::Halted`].
    ///
    /// # Errors
    ///
    /// [`NotReady`], with what it waited for.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn settled_within(&self, limit: Duration) -> Result<Vec<Obstacle>, NotReady> {
        let settled = async {
            loop {
                match self.awaited().await {
                    None => return Vec::new(),
                    Some(awaited) if awaited.is_halted() => return halted(&self.status().await),
                    Some(_) => tokio::time::sleep(LOOK_INTERVAL).await,
                }
            }
        };
        self.within(limit, settled).await
    }

    async fn within<T: Default>(
        &self,
        limit: Duration,
        wait: impl Future<Output = T>,
    ) -> Result<T, NotReady> {
        tokio::select! {
            waited = tokio::time::timeout(limit, wait) => match waited {
                Ok(waited) => Ok(waited),
                Err(_) => match self.awaited().await {
                    Some(awaited) => Err(NotReady::Waiting { limit, awaited }),
                    None => Ok(T::default()),
                },
            },
            () = self.ended() => Err(NotReady::Ended),
        }
    }

    /// Everything that stands between this process and being ready, as far as it
    /// can be told at once; nothing when it is. Beyond what [`Engine::awaited`]
    /// looks for, each connection must live and no partition be halted or stand still here.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn obstacles(&self) -> Vec<Obstacle> {
        if self.is_draining() {
            // What it no longer owns is no news.
            return vec![Obstacle::Draining];
        }
        let mut obstacles = halted(&self.status().await);
        if !self.ports().broker.is_connected() {
            // Without it nothing can be asked.
            obstacles.push(Obstacle::Disconnected);
            return obstacles;
        }
        let standstills = self.standstills();
        let keeps_no_lease = standstills.iter().any(|standstill| standstill.partition.is_none());
        obstacles.extend(standstills.into_iter().map(Obstacle::StandsStill));
        match self.awaited().await {
            // It is named already.
            None => {}
            Some(awaited) if awaited.is_halted() => {}
            // That they are lost follows, and nothing helps but what helps the leases.
            Some(Awaited::Owners(_)) if keeps_no_lease => {}
            Some(awaited) => obstacles.push(Obstacle::Awaited(awaited)),
        }
        obstacles
    }

    /// What takes nothing that this process wants stored.
    #[must_use]
    pub fn standstills(&self) -> Vec<Standstill> {
        let ports = self.ports();
        ports.standstills.lasting(ports.clock.now().monotonic_ms)
    }

    /// What stands between this process and being ready; a partition that is halted here only
    /// when nothing else does.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn awaited(&self) -> Option<Awaited> {
        let ports = self.ports();
        let here = self.status().await;
        let held = match ports.leases.held().await {
            Ok(held) => held,
            Err(error) => return Some(Awaited::Broker(error.to_string())),
        };
        let data = (0..ports.facts.partitions).map(PartitionId);
        let partitions = std::iter::once(PartitionId::CONTROL).chain(data);
        match unowned(partitions, &here, &held, &ports.facts.worker) {
            Some(awaited) if !awaited.is_halted() => Some(awaited),
            last => missing_definitions(ports).await.or(last),
        }
    }
}

fn halted(here: &[PartitionStatus]) -> Vec<Obstacle> {
    let halted = here.iter().filter(|status| status.state == "halted");
    halted
        .map(|status| Obstacle::Halted {
            partition: status.partition.clone(),
            reason: status.reason.clone().unwrap_or_default(),
        })
        .collect()
}

/// Those of `partitions` whose lease no live worker holds.
pub(crate) fn ownerless(
    partitions: impl Iterator<Item = PartitionId>,
    held: &Held,
) -> Vec<PartitionId> {
    partitions.filter(|partition| owner(*partition, held).is_none()).collect()
}

/// The live worker that holds the lease of `partition`.
fn owner(partition: PartitionId, held: &Held) -> Option<&str> {
    let owner = held.leases.get(&partition_key(&partition.to_string())).and_then(Lease::worker);
    owner.filter(|owner| held.workers.iter().any(|worker| worker == owner))
}

fn unowned(
    partitions: impl Iterator<Item = PartitionId>,
    here: &[PartitionStatus],
    held: &Held,
    worker: &str,
) -> Option<Awaited> {
    let (mut nobodys, mut halted) = (Vec::new(), None);
    for partition in partitions {
        match owner(partition, held) {
            Some(owner) if owner == worker => {
                let name = partition.to_string();
                let status = here.iter().find(|status| status.partition == name);
                let state = status.map_or("taking", |status| status.state);
                if state != "owning" {
                    let reason = status.and_then(|status| status.reason.clone());
                    let takeover = Awaited::Takeover { partition, state, reason };
                    if !takeover.is_halted() {
                        return Some(takeover);
                    }
                    // It stays so: whatever else there is to wait for goes first.
                    halted.get_or_insert(takeover);
                }
            }
            Some(_) => {}
            None => nobodys.push(partition),
        }
    }
    if nobodys.is_empty() { halted } else { Some(Awaited::Owners(nobodys)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::status_of as status;

    fn held(workers: &[&str], leases: &[(&str, &'static str)]) -> Held {
        let lease = |(partition, holder): &(&str, &'static str)| {
            let key = partition_key(partition);
            (key.clone(), Lease { key, holder: (*holder).into(), revision: 1 })
        };
        Held {
            workers: workers.iter().map(|worker| (*worker).to_owned()).collect(),
            leases: leases.iter().map(lease).collect(),
            foreign: Vec::new(),
            leaving: Vec::new(),
        }
    }

    fn awaited(here: &[PartitionStatus], held: &Held) -> Option<Awaited> {
        unowned([PartitionId(0), PartitionId(1)].into_iter(), here, held, "me")
    }

    #[test]
    fn partitions_may_be_owned_here_or_by_another_that_lives() {
        let shared = held(&["me", "other"], &[("0", "me"), ("1", "other")]);

        assert_eq!(awaited(&[status("0", "owning")], &shared), None);
        assert_eq!(awaited(&[], &held(&["other"], &[("0", "other"), ("1", "other")])), None);
    }

    #[test]
    fn a_lease_of_one_that_is_dead_owns_nothing() {
        let left_behind = held(&["other"], &[("0", "dead"), ("1", "other")]);

        let awaited = awaited(&[], &left_behind).expect("something to wait for");

        assert_eq!(awaited, Awaited::Owners(vec![PartitionId(0)]));
        assert_eq!(awaited.to_string(), "no live worker holds partition 0");
    }

    #[test]
    fn what_is_leased_here_must_be_owned_here() {
        let mine = held(&["me"], &[("0", "me"), ("1", "me")]);

        for here in
            [vec![status("0", "owning")], vec![status("0", "owning"), status("1", "taking")]]
        {
            let expected =
                Awaited::Takeover { partition: PartitionId(1), state: "taking", reason: None };
            assert_eq!(awaited(&here, &mine), Some(expected));
        }
    }
    #[test]
    fn what_is_halted_here_is_named_when_nothing_else_is_missing() {
        let reason = Some("the journal ends at 7".to_owned());
        let halted = PartitionStatus { reason: reason.clone(), ..status("0", "halted") };
        let mine = held(&["me"], &[("0", "me"), ("1", "me")]);
        let (partition, state) = (PartitionId(0), "halted");
        let expected = Awaited::Takeover { partition, state, reason };

        let last = awaited(&[halted.clone(), status("1", "owning")], &mine);
        let first = awaited(&[halted.clone(), status("1", "taking")], &mine);
        let alone = awaited(&[halted], &held(&["me"], &[("0", "me")]));

        assert_eq!(last, Some(expected));
        assert!(first.is_some_and(|awaited| !awaited.is_halted()));
        assert_eq!(alone, Some(Awaited::Owners(vec![PartitionId(1)])));
    }
}
