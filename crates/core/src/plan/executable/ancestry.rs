//! Whether expressions mention only tasks that have ended by then.
//!
//! A direct predecessor is found at once. For the others, 64 mentioned tasks
//! at a time are followed through all edges as the bits of one word, so the
//! price is linear in nodes and edges per 64 such tasks.

use std::collections::{BTreeMap, HashMap};

use super::PlanProblem;
use super::checks::Expressions;
use crate::expression::Expression;
use crate::plan::{NodeIndex, Plan};

/// Most tasks that are mentioned by tasks other than their direct successors;
/// 64 passes over the plan.
const FAR_TASKS_MAX: usize = 4_096;

struct Mention<'p> {
    by: NodeIndex,
    field: &'static str,
    task: &'p str,
}

/// What is mentioned though it does not exist or need not have ended; the second is not said of
/// nodes that are `incomplete` or stand behind such a node.
pub(super) fn check(
    plan: &Plan,
    expressions: &Expressions,
    incomplete: &[bool],
) -> Vec<PlanProblem> {
    let mut problems = Vec::new();
    let unjudged = behind(plan, incomplete);
    let mut far: BTreeMap<NodeIndex, Vec<Mention<'_>>> = BTreeMap::new();
    let mut places: HashMap<&str, NodeIndex> = HashMap::new();
    for (by, field, expression) in mentioning(plan, expressions) {
        let references = expression.references();
        if references.tasks_as_a_whole {
            problems.push(
                PlanProblem::new(Some(by), field, "`tasks` is mentioned without a task")
                    .with_hint("name the task: `tasks.fetch.output` or `tasks['fetch'].output`"),
            );
        }
        if places.is_empty() && !references.tasks.is_empty() {
            // Of doubled ids the first counts, as it does for dependencies.
            for (node, at) in plan.nodes.iter().zip(0..) {
                places.entry(&*node.id).or_insert(at);
            }
        }
        for task in &references.tasks {
            let mention = Mention { by, field, task };
            match places.get(task.as_str()) {
                None => problems.push(undefined(plan, &mention)),
                Some(place) if is_predecessor(plan, by, *place) => {}
                Some(_) if unjudged.get(by as usize).is_some_and(|unjudged| *unjudged) => {}
                Some(place) => far.entry(*place).or_default().push(mention),
            }
        }
    }
    if far.len() > FAR_TASKS_MAX {
        problems.push(PlanProblem::new(
            None,
            "tasks",
            format!(
                "{} tasks are mentioned by others than their direct successors, at most \
                 {FAR_TASKS_MAX} may be",
                far.len()
            ),
        ));
        return problems;
    }
    let far: Vec<_> = far.into_iter().collect();
    for targets in far.chunks(u64::BITS as usize) {
        follow(plan, targets, &mut problems);
    }
    problems
}

/// The nodes that are `incomplete`, and all behind them.
fn behind(plan: &Plan, incomplete: &[bool]) -> Vec<bool> {
    if incomplete.is_empty() {
        return Vec::new();
    }
    let mut behind: Vec<bool> = Vec::with_capacity(plan.nodes.len());
    for (at, node) in plan.nodes.iter().enumerate() {
        let own = incomplete.get(at).copied().unwrap_or(false);
        let mut above = node.predecessors.iter();
        behind.push(own || above.any(|at| behind.get(*at as usize).is_some_and(|behind| *behind)));
    }
    behind
}

fn mentioning<'p>(
    plan: &'p Plan,
    expressions: &'p Expressions,
) -> impl Iterator<Item = (NodeIndex, &'static str, &'p Expression)> {
    let guards = expressions.guards.iter().zip(0..);
    let guards = guards.filter_map(|(guard, by)| Some((by, "when", guard.as_ref()?)));
    let values = expressions.values.iter().zip(&plan.nodes).zip(0..);
    let values = values
        .filter_map(|((value, node), by)| Some((by, node.work.value_field(), value.as_ref()?)));
    let seconds = expressions.second_values.iter().zip(&plan.nodes).zip(0..);
    let seconds = seconds.filter_map(|((second, node), by)| {
        Some((by, node.work.second_value()?.0, second.as_ref()?))
    });
    guards.chain(values).chain(seconds)
}

fn is_predecessor(plan: &Plan, node: NodeIndex, candidate: NodeIndex) -> bool {
    plan.nodes
        .get(node as usize)
        .is_some_and(|node| node.predecessors.binary_search(&candidate).is_ok())
}

/// Follows up to 64 tasks through the plan and reports the mentions by nodes
/// that they do not reach.
fn follow(plan: &Plan, targets: &[(NodeIndex, Vec<Mention<'_>>)], problems: &mut Vec<PlanProblem>) {
    let mut reached = vec![0_u64; plan.nodes.len()];
    let bits: HashMap<NodeIndex, u64> =
        targets.iter().zip(0..).map(|((target, _), bit)| (*target, 1_u64 << bit)).collect();
    let first = targets.first().map_or(0, |(target, _)| *target as usize);
    for (node, index) in plan.nodes.iter().zip(0_u32..).skip(first) {
        let above = node.predecessors.iter().fold(0, |word, predecessor| {
            let place = *predecessor as usize;
            let own = bits.get(predecessor).copied().unwrap_or(0);
            word | own | reached.get(place).copied().unwrap_or(0)
        });
        if let Some(word) = reached.get_mut(index as usize) {
            *word = above;
        }
    }
    for ((_, mentions), bit) in targets.iter().zip(0..) {
        for mention in mentions {
            let word = reached.get(mention.by as usize).copied().unwrap_or(0);
            if word & (1_u64 << bit) == 0 {
                problems.push(not_before(plan, mention));
            }
        }
    }
}

fn not_before(plan: &Plan, mention: &Mention<'_>) -> PlanProblem {
    let own = plan.nodes.get(mention.by as usize).map_or("", |node| &node.id);
    let task = mention.task;
    let message = if own == task {
        format!("`{task}` mentions its own output, which does not exist yet")
    } else {
        format!("`tasks.{task}` is mentioned, but `{task}` need not have ended before `{own}`")
    };
    PlanProblem::new(Some(mention.by), mention.field, message)
        .with_hint(format!("add `{task}` to `depends_on`"))
}

fn undefined(plan: &Plan, mention: &Mention<'_>) -> PlanProblem {
    let task = mention.task;
    let problem = PlanProblem::new(
        Some(mention.by),
        mention.field,
        format!("`tasks.{task}` is mentioned, but there is no task `{task}`"),
    );
    // `tasks.notify-owner` is a subtraction in CEL.
    let hyphenated = plan
        .nodes
        .iter()
        .find(|node| node.id.strip_prefix(task).is_some_and(|rest| rest.starts_with('-')));
    match hyphenated {
        Some(node) => {
            problem.with_hint(format!("an id with a hyphen is mentioned as `tasks['{}']`", node.id))
        }
        None => problem,
    }
}
