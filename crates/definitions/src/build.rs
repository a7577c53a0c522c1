//! From a document to a plan: names become indices, the order becomes
//! topological, and core checks the result.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use fermata_core::plan::{
    EDGES_MAX, Executable, NODES_MAX, NodeIndex, PLAN_VERSION, Plan, PlanNode,
};

use crate::problem::Problem;
use crate::spelling;
use crate::workflow::{TaskDocument, WorkflowDocument};

/// Builds the plan of `document` and checks it in full.
///
/// Takes time linear in tasks and dependencies (n log n in tasks where their
/// order must be changed).
///
/// # Errors
///
/// Everything that is wrong with the document. Line and column are those
/// inside the expression that a problem is about, else 0.
pub fn build(document: WorkflowDocument) -> Result<Executable, Vec<Problem>> {
    let sound = vec![false; document.tasks.len()];
    build_read(document, sound)
}

/// As [`build`], of a document whose tasks could not all be read: what these `incomplete` tasks,
/// and those behind them, mention of other tasks is not judged.
pub(crate) fn build_read(
    document: WorkflowDocument,
    mut incomplete: Vec<bool>,
) -> Result<Executable, Vec<Problem>> {
    if document.tasks.len() > NODES_MAX {
        let message =
            format!("a workflow has at most {NODES_MAX} tasks, not {}", document.tasks.len());
        return Err(vec![problem("workflow.tasks".to_owned(), message, None)]);
    }
    let mut problems = Vec::new();
    let places = places(&document.tasks, &mut problems);
    let mut predecessors = predecessors(&document.tasks, &places, &mut incomplete, &mut problems);
    let order = match order(&predecessors) {
        Ok(order) => order,
        Err(stuck) => {
            problems.push(cycle(&document.tasks, &predecessors, &stuck));
            // Without what they wait for they stand anywhere, and the rest can be checked.
            let tasks = stuck.iter().zip(&mut predecessors).zip(&mut incomplete);
            for ((_, list), incomplete) in tasks.filter(|((stuck, _), _)| **stuck) {
                list.clear();
                *incomplete = true;
            }
            order(&predecessors).unwrap_or_default()
        }
    };
    let plan = plan(document, &predecessors, &order);
    let found = if problems.is_empty() && !incomplete.contains(&true) {
        match Executable::written(plan) {
            Ok(executable) => return Ok(executable),
            Err(found) => found,
        }
    } else {
        let of_node = |at: &usize| incomplete.get(*at).copied().unwrap_or(true);
        let incomplete: Vec<bool> = order.iter().map(of_node).collect();
        Executable::problems(&plan, &incomplete)
    };
    problems.extend(found.into_iter().filter_map(|found| {
        let task = match found.node {
            Some(node) => Some(*order.get(node as usize)?),
            None => None,
        };
        // Doubled ids have been reported with both places.
        if found.field == "id" && found.message.starts_with("there is another") {
            return None;
        }
        let path = match task {
            Some(task) => format!("workflow.tasks[{task}].{}", found.field),
            None => match found.field {
                "run_timeout" => "workflow.fault_tolerance.run_timeout".to_owned(),
                field => format!("workflow.{field}"),
            },
        };
        let (line, column) = found.position.unwrap_or((0, 0));
        Some(Problem { line, column, ..problem(path, found.message, found.hint) })
    }));
    Err(problems)
}

/// As [`build`], for those who want the plan as data.
///
/// # Errors
///
/// As [`build`].
pub fn build_plan(document: WorkflowDocument) -> Result<Plan, Vec<Problem>> {
    build(document).map(Executable::into_plan)
}

fn problem(path: String, message: String, hint: Option<String>) -> Problem {
    Problem { file: None, line: 0, column: 0, path, message, hint }
}

/// Where each id stands; of doubled ones the first.
fn places<'t>(tasks: &'t [TaskDocument], problems: &mut Vec<Problem>) -> HashMap<&'t str, usize> {
    let mut places = HashMap::with_capacity(tasks.len());
    for (at, task) in tasks.iter().enumerate() {
        // An empty id has been reported as missing or is refused by core.
        if let Some(first) = places.get(task.id.as_str()).filter(|_| !task.id.is_empty()) {
            let message = format!("there is another task `{}`, tasks[{first}]", shown(&task.id));
            problems.push(problem(format!("workflow.tasks[{at}].id"), message, None));
        } else {
            places.insert(task.id.as_str(), at);
        }
    }
    places
}

/// The places that each task waits for, ascending; a task that names one that cannot be is
/// `incomplete`.
fn predecessors(
    tasks: &[TaskDocument],
    places: &HashMap<&str, usize>,
    incomplete: &mut [bool],
    problems: &mut Vec<Problem>,
) -> Vec<Vec<usize>> {
    let mut edges = 0_usize;
    let mut all = Vec::with_capacity(tasks.len());
    for (at, task) in tasks.iter().enumerate() {
        let mut list = Vec::with_capacity(task.depends_on.len());
        for (number, id) in task.depends_on.iter().enumerate() {
            let path = || format!("workflow.tasks[{at}].depends_on[{number}]");
            match places.get(id.as_str()) {
                Some(place) if *place == at => {
                    mark(incomplete, at);
                    let message = format!("`{}` waits for itself", shown(id));
                    problems.push(problem(path(), message, None));
                }
                Some(place) => list.push(*place),
                None => {
                    mark(incomplete, at);
                    let ids = tasks.iter().map(|task| task.id.as_str());
                    let message = format!("there is no task `{}`", shown(id));
                    problems.push(problem(path(), message, spelling::hint(id, ids)));
                }
            }
        }
        list.sort_unstable();
        let named = list.len();
        list.dedup();
        if list.len() < named {
            let message = "a task is named twice".to_owned();
            problems.push(problem(format!("workflow.tasks[{at}].depends_on"), message, None));
        }
        edges += list.len();
        if edges > EDGES_MAX {
            let message = format!("a workflow has at most {EDGES_MAX} dependencies");
            problems.push(problem("workflow.tasks".to_owned(), message, None));
            incomplete.fill(true);
            return vec![Vec::new(); tasks.len()];
        }
        all.push(list);
    }
    all
}

