//! What is wrong with a document, and where.

use std::collections::HashSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Deref;

use serde::Serialize;

use crate::tree::{Located, Place};

/// One thing wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file, where the document came from one.
    pub file: Option<String>,
    /// Line, from 1; 0 when the document has no text (a plan built in memory).
    pub line: u32,
    /// Column in characters, from 1; 0 when the document has no text.
    pub column: u32,
    /// Where in the document: `workflow.tasks[2].when`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// The lines of a document as problems count them: YAML also ends a line at a carriage return alone
/// (YAML 1.2.2, 5.4).
pub fn lines(source: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(source);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.find(['\n', '\r']) else { return rest.take() };
        let (line, after) = text.split_at(end);
        rest = after.strip_prefix("\r\n").or_else(|| after.get(1..));
        Some(line)
    })
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(formatter, "{file}:")?;
        }
        if self.line > 0 {
            write!(formatter, "{}:{}: ", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(formatter, "{}: ", self.path)?;
        }
        formatter.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(formatter, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}

/// Renders problems one per line, as a compiler would.
#[must_use]
pub fn report(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

/// Most problems that are kept of one document: more help nobody, and a
/// document of a hundred thousand mistakes must stay cheap.
const PROBLEMS_MAX: usize = 200;

/// What is wrong with a document: the first problems, and how many more there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundProblems {
    /// The first 200 that were found, in the order of the document.
    pub listed: Vec<Problem>,
    /// How many others were found.
    pub left_out: usize,
}

impl From<Vec<Problem>> for FoundProblems {
    fn from(mut listed: Vec<Problem>) -> Self {
        let left_out = listed.len().saturating_sub(PROBLEMS_MAX);
        listed.truncate(PROBLEMS_MAX);
        Self { listed, left_out }
    }
}

impl Deref for FoundProblems {
    type Target = [Problem];

    fn deref(&self) -> &[Problem] {
        &self.listed
    }
}

/// Collects the problems of one document.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    list: Vec<Problem>,
    file: Option<String>,
    /// Hashes of those that are not kept: what is told twice counts once.
    left_out: HashSet<u64>,
}

impl Problems {
    pub(crate) fn of_file(file: Option<&str>) -> Self {
        Self { file: file.map(str::to_owned), ..Self::default() }
    }

    /// Whether nothing further is kept but counted: then no hint needs to be worked out.
    pub(crate) fn is_full(&self) -> bool {
        self.list.len() >= PROBLEMS_MAX
    }

    pub(crate) fn add(&mut self, place: Place, path: &str, message: impl Into<String>) {
        self.push(place, path, message.into(), None);
    }

    pub(crate) fn add_with_hint(
        &mut self,
        place: Place,
        path: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.push(place, path, message.into(), Some(hint.into()));
    }

    pub(crate) fn push(&mut self, place: Place, path: &str, message: String, hint: Option<String>) {
        if self.is_full() {
            let mut hasher = DefaultHasher::new();
            (place.line, place.column, path, &message).hash(&mut hasher);
            self.left_out.insert(hasher.finish());
        } else {
            self.list.push(Problem {
                file: self.file.clone(),
                line: place.line,
                column: place.column,
                path: path.to_owned(),
                message,
                hint,
            });
        }
    }

    /// Takes over problems that know their path, and finds their places.
    pub(crate) fn locate(&mut self, problems: Vec<Problem>, document: &Located, source: &str) {
        for problem in problems {
            let place = document.find(&problem.path);
            // Line and column count inside the expression so far.
            let place = match (problem.line, problem.column) {
                (0, _) | (_, 0) => place.start,
                (line, column) => place.inside(source, line, column),
            };
            self.push(place, &problem.path, problem.message, problem.hint);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many have been found so far.
    pub(crate) fn count(&self) -> usize {
        self.list.len() + self.left_out.len()
    }

    /// What was found, in the order of the document.
    pub(crate) fn into_sorted(self) -> FoundProblems {
        let mut listed = self.list;
        listed.sort_by_key(|problem| (problem.line, problem.column));
        listed.dedup();
        FoundProblems { listed, left_out: self.left_out.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_at_either_character_and_at_both_together_once() {
        assert!(lines("a\nb\r\nc\rd").eq(["a", "b", "c", "d"]));
        assert!(lines("a\n\r\r\n").eq(["a", "", "", ""]));
        assert!(lines("").eq([""]));
    }
}
