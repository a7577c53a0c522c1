//! MessagePack to JSON text and back.
//!
//! Integers are written digit by digit, doubles in the shortest form that reads
//! back the same, `bin` as base64 (RFC 4648, section 4, with padding). Nothing is
//! allocated for what a length only claims: a length is compared with what is
//! there before anything else. The specification is
//! <https://github.com/msgpack/msgpack/blob/master/spec.md>.

use std::collections::BTreeSet;

use serde_json::{Number, Value};

use super::rejection::{Problem, RejectReason, excerpt};
use super::view::push_string;

/// What a value begins with, and all of it where it holds no others.
pub(super) enum Head<'a> {
    Nil,
    Truth(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(&'a [u8]),
    Bytes(&'a [u8]),
    Extension,
    /// How many values follow.
    List(usize),
    /// How many pairs follow.
    Map(usize),
}

/// Takes what a value begins with; nothing where the bytes end before it does.
pub(super) fn take_head<'a>(rest: &mut &'a [u8]) -> Option<Head<'a>> {
    let [marker] = take_array::<1>(rest)?;
    Some(match marker {
        0x00..=0x7f => Head::Unsigned(u64::from(marker)),
        0x80..=0x8f => map(rest, usize::from(marker & 0x0f))?,
        0x90..=0x9f => list(rest, usize::from(marker & 0x0f))?,
        0xa0..=0xbf => Head::Text(take(rest, usize::from(marker & 0x1f))?),
        0xc0 => Head::Nil,
        // Never used, says the specification.
        0xc1 => return None,
        0xc2 => Head::Truth(false),
        0xc3 => Head::Truth(true),
        0xc4..=0xc6 => {
            let bytes = take_length(rest, marker - 0xc4)?;
            Head::Bytes(take(rest, bytes)?)
        }
        0xc7..=0xc9 => {
            let bytes = take_length(rest, marker - 0xc7)?;
            // One more for the extension's type.
            take(rest, bytes.checked_add(1)?)?;
            Head::Extension
        }
        0xca => Head::Float(f64::from(f32::from_be_bytes(take_array(rest)?))),
        0xcb => Head::Float(f64::from_be_bytes(take_array(rest)?)),
        0xcc => Head::Unsigned(u64::from(u8::from_be_bytes(take_array(rest)?))),
        0xcd => Head::Unsigned(u64::from(u16::from_be_bytes(take_array(rest)?))),
        0xce => Head::Unsigned(u64::from(u32::from_be_bytes(take_array(rest)?))),
        0xcf => Head::Unsigned(u64::from_be_bytes(take_array(rest)?)),
        0xd0 => Head::Signed(i64::from(i8::from_be_bytes(take_array(rest)?))),
        0xd1 => Head::Signed(i64::from(i16::from_be_bytes(take_array(rest)?))),
        0xd2 => Head::Signed(i64::from(i32::from_be_bytes(take_array(rest)?))),
        0xd3 => Head::Signed(i64::from_be_bytes(take_array(rest)?)),
        0xd4..=0xd8 => {
            take(rest, (1 << (marker - 0xd4)) + 1)?;
            Head::Extension
        }
        0xd9..=0xdb => {
            let bytes = take_length(rest, marker - 0xd9)?;
            Head::Text(take(rest, bytes)?)
        }
        0xdc..=0xdd => {
            let values = take_length(rest, marker - 0xdc + 1)?;
            list(rest, values)?
        }
        0xde..=0xdf => {
            let pairs = take_length(rest, marker - 0xde + 1)?;
            map(rest, pairs)?
        }
        0xe0..=0xff => Head::Signed(i64::from(i8::from_be_bytes([marker]))),
    })
}

/// A list of values, each of which has a byte at least.
fn list<'a>(rest: &[u8], values: usize) -> Option<Head<'a>> {
    (values <= rest.len()).then_some(Head::List(values))
}

fn map<'a>(rest: &[u8], pairs: usize) -> Option<Head<'a>> {
    (pairs.checked_mul(2)? <= rest.len()).then_some(Head::Map(pairs))
}

pub(super) fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(bytes)?;
    *rest = left;
    Some(taken)
}

fn take_array<const BYTES: usize>(rest: &mut &[u8]) -> Option<[u8; BYTES]> {
    let (taken, left) = rest.split_first_chunk::<BYTES>()?;
    *rest = left;
    Some(*taken)
}

