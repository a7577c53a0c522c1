//! From where on events are needed: their commands are not decided, or they were
//! rejected by their partition and are not filed yet.
//!
//! The command of an event does not hold its bytes, so these are in EVENTS alone
//! until nobody can reject the event any more. Asked in this order, so that every
//! answer can only make the bound lower:
//!
//! 1. the floor *F*, told at some time before: the commands of all events up to it are stored;
//! 2. then the ends of all COMMANDS: those commands are at or below them;
//! 3. then every partition, through the status of its worker. One that has decided
//!    up to its end needs nothing up to *F*; one that has not needs nothing up to
//!    the floor that its commands told it so far. Rejected events that are not
//!    filed are needed whatever else.
//!
//! A partition that does not answer, since it is halted or nobody owns it, may need
//! everything; and a worker that lives and does not answer may own any. What an owner
//! tells may not be committed yet; whoever decides it again decides it the same, but
//! for plans and room that have come or gone since.
//!
//! One asking ends within seconds, the first after half a minute at the latest. How often it has to be repeated has no bound: a worker
//! that is paused loses its lease and is asked no more, and one that keeps it and never answers
//! is for people to end. So it is told why nothing is known.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fermata_core::identity::PartitionId;
use fermata_jetstream::progress::end_of;
use fermata_jetstream::topology::commands_stream;
use fermata_wire::subjects;
use serde::Deserialize;
use thiserror::Error;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::floor::Floor;
use crate::ports::Ports;
use crate::status_service::StatusQuestion;

/// How long the answers of workers are waited for.
const ANSWERS_LIMIT: Duration = Duration::from_secs(2);

/// How long the first floor is waited for, by an owner that has just come: a look along the
/// streams takes a second or two, and longer where builders have much to do.
const FIRST_FLOOR_LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Deserialize)]
struct WorkerAnswer {
    worker: String,
    partitions: Vec<PartitionAnswer>,
}

#[derive(Debug, Clone, Deserialize)]
struct PartitionAnswer {
    partition: String,
    state: String,
    epoch: u64,
    position: u64,
    floor: u64,
    first_unfiled: Option<u64>,
}

/// Why nobody knows which events are needed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum NotKnown {
    /// No builder of the engine runs, or its stages hold events.
    #[error("nobody knows up to where every event has its command")]
    Floor,
    /// It refused, did not answer, or the connection was lost meanwhile.
    #[error("the broker does not say where commands end, or which workers live")]
    Broker,
    /// They have leases, and may own anything.
    #[error("no answer from {}, alive by its lease", .0.join(", "))]
    Silent(Vec<String>),
    /// They are halted, being taken over or given back, or nobody owns them.
    #[error("nobody answers for partition {}", .0.join(", "))]
    Partitions(Vec<String>),
}

/// The first message of EVENTS that may still be needed.
///
/// # Errors
///
/// [`NotKnown`] unless every partition says.
///
/// # Cancel safety
///
/// Can be dropped.
pub(super) async fn first_needed(
    ports: &Ports,
    followed: &mut FollowedFloor,
) -> Result<u64, NotKnown> {
    let floor = followed.told(ports).await.ok_or(NotKnown::Floor)?;
    let interruptions = followed.interruptions;
    let mut ends = BTreeMap::new();
    for partition in (0..ports.facts.partitions).map(PartitionId) {
        let end = end_of(&ports.broker, &commands_stream(partition)).await;
        ends.insert(partition.to_string(), end.map_err(|_| NotKnown::Broker)?);
    }
    // An end that is read too low would make the bound too high.
    if ports.broker.interruptions() != interruptions {
        return Err(NotKnown::Broker);
    }
    needed(floor, &ends, &ask(ports).await?)
}

/// The floor, followed all the time: what waits in lanes may hold it back for as long as a flood
/// lasts, and one that was told before is only lower.
#[derive(Debug)]
pub(super) struct FollowedFloor {
    floor: Floor,
    following: JoinHandle<()>,
    interruptions: u64,
}

impl FollowedFloor {
    /// Follows it until dropped.
    pub(super) fn start(ports: &Ports) -> Self {
        let (floor, interruptions) = (Floor::default(), ports.broker.interruptions());
        let following = tokio::spawn(floor.clone().follow(ports.clone()));
        Self { floor, following, interruptions }
    }

    /// What was told since the connection was last interrupted: ends that are read over a later one
    /// could be lower than it. The first one is waited for.
    async fn told(&mut self, ports: &Ports) -> Option<u64> {
        if ports.broker.interruptions() != self.interruptions {
            *self = Self::start(ports);
        }
        self.floor.known_within(FIRST_FLOOR_LIMIT).await
    }
}

