//! What is wrong with a command line, as people and as programs are told.

use std::ffi::OsString;
use std::io::{self, Write as _};

use clap::error::ErrorKind;
use serde_json::json;

use crate::error::ExitCode;

/// Prints what was asked for (help, the version), or what is wrong with the arguments: as JSON
/// where they ask for that.
#[must_use]
pub fn tell(error: &clap::Error, arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    // Nowhere to print is no reason to fail.
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::Success;
    }
    if asks_for_json(arguments) {
        let _ = writeln!(io::stderr(), "{}", to_json(error));
    } else {
        let _ = error.print();
    }
    ExitCode::Usage
}

/// Whether `--json` is among the arguments; they could not be read, so it is looked for as it is.
fn asks_for_json(arguments: impl IntoIterator<Item = OsString>) -> bool {
    arguments
        .into_iter()
        .skip(1)
        .take_while(|argument| argument != "--")
        .any(|argument| argument == "--json")
}

/// As any other error is told: [`crate::output::Output::error`].
fn to_json(error: &clap::Error) -> serde_json::Value {
    let no_command = matches!(
        error.kind(),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand
    );
    let text = match no_command {
        // What people are shown then is the whole help.
        true => "a command is missing; `--help` in its place lists them".to_owned(),
        false => in_a_line(&error.to_string()),
    };
    json!({ "error": text, "reasons": [], "exit_code": ExitCode::Usage.number() })
}

/// What stands before the usage, in one line.
fn in_a_line(text: &str) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let text = text.split("\n\nUsage:").next().unwrap_or(text);
    let text = text.split("\n\nFor more information").next().unwrap_or(text);
    let paragraphs = text
        .split("\n\n")
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "));
    paragraphs.filter(|paragraph| !paragraph.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::arguments::Arguments;

    fn told(arguments: &[&str]) -> String {
        let error = Arguments::try_parse_from(arguments).unwrap_err();
        to_json(&error)["error"].as_str().unwrap().to_owned()
    }

    #[test]
    fn what_is_wrong_with_the_arguments_is_one_line_for_programs() {
        assert_eq!(
            told(&["fermata", "runs", "list", "--limt", "3"]),
            "unexpected argument '--limt' found; tip: a similar argument exists: '--limit'"
        );
        assert_eq!(
            told(&["fermata", "workflow", "check"]),
            "the following required arguments were not provided: <FILE>..."
        );
        for without in [&["fermata"][..], &["fermata", "runs"]] {
            assert_eq!(told(without), "a command is missing; `--help` in its place lists them");
        }
    }

    #[test]
    fn json_is_asked_for_before_what_is_no_option() {
        let asks = |line: &str| asks_for_json(line.split(' ').map(OsString::from));

        assert!(asks("fermata --json runs") && asks("fermata runs --json"));
        assert!(!asks("--json runs") && !asks("fermata runs -- --json"));
    }
}
