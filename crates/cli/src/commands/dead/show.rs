//! `fermata dead show`.

use std::fmt::Write as _;

use super::hints::hint;
use super::replayed::RefusedRequest;
use super::{FiledLetter, Replayed, letter_to_json};
use crate::error::CliError;
use crate::output::{Output, counted, time_text};

/// Bytes in one row of the view in hexadecimal digits.
const ROW_BYTES: usize = 16;

/// Shows a letter with all of its bytes, in which secrets are masked unless they are asked for.
pub(super) fn show(
    filed: &FiledLetter,
    replays: &[&Replayed],
    unmasked: bool,
    output: &mut Output,
) -> Result<(), CliError> {
    let whole = &filed.letter;
    let (letter, masked) = if unmasked { (whole.clone(), 0) } else { whole.masked() };
    let letter = &letter;
    if output.is_json() {
        return output.json_line(&letter_to_json(filed.sequence, letter, replays, masked));
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
            Some(RefusedRequest { letter, reason }) => output.line(&format!(
                "refused   a replay {}: `{reason}`, `fermata dead show {letter}` says more",
                replayed.text()
            ))?,
        }
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
    use super::*;

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
