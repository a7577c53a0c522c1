use uuid::Uuid;

use super::testing::{event, start};
use super::*;
use crate::command::{
    CancelCommand, CaseCommand, Command, DefineCommand, Replayed, StartRun, Verdict,
};
use crate::effect::EventMatch;
use crate::flags::Flags;
use crate::identity::Tenant;
use crate::json::Json;
use crate::plan::testing::noop_plan;
use crate::record::Kind;

fn tenant() -> Tenant {
    "acme".parse().unwrap()
}

fn partition(limits: Limits) -> Partition {
    let mut partition = Partition::new(PartitionId(0), limits);
    partition.add_plan(Digest::of(b"plan"), Arc::new(Executable::new(noop_plan(3)).unwrap()));
    partition.begin_frame(JournalTime(1_000));
    partition
}

fn verdicts() -> [Verdict; 4] {
    [
        start(),
        Verdict::Ignored { strategy: "quiet".into() },
        Verdict::Unmatched { near: Vec::new() },
        Verdict::Rejected {
            reason: "contract".into(),
            detail: String::new(),
            original: Digest::of(b"bytes"),
        },
    ]
}

fn cancel(id: u128, run: RunId) -> Command {
    Command::Cancel(CancelCommand {
        id: Uuid::from_u128(id),
        run,
        by: "test".to_owned(),
        reason: "test".to_owned(),
        reply_to: Some("reply".into()),
    })
}

fn decided(partition: &mut Partition, command: &Command) -> (Vec<Kind>, Vec<Effect>) {
    let mut out = Decision::default();
    partition.decide(command, &mut out);
    (out.records.iter().map(|record| record.body.kind()).collect(), out.effects)
}

#[test]
fn an_authorised_replay_is_decided_once_whatever_is_decided() {
    for verdict in verdicts() {
        let mut partition = partition(Limits::default());
        let replay = event(1, Some(Uuid::from_u128(7)), verdict.clone());
        let (first, _) = decided(&mut partition, &replay);
        let (again, _) = decided(&mut partition, &replay);

        assert!(!first.is_empty(), "{verdict:?}");
        assert_eq!(again, [], "{verdict:?}");
        let (event_itself, _) = decided(&mut partition, &event(1, None, start()));
        let is_claimed = matches!(verdict, Verdict::Start { .. });
        let expected = if is_claimed { Kind::EventRepeated } else { Kind::EventStarted };
        assert_eq!(event_itself.first(), Some(&expected), "{verdict:?}");
    }
}

#[test]
fn what_a_replay_starts_claims_its_key_also_in_a_window_that_is_full() {
    let limits = Limits { keys_max: 10, ..Limits::default() };
    let mut partition = partition(limits);
    for id in 1..=10 {
        assert_eq!(decided(&mut partition, &event(id, None, start())).0[0], Kind::EventStarted);
    }
    let replay = |source: u64, key: u128, id: u128| {
        let mut command = event(source, Some(Uuid::from_u128(id)), start());
        let Command::Event(of_event) = &mut command else { panic!() };
        of_event.key = key;
        command
    };

    let kind = |partition: &mut Partition, command| decided(partition, &command).0[0];
    assert_eq!(kind(&mut partition, event(11, None, start())), Kind::EventRejected);
    assert_eq!(kind(&mut partition, replay(11, 11, 1)), Kind::EventStarted);
    assert_eq!(kind(&mut partition, replay(11, 11, 2)), Kind::EventStarted);
    assert_eq!(partition.keys.len(), 11);
    let mut again = event(12, None, start());
    let Command::Event(of_event) = &mut again else { panic!() };
    of_event.key = 11;
    assert_eq!(kind(&mut partition, again), Kind::EventRepeated);
}

#[test]
fn a_replay_that_is_asked_for_unless_its_event_has_started_work_is_a_repeat_behind_a_start() {
    let replay = |source: u64, unless_started: bool, verdict: Verdict| {
        let mut command = event(source, Some(Uuid::from_u128(source.into())), verdict);
        let Command::Event(of_event) = &mut command else { panic!() };
        of_event.key = 1;
        let said = Replayed { unless_started, ..Replayed::default() };
        of_event.event.replayed = Some(Arc::new(said));
        command
    };
    let mut partition = partition(Limits::default());
    let mut kinds = |command: &Command| decided(&mut partition, command).0;
    let rejected =
        verdicts().into_iter().find(|verdict| matches!(verdict, Verdict::Rejected { .. }));

    // What was rejected before claims no key, so that the first of both starts the work.
    assert_eq!(kinds(&replay(2, true, rejected.expect("one")))[0], Kind::EventRejected);
    assert_eq!(kinds(&event(1, None, start()))[0], Kind::EventStarted);
    assert_eq!(kinds(&replay(3, true, start())), [Kind::EventRepeated]);
    assert_eq!(kinds(&replay(3, true, start())), [], "its id is known");
    assert_eq!(kinds(&replay(4, false, start()))[0], Kind::EventStarted);

    // And where nothing has started, it does.
    let mut partition = super::tests::partition(Limits::default());
    let mut kinds = |command: &Command| decided(&mut partition, command).0;
    assert_eq!(kinds(&replay(3, true, start()))[0], Kind::EventStarted);
    assert_eq!(kinds(&event(1, None, start())), [Kind::EventRepeated]);
}

