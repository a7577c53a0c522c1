//! CEL expressions under static limits.
//!
//! The Common Expression Language (<https://cel.dev>) always ends, yet its
//! interpreter has no budget: a few hundred bytes can ask for minutes of time
//! or gigabytes. An expression is therefore priced when it is loaded:
//! its text, its tree and the estimate of its evaluation must fit fixed limits,
//! and what does not fit is refused with the limit that it breaks.
//!
//! An estimate cannot know how long a list will be, so evaluation counts its
//! steps too and gives up at [`STEPS_MAX`]. That takes an interpreter of our
//! own over the tree that the `cel` crate parses: it reads JSON where it lies,
//! visits maps in one fixed order (the same scope always gives the same value),
//! and does not panic. A test holds it against the crate's interpreter.
//!
//! There is no clock and no randomness in the language; time is an input.

mod datum;
mod estimate;
mod evaluation;
mod functions;
mod limits;
mod lowering;
mod operators;
mod references;
mod scope;
mod screening;
mod slips;
mod tree;

use std::fmt;
use std::sync::Arc;

use serde_json::Value;
use thiserror::Error;

pub use limits::*;
pub use references::References;
pub use scope::{EvaluationError, Scope};

/// A compiled expression; cheap to clone.
#[derive(Clone)]
pub struct Expression(Arc<Compiled>);

struct Compiled {
    source: Box<str>,
    tree: tree::Node,
    price: u64,
    references: References,
}

/// Why a text is no expression that may be loaded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct ExpressionError {
    /// What is wrong, and what to do about it.
    pub message: String,
    /// Line and column in the expression's text, both from 1, where known.
    pub position: Option<(u32, u32)>,
}

impl ExpressionError {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), position: None }
    }

    fn at(message: impl Into<String>, position: (u32, u32)) -> Self {
        Self { message: message.into(), position: Some(position) }
    }
}

impl Expression {
    /// Parses `source` and checks it against every static limit.
    ///
    /// # Errors
    ///
    /// Text that is no CEL, calls a function that does not exist here, or
    /// breaks a limit of this module.
    pub fn compile(source: &str) -> Result<Self, ExpressionError> {
        screening::screen(source)?;
        let parsed = lowering::parse(source)?;
        let tree = lowering::lower(source, &parsed)?;
        let price = estimate::price(&tree)?;
        let references = References::of(&tree);
        Ok(Self(Arc::new(Compiled { source: source.into(), tree, price, references })))
    }

    /// The text that was compiled.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// Steps that an evaluation is estimated to take, with lists and texts of modest size; at most
    /// [`STEPS_MAX`].
    #[must_use]
    pub fn price(&self) -> u64 {
        self.0.price
    }

    /// What the expression needs from outside.
    #[must_use]
    pub fn references(&self) -> &References {
        &self.0.references
    }

    /// Evaluates the expression; the same scope always gives the same value.
    ///
    /// # Errors
    ///
    /// A missing field, an operation that its operands do not support, a
    /// number out of range, or a value beyond [`STEPS_MAX`] or
    /// [`RESULT_BYTES_MAX`].
    pub fn evaluate(&self, scope: &Scope<'_>) -> Result<Value, EvaluationError> {
        evaluation::evaluate(&self.0.tree, scope)
    }

    /// Evaluates the expression and expects a truth value.
    ///
    /// # Errors
    ///
    /// As [`Expression::evaluate`], and [`EvaluationError::NotABoolean`].
    pub fn evaluate_bool(&self, scope: &Scope<'_>) -> Result<bool, EvaluationError> {
        evaluation::evaluate_bool(&self.0.tree, scope)
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Expression").field(&self.source()).finish()
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.source() == other.source()
    }
}

impl Eq for Expression {}

/// Line and column, from 1 and counted in characters, of a byte of `source`.
fn position(source: &str, offset: usize) -> (u32, u32) {
    let before = source.get(..offset).unwrap_or(source);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or(before).chars().count() + 1;
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
