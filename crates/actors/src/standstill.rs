//! What of the broker takes nothing that this process wants stored. One whose disk is full gives no
//! answer, a stream that is full refuses, and both say so to nobody but whoever asks: who looks after
//! the engine is told here, once in the log, and for as long as it lasts wherever it is asked.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fermata_core::identity::PartitionId;
use fermata_partition::message::AppendOutcome;
use serde::Serialize;

/// From when on it is told, milliseconds: an election among replicas takes 4 to 9 s and is no reason.
pub const TOLD_AFTER_MS: u64 = 10_000;

/// What may take nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The journal of a partition: nothing is decided.
    Journal(PartitionId),
    /// The audit log of a partition: nothing is decided when its auditor is too far behind.
    AuditLog(PartitionId),
    /// The leases of this worker: its partitions are lost when they run out.
    Leases,
}

impl Place {
    fn partition(self) -> Option<PartitionId> {
        match self {
            Self::Journal(partition) | Self::AuditLog(partition) => Some(partition),
            Self::Leases => None,
        }
    }

    fn stream(self) -> String {
        match self {
            Self::Journal(partition) => format!("JOURNAL_{partition}"),
            Self::AuditLog(partition) => format!("AUDIT_{partition}"),
            Self::Leases => "KV_fermata-leases".to_owned(),
        }
    }

    /// What follows from it.
    fn consequence(self) -> &'static str {
        match self {
            Self::Journal(_) => "the journal takes nothing, and no effect starts",
            Self::AuditLog(_) => "the audit log takes nothing, and soon no effect starts",
            Self::Leases => "the broker takes no lease of this worker, and it loses its partitions",
        }
    }
}

/// How something is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The broker says no.
    Refused,
    /// The broker says nothing.
    NoAnswer,
}

impl Trouble {
    /// What the outcome of an append says, when it says that nothing was stored.
    #[must_use]
    pub fn of(outcome: &AppendOutcome) -> Option<Self> {
        match outcome {
            AppendOutcome::Refused => Some(Self::Refused),
            AppendOutcome::Unknown => Some(Self::NoAnswer),
            AppendOutcome::Stored { .. } | AppendOutcome::Conflict => None,
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::Refused => {
                "the broker refuses what is to be stored there: it is full, and must be enlarged"
            }
            Self::NoAnswer => {
                "the broker gives no answer: one whose disk is full looks like this, make room and restart it"
            }
        }
    }
}

/// Something takes nothing, and has not for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standstill {
    /// The partition that stands still for it; absent where all of this worker do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// The stream that takes nothing.
    pub stream: String,
    /// Why, as far as the broker tells; for people.
    pub reason: String,
    /// For how long.
    pub seconds: u64,
}

impl fmt::Display for Standstill {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, stream, reason, seconds } = self;
        match partition {
            Some(partition) => write!(formatter, "partition {partition} stands still here: ")?,
            None => formatter.write_str("every partition here stands still: ")?,
        }
        write!(formatter, "`{stream}` has taken nothing for {seconds} s; {reason}")
    }
}

/// Everything that takes nothing; clones see the same.
#[derive(Debug, Clone, Default)]
pub struct Standstills(Arc<Mutex<BTreeMap<Place, Waiting>>>);

#[derive(Debug)]
struct Waiting {
    since_ms: u64,
    trouble: Trouble,
    told: bool,
}

impl Standstills {
    /// What was asked for at `asked_ms` was not stored, and is tried again. Tells it when it lasts.
    pub fn tried_again(&self, place: Place, trouble: Trouble, asked_ms: u64, now_ms: u64) {
        let mut waiting = self.lock();
        let waiting =
            waiting.entry(place).or_insert(Waiting { since_ms: asked_ms, trouble, told: false });
        waiting.trouble = trouble;
        if !waiting.told && lasts(waiting, now_ms) {
            waiting.told = true;
            let (stream, consequence) = (place.stream(), place.consequence());
            tracing::error!(stream, reason = trouble.reason(), "{consequence}");
        }
    }

