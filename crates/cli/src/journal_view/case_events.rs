//! Where the events of review cases stand, as the journals tell it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use fermata_core::identity::{PartitionId, RunId, SourcePosition, Tenant};
use fermata_core::partition::Limits;
use fermata_core::record::{Body, Header, Record};
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
    /// Those that were published again, and those that started work since: to decide each once more would
    /// start one event's work several times.
    pub repeated: u64,
    /// What the case's run did, where it is of one.
    pub done: Done,
    /// Other runs that the run's event started and that are of no case to be resolved: the event is decided once
    /// more as a whole.
    pub others: u64,
}

/// What runs did that a new run from the beginning does again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Nodes that succeeded.
    pub succeeded: u64,
    /// Nodes that did not succeed and of which nobody knows whether their effect happened: their outcome is
    /// unknown, or an attempt failed in a way that does not tell.
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
    /// Nodes, and which activation of them, that may have acted and did not succeed so far.
    perhaps_done: HashSet<(RunId, Arc<str>, u32)>,
    kept: HashMap<Kept, VecDeque<Uuid>>,
    /// Where the newest event of a key stands that is to be decided once more, and when it was decided.
    keys: HashMap<u128, Unmatched>,
}

#[derive(Debug, Clone, Copy)]
struct Unmatched {
    case: Uuid,
    place: SourcePosition,
    time_ms: u64,
    /// Whether it is the start of a case's run that stands there.
    has_started: bool,
}

/// How long a key is one event's, milliseconds: as partitions have it.
fn key_window_ms() -> u64 {
    Limits::default().key_window_ms
}

impl CaseEvents {
    fn of(review: &Review) -> Self {
        let members = &review.members;
        Self {
            tenant: review.tenant.clone(),
            runs: members.iter().filter_map(|(case, run)| Some(((*run)?, *case))).collect(),
            cases: members.keys().map(|case| (*case, EventsOfCase::default())).collect(),
            perhaps_done: HashSet::new(),
            kept: HashMap::new(),
            keys: HashMap::new(),
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
            // The starts of the cases' own runs come again.
            events.keys.retain(|_, newest| !newest.has_started);
            events.pass(reader, partitions, Self::take_kept).await?;
        }
        Ok(events.finish())
    }

    async fn pass(
        &mut self,
        reader: &StreamReader,
        partitions: &[PartitionId],
        take: impl Fn(&mut Self, &Header, &Record),
    ) -> Result<(), CliError> {
        for partition in partitions {
            let mut journal = JournalReader::open(reader, *partition).await?;
            while let Some(records) = journal.next().await? {
                records.iter().for_each(|(header, record)| take(self, header, record));
            }
        }
        Ok(())
    }

    fn take(&mut self, header: &Header, record: &Record) {
        self.take_done(header, record);
        if let Body::EventStarted(started) = &record.body {
            self.take_started(started.key, header.time.0, started.replay.is_some());
            let cases = started.runs.iter().filter_map(|run| self.runs.get(run).copied());
            let cases: Vec<Uuid> = cases.collect();
            // Decided once more with the first of them, it starts the work of the others, too.
            let Some(case) = cases.first().copied() else { return };
            let others = started.runs.len() - cases.len();
            self.cases.entry(case).and_modify(|events| {
                events.add(started.source);
                events.others += others as u64;
            });
            // What starts from now on does these runs' work again.
            let (place, time_ms) = (started.source, header.time.0);
            let newest = Unmatched { case, place, time_ms, has_started: true };
            self.keys.insert(started.key, newest);
        } else if let Body::EventUnmatched(unmatched) = &record.body
            && self.cases.contains_key(&unmatched.case)
        {
            let (case, place) = (unmatched.case, unmatched.source);
            let time_ms = header.time.0;
            let newest = Unmatched { case, place, time_ms, has_started: false };
            self.take_unmatched(unmatched.key, newest);
        } else if let Body::SignalExpired(expired) = &record.body
            && let Some(case) = expired.case.filter(|case| self.cases.contains_key(case))
        {
            let event = (expired.event.source.clone(), expired.event.id.clone());
            self.kept.entry(event).or_default().push_back(case);
        }
    }

    /// What the nodes of the cases' runs did.
    fn take_done(&mut self, header: &Header, record: &Record) {
        let (Some(run), Some(node)) = (record.run, &header.node) else { return };
        let Some(case) = self.runs.get(&run) else { return };
        let named = || (run, node.clone(), header.activation);
        if let Body::NodeSucceeded(_) = &record.body {
            self.perhaps_done.remove(&named());
            self.cases.entry(*case).and_modify(|events| events.done.succeeded += 1);
        } else if may_have_acted(header, &record.body) {
            self.perhaps_done.insert(named());
        }
    }

