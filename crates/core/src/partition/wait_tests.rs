//! Waits and events with correlation keys, over partitions that reach each
//! other at once.

use std::sync::Arc;

use super::*;
use crate::command::{
    CancelCommand, Command, Correlation, EventCommand, EventReference, StartRun, Verdict,
};
use crate::identity::Tenant;
use crate::json::Json;
use crate::plan::testing::noop_plan_of;
use crate::plan::{FailureClass, Plan, Work};
use crate::record::{CaseOpened, EndReason, Kind, SignalExpired};
use crate::relay::{RelayCommand, Relayed, SIGNAL_DATA_BYTES_MAX, SignalData};

const PLAN: Digest = Digest([7; 32]);
const TIMEOUT_MS: u64 = 60_000;
const START_MS: u64 = 1_000_000;

/// Waits for a payment and for anything, both under the key that the input names.
fn plan() -> Plan {
    let mut plan = noop_plan_of(&[&[], &[]]);
    for (node, event) in plan.nodes.iter_mut().zip(["order.paid", "order.*"]) {
        let (event, correlation) = (event.to_owned(), "input.key".to_owned());
        node.work = Work::Wait { event, correlation };
        node.timeout_ms = TIMEOUT_MS;
    }
    plan
}

fn limits() -> Limits {
    Limits { partitions: 3, signal_kept_ms: 10_000, ..Limits::default() }
}

/// Partitions whose outboxes are emptied into each other when [`Net::deliver`] says so.
struct Net {
    partitions: Vec<Partition>,
    /// Every record of every partition, in the order in which it was decided.
    records: Vec<(PartitionId, Record)>,
    now_ms: u64,
    events: u64,
}

impl Net {
    fn new(limits: Limits) -> Self {
        let partition = |number| {
            let mut partition = Partition::new(PartitionId(number), limits);
            partition.add_plan(PLAN, Arc::new(Executable::new(plan()).unwrap()));
            partition
        };
        let partitions = (0..limits.partitions).map(partition).collect();
        let mut net = Self { partitions, records: Vec::new(), now_ms: START_MS, events: 0 };
        net.pass(0);
        net
    }

    /// Decides in one partition, in a frame of its own.
    fn decide(&mut self, at: usize, decide: impl FnOnce(&mut Partition, &mut Decision)) {
        let mut out = Decision::default();
        let partition = &mut self.partitions[at];
        partition.begin_frame(JournalTime(self.now_ms));
        decide(partition, &mut out);
        self.records.extend(out.records.into_iter().map(|record| (partition.id(), record)));
    }

