//! Which partitions this worker has the leases of, and which coordinator runs
//! for each: what the supervisor goes by.
//!
//! What is said about a coordinator names the actor. One that ends late, beside
//! a successor with a lease of its own, changes nothing for that one.

use std::collections::{BTreeMap, BTreeSet};

use fermata_core::identity::PartitionId;
use ractor::ActorId;

/// The leases and coordinators of a worker; `R` is how a coordinator is reached.
#[derive(Debug)]
pub struct Partitions<R> {
    /// Until when, in milliseconds of the monotonic clock.
    leases: BTreeMap<PartitionId, u64>,
    running: BTreeMap<PartitionId, (ActorId, R)>,
    /// Their coordinator ends, well or badly, and is not started again.
    giving_back: BTreeSet<PartitionId>,
}

/// What follows when a coordinator has been drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// The lease can be released.
    Release,
    /// The lease was lost and taken again meanwhile: another is to be started.
    StartAgain,
    /// Another runs by now.
    Nothing,
}

impl<R> Default for Partitions<R> {
    fn default() -> Self {
        let (leases, running) = (BTreeMap::new(), BTreeMap::new());
        Self { leases, running, giving_back: BTreeSet::new() }
    }
}

impl<R> Partitions<R> {
    /// The lease was taken, and holds until then.
    pub fn leased(&mut self, partition: PartitionId, until_ms: u64) {
        self.leases.insert(partition, until_ms);
        self.giving_back.remove(&partition);
    }

    /// The lease was renewed; returns the coordinator, which must know.
    pub fn renewed(&mut self, partition: PartitionId, until_ms: u64) -> Option<&R> {
        *self.leases.get_mut(&partition)? = until_ms;
        self.running.get(&partition).map(|(_, coordinator)| coordinator)
    }

    /// The lease is gone; returns the coordinator, which must stop.
    pub fn lost(&mut self, partition: PartitionId) -> Option<R> {
        self.leases.remove(&partition);
        self.giving_back.remove(&partition);
        self.running.remove(&partition).map(|(_, coordinator)| coordinator)
    }

    /// Another worker should own it; returns the coordinator, which must drain.
    pub fn give_back(&mut self, partition: PartitionId) -> Option<&R> {
        self.giving_back.insert(partition);
        self.running.get(&partition).map(|(_, coordinator)| coordinator)
    }

    /// This coordinator has been drained and has ended; none ran when none is named.
    pub fn drained(&mut self, partition: PartitionId, actor: Option<ActorId>) -> Drained {
        let present = self.running.get(&partition).map(|(present, _)| *present);
        if present.is_some() && present != actor {
            return Drained::Nothing;
        }
        self.running.remove(&partition);
        if !self.giving_back.remove(&partition) {
            return Drained::StartAgain;
        }
        self.leases.remove(&partition);
        Drained::Release
    }

    /// This coordinator has ended; whether it was the present one.
    pub fn ended(&mut self, partition: PartitionId, actor: ActorId) -> bool {
        let is_present = self.running.get(&partition).is_some_and(|(present, _)| *present == actor);
        if is_present {
            self.running.remove(&partition);
        }
        is_present
    }

    /// Until when the lease holds, where a coordinator is to be started.
    #[must_use]
    pub fn to_start(&self, partition: PartitionId) -> Option<u64> {
        let until_ms = self.leases.get(&partition).copied()?;
        let wanted =
            !self.running.contains_key(&partition) && !self.giving_back.contains(&partition);
        wanted.then_some(until_ms)
    }

    /// This coordinator was started.
    pub fn started(&mut self, partition: PartitionId, actor: ActorId, coordinator: R) {
        self.running.insert(partition, (actor, coordinator));
    }

    /// The coordinators that run, with their partitions.
    pub fn running(&self) -> impl Iterator<Item = (PartitionId, &R)> {
        self.running.iter().map(|(partition, (_, coordinator))| (*partition, coordinator))
    }

    /// The coordinators that run.
    pub fn coordinators(&self) -> impl Iterator<Item = &R> {
        self.running.values().map(|(_, coordinator)| coordinator)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const P: PartitionId = PartitionId(3);

    fn started(partitions: &mut Partitions<u64>, number: u64) -> ActorId {
        let actor = ActorId::Local(number);
        assert!(partitions.to_start(P).is_some());
        partitions.started(P, actor, number);
        actor
    }

    #[test]
    fn a_partition_that_is_given_back_is_released_once_its_coordinator_has_ended() {
        let mut partitions = Partitions::default();
        partitions.leased(P, 1);
        let actor = started(&mut partitions, 1);

        assert_eq!(partitions.give_back(P), Some(&1));
        // It fails while it drains: nobody takes its place.
        assert!(partitions.ended(P, actor));
        assert_eq!(partitions.to_start(P), None);

        assert_eq!(partitions.drained(P, Some(actor)), Drained::Release);
        assert_eq!(partitions.renewed(P, 9), None);
        assert_eq!(partitions.to_start(P), None);
    }

    #[test]
    fn the_end_of_an_earlier_coordinator_leaves_its_successor_alone() {
        let mut partitions = Partitions::default();
        partitions.leased(P, 1);
        let first = started(&mut partitions, 1);
        partitions.give_back(P);
        assert_eq!(partitions.lost(P), Some(1));
        partitions.leased(P, 2);
        let second = started(&mut partitions, 2);

        assert_eq!(partitions.drained(P, Some(first)), Drained::Nothing);
        assert!(!partitions.ended(P, first));

        assert_eq!(partitions.renewed(P, 3), Some(&2));
        assert!(partitions.ended(P, second));
        assert_eq!(partitions.to_start(P), Some(3));
    }

    #[test]
    fn a_lease_that_was_taken_again_while_draining_gets_another_coordinator() {
        let mut partitions = Partitions::default();
        partitions.leased(P, 1);
        let first = started(&mut partitions, 1);
        partitions.give_back(P);
        partitions.leased(P, 2);

        assert_eq!(partitions.drained(P, Some(first)), Drained::StartAgain);

        assert_eq!(partitions.to_start(P), Some(2));
    }

    proptest! {
        #[test]
        fn nothing_is_released_beside_a_coordinator_and_no_lease_is_left_without_one(
            acts in prop::collection::vec(0..6_u8, 0..60),
        ) {
            let mut partitions = Partitions::default();
            let (mut draining, mut leased) = (Vec::new(), false);
            for (number, act) in (0..).zip(acts) {
                match act {
                    0 if !leased => {
                        partitions.leased(P, 1);
                        leased = true;
                    }
                    1 => {
                        partitions.lost(P);
                        leased = false;
                    }
                    2 if leased => {
                        let running = partitions.give_back(P).copied();
                        draining.push(running.map(ActorId::Local));
                    }
                    3 => {
                        if let Some(actor) = draining.pop() {
                            match partitions.drained(P, actor) {
                                Drained::Release => {
                                    prop_assert_eq!(partitions.coordinators().count(), 0);
                                    leased = false;
                                }
                                Drained::StartAgain | Drained::Nothing => {}
                            }
                        }
                    }
                    4 => {
                        let running = partitions.coordinators().next().copied();
                        if let Some(running) = running {
                            prop_assert!(partitions.ended(P, ActorId::Local(running)));
                        }
                    }
                    _ => {}
                }
                // The supervisor starts what is to be started, sooner or later.
                if partitions.to_start(P).is_some() {
                    partitions.started(P, ActorId::Local(number), number);
                }
                let is_served = partitions.coordinators().count() == 1;
                prop_assert_eq!(leased, is_served || !draining.is_empty() && leased);
            }
        }
    }
}
