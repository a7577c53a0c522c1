//! Keys of hours that are over, apart from the rest of a snapshot.
//!
//! Nothing comes to an hour that is over, and nothing leaves it before all of it
//! expires. So its keys are written once, and every snapshot after that only
//! names them. What an hour holds follows from the journal alone: whoever writes
//! it writes the same.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::keys::{KeyHour, Packed, hour_of};
use super::snapshot::{FrozenPartition, PartitionImage};
use crate::identity::{PartitionId, SourcePosition};

/// What came in one hour that is over: keys of events, and ids of commands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClosedHour {
    /// Whose keys they are.
    pub partition: PartitionId,
    /// Hours of journal time since 1970.
    pub hour: u64,
    keys: Packed<SourcePosition>,
    commands: Packed<()>,
}

impl ClosedHour {
    /// Keys of events.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Ids of commands.
    #[must_use]
    pub fn commands(&self) -> usize {
        self.commands.len()
    }
}

impl FrozenPartition {
    /// The hour that still takes keys.
    pub(super) fn open_hour(&self) -> u64 {
        hour_of(self.time)
    }

    /// The oldest hour of which this or any later state holds a key.
    #[must_use]
    pub fn first_hour(&self) -> u64 {
        let kept = self.keys.hours().next().into_iter().chain(self.commands.hours().next());
        kept.chain([self.open_hour()]).min().unwrap_or_default()
    }

    /// The hours that are over and of which there are keys, oldest first.
    #[must_use]
    pub fn closed_hours(&self) -> BTreeSet<u64> {
        let open = self.open_hour();
        self.keys.hours().chain(self.commands.hours()).filter(|hour| *hour < open).collect()
    }

    /// The keys of `hour`. Takes as long as there are any.
    #[must_use]
    pub fn closed_hour(&self, hour: u64) -> ClosedHour {
        let is_it = |found| found == hour;
        let (keys, commands) = (self.keys.of_hours(is_it), self.commands.of_hours(is_it));
        ClosedHour {
            partition: self.id,
            hour,
            keys: keys.into_iter().next().map(KeyHour::into_keys).unwrap_or_default(),
            commands: commands.into_iter().next().map(KeyHour::into_keys).unwrap_or_default(),
        }
    }
}

impl PartitionImage {
    /// The oldest hour of which this or any later state holds a key.
    #[must_use]
    pub fn first_hour(&self) -> u64 {
        let kept = self.keys.first().map(KeyHour::hour).into_iter();
        let kept = kept.chain(self.commands.first().map(KeyHour::hour));
        kept.chain([hour_of(self.time)]).min().unwrap_or_default()
    }

    /// Adds the closed hours that the image was made without.
    pub fn add_hours(&mut self, hours: impl IntoIterator<Item = ClosedHour>) {
        for ClosedHour { hour, keys, commands, .. } in hours {
            self.keys.push(KeyHour::new(hour, keys));
            self.commands.push(KeyHour::new(hour, commands));
        }
        // Keys are kept in the order of their hours.
        self.keys.sort_by_key(KeyHour::hour);
        self.commands.sort_by_key(KeyHour::hour);
    }
}