    /// Lets time pass and everything due happen.
    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        for at in 0..self.partitions.len() {
            let now = JournalTime(self.now_ms);
            while self.partitions[at].due_run(now).is_some() {
                self.decide(at, Partition::fire_timer);
            }
            while self.partitions[at].is_signal_due(now) {
                self.decide(at, Partition::expire_signal);
            }
        }
    }

    fn next(&self) -> Option<(PartitionId, PartitionId, Relayed)> {
        self.partitions.iter().find_map(|partition| {
            let source = partition.id();
            let target = partition.outbox().targets().next()?;
            let queued = partition.outbox().waiting(target).next()?;
            let (index, previous) = (queued.index, queued.previous);
            let command = Some(queued.command.clone());
            Some((source, target, Relayed { source, index, previous, command }))
        })
    }

    /// Delivers until nothing is left, everything twice.
    fn deliver(&mut self) {
        while let Some((source, target, relayed)) = self.next() {
            for _ in 0..2 {
                self.decide(usize::from(target.0), |partition, out| {
                    partition.decide_relayed(&relayed, (1, 0), out);
                });
            }
            let report = Report::Relayed { target, up_to: relayed.index };
            self.decide(usize::from(source.0), |partition, out| partition.report(&report, out));
            for at in 0..self.partitions.len() {
                while self.partitions[at].held_back_run().is_some() {
                    self.decide(at, Partition::resume);
                }
            }
        }
    }

    fn event(&mut self, at: usize, kind: &str, key: Option<&str>, verdict: Verdict) -> RunId {
        self.events += 1;
        let event = EventReference {
            tenant: tenant(),
            id: format!("event-{}", self.events).into(),
            source: "/test".into(),
            kind: kind.into(),
            traceparent: None,
            hops: 0,
            breach: None,
            replayed: None,
        };
        let data = SignalData::of(serde_json::value::to_raw_value(&self.events).ok().as_deref());
        let correlation = key.map(|key| Box::new(Correlation { key: key.into(), data }));
        let (key, source) =
            (u128::from(self.events), SourcePosition { sequence: self.events, index: 0 });
        let command = EventCommand { event, key, source, replay: None, verdict, correlation };
        let command = Command::Event(command);
        self.decide(at, |partition, out| partition.decide(&command, out));
        RunId::new(self.partitions[at].id(), &tenant(), key, source, "wait", None)
    }

    fn start(&mut self, at: usize, key: &str) -> RunId {
        let run = StartRun {
            strategy: "wait".into(),
            strategy_version: 1,
            plan: PLAN,
            input: Json::from_value(&serde_json::json!({ "key": key })),
        };
        self.event(at, "order.placed", None, Verdict::Start { runs: vec![run] })
    }

    fn signal(&mut self, kind: &str, key: &str) {
        let at = usize::try_from(self.events % 3).unwrap();
        self.event(at, kind, Some(key), Verdict::Unmatched { near: Vec::new() });
    }

    fn cancel(&mut self, run: RunId) {
        let command = Command::Cancel(CancelCommand {
            id: run.as_uuid(),
            run,
            by: "test".to_owned(),
            reason: "test".to_owned(),
            reply_to: None,
        });
        let at = usize::from(run.partition().0);
        self.decide(at, |partition, out| partition.decide(&command, out));
    }

    fn count(&self, kind: Kind) -> usize {
        self.records.iter().filter(|(_, record)| record.body.kind() == kind).count()
    }

    /// Ids of the events that ended waits of `run`, by node.
    fn outputs(&self, run: RunId) -> Vec<(String, String)> {
        let of_run = self.records.iter().filter(|(_, record)| record.run == Some(run));
        let output = |record: &Record| {
            let Body::NodeSucceeded(succeeded) = &record.body else { return None };
            let id = succeeded.output.parse()["id"].as_str()?.to_owned();
            Some((record.node.as_ref()?.to_string(), id))
        };
        of_run.filter_map(|(_, record)| output(record)).collect()
    }

    fn ending(&self, run: RunId) -> Option<Kind> {
        let of_run = self.records.iter().filter(|(_, record)| record.run == Some(run));
        of_run.map(|(_, record)| record.body.kind()).find(|kind| kind.ends_run())
    }

    /// Nothing is under way, and nobody waits.
    fn assert_at_rest(&self) {
        for partition in &self.partitions {
            assert!(partition.outbox().is_empty());
            assert_eq!(partition.correlations().waits(), 0);
        }
    }
}

fn tenant() -> Tenant {
    "acme".parse().unwrap()
}

fn pair(node: &str, event: &str) -> (String, String) {
    (node.to_owned(), event.to_owned())
}

#[test]
fn one_event_resumes_every_wait_that_it_matches_once() {
    let mut net = Net::new(limits());
    let runs = [net.start(0, "k"), net.start(1, "k")];
    net.deliver();

    net.signal("order.paid", "k");
    net.deliver();
    net.signal("order.paid", "k");
    net.deliver();

    for run in runs {
        assert_eq!(net.outputs(run), [pair("n0", "event-3"), pair("n1", "event-3")]);
        assert_eq!(net.ending(run), Some(Kind::RunSucceeded));
    }
    assert_eq!(net.count(Kind::WaitMatched), 4);
    assert_eq!(net.count(Kind::SignalKept), 1, "the second one meets nobody");
    net.assert_at_rest();
}

#[test]
fn an_event_that_comes_before_the_wait_is_taken_by_the_first_that_matches() {
    let mut net = Net::new(limits());
    net.signal("order.paid", "k");
    net.signal("order.sent", "k");
    net.signal("order.paid", "other");
    net.deliver();
    assert_eq!(net.count(Kind::SignalKept), 3);

    let run = net.start(0, "k");
    net.deliver();

    assert_eq!(net.outputs(run), [pair("n0", "event-1"), pair("n1", "event-2")]);
    assert_eq!(net.ending(run), Some(Kind::RunSucceeded));
    let late = net.start(1, "k");
    net.deliver();
    assert_eq!(net.outputs(late), [], "nobody gets a signal that somebody has taken");
}

#[test]
fn a_wait_takes_no_event_of_another_type_key_or_tenant() {
    let mut net = Net::new(limits());
    let run = net.start(0, "k");
    net.deliver();

    net.signal("order.paid.late", "k");
    net.signal("order", "k");
    net.signal("order.paid", "K");
    net.deliver();

    assert_eq!(net.outputs(run), []);
    assert_eq!(net.count(Kind::SignalKept), 3);
}