    /// An event that was published several times while nothing matched it is one.
    fn take_unmatched(&mut self, key: u128, unmatched: Unmatched) {
        let Unmatched { case, place, time_ms, has_started: _ } = unmatched;
        let before = self
            .keys
            .get(&key)
            .filter(|before| time_ms.saturating_sub(before.time_ms) < key_window_ms());
        let is_repeated = before.is_some();
        let Some(events) = self.cases.get_mut(&case) else { return };
        if is_repeated {
            events.repeated += 1;
        } else {
            events.add(place);
            self.keys.insert(key, unmatched);
        }
    }

    /// What was published again since or replayed, and started work, is done.
    /// What is published a day later has another event's key; a replay is of the same event whenever it comes.
    fn take_started(&mut self, key: u128, time_ms: u64, is_replay: bool) {
        let Some(Unmatched { place, time_ms: before, .. }) = self.keys.get(&key).copied() else {
            return;
        };
        let Some(since) = time_ms.checked_sub(before) else { return };
        if since >= key_window_ms() && !is_replay {
            return;
        }
        for events in self.cases.values_mut().filter(|events| events.places.contains(&place)) {
            events.places.retain(|of| *of != place);
            events.others = 0;
            events.repeated += 1;
        }
    }

    /// Where what nobody came for stands; several copies of it are one event.
    fn take_kept(&mut self, header: &Header, record: &Record) {
        let time_ms = header.time.0;
        if let Body::EventStarted(started) = &record.body {
            self.take_started(started.key, time_ms, started.replay.is_some());
        } else if let Body::EventSignalled(signalled) = &record.body
            && signalled.event.tenant == self.tenant
        {
            let event = (signalled.event.source.clone(), signalled.event.id.clone());
            if let Some(case) = self.kept.get_mut(&event).and_then(VecDeque::pop_front) {
                let place = signalled.source;
                let newest = Unmatched { case, place, time_ms, has_started: false };
                self.take_unmatched(signalled.key, newest);
            }
        }
    }

    fn finish(mut self) -> BTreeMap<Uuid, EventsOfCase> {
        for (run, ..) in std::mem::take(&mut self.perhaps_done) {
            if let Some(case) = self.runs.get(&run) {
                self.cases.entry(*case).and_modify(|events| events.done.unknown += 1);
            }
        }
        for case in self.kept.into_values().flatten() {
            if let Some(events) = self.cases.get_mut(&case) {
                events.left_out += 1;
            }
        }
        self.cases
    }
}

/// Whether an attempt ended without telling whether its effect happened; a wait has none.
fn may_have_acted(header: &Header, body: &Body) -> bool {
    let class = if let Body::NodeFailed(failed) = body {
        failed.class
    } else if let Body::NodeRetrying(retrying) = body {
        retrying.class
    } else {
        return matches!(body, Body::NodeUnknown(_));
    };
    header.attempt.is_some() && class.may_have_acted()
}

#[cfg(test)]
mod tests {
    use fermata_core::plan::FailureClass;

    use super::super::testing::{Script, run_of};
    use super::*;

    fn at(sequence: u64) -> SourcePosition {
        SourcePosition { sequence, index: 0 }
    }

    fn events(case: Uuid) -> CaseEvents {
        CaseEvents {
            tenant: "acme".parse().unwrap(),
            runs: HashMap::new(),
            cases: [(case, EventsOfCase::default())].into(),
            perhaps_done: HashSet::new(),
            kept: HashMap::new(),
            keys: HashMap::new(),
        }
    }

    #[test]
    fn an_event_that_came_several_times_or_started_work_since_is_decided_once_at_the_most() {
        let case = Uuid::nil();
        let unmatched = |sequence, time_ms| Unmatched {
            case,
            place: at(sequence),
            time_ms,
            has_started: false,
        };
        let mut events = events(case);

        events.take_unmatched(1, unmatched(10, 1_000));
        events.take_unmatched(1, unmatched(11, 2_000));
        events.take_unmatched(2, unmatched(12, 3_000));
        // A day later the key is another event's.
        events.take_unmatched(1, unmatched(13, 1_000 + key_window_ms()));
        events.take_started(2, 4_000, false);
        events.take_started(3, 4_000, false);

        let of_case = events.finish().remove(&case).unwrap();
        assert_eq!(of_case.places, [at(10), at(13)]);
        assert_eq!((of_case.repeated, of_case.left_out), (2, 0));
    }

