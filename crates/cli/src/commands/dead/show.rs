//! `fermata dead show`.

use std::fmt::Write as _;

use serde_json::Value;

use super::from_events::Held;
use super::hints::hint;
use super::replayed::RefusedRequest;
use super::request::holds_event;
use super::started::{text, to_json};
use super::{FiledLetter, Replayed, letter_to_json};
use crate::error::CliError;
use crate::journal_view::Started;
use crate::output::{Output, counted, time_text};

/// Bytes in one row of the view in hexadecimal digits.
const ROW_BYTES: usize = 16;

/// A letter, and what is known of it besides.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    pub(super) filed: &'a FiledLetter,
    pub(super) held: Held,
    pub(super) replays: Vec<&'a Replayed>,
    /// What its event has started; nothing where nobody can tell.
    pub(super) started: Option<Vec<&'a Started>>,
}

/// Shows a letter with all of its bytes, in which secrets are masked unless they are asked for.
pub(super) fn show(shown: &Shown<'_>, unmasked: bool, output: &mut Output) -> Result<(), CliError> {
    let Shown { filed, held, replays, started } = shown;
    let whole = &filed.letter;
    let (letter, masked) = if unmasked { (whole.clone(), 0) } else { whole.masked() };
    let letter = &letter;
    if output.is_json() {
        let mut value = letter_to_json(filed.sequence, letter, replays, masked);
        if let Value::Object(members) = &mut value {
            let started = started.as_ref().map(|all| all.iter().copied().map(to_json));
            let started = started.map(Iterator::collect::<Vec<_>>);
            members.insert("started".to_owned(), started.into());
            members.insert("original_from".to_owned(), held.as_str().into());
        }
        return output.json_line(&value);
    }
    output.line(&format!("id        {}", letter.id))?;
    output.line(&format!("time      {}", time_text(letter.time_ms)))?;
    output.line(&format!("tenant    {}", letter.tenant))?;
    output.line(&format!("stage     {}", letter.stage))?;
    output.line(&format!("subject   {}", letter.subject))?;
    output.line(&format!("reason    {}", letter.reason))?;
    output.line(&format!("detail    {}", letter.detail))?;
    if let Some(attempts) = letter.attempts {
        output.line(&format!("attempts  {attempts}"))?;
    }
    if let Some(trace) = &letter.trace {
        output.line(&format!("trace     {trace}"))?;
    }
    for replayed in replays {
        match &replayed.refused {
            None => output.line(&format!("replayed  {}", replayed.text()))?,
            Some(RefusedRequest { letter, reason, .. }) => output.line(&format!(
                "refused   a replay {}: `{reason}`, `fermata dead show {letter}` says more",
                replayed.text()
            ))?,
        }
    }
    for started in started.iter().flatten() {
        let text = text(started, replays);
        output.line(&format!("started   {text}; a further replay starts its work once more"))?;
    }
    output.line(&format!("hint      {}", hint(letter)))?;
    match masked {
        0 => {}
        1 => output.line("masked    1 value; `--unmasked` shows it")?,
        count => output.line(&format!("masked    {count} values; `--unmasked` shows them"))?,
    }
    for (name, value) in &letter.headers {
        output.line(&format!("header    {name}: {value}"))?;
    }
    let bytes = counted(whole.original.len(), "byte", "bytes");
    let bytes = match held {
        Held::ByLetter => bytes,
        Held::ByEvents => format!("in EVENTS only, {bytes}"),
        Held::Nowhere if !holds_event(letter) => bytes,
        Held::Nowhere => {
            return output.line(
                "original  none: the letter was filed without it, and EVENTS holds the event no longer; `fermata \
                 dead replay ID --data FILE` takes it whole",
            );
        }
    };
    match std::str::from_utf8(&letter.original) {
        Ok(text) => output.line(&format!("original  {bytes} of text\n{text}")),
        Err(_) => output.line(&format!("original  {bytes}\n{}", rows(&letter.original))),
    }
}

/// Bytes as hexadecimal digits, and as text where they are printable ASCII.
fn rows(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 5);
    for (row, at) in bytes.chunks(ROW_BYTES).zip((0_usize..).step_by(ROW_BYTES)) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{at:08x} ");
        for byte in row {
            let _ = write!(text, " {byte:02x}");
        }
        let _ = write!(text, "{:1$}  ", "", 3 * (ROW_BYTES - row.len()));
        text.extend(row.iter().map(|byte| match byte {
            b' '..=b'~' => char::from(*byte),
            _ => '.',
        }));
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use fermata_core::identity::SourcePosition;

    use super::super::letters::testing::letter;
    use super::*;
    use crate::commands::testing::printed;
    use crate::journal_view::testing::run_of;

    #[test]
    fn what_the_event_has_started_is_told_and_where_bytes_are_that_the_letter_lacks() {
        let source = SourcePosition { sequence: 13, index: 0 };
        let runs = ["a", "b", "c", "d"].map(run_of).to_vec();
        let started = Started { runs, time_ms: 1_700_000_000_000, source, replay: None };
        let filed = FiledLetter { sequence: 1, letter: letter("7.0", b"{}") };
        let told = |held, started| {
            let shown = Shown { filed: &filed, held, replays: Vec::new(), started };
            printed(|output| show(&shown, false, output))
        };

        let shown = told(Held::ByEvents, Some(vec![&started]));
        let line = shown.lines().find(|line| line.starts_with("started")).expect(&shown);
        assert!(line.starts_with(&format!("started   runs {}, ", run_of("a"))), "{line}");
        let rest = " and 1 more at 2023-11-14T22:13:20.000Z, for 13.0 of EVENTS; a further replay";
        assert!(line.contains(rest), "{line}");
        assert!(shown.ends_with("original  in EVENTS only, 2 bytes of text\n{}\n"), "{shown}");
        let shown = told(Held::Nowhere, None);
        assert!(shown.contains("original  none: ") && !shown.contains("started"), "{shown}");
    }

    #[test]
    fn bytes_are_shown_in_rows_with_what_is_printable() {
        let shown = rows(b"\x00fermata, and more\xff");

        let first = "00000000  00 66 65 72 6d 61 74 61 2c 20 61 6e 64 20 6d 6f  .fermata, and mo";
        assert!(shown.starts_with(first), "{shown}");
        assert!(
            shown.ends_with("00000010  72 65 ff                                         re."),
            "{shown}"
        );
        assert_eq!(rows(b""), "");
    }
}
