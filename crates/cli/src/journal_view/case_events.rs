//! Where the events of review cases stand, as the journals tell it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use fermata_core::identity::{PartitionId, RunId, SourcePosition, Tenant};
use fermata_core::record::{Body, Record};
use fermata_core::review::EVENTS_OF_CASE_MAX;
use fermata_jetstream::StreamReader;
use uuid::Uuid;

use super::{JournalReader, Review};
use crate::error::CliError;

/// The events of one case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventsOfCase {
    /// Where they stand in EVENTS, at most [`EVENTS_OF_CASE_MAX`].
    pub places: Vec<SourcePosition>,
    /// Those whose places are not known or do not fit.
    pub left_out: u64,
    /// What the case's run did, where it is of one.
    pub done: Done,
}

/// What runs did that a new run from the beginning does again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Nodes that succeeded.
    pub succeeded: u64,
    /// Nodes of which nobody knows whether their effect happened.
    pub unknown: u64,
}

impl EventsOfCase {
    fn add(&mut self, place: SourcePosition) {
        match self.places.len() < EVENTS_OF_CASE_MAX {
            true => self.places.push(place),
            false => self.left_out += 1,
        }
    }
}

/// Names an event that was kept for whoever waits for it: its record where
/// nobody came does not tell where it stands.
type Kept = (Arc<str>, Arc<str>);

/// The events of the open cases of one review.
#[derive(Debug)]
pub struct CaseEvents {
    tenant: Tenant,
    runs: HashMap<RunId, Uuid>,
    cases: BTreeMap<Uuid, EventsOfCase>,
    kept: HashMap<Kept, Vec<Uuid>>,
}

impl CaseEvents {
    fn of(review: &Review) -> Self {
        let members = &review.members;
        Self {
            tenant: review.tenant.clone(),
            runs: members.iter().filter_map(|(case, run)| Some(((*run)?, *case))).collect(),
            cases: members.keys().map(|case| (*case, EventsOfCase::default())).collect(),
            kept: HashMap::new(),
        }
    }

    /// Reads the journals of `partitions` for the events of the cases of `review`
    /// that are open.
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
        partitions: &[PartitionId],
        review: &Review,
    ) -> Result<BTreeMap<Uuid, EventsOfCase>, CliError> {
        let mut events = Self::of(review);
        events.pass(reader, partitions, Self::take).await?;
        if !events.kept.is_empty() {
            events.pass(reader, partitions, Self::take_kept).await?;
        }
        Ok(events.finish())
    }

    async fn pass(
        &mut self,
        reader: &StreamReader,
        partitions: &[PartitionId],
        take: impl Fn(&mut Self, &Record),
    ) -> Result<(), CliError> {
        for partition in partitions {
            let mut journal = JournalReader::open(reader, *partition).await?;
            while let Some(records) = journal.next().await? {
                records.iter().for_each(|(_, record)| take(self, record));
            }
        }
        Ok(())
    }

    fn take(&mut self, record: &Record) {
        if let Some(case) = record.run.and_then(|run| self.runs.get(&run))
            && let Some(events) = self.cases.get_mut(case)
        {
            let Done { succeeded, unknown } = &mut events.done;
            *succeeded += u64::from(matches!(record.body, Body::NodeSucceeded(_)));
            *unknown += u64::from(matches!(record.body, Body::NodeUnknown(_)));
        }
        if let Body::EventStarted(started) = &record.body {
            for run in &started.runs {
                let case = self.runs.get(run).and_then(|case| self.cases.get_mut(case));
                case.into_iter().for_each(|events| events.add(started.source));
            }
        } else if let Body::EventUnmatched(unmatched) = &record.body
            && let Some(events) = self.cases.get_mut(&unmatched.case)
        {
            events.add(unmatched.source);
        } else if let Body::SignalExpired(expired) = &record.body
            && let Some(case) = expired.case.filter(|case| self.cases.contains_key(case))
        {
            let event = (expired.event.source.clone(), expired.event.id.clone());
            self.kept.entry(event).or_default().push(case);
        }
    }

    fn take_kept(&mut self, record: &Record) {
        if let Body::EventSignalled(signalled) = &record.body
            && signalled.event.tenant == self.tenant
        {
            let event = (signalled.event.source.clone(), signalled.event.id.clone());
            for case in self.kept.remove(&event).unwrap_or_default() {
                if let Some(events) = self.cases.get_mut(&case) {
                    events.add(signalled.source);
                }
            }
        }
    }

    fn finish(mut self) -> BTreeMap<Uuid, EventsOfCase> {
        for case in self.kept.into_values().flatten() {
            if let Some(events) = self.cases.get_mut(&case) {
                events.left_out += 1;
            }
        }
        self.cases
    }
}