    /// Something was stored, or it is given up. Tells it when its trouble was told.
    pub fn ended(&self, place: Place) {
        if self.lock().remove(&place).is_some_and(|waiting| waiting.told) {
            tracing::warn!(
                stream = place.stream(),
                "it takes what is stored again, or the partition changes its owner"
            );
        }
    }

    /// What has lasted long enough to be told, for whoever asks.
    #[must_use]
    pub fn lasting(&self, now_ms: u64) -> Vec<Standstill> {
        let waiting = self.lock();
        let lasting = waiting.iter().filter(|(_, waiting)| lasts(waiting, now_ms));
        lasting
            .map(|(place, waiting)| Standstill {
                partition: place.partition().map(|partition| partition.to_string()),
                stream: place.stream(),
                reason: waiting.trouble.reason().to_owned(),
                seconds: now_ms.saturating_sub(waiting.since_ms) / 1_000,
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Place, Waiting>> {
        // Nobody panics while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lasts(waiting: &Waiting, now_ms: u64) -> bool {
    now_ms.saturating_sub(waiting.since_ms) >= TOLD_AFTER_MS
}

/// Forgets what stands still of a partition when its coordinator ends, however it does: whoever owns
/// it next finds out anew.
#[derive(Debug)]
pub struct OfPartition {
    standstills: Standstills,
    partition: PartitionId,
}

impl OfPartition {
    /// What stands still of `partition`.
    #[must_use]
    pub fn new(standstills: Standstills, partition: PartitionId) -> Self {
        Self { standstills, partition }
    }

    /// The partition.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        self.partition
    }
}

impl Drop for OfPartition {
    fn drop(&mut self) {
        self.standstills.ended(Place::Journal(self.partition));
        self.standstills.ended(Place::AuditLog(self.partition));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOURNAL: Place = Place::Journal(PartitionId(3));

    fn told(standstills: &Standstills) -> bool {
        standstills.lock().get(&JOURNAL).is_some_and(|waiting| waiting.told)
    }

    #[test]
    fn what_lasts_is_told_with_its_newest_reason_and_forgotten_when_it_ends() {
        let standstills = Standstills::default();

        standstills.tried_again(JOURNAL, Trouble::NoAnswer, 1_000, 1_000);
        standstills.tried_again(JOURNAL, Trouble::Refused, 9_000, 10_999);
        assert!(!told(&standstills) && standstills.lasting(10_999).is_empty());
        standstills.tried_again(JOURNAL, Trouble::Refused, 11_000, 11_000);

        let lasting = standstills.lasting(13_000);
        assert!(told(&standstills));
        assert_eq!(
            lasting.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["partition 3 stands still here: `JOURNAL_3` has taken nothing for 12 s; the broker \
              refuses what is to be stored there: it is full, and must be enlarged"]
        );
        standstills.ended(JOURNAL);
        assert!(standstills.lasting(60_000).is_empty());
    }

    #[test]
    fn a_coordinator_that_ends_leaves_nothing_behind_but_what_is_not_its_own() {
        let standstills = Standstills::default();
        for place in [JOURNAL, Place::AuditLog(PartitionId(3)), Place::Leases] {
            standstills.tried_again(place, Trouble::NoAnswer, 0, 0);
        }

        drop(OfPartition::new(standstills.clone(), PartitionId(3)));

        let left = standstills.lasting(20_000);
        assert_eq!(left.len(), 1);
        assert_eq!((left[0].partition.as_deref(), left[0].seconds), (None, 20));
    }

    #[test]
    fn outcomes_that_say_who_is_at_the_end_are_no_trouble() {
        assert_eq!(Trouble::of(&AppendOutcome::Refused), Some(Trouble::Refused));
        assert_eq!(Trouble::of(&AppendOutcome::Unknown), Some(Trouble::NoAnswer));
        assert_eq!(Trouble::of(&AppendOutcome::Conflict), None);
        assert_eq!(Trouble::of(&AppendOutcome::Stored { sequence: 1 }), None);
    }
}