/// A length of 1, 2 or 4 bytes.
fn take_length(rest: &mut &[u8], width: u8) -> Option<usize> {
    match width {
        0 => Some(usize::from(u8::from_be_bytes(take_array(rest)?))),
        1 => Some(usize::from(u16::from_be_bytes(take_array(rest)?))),
        _ => usize::try_from(u32::from_be_bytes(take_array(rest)?)).ok(),
    }
}

/// How many bytes the value at the beginning of `bytes` has, without following
/// its nesting; nothing where it is cut.
pub(super) fn extent(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    let mut pending = 1_usize;
    while pending > 0 {
        pending -= 1;
        let more = match take_head(&mut rest)? {
            Head::List(values) => values,
            Head::Map(pairs) => pairs.checked_mul(2)?,
            Head::Nil
            | Head::Truth(_)
            | Head::Unsigned(_)
            | Head::Signed(_)
            | Head::Float(_)
            | Head::Text(_)
            | Head::Bytes(_)
            | Head::Extension => 0,
        };
        pending = pending.checked_add(more)?;
        if pending > rest.len() {
            return None;
        }
    }
    Some(bytes.len() - rest.len())
}

/// What a whole message or element is.
pub(super) enum Outer<'a> {
    /// A list of so many elements, and the bytes of the first and of what follows.
    List(usize, &'a [u8]),
    /// Anything else.
    Other,
}

/// Looks at the first value; nothing where the bytes end before it has begun.
pub(super) fn outer(bytes: &[u8]) -> Option<Outer<'_>> {
    let mut rest = bytes;
    Some(match take_head(&mut rest)? {
        Head::List(values) => Outer::List(values, rest),
        Head::Map(_)
        | Head::Nil
        | Head::Truth(_)
        | Head::Unsigned(_)
        | Head::Signed(_)
        | Head::Float(_)
        | Head::Text(_)
        | Head::Bytes(_)
        | Head::Extension => Outer::Other,
    })
}

/// What is allowed while one event is written.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// Deepest nesting of the event.
    pub depth_max: usize,
    /// Longest JSON text of the event.
    pub bytes_max: usize,
}

/// Writes a value as JSON.
pub(super) struct Writer<'a> {
    rest: &'a [u8],
    text: String,
    bounds: Bounds,
}

impl<'a> Writer<'a> {
    /// Reads from `bytes` and writes after `text`.
    pub fn new(bytes: &'a [u8], text: String, bounds: Bounds) -> Self {
        Self { rest: bytes, text, bounds }
    }

    /// Writes data that stands alone, at level 2 of its event, as the member
    /// `data`, or as `data_base64` where it is `bin` as a whole.
    pub fn data_member(mut self) -> Result<String, Problem> {
        self.member_value("data", 2)?;
        self.finish()
    }

    /// Writes the event whose map this is.
    pub fn event(mut self) -> Result<String, Problem> {
        let Head::Map(pairs) = self.head()? else {
            return Err(Problem::new(
                RejectReason::NotAnObject,
                "an event is a MessagePack map, this is another value",
            ));
        };
        self.text.push('{');
        let mut names = BTreeSet::new();
        for at in 0..pairs {
            let name = self.name()?;
            if !names.insert(name) {
                return Err(super::attribute::duplicate(name));
            }
            if at > 0 {
                self.text.push(',');
            }
            self.member_value(name, 2)?;
        }
        self.text.push('}');
        self.finish()
    }

    /// Writes `"name":value`. Binary data as a whole is `data_base64`, as in the
    /// JSON format.
    fn member_value(&mut self, name: &str, depth: usize) -> Result<(), Problem> {
        let mut ahead = self.rest;
        let binary = name == "data" && matches!(take_head(&mut ahead), Some(Head::Bytes(_)));
        push_string(&mut self.text, if binary { "data_base64" } else { name });
        self.text.push(':');
        self.value(depth)
    }

    fn finish(self) -> Result<String, Problem> {
        if self.rest.is_empty() {
            Ok(self.text)
        } else {
            Err(malformed(&format!("{} bytes follow the value", self.rest.len())))
        }
    }

