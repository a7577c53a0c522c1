//! What an expression is evaluated against, and how that can fail.

use serde_json::Value;
use thiserror::Error;

/// The named values that an expression may mention.
#[derive(Debug, Clone, Default)]
pub struct Scope<'a> {
    values: Vec<(&'a str, &'a Value)>,
}

impl<'a> Scope<'a> {
    /// A scope without values.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `value` under `name`; the first of two equal names counts. The
    /// value is read where it lies, never copied.
    #[must_use]
    pub fn with(mut self, name: &'a str, value: &'a Value) -> Self {
        self.values.push((name, value));
        self
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.values.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

/// Why an expression has no value in a scope.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EvaluationError {
    /// A name that the scope does not hold.
    #[error("`{0}` is not known here")]
    UnknownName(String),
    /// A field or key that is not there; `has(…)` tells beforehand.
    #[error("there is no `{0}`; test with `has(…)` or `in` where it may be missing")]
    MissingKey(String),
    /// A place that a list does not have.
    #[error("`{index}` is outside of a list of {length}")]
    OutOfBounds {
        /// The place that was asked for.
        index: String,
        /// Items of the list.
        length: usize,
    },
    /// Operands of types that the operation does not take.
    #[error("`{operation}` does not take {operands}{hint}")]
    WrongType {
        /// The operator or function.
        operation: &'static str,
        /// The types of the operands.
        operands: String,
        /// What to do about it, starting with `; `, or nothing.
        hint: &'static str,
    },
    /// A number outside of its type's range, or a division by zero.
    #[error("`{operation}` has no result: {reason}")]
    OutOfRange {
        /// The operator or function.
        operation: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// A map literal with the same key twice.
    #[error("the key `{0}` stands twice in one map")]
    RepeatedKey(String),
    /// A guard that is neither true nor false.
    #[error("expected true or false, found {0}")]
    NotABoolean(&'static str),
    /// The evaluation took [`STEPS_MAX`](super::STEPS_MAX) steps.
    #[error("gave up after {} steps; iterate over fewer items", super::STEPS_MAX)]
    TooManySteps,
    /// The value exceeds [`RESULT_BYTES_MAX`](super::RESULT_BYTES_MAX).
    #[error("the value exceeds {} bytes", super::RESULT_BYTES_MAX)]
    ResultTooLarge,
    /// The value nests deeper than [`RESULT_DEPTH_MAX`](super::RESULT_DEPTH_MAX).
    #[error("the value nests deeper than {} levels", super::RESULT_DEPTH_MAX)]
    ResultTooDeep,
    /// A number that JSON cannot hold (infinity, not a number).
    #[error("the value holds a number that JSON cannot hold")]
    NotJson,
}
