//! From the parser's tree to ours: every name is looked up, every limit on
//! the tree is checked, and what has no meaning here is refused by name.

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators,
};

use super::limits::{DEPTH_MAX, NESTING_MAX, NODES_MAX};
use super::tree::{Fold, FoldKind, Function, Literal, Node, Operator, Style};
use super::{ExpressionError, position, slips};

/// Parses `source`, whose size has been screened.
///
/// The crate's recursive parser takes about a microsecond where its generated
/// one takes forty, which is most of the time that planning takes.
pub(super) fn parse(source: &str) -> Result<IdedExpr, ExpressionError> {
    let parser = cel::parser::PrattParser::new()
        .max_expression_node_count(PARSED_NODES_MAX)
        .error_reporting_limit(1);
    parser.parse(source).map_err(|errors| {
        if let Some(slip) = slips::of_other_languages(source) {
            return slip;
        }
        let Some(first) = errors.errors.first() else {
            return ExpressionError::new("the expression cannot be parsed");
        };
        let (line, column) = first.pos;
        // The parser counts columns from 0 or 1 depending on the error; a
        // position before the text is none.
        let position = u32::try_from(line).ok().zip(u32::try_from(column).ok());
        ExpressionError {
            message: plain(&first.msg),
            position: position
                .filter(|(line, _)| *line > 0)
                .map(|(line, column)| (line, column.max(1))),
        }
    })
}

/// Most nodes that the parser may make. A macro is expanded to about ten, so
/// this is reached only by what [`NODES_MAX`] refuses anyway.
const PARSED_NODES_MAX: usize = 16 * NODES_MAX;

/// The parser's message on one line and of bounded length.
fn plain(message: &str) -> String {
    const CHARACTERS_MAX: usize = 160;
    if message.contains("<EOF>") {
        return "the expression is not finished".to_owned();
    }
    let line = message.lines().next().unwrap_or_default();
    let line = line.strip_prefix("Syntax error: ").unwrap_or(line);
    line.chars().take(CHARACTERS_MAX).collect()
}

/// Turns the parsed tree into ours.
pub(super) fn lower(source: &str, parsed: &IdedExpr) -> Result<Node, ExpressionError> {
    Lowering { source, variables: Vec::new(), nodes: 0 }.node(parsed, 1)
}

struct Lowering<'e> {
    source: &'e str,
    /// Variables of the enclosing folds, outermost first.
    variables: Vec<&'e str>,
    nodes: usize,
}

type Lowered = Result<Node, ExpressionError>;

