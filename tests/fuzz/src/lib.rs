//! What is fuzzed: one function per kind of bytes that come from outside.
//!
//! A function takes any bytes, lets the product read them, and panics where a
//! law is broken; that the product itself neither panics nor hangs is the first
//! of the laws. `libfuzzer/` feeds them with what a fuzzer thinks of (`make
//! fuzz`), the tests of this package with the corpora that it left behind.

mod definitions;
mod event;
mod expression;
mod frame;

pub use definitions::{strategies_yaml, workflow_yaml};
pub use event::cloudevents;
pub use expression::cel_guard;
pub use frame::{envelope, frame};

/// A function that takes any bytes.
pub type Target = fn(&[u8]);

/// Every target by the name of its corpus.
pub const TARGETS: [(&str, Target); 6] = [
    ("cel_guard", cel_guard),
    ("cloudevents", cloudevents),
    ("envelope", envelope),
    ("frame", frame),
    ("strategies_yaml", strategies_yaml),
    ("workflow_yaml", workflow_yaml),
];