    fn head(&mut self) -> Result<Head<'a>, Problem> {
        take_head(&mut self.rest).ok_or_else(cut)
    }

    fn name(&mut self) -> Result<&'a str, Problem> {
        match self.head()? {
            Head::Text(bytes) => text_of(bytes),
            Head::Nil
            | Head::Truth(_)
            | Head::Unsigned(_)
            | Head::Signed(_)
            | Head::Float(_)
            | Head::Bytes(_)
            | Head::Extension
            | Head::List(_)
            | Head::Map(_) => Err(malformed("a key is no string; JSON has no others")),
        }
    }

    /// Writes a value; a list or map in it is at `depth`.
    fn value(&mut self, depth: usize) -> Result<(), Problem> {
        match self.head()? {
            Head::Nil => self.text.push_str("null"),
            Head::Truth(truth) => self.text.push_str(if truth { "true" } else { "false" }),
            Head::Unsigned(number) => self.text.push_str(&number.to_string()),
            Head::Signed(number) => self.text.push_str(&number.to_string()),
            Head::Float(number) => match Number::from_f64(number) {
                Some(number) => self.text.push_str(&number.to_string()),
                None => return Err(malformed("a number is not finite; JSON has no such")),
            },
            Head::Text(bytes) => push_string(&mut self.text, text_of(bytes)?),
            Head::Bytes(bytes) => {
                self.text.push('"');
                push_base64(&mut self.text, bytes);
                self.text.push('"');
            }
            Head::Extension => {
                return Err(malformed(
                    "an extension type (timestamps are one); send text or a number instead",
                ));
            }
            Head::List(values) => {
                self.descend(depth)?;
                self.text.push('[');
                for at in 0..values {
                    if at > 0 {
                        self.text.push(',');
                    }
                    self.value(depth + 1)?;
                }
                self.text.push(']');
            }
            Head::Map(pairs) => self.map(pairs, depth)?,
        }
        if self.text.len() > self.bounds.bytes_max {
            let limit = self.bounds.bytes_max;
            return Err(Problem::new(
                RejectReason::TooLarge,
                format!(
                    "the event has more than {limit} bytes of JSON; store the payload elsewhere and refer to it"
                ),
            ));
        }
        Ok(())
    }

    fn map(&mut self, pairs: usize, depth: usize) -> Result<(), Problem> {
        self.descend(depth)?;
        self.text.push('{');
        let mut names = BTreeSet::new();
        for at in 0..pairs {
            let name = self.name()?;
            if !names.insert(name) {
                return Err(Problem::new(
                    RejectReason::DuplicateKey,
                    format!("the key `{}` is in one map more than once", excerpt(name)),
                ));
            }
            if at > 0 {
                self.text.push(',');
            }
            push_string(&mut self.text, name);
            self.text.push(':');
            self.value(depth + 1)?;
        }
        self.text.push('}');
        Ok(())
    }

    fn descend(&self, depth: usize) -> Result<(), Problem> {
        let depth_max = self.bounds.depth_max;
        if depth <= depth_max {
            return Ok(());
        }
        Err(Problem::new(
            RejectReason::TooDeep,
            format!("the event nests deeper than {depth_max} levels; make it flatter"),
        ))
    }
}

fn text_of(bytes: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(bytes).map_err(|error| {
        Problem::new(RejectReason::NotUtf8, format!("a string is not UTF-8: {error}"))
    })
}

/// The bytes end, or begin nothing, within a value.
pub(super) fn cut() -> Problem {
    malformed("it breaks off, or a length claims more than there is")
}

