//! What can be said about a plan without following its edges, and its edges.

mod work;

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::{Origin, PlanProblem};
use crate::expression::{Expression, ExpressionError, Scope};
use crate::plan::retry::{ATTEMPTS_MAX, RETRY_DELAY_MS_MAX, RETRY_FACTOR_PERMILLE_MAX};
use crate::plan::{
    Delay, EDGES_MAX, INPUT_SCHEMA_BYTES_MAX, NAME_BYTES_MAX, NODE_ID_BYTES_MAX, NODES_MAX,
    NodeIndex, PLAN_VERSION, Plan, PlanNode, QUEUE_BYTES_MAX, TIMEOUT_MS_MAX, WAITS_MAX, Work,
    input, is_queue_name, point_of_time,
};

/// The values from outside that a workflow's expressions see.
const ROOTS: [&str; 2] = ["input", "tasks"];
/// What earlier versions took besides, though no run has it.
const ROOT_ONCE_TAKEN: &str = "event";
const EVENT_HINT: &str = "a workflow's expressions see `input` and `tasks`; what a run needs of its event, \
                          the strategy's `variables` pass as `input`";

/// The compiled expressions of a plan, by node.
pub(super) struct Expressions {
    pub(super) guards: Vec<Option<Expression>>,
    pub(super) values: Vec<Option<Expression>>,
    pub(super) second_values: Vec<Option<Expression>>,
}

/// What has been found out without its expressions.
pub(super) struct Checked {
    pub(super) problems: Vec<PlanProblem>,
    /// Whether the edges are few enough, point backwards and mirror each other.
    pub(super) edges_hold: bool,
}

pub(super) fn of_plan(plan: &Plan) -> Checked {
    let mut problems = Vec::new();
    let mut about = |field, message: String| problems.push(PlanProblem::new(None, field, message));
    if plan.version != PLAN_VERSION {
        about("version", format!("plan version {} is not known here", plan.version));
    }
    for (field, text) in [("name", &plan.workflow), ("version", &plan.workflow_version)] {
        if !is_name(text) {
            about(
                field,
                format!(
                    "`{}` is no {field} of a workflow; use 1 to {NAME_BYTES_MAX} letters, digits, \
                     `.`, `_` and `-`",
                    shortened(text)
                ),
            );
        }
    }
    if plan.run_timeout_ms == 0 || plan.run_timeout_ms > TIMEOUT_MS_MAX {
        about("run_timeout", "a run's time limit is 1 ms to 366 days".to_owned());
    }
    if let Some(schema) = &plan.input_schema {
        if schema.as_str().len() > INPUT_SCHEMA_BYTES_MAX {
            about("input", format!("the schema exceeds {INPUT_SCHEMA_BYTES_MAX} bytes"));
        } else {
            for problem in input::check_schema(&schema.parse()) {
                about("input", problem.to_string());
            }
        }
    }
    if plan.nodes.is_empty() || plan.nodes.len() > NODES_MAX {
        about("tasks", format!("a plan has 1 to {NODES_MAX} tasks, not {}", plan.nodes.len()));
        return Checked { problems, edges_hold: false };
    }
    let edges: usize = plan.nodes.iter().map(|node| node.predecessors.len()).sum();
    if edges > EDGES_MAX {
        about("tasks", format!("a plan has at most {EDGES_MAX} dependencies, not {edges}"));
        return Checked { problems, edges_hold: false };
    }
    let mut seen: HashMap<&str, NodeIndex> = HashMap::with_capacity(plan.nodes.len());
    for (node, index) in plan.nodes.iter().zip(0..) {
        of_node(node, index, &mut problems);
        work::check(&node.work, plan, index, &mut problems);
        if seen.insert(&node.id, index).is_some() {
            let message = format!("there is another task `{}`", shortened(&node.id));
            problems.push(PlanProblem::new(Some(index), "id", message));
        }
    }
    let waits = plan.nodes.iter().filter(|node| matches!(node.work, Work::Wait { .. })).count();
    if waits > WAITS_MAX {
        let message = format!("a plan has at most {WAITS_MAX} tasks that wait, not {waits}");
        problems.push(PlanProblem::new(None, "tasks", message));
    }
    let before = problems.len();
    of_edges(plan, &mut problems);
    let edges_hold = problems.len() == before;
    Checked { problems, edges_hold }
}

fn of_node(node: &PlanNode, index: NodeIndex, problems: &mut Vec<PlanProblem>) {
    let mut about =
        |field, message: String| problems.push(PlanProblem::new(Some(index), field, message));
    if !is_node_id(&node.id) {
        about(
            "id",
            format!(
                "`{}` is no task id; use 1 to {NODE_ID_BYTES_MAX} lower-case letters, digits, `-` \
                 and `_`, starting with a letter or digit",
                shortened(&node.id)
            ),
        );
    }
    if node.timeout_ms == 0 || node.timeout_ms > TIMEOUT_MS_MAX {
        about("timeout", "a time limit is 1 ms to 366 days".to_owned());
    }
    if let Some(queue) = &node.queue {
        if !is_queue_name(queue) {
            about(
                "queue",
                format!(
                    "`{}` is no name of a queue; use 1 to {QUEUE_BYTES_MAX} lower-case letters, \
                     digits and `-`, starting with a letter or digit",
                    shortened(queue)
                ),
            );
        }
        if !node.work.is_attempted() {
            about("queue", "the task calls nobody, so no queue can have it".to_owned());
        }
    }
    let retry = &node.retry;
    if retry.max_attempts == 0 || retry.max_attempts > ATTEMPTS_MAX {
        about("retry", format!("`max_attempts` is 1 to {ATTEMPTS_MAX}"));
    }
    if retry.initial_ms > RETRY_DELAY_MS_MAX || retry.max_ms > RETRY_DELAY_MS_MAX {
        about("retry", "`initial` and `max` are at most 24h".to_owned());
    }
    if !(1_000..=RETRY_FACTOR_PERMILLE_MAX).contains(&retry.factor_permille) {
        about("retry", "`factor` is 1 to 100".to_owned());
    }
}

