//! Events that a partition rejects itself, until they are filed.

use uuid::Uuid;

use super::testing::{event, start};
use super::*;
use crate::command::Command;
use crate::effect::DeadEvent;
use crate::plan::testing::noop_plan;
use crate::record::Kind;

fn partition(limits: Limits) -> Partition {
    let mut partition = Partition::new(PartitionId(0), limits);
    partition.add_plan(Digest::of(b"plan"), Arc::new(Executable::new(noop_plan(1)).unwrap()));
    partition.begin_frame(JournalTime(1_000));
    partition
}

/// Room for one key.
fn full() -> Partition {
    let mut partition = partition(Limits { keys_max: 1, ..Limits::default() });
    decided(&mut partition, &event(1, None, start()));
    partition
}

fn kinds(out: &Decision) -> Vec<Kind> {
    out.records.iter().map(|record| record.body.kind()).collect()
}

fn decided(partition: &mut Partition, command: &Command) -> Decision {
    let mut out = Decision::default();
    partition.decide(command, &mut out);
    out
}

fn filed(partition: &mut Partition, sequence: u64) -> Vec<Kind> {
    let mut out = Decision::default();
    let source = SourcePosition { sequence, index: 0 };
    partition.report(&Report::EventFiled { source }, &mut out);
    kinds(&out)
}

fn ordered(effects: &[Effect]) -> Vec<(u64, &str)> {
    let dead = effects.iter().filter_map(|effect| {
        if let Effect::FileEvent(dead) = effect { Some(&**dead) } else { None }
    });
    dead.map(|DeadEvent { source, reason, .. }| (source.sequence, &**reason)).collect()
}

#[test]
fn an_event_that_the_partition_rejects_is_ordered_to_be_filed_and_that_is_recorded_once() {
    let mut partition = full();

    let out = decided(&mut partition, &event(2, None, start()));
    assert_eq!(kinds(&out), [Kind::EventRejected]);
    assert_eq!(ordered(&out.effects), [(2, "window_full")]);
    assert_eq!(partition.first_unfiled(), Some(2));

    assert_eq!(filed(&mut partition, 2), [Kind::EventFiled]);
    assert_eq!(filed(&mut partition, 2), []);
    assert_eq!((partition.first_unfiled(), partition.untold()), (None, Vec::new()));
}

#[test]
fn every_reason_of_the_partitions_own_is_filed_and_none_of_a_stage() {
    let mut missing = Partition::new(PartitionId(0), Limits::default());
    let out = decided(&mut missing, &event(1, None, start()));
    assert_eq!(ordered(&out.effects), [(1, "definition_missing")]);

    let mut partition = full();
    let replay = |id| event(2, Some(Uuid::from_u128(id)), start());
    assert_eq!(kinds(&decided(&mut partition, &replay(1)))[0], Kind::EventStarted);
    let refused = decided(&mut partition, &replay(2));
    assert_eq!(ordered(&refused.effects), [(2, "window_full")]);

    let (reason, original) = ("contract".into(), Digest::of(b"bytes"));
    let verdict = crate::command::Verdict::Rejected { reason, detail: String::new(), original };
    let out = decided(&mut partition, &event(3, None, verdict));
    assert_eq!((kinds(&out), ordered(&out.effects)), (vec![Kind::EventRejected], Vec::new()));
}

#[test]
fn the_next_owner_orders_again_what_is_not_filed() {
    let mut partition = full();
    decided(&mut partition, &event(2, None, start()));
    decided(&mut partition, &event(3, None, start()));
    filed(&mut partition, 2);

    let image = partition.freeze().image();
    let plans = partition.plans().clone();
    let mut next = Partition::restore(image, *partition.limits(), plans).unwrap();
    assert!(next.is_like(&partition));
    let mut out = Decision::default();
    for untold in next.untold() {
        next.tell_again(untold, &mut out);
    }

    assert_eq!(ordered(&out.effects), [(3, "window_full")]);
    assert_eq!(kinds(&out), []);
}

#[test]
fn nothing_is_decided_while_too_many_events_are_not_filed() {
    let mut partition = full();
    for sequence in 2..2 + UNFILED_EVENTS_MAX as u64 {
        assert!(partition.takes_commands());
        decided(&mut partition, &event(sequence, None, start()));
    }

    assert!(!partition.takes_commands());
    filed(&mut partition, 77);
    assert!(partition.takes_commands());
}
