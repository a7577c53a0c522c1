//! Attempts for named queues: ordered, kept on the clock, taken back, found again.

use std::sync::Arc;

use super::testing::event;
use super::*;
use crate::command::{Command, OutcomeCommand};
use crate::effect::{Effect, QueuedAttempt};
use crate::json::Json;
use crate::plan::testing::noop_plan;
use crate::plan::{Completion, FailureClass, Plan, RetryPolicy, Work};
use crate::record::Kind;

const NOW: JournalTime = JournalTime(1_000);
const TIMEOUT_MS: u64 = 60_000;

/// One task for a queue, and one that needs none.
fn plan(idempotent: bool) -> Plan {
    let mut plan = noop_plan(2);
    for node in &mut plan.nodes {
        (node.predecessors, node.successors) = (Vec::new(), Vec::new());
    }
    let node = &mut plan.nodes[0];
    node.queue = Some("gpu".into());
    node.timeout_ms = TIMEOUT_MS;
    node.work = Work::Http {
        plugin: "renderer".to_owned(),
        path: "/render".to_owned(),
        body: "7".to_owned(),
        idempotent,
        completion: Completion::Answer,
    };
    plan
}

pub(super) fn partition(plan: Plan, limits: Limits) -> Partition {
    let mut partition = Partition::new(PartitionId(0), limits);
    partition.add_plan(Digest::of(b"plan"), Arc::new(Executable::new(plan).unwrap()));
    partition.begin_frame(NOW);
    partition
}

pub(super) fn start(partition: &mut Partition, number: u64) -> (RunId, Decision) {
    let mut out = Decision::default();
    partition.decide(&event(number, None, super::testing::start()), &mut out);
    let id = out.records.iter().find_map(|record| record.run).unwrap();
    (id, out)
}

pub(super) fn enqueued(out: &Decision) -> Vec<QueuedAttempt> {
    let of = |effect: &Effect| {
        if let Effect::Enqueue(queued) = effect { Some((**queued).clone()) } else { None }
    };
    out.effects.iter().filter_map(of).collect()
}

fn outcome(run: RunId, attempt: u32, outcome: Outcome) -> Command {
    let node = "n0".into();
    Command::Outcome(OutcomeCommand { run, node, activation: 1, attempt, tenant: None, outcome })
}

fn failed(class: FailureClass) -> Outcome {
    Outcome::Failed { class, detail: String::new() }
}

fn decided(partition: &mut Partition, command: &Command) -> Vec<Kind> {
    let mut out = Decision::default();
    partition.decide(command, &mut out);
    kinds(&out)
}

fn kinds(out: &Decision) -> Vec<Kind> {
    out.records.iter().map(|record| record.body.kind()).collect()
}

fn recovered(partition: &mut Partition) -> Decision {
    let mut out = Decision::default();
    for lost in partition.outstanding() {
        partition.recover(&lost, &mut out);
    }
    out
}

#[test]
fn a_task_of_a_queue_is_ordered_with_its_time_and_its_result_counts() {
    let mut partition = partition(plan(true), Limits::default());

    let (run, out) = start(&mut partition, 1);
    let [task] = enqueued(&out).try_into().unwrap();
    let due = JournalTime(NOW.0 + TIMEOUT_MS);
    assert_eq!((&*task.queue, task.due, task.idempotent), ("gpu", due, true));
    assert_eq!(partition.next_due(), Some(due));
    assert_eq!((partition.running(), partition.queued()), (2, 1));

    let done = Outcome::Succeeded { output: Json::null() };
    let records = decided(&mut partition, &outcome(run, 1, done.clone()));
    assert_eq!(records, [Kind::NodeSucceeded]);
    assert_eq!((partition.running(), partition.queued()), (1, 0));
    let again = decided(&mut partition, &outcome(run, 1, done));
    assert_eq!(again, [Kind::EffectLate]);
}