impl<'e> Lowering<'e> {
    fn node(&mut self, parsed: &'e IdedExpr, depth: usize) -> Lowered {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(ExpressionError::new(format!(
                "the expression has more than {NODES_MAX} parts"
            )));
        }
        if depth > DEPTH_MAX {
            return Err(ExpressionError::new(format!(
                "the expression nests deeper than {DEPTH_MAX} levels; a chain of operators \
                 nests once per operator"
            )));
        }
        let depth = depth + 1;
        match &parsed.expr {
            Expr::Literal(value) => literal(value),
            Expr::Ident(name) => Ok(self.name(name)),
            Expr::Select(select) => {
                let operand = Box::new(self.node(&select.operand, depth)?);
                let field = select.field.clone();
                Ok(if select.test {
                    Node::Has(operand, field)
                } else {
                    Node::Select(operand, field)
                })
            }
            Expr::Call(call) => self.call(call, depth),
            Expr::List(list) => Ok(Node::List(self.nodes(&list.elements, depth)?)),
            Expr::Map(map) => {
                let mut entries = Vec::with_capacity(map.entries.len());
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else {
                        return Err(ExpressionError::new("a map needs keys and values"));
                    };
                    entries.push((self.node(&entry.key, depth)?, self.node(&entry.value, depth)?));
                }
                Ok(Node::Map(entries))
            }
            Expr::Comprehension(fold) => self.fold(fold, depth),
            Expr::Struct(message) => Err(self.refused(
                format!("the message type `{}` does not exist here", message.type_name),
                &message.type_name,
            )),
            Expr::Unspecified => Err(ExpressionError::new("the expression has an empty part")),
        }
    }

    fn nodes(
        &mut self,
        parsed: &'e [IdedExpr],
        depth: usize,
    ) -> Result<Vec<Node>, ExpressionError> {
        parsed.iter().map(|item| self.node(item, depth)).collect()
    }

    fn name(&self, name: &str) -> Node {
        match self.variables.iter().rposition(|variable| *variable == name) {
            Some(slot) => Node::Variable(slot),
            // A leading dot makes a name absolute: never a variable.
            None => Node::Root(name.strip_prefix('.').unwrap_or(name).to_owned()),
        }
    }

    fn call(&mut self, call: &'e CallExpr, depth: usize) -> Lowered {
        if let (None, Some(operator)) = (&call.target, operator(&call.func_name)) {
            let [left, right] = call.args.as_slice() else {
                return Err(ExpressionError::new(format!(
                    "`{}` takes two operands",
                    operator.symbol()
                )));
            };
            let left = Box::new(self.node(left, depth)?);
            return Ok(Node::Binary(operator, left, Box::new(self.node(right, depth)?)));
        }
        match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::CONDITIONAL, [condition, yes, no]) => Ok(Node::Conditional(Box::new([
                self.node(condition, depth)?,
                self.node(yes, depth)?,
                self.node(no, depth)?,
            ]))),
            (operators::LOGICAL_AND, [left, right]) => {
                Ok(Node::And(Box::new(self.node(left, depth)?), Box::new(self.node(right, depth)?)))
            }
            (operators::LOGICAL_OR, [left, right]) => {
                Ok(Node::Or(Box::new(self.node(left, depth)?), Box::new(self.node(right, depth)?)))
            }
            (operators::INDEX, [operand, index]) => Ok(Node::Index(
                Box::new(self.node(operand, depth)?),
                Box::new(self.node(index, depth)?),
            )),
            (operators::LOGICAL_NOT, [operand]) => {
                Ok(Node::Not(Box::new(self.node(operand, depth)?)))
            }
            (operators::NEGATE, [operand]) => {
                Ok(Node::Negate(Box::new(self.node(operand, depth)?)))
            }
            (name, _) => self.function(name, call, depth),
        }
    }

    fn function(&mut self, name: &str, call: &'e CallExpr, depth: usize) -> Lowered {
        let Some((function, _, style)) = Function::ALL.iter().find(|(_, known, _)| *known == name)
        else {
            let known: Vec<_> = Function::ALL.iter().map(|(_, name, _)| *name).collect();
            return Err(self.refused(
                format!(
                    "there is no function `{name}`; there are {}, has, all, exists, exists_one, \
                     map, filter",
                    known.join(", ")
                ),
                name,
            ));
        };
        let arguments = call.target.iter().map(|target| &**target).chain(&call.args);
        let arguments =
            arguments.map(|argument| self.node(argument, depth)).collect::<Result<Vec<_>, _>>()?;
        let styled = match style {
            Style::Either => true,
            Style::Global => call.target.is_none(),
            Style::OnTarget => call.target.is_some(),
        };
        if !styled || arguments.len() != function.arguments() {
            let usage = match style {
                Style::Either => format!("{name}(value)"),
                Style::Global => format!("{name}(value)"),
                Style::OnTarget => format!("text.{name}(part)"),
            };
            return Err(self.refused(format!("`{name}` is called as `{usage}`"), name));
        }
        Ok(Node::Call(*function, arguments))
    }

    fn fold(&mut self, fold: &'e ComprehensionExpr, depth: usize) -> Lowered {
        if self.variables.len() >= NESTING_MAX {
            return Err(ExpressionError::new(format!(
                "`all`, `exists`, `exists_one`, `map` and `filter` nest deeper than \
                 {NESTING_MAX} levels"
            )));
        }
        let shape = Shape::of(fold)
            .ok_or_else(|| ExpressionError::new("this kind of comprehension is not supported"))?;
        let range = self.node(&fold.iter_range, depth)?;
        self.variables.push(&fold.iter_var);
        let predicate = shape.predicate.map(|predicate| self.node(predicate, depth));
        let value = shape.value.map(|value| self.node(value, depth));
        self.variables.pop();
        Ok(Node::Fold(Box::new(Fold {
            kind: shape.kind,
            range,
            predicate: predicate.transpose()?,
            value: value.transpose()?,
        })))
    }

    /// An error about `word`, at the word's first place in the source: the
    /// tree does not know where its parts were written.
    fn refused(&self, message: String, word: &str) -> ExpressionError {
        let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
        let place = self.source.match_indices(word).map(|(offset, _)| offset).find(|offset| {
            let before = self.source.get(..*offset).and_then(|text| text.chars().next_back());
            let after = self.source.get(offset + word.len()..).and_then(|text| text.chars().next());
            !before.is_some_and(part_of_word) && !after.is_some_and(part_of_word)
        });
        ExpressionError { message, position: place.map(|offset| position(self.source, offset)) }
    }
}

