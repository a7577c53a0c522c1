//! What is wrong with a text that should be JSON, for people: the parser's own words are for who writes parsers.

use serde_json::error::Category;

/// Most characters of the text that are shown.
const SHOWN_CHARACTERS_MAX: usize = 20;

/// What the parser says, and what that means.
const MEANINGS: [(&str, &str); 15] = [
    ("EOF while parsing a list", "the text ends within a list"),
    ("EOF while parsing an object", "the text ends within an object"),
    ("EOF while parsing a string", "the text ends within a string"),
    ("EOF while parsing a value", "the text ends where a value is expected"),
    ("expected `:`", "expected `:`"),
    ("expected `,` or `]`", "expected `,` or `]`"),
    ("expected `,` or `}`", "expected `,` or `}`"),
    ("expected ident", "expected a value (texts in double quotes)"),
    ("expected value", "expected a value (texts in double quotes)"),
    ("key must be a string", "expected a key in double quotes"),
    ("invalid number", "expected a number"),
    ("invalid escape", "expected an escape such as `\\n` behind `\\`"),
    ("control character (", "expected an escape such as `\\n` for what cannot be seen"),
    ("trailing comma", "expected another member behind the comma"),
    ("trailing characters", "expected the end of the text"),
];

/// What is wrong with `text`, which the parser refused: what was expected, what stands there, and where.
#[must_use]
pub fn told(error: &serde_json::Error, text: &str) -> String {
    let said = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let (reason, place) = match said.strip_suffix(&place) {
        Some(reason) => (reason, &*place),
        None => (&*said, ""),
    };
    // What does not fit the form that is wanted is told in words of ours.
    if error.classify() == Category::Data {
        return said;
    }
    let meaning = MEANINGS.iter().find(|(says, _)| reason.starts_with(says));
    let meaning = meaning.map_or(reason, |(_, meaning)| *meaning);
    let found = match meaning.starts_with("expected") {
        true => found(text, error.line(), error.column()),
        false => None,
    };
    let found = found.map(|found| format!(", found `{found}`")).unwrap_or_default();
    format!("{meaning}{found}{place}")
}

/// The word, or the one character, that stands in a column, in bytes from 1.
fn found(text: &str, line: usize, column: usize) -> Option<String> {
    let line = text.split('\n').nth(line.checked_sub(1)?)?;
    let at = column.checked_sub(1)?;
    let (start, first) = line.char_indices().take_while(|(start, _)| *start <= at).last()?;
    if first.is_control() {
        return None;
    }
    let is_of_word = |character: char| character.is_alphanumeric() || "_-+.".contains(character);
    if !is_of_word(first) {
        return Some(first.to_string());
    }
    let before = line.get(..start)?;
    let begin = before.rfind(|character| !is_of_word(character));
    let begin = begin.map_or(0, |at| at + before.get(at..).map_or(0, first_length));
    let word = line.get(begin..)?.chars().take_while(|character| is_of_word(*character));
    Some(word.take(SHOWN_CHARACTERS_MAX).collect())
}

fn first_length(text: &str) -> usize {
    text.chars().next().map_or(0, char::len_utf8)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn what_was_expected_and_what_stands_there_is_told_with_the_place() {
        let value = "expected a value (texts in double quotes), found";
        for (text, expected) in [
            ("{foo}", "expected a key in double quotes, found `foo` at line 1 column 2".to_owned()),
            (
                "{'id': 7}",
                "expected a key in double quotes, found `'` at line 1 column 2".to_owned(),
            ),
            ("trux", format!("{value} `trux` at line 1 column 4")),
            ("tru", "the text ends where a value is expected at line 1 column 3".to_owned()),
            ("hello", format!("{value} `hello` at line 1 column 1")),
            ("[ä]", format!("{value} `ä` at line 1 column 2")),
            ("[1,\n  nan]", format!("{value} `nan` at line 2 column 4")),
            ("", "the text ends where a value is expected at line 1 column 0".to_owned()),
            ("{\"a\": 1", "the text ends within an object at line 1 column 7".to_owned()),
            ("{\"a\" 1}", "expected `:`, found `1` at line 1 column 6".to_owned()),
            ("[1 2]", "expected `,` or `]`, found `2` at line 1 column 4".to_owned()),
            ("{\"a\": 1 \"b\"}", "expected `,` or `}`, found `\"` at line 1 column 9".to_owned()),
            (
                "[1,]",
                "expected another member behind the comma, found `]` at line 1 column 4".to_owned(),
            ),
            ("{} {}", "expected the end of the text, found `{` at line 1 column 4".to_owned()),
            ("[1.x]", "expected a number, found `1.x` at line 1 column 4".to_owned()),
        ] {
            let error = serde_json::from_str::<Value>(text).unwrap_err();
            assert_eq!(told(&error, text), expected, "{text}");
        }
    }

    #[test]
    fn nothing_of_the_parser_is_told_of_any_cut_or_changed_text() {
        let whole = r#"{"a": [1, -2.5e3, "b\n\u00e9", true, null], "c": {"d": false}}"#;
        for at in 0..whole.len() {
            for with in ["", "x", "\"", "\\", ",", "}", "\u{1}", "é"] {
                let text = format!("{}{with}{}", &whole[..at], &whole[at + 1..]);
                let Err(error) = serde_json::from_str::<Value>(&text) else { continue };
                let told = told(&error, &text);
                for word in ["EOF", "ident", "parsing", "trailing"] {
                    assert!(!told.contains(word), "{text}: {told}");
                }
                assert!(told.contains(" at line 1 column "), "{text}: {told}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_the_form_keeps_its_words() {
        let error = serde_json::from_str::<u8>("-1").unwrap_err();
        assert_eq!(told(&error, "-1"), error.to_string());
        // Whoever reads a form says in words of their own what they expected.
        let ours: serde_json::Error = serde::de::Error::custom("expected value of a gauge");
        assert_eq!(told(&ours, ""), "expected value of a gauge");
    }
}
