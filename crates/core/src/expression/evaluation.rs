//! The interpreter: one step of fuel per visited node.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::Value;

use super::datum::{Datum, Fuel, Text};
use super::scope::{EvaluationError, Scope};
use super::tree::{Fold, FoldKind, Literal, Node};
use super::{functions, operators};

type Evaluated<'a> = Result<Datum<'a>, EvaluationError>;

pub(super) fn evaluate(tree: &Node, scope: &Scope<'_>) -> Result<Value, EvaluationError> {
    let mut evaluation = Evaluation { scope, variables: Vec::new(), fuel: Fuel::full() };
    let value = evaluation.node(tree)?;
    value.to_json(&mut evaluation.fuel)
}

pub(super) fn evaluate_bool(tree: &Node, scope: &Scope<'_>) -> Result<bool, EvaluationError> {
    Evaluation { scope, variables: Vec::new(), fuel: Fuel::full() }.truth(tree)
}

struct Evaluation<'s, 'a> {
    scope: &'s Scope<'a>,
    /// The items of the enclosing folds, outermost first.
    variables: Vec<Datum<'a>>,
    fuel: Fuel,
}

impl<'a> Evaluation<'_, 'a> {
    fn node(&mut self, node: &'a Node) -> Evaluated<'a> {
        self.fuel.step()?;
        match node {
            Node::Literal(literal) => Ok(of_literal(literal)),
            Node::Root(name) => self
                .scope
                .get(name)
                .map(Datum::of)
                .ok_or_else(|| EvaluationError::UnknownName(name.clone())),
            Node::Variable(slot) => self
                .variables
                .get(*slot)
                .cloned()
                .ok_or_else(|| EvaluationError::UnknownName(format!("variable {slot}"))),
            Node::Select(operand, field) => {
                let operand = self.node(operand)?;
                match operand.field(field) {
                    Some(value) => Ok(value),
                    None if operand.is_map() => Err(EvaluationError::MissingKey(field.clone())),
                    None => Err(operators::wrong_type(".", &[&operand], "")),
                }
            }
            Node::Has(operand, field) => {
                let operand = self.node(operand)?;
                if !operand.is_map() {
                    return Err(operators::wrong_type("has", &[&operand], ""));
                }
                Ok(Datum::Bool(operand.field(field).is_some()))
            }
            Node::Index(operand, index) => {
                let (operand, index) = (self.node(operand)?, self.node(index)?);
                operators::index(&operand, &index, &mut self.fuel)
            }
            Node::Not(operand) => Ok(Datum::Bool(!self.truth(operand)?)),
            Node::Negate(operand) => operators::negate(&self.node(operand)?),
            Node::And(left, right) => self.connective(left, right, false),
            Node::Or(left, right) => self.connective(left, right, true),
            Node::Conditional(parts) => {
                let [condition, yes, no] = &**parts;
                if self.truth(condition)? { self.node(yes) } else { self.node(no) }
            }
            Node::Binary(operator, left, right) => {
                let (left, right) = (self.node(left)?, self.node(right)?);
                operators::binary(*operator, &left, &right, &mut self.fuel)
            }
            Node::Call(function, arguments) => {
                let arguments = self.nodes(arguments)?;
                functions::call(*function, &arguments, &mut self.fuel)
            }
            Node::List(items) => Ok(Datum::List(Rc::new(self.nodes(items)?))),
            Node::Map(entries) => self.map(entries),
            Node::Fold(fold) => self.fold(fold),
        }
    }

    fn nodes(&mut self, nodes: &'a [Node]) -> Result<Vec<Datum<'a>>, EvaluationError> {
        nodes.iter().map(|node| self.node(node)).collect()
    }

    fn truth(&mut self, node: &'a Node) -> Result<bool, EvaluationError> {
        let value = self.node(node)?;
        if let Datum::Bool(value) = value {
            Ok(value)
        } else {
            Err(EvaluationError::NotABoolean(value.type_name()))
        }
    }

    /// `&&` and `||`: the operand equal to `deciding` decides whichever side
    /// it stands on and whatever becomes of the other (CEL specification,
    /// "Logical operators").
    fn connective(&mut self, left: &'a Node, right: &'a Node, deciding: bool) -> Evaluated<'a> {
        let left = self.truth(left);
        if left == Ok(deciding) || left == Err(EvaluationError::TooManySteps) {
            return left.map(Datum::Bool);
        }
        match (left, self.truth(right)) {
            (_, Ok(right)) if right == deciding => Ok(Datum::Bool(deciding)),
            (Err(error), _) | (Ok(_), Err(error)) => Err(error),
            (Ok(_), Ok(right)) => Ok(Datum::Bool(right)),
        }
    }

    fn map(&mut self, entries: &'a [(Node, Node)]) -> Evaluated<'a> {
        let mut map = BTreeMap::new();
        for (key, value) in entries {
            let datum = self.node(key)?;
            let Some(key) = datum.key().filter(|_| !matches!(datum, Datum::Double(_))) else {
                return Err(operators::wrong_type("map key", &[&datum], ""));
            };
            let value = self.node(value)?;
            // Finding the place of a key reads about as many keys as the
            // number of entries has bits.
            self.fuel.items(entries.len().checked_ilog2().unwrap_or(0) as usize)?;
            if map.contains_key(&key) {
                return Err(EvaluationError::RepeatedKey(key.to_string()));
            }
            map.insert(key, value);
        }
        Ok(Datum::Map(Rc::new(map)))
    }

    fn fold(&mut self, fold: &'a Fold) -> Evaluated<'a> {
        let range = self.node(&fold.range)?;
        let Some(items) = range.range(&mut self.fuel)? else {
            let operation = match fold.kind {
                FoldKind::All => "all",
                FoldKind::Exists => "exists",
                FoldKind::ExistsOne => "exists_one",
                FoldKind::Map => "map",
            };
            return Err(operators::wrong_type(operation, &[&range], ""));
        };
        match fold.kind {
            FoldKind::All => self.quantify(fold, items, false),
            FoldKind::Exists => self.quantify(fold, items, true),
            FoldKind::ExistsOne => {
                let mut found = 0_usize;
                for item in items {
                    found += usize::from(self.holds(fold, item)?);
                }
                Ok(Datum::Bool(found == 1))
            }
            FoldKind::Map => {
                let mut values = Vec::new();
                for item in items {
                    if self.holds(fold, item.clone())? {
                        values.push(self.with(item, fold.value.as_ref())?);
                    }
                }
                Ok(Datum::List(Rc::new(values)))
            }
        }
    }

    /// `all` (decided by a false) and `exists` (decided by a true): a later
    /// item may decide although an earlier one could not be evaluated.
    fn quantify(&mut self, fold: &'a Fold, items: Vec<Datum<'a>>, deciding: bool) -> Evaluated<'a> {
        let mut undecided = Ok(Datum::Bool(!deciding));
        for item in items {
            match self.holds(fold, item) {
                Ok(value) if value == deciding => return Ok(Datum::Bool(deciding)),
                Ok(_) => {}
                Err(EvaluationError::TooManySteps) => return Err(EvaluationError::TooManySteps),
                Err(error) => undecided = Err(error),
            }
        }
        undecided
    }

    fn holds(&mut self, fold: &'a Fold, item: Datum<'a>) -> Result<bool, EvaluationError> {
        match &fold.predicate {
            None => Ok(true),
            Some(predicate) => {
                self.variables.push(item);
                let holds = self.truth(predicate);
                self.variables.pop();
                holds
            }
        }
    }

    fn with(&mut self, item: Datum<'a>, value: Option<&'a Node>) -> Evaluated<'a> {
        let Some(value) = value else { return Ok(item) };
        self.variables.push(item);
        let value = self.node(value);
        self.variables.pop();
        value
    }
}

fn of_literal(literal: &Literal) -> Datum<'_> {
    match literal {
        Literal::Null => Datum::Null,
        Literal::Bool(value) => Datum::Bool(*value),
        Literal::Int(value) => Datum::Int(*value),
        Literal::Uint(value) => Datum::Uint(*value),
        Literal::Double(value) => Datum::Double(*value),
        Literal::Text(text) => Datum::Text(Text::Borrowed(text)),
    }
}