fn literal(literal: &LiteralValue) -> Lowered {
    Ok(Node::Literal(match literal {
        LiteralValue::Boolean(value) => Literal::Bool(*value.inner()),
        LiteralValue::Int(value) => Literal::Int(*value.inner()),
        LiteralValue::UInt(value) => Literal::Uint(*value.inner()),
        LiteralValue::Double(value) => Literal::Double(*value.inner()),
        LiteralValue::String(value) => Literal::Text(value.inner().to_owned()),
        LiteralValue::Null => Literal::Null,
        LiteralValue::Bytes(_) => {
            return Err(ExpressionError::new("JSON has no bytes (`b'…'`); use a text"));
        }
    }))
}

fn operator(name: &str) -> Option<Operator> {
    Some(match name {
        operators::ADD => Operator::Add,
        operators::SUBSTRACT => Operator::Subtract,
        operators::MULTIPLY => Operator::Multiply,
        operators::DIVIDE => Operator::Divide,
        operators::MODULO => Operator::Remainder,
        operators::EQUALS => Operator::Equal,
        operators::NOT_EQUALS => Operator::NotEqual,
        operators::LESS => Operator::Less,
        operators::LESS_EQUALS => Operator::LessOrEqual,
        operators::GREATER => Operator::Greater,
        operators::GREATER_EQUALS => Operator::GreaterOrEqual,
        operators::IN => Operator::In,
        _ => return None,
    })
}

/// Which macro a comprehension was expanded from.
struct Shape<'e> {
    kind: FoldKind,
    predicate: Option<&'e IdedExpr>,
    value: Option<&'e IdedExpr>,
}

impl<'e> Shape<'e> {
    /// Reads the macro back from the expansion that the CEL specification
    /// gives for it (section "Macros").
    fn of(fold: &'e ComprehensionExpr) -> Option<Self> {
        let Expr::Call(step) = &fold.loop_step.expr else { return None };
        match (step.func_name.as_str(), step.args.as_slice()) {
            (operators::LOGICAL_AND, [_, predicate]) => {
                Some(Self { kind: FoldKind::All, predicate: Some(predicate), value: None })
            }
            (operators::LOGICAL_OR, [_, predicate]) => {
                Some(Self { kind: FoldKind::Exists, predicate: Some(predicate), value: None })
            }
            (operators::CONDITIONAL, [predicate, step, _]) => match appended(step) {
                Some(value) => Some(Self {
                    kind: FoldKind::Map,
                    predicate: Some(predicate),
                    value: Some(value),
                }),
                None => Some(Self {
                    kind: FoldKind::ExistsOne,
                    predicate: Some(predicate),
                    value: None,
                }),
            },
            (operators::ADD, _) => {
                let value = appended(&fold.loop_step)?;
                Some(Self { kind: FoldKind::Map, predicate: None, value: Some(value) })
            }
            _ => None,
        }
    }
}

/// The `value` of `accumulator + [value]`.
fn appended(step: &IdedExpr) -> Option<&IdedExpr> {
    let Expr::Call(add) = &step.expr else { return None };
    let [_, appended] = add.args.as_slice() else { return None };
    let Expr::List(list) = &appended.expr else { return None };
    list.elements.first()
}
