//! What an expression needs from outside.

use std::collections::BTreeSet;

use super::tree::{Literal, Node};

/// The outside names that an expression mentions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// The named values, such as `input`, `tasks`, `event`.
    pub roots: BTreeSet<String>,
    /// The `X` of every `tasks.X` and `tasks['X']`.
    pub tasks: BTreeSet<String>,
    /// The `X` of every `input.X` and `input['X']`.
    pub inputs: BTreeSet<String>,
    /// Whether `tasks` is used in any other way than by one named task, so
    /// that nothing can be said about which tasks are meant.
    pub tasks_as_a_whole: bool,
    /// Whether the data of the event is needed, not only its attributes.
    pub event_data: bool,
}

impl References {
    pub(super) fn of(tree: &Node) -> Self {
        let mut references = Self::default();
        references.visit(tree);
        references
    }

    fn visit(&mut self, node: &Node) {
        match named(node) {
            Some((root, field)) => self.note(root, field),
            None => node.children(&mut |child| self.visit(child)),
        }
    }

    fn note(&mut self, root: &str, field: Option<&str>) {
        self.roots.insert(root.to_owned());
        match (root, field) {
            ("tasks", Some(task)) => {
                self.tasks.insert(task.to_owned());
            }
            ("input", Some(field)) => {
                self.inputs.insert(field.to_owned());
            }
            ("tasks", None) => self.tasks_as_a_whole = true,
            ("event", field) => self.event_data |= field.is_none_or(|field| field == "data"),
            _ => {}
        }
    }
}

/// The root that `node` names, with the field that it selects of it, if any.
fn named(node: &Node) -> Option<(&str, Option<&str>)> {
    if let Node::Root(root) = node {
        return Some((root, None));
    }
    let (operand, field) = if let Node::Select(operand, field) | Node::Has(operand, field) = node {
        (operand, field)
    } else if let Node::Index(operand, index) = node
        && let Node::Literal(Literal::Text(field)) = &**index
    {
        (operand, field)
    } else {
        return None;
    };
    if let Node::Root(root) = &**operand { Some((root, Some(field))) } else { None }
}