fn malformed(detail: &str) -> Problem {
    Problem::new(
        RejectReason::NotMsgpack,
        format!("the bytes are not usable MessagePack: {detail}"),
    )
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Writes `bytes` as base64 with padding (RFC 4648, section 4).
pub(super) fn push_base64(text: &mut String, bytes: &[u8]) {
    text.reserve(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |place: usize| u32::from(chunk.get(place).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4_usize {
            let digit = (bits >> (18 - 6 * place)) & 0x3f;
            let digit = usize::try_from(digit).ok().and_then(|digit| DIGITS.get(digit));
            text.push(if place > chunk.len() { '=' } else { char::from(*digit.unwrap_or(&b'=')) });
        }
    }
}

/// The MessagePack of JSON text: integers in their shortest form, other numbers
/// as `float 64`, keys in alphabetical order.
///
/// # Errors
///
/// What is wrong, when `text` is no JSON, or has an integer beyond 64 bits,
/// which MessagePack has no form for.
pub fn msgpack_of_json(text: &str) -> Result<Vec<u8>, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if let Some(number) = integer_beyond_64_bits(text) {
        return Err(format!("MessagePack has no form for the integer {}", excerpt(number)));
    }
    let mut bytes = Vec::with_capacity(text.len());
    write_value(&mut bytes, &value);
    Ok(bytes)
}

fn integer_beyond_64_bits(text: &str) -> Option<&str> {
    let is_number =
        |byte: char| byte.is_ascii_digit() || matches!(byte, '-' | '+' | '.' | 'e' | 'E');
    let mut in_string = false;
    let mut rest = text;
    while let Some(at) = rest.find(|byte: char| byte == '"' || byte == '\\' || is_number(byte)) {
        rest = rest.get(at..)?;
        if rest.starts_with('"') {
            in_string = !in_string;
            rest = rest.get(1..)?;
        } else if rest.starts_with('\\') {
            // What is escaped may have several bytes; none of the rest ends a string.
            let mut characters = rest.chars();
            characters.next();
            characters.next();
            rest = characters.as_str();
        } else {
            let length = rest.find(|byte| !is_number(byte)).unwrap_or(rest.len());
            let number = rest.get(..length)?;
            let is_integer = !number.contains(['.', 'e', 'E']);
            if !in_string
                && is_integer
                && number.parse::<i64>().is_err()
                && number.parse::<u64>().is_err()
            {
                return Some(number);
            }
            rest = rest.get(length..)?;
        }
    }
    None
}

fn write_value(bytes: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => bytes.push(0xc0),
        Value::Bool(truth) => bytes.push(if *truth { 0xc3 } else { 0xc2 }),
        Value::Number(number) => write_number(bytes, number),
        Value::String(text) => {
            write_length(bytes, text.len(), (0xa0, 31), [Some(0xd9), Some(0xda), Some(0xdb)]);
            bytes.extend_from_slice(text.as_bytes());
        }
        Value::Array(values) => {
            write_length(bytes, values.len(), (0x90, 15), [None, Some(0xdc), Some(0xdd)]);
            values.iter().for_each(|value| write_value(bytes, value));
        }
        Value::Object(members) => {
            write_length(bytes, members.len(), (0x80, 15), [None, Some(0xde), Some(0xdf)]);
            for (name, value) in members {
                write_length(bytes, name.len(), (0xa0, 31), [Some(0xd9), Some(0xda), Some(0xdb)]);
                bytes.extend_from_slice(name.as_bytes());
                write_value(bytes, value);
            }
        }
    }
}

/// Writes a length in the shortest form that there is: within the marker, or
/// after it in 1, 2 or 4 bytes.
fn write_length(bytes: &mut Vec<u8>, length: usize, short: (u8, u8), markers: [Option<u8>; 3]) {
    let [one, two, four] = markers;
    match (u8::try_from(length), u16::try_from(length), one) {
        (Ok(length), _, _) if length <= short.1 => bytes.push(short.0 | length),
        (Ok(length), _, Some(marker)) => bytes.extend_from_slice(&[marker, length]),
        (_, Ok(length), _) => {
            bytes.extend(two);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
        (_, Err(_), _) => {
            bytes.extend(four);
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
    }
}

fn write_number(bytes: &mut Vec<u8>, number: &Number) {
    if let Some(number) = number.as_u64() {
        match (u8::try_from(number), u16::try_from(number), u32::try_from(number)) {
            (Ok(number), _, _) if number < 0x80 => bytes.push(number),
            (Ok(number), _, _) => bytes.extend_from_slice(&[0xcc, number]),
            (_, Ok(number), _) => {
                bytes.push(0xcd);
                bytes.extend_from_slice(&number.to_be_bytes());
            }
            (_, _, Ok(number)) => {
                bytes.push(0xce);
                bytes.extend_from_slice(&number.to_be_bytes());
            }
            (_, _, Err(_)) => {
                bytes.push(0xcf);
                bytes.extend_from_slice(&number.to_be_bytes());
            }
        }
    } else if let Some(number) = number.as_i64() {
        match i8::try_from(number) {
            Ok(number) if number >= -32 => bytes.extend_from_slice(&number.to_be_bytes()),
            Ok(_) | Err(_) => {
                bytes.push(0xd3);
                bytes.extend_from_slice(&number.to_be_bytes());
            }
        }
    } else {
        bytes.push(0xcb);
        bytes.extend_from_slice(&number.as_f64().unwrap_or(0.0).to_be_bytes());
    }
}
