//! Queues beside each other: what one has no room for holds up nothing else.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;

use super::queue_tests::{enqueued, partition, start};
use super::*;
use crate::command::{Command, OutcomeCommand};
use crate::json::Json;
use crate::plan::testing::noop_plan;
use crate::plan::{Completion, Plan, Work};
use crate::run::Node;

const QUEUES: [&str; 2] = ["gpu", "mail"];

/// A task for each queue, one that needs none, and none waits for another.
fn plan() -> Plan {
    let mut plan = noop_plan(3);
    for node in &mut plan.nodes {
        (node.predecessors, node.successors) = (Vec::new(), Vec::new());
    }
    for (node, queue) in plan.nodes.iter_mut().zip(QUEUES) {
        node.queue = Some(queue.into());
        node.work = Work::Http {
            plugin: "renderer".to_owned(),
            path: "/render".to_owned(),
            body: "7".to_owned(),
            idempotent: true,
            completion: Completion::Answer,
        };
    }
    plan
}

fn bounded(queued_open_max: u32) -> Partition {
    partition(plan(), Limits { queued_open_max, ..Limits::default() })
}

fn succeeds(partition: &mut Partition, run: RunId, node: &str) {
    let outcome = Outcome::Succeeded { output: Json::null() };
    let (node, tenant) = (node.into(), None);
    let command = OutcomeCommand { run, node, activation: 1, attempt: 1, tenant, outcome };
    partition.decide(&Command::Outcome(command), &mut Decision::default());
}

fn queues(out: &Decision) -> Vec<String> {
    enqueued(out).iter().map(|queued| queued.queue.to_string()).collect()
}

#[test]
fn a_full_queue_holds_back_neither_another_one_nor_the_rest_of_a_run() {
    let mut partition = bounded(1);
    let (first, out) = start(&mut partition, 1);
    assert_eq!(queues(&out), QUEUES);
    succeeds(&mut partition, first, "n1");

    let (second, out) = start(&mut partition, 2);

    assert_eq!(queues(&out), ["mail"], "its task for the full queue stands before it");
    assert!(out.effects.iter().any(|effect| matches!(effect, Effect::Start(_))));
    assert_eq!((partition.queued_in("gpu"), partition.queued_in("mail")), (1, 1));
    assert_eq!(partition.held_back_run(), None);
    succeeds(&mut partition, first, "n0");
    assert_eq!(partition.held_back_run(), Some(second));
    let mut out = Decision::default();
    partition.resume(&mut out);
    assert_eq!(queues(&out), ["gpu"]);
}

/// One task, for `queue`.
fn only(queue: &str) -> Plan {
    let mut plan = noop_plan(1);
    let two = self::plan();
    for (node, of_queue) in plan.nodes.iter_mut().zip(two.nodes) {
        (node.queue, node.work) = (Some(queue.into()), of_queue.work);
    }
    plan
}

/// Queues by name, each with the runs that have a task in it and those that wait, the first that
/// came first; and the one that had its turn last.
#[derive(Debug, Default)]
struct Turns {
    queues: BTreeMap<String, (VecDeque<RunId>, VecDeque<RunId>)>,
    last: Option<String>,
}

impl Turns {
    /// Whose turn it is: the next by name behind the last one that has room and somebody waiting.
    fn next(&self, most: usize) -> Option<(String, RunId)> {
        let behind = |name: &String| self.last.as_ref().is_none_or(|last| name > last);
        let can = self
            .queues
            .iter()
            .filter(|(_, (open, waiting))| open.len() < most && !waiting.is_empty());
        let (name, (_, waiting)) = can.min_by_key(|(name, _)| (!behind(name), *name))?;
        Some((name.clone(), waiting[0]))
    }
}

