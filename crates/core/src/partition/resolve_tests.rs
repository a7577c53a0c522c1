use std::sync::Arc;

use uuid::Uuid;

use super::testing::{event, start};
use super::*;
use crate::command::{Command, Verdict};
use crate::partition::resolve::{REPLAYING_MAX, RESOLUTIONS_MAX};
use crate::plan::testing::noop_plan;
use crate::record::Kind;
use crate::review::{CaseReplayed, Resolution, ResolveCommand};

const PARTITION: PartitionId = PartitionId(3);

fn partition() -> Partition {
    let mut partition = Partition::new(PARTITION, Limits::default());
    partition.add_plan(Digest::of(b"plan"), Arc::new(Executable::new(noop_plan(1)).unwrap()));
    partition.begin_frame(JournalTime(60_000));
    partition
}

fn case(number: u128) -> Uuid {
    Uuid::from_u128(u128::from(PARTITION.0) << 112 | number)
}

fn place(sequence: u64) -> SourcePosition {
    SourcePosition { sequence, index: 0 }
}

fn unmatched(sequence: u64) -> Command {
    event(sequence, None, Verdict::Unmatched { near: Vec::new() })
}

fn started(sequence: u64, replay: Uuid) -> Command {
    event(sequence, Some(replay), start())
}

fn resolve(case: Uuid, resolution: Resolution, by: &str, events: &[u64]) -> Command {
    Command::Resolve(ResolveCommand {
        case,
        tenant: "acme".parse().unwrap(),
        run: None,
        resolution,
        by: by.to_owned(),
        reason: "looked at".to_owned(),
        events: events.iter().map(|sequence| place(*sequence)).collect(),
        left_out: 0,
        reply_to: Some("reply".into()),
    })
}

fn route() -> Resolution {
    Resolution::Route { strategy: "report".into() }
}

/// What was recorded, what is to be replayed, and the answer.
fn decided(
    partition: &mut Partition,
    command: &Command,
) -> (Vec<Kind>, Vec<Vec<u64>>, serde_json::Value) {
    let mut out = Decision::default();
    partition.decide(command, &mut out);
    let kinds = out.records.iter().map(|record| record.body.kind()).collect();
    let answer = out.effects.iter().find_map(|effect| {
        let Effect::Reply { answer, .. } = effect else { return None };
        Some(answer.parse())
    });
    (kinds, replays(&out), answer.unwrap_or_default())
}

fn replays(out: &Decision) -> Vec<Vec<u64>> {
    let replays = out.effects.iter().filter_map(|effect| {
        let Effect::ReplayCase(replay) = effect else { return None };
        Some(replay.events.iter().map(|place| place.sequence).collect())
    });
    replays.collect()
}

fn report(partition: &mut Partition, case: Uuid) -> Vec<Kind> {
    let mut out = Decision::default();
    let replayed = CaseReplayed { case, asked: 1, missing: 0 };
    partition.report(&Report::CaseReplayed(replayed), &mut out);
    out.records.iter().map(|record| record.body.kind()).collect()
}

#[test]
fn what_a_tenant_decided_is_not_told_to_another() {
    let mut partition = partition();
    decided(&mut partition, &resolve(case(1), Resolution::Close, "ada", &[]));

    let mut other = resolve(case(1), Resolution::Close, "eve", &[]);
    if let Command::Resolve(resolve) = &mut other {
        resolve.tenant = "other".parse().unwrap();
    }
    let (records, _, answer) = decided(&mut partition, &other);

    assert_eq!((records, answer["answer"].as_str()), (vec![], Some("unknown_case")));
    assert!(answer.get("by").is_none(), "{answer}");
}

#[test]
fn the_first_resolution_of_a_case_counts_and_the_others_hear_of_it() {
    let mut partition = partition();

    let (records, replays, answer) =
        decided(&mut partition, &resolve(case(1), Resolution::Retry, "ada", &[9, 7, 9]));
    assert_eq!((records, replays), (vec![Kind::CaseResolved], vec![vec![7, 9]]));
    assert_eq!(answer["answer"], "resolved");

    let same = decided(&mut partition, &resolve(case(1), Resolution::Retry, "bob", &[7]));
    let other = decided(&mut partition, &resolve(case(1), Resolution::Close, "bob", &[]));
    for ((records, replays, answer), word) in [(same, "already_resolved"), (other, "conflict")] {
        assert!(records.is_empty() && replays.is_empty(), "{records:?} {replays:?}");
        assert_eq!((&answer["answer"], &answer["by"]), (&word.into(), &"ada".into()));
        assert_eq!((&answer["time_ms"], &answer["resolution"]), (&60_000.into(), &"retry".into()));
    }
}

