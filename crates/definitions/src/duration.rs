//! Durations: `200ms`, `10s`, `5m`, `24h`, `7d`, or a number of seconds.

use crate::fields::Reader;
use crate::tree::{Located, Tree};

/// What a duration looks like, for messages.
const SHAPE: &str = "a duration such as `200ms`, `10s`, `5m`, `24h`, or a number of seconds";

/// Reads a duration in milliseconds; reports what is none.
pub(crate) fn milliseconds(reader: &mut Reader, path: &str, located: &Located) -> Option<u64> {
    let read = match &located.value {
        Tree::Number(number) => {
            number.as_u64().and_then(|seconds| seconds.checked_mul(1_000)).or_else(|| {
                let seconds = number.as_f64().filter(|seconds| (0.0..1e9).contains(seconds))?;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "the range is checked; a fraction of a millisecond is dropped"
                )]
                Some((seconds * 1_000.0) as u64)
            })
        }
        Tree::Text(text) => parse(text),
        Tree::Null | Tree::Bool(_) | Tree::List(_) | Tree::Map(_) => None,
    };
    if read.is_none() {
        reader.problems.add(located.start, path, format!("expected {SHAPE}"));
    }
    read
}

fn parse(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_milliseconds_to_days() {
        for (text, ms) in [
            ("200ms", 200),
            ("10s", 10_000),
            ("5m", 300_000),
            ("24h", 86_400_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(parse(text), Some(ms), "{text}");
        }
        for refused in ["", "s", "10", "1.5s", "-1s", "10 s", "99999999999999999999s", "1w", "ü"] {
            assert_eq!(parse(refused), None, "{refused}");
        }
    }
}
