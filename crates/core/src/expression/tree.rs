//! The tree that is evaluated: what is left of CEL once everything that has
//! no meaning here has been refused.

/// A node; every name in it is known to exist.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Literal(Literal),
    /// A value from outside, by name.
    Root(String),
    /// The variable of an enclosing fold; 0 is the outermost.
    Variable(usize),
    Select(Box<Node>, String),
    /// `has(operand.field)`.
    Has(Box<Node>, String),
    Index(Box<Node>, Box<Node>),
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Conditional(Box<[Node; 3]>),
    Binary(Operator, Box<Node>, Box<Node>),
    Call(Function, Vec<Node>),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    Fold(Box<Fold>),
}

impl Node {
    /// Visits the parts of the node, in the order in which they are evaluated.
    pub(super) fn children<'n>(&'n self, visit: &mut impl FnMut(&'n Self)) {
        match self {
            Self::Literal(_) | Self::Root(_) | Self::Variable(_) => {}
            Self::Select(operand, _)
            | Self::Has(operand, _)
            | Self::Not(operand)
            | Self::Negate(operand) => visit(operand),
            Self::Index(left, right)
            | Self::And(left, right)
            | Self::Or(left, right)
            | Self::Binary(_, left, right) => {
                visit(left);
                visit(right);
            }
            Self::Conditional(parts) => parts.iter().for_each(visit),
            Self::Call(_, parts) | Self::List(parts) => parts.iter().for_each(visit),
            Self::Map(entries) => {
                for (key, value) in entries {
                    visit(key);
                    visit(value);
                }
            }
            Self::Fold(fold) => {
                visit(&fold.range);
                fold.predicate.iter().chain(&fold.value).for_each(visit);
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
}

impl Operator {
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::In => "in",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Size,
    Contains,
    StartsWith,
    EndsWith,
    Text,
    Int,
    Uint,
    Double,
    Bool,
    Dyn,
}

impl Function {
    /// Every function, with its name and whether it is called on a target
    /// (`text.contains(part)`), globally (`int(text)`), or either.
    pub(super) const ALL: [(Self, &'static str, Style); 10] = [
        (Self::Size, "size", Style::Either),
        (Self::Contains, "contains", Style::OnTarget),
        (Self::StartsWith, "startsWith", Style::OnTarget),
        (Self::EndsWith, "endsWith", Style::OnTarget),
        (Self::Text, "string", Style::Global),
        (Self::Int, "int", Style::Global),
        (Self::Uint, "uint", Style::Global),
        (Self::Double, "double", Style::Global),
        (Self::Bool, "bool", Style::Global),
        (Self::Dyn, "dyn", Style::Global),
    ];

    /// Number of arguments, the target included.
    pub(super) fn arguments(self) -> usize {
        match self {
            Self::Contains | Self::StartsWith | Self::EndsWith => 2,
            Self::Size
            | Self::Text
            | Self::Int
            | Self::Uint
            | Self::Double
            | Self::Bool
            | Self::Dyn => 1,
        }
    }

    pub(super) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(function, ..)| *function == self).map_or("", |(_, name, _)| name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Global,
    OnTarget,
    Either,
}

/// One of CEL's macros over a list or the keys of a map.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fold {
    pub(super) kind: FoldKind,
    pub(super) range: Node,
    /// The predicate; of [`FoldKind::Map`] the filter before it, if any.
    pub(super) predicate: Option<Node>,
    /// What [`FoldKind::Map`] makes of an item.
    pub(super) value: Option<Node>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FoldKind {
    All,
    Exists,
    ExistsOne,
    /// `filter` too, whose value is the item itself.
    Map,
}
