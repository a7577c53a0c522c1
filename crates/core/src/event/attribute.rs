//! The forms that attribute values have to have.

use super::rejection::{Problem, RejectReason, excerpt, excerpt_of};
use super::{ATTRIBUTE_NAME_BYTES_MAX, TYPE_BYTES_MAX};

/// Checks an attribute's name: lower-case letters and digits (CloudEvents
/// 1.0.2, section "Attribute Naming Convention").
pub(super) fn check_name(name: &str) -> Result<(), Problem> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if name.is_empty() || name.len() > ATTRIBUTE_NAME_BYTES_MAX || !name.bytes().all(allowed) {
        return Err(Problem::bad_attribute(format!(
            "`{}` is not an attribute name; use 1 to {ATTRIBUTE_NAME_BYTES_MAX} of `a`-`z` and `0`-`9`",
            excerpt(name)
        )));
    }
    Ok(())
}

/// Checks an attribute's text: not empty, within its limit, without control
/// characters (CloudEvents 1.0.2, section "Type System", String).
pub(super) fn check_text(name: &str, text: &str, bytes_max: usize) -> Result<(), Problem> {
    if text.is_empty() {
        return Err(Problem::bad_attribute(format!(
            "`{name}` is empty; leave it out or give it a value"
        )));
    }
    check_extension_text(name, text, bytes_max)
}

/// As [`check_text`], but the text may be empty.
pub(super) fn check_extension_text(
    name: &str,
    text: &str,
    bytes_max: usize,
) -> Result<(), Problem> {
    if text.len() > bytes_max {
        return Err(Problem::bad_attribute(format!(
            "`{name}` has {} bytes, the limit is {bytes_max}",
            text.len()
        )));
    }
    // Without an early exit, so that it becomes vector instructions.
    let suspicious =
        text.bytes().fold(false, |found, byte| found | !(b' '..b'\x7f').contains(&byte));
    let control = suspicious && text.chars().any(char::is_control);
    if control {
        return Err(Problem::bad_attribute(format!("`{name}` contains a control character")));
    }
    Ok(())
}

/// Checks the event type: text within [`TYPE_BYTES_MAX`].
pub(super) fn check_type(kind: &str) -> Result<(), Problem> {
    check_text("type", kind, TYPE_BYTES_MAX)
}

/// Checks a timestamp (RFC 3339, section 5.6).
pub(super) fn check_time(time: &str) -> Result<(), Problem> {
    if is_rfc3339(time) {
        return Ok(());
    }
    Err(Problem::bad_attribute(format!(
        "`time` is `{}`, which is not RFC 3339; write it like `2026-11-21T02:02:11.5Z`",
        excerpt(time)
    )))
}

pub(crate) fn is_rfc3339(text: &str) -> bool {
    let Some((date_time, rest)) = text.split_at_checked(19) else { return false };
    let number = |range: std::ops::Range<usize>| {
        let digits = date_time.get(range).filter(|part| all_digits(part))?;
        digits.parse::<u32>().ok()
    };
    let separators = matches!(
        date_time.as_bytes(),
        [_, _, _, _, b'-', _, _, b'-', _, _, b'T' | b't', _, _, b':', _, _, b':', _, _]
    );
    let (Some(year), Some(month), Some(day), Some(hour), Some(minute), Some(second)) =
        (number(0..4), number(5..7), number(8..10), number(11..13), number(14..16), number(17..19))
    else {
        return false;
    };
    // Second 60 is a leap second, which the RFC allows.
    separators
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60
        && is_offset(rest.strip_prefix('.').map_or(rest, |fraction| {
            let digits = fraction.trim_start_matches(|digit: char| digit.is_ascii_digit());
            // A dot without digits leaves the dot, which is no offset.
            if digits.len() == fraction.len() { rest } else { digits }
        }))
}

fn is_offset(text: &str) -> bool {
    match text.as_bytes() {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', hours @ .., b':', minute_tens, minute_units] => {
            let in_range = |digits: &[u8], below: u32| {
                std::str::from_utf8(digits)
                    .ok()
                    .filter(|text| text.len() == 2 && all_digits(text))
                    .and_then(|text| text.parse::<u32>().ok())
                    .is_some_and(|value| value < below)
            };
            in_range(hours, 24) && in_range(&[*minute_tens, *minute_units], 60)
        }
        _ => false,
    }
}

fn all_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

const fn days_in_month(year: u32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => {
            29
        }
        2 => 28,
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => 0,
    }
}

/// Whether `text` is a usable `traceparent` (W3C Trace Context, section 3.2):
/// version, trace id, parent id and flags; ids of zeros are not valid, and
/// only a later version may go on after the flags.
pub(super) fn is_traceparent(text: &str) -> bool {
    let lower_hex = |part: &[u8]| {
        part.iter().fold(true, |all, byte| all & matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_id = |part: &[u8]| lower_hex(part) && part.iter().any(|byte| *byte != b'0');
    let Some((fixed, rest)) = text.as_bytes().split_first_chunk::<55>() else { return false };
    let (version, trace, parent, flags) =
        (&fixed[..2], &fixed[3..35], &fixed[36..52], &fixed[53..]);
    [fixed[2], fixed[35], fixed[52]] == [b'-'; 3]
        && lower_hex(version)
        && version != b"ff"
        && is_id(trace)
        && is_id(parent)
        && lower_hex(flags)
        && (rest.is_empty() || (version != b"00" && rest.starts_with(b"-")))
}

/// Checks an extension's value: a string, a boolean or a 32-bit integer, as
/// the JSON format maps the type system.
pub(super) fn check_extension(name: &str, value: &str, bytes_max: usize) -> Result<(), Problem> {
    let refused = || {
        Problem::bad_attribute(format!(
            "`{name}` is `{}`; an extension attribute is a string, a boolean or an integer of 32 bits",
            excerpt_of(name, value)
        ))
    };
    match value.as_bytes() {
        [b'"', .., b'"'] if !value.contains('\\') => {
            check_extension_text(name, value.trim_matches('"'), bytes_max)
        }
        [b'"', ..] => {
            let text: String = serde_json::from_str(value).map_err(|_| refused())?;
            check_extension_text(name, &text, bytes_max)
        }
        b"true" | b"false" => Ok(()),
        _ => value.parse::<i32>().map(|_| ()).map_err(|_| refused()),
    }
}

/// Checks binary data: base64 with padding (RFC 4648, section 4).
pub(super) fn check_base64(text: &str) -> Result<(), Problem> {
    let digits = text.trim_end_matches('=');
    let digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 || !digits.bytes().all(digit)
    {
        return Err(Problem::bad_attribute("`data_base64` is not base64 with padding (RFC 4648)"));
    }
    Ok(())
}

/// Refuses a name that the event has had before.
pub(super) fn duplicate(name: &str) -> Problem {
    Problem::new(
        RejectReason::DuplicateAttribute,
        format!("`{}` is there more than once", excerpt(name)),
    )
}
