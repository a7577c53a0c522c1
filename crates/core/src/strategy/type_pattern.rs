//! Type patterns.

use super::definition::PATTERN_TOKENS_MAX;
use crate::event::TYPE_BYTES_MAX;

/// One token of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'p> {
    /// This token.
    Literal(&'p str),
    /// `*`: any one token.
    One,
    /// `>`: one token or more, to the end.
    Rest,
}

/// Reads a pattern; `Err` is the rule that it breaks.
pub(super) fn parse_pattern(pattern: &str) -> Result<Vec<Token<'_>>, &'static str> {
    if pattern.len() > TYPE_BYTES_MAX {
        return Err("it is longer than 256 bytes");
    }
    let tokens = pattern.split('.').map(parse_token).collect::<Result<Vec<_>, _>>()?;
    if tokens.len() > PATTERN_TOKENS_MAX {
        return Err("it has more than 16 tokens");
    }
    let before_last = tokens.split_last().map_or(&[][..], |(_, before)| before);
    if before_last.contains(&Token::Rest) {
        return Err("`>` stands for the rest and can only be the last token");
    }
    Ok(tokens)
}

/// Whether `pattern` is one; `Err` is the rule that it breaks.
///
/// # Errors
///
/// The rule, for people.
pub fn check_type_pattern(pattern: &str) -> Result<(), &'static str> {
    parse_pattern(pattern).map(|_| ())
}

/// Whether an event of type `kind` is one of `pattern`, in time linear in both.
#[must_use]
pub fn type_matches(pattern: &str, kind: &str) -> bool {
    let mut tokens = kind.split('.');
    for part in pattern.split('.') {
        match (part, tokens.next()) {
            (">", Some(_)) => return true,
            (part, Some(token)) if part == "*" || part == token => {}
            (_, Some(_) | None) => return false,
        }
    }
    tokens.next().is_none()
}

fn parse_token(token: &str) -> Result<Token<'_>, &'static str> {
    match token {
        "" => Err("a token is empty; tokens are separated by single dots"),
        "*" => Ok(Token::One),
        ">" => Ok(Token::Rest),
        _ if token.contains(['*', '>']) => {
            Err("`*` and `>` stand for whole tokens; no part of a token can be a wildcard")
        }
        _ if token.chars().any(|character| character.is_whitespace() || character.is_control()) => {
            Err("a token has white space or a control character")
        }
        _ => Ok(Token::Literal(token)),
    }
}