#[test]
fn a_route_elsewhere_is_another_resolution() {
    let mut partition = partition();
    decided(&mut partition, &resolve(case(1), route(), "ada", &[7]));

    let elsewhere = Resolution::Route { strategy: "other".into() };
    let (_, _, answer) = decided(&mut partition, &resolve(case(1), elsewhere, "ada", &[7]));

    assert_eq!(answer["answer"], "conflict");
}

#[test]
fn events_are_ordered_again_by_every_owner_until_one_reports_them() {
    let mut partition = partition();
    decided(&mut partition, &resolve(case(1), route(), "ada", &[7]));
    decided(&mut partition, &resolve(case(2), Resolution::Close, "ada", &[8]));
    let image = partition.freeze().image();

    let mut next = Partition::restore(image, Limits::default(), partition.plans().clone()).unwrap();

    assert!(next.is_like(&partition));
    for _ in 0..2 {
        assert_eq!(next.untold(), [Untold::Replay(case(1))]);
        let mut out = Decision::default();
        next.tell_again(Untold::Replay(case(1)), &mut out);
        assert_eq!(replays(&out), [[7]]);
    }
    assert_eq!(report(&mut next, case(1)), [Kind::CaseReplayed]);
    assert_eq!(next.untold(), []);
    assert_eq!(report(&mut next, case(1)), [], "told once");
    assert_eq!(report(&mut next, case(2)), [], "nothing of a closed case is replayed");
}

#[test]
fn an_event_that_is_ordered_twice_for_a_case_starts_one_run() {
    let mut partition = partition();
    decided(&mut partition, &unmatched(7));
    let replay = Uuid::from_u128(1);

    let first = decided(&mut partition, &started(7, replay)).0;
    let again = decided(&mut partition, &started(7, replay)).0;

    assert!(first.contains(&Kind::RunStarted), "{first:?}");
    assert_eq!(again, []);
}

#[test]
fn what_comes_after_a_case_was_resolved_opens_another_one() {
    let mut partition = partition();
    let opened = |partition: &mut Partition, sequence| {
        let mut out = Decision::default();
        partition.decide(&unmatched(sequence), &mut out);
        let case = out.records.iter().find_map(|record| {
            let Body::EventUnmatched(unmatched) = &record.body else { return None };
            Some(unmatched.case)
        });
        let opens = out.records.iter().any(|record| record.body.kind() == Kind::CaseOpened);
        (case.expect("a case"), opens)
    };
    let (first, _) = opened(&mut partition, 1);
    assert_eq!(opened(&mut partition, 2), (first, false));
    decided(&mut partition, &resolve(first, Resolution::Close, "ada", &[]));

    let (second, opens) = opened(&mut partition, 3);
    assert!(opens && second != first);
    assert_eq!(opened(&mut partition, 4), (second, false));
    decided(&mut partition, &resolve(second, Resolution::Close, "ada", &[]));

    let (third, opens) = opened(&mut partition, 5);
    assert!(opens && ![first, second].contains(&third));
}

#[test]
fn a_case_of_another_partition_is_not_resolved_here() {
    let mut partition = partition();

    let foreign = resolve(Uuid::from_u128(1), Resolution::Close, "ada", &[]);
    let (records, _, answer) = decided(&mut partition, &foreign);

    assert_eq!((records, &answer["answer"]), (Vec::new(), &"unknown_case".into()));
}

#[test]
fn what_is_remembered_is_bounded_and_what_is_under_way_is_never_forgotten() {
    let mut partition = partition();
    let under_way = REPLAYING_MAX as u128;
    for number in 0..under_way {
        decided(&mut partition, &resolve(case(number), Resolution::Retry, "ada", &[7]));
    }
    let busy = resolve(case(under_way), Resolution::Retry, "ada", &[7]);
    assert_eq!(decided(&mut partition, &busy).2["answer"], "busy");
    for number in 0..RESOLUTIONS_MAX as u128 {
        let close = resolve(case(under_way + number), Resolution::Close, "ada", &[]);
        assert_eq!(decided(&mut partition, &close).2["answer"], "resolved");
    }

    assert_eq!(partition.resolutions().len(), RESOLUTIONS_MAX);
    assert_eq!(partition.untold().len(), REPLAYING_MAX);
    assert!(!partition.resolutions().contains(case(under_way)), "the oldest is forgotten");
}
