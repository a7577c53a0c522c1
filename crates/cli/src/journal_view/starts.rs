//! What came of events: which runs their keys started, and what was decided about places in EVENTS.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use fermata_core::identity::{PartitionId, RunId, SourcePosition};
use fermata_core::partition::Limits;
use fermata_core::record::{Body, Header, Record};
use fermata_jetstream::StreamReader;
use indicatif::ProgressBar;
use uuid::Uuid;

use super::JournalReader;
use crate::error::CliError;

/// Starts of one key that are kept, the newest ones. Default 16: whoever has an event started so often knows.
const STARTS_MAX: usize = 16;

/// What a key of an event started at one time, or that the event was taken for whoever waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// The runs; none where the event was taken for whoever waits for it.
    pub runs: Vec<RunId>,
    /// When, journal time in milliseconds since 1970.
    pub time_ms: u64,
    /// Where the event that started them stands in EVENTS.
    pub source: SourcePosition,
    /// The replay that started them, where one did.
    pub replay: Option<Uuid>,
}

/// The key of an event, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventKey {
    /// The tenant's name.
    pub tenant: String,
    /// What a repeat is recognised by.
    pub key: u128,
}

/// What is looked for in the journals of an engine.
#[derive(Debug)]
pub struct Sought {
    partitions: u16,
    keys: HashMap<u128, PartitionId>,
    places: HashSet<SourcePosition>,
    replays: HashSet<Uuid>,
    /// Whether there are places whose key is not known, so that any partition may have decided about them.
    is_everywhere: bool,
}

impl Sought {
    /// Nothing yet, in an engine of so many data partitions.
    #[must_use]
    pub fn new(partitions: u16) -> Self {
        let (keys, places, replays) = Default::default();
        Self { partitions, keys, places, replays, is_everywhere: false }
    }

    /// What the key started.
    pub fn add_key(&mut self, EventKey { tenant, key }: &EventKey) {
        let home = PartitionId::of(&[tenant.as_bytes(), &key.to_be_bytes()], self.partitions);
        self.keys.insert(*key, home);
    }

    /// What was decided about the event there, wherever that was.
    pub fn add_place(&mut self, place: SourcePosition) {
        self.is_everywhere = true;
        self.places.insert(place);
    }

    /// Whether this replay was decided, of an event whose key is one that is added.
    pub fn add_replay(&mut self, replay: Uuid) {
        self.replays.insert(replay);
    }

    /// A key has one partition; of a place alone nobody knows which it is.
    fn partitions(&self) -> BTreeSet<PartitionId> {
        match self.is_everywhere {
            false => self.keys.values().copied().collect(),
            true => (0..self.partitions).map(PartitionId).collect(),
        }
    }
}

/// What was found.
#[derive(Debug)]
pub struct Starts {
    sought: Sought,
    started: HashMap<u128, VecDeque<Started>>,
    decided: HashSet<SourcePosition>,
    rejected: HashSet<SourcePosition>,
    replays: HashSet<Uuid>,
}

impl Starts {
    fn of_sought(sought: Sought) -> Self {
        let (started, decided, rejected, replays) = Default::default();
        Self { sought, started, decided, rejected, replays }
    }

    /// What records tell of places, for tests.
    #[cfg(test)]
    pub(crate) fn of_places(
        places: impl IntoIterator<Item = SourcePosition>,
        records: &[(Header, Record)],
    ) -> Self {
        let mut sought = Sought::new(1);
        places.into_iter().for_each(|place| sought.add_place(place));
        let mut starts = Self::of_sought(sought);
        records.iter().for_each(|(header, record)| starts.take(header, record));
        starts
    }

