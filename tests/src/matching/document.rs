//! JSON that keeps how it is written.

use rand::RngExt as _;
use rand::rngs::StdRng;

/// A JSON value with the text of its numbers, and with keys that repeat.
#[derive(Debug, Clone)]
pub enum Document {
    Null,
    Truth(bool),
    Number(String),
    Text(String),
    List(Vec<Document>),
    Object(Vec<(String, Document)>),
}

impl Document {
    pub fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    /// The value of a field; of fields with one name the last.
    pub fn field(&self, name: &str) -> Option<&Self> {
        let Self::Object(fields) = self else { return None };
        fields.iter().rev().find(|(other, _)| other == name).map(|(_, value)| value)
    }

    /// Writes the value with spaces and escapes here and there.
    pub fn write(&self, dice: &mut StdRng, text: &mut String) {
        space(dice, text);
        match self {
            Self::Null => text.push_str("null"),
            Self::Truth(value) => text.push_str(&value.to_string()),
            Self::Number(number) => text.push_str(number),
            Self::Text(content) => quote(content, dice, text),
            Self::List(values) => {
                text.push('[');
                for (place, value) in values.iter().enumerate() {
                    text.push_str(if place == 0 { "" } else { "," });
                    value.write(dice, text);
                }
                text.push(']');
            }
            Self::Object(fields) => {
                text.push('{');
                for (place, (name, value)) in fields.iter().enumerate() {
                    text.push_str(if place == 0 { "" } else { "," });
                    space(dice, text);
                    quote(name, dice, text);
                    space(dice, text);
                    text.push(':');
                    value.write(dice, text);
                }
                text.push('}');
            }
        }
        space(dice, text);
    }
}

fn space(dice: &mut StdRng, text: &mut String) {
    if dice.random_ratio(1, 20) {
        text.push([' ', '\n', '\t', '\r'][dice.random_range(0..4)]);
    }
}

fn quote(content: &str, dice: &mut StdRng, text: &mut String) {
    text.push('"');
    for character in content.chars() {
        let code = u32::from(character);
        match character {
            '"' | '\\' => text.extend(['\\', character]),
            _ if code < 0x1_0000 && dice.random_ratio(1, 12) => {
                text.push_str(&format!("\\u{code:04x}"));
            }
            _ => text.push(character),
        }
    }
    text.push('"');
}
