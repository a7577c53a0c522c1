//! Problems of documents, as a compiler shows them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use fermata_definitions::{Problem, lines};

use crate::error::CliError;
use crate::output::{Output, Tone};

/// Longest line of a document that is shown, in characters: a line of a generated
/// document can be a megabyte long.
const LINE_CHARACTERS_MAX: usize = 160;

/// Texts of the documents, by file.
pub type Sources = BTreeMap<String, String>;

/// Prints problems: as JSON lines, or with the place in the text and a mark below it.
///
/// # Errors
///
/// When they cannot be written.
pub fn print(output: &mut Output, problems: &[Problem], sources: &Sources) -> Result<(), CliError> {
    for problem in problems {
        if output.is_json() {
            output.json_line(problem)?;
            continue;
        }
        let source = problem.file.as_ref().and_then(|file| sources.get(file));
        let title = output.tone(Tone::Bad, "error");
        let text = render(problem, source.map_or("", String::as_str));
        output.line(&format!("{title}: {text}"))?;
    }
    Ok(())
}

/// A problem with its place, its line and a mark, and the hint.
fn render(problem: &Problem, source: &str) -> String {
    let mut text = format!("{}\n", problem.message);
    let margin = " ".repeat(problem.line.to_string().len());
    // Writing to a String cannot fail.
    let file = problem.file.as_deref().unwrap_or("the files together");
    let _ = write!(text, "{margin}--> {file}");
    if problem.line > 0 {
        let _ = write!(text, ":{}:{}", problem.line, problem.column);
    }
    if !problem.path.is_empty() {
        let _ = write!(text, " ({})", problem.path);
    }
    text.push('\n');
    if let Some((line, mark)) = marked_line(problem, source) {
        let _ = write!(text, "{margin} |\n{} | {line}\n{margin} | {mark}\n", problem.line);
    }
    if let Some(hint) = &problem.hint {
        let _ = writeln!(text, "{margin} = hint: {hint}");
    }
    text
}

/// The line of a problem and, below it, a mark at its column.
fn marked_line(problem: &Problem, source: &str) -> Option<(String, String)> {
    let line = lines(source).nth(usize::try_from(problem.line.checked_sub(1)?).ok()?)?;
    let column = usize::try_from(problem.column.max(1) - 1).ok()?;
    if column >= LINE_CHARACTERS_MAX {
        return None;
    }
    // Tabs keep their width only if the line below has them too.
    let blank = |character| if character == '\t' { '\t' } else { ' ' };
    let mark = line.chars().take(column).map(blank).collect::<String>() + "^";
    Some((line.chars().take(LINE_CHARACTERS_MAX).collect(), mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(line: u32, column: u32) -> Problem {
        Problem {
            file: Some("a.yaml".to_owned()),
            line,
            column,
            path: "workflow.name".to_owned(),
            message: "`x y` is no name".to_owned(),
            hint: Some("use letters".to_owned()),
        }
    }

    #[test]
    fn a_problem_is_shown_at_its_place_with_a_mark_and_a_hint() {
        let shown = render(&problem(2, 9), "workflow:\n  name: x y\n");

        insta::assert_snapshot!(shown, @r"
        `x y` is no name
         --> a.yaml:2:9 (workflow.name)
          |
        2 |   name: x y
          |         ^
          = hint: use letters
        ");
    }

    #[test]
    fn a_problem_without_a_place_is_shown_without_a_line() {
        let shown = render(&problem(0, 0), "workflow:\n");

        assert!(shown.contains("--> a.yaml (workflow.name)") && !shown.contains('^'), "{shown}");
    }
}