fn mark(incomplete: &mut [bool], task: usize) {
    if let Some(incomplete) = incomplete.get_mut(task) {
        *incomplete = true;
    }
}

/// The tasks in topological order, in the document's own order where that
/// is one.
///
/// # Errors
///
/// When there is a cycle: for each task whether it is never free, being on a
/// cycle or behind one.
fn order(predecessors: &[Vec<usize>]) -> Result<Vec<usize>, Vec<bool>> {
    let ordered = |(at, list): (usize, &Vec<usize>)| list.last().is_none_or(|last| *last < at);
    if predecessors.iter().enumerate().all(ordered) {
        return Ok((0..predecessors.len()).collect());
    }
    let mut waiting: Vec<usize> = predecessors.iter().map(Vec::len).collect();
    let mut successors = vec![Vec::new(); predecessors.len()];
    for (at, list) in predecessors.iter().enumerate() {
        for predecessor in list {
            if let Some(list) = successors.get_mut(*predecessor) {
                list.push(at);
            }
        }
    }
    // Of the tasks that are free the first in the document goes first, so
    // that the same document always gives the same plan.
    let mut free: BinaryHeap<_> = waiting
        .iter()
        .enumerate()
        .filter(|(_, count)| **count == 0)
        .map(|(at, _)| Reverse(at))
        .collect();
    let mut order = Vec::with_capacity(predecessors.len());
    while let Some(Reverse(at)) = free.pop() {
        order.push(at);
        for successor in successors.get(at).into_iter().flatten() {
            if let Some(count) = waiting.get_mut(*successor) {
                *count -= 1;
                if *count == 0 {
                    free.push(Reverse(*successor));
                }
            }
        }
    }
    if order.len() == predecessors.len() {
        Ok(order)
    } else {
        Err(waiting.iter().map(|count| *count > 0).collect())
    }
}

/// Names one cycle: from a task that is never free, always backwards to
/// another such task (there is one, else the task would be free), until one
/// comes again.
fn cycle(tasks: &[TaskDocument], predecessors: &[Vec<usize>], stuck: &[bool]) -> Problem {
    const SHOWN_MAX: usize = 20;
    let is_stuck = |at: usize| stuck.get(at).copied().unwrap_or(false);
    let mut seen = HashMap::new();
    let mut way = Vec::new();
    let mut next = stuck.iter().position(|stuck| *stuck);
    while let Some(at) = next {
        if seen.contains_key(&at) {
            break;
        }
        seen.insert(at, way.len());
        way.push(at);
        next = predecessors.get(at).and_then(|list| list.iter().copied().find(|at| is_stuck(*at)));
    }
    let start = next.and_then(|at| seen.get(&at).copied()).unwrap_or(0);
    let mut round: Vec<_> = way.split_off(start.min(way.len()));
    // Read in the direction of execution, from the task that stands first.
    round.reverse();
    let first = round.iter().enumerate().min_by_key(|(_, at)| **at).map_or(0, |(place, _)| place);
    round.rotate_left(first);
    let name = |at: &usize| tasks.get(*at).map_or("", |task| task.id.as_str());
    let mut names: Vec<_> = round.iter().take(SHOWN_MAX).map(name).collect();
    names.push(if round.len() > SHOWN_MAX { "…" } else { round.first().map_or("", name) });
    let at = round.first().copied().unwrap_or(0);
    problem(
        format!("workflow.tasks[{at}].depends_on"),
        format!("these tasks wait for each other: {}", names.join(" → ")),
        Some("take one of the dependencies out".to_owned()),
    )
}

fn plan(document: WorkflowDocument, predecessors: &[Vec<usize>], order: &[usize]) -> Plan {
    let mut indices = vec![0; order.len()];
    for (at, index) in order.iter().zip(0_u32..) {
        if let Some(place) = indices.get_mut(*at) {
            *place = index;
        }
    }
    let index_of = |at: &usize| indices.get(*at).copied().unwrap_or(0);
    let mut tasks: Vec<Option<TaskDocument>> = document.tasks.into_iter().map(Some).collect();
    let mut nodes: Vec<PlanNode> = Vec::with_capacity(order.len());
    for at in order {
        let Some(task) = tasks.get_mut(*at).and_then(Option::take) else { continue };
        let mut list: Vec<NodeIndex> =
            predecessors.get(*at).into_iter().flatten().map(index_of).collect();
        list.sort_unstable();
        let index = NodeIndex::try_from(nodes.len()).unwrap_or(NodeIndex::MAX);
        for predecessor in &list {
            if let Some(node) = nodes.get_mut(*predecessor as usize) {
                node.successors.push(index);
            }
        }
        nodes.push(PlanNode {
            id: task.id.into(),
            predecessors: list,
            successors: Vec::new(),
            join: task.join,
            when: task.when,
            work: task.work,
            timeout_ms: task.timeout_ms,
            retry: task.retry,
            queue: task.queue.map(Into::into),
        });
    }
    Plan {
        version: PLAN_VERSION,
        workflow: document.name.into(),
        workflow_version: document.version.into(),
        nodes,
        run_timeout_ms: document.run_timeout_ms,
        input_schema: document.input,
    }
}

pub(crate) fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}
