//! What is probably the matter with a file whose problems are many and say little: it is of another kind,
//! or a line of it is indented wrongly.

use fermata_definitions::{FoundProblems, Problem, lines};

/// What a file can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// A workflow.
    Workflow,
    /// Strategies, and their tests.
    Strategies,
}

impl Holds {
    /// The name that it has at the top of a file, and as a command.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Workflow => ("workflow", "workflow"),
            Self::Strategies => ("strategies", "strategy"),
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Workflow => Self::Strategies,
            Self::Strategies => Self::Workflow,
        }
    }
}

/// The problems of a file that should hold `wanted`, told better where the text shows how.
#[must_use]
pub fn told(wanted: Holds, found: FoundProblems, text: &str, file: &str) -> FoundProblems {
    if is_of(wanted.other(), text) && !is_of(wanted, text) {
        return vec![other_kind(wanted, file)].into();
    }
    let hinted = |mut problem: Problem| {
        // What the parser itself does not understand is nowhere in the document.
        if problem.hint.is_none() && problem.path.is_empty() {
            problem.hint = indentation(text, problem.line);
        }
        problem
    };
    let FoundProblems { listed, left_out } = found;
    FoundProblems { listed: listed.into_iter().map(hinted).collect(), left_out }
}

/// Whether the text has the name at its top.
fn is_of(holds: Holds, text: &str) -> bool {
    let (name, _) = holds.words();
    let quoted = format!("\"{name}\"");
    let names = |line: &str| {
        let rest = line.strip_prefix(name).or_else(|| line.strip_prefix(&quoted));
        rest.is_some_and(|rest| rest.trim_start().starts_with(':'))
    };
    // In JSON it stands behind the brace, on the same line or on the next ones.
    let is_json = text.trim_start().starts_with('{');
    let inside = text.trim_start().trim_start_matches('{').trim_start();
    if is_json { names(inside) } else { lines(text).any(names) }
}

fn other_kind(wanted: Holds, file: &str) -> Problem {
    let ((wanted, _), (found, command)) = (wanted.words(), wanted.other().words());
    Problem {
        file: Some(file.to_owned()),
        line: 0,
        column: 0,
        path: String::new(),
        message: format!("the file holds `{found}`, not `{wanted}`"),
        hint: Some(format!(
            "`fermata {command} check {file}` checks it, `fermata {command} apply {file}` makes it active"
        )),
    }
}

/// A hint where the indentation of a line, or of the one before it, is probably what the parser stumbles over.
fn indentation(text: &str, line: u32) -> Option<String> {
    let at = usize::try_from(line).ok().filter(|line| *line > 0)?;
    let before = lines(text).take(at).collect::<Vec<_>>();
    let is_code = |line: &&&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    // Columns in which something goes on, the innermost last.
    let mut open = Vec::<usize>::new();
    let mut last = None;
    for (number, line) in (1..).zip(&before).filter(|(_, line)| is_code(line)) {
        let width = line.len() - line.trim_start_matches(' ').len();
        let is_inside = open.last().is_none_or(|innermost| width > *innermost);
        let fits = is_inside || open.contains(&width);
        let is_near = number + 1 >= at;
        if is_near && line.trim_start_matches(' ').starts_with('\t') {
            return Some(format!("line {number} is indented with a tab: YAML takes spaces only"));
        }
        if is_near && !fits {
            return Some(format!(
                "line {number} begins in column {}, where nothing above it begins: what belongs together begins in \
                 the same column",
                width + 1
            ));
        }
        if is_near && is_inside && last.is_some_and(has_value) {
            return Some(format!(
                "line {number} is indented further than the one above it, which has its value already: what belongs \
                 together begins in the same column"
            ));
        }
        open.retain(|column| *column < width);
        open.push(width);
        // What stands behind the dash of a list begins a column of its own.
        let behind = line.trim_start_matches([' ', '-']);
        if line.trim_start().starts_with("- ") {
            open.push(line.len() - behind.len());
        }
        last = Some(behind);
    }
    None
}

/// Whether a line is a name with a plain value behind it, to which nothing can be added below.
fn has_value(line: &str) -> bool {
    let Some((_, value)) = line.split_once(": ") else { return false };
    let value = value.trim();
    !value.is_empty() && !value.starts_with(['#', '|', '>', '{', '[', '"', '\''])
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKFLOW: &str = "workflow:\n  name: a\n  version: '1'\n";

    #[test]
    fn a_file_of_the_other_kind_is_told_with_its_own_command() {
        for text in
            ["# all\nstrategies:\n  - {}\n", "{\"strategies\": []}", "{\n  \"strategies\" : []\n}"]
        {
            let problems = told(Holds::Workflow, FoundProblems::default(), text, "s.yaml");

            assert_eq!(problems.len(), 1, "{text}");
            assert_eq!(problems[0].message, "the file holds `strategies`, not `workflow`");
            let hint = problems[0].hint.as_deref().unwrap();
            assert!(hint.starts_with("`fermata strategy check s.yaml`"), "{hint}");
        }
        let told = |wanted, text| told(wanted, FoundProblems::default(), text, "w.yaml").listed;
        assert_eq!(told(Holds::Strategies, WORKFLOW).len(), 1);
        assert_eq!(told(Holds::Workflow, WORKFLOW), []);
        // Deeper down it is only a word.
        assert_eq!(told(Holds::Strategies, "tests:\n  workflow: a\n"), []);
    }

    #[test]
    fn a_line_that_is_indented_wrongly_is_named() {
        let hint = |text, line| indentation(text, line).unwrap_or_default();

        assert!(hint("a:\n    b: 1\n  c: 2\n", 3).starts_with("line 3 begins in column 3,"));
        assert!(hint("a:\n  b: 1\n    c: 2\n", 3).starts_with("line 3 is indented further"));
        assert!(hint("a:\n  - id: x\n     http: y\n", 3).starts_with("line 3 is indented further"));
        assert!(hint("a:\n\tb: 1\n", 2).starts_with("line 2 is indented with a tab"));
    }

    #[test]
    fn what_is_indented_as_it_should_be_is_not_suspected() {
        let text = "a:\n  - id: x\n    http: { y: 1 }\n  # then\n\n  - id: z\nb: 1\n";
        for line in 1..=8 {
            assert_eq!(indentation(text, line), None, "{line}");
        }
        assert_eq!(indentation("a: [1\n  b: 2\n", 2), None, "the bracket is what is wrong");
        assert_eq!(indentation("a: 1\n", 0), None);
    }
}