/// Edges that point backwards only are a topological order, so this says all
/// about cycles too.
fn of_edges(plan: &Plan, problems: &mut Vec<PlanProblem>) {
    // How many successors of each node have been met as predecessors.
    let mut met = vec![0_usize; plan.nodes.len()];
    for (node, index) in plan.nodes.iter().zip(0..) {
        let ascending = node.predecessors.is_sorted_by(|one, two| one < two)
            && node.successors.is_sorted_by(|one, two| one < two);
        let ordered = node.predecessors.last().is_none_or(|last| *last < index);
        if !ascending || !ordered {
            let message = "dependencies must be ascending and stand before their task";
            problems.push(PlanProblem::new(Some(index), "depends_on", message));
            return;
        }
        for predecessor in &node.predecessors {
            let place = *predecessor as usize;
            let expected = plan
                .nodes
                .get(place)
                .zip(met.get(place))
                .and_then(|(node, met)| node.successors.get(*met));
            if expected != Some(&index) {
                return problems.push(asymmetric(index));
            }
            if let Some(met) = met.get_mut(place) {
                *met += 1;
            }
        }
    }
    for ((node, index), met) in plan.nodes.iter().zip(0..).zip(met) {
        if node.successors.len() != met {
            return problems.push(asymmetric(index));
        }
    }
}

fn asymmetric(index: NodeIndex) -> PlanProblem {
    let message = "predecessors and successors do not mirror each other";
    PlanProblem::new(Some(index), "depends_on", message)
}

/// Compiles every expression, equal ones once.
pub(super) fn of_expressions(plan: &Plan, origin: Origin) -> (Expressions, Vec<PlanProblem>) {
    let mut compiler = Compiler { origin, known: HashMap::new(), problems: Vec::new() };
    let mut expressions = Expressions {
        guards: Vec::with_capacity(plan.nodes.len()),
        values: Vec::with_capacity(plan.nodes.len()),
        second_values: Vec::with_capacity(plan.nodes.len()),
    };
    for (node, index) in plan.nodes.iter().zip(0..) {
        let guard = node.when.as_deref().and_then(|when| compiler.compile(index, "when", when));
        expressions.guards.push(guard);
        let field = node.work.value_field();
        let value = node.work.value().and_then(|value| compiler.compile(index, field, value));
        if let (Work::Delay(Delay::Until(_)), Some(until)) = (&node.work, &value) {
            compiler.constant_time(index, field, until);
        }
        expressions.values.push(value);
        let second = node.work.second_value();
        let second = second.and_then(|(field, value)| compiler.compile(index, field, value));
        expressions.second_values.push(second);
    }
    (expressions, compiler.problems)
}

struct Compiler<'p> {
    origin: Origin,
    known: HashMap<&'p str, Result<Expression, ExpressionError>>,
    problems: Vec<PlanProblem>,
}

impl<'p> Compiler<'p> {
    fn compile(
        &mut self,
        node: NodeIndex,
        field: &'static str,
        source: &'p str,
    ) -> Option<Expression> {
        let compiled = match self.known.entry(source) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(Expression::compile(source)),
        };
        match compiled {
            Ok(expression) => {
                let origin = self.origin;
                for root in expression.references().roots.iter().map(String::as_str) {
                    let is_event = root == ROOT_ONCE_TAKEN;
                    if ROOTS.contains(&root) || is_event && origin == Origin::Stored {
                        continue;
                    }
                    let message = format!("`{}` is not known here", shortened(root));
                    let hint = match is_event {
                        true => EVENT_HINT,
                        false => "a workflow's expressions see `input` and `tasks`",
                    };
                    self.problems
                        .push(PlanProblem::new(Some(node), field, message).with_hint(hint));
                }
                Some(expression.clone())
            }
            Err(error) => {
                let mut problem = PlanProblem::new(Some(node), field, error.message.clone());
                problem.position = error.position;
                self.problems.push(problem);
                None
            }
        }
    }
}

impl Compiler<'_> {
    /// A point of time that is the same in every run can be judged now. Of a stored plan it is judged in the run.
    fn constant_time(&mut self, node: NodeIndex, field: &'static str, until: &Expression) {
        if self.origin == Origin::Stored || !until.references().roots.is_empty() {
            return;
        }
        let value = until.evaluate(&Scope::default()).map_err(|error| error.to_string());
        if let Err(problem) = value.and_then(|value| point_of_time(&value)) {
            self.problems.push(PlanProblem::new(Some(node), field, problem));
        }
    }
}

/// Whether `text` is a task id.
#[must_use]
fn is_node_id(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= NODE_ID_BYTES_MAX
        && text.bytes().next().is_some_and(alphanumeric)
        && text.bytes().all(|byte| alphanumeric(byte) || byte == b'-' || byte == b'_')
}

fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && text.bytes().all(allowed)
}

/// Foreign text for a message, of bounded length.
fn shortened(text: &str) -> String {
    const CHARACTERS_MAX: usize = 80;
    text.chars().take(CHARACTERS_MAX).collect()
}
