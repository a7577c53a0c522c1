//! The headers of a message, as far as they say how it holds its events.
//!
//! In binary mode the attributes of an event are headers `ce-<name>`, and the
//! message's bytes are its data (CloudEvents, NATS and HTTP protocol bindings,
//! section 3.1). Names of headers are compared without regard to case. Values
//! are percent-encoded UTF-8, decoded once.

use super::rejection::{Problem, RejectReason, excerpt, excerpt_of};

/// What the headers of attributes begin with, in any case.
pub const ATTRIBUTE_HEADER_PREFIX: &str = "ce-";

/// Says that a message is a request to replay an event; its value names what is
/// replayed, for people.
pub const REPLAY_HEADER: &str = "Fermata-Replay";

/// Headers that matter; empty, without an allocation, for most messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MessageHeaders<'a> {
    content_type: Option<&'a str>,
    traceparent: Option<&'a str>,
    replay: bool,
    /// Those that begin with `ce-`, the rest of their names as it was written.
    attributes: Vec<(&'a str, &'a str)>,
    /// A header that is there more than once, with different values.
    ambiguous: Option<&'static str>,
}

impl<'a> MessageHeaders<'a> {
    /// Picks the headers that matter from all, given as names and values in any
    /// order; a name with several values comes several times.
    #[must_use]
    pub fn new(headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut found = Self::default();
        for (name, value) in headers {
            if name.eq_ignore_ascii_case("content-type") {
                found.set("Content-Type", value, |headers| &mut headers.content_type);
            } else if name.eq_ignore_ascii_case("traceparent") {
                found.set("traceparent", value, |headers| &mut headers.traceparent);
            } else if name.eq_ignore_ascii_case(REPLAY_HEADER) {
                found.replay = true;
            } else if let Some((prefix, attribute)) = name.split_at_checked(3)
                && prefix.eq_ignore_ascii_case(ATTRIBUTE_HEADER_PREFIX)
            {
                found.attributes.push((attribute, value));
            }
        }
        // The order in which a client keeps headers is its own affair; ours is
        // always the same, so that an event's text is.
        found.attributes.sort_unstable();
        found
    }

    fn set(
        &mut self,
        name: &'static str,
        value: &'a str,
        slot: impl Fn(&mut Self) -> &mut Option<&'a str>,
    ) {
        if slot(self).replace(value).is_some_and(|other| other != value) {
            self.ambiguous = Some(name);
        }
    }

    /// The header `traceparent`: the context in which the message was sent. An
    /// event's own attribute of that name says more and goes before it.
    #[must_use]
    pub fn traceparent(&self) -> Option<&'a str> {
        self.traceparent.filter(|text| super::attribute::is_traceparent(text))
    }

    /// Whether the message is a request to replay an event.
    #[must_use]
    pub fn asks_for_replay(&self) -> bool {
        self.replay
    }

    /// `Content-Type`, when it is there once.
    #[must_use]
    pub fn content_type(&self) -> Option<&'a str> {
        self.content_type
    }

    pub(super) fn has_attributes(&self) -> bool {
        !self.attributes.is_empty()
    }

    /// Refuses a message of which a header says two things.
    pub(super) fn check(&self) -> Result<(), Problem> {
        match self.ambiguous {
            // What is only for traces never decides about an event.
            Some(name) if name != "traceparent" => Err(Problem::new(
                RejectReason::AmbiguousHeaders,
                format!("the header `{name}` is there more than once, with different values"),
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// The attributes with their values decoded, each name once, in order.
    pub(super) fn attributes(&self) -> Result<Vec<(String, String)>, Problem> {
        let mut decoded: Vec<(String, String)> = Vec::with_capacity(self.attributes.len());
        for (name, value) in &self.attributes {
            // Headers do not tell cases apart, attributes are lower-case.
            let name = name.to_ascii_lowercase();
            if name == "data" || name == "data_base64" {
                return Err(Problem::bad_attribute(format!(
                    "`ce-{name}` is a header; in binary mode the data is the message"
                )));
            }
            let value = decode(&name, value)?;
            decoded.push((name, value));
        }
        decoded.sort_unstable();
        let twice = decoded.windows(2).find_map(|pair| match pair {
            [(one, _), (other, _)] if one == other => Some(one),
            _ => None,
        });
        match twice {
            Some(name) => Err(super::attribute::duplicate(&format!("ce-{name}"))),
            None => Ok(decoded),
        }
    }
}

/// Decodes a value once: quotation marks around it (RFC 9110, section 5.6.4),
/// which older senders write, then percent-encoding (RFC 3986, section 2.1).
fn decode(name: &str, value: &str) -> Result<String, Problem> {
    let refused = |what: &str| {
        Problem::new(
            RejectReason::BadHeader,
            format!("the header `ce-{}` {what}: `{}`", excerpt(name), excerpt_of(name, value)),
        )
    };
    let unquoted = match value.strip_prefix('"') {
        None => None,
        Some(rest) => Some(
            unquote(rest)
                .ok_or_else(|| refused("begins with a quotation mark and does not end with one"))?,
        ),
    };
    let text = unquoted.as_deref().unwrap_or(value);
    if !text.contains('%') {
        return Ok(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let digits = after.split_first_chunk::<2>();
        let decoded = digits.and_then(|([high, low], after)| {
            let digit =
                |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            Some((digit(*high)? << 4 | digit(*low)?, after))
        });
        let Some((byte, after)) = decoded else {
            return Err(refused("has a `%` without two hexadecimal digits; write `%25` for it"));
        };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| refused("is not UTF-8 when it is decoded"))
}

/// What stands in quotation marks, of which the first is gone already.
fn unquote(text: &str) -> Option<String> {
    let mut unquoted = String::with_capacity(text.len());
    let mut characters = text.chars();
    loop {
        match characters.next()? {
            '"' => return characters.as_str().is_empty().then_some(unquoted),
            '\\' => unquoted.push(characters.next()?),
            other => unquoted.push(other),
        }
    }
}

/// A value as a header carries it: space, quotation mark, percent sign and what
/// is not printable ASCII are percent-encoded.
#[must_use]
pub fn header_value(text: &str) -> String {
    let mut value = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (b'!'..=b'~').contains(&byte) && byte != b'"' && byte != b'%' {
            value.push(char::from(byte));
        } else {
            value.push('%');
            for digit in [byte >> 4, byte & 0x0f] {
                let digit = char::from_digit(u32::from(digit), 16).unwrap_or('0');
                value.push(digit.to_ascii_uppercase());
            }
        }
    }
    value
}
