//! Limits on the text, checked before a parser sees it.

use super::limits::{DEPTH_MAX, SOURCE_BYTES_MAX, TOKENS_MAX};
use super::{ExpressionError, position};

/// Refuses text that is too long, too deep or made of too many tokens.
pub(super) fn screen(source: &str) -> Result<(), ExpressionError> {
    if source.len() > SOURCE_BYTES_MAX {
        return Err(ExpressionError::new(format!(
            "the expression has {} bytes, at most {SOURCE_BYTES_MAX} are allowed",
            source.len()
        )));
    }
    let mut tokens = 0_usize;
    let mut depth = 0_usize;
    let mut previous = Kind::Space;
    let mut text = Text::default();
    for (offset, byte) in source.bytes().enumerate() {
        if text.holds(source, offset, byte) {
            previous = Kind::Space;
            continue;
        }
        let kind = Kind::of(byte);
        if kind != Kind::Space && (kind != Kind::Word || previous != Kind::Word) {
            tokens += 1;
        }
        previous = kind;
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err(ExpressionError::at(
                format!("brackets nest deeper than {DEPTH_MAX} levels"),
                position(source, offset),
            ));
        }
        if tokens > TOKENS_MAX {
            return Err(ExpressionError::new(format!(
                "the expression has more than {TOKENS_MAX} tokens"
            )));
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Space,
    Word,
    Symbol,
}

impl Kind {
    fn of(byte: u8) -> Self {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => Self::Space,
            _ if byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80 => Self::Word,
            _ => Self::Symbol,
        }
    }
}

/// Tells text literals and comments, whose inside counts for nothing, from
/// the rest. Where it errs (an unfinished or triple-quoted literal), more
/// text is counted or the parser refuses it anyway.
#[derive(Default)]
pub(super) struct Text {
    quote: Option<u8>,
    escaped: bool,
}

impl Text {
    pub(super) fn holds(&mut self, source: &str, offset: usize, byte: u8) -> bool {
        match self.quote {
            None => {
                let comment = byte == b'/' && source.as_bytes().get(offset + 1) == Some(&b'/');
                if comment {
                    self.quote = Some(b'\n');
                } else if byte == b'"' || byte == b'\'' {
                    self.quote = Some(byte);
                    // An opening quote stands for the literal's one token.
                    return false;
                }
                comment
            }
            Some(_) if self.escaped => {
                self.escaped = false;
                true
            }
            Some(quote) => {
                // A literal ends with its line unless it is triple-quoted;
                // going on counting there only counts more.
                if byte == quote || byte == b'\n' {
                    self.quote = None;
                } else if byte == b'\\' && quote != b'\n' {
                    self.escaped = true;
                }
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_inside_text_are_text() {
        let source = format!("'{}'", "(".repeat(100));

        assert_eq!(screen(&source), Ok(()));
    }

    #[test]
    fn text_beyond_a_limit_is_refused_with_the_limit() {
        let long = screen(&" ".repeat(5_000)).unwrap_err();
        let deep = screen(&"(".repeat(40)).unwrap_err();
        let many = screen(&"1+".repeat(600)).unwrap_err();

        assert!(long.message.contains("4096"), "{long}");
        assert_eq!(deep.position, Some((1, 33)));
        assert!(many.message.contains("1024 tokens"), "{many}");
    }
}
