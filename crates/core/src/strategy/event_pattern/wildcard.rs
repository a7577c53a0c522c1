//! Texts with gaps.

/// A text in which each `*` stands for any characters, or none; `\*` and `\\`
/// stand for themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::strategy) struct Wildcard {
    written: Box<str>,
    /// What stands before, between and after the stars: one more than those.
    pieces: Vec<Box<str>>,
}

impl Wildcard {
    /// Reads a wildcard; `Err` is the rule that it breaks.
    pub fn read(written: &str) -> Result<Self, &'static str> {
        let mut pieces = vec![String::new()];
        let mut characters = written.chars();
        let mut after_star = false;
        while let Some(character) = characters.next() {
            let literal = match character {
                '*' if after_star => return Err("two `*` in a row mean no more than one"),
                '*' => {
                    pieces.push(String::new());
                    after_star = true;
                    continue;
                }
                '\\' => match characters.next() {
                    Some(escaped @ ('*' | '\\')) => escaped,
                    Some(_) | None => {
                        return Err("a backslash can stand only before `*` or another backslash");
                    }
                },
                other => other,
            };
            after_star = false;
            if let Some(piece) = pieces.last_mut() {
                piece.push(literal);
            }
        }
        let pieces = pieces.into_iter().map(String::into_boxed_str).collect();
        Ok(Self { written: written.into(), pieces })
    }

    pub fn written(&self) -> &str {
        &self.written
    }

    /// How many `*` it has.
    pub fn stars(&self) -> u64 {
        u64::try_from(self.pieces.len().saturating_sub(1)).unwrap_or(u64::MAX)
    }

    /// What every text that matches begins with; all of it when there is no `*`.
    pub fn head(&self) -> &str {
        self.pieces.first().map_or("", |piece| piece)
    }

    pub fn matches(&self, text: &str) -> bool {
        let Some((first, others)) = self.pieces.split_first() else { return false };
        let Some((last, between)) = others.split_last() else { return **first == *text };
        let inner = text.strip_prefix(&**first).and_then(|rest| rest.strip_suffix(&**last));
        let Some(mut rest) = inner else { return false };
        // The earliest place of a piece leaves most room for those after it.
        between.iter().all(|piece| match rest.split_once(&**piece) {
            Some((_, after)) => {
                rest = after;
                true
            }
            None => false,
        })
    }
}
