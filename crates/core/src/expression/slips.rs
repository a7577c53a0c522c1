//! Operators of other languages, in a text that is no expression here.

use super::screening::Text;
use super::{ExpressionError, position};

/// The first operator of another language in `source`, with the one that is meant.
pub(super) fn of_other_languages(source: &str) -> Option<ExpressionError> {
    let mut text = Text::default();
    let mut before = None;
    for (offset, byte) in source.bytes().enumerate() {
        let last = before.replace(byte);
        if text.holds(source, offset, byte) {
            continue;
        }
        let rest = source.get(offset..).unwrap_or_default();
        let begins_word = !last.is_some_and(|byte| is_of_word(byte) || byte == b'.');
        let meant = match byte {
            b'=' if is_alone(last, rest) => Some(("=", "compare with `==`")),
            _ if begins_word => word(rest),
            _ => None,
        };
        if let Some((operator, meant)) = meant {
            let message = format!("`{operator}` is no operator; {meant}");
            return Some(ExpressionError::at(message, position(source, offset)));
        }
    }
    None
}

/// Whether the `=` that begins `rest` is not part of `==`, `!=`, `<=` or `>=`.
fn is_alone(before: Option<u8>, rest: &str) -> bool {
    !matches!(before, Some(b'=' | b'!' | b'<' | b'>')) && rest.as_bytes().get(1) != Some(&b'=')
}

/// The operator that the word in the beginning of `rest` is elsewhere.
fn word(rest: &str) -> Option<(&str, &'static str)> {
    let end = rest.bytes().position(|byte| !is_of_word(byte)).unwrap_or(rest.len());
    let word = rest.get(..end)?;
    let operators = [("and", "write `&&`"), ("or", "write `||`"), ("not", "write `!`")];
    let (_, meant) = operators.into_iter().find(|(name, _)| word.eq_ignore_ascii_case(name))?;
    Some((word, meant))
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}
