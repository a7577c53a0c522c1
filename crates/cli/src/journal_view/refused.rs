//! Events that a contract refused, as the journals tell it.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use fermata_core::identity::{PartitionId, SourcePosition};
use fermata_core::record::{Body, Record};
use fermata_jetstream::StreamReader;
use indicatif::ProgressBar;

use super::JournalReader;
use crate::error::CliError;

/// What the reasons begin with for which a contract refuses events.
const OF_CONTRACT: &str = "contract_";

/// Refused events that are remembered. Default 1,000,000, some 50 MiB: further ones count as if no contract had
/// refused them.
const REFUSED_MAX: usize = 1_000_000;

/// Where events stand in EVENTS that a contract refused.
#[derive(Debug, Default)]
pub struct RefusedByContract {
    places: HashSet<SourcePosition>,
}

impl RefusedByContract {
    /// Reads the journals of `partitions` for those of these sequences.
    ///
    /// # Errors
    ///
    /// When one cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn read(
        reader: &StreamReader,
        partitions: u16,
        sequences: RangeInclusive<u64>,
        progress: &ProgressBar,
    ) -> Result<Self, CliError> {
        let mut refused = Self::default();
        for partition in (0..partitions).map(PartitionId) {
            let mut journal = JournalReader::counting(reader, partition, progress).await?;
            while let Some(records) = journal.next().await? {
                records.iter().for_each(|(_, record)| refused.take(&sequences, record));
            }
        }
        Ok(refused)
    }

    fn take(&mut self, sequences: &RangeInclusive<u64>, record: &Record) {
        if let Body::EventRejected(rejected) = &record.body
            && rejected.reason.starts_with(OF_CONTRACT)
            && sequences.contains(&rejected.source.sequence)
            && self.places.len() < REFUSED_MAX
        {
            self.places.insert(rejected.source);
        }
    }

    /// Whether a contract refused the event there.
    #[must_use]
    pub fn has(&self, place: SourcePosition) -> bool {
        self.places.contains(&place)
    }
}
