//! `fermata dead show`.

use std::fmt::Write as _;

use fermata_wire::dead::DeadLetter;

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
        output.line(&format!("replayed  {}", replayed.text()))?;
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

/// What can be done about what was filed.
pub(super) fn hint(letter: &DeadLetter) -> &'static str {
    match letter.stage.as_str() {
        "escalator" => {
            "see why the webhook did not take it; the case itself is open, `fermata review list` has it"
        }
        _ => hint_of_reason(&letter.reason),
    }
}

fn hint_of_reason(reason: &str) -> &'static str {
    match reason {
        "not_json" | "not_utf8" | "not_an_object" | "bad_batch" | "not_msgpack" => {
            "write the event anew and send it with `fermata dead replay <ID> --data FILE`"
        }
        "missing_attribute"
        | "bad_attribute"
        | "tenant_mismatch"
        | "type_mismatch"
        | "unsupported_specversion" => {
            "set what is wrong with `fermata dead replay <ID> --edit '{\"attribute\": \"value\"}'`, or publish the corrected event under the same id"
        }
        "duplicate_attribute" | "duplicate_key" | "ambiguous_headers" | "bad_header" => {
            "one of two values has to go: decide which, and send the event with `fermata dead replay <ID> --data FILE`"
        }
        "too_large" | "too_deep" | "too_many_in_batch" => {
            "make it smaller: split the batch, or let `fermata publish` store the data and refer to it"
        }
        "contract_violation" => {
            "repair the data with `fermata dead replay <ID> --edit`, or apply a version of the contract that takes it"
        }
        "contract_too_costly" => {
            "send less data or each event by itself, or apply a simpler version of the contract"
        }
        "contract_unchecked" => {
            "put the data into the event with `fermata dead replay <ID> --edit`, or let `fermata publish` store it; or set the tenant's mode to `warn`"
        }
        "payload_missing" | "payload_changed" | "bad_payload_reference" => {
            "store the data again (`fermata publish --data-file`), which publishes the event anew, or correct `dataref` and `datadigest` with `--edit`"
        }
        "unsupported_content_type" | "bad_subject" => {
            "publish it again with another `Content-Type` or subject; `docs/events.md` lists the forms"
        }
        "variables_failed" | "input_invalid" | "too_many_runs" => {
            "apply a corrected strategy or workflow, then `fermata dead replay <ID>`; or repair the event with `--edit`"
        }
        "definition_missing" => {
            "apply the workflow that is missing, then `fermata dead replay <ID>`"
        }
        "window_full" => "wait until older keys are forgotten, then `fermata dead replay <ID>`",
        "task_poisoned" => {
            "look into why the workers of its queue died or could not read it; then replay the event that started its run"
        }
        "replay_not_configured" => "start the listeners with the secret of replays",
        "replay_unsigned" | "replay_expired" | "replay_forged" | "bad_replay" => {
            "ask with `fermata dead replay`, which signs; look into who sent this"
        }
        "decision_panicked" | "decision_too_large" => {
            "report it with these bytes; a whole command is no event and cannot be replayed"
        }
        _ => "`docs/reason-codes.md` says what the reason means",
    }
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