#[test]
fn a_wait_that_takes_too_long_fails_and_is_forgotten_where_its_key_lives() {
    let mut net = Net::new(limits());
    let run = net.start(0, "k");
    net.deliver();

    net.pass(TIMEOUT_MS - 1);
    assert_eq!(net.ending(run), None);
    net.pass(1);
    net.deliver();

    assert_eq!(net.ending(run), Some(Kind::RunFailed));
    let failed = net.records.iter().find_map(|(_, record)| {
        if let Body::RunFailed(failed) = &record.body { Some(failed.reason.clone()) } else { None }
    });
    let Some(EndReason::Failed { class: FailureClass::Timeout, detail, .. }) = failed else {
        panic!("{failed:?}")
    };
    // One may have come in time, and be decided later.
    assert!(detail.contains("no event was decided within the time limit"), "{detail}");
    assert_eq!(net.count(Kind::WaitClosed), 2);
    net.assert_at_rest();
}

#[test]
fn an_event_that_crosses_the_end_of_its_wait_is_recorded_late_and_changes_nothing() {
    let mut net = Net::new(limits());
    let run = net.start(0, "k");
    net.deliver();
    net.signal("order.paid", "k");
    // The signal is taken where the key lives; the run is cancelled meanwhile.
    while let Some((_, target, relayed)) = net
        .next()
        .filter(|(_, _, relayed)| !matches!(relayed.command, Some(RelayCommand::Resume(_))))
    {
        net.decide(usize::from(target.0), |partition, out| {
            partition.decide_relayed(&relayed, (1, 0), out);
        });
        let report = Report::Relayed { target, up_to: relayed.index };
        let source = usize::from(relayed.source.0);
        net.decide(source, |partition, out| partition.report(&report, out));
    }

    net.cancel(run);
    net.deliver();

    assert_eq!(net.ending(run), Some(Kind::RunCancelled));
    assert_eq!(net.outputs(run), []);
    assert_eq!(net.count(Kind::EffectLate), 2);
    net.assert_at_rest();
}

#[test]
fn a_signal_that_nobody_takes_becomes_an_unmatched_case_when_its_time_is_over() {
    let mut net = Net::new(limits());
    net.signal("order.paid", "k");
    net.event(0, "order.sent", Some("k"), Verdict::Ignored { strategy: "quiet".into() });
    net.deliver();
    assert_eq!(net.count(Kind::EventSignalled), 2);
    assert_eq!(net.count(Kind::CaseOpened), 0);

    net.pass(10_000);

    let expired = net.records.iter().filter_map(|(_, record)| {
        if let Body::SignalExpired(SignalExpired { case, .. }) = &record.body {
            Some(case.is_some())
        } else {
            None
        }
    });
    assert_eq!(expired.collect::<Vec<_>>(), [true, false], "what is ignored needs nobody");
    let reason = net.records.iter().find_map(|(_, record)| {
        if let Body::CaseOpened(CaseOpened { reason, .. }) = &record.body {
            Some(reason.to_string())
        } else {
            None
        }
    });
    assert_eq!(reason.as_deref(), Some("unmatched"));
    let run = net.start(0, "k");
    net.deliver();
    assert_eq!(net.outputs(run), [], "it is gone");
}

#[test]
fn an_event_without_a_correlation_key_is_unmatched_at_once() {
    let mut net = Net::new(limits());

    net.event(0, "order.paid", None, Verdict::Unmatched { near: Vec::new() });

    assert_eq!((net.count(Kind::EventUnmatched), net.count(Kind::OutboxQueued)), (1, 0));
}

#[test]
fn a_repeated_event_signals_nobody() {
    let mut net = Net::new(limits());
    net.signal("order.paid", "k");
    net.events -= 1;
    let sequence = SourcePosition { sequence: 99, index: 0 };
    let repeat = net.records.iter().find_map(|(_, record)| {
        if let Body::EventSignalled(signalled) = &record.body {
            Some(signalled.clone())
        } else {
            None
        }
    });
    let signalled = repeat.unwrap();
    let data = SignalData::default();
    let command = Command::Event(EventCommand {
        event: signalled.event,
        key: signalled.key,
        source: sequence,
        replay: None,
        verdict: Verdict::Unmatched { near: Vec::new() },
        correlation: Some(Box::new(Correlation { key: "k".into(), data })),
    });
    net.decide(0, |partition, out| partition.decide(&command, out));

    assert_eq!((net.count(Kind::EventRepeated), net.count(Kind::OutboxQueued)), (1, 1));
}

