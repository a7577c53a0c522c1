//! A plan that has been checked, with its expressions compiled.

mod ancestry;
mod checks;

use std::collections::HashMap;
use std::sync::Arc;

use thiserror::Error;

use super::{NodeIndex, Plan, PlanNode};
use crate::expression::Expression;

/// A plan ready to be executed: every index, name, limit and expression in it
/// has been checked, so what reads it has nothing left to doubt.
#[derive(Debug, Clone)]
pub struct Executable {
    plan: Plan,
    guards: Vec<Option<Expression>>,
    values: Vec<Option<Expression>>,
    second_values: Vec<Option<Expression>>,
    places: HashMap<Arc<str>, NodeIndex>,
    roots: Vec<NodeIndex>,
}

/// Where a plan comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Somebody writes it now, and can mend it.
    Written,
    /// The store, where earlier versions put plans that must be of use for ever.
    Stored,
}

/// Something wrong with a plan.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct PlanProblem {
    /// The node; `None` when it is the plan as a whole.
    pub node: Option<NodeIndex>,
    /// The part of the node or plan, as the definition language names it.
    pub field: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Line and column inside the field's expression, both from 1, where known.
    pub position: Option<(u32, u32)>,
}

impl PlanProblem {
    fn new(node: Option<NodeIndex>, field: &'static str, message: impl Into<String>) -> Self {
        Self { node, field, message: message.into(), hint: None, position: None }
    }

    fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Executable {
    /// Checks `plan`, which may have been stored by an earlier version, in full and compiles its
    /// expressions.
    ///
    /// Takes time linear in nodes, edges and text, whatever the plan; equal
    /// expressions are compiled once.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the plan.
    pub fn new(plan: Plan) -> Result<Self, Vec<PlanProblem>> {
        Self::of(plan, Origin::Stored)
    }

    /// As [`Executable::new`], of a plan that somebody writes now: what earlier versions took
    /// though it cannot do what it says is refused too, as an expression that mentions `event`.
    ///
    /// # Errors
    ///
    /// As [`Executable::new`].
    pub fn written(plan: Plan) -> Result<Self, Vec<PlanProblem>> {
        Self::of(plan, Origin::Written)
    }

    fn of(plan: Plan, origin: Origin) -> Result<Self, Vec<PlanProblem>> {
        let (expressions, problems) = check(&plan, origin, &[]);
        if !problems.is_empty() {
            return Err(problems);
        }
        let places =
            plan.nodes.iter().zip(0..).map(|(node, index)| (Arc::clone(&node.id), index)).collect();
        let roots = plan
            .nodes
            .iter()
            .zip(0..)
            .filter(|(node, _)| node.predecessors.is_empty())
            .map(|(_, index)| index)
            .collect();
        let checks::Expressions { guards, values, second_values } = expressions;
        Ok(Self { plan, guards, values, second_values, places, roots })
    }

    /// Everything that is wrong with a plan that somebody writes now, of which it is known that
    /// something is.
    ///
    /// `incomplete` says, node by node, whose predecessors are not all known, as those of a task
    /// that names one that does not exist. What such nodes, and those behind them, mention of
    /// other nodes' outcomes is not judged. Nodes that it does not reach are complete.
    #[must_use]
    pub fn problems(plan: &Plan, incomplete: &[bool]) -> Vec<PlanProblem> {
        check(plan, Origin::Written, incomplete).1
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The plan, taken out.
    #[must_use]
    pub fn into_plan(self) -> Plan {
        self.plan
    }

    /// The node at `index`.
    #[must_use]
    pub fn node(&self, index: NodeIndex) -> Option<&PlanNode> {
        self.plan.nodes.get(index as usize)
    }

    /// The compiled `when` of the node at `index`.
    #[must_use]
    pub fn guard(&self, index: NodeIndex) -> Option<&Expression> {
        self.guards.get(index as usize)?.as_ref()
    }

    /// The compiled value of a transform or body of a call at `index`.
    #[must_use]
    pub fn value(&self, index: NodeIndex) -> Option<&Expression> {
        self.values.get(index as usize)?.as_ref()
    }

    /// The compiled second expression at `index`, see [`Work::second_value`](super::Work::second_value).
    #[must_use]
    pub fn second_value(&self, index: NodeIndex) -> Option<&Expression> {
        self.second_values.get(index as usize)?.as_ref()
    }

    /// The nodes without predecessors, ascending.
    #[must_use]
    pub fn roots(&self) -> &[NodeIndex] {
        &self.roots
    }

    /// The place of the node called `id`.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<NodeIndex> {
        self.places.get(id).copied()
    }
}

/// The compiled expressions, and what is wrong, by node.
fn check(
    plan: &Plan,
    origin: Origin,
    incomplete: &[bool],
) -> (checks::Expressions, Vec<PlanProblem>) {
    let checks::Checked { mut problems, edges_hold } = checks::of_plan(plan);
    let (expressions, of_expressions) = checks::of_expressions(plan, origin);
    problems.extend(of_expressions);
    // Nothing may follow indices that have not been checked.
    if edges_hold {
        problems.extend(ancestry::check(plan, &expressions, incomplete));
    }
    problems.sort_by_key(|problem| problem.node);
    (expressions, problems)
}

#[cfg(test)]
mod tests;