    #[test]
    fn a_failed_run_whose_event_was_decided_once_more_since_is_left_out() {
        let cases = [1, 2, 3].map(Uuid::from_u128);
        let mut events = events(cases[0]);
        events.cases = cases.map(|case| (case, EventsOfCase::default())).into();
        // Of the first event a run failed, was replayed, and that one failed, too; of the second one did.
        events.runs = [("a", cases[0]), ("b", cases[1]), ("c", cases[2])]
            .map(|(run, case)| (run_of(run), case))
            .into();
        let mut script = Script::default();
        let records = [
            script.at(1_000).event_started(1, at(10), run_of("a")),
            script.at(2_000).event_started(1, at(11), run_of("b")),
            script.at(3_000).event_started(2, at(12), run_of("c")),
            script.at(4_000).event_started(2, at(13), run_of("succeeds")),
        ];

        records.iter().for_each(|(header, record)| events.take(header, record));

        let told = events.finish().into_values().map(|of_case| (of_case.places, of_case.repeated));
        let expected = [(vec![], 1), (vec![at(11)], 0), (vec![], 1)];
        assert_eq!(told.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_event_whose_runs_failed_together_is_decided_once_more_for_all_of_them() {
        let cases = [1, 2].map(Uuid::from_u128);
        let mut events = events(cases[0]);
        events.cases = cases.map(|case| (case, EventsOfCase::default())).into();
        events.runs =
            [("a", cases[0]), ("b", cases[1])].map(|(run, case)| (run_of(run), case)).into();
        let runs = ["a", "b", "succeeds"].map(run_of).to_vec();
        let (header, record) = Script::default().at(1_000).event_started_all(1, at(10), runs);

        events.take(&header, &record);

        let told = events.finish().into_values().map(|of_case| (of_case.places, of_case.others));
        assert_eq!(told.collect::<Vec<_>>(), [(vec![at(10)], 1), (vec![], 0)]);
    }

    #[test]
    fn copies_of_an_event_that_nobody_came_for_are_decided_once_and_not_after_a_start() {
        let case = Uuid::nil();
        let mut events = events(case);
        let mut script = Script::default();
        let kept = |events: &mut CaseEvents, id: &str, copies: usize| {
            let event = (Arc::from("/test"), Arc::from(id));
            events.kept.insert(event, vec![case; copies].into());
        };
        kept(&mut events, "e-1", 3);
        kept(&mut events, "e-2", 1);
        kept(&mut events, "e-3", 2);
        let records = [
            script.at(1_000).event_signalled("e-1", 1, at(10)),
            script.at(2_000).event_signalled("e-1", 1, at(11)),
            script.at(2_000).event_signalled("e-2", 2, at(12)),
            script.at(3_000).event_signalled("e-1", 1, at(13)),
            script.at(3_000).event_signalled("e-3", 3, at(14)),
            script.at(4_000).event_started(2, at(15), run_of("a")),
        ];

        for (header, record) in &records {
            events.take_kept(header, record);
        }

        // Of `e-3` one copy is in no journal any more.
        let of_case = events.finish().remove(&case).unwrap();
        assert_eq!(of_case.places, [at(10), at(14)]);
        assert_eq!((of_case.repeated, of_case.left_out), (3, 1));
    }

    #[test]
    fn a_node_that_failed_without_telling_whether_it_acted_has_perhaps_done_it() {
        let (case, run) = (Uuid::nil(), run_of("a"));
        let mut events = events(case);
        events.runs.insert(run, case);
        let mut script = Script::default();
        let records = [
            // Tried again, and done.
            script.retrying(run, "fetch", 1, 3_100),
            script.node_succeeded(run, "fetch", 2, "1"),
            script.node_failed(run, "pay", 1, FailureClass::Timeout),
            script.node_failed(run, "check", 1, FailureClass::Http4xx),
            script.retrying(run, "ship", 1, 3_100),
            script.node_failed(run, "ship", 2, FailureClass::Http4xx),
            script.node_unknown(run, "mail", 1),
            script.retrying(run_of("b"), "pay", 1, 3_100),
        ];

        records.iter().for_each(|(header, record)| events.take(header, record));

        let done = events.finish().remove(&case).unwrap().done;
        assert_eq!(done, Done { succeeded: 1, unknown: 3 });
    }

    #[test]
    fn what_starts_a_day_later_under_the_same_key_is_another_event() {
        let case = Uuid::nil();
        let mut events = events(case);

        let unmatched = Unmatched { case, place: at(10), time_ms: 1_000, has_started: false };
        events.take_unmatched(1, unmatched);
        events.take_started(1, 1_000 + key_window_ms(), false);
        assert_eq!(events.cases[&case].places, [at(10)]);

        // A replay is of the event itself.
        events.take_started(1, 1_000 + key_window_ms(), true);
        assert_eq!(events.finish().remove(&case).unwrap().places, []);
    }
}
