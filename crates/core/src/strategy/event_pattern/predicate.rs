//! What is asked of one value.

use std::fmt;

use super::network::Network;
use super::range::Range;
use super::wildcard::Wildcard;
use crate::event::number::Number;
use crate::event::selection::Selected;

/// One value of a pattern's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::strategy) enum Predicate {
    Equals(Literal),
    EqualsIgnoreCase(Folded),
    Prefix(Box<str>),
    PrefixIgnoreCase(Folded),
    Suffix(Box<str>),
    SuffixIgnoreCase(Folded),
    Wildcard(Wildcard),
    Numeric(Range),
    Cidr(Network),
    Exists(bool),
    /// None of these holds.
    AnythingBut(Vec<Predicate>),
}

/// A value that equals only itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::strategy) enum Literal {
    Null,
    Truth(bool),
    Number(Number<'static>),
    Text(Box<str>),
}

/// A text whose case does not matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::strategy) struct Folded {
    written: Box<str>,
    lower: Box<str>,
}

impl Folded {
    pub fn new(text: &str) -> Self {
        Self { written: text.into(), lower: fold(text).collect::<String>().into() }
    }

    pub fn lower(&self) -> &str {
        &self.lower
    }
}

/// The text with each character in lower case, whatever stands around it.
pub(in crate::strategy) fn fold(text: &str) -> impl DoubleEndedIterator<Item = char> {
    text.chars().flat_map(char::to_lowercase)
}

impl Predicate {
    /// Whether it holds for what is at a path: for one value of a list, however
    /// deep, or for the absence of any.
    pub fn holds(&self, value: Option<&Selected<'_>>) -> bool {
        match value {
            None => *self == Self::Exists(false),
            Some(value) if *self == Self::Exists(false) => !has_values(value),
            Some(value) => self.holds_somewhere(value),
        }
    }

    fn holds_somewhere(&self, value: &Selected<'_>) -> bool {
        match value {
            Selected::List(values) => values.iter().any(|value| self.holds_somewhere(value)),
            Selected::Fields(_) => false,
            Selected::Null
            | Selected::Truth(_)
            | Selected::Number(_)
            | Selected::Text(_)
            | Selected::Unreadable => self.holds_for(value),
        }
    }

    /// Whether it holds for a value that is neither list nor object.
    fn holds_for(&self, value: &Selected<'_>) -> bool {
        match (self, value) {
            (Self::Exists(wanted), _) => *wanted,
            (_, Selected::Unreadable) => false,
            (Self::Equals(literal), value) => literal.equals(value),
            (Self::AnythingBut(others), value) => {
                !others.iter().any(|other| other.holds_for(value))
            }
            (Self::Numeric(range), Selected::Number(number)) => range.contains(number),
            (Self::EqualsIgnoreCase(wanted), Selected::Text(text)) => {
                fold(text).eq(wanted.lower.chars())
            }
            (Self::Prefix(prefix), Selected::Text(text)) => text.starts_with(&**prefix),
            (Self::PrefixIgnoreCase(prefix), Selected::Text(text)) => {
                starts_with(fold(text), prefix.lower.chars())
            }
            (Self::Suffix(suffix), Selected::Text(text)) => text.ends_with(&**suffix),
            (Self::SuffixIgnoreCase(suffix), Selected::Text(text)) => {
                starts_with(fold(text).rev(), suffix.lower.chars().rev())
            }
            (Self::Wildcard(wildcard), Selected::Text(text)) => wildcard.matches(text),
            (Self::Cidr(network), Selected::Text(text)) => network.contains(text),
            (
                Self::EqualsIgnoreCase(_)
                | Self::Prefix(_)
                | Self::PrefixIgnoreCase(_)
                | Self::Suffix(_)
                | Self::SuffixIgnoreCase(_)
                | Self::Wildcard(_)
                | Self::Numeric(_)
                | Self::Cidr(_),
                _,
            ) => false,
        }
    }

    /// See [`super::EventPattern::cost`].
    pub fn cost(&self) -> u64 {
        match self {
            Self::Equals(_) | Self::Prefix(_) | Self::Suffix(_) | Self::Exists(_) => 1,
            Self::Numeric(_) => 2,
            Self::EqualsIgnoreCase(_) | Self::PrefixIgnoreCase(_) | Self::SuffixIgnoreCase(_) => 8,
            Self::Cidr(_) => 8,
            Self::Wildcard(wildcard) => 4 + 4 * wildcard.stars(),
            Self::AnythingBut(others) => others.iter().map(Self::cost).sum(),
        }
    }
}

fn has_values(value: &Selected<'_>) -> bool {
    match value {
        Selected::List(values) => values.iter().any(has_values),
        Selected::Fields(_) => false,
        Selected::Null
        | Selected::Truth(_)
        | Selected::Number(_)
        | Selected::Text(_)
        | Selected::Unreadable => true,
    }
}

fn starts_with(
    mut text: impl Iterator<Item = char>,
    beginning: impl Iterator<Item = char>,
) -> bool {
    beginning.into_iter().all(|wanted| text.next() == Some(wanted))
}

impl Literal {
    pub fn is_number(&self) -> bool {
        matches!(self, Self::Number(_))
    }

    fn equals(&self, value: &Selected<'_>) -> bool {
        match (self, value) {
            (Self::Null, Selected::Null) => true,
            (Self::Truth(wanted), Selected::Truth(found)) => wanted == found,
            (Self::Number(wanted), Selected::Number(found)) => wanted == found,
            (Self::Text(wanted), Selected::Text(found)) => **wanted == **found,
            (Self::Null | Self::Truth(_) | Self::Number(_) | Self::Text(_), _) => false,
        }
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => formatter.write_str("null"),
            Self::Truth(value) => write!(formatter, "{value}"),
            Self::Number(number) => formatter.write_str(number.as_str()),
            Self::Text(text) => write!(formatter, "{text:?}"),
        }
    }
}

/// What a value must be, as a person would say it: `a text that begins with "us-"`.
impl fmt::Display for Predicate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equals(literal) => write!(formatter, "{literal}"),
            Self::EqualsIgnoreCase(text) => write!(formatter, "{:?} in any case", text.written),
            Self::Prefix(text) => write!(formatter, "a text that begins with {text:?}"),
            Self::PrefixIgnoreCase(text) => {
                write!(formatter, "a text that begins with {:?} in any case", text.written)
            }
            Self::Suffix(text) => write!(formatter, "a text that ends with {text:?}"),
            Self::SuffixIgnoreCase(text) => {
                write!(formatter, "a text that ends with {:?} in any case", text.written)
            }
            Self::Wildcard(wildcard) => write!(formatter, "a text like {:?}", wildcard.written()),
            Self::Numeric(range) => write!(formatter, "{range}"),
            Self::Cidr(network) => write!(formatter, "an address in {network}"),
            Self::Exists(true) => formatter.write_str("there"),
            Self::Exists(false) => formatter.write_str("not there"),
            Self::AnythingBut(others) => {
                for (place, other) in others.iter().enumerate() {
                    let or = if place == 0 { "anything but" } else { " or" };
                    write!(formatter, "{or} {other}")?;
                }
                Ok(())
            }
        }
    }
}
