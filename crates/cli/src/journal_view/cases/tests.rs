use fermata_core::effect::Outcome;
use fermata_core::identity::{JournalTime, SourcePosition};
use fermata_core::json::Json;
use fermata_core::record::{CaseNotified, CaseOpened, EventUnmatched, SignalExpired};

use super::*;

/// Folds records of one partition, each at its time.
struct Journal<'a>(&'a mut ReviewList, u8);

impl Journal<'_> {
    fn record(&mut self, time_ms: u64, body: Body) {
        let record = Record::of_tenant(&"acme".parse().unwrap(), body);
        self.0.fold(&record.header(0, JournalTime(time_ms)), &record);
    }

    fn case(&self) -> Uuid {
        Uuid::from_u128(u128::from(self.1))
    }

    fn unmatched(&mut self, time_ms: u64, id: &str) {
        let event = EventReference {
            tenant: "acme".parse().unwrap(),
            id: id.into(),
            source: "/test".into(),
            kind: "a.b".into(),
            traceparent: None,
            hops: 0,
            breach: None,
            replayed: None,
        };
        let source = SourcePosition { sequence: 1, index: 0 };
        let (near, case, replay) = (Vec::new(), self.case(), None);
        let body = EventUnmatched { event, key: 1, source, near, case, replay };
        self.record(time_ms, body.into());
    }

    fn expired(&mut self, time_ms: u64, id: &str) {
        let event = EventReference {
            tenant: "acme".parse().unwrap(),
            id: id.into(),
            source: "/test".into(),
            kind: "a.b".into(),
            traceparent: None,
            hops: 0,
            breach: None,
            replayed: None,
        };
        let (number, key, case) = (None, "o-42".into(), Some(self.case()));
        self.record(time_ms, SignalExpired { number, key, event, case }.into());
    }

    fn opened(&mut self, time_ms: u64) {
        let detail = Json::from_value(&serde_json::json!({ "type": "a.b", "sample": "x" }));
        let (case, reason) = (self.case(), "unmatched".into());
        self.record(time_ms, CaseOpened { case, tier: 3, reason, detail }.into());
    }

    fn notified(&mut self, time_ms: u64) {
        let outcome = Outcome::Succeeded { output: Json::null() };
        self.record(time_ms, CaseNotified { case: self.case(), outcome }.into());
    }
}

#[test]
fn an_event_that_nobody_waited_for_is_reviewed_with_the_unmatched_ones() {
    let mut list = ReviewList::default();
    let mut journal = Journal(&mut list, 1);
    journal.expired(60_000, "first");
    journal.opened(60_000);
    journal.unmatched(61_000, "second");
    journal.expired(62_000, "third");

    let reviews = list.into_newest_first();

    assert_eq!((reviews.len(), reviews[0].count), (1, 3), "{reviews:?}");
    let events: Vec<_> = reviews[0].samples.iter().map(|sample| sample.event.clone()).collect();
    assert_eq!(events[0].as_deref(), Some("first"));
}

#[test]
fn the_oldest_reviews_are_left_out_with_their_cases_and_it_is_said() {
    let mut list = ReviewList::default();
    for number in 0..=REVIEWS_MAX as u64 {
        let case = Uuid::from_u128(u128::from(number));
        let (reason, detail) = ("unmatched".into(), Json::null());
        let body = Body::from(CaseOpened { case, tier: 3, reason, detail });
        Journal(&mut list, 0).record(number * MINUTE_MS, body);
    }

    assert!(list.find(Uuid::from_u128(0)).is_none());
    assert_eq!((list.cases.len(), list.caveats().len()), (REVIEWS_MAX, 1));
    assert_eq!(list.into_newest_first().len(), REVIEWS_MAX);
}

#[test]
fn like_events_of_a_minute_are_one_review_over_all_partitions() {
    let mut list = ReviewList::default();
    for partition in [1, 2] {
        let mut journal = Journal(&mut list, partition);
        journal.unmatched(60_000, "first");
        journal.opened(60_000);
        for id in 0..20 {
            journal.unmatched(61_000, &id.to_string());
        }
    }
    Journal(&mut list, 1).notified(62_000);
    let untold = list.find(Uuid::from_u128(2)).unwrap().told;
    Journal(&mut list, 2).notified(62_000);
    Journal(&mut list, 3).opened(120_000);

    let reviews = list.into_newest_first();

    assert!(!untold);
    assert_eq!(reviews.len(), 2, "{reviews:?}");
    let first = &reviews[1];
    assert_eq!((first.count, first.case_count, first.told), (42, 2, true));
    assert_eq!(first.case, Uuid::from_u128(1));
    assert_eq!(first.samples.len(), SAMPLES_MAX);
    assert_eq!(first.samples[0].event.as_deref(), Some("first"));
}