#[test]
fn a_wait_too_many_under_one_key_is_refused_and_fails() {
    let mut net = Net::new(limits());
    // Each run waits twice.
    for _ in 0..WAITS_OF_KEY_MAX / 2 {
        net.start(0, "k");
    }
    net.deliver();
    let refused = net.start(1, "k");
    net.deliver();

    assert_eq!(net.ending(refused), Some(Kind::RunFailed));
    assert_eq!(net.count(Kind::WaitSubscribed), WAITS_OF_KEY_MAX);
}

#[test]
fn a_signal_too_many_under_one_key_is_given_up_at_once() {
    let mut net = Net::new(limits());
    for _ in 0..=SIGNALS_OF_KEY_MAX {
        net.signal("order.paid", "k");
    }
    net.deliver();

    assert_eq!(net.count(Kind::SignalKept), SIGNALS_OF_KEY_MAX);
    assert_eq!((net.count(Kind::SignalExpired), net.count(Kind::CaseOpened)), (1, 1));
}

#[test]
fn while_an_outbox_is_full_waits_are_held_back_and_events_refused() {
    let mut net = Net::new(Limits { outbox_max: 1, partitions: 1, ..limits() });
    let run = net.start(0, "k");
    assert_eq!(net.count(Kind::NodeWaiting), 1, "the second one finds no room");

    net.event(0, "order.paid", Some("k"), Verdict::Unmatched { near: Vec::new() });
    assert_eq!((net.count(Kind::EventSignalled), net.count(Kind::EventRejected)), (0, 1));

    net.deliver();
    assert_eq!(net.count(Kind::NodeWaiting), 2);
    net.event(0, "order.paid", Some("k"), Verdict::Unmatched { near: Vec::new() });
    net.deliver();
    assert_eq!(net.ending(run), Some(Kind::RunSucceeded));
}

fn relayed(index: u64, previous: u64, command: Option<RelayCommand>) -> Relayed {
    Relayed { source: PartitionId(1), index, previous, command }
}

fn taken(net: &Net) -> u64 {
    net.partitions[0].high_waters().of(PartitionId(1))
}

#[test]
fn a_command_that_cannot_be_read_is_poisoned_and_the_next_one_goes_on() {
    let mut net = Net::new(limits());

    net.decide(0, |partition, out| partition.decide_relayed(&relayed(4, 0, None), (1, 0), out));
    net.decide(0, |partition, out| partition.decide_relayed(&relayed(6, 4, None), (2, 0), out));

    assert_eq!((taken(&net), net.count(Kind::CommandPoisoned)), (6, 2));
}

#[test]
fn a_command_whose_predecessor_is_missing_is_not_taken_and_filed() {
    let mut net = Net::new(limits());

    net.decide(0, |partition, out| partition.decide_relayed(&relayed(6, 4, None), (1, 0), out));

    let reason = net.records.iter().find_map(|(_, record)| {
        if let Body::CommandPoisoned(poisoned) = &record.body {
            Some(poisoned.reason.to_string())
        } else {
            None
        }
    });
    assert_eq!((taken(&net), reason.as_deref()), (0, Some("relay_ahead")));
}

#[test]
fn a_message_of_commands_that_is_poisoned_whole_is_taken_by_one_record() {
    let mut net = Net::new(limits());
    let relays = [relayed(4, 0, None), relayed(6, 4, None), relayed(7, 6, None)];

    net.decide(0, |partition, out| partition.poison_relays(&relays, 1, ("x", "y"), out));
    net.decide(0, |partition, out| partition.poison_relays(&relays, 2, ("x", "y"), out));

    assert_eq!((taken(&net), net.count(Kind::RelayTaken)), (7, 1));
}

#[test]
fn data_that_is_too_large_is_left_out_and_its_size_told() {
    let text = format!("\"{}\"", "x".repeat(SIGNAL_DATA_BYTES_MAX));
    let raw = serde_json::value::RawValue::from_string(text).unwrap();

    let data = SignalData::of(Some(&raw));

    assert!(data.json.is_null());
    assert_eq!(data.omitted_bytes, Some(SIGNAL_DATA_BYTES_MAX as u64 + 2));
}