#[test]
fn every_record_of_a_replay_names_who_asked_and_why() {
    let (by, reason) = (Some("ann".into()), Some("the amount was missing".into()));
    let said = Replayed { by, reason, unless_started: false };
    for verdict in verdicts() {
        let mut partition = partition(Limits::default());
        let mut command = event(1, Some(Uuid::from_u128(7)), verdict.clone());
        let Command::Event(of_event) = &mut command else { panic!() };
        let bytes = of_event.event.bytes();
        of_event.event.replayed = Some(Arc::new(said.clone()));
        assert_eq!(of_event.event.bytes(), bytes + "ann".len() + "the amount was missing".len());

        let mut out = Decision::default();
        partition.decide(&command, &mut out);

        let of_event = |record: &Record| {
            Some(if let Body::EventStarted(body) = &record.body {
                body.event.clone()
            } else if let Body::EventIgnored(body) = &record.body {
                body.event.clone()
            } else if let Body::EventUnmatched(body) = &record.body {
                body.event.clone()
            } else if let Body::EventRejected(body) = &record.body {
                body.event.clone()
            } else if let Body::RunStarted(body) = &record.body {
                body.event.clone()
            } else {
                return None;
            })
        };
        let told = out.records.iter().filter_map(of_event).collect::<Vec<_>>();
        let expected = if matches!(verdict, Verdict::Start { .. }) { 2 } else { 1 };
        assert_eq!(told.len(), expected, "{verdict:?}");
        assert!(told.iter().all(|event| event.replayed.as_deref() == Some(&said)), "{told:?}");
    }
}

#[test]
fn what_strategies_made_of_an_event_is_told_once_and_of_no_replay() {
    let told = |effects: Vec<Effect>| {
        let told =
            |effect| if let Effect::Matched(matched) = effect { Some(matched) } else { None };
        effects.into_iter().filter_map(told).collect::<Vec<_>>()
    };
    let mut both = start();
    if let Verdict::Start { runs } = &mut both {
        let other = StartRun { strategy: "other".into(), ..runs[0].clone() };
        runs.push(other);
    }
    let started =
        |strategy: &str, is_further| EventMatch::Started { strategy: strategy.into(), is_further };
    let [_, ignored, _, rejected] = verdicts();
    for (verdict, expected) in [
        (both, vec![started("test", false), started("other", true)]),
        (ignored, vec![EventMatch::Ignored { strategy: "quiet".into() }]),
        (
            Verdict::Unmatched { near: vec!["s: no".to_owned()] },
            vec![EventMatch::Missed { near: vec!["s: no".to_owned()] }],
        ),
        (rejected, Vec::new()),
    ] {
        let replay = event(1, Some(Uuid::from_u128(7)), verdict.clone());
        let (_, of_replay) = decided(&mut partition(Limits::default()), &replay);
        assert_eq!(told(of_replay), [], "{verdict:?}");
        let mut partition = partition(Limits::default());
        let (_, first) = decided(&mut partition, &event(1, None, verdict.clone()));
        assert_eq!(told(first), expected);

        // Delivered again, and published again: only what started runs claims its key.
        let (_, again) = decided(&mut partition, &event(1, None, verdict.clone()));
        assert_eq!(told(again), []);
        let is_start = matches!(verdict, Verdict::Start { .. });
        let mut repeat = event(2, None, verdict);
        let Command::Event(repeated) = &mut repeat else { panic!() };
        repeated.key = 1;
        let (_, repeat) = decided(&mut partition, &repeat);
        assert_eq!(told(repeat), if is_start { Vec::new() } else { expected });
    }
}

