//! Documents of authors.

use fermata_core::plan::Executable;
use fermata_core::strategy::StrategySet;
use fermata_definitions::{Limits, Problem, lines, read_strategies_document, read_workflow};
use fermata_wire::plan;

/// A strategies document: it is refused with its problems, or what was read
/// makes a set.
///
/// # Panics
///
/// When a law is broken.
pub fn strategies_yaml(bytes: &[u8]) {
    let Ok(source) = std::str::from_utf8(bytes) else { return };
    match read_strategies_document(source, None, &Limits::WRITTEN) {
        Ok(document) => {
            StrategySet::compile(document.strategies).expect("what was read compiles");
        }
        Err(problems) => told(&problems, source),
    }
}

/// A workflow document: it is refused with its problems, or its plan is sound
/// after it was stored and read.
///
/// # Panics
///
/// When a law is broken.
pub fn workflow_yaml(bytes: &[u8]) {
    let Ok(source) = std::str::from_utf8(bytes) else { return };
    match read_workflow(source, None, &Limits::WRITTEN) {
        Ok(executable) => {
            let found = executable.into_plan();
            let (digest, stored) = plan::encode(&found).expect("a plan can be stored");
            let read = plan::decode(&stored).expect("a stored plan can be read");
            assert_eq!(read, found);
            assert_eq!(plan::encode(&read).expect("again").0, digest);
            Executable::new(read).expect("a stored plan is sound");
        }
        Err(problems) => told(&problems, source),
    }
}

/// Problems say something, about places that the document has.
fn told(problems: &[Problem], source: &str) {
    assert!(!problems.is_empty(), "refused without a problem");
    let lines = u32::try_from(lines(source).count()).expect("few lines") + 1;
    for problem in problems {
        assert!(!problem.message.is_empty(), "{problem:?}");
        assert!(problem.line <= lines, "{problem:?} in a document of {lines} lines");
    }
}