impl Drop for FollowedFloor {
    fn drop(&mut self) {
        self.following.abort();
    }
}

/// Asks every worker that lives; nothing unless all answer: one that lost a partition and does not
/// know it yet may be quicker than the one that owns it.
async fn ask(ports: &Ports) -> Result<Vec<PartitionAnswer>, NotKnown> {
    let live = ports.leases.live_workers().await.map_err(|_| NotKnown::Broker)?;
    let mut missing = live.into_iter().collect::<BTreeSet<_>>();
    let id = Uuid::from_bytes(rand::random());
    let reply_to = format!("_INBOX.{}", id.simple());
    let answers = ports.core.subscribe(&reply_to).await;
    let mut answers = answers.map_err(|_| NotKnown::Broker)?;
    // Text is always JSON.
    let question = serde_json::to_vec(&StatusQuestion { reply_to }).unwrap_or_default();
    let asked = ports.core.publish_core(subjects::STATUS, question.into()).await;
    asked.map_err(|_| NotKnown::Broker)?;
    let mut found = Vec::new();
    let all = async {
        while !missing.is_empty() {
            let Some(answer) = answers.next().await else { return };
            if let Ok(answer) = serde_json::from_slice::<WorkerAnswer>(&answer.payload)
                && missing.remove(&answer.worker)
            {
                found.extend(answer.partitions);
            }
        }
    };
    let _ = tokio::time::timeout(ANSWERS_LIMIT, all).await;
    if missing.is_empty() {
        Ok(found)
    } else {
        Err(NotKnown::Silent(missing.into_iter().collect()))
    }
}

fn needed(
    floor: u64,
    ends: &BTreeMap<String, u64>,
    answers: &[PartitionAnswer],
) -> Result<u64, NotKnown> {
    let of_partition = |(partition, end): (&String, &u64)| {
        let owners = answers.iter().filter(|answer| answer.partition == *partition);
        let owners = owners.filter(|answer| answer.state == "owning");
        let owner = owners.max_by_key(|answer| answer.epoch)?;
        let decided = if owner.position >= *end { floor } else { owner.floor.min(floor) };
        let undecided = decided.saturating_add(1);
        Some(owner.first_unfiled.map_or(undecided, |unfiled| unfiled.min(undecided)))
    };
    let (mut first, mut unanswered) = (floor.saturating_add(1), Vec::new());
    for end in ends {
        match of_partition(end) {
            Some(needed) => first = first.min(needed),
            None => unanswered.push(end.0.clone()),
        }
    }
    if unanswered.is_empty() { Ok(first) } else { Err(NotKnown::Partitions(unanswered)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> BTreeMap<String, u64> {
        [("0".to_owned(), 10), ("1".to_owned(), 20)].into()
    }

    fn answer(partition: &str, position: u64) -> PartitionAnswer {
        PartitionAnswer {
            partition: partition.to_owned(),
            state: "owning".to_owned(),
            epoch: 3,
            position,
            floor: 40,
            first_unfiled: None,
        }
    }

    #[test]
    fn what_is_decided_everywhere_is_needed_no_more() {
        let answers = [answer("0", 10), answer("1", 21)];

        assert_eq!(needed(50, &ends(), &answers), Ok(51));
    }

    #[test]
    fn commands_that_are_not_decided_need_their_events() {
        let answers = [answer("0", 9), answer("1", 20)];

        assert_eq!(needed(50, &ends(), &answers), Ok(41), "above what it was told is unknown");
        assert_eq!(needed(30, &ends(), &answers), Ok(31));
    }

    #[test]
    fn a_rejected_event_is_needed_until_it_is_filed() {
        let unfiled = PartitionAnswer { first_unfiled: Some(7), ..answer("1", 20) };

        assert_eq!(needed(50, &ends(), &[answer("0", 10), unfiled]), Ok(7));
    }

    #[test]
    fn a_partition_that_does_not_say_may_need_everything() {
        let halted = PartitionAnswer { state: "halted".to_owned(), ..answer("1", 20) };

        let not_known = Err(NotKnown::Partitions(vec!["1".to_owned()]));
        assert_eq!(needed(50, &ends(), &[answer("0", 10)]), not_known);
        assert_eq!(needed(50, &ends(), &[answer("0", 10), halted]), not_known);
    }

    #[test]
    fn the_owner_that_came_last_is_believed() {
        let paused = PartitionAnswer { epoch: 2, ..answer("0", 10) };
        let owner = answer("0", 3);

        assert_eq!(needed(50, &ends(), &[paused, owner, answer("1", 20)]), Ok(41));
    }
}
