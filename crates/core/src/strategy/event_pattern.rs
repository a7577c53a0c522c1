//! Event patterns: what an event must say for a strategy to match.
//!
//! The syntax is that of EventBridge: a mapping says that all of its fields must
//! match, a list of values that one of them must. `docs/strategies.md` says what
//! each operator means; [`read`] refuses everything else.

mod network;
mod predicate;
mod range;
mod read;
#[cfg(test)]
mod tests;
mod wildcard;

use serde_json::Value;

use crate::event::selection::{PathId, PathTree, Selected};

pub(super) use predicate::{Literal, Predicate, fold};
pub(super) use range::{Range, begins_by, compare_lower, compare_upper, ends_after};

/// Deepest nesting of a pattern, `$or` included: as deep as anybody reads.
pub const PATTERN_DEPTH_MAX: usize = 16;
/// Most values of one field, and most branches of one `$or`: a longer list of
/// values belongs into the event's producer, as a field of its own.
pub const PATTERN_ALTERNATIVES_MAX: usize = 256;
/// Most values of one pattern, all fields together: bounds what one strategy
/// adds to the index and what one event can cost it.
pub const PATTERN_VALUES_MAX: usize = 1_024;
/// Longest text in a pattern, names of fields included, in bytes.
pub const PATTERN_TEXT_BYTES_MAX: usize = 1_024;
/// Most `*` of one `wildcard`: each goes through the rest of the text once.
pub const WILDCARD_STARS_MAX: usize = 8;
/// Most significant digits of a number that is no 64-bit integer: as many as a
/// double keeps, which is what documents are read into.
pub const PATTERN_DIGITS_MAX: usize = 15;

/// A pattern that was read and is sound.
#[derive(Debug, Clone)]
pub(super) struct EventPattern {
    pub all: Group,
}

/// Fields that must all match.
#[derive(Debug, Clone, Default)]
pub(super) struct Group {
    pub fields: Vec<Field>,
    /// Each an `$or`: one of its groups must match.
    pub choices: Vec<Vec<Group>>,
}

/// A field by name.
#[derive(Debug, Clone)]
pub(super) struct Field {
    pub name: Box<str>,
    /// Its place in the tree of whoever evaluates the pattern.
    pub path: PathId,
    pub wanted: Wanted,
}

/// What a field must be.
#[derive(Debug, Clone)]
pub(super) enum Wanted {
    /// One of these.
    Values(Vec<Predicate>),
    /// An object, or a list of which one element is an object, like this.
    Inside(Group),
}

/// Something wrong with a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PatternProblem {
    /// Where, for instance `match.data.status[1]`.
    pub path: String,
    pub message: String,
    pub hint: Option<String>,
}

impl EventPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, in its order.
    pub fn read(value: &Value) -> Result<Self, Vec<PatternProblem>> {
        read::read(value)
    }

    /// Gives each field its path in `tree`.
    pub fn bind(&mut self, tree: &mut PathTree) {
        self.all.bind(PathId::EVENT, tree);
    }

    /// Whether `event`, selected by the tree that the pattern is bound to, matches.
    pub fn holds(&self, event: &Selected<'_>) -> bool {
        self.all.holds(event)
    }

    /// The estimated cost of evaluating it once, about ten nanoseconds each.
    pub fn cost(&self) -> u64 {
        self.all.cost()
    }
}

impl Group {
    fn bind(&mut self, parent: PathId, tree: &mut PathTree) {
        for field in &mut self.fields {
            field.path = tree.extend(parent, &field.name);
            if let Wanted::Inside(group) = &mut field.wanted {
                group.bind(field.path, tree);
            }
        }
        self.choices.iter_mut().flatten().for_each(|group| group.bind(parent, tree));
    }

    /// Whether `value` has all fields; of a list, whether one of its values has.
    fn holds(&self, value: &Selected<'_>) -> bool {
        match value {
            Selected::List(values) if !values.is_empty() => {
                values.iter().any(|value| self.holds(value))
            }
            Selected::Unreadable => false,
            // What is no object has none of the fields, as if it were empty.
            Selected::Null
            | Selected::Truth(_)
            | Selected::Number(_)
            | Selected::Text(_)
            | Selected::List(_)
            | Selected::Fields(_) => {
                self.fields.iter().all(|field| field.holds(value.field(field.path)))
                    && self.choices.iter().all(|groups| groups.iter().any(|any| any.holds(value)))
            }
        }
    }

    /// Whether one of `values` has all fields; without any, whether nothing has.
    pub fn holds_for_one(&self, values: &[&Selected<'_>]) -> bool {
        match values {
            [] => self.holds(&Selected::Fields(Vec::new())),
            values => values.iter().any(|value| self.holds(value)),
        }
    }

    fn cost(&self) -> u64 {
        let fields: u64 = self.fields.iter().map(|field| 1 + field.wanted.cost()).sum();
        let choices: u64 = self.choices.iter().flatten().map(Self::cost).sum();
        fields + choices
    }
}

impl Field {
    pub fn holds(&self, value: Option<&Selected<'_>>) -> bool {
        match (&self.wanted, value) {
            (Wanted::Values(predicates), value) => {
                predicates.iter().any(|predicate| predicate.holds(value))
            }
            (Wanted::Inside(group), Some(value)) => group.holds(value),
            (Wanted::Inside(group), None) => group.holds(&Selected::Fields(Vec::new())),
        }
    }
}

impl Wanted {
    fn cost(&self) -> u64 {
        match self {
            Self::Values(predicates) => predicates.iter().map(Predicate::cost).sum(),
            Self::Inside(group) => group.cost(),
        }
    }
}