#[test]
fn ids_of_commands_are_bounded_like_keys() {
    let mut partition = partition(Limits { keys_max: 2, ..Limits::default() });
    let nobody = RunId::new(
        PartitionId(0),
        &tenant(),
        1,
        SourcePosition { sequence: 9, index: 0 },
        "",
        None,
    );
    for id in 1..=2 {
        assert_eq!(decided(&mut partition, &cancel(id, nobody)).0, [Kind::CancelAnswered]);
    }

    let (records, effects) = decided(&mut partition, &cancel(3, nobody));
    assert_eq!(records, []);
    let [Effect::Reply { answer, .. }] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!(answer.as_str(), r#"{"answer":"window_full"}"#);
    let (known, effects) = decided(&mut partition, &cancel(2, nobody));
    assert_eq!((known.len(), effects.len()), (0, 1), "a repetition is answered");

    let replay = event(1, Some(Uuid::from_u128(4)), start());
    assert_eq!(decided(&mut partition, &replay).0, [Kind::EventRejected]);
    let define = Command::Define(DefineCommand {
        id: Uuid::from_u128(5),
        by: "test".to_owned(),
        strategies: Vec::new(),
        workflows: Vec::new(),
        reply_to: Some("reply".into()),
        flags: Flags::default(),
        contracts: Vec::new(),
        contract_modes: std::collections::BTreeMap::new(),
        retire: crate::command::Retirement::default(),
    });
    let (records, effects) = decided(&mut partition, &define);
    assert_eq!((records.len(), effects.len()), (0, 1));
}

#[test]
fn a_run_waits_for_its_turn_once() {
    let run = |sequence| {
        RunId::new(PartitionId(0), &tenant(), 1, SourcePosition { sequence, index: 0 }, "", None)
    };
    let mut held_back = [run(1), run(2), run(1)].into_iter().collect::<HeldBack>();

    assert_eq!(held_back.pop(), Some(run(1)));
    held_back.push(run(2));
    held_back.push(run(1));
    assert_eq!(held_back.pop(), Some(run(2)));
    assert_eq!(held_back.pop(), Some(run(1)));
    assert_eq!(held_back.pop(), None);
}

#[test]
fn the_end_of_a_run_names_its_strategy_unless_a_snapshot_lies_between() {
    let mut partition = partition(Limits::default());
    let mut verdict = start();
    if let Verdict::Start { runs } = &mut verdict {
        runs[0].strategy = "orders".into();
    }
    let (_, effects) = decided(&mut partition, &event(1, None, verdict));
    let [Effect::Matched(_), Effect::Start(attempt)] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    let (id, end) = (attempt.run, JournalTime(2_000));
    let run = partition.runs.get(&id).unwrap();

    assert_eq!(run.ended(id, end, false).strategy.as_deref(), Some("orders"));
    let restored = Run::restore(run.image(id), run.executable.clone()).unwrap();
    assert_eq!(restored.ended(id, end, false).strategy, None);
}

#[test]
fn a_quarantined_run_leaves_nothing_behind() {
    let mut partition = partition(Limits::default());
    let (records, effects) = decided(&mut partition, &event(1, None, start()));
    assert_eq!(records, [Kind::EventStarted, Kind::RunStarted, Kind::NodeDispatched]);
    let [Effect::Matched(_), Effect::Start(attempt)] = effects.as_slice() else {
        panic!("{effects:?}")
    };

    let mut out = Decision::default();
    partition.quarantine(attempt.run, "it panicked", &mut out);
    partition.quarantine(attempt.run, "it panicked", &mut out);

    let kinds = out.records.iter().map(|record| record.body.kind()).collect::<Vec<_>>();
    assert_eq!(kinds, [Kind::RunQuarantined, Kind::CaseOpened]);
    assert_eq!((partition.running(), partition.next_due()), (0, None));
    let report = AttemptReport {
        run: attempt.run,
        node: attempt.node.clone(),
        activation: 1,
        attempt: 1,
        tenant: Some(tenant()),
        outcome: Outcome::Succeeded { output: Json::null() },
    };
    let mut out = Decision::default();
    partition.report(&Report::Attempt(report), &mut out);
    let [late] = out.records.as_slice() else { panic!("{:?}", out.records) };
    assert_eq!((late.body.kind(), &late.tenant), (Kind::EffectLate, &Some(tenant())));
}

#[test]
fn the_first_outcome_of_a_case_is_recorded_whoever_brings_it() {
    let mut partition = partition(Limits::default());
    let mut out = Decision::default();
    partition.decide(&event(1, None, Verdict::Unmatched { near: Vec::new() }), &mut out);
    let case = *partition.cases().next().expect("a case").0;
    let outcome = Outcome::Succeeded { output: Json::null() };
    let command = CaseCommand { case, attempt: 1, outcome: outcome.clone() };
    out.records.clear();

    partition.decide(&Command::Case(command), &mut out);
    partition.report(&Report::Case { case, attempt: 1, outcome }, &mut out);

    let kinds = out.records.iter().map(|record| record.body.kind()).collect::<Vec<_>>();
    assert_eq!(kinds, [Kind::CaseNotified]);
}

#[test]
fn a_replay_that_finds_no_room_says_nothing_of_its_event_and_leaves_room_for_others() {
    let limits = Limits { keys_max: 10, ..Limits::default() };
    let mut partition = partition(limits);
    let mut out = Decision::default();
    for id in 1..=10 {
        let replay = Some(Uuid::from_u128(id));
        partition
            .decide(&event(id as u64, replay, Verdict::Ignored { strategy: "a".into() }), &mut out);
    }
    let refused = out.records.last().cloned().expect("a record");
    out.records.clear();

    partition.decide(&event(10, None, start()), &mut out);
    let run = RunId::new(
        PartitionId(0),
        &tenant(),
        7,
        SourcePosition { sequence: 7, index: 0 },
        "a",
        None,
    );
    partition.decide(&cancel(99, run), &mut out);

    let Body::EventRejected(rejected) = refused.body else { panic!("{refused:?}") };
    assert_eq!((&*rejected.reason, rejected.replay), ("window_full", Some(Uuid::from_u128(10))));
    let kinds = out.records.iter().map(|record| record.body.kind()).collect::<Vec<_>>();
    assert!(
        kinds.contains(&Kind::EventStarted) && kinds.contains(&Kind::CancelAnswered),
        "{kinds:?}"
    );
}