    /// Reads the journals that may tell, each once.
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
        sought: Sought,
        progress: &ProgressBar,
    ) -> Result<Self, CliError> {
        let partitions = sought.partitions();
        let mut starts = Self::of_sought(sought);
        for partition in partitions {
            let mut journal = JournalReader::counting(reader, partition, progress).await?;
            while let Some(records) = journal.next().await? {
                records.iter().for_each(|(header, record)| starts.take(header, record));
            }
        }
        Ok(starts)
    }

    fn take(&mut self, header: &Header, record: &Record) {
        let Some((source, replay)) = decision_of(&record.body) else { return };
        self.replays.extend(replay.filter(|replay| self.sought.replays.contains(replay)));
        let runs = if let Body::EventStarted(started) = &record.body {
            Some((started.key, started.runs.as_slice()))
        } else if let Body::EventSignalled(signalled) = &record.body {
            // It claims the key as a start does.
            Some((signalled.key, &[][..]))
        } else {
            None
        };
        if let Some((key, runs)) = runs.filter(|(key, _)| self.sought.keys.contains_key(key)) {
            let (runs, time_ms) = (runs.to_vec(), header.time.0);
            let starts = self.started.entry(key).or_default();
            starts.push_back(Started { runs, time_ms, source, replay });
            if starts.len() > STARTS_MAX {
                starts.pop_front();
            }
        }
        if self.sought.places.contains(&source) {
            let is_rejected = matches!(record.body, Body::EventRejected(_));
            let places = if is_rejected { &mut self.rejected } else { &mut self.decided };
            places.insert(source);
        }
    }

    /// What the key of an event that came at `time_ms` has started since, or before by less than keys
    /// are remembered: what it started earlier than that was another event.
    pub fn of(&self, key: &EventKey, time_ms: u64) -> impl Iterator<Item = &Started> {
        let window_ms = Limits::default().key_window_ms;
        let starts = self.started.get(&key.key).into_iter().flatten();
        starts.filter(move |started| started.time_ms.saturating_add(window_ms) > time_ms)
    }

    /// Whether the event there was taken by a partition as one that can be used.
    #[must_use]
    pub fn was_decided(&self, place: SourcePosition) -> bool {
        self.decided.contains(&place)
    }

    /// Whether the replay was decided, whatever came of it.
    #[must_use]
    pub fn has_decided(&self, replay: Uuid) -> bool {
        self.replays.contains(&replay)
    }

    /// Whether it was rejected, and nothing else came of it.
    #[must_use]
    pub fn was_rejected(&self, place: SourcePosition) -> bool {
        self.rejected.contains(&place) && !self.was_decided(place)
    }
}

/// Where the event stands that a record decides, and the replay that it was decided for.
fn decision_of(body: &Body) -> Option<(SourcePosition, Option<Uuid>)> {
    if let Body::EventStarted(event) = body {
        Some((event.source, event.replay))
    } else if let Body::EventIgnored(event) = body {
        Some((event.source, event.replay))
    } else if let Body::EventUnmatched(event) = body {
        Some((event.source, event.replay))
    } else if let Body::EventSignalled(event) = body {
        Some((event.source, event.replay))
    } else if let Body::EventRepeated(event) = body {
        Some((event.source, event.replay))
    } else if let Body::EventRejected(event) = body {
        Some((event.source, event.replay))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Script, run_of};
    use super::*;

    const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

    fn at(sequence: u64) -> SourcePosition {
        SourcePosition { sequence, index: 0 }
    }

    fn key(key: u128) -> EventKey {
        EventKey { tenant: "acme".to_owned(), key }
    }

    fn starts(records: &[(Header, Record)]) -> Starts {
        let mut sought = Sought::new(4);
        sought.add_key(&key(1));
        [9, 11, 13].into_iter().for_each(|sequence| sought.add_place(at(sequence)));
        let mut starts = Starts::of_sought(sought);
        records.iter().for_each(|(header, record)| starts.take(header, record));
        starts
    }

    #[test]
    fn a_start_counts_from_a_window_before_the_event_on() {
        let mut script = Script::default();
        let records = [
            script.at(1_000).event_started(1, at(5), run_of("a")),
            script.at(2_000).event_started(2, at(6), run_of("b")),
            script.at(3 * DAY_MS).event_started(1, at(7), run_of("c")),
        ];
        let starts = starts(&records);

        let found = |time_ms| {
            let key = key(1);
            let found = starts.of(&key, time_ms).map(|started| started.source.sequence);
            found.collect::<Vec<_>>()
        };
        assert_eq!(found(500), [5, 7]);
        assert_eq!(found(999 + DAY_MS), [5, 7]);
        assert_eq!(found(1_000 + DAY_MS), [7]);
        assert_eq!(found(4 * DAY_MS), Vec::<u64>::new());
        assert_eq!(starts.of(&key(2), 2_000).count(), 0);
    }

    #[test]
    fn an_event_that_was_taken_for_whoever_waits_counts_as_a_start_without_runs() {
        let mut script = Script::default();
        let signalled = script.at(1_000).event_signalled("e-1", 1, at(9));

        let starts = starts(&[signalled]);

        let key = key(1);
        let found = starts.of(&key, 1_000).map(|started| (started.source, started.runs.len()));
        assert_eq!(found.collect::<Vec<_>>(), [(at(9), 0)]);
        assert!(starts.was_decided(at(9)));
    }

    #[test]
    fn what_one_refused_and_another_took_was_not_rejected() {
        let mut script = Script::default();
        let records = [
            script.at(1_000).event_rejected(at(9)),
            script.at(2_000).event_rejected(at(11)),
            script.at(3_000).event_started(3, at(11), run_of("a")),
        ];
        let starts = starts(&records);

        assert!(starts.was_rejected(at(9)) && !starts.was_decided(at(9)));
        assert!(starts.was_decided(at(11)) && !starts.was_rejected(at(11)));
        assert!(!starts.was_decided(at(13)) && !starts.was_rejected(at(13)));
    }
}
