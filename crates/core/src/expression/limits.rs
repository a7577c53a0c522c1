//! The limits of an expression. What exceeds one is refused: the static ones
//! when the expression is loaded, the rest as an [`EvaluationError`].
//!
//! [`EvaluationError`]: super::EvaluationError

/// Longest expression in bytes. The longest that people write are bodies of
/// calls, about 1 KiB.
pub const SOURCE_BYTES_MAX: usize = 4 * 1_024;
/// Most tokens of one expression; keeps the parser's stack and time small
/// before there is a tree to measure.
pub const TOKENS_MAX: usize = 1_024;
/// Deepest tree. Evaluation recurses once per level, so this bounds the stack.
pub const DEPTH_MAX: usize = 32;
/// Most nodes of the tree.
pub const NODES_MAX: usize = 1_024;
/// Deepest nesting of `all`, `exists`, `exists_one`, `map` and `filter`: two
/// levels join two lists; a third makes time cubic in the input.
pub const NESTING_MAX: usize = 2;
/// Most steps of one evaluation. A step is one visited node, one visited list
/// item or map entry, or [`STEP_BYTES`] bytes read or written; ten to fifty
/// nanoseconds, so an evaluation stays within about ten milliseconds.
pub const STEPS_MAX: u64 = 200_000;
/// Bytes that count as one step when text is joined, compared, searched or
/// put out.
pub const STEP_BYTES: usize = 32;
/// Largest value that an expression yields, as compact JSON text in bytes:
/// what one effect may carry.
pub const RESULT_BYTES_MAX: usize = 1_024 * 1_024;
/// Deepest value that an expression yields. JSON parsers stop at 128 levels
/// (serde_json does), and what wraps the value needs some.
pub const RESULT_DEPTH_MAX: usize = 96;
/// Items that the static price assumes of every list or map that comes from
/// outside. A longer one is paid for by the steps that it really takes.
pub const ITEMS_ASSUMED: u64 = 32;
/// Bytes that the static price assumes of every text that comes from outside.
pub const TEXT_BYTES_ASSUMED: u64 = 64;
