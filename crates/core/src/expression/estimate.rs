//! The static price of an expression.
//!
//! The tree is walked once with the shape of every value instead of the value:
//! how many items it may have and how much it weighs, literals as they are
//! written, values from outside as [`ITEMS_ASSUMED`] items and
//! [`TEXT_BYTES_ASSUMED`] bytes of text. An expression whose price exceeds
//! [`STEPS_MAX`] at that modest size is refused when it is loaded; a list that
//! turns out longer is paid for in steps when it is evaluated.

use std::rc::Rc;

use super::ExpressionError;
use super::limits::{ITEMS_ASSUMED, STEP_BYTES, STEPS_MAX, TEXT_BYTES_ASSUMED};
use super::tree::{Fold, FoldKind, Literal, Node, Operator};

/// The price of `tree`, which is refused when it exceeds [`STEPS_MAX`].
pub(super) fn price(tree: &Node) -> Result<u64, ExpressionError> {
    let mut estimate = Estimate { steps: 0, variables: Vec::new() };
    let value = estimate.node(tree);
    // Putting the value out visits all of it.
    estimate.spend(value.weight);
    if estimate.steps > STEPS_MAX {
        return Err(ExpressionError::new(format!(
            "the expression may take {} steps, at most {STEPS_MAX} are allowed; iterate over \
             fewer items or build a smaller value",
            estimate.steps
        )));
    }
    Ok(estimate.steps)
}

/// What is known about a value before there is one.
#[derive(Clone)]
struct Shape {
    /// Items of a list or entries of a map.
    length: u64,
    /// Steps that visiting all of the value takes.
    weight: u64,
    /// The largest of its items, where known.
    item: Option<Rc<Shape>>,
}

impl Shape {
    const SCALAR: Self = Self { length: 0, weight: 1, item: None };

    /// A value from outside; its parts look the same.
    const OUTSIDE: Self = Self {
        length: ITEMS_ASSUMED,
        weight: ITEMS_ASSUMED + TEXT_BYTES_ASSUMED / STEP_BYTES as u64,
        item: None,
    };

    fn text(bytes: usize) -> Self {
        Self { length: 0, weight: 1 + (bytes / STEP_BYTES) as u64, item: None }
    }

    /// What stands in a list or map; itself where nothing is known.
    fn part(&self) -> Self {
        self.item.as_ref().map_or_else(|| self.clone(), |item| (**item).clone())
    }

    fn of_parts(parts: Vec<Self>) -> Self {
        let length = parts.len() as u64;
        let weight = parts.iter().fold(1, |sum: u64, part| sum.saturating_add(part.weight));
        let largest = parts.into_iter().reduce(Self::or).unwrap_or(Self::SCALAR);
        Self { length, weight, item: Some(Rc::new(largest)) }
    }

    /// Either of two values.
    fn or(self, other: Self) -> Self {
        Self {
            length: self.length.max(other.length),
            weight: self.weight.max(other.weight),
            item: match (self.item, other.item) {
                (Some(one), Some(two)) => {
                    Some(Rc::new(one.as_ref().clone().or(two.as_ref().clone())))
                }
                // A scalar has no items to speak of; a value from outside has
                // items like itself.
                (Some(item), None) if other.length == 0 => Some(item),
                (None, Some(item)) if self.length == 0 => Some(item),
                _ => None,
            },
        }
    }

    /// Two texts or lists, joined.
    fn joined(self, other: Self) -> Self {
        let length = self.length.saturating_add(other.length);
        let weight = self.weight.saturating_add(other.weight);
        Self { length, weight, ..self.or(other) }
    }
}

struct Estimate {
    steps: u64,
    variables: Vec<Shape>,
}

impl Estimate {
    fn spend(&mut self, steps: u64) {
        self.steps = self.steps.saturating_add(steps);
    }

    fn node(&mut self, node: &Node) -> Shape {
        self.spend(1);
        match node {
            Node::Literal(Literal::Text(text)) => Shape::text(text.len()),
            Node::Literal(_) => Shape::SCALAR,
            Node::Root(_) => Shape::OUTSIDE,
            Node::Variable(slot) => self.variables.get(*slot).cloned().unwrap_or(Shape::OUTSIDE),
            Node::Select(operand, _) => self.node(operand).part(),
            Node::Index(operand, index) => {
                self.node(index);
                self.node(operand).part()
            }
            Node::Conditional(parts) => {
                let [condition, yes, no] = &**parts;
                self.node(condition);
                self.node(yes).or(self.node(no))
            }
            Node::Binary(operator, left, right) => self.binary(*operator, left, right),
            Node::Call(_, arguments) => {
                let mut largest = Shape::SCALAR;
                for argument in arguments {
                    let argument = self.node(argument);
                    self.spend(argument.weight);
                    largest = largest.or(argument);
                }
                largest
            }
            Node::List(items) => {
                let items = items.iter().map(|item| self.node(item)).collect();
                Shape::of_parts(items)
            }
            Node::Map(entries) => {
                let mut parts = Vec::with_capacity(entries.len());
                let mut keys = 0_u64;
                for (key, value) in entries {
                    let key = self.node(key).weight;
                    keys = keys.saturating_add(key);
                    parts.push(self.node(value));
                }
                self.spend(keys);
                let map = Shape::of_parts(parts);
                Shape { weight: map.weight.saturating_add(keys), ..map }
            }
            Node::Fold(fold) => self.fold(fold),
            Node::Has(operand, _) | Node::Not(operand) | Node::Negate(operand) => {
                self.node(operand);
                Shape::SCALAR
            }
            Node::And(left, right) | Node::Or(left, right) => {
                self.node(left);
                self.node(right);
                Shape::SCALAR
            }
        }
    }

    fn binary(&mut self, operator: Operator, left: &Node, right: &Node) -> Shape {
        let (left, right) = (self.node(left), self.node(right));
        match operator {
            Operator::Add => {
                let sum = left.joined(right);
                self.spend(sum.weight);
                sum
            }
            Operator::In => {
                // Each item is compared with the whole of the other.
                self.spend(right.length.saturating_mul(left.weight.min(right.part().weight)));
                Shape::SCALAR
            }
            Operator::Subtract
            | Operator::Multiply
            | Operator::Divide
            | Operator::Remainder
            | Operator::Equal
            | Operator::NotEqual
            | Operator::Less
            | Operator::LessOrEqual
            | Operator::Greater
            | Operator::GreaterOrEqual => {
                self.spend(left.weight.min(right.weight));
                Shape::SCALAR
            }
        }
    }

    fn fold(&mut self, fold: &Fold) -> Shape {
        let range = self.node(&fold.range);
        self.spend(range.length);
        let before = self.steps;
        self.variables.push(range.part());
        if let Some(predicate) = &fold.predicate {
            self.node(predicate);
        }
        let value = fold.value.as_ref().map(|value| self.node(value));
        self.variables.pop();
        let each = self.steps.saturating_sub(before);
        self.steps = before.saturating_add(each.saturating_mul(range.length));
        match (fold.kind, value) {
            (FoldKind::Map, Some(value)) => Shape {
                length: range.length,
                weight: value.weight.saturating_mul(range.length).saturating_add(1),
                item: Some(Rc::new(value)),
            },
            _ => Shape::SCALAR,
        }
    }
}