#[test]
fn a_task_whose_time_is_over_fails_or_is_tried_again_or_nobody_knows() {
    let retry = RetryPolicy { max_attempts: 2, ..RetryPolicy::exponential_backoff() };
    for (idempotent, retry, expected) in [
        (true, RetryPolicy::none(), Kind::NodeFailed),
        (true, retry.clone(), Kind::NodeRetrying),
        (false, retry, Kind::NodeUnknown),
    ] {
        let mut plan = plan(idempotent);
        plan.nodes[0].retry = retry;
        let mut partition = partition(plan, Limits::default());
        let (run, _) = start(&mut partition, 1);

        partition.begin_frame(JournalTime(NOW.0 + TIMEOUT_MS));
        let mut out = Decision::default();
        partition.fire_timer(&mut out);

        assert_eq!(out.records[0].body.kind(), expected);
        let late = outcome(run, 1, Outcome::Succeeded { output: Json::null() });
        assert_eq!(decided(&mut partition, &late), [Kind::EffectLate]);
    }
}

#[test]
fn a_run_that_closes_takes_its_tasks_back_and_ends_when_they_are() {
    let mut partition = partition(plan(true), Limits::default());
    let (run, _) = start(&mut partition, 1);
    let mut out = Decision::default();

    partition.close(run, crate::record::EndReason::TimedOut, &mut out);

    let recall = out.effects.iter().find_map(|effect| {
        if let Effect::Recall(recall) = effect { Some(recall.clone()) } else { None }
    });
    assert_eq!(recall.unwrap().tasks, [("n0".into(), 1, "gpu".into())]);
    let records = decided(&mut partition, &outcome(run, 1, failed(FailureClass::Cancelled)));
    assert_eq!(records, [Kind::NodeFailed]);
    assert_eq!(partition.queued(), 0);
}

#[test]
fn the_next_owner_publishes_again_what_may_come_twice_and_nothing_else() {
    for (idempotent, expected) in [(true, 1), (false, 0)] {
        let mut partition = partition(plan(idempotent), Limits::default());
        let (_, first) = start(&mut partition, 1);

        let out = recovered(&mut partition);

        assert_eq!(enqueued(&out).len(), expected);
        let first = enqueued(&first).into_iter().map(|task| QueuedAttempt { again: true, ..task });
        let first = first.collect::<Vec<_>>();
        assert!(enqueued(&out).iter().all(|task| first.contains(task)), "the same one");
        let of_queue = |record: &&Record| record.node.as_deref() == Some("n0");
        assert_eq!(out.records.iter().filter(of_queue).count(), 0, "no further attempt");
    }
}

#[test]
fn a_task_that_is_closing_when_its_owner_is_lost_is_unknown() {
    let mut partition = partition(plan(true), Limits::default());
    let (run, _) = start(&mut partition, 1);
    partition.close(run, crate::record::EndReason::TimedOut, &mut Decision::default());

    let out = recovered(&mut partition);

    assert!(kinds(&out).contains(&Kind::NodeUnknown));
    assert!(kinds(&out).contains(&Kind::RunTimedOut), "{:?}", kinds(&out));
}

#[test]
fn a_queue_that_nobody_serves_holds_back_the_runs_that_need_it_and_no_others() {
    let limits = Limits { queued_open_max: 1, ..Limits::default() };
    let mut partition = partition(plan(true), limits);
    let (first, _) = start(&mut partition, 1);

    let (second, out) = start(&mut partition, 2);
    assert_eq!((enqueued(&out).len(), partition.queued()), (0, 1));
    assert_eq!(partition.held_back_run(), None, "there is no room");
    partition.add_plan(Digest::of(b"plan"), Arc::new(Executable::new(noop_plan(1)).unwrap()));
    let (_, out) = start(&mut partition, 3);
    let goes_on = matches!(out.effects.as_slice(), [Effect::Matched(_), Effect::Start(_)]);
    assert!(goes_on, "what needs no queue goes on");

    let done = Outcome::Succeeded { output: Json::null() };
    decided(&mut partition, &outcome(first, 1, done));
    assert_eq!(partition.held_back_run(), Some(second));
    let mut out = Decision::default();
    partition.resume(&mut out);
    assert_eq!(enqueued(&out).len(), 1);
    assert_eq!(partition.held_back_run(), None);
}

#[test]
fn a_restored_state_knows_its_queued_tasks() {
    let mut original = partition(plan(true), Limits::default());
    start(&mut original, 1);
    let executable = Arc::new(Executable::new(plan(true)).unwrap());
    let plans = [(Digest::of(b"plan"), executable)].into_iter().collect();

    let image = original.freeze().image();
    let restored = Partition::restore(image, Limits::default(), plans);

    let restored = restored.unwrap();
    assert!(restored.is_like(&original));
    assert_eq!(restored.queued(), 1);
}