proptest! {
    /// Each queue gives way to the others that have room, and within one who waits longest goes on.
    #[test]
    fn queues_with_room_take_turns(
        waiting in prop::collection::vec(0_usize..5, 2..5),
        most in 1_u32..4,
        frees in prop::collection::vec(prop::option::of(any::<prop::sample::Index>()), 1..40),
    ) {
        let limits = Limits { queued_open_max: most, ..Limits::default() };
        let mut partition = partition(only("none"), limits);
        let (most, mut turns, mut numbers) = (most as usize, Turns::default(), 1..);
        for (number, waits) in waiting.into_iter().enumerate() {
            let name = format!("q{number}");
            let plan = Arc::new(Executable::new(only(&name)).unwrap());
            partition.add_plan(Digest::of(b"plan"), plan);
            let runs = numbers.by_ref().take(most + waits);
            let mut open: VecDeque<_> = runs.map(|at| start(&mut partition, at).0).collect();
            let waiting = open.split_off(most);
            turns.queues.insert(name, (open, waiting));
        }

        for free in frees {
            if let Some(free) = free {
                let at = free.index(turns.queues.len());
                let (open, _) = turns.queues.values_mut().nth(at).unwrap();
                let Some(run) = open.pop_front() else { continue };
                succeeds(&mut partition, run, "n0");
                continue;
            }
            let expected = turns.next(most);
            let mut out = Decision::default();
            prop_assert_eq!(partition.held_back_run(), expected.as_ref().map(|(_, run)| *run));
            partition.resume(&mut out);
            let resumed = queues(&out);
            prop_assert_eq!(resumed, Vec::from_iter(expected.as_ref().map(|(name, _)| name.clone())));
            if let Some((name, run)) = expected {
                let (open, waiting) = turns.queues.get_mut(&name).unwrap();
                waiting.pop_front();
                open.push_back(run);
                turns.last = Some(name);
            }
        }
    }
}

/// What becomes of the partition, and which of its runs it meets.
#[derive(Debug, Clone, Copy)]
enum Act {
    Start,
    Succeed(usize, usize),
    Close(usize),
    Restore,
    Recover,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        3 => Just(Act::Start),
        4 => (any::<usize>(), 0..QUEUES.len()).prop_map(|(run, queue)| Act::Succeed(run, queue)),
        1 => any::<usize>().prop_map(Act::Close),
        1 => Just(Act::Restore),
        1 => Just(Act::Recover),
    ];
    prop::collection::vec(act, 1..40)
}

fn restored(partition: &Partition) -> Partition {
    let plans = partition.plans().clone();
    let image = partition.freeze().image();
    Partition::restore(image, *partition.limits(), plans).unwrap()
}

/// The open runs, in an order that is the same each time.
fn open(partition: &Partition) -> Vec<RunId> {
    let mut runs = partition.runs().map(|(id, _)| *id).collect::<Vec<_>>();
    runs.sort_unstable();
    runs
}

proptest! {
    #[test]
    fn a_task_waits_only_while_its_own_queue_is_full(acts in acts(), most in 1_u32..4) {
        let mut partition = bounded(most);
        for (number, act) in (1..).zip(acts) {
            let of = |run: usize, partition: &Partition| {
                let runs = open(partition);
                runs.get(run.checked_rem(runs.len()).unwrap_or(0)).copied()
            };
            match act {
                Act::Start => drop(start(&mut partition, number)),
                Act::Succeed(run, queue) => if let Some(run) = of(run, &partition) {
                    succeeds(&mut partition, run, ["n0", "n1"][queue]);
                },
                Act::Close(run) => if let Some(run) = of(run, &partition) {
                    let reason = crate::record::EndReason::TimedOut;
                    partition.close(run, reason, &mut Decision::default());
                },
                Act::Restore => {
                    let again = restored(&partition);
                    prop_assert!(again.is_like(&partition));
                    partition = again;
                    partition.recover_partition(&mut Decision::default());
                }
                Act::Recover => partition.recover_partition(&mut Decision::default()),
            }
            let mut turns = 0;
            while partition.held_back_run().is_some() {
                partition.resume(&mut Decision::default());
                turns += 1;
                prop_assert!(turns < 1_000, "what is held back goes on or waits");
            }
            let mut counts = BTreeMap::new();
            for (_, run) in partition.runs() {
                for (index, node) in run.nodes() {
                    let queue = run.executable.node(index).and_then(|node| node.queue.clone());
                    let Some(queue) = queue else { continue };
                    if matches!(node, Node::Queued { .. }) {
                        *counts.entry(queue).or_insert(0) += 1;
                    } else if *node == Node::Ready && run.next_ready().is_some() {
                        prop_assert_eq!(partition.queued_in(&queue), most);
                    }
                }
            }
            for queue in QUEUES {
                let counted = counts.get(&Arc::from(queue)).copied().unwrap_or(0);
                prop_assert_eq!(partition.queued_in(queue), counted);
                prop_assert!(counted <= most);
            }
        }
    }
}
